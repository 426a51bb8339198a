/* Constants of the position schemes, in double: RoPE frequencies and their scalings, ALiBi slopes, sinusoids. */
#include "model/build.h"

#include <math.h>

int build_rope_parts(const model_config *c, int64_t dims[3]) {
    int n = 0;
    if (c->positions == POS_ROPE) {
        const int64_t gated = config_has_gated(c) ? (int64_t)((double)c->shared * c->rope_partial) : 0;
        dims[n++] = (int64_t)((double)c->head_dim * c->rope_partial);
        if (gated && gated != dims[0]) dims[n++] = gated;
    }
    if (config_has(c, MIXER_COSFORMER)) dims[n++] = 2 * c->head_dim;
    return n;
}

int64_t build_rope_dims(const model_config *c) {
    int64_t dims[3], n = 0;
    for (int i = build_rope_parts(c, dims) - 1; i >= 0; i--) n += dims[i];
    return n;
}

/* Dimension (of R) that turns `turns` times over the original context L (YaRN, Peng et al. 2023, equation 18). */
static double yarn_dim(double turns, double r, double base, double L) {
    return r * log(L / (2 * M_PI * turns)) / (2 * log(base));
}

static double yarn_ramp(int64_t k, double low, double high) {
    double x = ((double)k - low) / (high - low);
    return x < 0 ? 0 : x > 1 ? 1 : x;
}

static double llama3_scale(const model_config *c, double w, double L) {
    double wavelength = 2 * M_PI / w;
    if (wavelength < L / c->scaling_high) return w;
    if (wavelength > L / c->scaling_low) return w / c->scaling_factor;
    double s = (L / wavelength - c->scaling_low) / (c->scaling_high - c->scaling_low);
    return (1 - s) * w / c->scaling_factor + s * w;
}

static double rope_context(const model_config *c) {
    return (double)(c->scaling_context ? c->scaling_context : c->context);
}

static void part_freq(const model_config *c, int64_t r, int64_t seen, double *freq) {
    double f = c->scaling_factor, base = c->rope_theta, dims = (double)r, L = rope_context(c);
    if (c->scaling == SCALING_NTK) base *= pow(f, dims / (dims - 2));
    if (c->scaling == SCALING_DYNAMIC && (double)seen > L)
        base *= pow(f * (double)seen / L - (f - 1), dims / (dims - 2));
    double low = fmax(floor(yarn_dim(c->scaling_beta_fast, dims, base, L)), 0);
    double high = fmin(ceil(yarn_dim(c->scaling_beta_slow, dims, base, L)), dims - 1);
    if (high <= low) high = low + 0.001;
    for (int64_t k = 0; k < r / 2; k++) {
        double w = pow(base, -2.0 * (double)k / dims);
        if (c->scaling == SCALING_LINEAR) w /= f;
        if (c->scaling == SCALING_YARN) {
            double ramp = yarn_ramp(k, low, high);
            w = w / f * ramp + w * (1 - ramp);
        }
        if (c->scaling == SCALING_LLAMA3) w = llama3_scale(c, w, L);
        if (c->scaling == SCALING_LONGROPE) /* Ding et al. 2024: one list up to the old context, one beyond */
            w /= (double)((double)seen > L ? c->scaling_long[k] : c->scaling_short[k]);
        freq[k] = w;
    }
}

void build_rope_freq(const model_config *c, int64_t seen, double *freq, double *mscale) {
    double f = c->scaling_factor;
    *mscale = 1;
    if (c->scaling == SCALING_YARN && f > 1) *mscale = 0.1 * log(f) + 1;
    if (c->scaling == SCALING_LONGROPE && f > 1) *mscale = sqrt(1 + log(f) / log(rope_context(c)));
    if (c->scaling_attention > 0) *mscale = c->scaling_attention;
    if (!freq) return;
    int64_t dims[3];
    const int n = build_rope_parts(c, dims), cosine = config_has(c, MIXER_COSFORMER);
    for (int i = 0; i < n - cosine; freq += dims[i] / 2, i++) part_freq(c, dims[i], seen, freq);
    for (int64_t k = 0; cosine && k < c->head_dim; k++) freq[k] = M_PI / 2 / (double)c->context;
}

/* 2^(-8 h / H) for powers of two; otherwise the slopes of the power below, then every other one of the power above
 * (Press et al. 2021, and what the field's loaders expect). */
void build_alibi_slopes(int64_t heads, float *slopes) {
    int64_t two = 1;
    while (two * 2 <= heads) two *= 2;
    for (int64_t h = 0; h < heads; h++)
        slopes[h] = (float)(h < two ? pow(2, -8.0 * (double)(h + 1) / (double)two)
                                    : pow(2, -4.0 * (double)(2 * (h - two) + 1) / (double)two));
}

/* gamma_h = 1 - 2^(-5-h) (Sun et al. 2023) */
bool build_head_constants(const model_config *c, float *x) {
    if (c->positions == POS_ALIBI) {
        if (x) build_alibi_slopes(c->heads, x);
        return true;
    }
    for (int64_t h = 0; h < c->heads && x; h++) x[h] = (float)log1p(-pow(2, -5.0 - (double)h));
    return config_has(c, MIXER_RETENTION);
}

/* [sin | cos] halves, frequencies 10000^(-k / (D/2)) (Vaswani et al. 2017, with the halves side by side). */
void build_sinusoid(int64_t rows, int64_t width, float *table) {
    int64_t half = width / 2;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < half; k++) {
            double angle = (double)i * pow(10000, -(double)k / (double)half);
            table[i * width + k] = (float)sin(angle);
            table[i * width + half + k] = (float)cos(angle);
        }
}

int64_t build_sinusoid_rows(const model_config *c, int64_t context) {
    const int64_t most = context > config_source(c) ? context : config_source(c);
    return !config_sinusoids(c) ? 0 : most > c->context ? most : c->context;
}
