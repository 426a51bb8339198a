/* Attention for AVX-512 with BF16: pairs of bf16 are multiplied and summed in f32. */
#define ATTN_BF16
#include "cpu/attention/bwd_body.h"
#include "cpu/attention/fwd_body.h"

void attn_fwd__avx512bf16(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    fwd_leaf(j, phase, lo, hi, worker);
}

void attn_bwd__avx512bf16(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    bwd_leaf(j, phase, lo, hi, worker);
}
