#include "engine/typical.h"

#include <string.h>

/* Arguments as words: dtype, then a letter for each dimension. Dtypes: x the data's, s that of sums, i i32, d f64, h
 * bf16; '-' is an absent argument. What is added into follows '>'. */
typedef struct typical_row {
    int op;
    const char *args;
} typical_row;

static const typical_row typical_rows[] = {
    {OP_embedding, "iBT xVD"},
    {OP_embedding_bwd, "iBT xBTD > sVD"},
    {OP_linear, "xBTD xFD sF"},
    {OP_linear_dx, "xBTF xFD"},
    {OP_linear_dw, "xBTF xBTD > sFD sF"},
    {OP_layernorm, "xBTD sD sD"},
    {OP_layernorm_bwd, "xBTD xBTD sD sR sR > - sD sD"},
    {OP_batchnorm, "xBTD sD sD"},
    {OP_batchnorm_bwd, "xBTD xBTD sD sD sD > - sD sD"},
    {OP_rmsnorm, "xBTD sD"},
    {OP_rmsnorm_bwd, "xBTD xBTD sD sR > - sD"},
    {OP_scalenorm, "xBTD s1"},
    {OP_scalenorm_bwd, "xBTD xBTD s1 sR > - s1"},
    {OP_rope_table, "iBT dM"},
    {OP_rope, "xBTHW sBTW"},
    {OP_attention, "xBTHW xBTKW xBTKW"},
    {OP_attention_bwd, "xBTHW xBTHW xBTKW xBTKW xBTHW sBHT"},
    {OP_attention_kv, "x8HW x8CKW x8CKW i8 i8"},
    {OP_kv_write, "x8KW i8 i8 > x8CKW"},
    {OP_act, "xBTF"},
    {OP_act_bwd, "xBTF xBTF"},
    {OP_glu, "xBTF xBTF"},
    {OP_glu_bwd, "xBTF xBTF xBTF"},
    {OP_add, "xBTD xBTD"},
    {OP_mul, "xBTD xBTD"},
    {OP_scale, "xBTD"},
    {OP_dropout, "xBTD"},
    {OP_softmax, "xBTT"},
    {OP_softmax_bwd, "xBTT xBTT"},
    {OP_softcap, "xBTD"},
    {OP_softcap_bwd, "xBTD xBTD"},
    {OP_loss_head, "xBTD xVD iBT s1"},
    {OP_loss_head_bwd, "s1 xBTD xVD iBT s1 sR > - sVD"},
    {OP_reduce, "xBTD"},
    {OP_broadcast, "s1"},
    {OP_global_norm, "sN"},
    {OP_adamw, "sP s1 > sN sN sN sN hN"},
    {OP_cast, "xBTD"},
    {OP_split, "xBTF"},
    {OP_concat, "xBTD xBTD xBTD"},
    {OP_reshape, "xBTD"},
    {OP_offset_scale, "xBTW sT sT"}, /* four heads */
    {OP_offset_scale_bwd, "xBTT xBTW sT"},
    {OP_shift, "xBTD"},
    {OP_grid_order, "xBTD"},
    {OP_shift_step, "x8D i8 i8 > - x82T"},
    {OP_gau_attention, "xBTW xBTW xBTD"},
    {OP_gau_attention_bwd, "xBTD xBTW xBTW xBTD"},
    {OP_gau_attention_kv, "x8W x8C1W x8C1D i8 i8"},
    {OP_mixed_chunk, "xBTW xBTW xBTW xBTW xBTD"},
    {OP_mixed_chunk_bwd, "xBTD - xBTW xBTW xBTW xBTW xBTD"},
    {OP_chunk_step, "x8W x8W x8W x8W x8D i8 i8 > - s8WD x8WW x8WW x8WD"},
    {OP_chunk_reach, "xBTW xBTW xBTD"},
    {OP_chunk_reach_bwd, "xBTD xBTW xBTW xBTD iBT2"},
    {OP_chunk_reach_kv, "x8W x8C1W x8C1D i8 i8"},
    {OP_chunk_state, "xBTHW xBTHW xBTHW sH"}, /* retention: a decay for each head */
    {OP_chunk_state_bwd, "xBTHW - xBTHW xBTHW xBTHW sH"},
    {OP_chunk_state_step, "x8HW x8HW x8HW sH i8 i8 > - s8HWW"},
    {OP_delta_rule, "xBTHW xBTHW xBTHW - - - sBTH"},
    {OP_delta_rule_bwd, "xBTHW - xBTHW xBTHW xBTHW - - - sBTH"},
    {OP_delta_rule_step, "x8HW x8HW x8HW - i8 i8 s8H > - s8HWW"},
    {OP_rel_buckets, "s1W"},
    {OP_rel_buckets_bwd, "s1L"},
    {OP_rel_toeplitz, "s1T"},
    {OP_rel_toeplitz_bwd, "s1L s1T"},
    {OP_time_mix, "xWT xBTHW"},
    {OP_time_mix_bwd, "xBWHW xWT xBTHW"},
    {OP_segment_mean, "xBTHW"},
    {OP_matmul, "xBWHW xBWHW"},
    {OP_inverse_start, "xBWHW"},
    {OP_inverse_start_bwd, "xBWHW xBWHW"},
    {OP_row_divide, "xBTD xBT1"},
    {OP_row_divide_bwd, "xBTD xBT1 xBTD"},
    {OP_favor, "xBTF xBTW"},
    {OP_favor_bwd, "xBTF xBTW xBTF"},
    {OP_route, "sR8"}, /* 2 of 8 experts */
    {OP_route_bwd, "sR8 iR2 sR2 s8"},
    {OP_balance, "s8 s8 s1"},
    {OP_balance_bwd, "s1 s8 s1"},
    {OP_expert_sort, "iR2"},
    {OP_expert_linear, "xQD xED i9"},
    {OP_expert_linear_dx, "xQF xED i9"},
    {OP_expert_linear_dw, "xQF xQD i9"},
    {OP_expert_sum, "xQD sR2 iR2"},
    {OP_expert_sum_bwd, "xRD xQD sR2 iR2"},
};

