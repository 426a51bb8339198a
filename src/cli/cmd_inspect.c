/* tilia inspect MODEL: every tensor with its role, shape, bytes and FLOPs. */
#include "cli/cli.h"

#include "model/gguf.h"

#include <string.h>

typedef struct options {
    cli_common common;
    const char *model;
} options;

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case ARGP_KEY_ARG:
        if (o->model) argp_error(st, "more than one model");
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->model) argp_error(st, "which model?");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    NULL,     parse, "MODEL", "Every tensor of a model: name in its file, role, shape, bytes, FLOPs a token.",
    children, NULL,  NULL};

static const char *const roles[ROLES] = {[ROLE_EMBED] = "token embedding",
                                         [ROLE_POS] = "position table",
                                         [ROLE_NORM_GAIN] = "norm gain",
                                         [ROLE_NORM_BIAS] = "norm bias",
                                         [ROLE_QKV] = "query, key, value",
                                         [ROLE_QKV_BIAS] = "its bias",
                                         [ROLE_QNORM] = "query norm",
                                         [ROLE_KNORM] = "key norm",
                                         [ROLE_ATTN_OUT] = "attention output",
                                         [ROLE_ATTN_OUT_BIAS] = "its bias",
                                         [ROLE_UP] = "mlp in",
                                         [ROLE_UP_BIAS] = "its bias",
                                         [ROLE_DOWN] = "mlp out",
                                         [ROLE_DOWN_BIAS] = "its bias",
                                         [ROLE_CROSS_Q] = "queries of the source",
                                         [ROLE_CROSS_Q_BIAS] = "their bias",
                                         [ROLE_CROSS_KV] = "source keys, values",
                                         [ROLE_CROSS_KV_BIAS] = "their bias",
                                         [ROLE_CROSS_OUT] = "output of the source",
                                         [ROLE_CROSS_OUT_BIAS] = "its bias",
                                         [ROLE_GAU_IN] = "gate, values, base",
                                         [ROLE_GAU_IN_BIAS] = "its bias",
                                         [ROLE_GAMMA] = "head scales",
                                         [ROLE_BETA] = "head offsets",
                                         [ROLE_REL_BIAS] = "relative bias",
                                         [ROLE_CROSS_THETA] = "source temperature",
                                         [ROLE_CROSS_SINK] = "source sink",
                                         [ROLE_THETA] = "log temperature",
                                         [ROLE_SINK] = "sink",
                                         [ROLE_ACT_BETA] = "slope of swish",
                                         [ROLE_MIX_GATE] = "gate of the mixer",
                                         [ROLE_MIX_DECAY] = "decays",
                                         [ROLE_MIX_DECAY_BIAS] = "its bias",
                                         [ROLE_MIX_TIME] = "projections along the text",
                                         [ROLE_MIX_BETA] = "strength of corrections",
                                         [ROLE_FEATURES] = "random features",
                                         [ROLE_HEAD] = "output head",
                                         [ROLE_HEAD_BIAS] = "its bias",
                                         [ROLE_ROUTER] = "router",
                                         [ROLE_EXPERT_UP] = "experts in",
                                         [ROLE_EXPERT_DOWN] = "experts out",
                                         [ROLE_ATTN_BIAS] = "relative bias",
                                         [ROLE_SIN_SCALE] = "sinusoids' scale",
                                         [ROLE_LORA_A] = "adapter, inwards",
                                         [ROLE_LORA_B] = "adapter, outwards"};

/* stored: the type in the file, where the matrix stays there. */
static void print_piece(const options *o, const model_config *c, const model_param *m, const param_piece *p,
                        tl_dtype stored, bool first) {
    int64_t n = p->rows ? p->rows * p->cols : p->cols;
    long long bytes = n / tl_dtype_block(stored) * (int64_t)tl_dtype_bytes(stored);
    const char *type = tl_dtype_name(stored);
    /* a table is looked up, not multiplied */
    int64_t flops = p->rows && m->role != ROLE_EMBED && m->role != ROLE_POS ? 2 * n : 0;
    if (m->role == ROLE_EXPERT_UP || m->role == ROLE_EXPERT_DOWN) /* on average: a token meets some of them */
        flops = flops / c->experts * c->experts_used;
    char shape[64];
    if (p->experts)
        snprintf(shape, sizeof shape, "%lld x %lld x %lld", (long long)p->experts, (long long)(p->rows / p->experts),
                 (long long)p->cols);
    else if (p->rows)
        snprintf(shape, sizeof shape, "%lld x %lld", (long long)(p->transposed ? p->cols : p->rows),
                 (long long)(p->transposed ? p->rows : p->cols));
    else
        snprintf(shape, sizeof shape, "%lld", (long long)p->cols);
    if (o->common.json)
        printf("%s{\"name\": \"%s\", \"role\": \"%s\", \"shape\": \"%s\", \"dtype\": \"%s\", \"params\": %lld, "
               "\"bytes\": %lld, "
               "\"flops_per_token\": %lld}",
               first ? "" : ", ", p->name, roles[m->role], shape, type, (long long)n, bytes, (long long)flops);
    else
        printf("%-48s %-18s %16s  %-5s %12lld %12lld\n", p->name, roles[m->role], shape, type, bytes, (long long)flops);
}

int cmd_inspect(int argc, char **argv) {
    options o = {0};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    tl_engine *engine;
    tl_model *m;
    tl_error e = {0};
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    if (model_open_mapped(engine, o.model, &m, &e) != TL_OK) {
        tl_engine_destroy(engine);
        return cli_fail(&e);
    }
    if (o.common.json)
        printf("{\"params\": %lld, \"params_active\": %lld, \"tensors\": [", (long long)m->params.count,
               (long long)m->params.count_active);
    else
        printf("%-48s %-18s %16s  %-5s %12s %12s\n", "tensor", "role", "shape", "", "bytes", "FLOPs/token");
    for (size_t i = 0; i < m->params.n; i++) {
        param_format f = m->gguf ? FORMAT_GGUF : FORMAT_HF;
        const model_param *q = &m->params.list[i];
        for (int k = 0; k < params_piece_total(&m->config, q, f); k++) {
            param_piece p;
            params_piece_get(&m->config, q, f, k, &p);
            tl_dtype stored = m->mapped.piece ? m->mapped.piece[i * PARAM_PIECES + (size_t)k].dtype : TL_NONE;
            print_piece(&o, &m->config, q, &p, stored ? stored : TL_F32, i == 0 && k == 0);
        }
    }
    for (size_t i = 0; m->lora && i < m->lora->params.n; i++) {
        const model_param *q = &m->lora->params.list[i];
        param_piece p = {.rows = q->rows, .cols = q->cols};
        memcpy(p.name, q->name, sizeof q->name);
        print_piece(&o, &m->config, q, &p, TL_F32, false);
    }
    char a[32], b[32], d[32];
    if (o.common.json)
        printf("]}\n");
    else
        printf("\n%s parameters (%s without embeddings%s%s), %zu tensors%s\n",
               cli_count((double)m->params.count, a, sizeof a),
               cli_count((double)m->params.count_no_embedding, b, sizeof b), m->config.experts ? ", active " : "",
               m->config.experts ? cli_count((double)m->params.count_active, d, sizeof d) : "", m->params.n,
               m->config.tied ? "; the head is the token embedding" : "");
    model_close(m);
    tl_engine_destroy(engine);
    return EXIT_DONE;
}
