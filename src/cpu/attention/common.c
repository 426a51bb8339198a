/* What the launchers of attention share: taking a call apart. */
#include <math.h>

#include "base/rng.h"
#include "cpu/attention/attention.h"

const attn_isa attn_isa_avx2 = {8, 1}, attn_isa_avx512 = {16, 1}, attn_isa_pairs = {16, 2};

/* vdpbf16ps does twice the work of a multiply-add. AMD's run at the same rate; Intel's, measured on Sapphire and
 * Emerald Rapids, at a quarter of it, so there widening to f32 wins by far. NULL: pairs pay. */
const char *attn_pairs_slow(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_is("intel")) return "this processor multiplies f32 faster than pairs of bf16";
#endif
    return NULL;
}

attn_tensor attn_take(const tl_arg *a) {
    attn_tensor t = {0};
    if (a->d.dtype == TL_NONE) return t;
    t.p = a->data;
    t.dtype = a->d.dtype;
    t.size = (int64_t)tl_dtype_bytes(a->d.dtype);
    const int64_t block = tl_dtype_block(a->d.dtype); /* strides count blocks where there are some */
    if (a->d.ndim == 4) {
        t.sb = a->d.stride[0] / block;
        t.st = a->d.stride[1] / block;
        t.sh = a->d.stride[2] / block;
    } else if (a->d.ndim == 3) {
        t.st = a->d.stride[0];
        t.sh = a->d.stride[1];
    }
    return t;
}

/* Pairs of bf16 need bf16 everywhere; the other leaves widen what they read. */
const char *attn_dtypes(const tl_op_call *c, attn_isa isa, int first, int count) {
    for (int i = first; i < first + count; i++) {
        const tl_dtype t = c->in[i].d.dtype;
        if (isa.unit == 2 && t != TL_BF16) return "only bf16";
        if (t != TL_F32 && t != TL_BF16 && t != TL_F16) return "only f32, bf16 and f16";
        if (c->in[i].d.stride[c->in[i].d.ndim - 1] != 1) return "head vectors must be contiguous";
    }
    return NULL;
}

/* q, k, v at in[first..], doc, sinks, slopes, bias, span at in[opt..]. */
const char *attn_job_forward(const tl_op_call *c, int first, const struct attention_attr *attr, attn_job *j) {
    const int opt = first == 0 ? 3 : 6;
    const tl_desc *q = &c->in[first].d, *k = &c->in[first + 1].d, *v = &c->in[first + 2].d;
    *j = (attn_job){.B = q->dim[0],
                    .T = q->dim[1],
                    .S = k->dim[1],
                    .H = q->dim[2],
                    .Hk = k->dim[2],
                    .Dh = q->dim[3],
                    .Dv = v->dim[3]};
    if (j->B <= 0 || j->T <= 0 || j->S <= 0 || j->H <= 0 || j->Hk <= 0 || j->Dh <= 0 || j->Dv <= 0) return "empty";
    j->r = j->H / j->Hk;
    j->R = j->T * j->r;
    if (j->R > INT32_MAX || j->S > INT32_MAX) return "more than 2^31 rows or keys";
    j->scale = attr->scale != 0.0f ? attr->scale : (float)(1.0 / sqrt((double)j->Dh));
    j->softcap = attr->softcap;
    j->causal = attr->causal != 0;
    j->window = attr->window;
    j->global = attr->global;
    j->q_offset = attr->q_offset;
    if (attr->drop > 0) {
        const rng_key key = rng_key_make(c->run ? c->run->seed : 0, c->run ? c->run->step : 0, (uint64_t)attr->op);
        j->drop = attr->drop;
        j->key[0] = key.k[0], j->key[1] = key.k[1];
        j->row0 = c->run ? c->run->row0 : 0;
    }
    j->q = attn_take(&c->in[first]);
    j->k = attn_take(&c->in[first + 1]);
    j->v = attn_take(&c->in[first + 2]);
    const tl_arg *doc = &c->in[opt], *sinks = doc + 1, *slopes = doc + 2, *bias = doc + 3;
    if (doc->d.dtype != TL_NONE) {
        j->doc = doc->data;
        j->doc_sb = doc->d.stride[0];
        if (j->T > j->S) return "documents of fewer keys than queries";
    }
    const tl_arg *span = doc + 4;
    if (span->d.dtype != TL_NONE) {
        j->span = span->data;
        j->span_sb = span->d.stride[0], j->span_st = span->d.stride[1];
        if (span->d.stride[2] != 1) return "spans must be pairs";
    }
    if (sinks->d.dtype != TL_NONE) j->sinks = sinks->data;
    if (slopes->d.dtype != TL_NONE) j->slopes = slopes->data;
    if (bias->d.dtype != TL_NONE) {
        j->bias = bias->data;
        j->bias_sh = bias->d.stride[0];
        j->P = (bias->d.dim[1] + 1) / 2;
        if (j->H * j->bias_sh > INT32_MAX) return "a bias table of more than 2^31 elements";
    }
    for (int i = 1; i < 4; i++) {
        const tl_arg *a = doc + i;
        if (a->d.dtype != TL_NONE && a->d.dtype != TL_F32) return "auxiliary inputs must be f32";
    }
    /* One multiplication inside exp2 serves only a positive scale: the row maximum is taken before it. */
    j->plain = j->softcap <= 0.0f && slopes->d.dtype == TL_NONE && bias->d.dtype == TL_NONE && j->scale > 0.0f;
    return NULL;
}
