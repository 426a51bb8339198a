/* Parameters: one flat buffer, an offset table, and the names that other programs know them by. */
#ifndef MODEL_PARAMS_H
#define MODEL_PARAMS_H

#include "model/config.h"
#include "tensor/tensor.h"

typedef enum param_role {
    ROLE_EMBED,
    ROLE_POS,
    ROLE_NORM_GAIN,
    ROLE_NORM_BIAS,
    ROLE_QKV,
    ROLE_QKV_BIAS,
    ROLE_QNORM,
    ROLE_KNORM,
    ROLE_ATTN_OUT,
    ROLE_ATTN_OUT_BIAS,
    ROLE_UP,
    ROLE_UP_BIAS,
    ROLE_DOWN,
    ROLE_DOWN_BIAS,
    ROLE_GAU_IN, /* (2e+s, D): gate, values, base */
    ROLE_GAU_IN_BIAS,
    ROLE_GAMMA,
    ROLE_BETA,
    ROLE_REL_BIAS,
    ROLE_ATTN_BIAS, /* relative positions of ordinary attention: H times what REL_* needs */
    ROLE_MIX_GATE,  /* (H Dh, D) of mixers with a state */
    ROLE_MIX_DECAY, /* (H or H Dh, D) */
    ROLE_MIX_DECAY_BIAS,
    ROLE_THETA,    /* (1,1) the logarithm of a temperature: a matrix, so that it is decayed */
    ROLE_SINK,     /* (H), gau: (1) */
    ROLE_ACT_BETA, /* (1) */
    ROLE_MIX_TIME, /* (2 rows, context) of linformer: keys above values */
    ROLE_MIX_BETA, /* (H, D) how far a delta rule corrects */
    ROLE_FEATURES, /* (2 Dh Dh) fixed directions of random features: a constant */
    ROLE_CROSS_Q,  /* of a decoder layer beside an encoder: (H Dh, D); of a gated one (e+s, D), gate above query */
    ROLE_CROSS_Q_BIAS,
    ROLE_CROSS_KV, /* (2 Hk Dh, D), (s+e, D): keys above values */
    ROLE_CROSS_KV_BIAS,
    ROLE_CROSS_OUT, /* (D, H Dh), (D, e) */
    ROLE_CROSS_OUT_BIAS,
    ROLE_CROSS_THETA, /* as ROLE_THETA, ROLE_SINK */
    ROLE_CROSS_SINK,
    ROLE_SIN_SCALE, /* (1) of the sinusoids beside the embeddings */
    ROLE_HEAD,
    ROLE_HEAD_BIAS,
    ROLE_ROUTER,
    ROLE_EXPERT_UP,   /* (E 2F, D): gate, then up, expert above expert */
    ROLE_EXPERT_DOWN, /* (E D, F) */
    ROLE_LORA_A,      /* (rank, in), (out, rank): in the table of adapters alone */
    ROLE_LORA_B,
    ROLES
} param_role;

typedef struct model_param {
    char name[64]; /* ours: "blocks.3.qkv", "encoder.3.qkv" */
    param_role role;
    int32_t layer;      /* -1: not in a block; those of the encoder behind the others */
    int64_t rows, cols; /* a matrix (rows, cols), or a vector: rows 0, cols its length */
    int64_t offset;     /* elements, into the flat buffer; every parameter begins at a multiple of 16 */
    bool trainable;     /* has a gradient, where the model has no adapters */
    bool decay;         /* matrices: weight decay applies, and bf16 training keeps a bf16 copy */
} model_param;

typedef struct model_params {
    model_param *list; /* matrices first, then vectors; each group in model order */
    size_t n;
    int64_t total;   /* elements of the flat buffer, padding included */
    int64_t decayed; /* the first so many are matrices */
    int64_t count;   /* parameters without padding */
    int64_t count_no_embedding;
    int64_t count_active; /* of count, those that one token meets: k of E experts */
} model_params;

/* The table that a configuration needs. [owns: caller, params_fini] */
tl_status params_init(model_params *p, const tl_allocator *a, const model_config *c, tl_error *e);
/* Offsets and totals of a list that is there. */
void params_place(model_params *p);
void params_fini(model_params *p, const tl_allocator *a);
/* Index of the parameter of that role and layer, or -1. */
int64_t params_find(const model_params *p, param_role role, int32_t layer, int32_t nth);

/* Seeded initial values of the whole flat buffer (total elements; padding is zero). */
void params_initialize(const model_params *p, const model_config *c, uint64_t seed, float *flat);

/* ---- names in files ---- */
typedef enum param_format { FORMAT_HF, FORMAT_GGUF, FORMATS } param_format;

/* A piece of a parameter as a file holds it: rows [row, row + rows) of ours; or, of experts in one tensor, a part of
 * each: rows / experts rows from row on, and so again `stride` rows further. */
typedef struct param_piece {
    char name[128];
    int64_t row, rows, cols; /* rows 0: a vector piece of cols numbers starting at element row */
    bool transposed;         /* stored (cols, rows) */
    int64_t paired;          /* > 0: rows of a head, which the file has in the order of RoPE's pairs, ours in halves */
    double add;              /* the file has ours plus this */
    int64_t experts, stride; /* experts > 0: the file's tensor is (experts, rows / experts, cols) */
} param_piece;
enum { PARAM_PIECES = 3 };
/* In how many pieces files of a format store a parameter, and piece k of them. A tied head has no parameter. Experts
 * may be more than PARAM_PIECES. */
int params_piece_total(const model_config *c, const model_param *m, param_format f);
void params_piece_get(const model_config *c, const model_param *m, param_format f, int k, param_piece *out);
/* All experts of a layer as one tensor, as transformers has them in memory: true if m are experts. */
bool params_piece_fused(const model_config *c, const model_param *m, param_piece *out);
/* The first PARAM_PIECES of them; returns their total number. */
int params_pieces(const model_config *c, const model_param *m, param_format f, param_piece out[PARAM_PIECES]);
int64_t params_piece_count(const param_piece *p);
/* Where a piece lies that the file holds as we do; NULL if its numbers have to be moved or changed. */
float *params_piece_direct(const param_piece *p, const model_param *m, float *ours);
/* One piece between the flat buffer (whose parameter begins at ours) and a file's f32 elements. */
void params_piece_in(const param_piece *p, const model_param *m, const float *file, float *ours);
void params_piece_out(const param_piece *p, const model_param *m, const float *ours, float *file);

#endif
