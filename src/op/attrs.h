/* Attributes of the built-in operators: public, since whoever calls tl_eval or tl_apply fills them. */
#ifndef OP_ATTRS_H
#define OP_ATTRS_H

#include "tilia/attrs.h"

/* Gated attention. The weight f(T) of a score: sum kinds add up, normalised kinds make rows of a fixed norm. */
enum { GATE_RELU2, GATE_LAPLACE, GATE_SOFTPLUS2, GATE_SMOOTH2, GATE_SMOOTH1, GATE_IDENTITY, /* sum kinds */
       GATE_SOFTMAX, GATE_L2, GATE_RELU2_SUM, GATE_KINDS };
/* N_i of sum kinds: one; the keys that row i sees; attr.fixed; the tokens of the sequence, which no causal row may know */
enum { GATE_COUNT_NONE, GATE_COUNT_VISIBLE, GATE_COUNT_FIXED, GATE_COUNT_LENGTH, GATE_COUNTS };
/* Nl_i of the linear part of mixed chunks: the tokens in M_i; or, of old checkpoints, the chunk's length (causal), the
 * sequence's length with its padding (not causal) */
enum { CHUNK_VISIBLE, CHUNK_CONST, CHUNK_NORMS };
struct offset_scale_attr { int32_t pad; };
struct offset_scale_bwd_attr { int32_t beta; };                    /* 1: there is a beta, so a dbeta */
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
struct mixed_chunk_attr { struct gate_attr f; int64_t chunk; int32_t norm; int32_t pad; };
struct mixed_chunk_bwd_attr { struct mixed_chunk_attr f; };
struct chunk_step_attr { struct mixed_chunk_attr f; };             /* f.chunk comes from the state bound through acc */

#endif
