/* tilia/attrs.h: attributes of the built-in operators, for tl_eval and tl_apply: one typed struct each, named
 * <op>_attr. Plain C that C++ takes too. Zero-initialise before filling: they are compared and hashed as bytes. At most
 * TL_ATTR_MAX bytes. Other languages ask tl_op_attr_fields for the layout. */
#ifndef TILIA_ATTRS_H
#define TILIA_ATTRS_H

#include "tilia/op.h"

#ifdef __cplusplus
extern "C" {
#endif

/* kinds of act and glu */
enum { ACT_RELU, ACT_GELU, ACT_GELU_TANH, ACT_SILU, ACT_RELU2, ACT_SIGMOID, ACT_TANH, ACT_IDENTITY, ACT_KINDS };

enum { ROPE_HALF = 0, ROPE_INTERLEAVED = 1 };
enum { REDUCE_ALL = 0, REDUCE_ROWS = 1, REDUCE_LAST = 2 }; /* to (1); over all dims but the last; over the last */
enum { HYPER_LR, HYPER_BETA1, HYPER_BETA2, HYPER_EPS, HYPER_DECAY, HYPER_CLIP, HYPER_BC1, HYPER_BC2, HYPER_GSCALE,
       HYPER_COUNT = 16 };

struct embedding_attr { float scale; tl_dtype dtype; };            /* scale 0 means 1; dtype of y */
struct embedding_bwd_attr { float scale; int32_t pad; int64_t vocab; };
struct linear_attr { tl_dtype dtype; };                            /* dtype of y; TL_NONE: x's */
struct linear_dx_attr { tl_dtype dtype; };
struct linear_dw_attr { int32_t pad; };
struct layernorm_attr { float eps; };
struct layernorm_bwd_attr { float eps; };
struct batchnorm_attr { float eps; };
struct batchnorm_bwd_attr { float eps; };
struct rmsnorm_attr { float eps; float offset; };                  /* gain is offset + w (Gemma: 1 + w) */
struct rmsnorm_bwd_attr { float eps; float offset; };
struct scalenorm_attr { float eps; };
struct scalenorm_bwd_attr { float eps; };
struct rope_table_attr { float mscale; tl_dtype dtype;             /* cos and sin times mscale, 0 means 1; TL_NONE: f32 */
    int64_t cols; int32_t column; int32_t pad; };                   /* cols > 0: of pos / cols, the row in a grid, or (column) pos mod cols */
struct rope_attr { int32_t style; int32_t inverse; };
struct attention_attr {
    float scale;           /* 0: 1/sqrt(Dh) */
    float softcap;         /* 0: none; T = cap tanh(scale q.k / cap) */
    int32_t causal;        /* j <= i + q_offset */
    float drop;            /* 0: none; probability that a weight counts nothing, the others 1/(1-drop) times */
    int64_t window;        /* 0: none; else only i + q_offset - j < window (and j - i - q_offset < window if not causal) */
    int64_t q_offset;      /* position of query 0 among the keys */
    int32_t op;            /* of drop: the operator's number in the Philox key; counter (row0 + row, head, key) */
    int32_t global;        /* beside a window: the first so many tokens of a document are seen by all that follow them and,
                              if not causal, by all, and see all */
};
struct attention_bwd_attr { struct attention_attr f; };
struct attention_kv_attr { float scale; float softcap; int64_t window; int64_t global; };
struct kv_write_attr { int32_t pad; };                             /* the cache's shape comes from the tensor bound through acc */
struct act_attr { int32_t kind; };
struct act_bwd_attr { int32_t kind; };
struct glu_attr { int32_t kind; };
struct glu_bwd_attr { int32_t kind; };
struct add_attr { int32_t pad; };
struct mul_attr { int32_t pad; };
struct scale_attr { float by; };
struct dropout_attr { float p; int32_t op; };                      /* op: the operator's number in the Philox key */
struct softmax_attr { int32_t pad; };
struct softmax_bwd_attr { int32_t pad; };
struct softcap_attr { float cap; };
struct softcap_bwd_attr { float cap; };
struct loss_head_attr { float smoothing; float zloss; float softcap; int32_t pad; };
struct loss_head_bwd_attr { struct loss_head_attr f; };
struct reduce_attr { int32_t kind; int32_t mean; };
struct broadcast_attr { int32_t kind; int32_t mean; int32_t ndim; tl_dtype dtype; int64_t dim[4]; }; /* adjoint of reduce */
struct global_norm_attr { int32_t pad; };
struct adamw_attr { int32_t decay; };                              /* 1: decoupled weight decay applies */
struct cast_attr { tl_dtype dtype; };
struct split_attr { int32_t n; int32_t pad; int64_t width[6]; };   /* widths of the outputs, along the last dim */
struct concat_attr { int32_t n; };
struct reshape_attr { int32_t ndim; int32_t pad; int64_t dim[4]; };

/* Gated attention. The weight f(T) of a score: sum kinds add up, normalised kinds make rows of a fixed norm. */
enum { GATE_RELU2, GATE_LAPLACE, GATE_SOFTPLUS2, GATE_SMOOTH2, GATE_SMOOTH1, GATE_IDENTITY, /* sum kinds */
       GATE_SOFTMAX, GATE_L2, GATE_RELU2_SUM, GATE_KINDS };
/* N_i of sum kinds: one; the keys that row i sees; attr.fixed; the tokens of the sequence, which no causal row may know */
enum { GATE_COUNT_NONE, GATE_COUNT_VISIBLE, GATE_COUNT_FIXED, GATE_COUNT_LENGTH, GATE_COUNTS };
/* Nl_i of the linear part of mixed chunks: the tokens in M_i; or, of old checkpoints, the chunk's length (causal), the
 * sequence's length with its padding (not causal) */
enum { CHUNK_VISIBLE, CHUNK_CONST, CHUNK_NORMS };
/* Parts of mixed chunks: both; the scores inside chunks alone; the linear part alone */
enum { CHUNK_BOTH, CHUNK_LOCAL, CHUNK_FAR, CHUNK_PARTS };
struct offset_scale_attr { int32_t pad; };
struct offset_scale_bwd_attr { int32_t beta; };                    /* 1: there is a beta, so a dbeta */
struct grid_order_attr { int64_t rows, cols, high, wide; int32_t inverse; int32_t pad; }; /* windows of high x wide */
struct shift_attr { int64_t channels; int32_t inverse; int32_t pad; };
struct shift_step_attr { int32_t pad; };                           /* channels come from the state bound through acc */
struct gate_attr {
    float alpha;      /* 0: 1/sqrt(s) */
    float bias_scale; /* 0: 1 */
    float eps;        /* of GATE_SMOOTH2 and GATE_SMOOTH1; 0: 0.5 */
    float fixed;      /* n of GATE_COUNT_FIXED */
    int32_t kind, count;
    int32_t causal;
    int32_t kappa;    /* softmax: alpha times log(max(keys row i sees, 16)) / log 512 */
};
struct gau_attention_attr { struct gate_attr f; };
struct gau_attention_bwd_attr { struct gate_attr f; };
struct gau_attention_kv_attr { struct gate_attr f; };
struct mixed_chunk_attr { struct gate_attr f; int64_t chunk; int32_t norm; int32_t parts; /* parts: CHUNK_BOTH .. */
    int64_t reach;     /* causal: so many chunks before its own a token sees exactly; the linear part begins behind them */
    int64_t period;    /* causal: chunks and M begin anew after so many tokens of a document, 0: never */
    int64_t rows, cols, high, wide; }; /* not causal: chunks are the windows of a grid, in the order of grid_order; rows 0: none */
struct mixed_chunk_bwd_attr { struct mixed_chunk_attr f; };
struct chunk_step_attr { struct mixed_chunk_attr f; };             /* f.chunk comes from the state bound through acc */

enum { REACH_MOST = 16 };                                          /* far chunks of a row at most */
struct chunk_reach_attr { struct gate_attr f; int64_t chunk; int64_t skip; int32_t top; int32_t pad; };
struct chunk_reach_bwd_attr { struct chunk_reach_attr f; };
struct chunk_reach_kv_attr { struct chunk_reach_attr f; };

/* Mixture of experts. */
enum { ROUTE_MOST = 64 };                                            /* experts of a token at most */
struct route_attr { int32_t k; int32_t norm; };                    /* norm 1: the weights of a token sum to one */
struct route_bwd_attr { struct route_attr f; };
struct balance_attr { float coef; int32_t k; int64_t layers; };    /* layers 0: 1 */
struct balance_bwd_attr { struct balance_attr f; };
struct expert_sort_attr { int64_t experts; };
struct expert_linear_attr { int32_t pad; };
struct expert_linear_dx_attr { int32_t pad; };
struct expert_linear_dw_attr { int32_t pad; };
struct expert_sum_attr { int32_t pad; };
struct expert_sum_bwd_attr { int32_t pad; };
struct chunk_state_attr { float scale; float tau; int32_t causal; int32_t ones; }; /* scale 0: 1 */
struct chunk_state_bwd_attr { struct chunk_state_attr f; };
struct chunk_state_step_attr { struct chunk_state_attr f; };
struct delta_rule_attr { float scale; float tau; };                  /* scale 0: 1 */
struct delta_rule_bwd_attr { struct delta_rule_attr f; };
struct delta_rule_step_attr { struct delta_rule_attr f; };
struct rel_buckets_attr { int64_t reach; int32_t buckets; int32_t distance; int32_t causal; float scale; }; /* scale 0: 1 */
struct rel_buckets_bwd_attr { struct rel_buckets_attr f; };
struct rel_toeplitz_attr { int64_t reach; float base; int32_t pad; };        /* base 0: 10000 */
struct rel_toeplitz_bwd_attr { struct rel_toeplitz_attr f; };
struct time_mix_attr { int32_t pad; };
struct time_mix_bwd_attr { int32_t pad; };
struct segment_mean_attr { int64_t rows; int32_t spread; int32_t pad; }; /* rows of the result */
struct matmul_attr { float alpha, beta, diag; int32_t ta, tb; int32_t pad; };  /* alpha 0: 1 */
struct inverse_start_attr { int32_t pad; };
struct inverse_start_bwd_attr { int32_t pad; };
struct row_divide_attr { float eps; };
struct row_divide_bwd_attr { float eps; };
struct favor_attr { int32_t pad; };
struct favor_bwd_attr { int32_t pad; };

/* One number, or a row of numbers, of an operator's attributes. type: 'f' float, 'i' int32_t, 'l' int64_t,
 * 'd' tl_dtype. Every byte of the struct that is not padding belongs to exactly one field. */
typedef struct tl_attr_field {
    const char *name; /* "scale" */
    char type;
    int32_t offset, count; /* bytes from the struct's beginning; numbers, 1 except for arrays */
} tl_attr_field;
/* The fields of a built-in operator's attributes in order, *n of them; NULL for an operator of the user's own.
 * [threads: any] [allocates: no] */
TL_API const tl_attr_field *tl_op_attr_fields(const tl_op_def *op, size_t *n);
/* Row i of the table of built-in operators, NULL behind the last. */
TL_API const tl_op_def *tl_op_at(size_t i);

#ifdef __cplusplus
}
#endif
#endif
