/* Attention for AVX2: f32 products; bf16 and f16 are widened as they are packed. */
#include "cpu/attention/bwd_body.h"
#include "cpu/attention/fwd_body.h"
#include "cpu/attention/kv_body.h"

void attn_fwd__avx2(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    fwd_leaf(j, phase, lo, hi, worker);
}

void attn_bwd__avx2(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    bwd_leaf(j, phase, lo, hi, worker);
}

void attn_kv__avx2(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    kv_leaf(j, phase, lo, hi, worker);
}
