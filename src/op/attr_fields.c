/* The layout of every attribute struct, for callers that are not C. Types and places come from the compiler; the tests
 * check that the fields cover each struct. */
#include "op/op.h"

#include <stddef.h>
#include <string.h>

#define AT(op, field) (((struct op##_attr *)0)->field)
#define TYPE(x)       _Generic((x), float : 'f', int32_t : 'i', int64_t : 'l', tl_dtype : 'd')
/* clang-format off */
#define F(op, field) {#field, TYPE(AT(op, field)), (int32_t)offsetof(struct op##_attr, field), 1},
#define A(op, field) {#field, TYPE(AT(op, field)[0]), (int32_t)offsetof(struct op##_attr, field), \
                      (int32_t)(sizeof AT(op, field) / sizeof AT(op, field)[0])},
/* a field of an attribute struct inside another, under its own name */
#define I(op, outer, field) {#field, TYPE(AT(op, outer.field)), (int32_t)offsetof(struct op##_attr, outer.field), 1},

static const tl_attr_field fields[] = {
#define ROW(op) {#op, 0, 0, 0},
ROW(embedding) F(embedding, scale) F(embedding, dtype)
ROW(embedding_bwd) F(embedding_bwd, scale) F(embedding_bwd, pad) F(embedding_bwd, vocab)
ROW(linear) F(linear, dtype)
ROW(linear_dx) F(linear_dx, dtype)
ROW(linear_dw) F(linear_dw, pad)
ROW(layernorm) F(layernorm, eps)
ROW(layernorm_bwd) F(layernorm_bwd, eps)
ROW(batchnorm) F(batchnorm, eps)
ROW(batchnorm_bwd) F(batchnorm_bwd, eps)
ROW(rmsnorm) F(rmsnorm, eps) F(rmsnorm, offset)
ROW(rmsnorm_bwd) F(rmsnorm_bwd, eps) F(rmsnorm_bwd, offset)
ROW(scalenorm) F(scalenorm, eps)
ROW(scalenorm_bwd) F(scalenorm_bwd, eps)
ROW(rope_table) F(rope_table, mscale) F(rope_table, dtype) F(rope_table, cols) F(rope_table, column) F(rope_table, pad)
ROW(rope) F(rope, style) F(rope, inverse)
ROW(attention) F(attention, scale) F(attention, softcap) F(attention, causal) F(attention, drop) F(attention, window)
               F(attention, q_offset) F(attention, op) F(attention, global)
ROW(attention_bwd) I(attention_bwd, f, scale) I(attention_bwd, f, softcap) I(attention_bwd, f, causal)
                   I(attention_bwd, f, drop) I(attention_bwd, f, window) I(attention_bwd, f, q_offset)
                   I(attention_bwd, f, op) I(attention_bwd, f, global)
ROW(attention_kv) F(attention_kv, scale) F(attention_kv, softcap) F(attention_kv, window)
                  F(attention_kv, global)
ROW(kv_write) F(kv_write, pad)
ROW(act) F(act, kind)
ROW(act_bwd) F(act_bwd, kind)
ROW(glu) F(glu, kind)
ROW(glu_bwd) F(glu_bwd, kind)
ROW(add) F(add, pad)
ROW(mul) F(mul, pad)
ROW(scale) F(scale, by)
ROW(dropout) F(dropout, p) F(dropout, op)
ROW(softmax) F(softmax, pad)
ROW(softmax_bwd) F(softmax_bwd, pad)
ROW(softcap) F(softcap, cap)
ROW(softcap_bwd) F(softcap_bwd, cap)
ROW(loss_head) F(loss_head, smoothing) F(loss_head, zloss) F(loss_head, softcap) F(loss_head, pad)
ROW(loss_head_bwd) I(loss_head_bwd, f, smoothing) I(loss_head_bwd, f, zloss) I(loss_head_bwd, f, softcap)
                   I(loss_head_bwd, f, pad)
ROW(reduce) F(reduce, kind) F(reduce, mean)
ROW(broadcast) F(broadcast, kind) F(broadcast, mean) F(broadcast, ndim) F(broadcast, dtype) A(broadcast, dim)
ROW(global_norm) F(global_norm, pad)
ROW(adamw) F(adamw, decay)
ROW(cast) F(cast, dtype)
ROW(split) F(split, n) F(split, pad) A(split, width)
ROW(concat) F(concat, n)
ROW(reshape) F(reshape, ndim) F(reshape, pad) A(reshape, dim)
ROW(offset_scale) F(offset_scale, pad)
ROW(offset_scale_bwd) F(offset_scale_bwd, beta)
ROW(grid_order) F(grid_order, rows) F(grid_order, cols) F(grid_order, high) F(grid_order, wide) F(grid_order, inverse)
                F(grid_order, pad)
ROW(shift) F(shift, channels) F(shift, inverse) F(shift, pad)
ROW(shift_step) F(shift_step, pad)
ROW(gau_attention) I(gau_attention, f, alpha) I(gau_attention, f, bias_scale) I(gau_attention, f, eps)
                   I(gau_attention, f, fixed) I(gau_attention, f, kind) I(gau_attention, f, count)
                   I(gau_attention, f, causal) I(gau_attention, f, kappa)
ROW(gau_attention_bwd) I(gau_attention_bwd, f, alpha) I(gau_attention_bwd, f, bias_scale)
                       I(gau_attention_bwd, f, eps) I(gau_attention_bwd, f, fixed) I(gau_attention_bwd, f, kind)
                       I(gau_attention_bwd, f, count) I(gau_attention_bwd, f, causal) I(gau_attention_bwd, f, kappa)
ROW(gau_attention_kv) I(gau_attention_kv, f, alpha) I(gau_attention_kv, f, bias_scale) I(gau_attention_kv, f, eps)
                      I(gau_attention_kv, f, fixed) I(gau_attention_kv, f, kind) I(gau_attention_kv, f, count)
                      I(gau_attention_kv, f, causal) I(gau_attention_kv, f, kappa)
ROW(mixed_chunk) I(mixed_chunk, f, alpha) I(mixed_chunk, f, bias_scale) I(mixed_chunk, f, eps)
                 I(mixed_chunk, f, fixed) I(mixed_chunk, f, kind) I(mixed_chunk, f, count) I(mixed_chunk, f, causal)
                 I(mixed_chunk, f, kappa) F(mixed_chunk, chunk) F(mixed_chunk, norm) F(mixed_chunk, parts)
                 F(mixed_chunk, reach) F(mixed_chunk, period) F(mixed_chunk, rows) F(mixed_chunk, cols)
                 F(mixed_chunk, high) F(mixed_chunk, wide)
ROW(mixed_chunk_bwd) I(mixed_chunk_bwd, f.f, alpha) I(mixed_chunk_bwd, f.f, bias_scale) I(mixed_chunk_bwd, f.f, eps)
                     I(mixed_chunk_bwd, f.f, fixed) I(mixed_chunk_bwd, f.f, kind) I(mixed_chunk_bwd, f.f, count)
                     I(mixed_chunk_bwd, f.f, causal) I(mixed_chunk_bwd, f.f, kappa) I(mixed_chunk_bwd, f, chunk)
                     I(mixed_chunk_bwd, f, norm) I(mixed_chunk_bwd, f, parts) I(mixed_chunk_bwd, f, reach)
                     I(mixed_chunk_bwd, f, period) I(mixed_chunk_bwd, f, rows) I(mixed_chunk_bwd, f, cols)
                     I(mixed_chunk_bwd, f, high) I(mixed_chunk_bwd, f, wide)
ROW(chunk_step) I(chunk_step, f.f, alpha) I(chunk_step, f.f, bias_scale) I(chunk_step, f.f, eps)
                I(chunk_step, f.f, fixed) I(chunk_step, f.f, kind) I(chunk_step, f.f, count)
                I(chunk_step, f.f, causal) I(chunk_step, f.f, kappa) I(chunk_step, f, chunk) I(chunk_step, f, norm)
                I(chunk_step, f, parts) I(chunk_step, f, reach) I(chunk_step, f, period) I(chunk_step, f, rows)
                I(chunk_step, f, cols) I(chunk_step, f, high) I(chunk_step, f, wide)
ROW(chunk_reach) I(chunk_reach, f, alpha) I(chunk_reach, f, bias_scale) I(chunk_reach, f, eps) I(chunk_reach,
    f, fixed) I(chunk_reach, f, kind) I(chunk_reach, f, count) I(chunk_reach, f, causal) I(chunk_reach, f,
    kappa) F(chunk_reach, chunk) F(chunk_reach, skip) F(chunk_reach, top) F(chunk_reach, pad)
ROW(chunk_reach_bwd) I(chunk_reach_bwd, f.f, alpha) I(chunk_reach_bwd, f.f, bias_scale) I(chunk_reach_bwd,
    f.f, eps) I(chunk_reach_bwd, f.f, fixed) I(chunk_reach_bwd, f.f, kind) I(chunk_reach_bwd, f.f, count)
    I(chunk_reach_bwd, f.f, causal) I(chunk_reach_bwd, f.f, kappa) I(chunk_reach_bwd, f, chunk)
    I(chunk_reach_bwd, f, skip) I(chunk_reach_bwd, f, top) I(chunk_reach_bwd, f, pad)
ROW(chunk_reach_kv) I(chunk_reach_kv, f.f, alpha) I(chunk_reach_kv, f.f, bias_scale) I(chunk_reach_kv, f.f,
    eps) I(chunk_reach_kv, f.f, fixed) I(chunk_reach_kv, f.f, kind) I(chunk_reach_kv, f.f, count)
    I(chunk_reach_kv, f.f, causal) I(chunk_reach_kv, f.f, kappa) I(chunk_reach_kv, f, chunk) I(chunk_reach_kv,
    f, skip) I(chunk_reach_kv, f, top) I(chunk_reach_kv, f, pad)
ROW(route) F(route, k) F(route, norm)
ROW(route_bwd) I(route_bwd, f, k) I(route_bwd, f, norm)
ROW(balance) F(balance, coef) F(balance, k) F(balance, layers)
ROW(balance_bwd) I(balance_bwd, f, coef) I(balance_bwd, f, k) I(balance_bwd, f, layers)
ROW(expert_sort) F(expert_sort, experts)
ROW(expert_linear) F(expert_linear, pad)
ROW(expert_linear_dx) F(expert_linear_dx, pad)
ROW(expert_linear_dw) F(expert_linear_dw, pad)
ROW(expert_sum) F(expert_sum, pad)
ROW(expert_sum_bwd) F(expert_sum_bwd, pad)
ROW(chunk_state) F(chunk_state, scale) F(chunk_state, tau) F(chunk_state, causal) F(chunk_state, ones)
ROW(chunk_state_bwd) I(chunk_state_bwd, f, scale) I(chunk_state_bwd, f, tau) I(chunk_state_bwd, f, causal)
                     I(chunk_state_bwd, f, ones)
ROW(chunk_state_step) I(chunk_state_step, f, scale) I(chunk_state_step, f, tau) I(chunk_state_step, f, causal)
                      I(chunk_state_step, f, ones)
ROW(delta_rule) F(delta_rule, scale) F(delta_rule, tau)
ROW(delta_rule_bwd) I(delta_rule_bwd, f, scale) I(delta_rule_bwd, f, tau)
ROW(delta_rule_step) I(delta_rule_step, f, scale) I(delta_rule_step, f, tau)
ROW(rel_buckets) F(rel_buckets, reach) F(rel_buckets, buckets) F(rel_buckets, distance) F(rel_buckets, causal)
                 F(rel_buckets, scale)
ROW(rel_buckets_bwd) I(rel_buckets_bwd, f, reach) I(rel_buckets_bwd, f, buckets) I(rel_buckets_bwd, f, distance)
                     I(rel_buckets_bwd, f, causal) I(rel_buckets_bwd, f, scale)
ROW(rel_toeplitz) F(rel_toeplitz, reach) F(rel_toeplitz, base) F(rel_toeplitz, pad)
ROW(rel_toeplitz_bwd) I(rel_toeplitz_bwd, f, reach) I(rel_toeplitz_bwd, f, base) I(rel_toeplitz_bwd, f, pad)
ROW(time_mix) F(time_mix, pad)
ROW(time_mix_bwd) F(time_mix_bwd, pad)
ROW(segment_mean) F(segment_mean, rows) F(segment_mean, spread) F(segment_mean, pad)
ROW(matmul) F(matmul, alpha) F(matmul, beta) F(matmul, diag) F(matmul, ta) F(matmul, tb) F(matmul, pad)
ROW(inverse_start) F(inverse_start, pad)
ROW(inverse_start_bwd) F(inverse_start_bwd, pad)
ROW(row_divide) F(row_divide, eps)
ROW(row_divide_bwd) F(row_divide_bwd, eps)
ROW(favor) F(favor, pad)
ROW(favor_bwd) F(favor_bwd, pad)
};
/* clang-format on */

const tl_attr_field *tl_op_attr_fields(const tl_op_def *op, size_t *n) {
    const size_t count = sizeof fields / sizeof *fields;
    *n = 0;
    if (!op || op->id < 0) return NULL;
    for (size_t i = 0; i < count; i++) {
        if (fields[i].type || strcmp(fields[i].name, op->name) != 0) continue;
        for (size_t k = i + 1; k < count && fields[k].type; k++) ++*n;
        return &fields[i + 1];
    }
    return NULL;
}

const tl_op_def *tl_op_at(size_t i) {
    return i < OP_COUNT ? &op_table[i] : NULL;
}