enum { B = 2, T = 256, D = 512, F = 2048, V = 8192, H = 8, K = 4, W = 64, C = 512, N = 1 << 20 };

static int64_t typical_dim(char c) {
    switch (c) {
    case 'B': return B;
    case 'T': return T;
    case 'D': return D;
    case 'F': return F;
    case 'V': return V;
    case 'H': return H;
    case 'K': return K;
    case 'W': return W;
    case 'M': return W / 2;
    case 'C': return C;
    case 'R': return B * T;
    case 'Q': return 2 * B * T;
    case 'E': return 8 * F;
    case 'N': return N;
    case 'L': return 2 * C - 1; /* distances in a context */
    case 'P': return HYPER_COUNT;
    default: return c - '0';
    }
}

static tl_desc typical_desc(const char **at, tl_dtype x) {
    const char *s = *at;
    int64_t dim[TL_DIMS];
    int n = 0;
    tl_dtype t = TL_NONE;
    switch (*s++) {
    case 'x': t = x; break;
    case 's': t = TL_F32; break;
    case 'i': t = TL_I32; break;
    case 'd': t = TL_F64; break;
    case 'h': t = TL_BF16; break;
    default: break;
    }
    while (*s && *s != ' ') dim[n++] = typical_dim(*s++);
    while (*s == ' ') s++;
    *at = s;
    return t == TL_NONE ? (tl_desc){.dtype = TL_NONE} : tl_desc_make(t, n, dim);
}

