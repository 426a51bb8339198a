#include "study/convert.h"

#include "base/file.h"
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

/* ---- mixes -------------------------------------------------------------------------------------------------- */

enum mix_kind { MIX_PLAIN, MIX_HEAD, MIX_MEDIUM };

typedef struct mix_row {
    const char *name, *about;
    tl_dtype dtype;
    enum mix_kind kind;
    uint32_t file_type; /* llama.cpp's */
} mix_row;

/* The head keeps 6 bits beside 4, and in the medium mix so do the matrices that errors hurt most: values, and the
 * mlp's way down, in the first and last eighth of the layers and every third between (llama.cpp's choice, so that
 * files of one name weigh and behave alike). */
static const mix_row mixes[] = {{"f32", "as it is", TL_F32, MIX_PLAIN, 0},
                                {"f16", "half floats", TL_F16, MIX_PLAIN, 1},
                                {"bf16", "half floats with the exponent of f32", TL_BF16, MIX_PLAIN, 32},
                                {"f8_e4m3", "8 bits, 4 of them exponent; directories alone", TL_F8_E4M3, MIX_PLAIN, 0},
                                {"f8_e5m2", "8 bits, 5 of them exponent; directories alone", TL_F8_E5M2, MIX_PLAIN, 0},
                                {"q8_0", "8.5 bits, blocks of 32", TL_Q8_0, MIX_PLAIN, 7},
                                {"q6_k", "6.6 bits, blocks of 256", TL_Q6_K, MIX_PLAIN, 18},
                                {"q4_k_m", "4.8 bits on average: q4_k, where it matters q6_k", TL_Q4_K, MIX_MEDIUM, 15},
                                {"q4_0", "4.5 bits, blocks of 32; the head q6_k", TL_Q4_0, MIX_HEAD, 2}};
enum { MIXES = sizeof mixes / sizeof *mixes };

/* Types of the field that are no mix of ours. */
static const char *const known[] = {"q4_1",   "q5_0",   "q5_1",    "q2_k",   "q2_k_s", "q3_k",   "q3_k_s", "q3_k_m",
                                    "q3_k_l", "q4_k_s", "q5_k",    "q5_k_s", "q5_k_m", "iq1_s",  "iq1_m",  "iq2_xxs",
                                    "iq2_xs", "iq2_s",  "iq3_xxs", "iq3_s",  "iq4_nl", "iq4_xs", "mxfp4",  "tq1_0"};

const char *convert_type_name(size_t i, const char **about) {
    if (i >= MIXES) return NULL;
    if (about) *about = mixes[i].about;
    return mixes[i].name;
}

static tl_status find_mix(const char *name, const mix_row **out, tl_error *err) {
    if (!name) name = "f32";
    if (strcmp(name, "q4_k") == 0) name = "q4_k_m";
    char list[160] = "";
    size_t n = 0;
    for (size_t i = 0; i < MIXES; i++) {
        if (strcasecmp(mixes[i].name, name) == 0) {
            *out = &mixes[i];
            return TL_OK;
        }
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", mixes[i].name);
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcasecmp(known[i], name) == 0)
            return error_set(err, TL_UNSUPPORTED, "type %s is known but not supported; %s are", name, list);
    return error_set(err, TL_ARG, "no type \"%s\"; there are %s", name, list);
}

static bool more_bits(int64_t l, int64_t n) {
    return l < n / 8 || l >= 7 * n / 8 || (l - n / 8) % 3 == 2;
}

static bool is_values(const param_piece *p) {
    return strstr(p->name, ".attn_v.") || strstr(p->name, ".attn_qkv.");
}

static tl_dtype dtype_of(const mix_row *r, const model_config *c, const model_param *p, const param_piece *piece) {
    if (p->role == ROLE_POS || p->role == ROLE_ROUTER) return TL_F32; /* a wrong choice costs more than a wrong digit */
    tl_dtype t = r->dtype;
    bool head = p->role == ROLE_HEAD || (c->tied && p->role == ROLE_EMBED);
    if (r->kind != MIX_PLAIN && head) t = TL_Q6_K;
    if (r->kind == MIX_MEDIUM && (p->role == ROLE_DOWN || p->role == ROLE_EXPERT_DOWN || is_values(piece)) &&
        more_bits(p->layer, c->layers))
        t = TL_Q6_K;
    /* rows that are no whole blocks of 256 take blocks of 32, or none */
    if (piece->cols % tl_dtype_block(t)) t = r->dtype == TL_Q4_0 ? TL_Q4_0 : TL_Q8_0;
    return piece->cols % tl_dtype_block(t) ? TL_F16 : t;
}

