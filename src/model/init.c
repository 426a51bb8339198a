/* Initial weights: each element a function of (seed, parameter, element) alone, so they do not depend on threads. */
#include "base/rng.h"
#include "model/params.h"

#include <math.h>
#include <string.h>

static bool residual(param_role r) {
    return r == ROLE_ATTN_OUT || r == ROLE_DOWN || r == ROLE_EXPERT_DOWN || r == ROLE_CROSS_OUT;
}

/* Standard deviation of a matrix.
 * gpt2: std, residual projections std / sqrt(2L) (Radford et al. 2019; nanoGPT).
 * fan: 1/sqrt(fan in), truncated at 2 (PaLM's and Llama-like recipes); embeddings std.
 * xavier: sqrt(2 / (in + out)) (Glorot and Bengio 2010); embeddings std.
 * he: sqrt(2 / fan in), for relu and its kin (He et al. 2015); embeddings std.
 * zero-out: as fan, residual projections zero, so that every block begins as the identity (Zhang et al. 2019, Fixup).
 */
static double matrix_std(const model_param *m, const model_config *c) {
    bool table = m->role == ROLE_EMBED || m->role == ROLE_POS || (m->role == ROLE_HEAD && c->init == INIT_GPT2);
    if (m->role == ROLE_THETA || m->role == ROLE_CROSS_THETA) return 0; /* a temperature of 1 */
    if (c->init == INIT_GPT2) return residual(m->role) ? c->init_std / sqrt(2.0 * (double)c->layers) : c->init_std;
    if (table) return c->init_std;
    bool experts = m->role == ROLE_EXPERT_UP || m->role == ROLE_EXPERT_DOWN;
    int64_t rows = experts ? m->rows / c->experts : m->rows; /* of one of them */
    if (c->init == INIT_HE) return sqrt(2.0 / (double)m->cols);
    if (c->init == INIT_XAVIER) return sqrt(2.0 / (double)(rows + m->cols));
    if (c->init == INIT_ZERO_OUT && residual(m->role)) return 0;
    return 1 / sqrt((double)m->cols);
}

/* A normal number, drawn again until it lies within two deviations where the rule is truncated. */
static float draw(rng_key key, int64_t i, bool truncated) {
    for (uint64_t again = 0;; again++) {
        float x = rng_normal(key, again, (uint64_t)i);
        if (!truncated || fabsf(x) <= 2) return x;
    }
}

/* 2 d directions of d numbers: two orthogonal frames, each direction as long as a normal vector. */
static void features(rng_key key, int64_t d, float *w) {
    for (int64_t i = 0; i < 2 * d; i++) {
        float *x = w + i * d;
        double length = 0, sum = 0;
        for (int64_t k = 0; k < d; k++) {
            x[k] = rng_normal(key, 0, (uint64_t)(i * d + k));
            length += (double)x[k] * (double)x[k];
        }
        for (int again = 0; again < 2; again++)
            for (int64_t j = i / d * d; j < i; j++) {
                double dot = 0, own = 0;
                for (int64_t k = 0; k < d; k++) dot += (double)x[k] * (double)w[j * d + k];
                for (int64_t k = 0; k < d; k++) own += (double)w[j * d + k] * (double)w[j * d + k];
                for (int64_t k = 0; k < d; k++) x[k] -= (float)(dot / own * (double)w[j * d + k]);
            }
        for (int64_t k = 0; k < d; k++) sum += (double)x[k] * (double)x[k];
        for (int64_t k = 0; k < d; k++) x[k] = (float)((double)x[k] * sqrt(length / sum));
    }
}

void params_initialize(const model_params *p, const model_config *c, uint64_t seed, float *flat) {
    memset(flat, 0, (size_t)p->total * sizeof *flat);
    for (size_t k = 0; k < p->n; k++) {
        const model_param *m = &p->list[k];
        float *w = flat + m->offset;
        if (m->decay) {
            double std = matrix_std(m, c);
            bool truncated = c->init == INIT_FAN || c->init == INIT_ZERO_OUT;
            rng_key key = rng_key_make(seed, 0, 0x696e6974 + (uint64_t)k); /* "init" + number */
            if (std > 0)
                for (int64_t i = 0; i < m->rows * m->cols; i++) w[i] = (float)(std * (double)draw(key, i, truncated));
        } else if (m->role == ROLE_FEATURES) {
            features(rng_key_make(seed, 0, 0x696e6974 + (uint64_t)k), c->head_dim, w);
        } else if (m->role == ROLE_SIN_SCALE) {
            w[0] = (float)(1 / sqrt((double)c->width));
        } else if (m->role == ROLE_ACT_BETA) {
            w[0] = (float)c->act_beta;
        } else if (m->role == ROLE_REL_BIAS || m->role == ROLE_ATTN_BIAS ||
                   (m->role == ROLE_GAMMA && c->score_scale != SCALE_NS)) {
            /* the paper's and its first port's start; with scores over sqrt(s) it would leave them at zero */
            rng_key key = rng_key_make(seed, 0, 0x696e6974 + (uint64_t)k);
            for (int64_t i = 0; i < m->cols; i++) w[i] = (float)(c->init_std * (double)draw(key, i, false));
        } else if (m->role == ROLE_NORM_GAIN || m->role == ROLE_QNORM || m->role == ROLE_KNORM ||
                   m->role == ROLE_GAMMA) {
            float one = m->role == ROLE_NORM_GAIN && c->norm == NORM_RMS ? (float)(1 - c->norm_offset) : 1.0f;
            for (int64_t i = 0; i < m->cols; i++) w[i] = one;
        }
    }
}