static void typical_attr(int op, tl_dtype dtype, void *to) {
    union {
        struct embedding_bwd_attr embedding;
        struct attention_attr attention;
        struct rmsnorm_attr norm;
        struct act_attr act;
        struct scale_attr scale;
        struct softcap_attr cap;
        struct dropout_attr dropout;
        struct broadcast_attr broadcast;
        struct adamw_attr adamw;
        struct cast_attr cast;
        struct split_attr split;
        struct concat_attr concat;
        struct reshape_attr reshape;
        struct shift_attr shift;
        struct grid_order_attr grid;
        struct gau_attention_attr gau;
        struct mixed_chunk_attr chunk;
        struct chunk_reach_attr reach;
        struct chunk_state_attr state;
        struct rel_buckets_attr buckets;
        struct rel_toeplitz_attr toeplitz;
        struct segment_mean_attr segment;
        struct row_divide_attr divide;
        struct route_attr route;
        struct balance_attr balance;
        struct expert_sort_attr sort;
        unsigned char bytes[TL_ATTR_MAX];
    } a;
    memset(&a, 0, sizeof a);
    switch (op) {
    case OP_embedding_bwd: a.embedding = (struct embedding_bwd_attr){.scale = 1, .vocab = V}; break;
    case OP_attention:
    case OP_attention_bwd: a.attention.causal = 1; break;
    case OP_shift: a.shift.channels = D / 2; break;
    case OP_grid_order: a.grid = (struct grid_order_attr){.rows = T, .cols = 1, .high = 1, .wide = 1}; break;
    case OP_gau_attention:
    case OP_gau_attention_bwd:
    case OP_gau_attention_kv:
    case OP_mixed_chunk:
    case OP_mixed_chunk_bwd:
    case OP_chunk_step:
        a.gau.f.causal = 1;
        a.gau.f.count = GATE_COUNT_VISIBLE;
        if (op == OP_mixed_chunk || op == OP_mixed_chunk_bwd || op == OP_chunk_step) a.chunk.chunk = W;
        break;
    case OP_chunk_reach:
    case OP_chunk_reach_bwd:
    case OP_chunk_reach_kv:
        a.reach = (struct chunk_reach_attr){.f = {.causal = 1, .count = GATE_COUNT_VISIBLE}, .chunk = W, .top = 2};
        break;
    case OP_chunk_state:
    case OP_chunk_state_bwd:
    case OP_chunk_state_step: a.state.causal = 1; break;
    case OP_rel_buckets:
    case OP_rel_buckets_bwd: a.buckets = (struct rel_buckets_attr){.reach = C, .buckets = W, .distance = 128}; break;
    case OP_rel_toeplitz:
    case OP_rel_toeplitz_bwd: a.toeplitz.reach = C; break;
    case OP_segment_mean: a.segment.rows = W; break;
    case OP_row_divide:
    case OP_row_divide_bwd: a.divide.eps = 1e-6f; break;
    case OP_route:
    case OP_route_bwd: a.route = (struct route_attr){.k = 2, .norm = 1}; break;
    case OP_balance:
    case OP_balance_bwd: a.balance = (struct balance_attr){.coef = 0.01f, .k = 2, .layers = 1}; break;
    case OP_expert_sort: a.sort.experts = 8; break;
    case OP_layernorm:
    case OP_layernorm_bwd:
    case OP_batchnorm:
    case OP_batchnorm_bwd:
    case OP_rmsnorm:
    case OP_rmsnorm_bwd:
    case OP_scalenorm:
    case OP_scalenorm_bwd: a.norm.eps = 1e-5f; break;
    case OP_act:
    case OP_act_bwd:
    case OP_glu:
    case OP_glu_bwd: a.act.kind = ACT_SILU; break;
    case OP_scale: a.scale.by = 0.5f; break;
    case OP_softcap:
    case OP_softcap_bwd: a.cap.cap = 30; break;
    case OP_dropout: a.dropout.p = 0.1f; break;
    case OP_broadcast: a.broadcast = (struct broadcast_attr){.ndim = 3, .dtype = dtype, .dim = {B, T, D}}; break;
    case OP_adamw: a.adamw.decay = 1; break;
    case OP_cast: a.cast.dtype = dtype == TL_F32 ? TL_BF16 : TL_F32; break;
    case OP_split: a.split = (struct split_attr){.n = 2, .width = {F / 2, F / 2}}; break;
    case OP_concat: a.concat.n = 3; break;
    case OP_reshape: a.reshape = (struct reshape_attr){.ndim = 2, .dim = {B * T, D}}; break;
    default: break;
    }
    memcpy(to, &a, sizeof a.bytes);
}

tl_status typical_make(int op, tl_dtype dtype, typical_call *t, tl_error *err) {
    memset(t, 0, sizeof *t);
    const char *at = NULL;
    for (size_t i = 0; i < sizeof typical_rows / sizeof *typical_rows; i++)
        if (typical_rows[i].op == op) at = typical_rows[i].args;
    if (!at) return error_set(err, TL_NOTFOUND, "no typical call of %s", op_table[op].name);
    typical_attr(op, dtype, t->attr);
    tl_op_infer s = {.attr = t->attr, .err = err};
    for (int i = 0; *at && *at != '>'; i++) t->call.in[i].d = typical_desc(&at, dtype);
    if (*at == '>') at += 2;
    for (int k = 0; *at; k++) {
        s.out[k] = typical_desc(&at, dtype);
        if (s.out[k].dtype != TL_NONE) t->call.acc |= 1u << k;
    }
    for (int i = 0; i < op_table[op].n_in; i++) s.in[i] = t->call.in[i].d.dtype == TL_NONE ? NULL : &t->call.in[i].d;
    TRY(op_table[op].shape(&s));
    for (int k = 0; k < op_table[op].n_out; k++) t->call.out[k].d = s.out[k];
    t->call.attr = t->attr;
    return TL_OK;
}