tl_dtype convert_dtype(const char *type, const model_config *c, const model_param *p, const param_piece *piece) {
    const mix_row *r;
    return find_mix(type, &r, NULL) == TL_OK ? dtype_of(r, c, p, piece) : TL_NONE;
}

/* ---- fewer key-value heads --------------------------------------------------------------------------------------- */

/* Rows [first, first + from * size) of w are `from` heads; group by group they become averages, the rest moves up. */
static void average_heads(float *to, const float *from, int64_t heads, int64_t merged, int64_t size) {
    int64_t group = heads / merged;
    for (int64_t h = 0; h < merged; h++)
        for (int64_t i = 0; i < size; i++) {
            double sum = 0;
            for (int64_t k = 0; k < group; k++) sum += (double)from[(h * group + k) * size + i];
            to[h * size + i] = (float)(sum / (double)group);
        }
}

tl_status convert_kv_heads(tl_model *m, int64_t n, tl_error *err) {
    model_config c = m->config;
    if (n < 1 || c.kv_heads % n)
        return error_set(err, TL_ARG, "%lld key-value heads cannot be merged to %lld evenly", (long long)c.kv_heads,
                         (long long)n);
    model_params p;
    TRY(model_lift(m, err));
    c.kv_heads = n;
    TRY(config_check(&c, err));
    TRY(params_init(&p, m->alloc, &c, err));
    size_t bytes = (size_t)p.total * sizeof(float);
    float *flat = mem_take(m->alloc, bytes);
    if (!flat) {
        params_fini(&p, m->alloc);
        return error_set(err, TL_NOMEM, "no memory for %lld parameters", (long long)p.count);
    }
    memset(flat, 0, bytes);
    for (size_t i = 0; i < p.n; i++) { /* both tables have the same parameters in the same order */
        const model_param *a = &m->params.list[i], *b = &p.list[i];
        const float *src = m->flat + a->offset;
        float *dst = flat + b->offset;
        int64_t row = a->rows ? a->cols : 1, head = c.head_dim * row, q = c.heads * head;
        if (a->role != ROLE_QKV && a->role != ROLE_QKV_BIAS) {
            memcpy(dst, src, (size_t)(b->rows ? b->rows * b->cols : b->cols) * sizeof *dst);
            continue;
        }
        memcpy(dst, src, (size_t)q * sizeof *dst);
        average_heads(dst + q, src + q, m->config.kv_heads, n, head);
        average_heads(dst + q + n * head, src + q + m->config.kv_heads * head, m->config.kv_heads, n, head);
    }
    mem_give(m->alloc, m->flat, (size_t)m->params.total * sizeof(float));
    if (m->flat16) mem_give(m->alloc, m->flat16, (size_t)m->params.decayed * sizeof *m->flat16);
    params_fini(&m->params, m->alloc);
    m->flat16 = NULL;
    m->flat = flat;
    m->params = p;
    m->config = c;
    return TL_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------
 */

bool convert_is_gguf(const char *path) {
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}

typedef struct mix_user {
    const mix_row *mix;
    const convert_options *o;
} mix_user;

static tl_dtype choose(void *user, const model_config *c, const model_param *p, const param_piece *piece) {
    return dtype_of(((const mix_user *)user)->mix, c, p, piece);
}

static void told(void *user, const gguf_saved *t) {
    const convert_options *o = ((const mix_user *)user)->o;
    if (o->saved) o->saved(o->user, t);
}

tl_status convert_model(tl_model *m, const char *dst, const convert_options *o, tl_error *err) {
    mix_user u = {.o = o};
    bool file = convert_is_gguf(dst);
    TRY(find_mix(o->type, &u.mix, err));
    bool f8 = u.mix->dtype == TL_F8_E4M3 || u.mix->dtype == TL_F8_E5M2;
    if (!file && tensor_is_quantized(u.mix->dtype))
        return error_set(err, TL_ARG,
                         "a directory is written in f32, f16, bf16, f8_e4m3 or f8_e5m2; %s needs a path that ends with "
                         ".gguf",
                         o->type);
    if (file && f8) return error_set(err, TL_ARG, "GGUF has no type %s; it needs a directory", o->type);
    if (file && file_exists(dst) && !o->overwrite) {
        tl_status s = error_set(err, TL_BUSY, "is there already; nothing was overwritten");
        error_at_file(err, dst);
        return s;
    }
    TRY(lora_merge(m, err)); /* what is written runs everywhere: adapters go into the weights */
    if (o->kv_heads) TRY(convert_kv_heads(m, o->kv_heads, err));
    if (!file) return model_save_as(m, dst, u.mix->dtype, err);
    gguf_save_options so = {.dtype = choose, .saved = told, .user = &u, .file_type = u.mix->file_type};
    return model_write_gguf(m, dst, &so, err);
}
