/* Example calls of operators, for every test that walks the table: cost against counted operations, gradient rules
 * against differences, kernels against references, poisoned buffers.
 *
 *     op_examples list = {NULL, 0, 0};
 *     examples_all(&list);
 *     for (size_t i = 0; i < list.n; i++) {
 *         example_call x;
 *         if (!example_open(&list.e[i], seed, &x)) fail...
 *         x.op->ref_f32(&x.call);
 *         example_close(&x);
 *     }
 *     examples_free(&list);
 *
 * Examples of this file and of examples_a.h together cover every row of ops.def (t_op_examples checks it). Written in the
 * common subset of C and C++. Link the room op. */
#ifndef TESTS_OP_EXAMPLES_H
#define TESTS_OP_EXAMPLES_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "base/half.h"
#include "base/rng.h"
#include "op/op.h"
#ifdef __cplusplus
}
#endif

typedef enum op_fill {
    FILL_ABSENT,   /* optional input that is not there */
    FILL_NORMAL,   /* floats: normal, variance 1; quantized blocks: random bits, scales about 0.01 */
    FILL_POSITIVE, /* floats: uniform in [0.5, 1.5) */
    FILL_IDS,      /* integers uniform in [lo, hi) */
    FILL_ARANGE,   /* lo, lo + 1, ... along the last dimension: positions */
    FILL_CONST     /* every element = value (integers: lo) */
} op_fill;

typedef struct example_call example_call;

typedef struct op_example {
    const char *op;
    char label[72];
    int64_t attr[TL_ATTR_MAX / 8]; /* the attribute struct, as before the shape rule */
    tl_desc in[TL_OP_INS];         /* may be views of wider rows */
    op_fill fill[TL_OP_INS];
    int64_t lo[TL_OP_INS], hi[TL_OP_INS];
    double value[TL_OP_INS];
    tl_desc bound[TL_OP_OUTS];     /* outputs whose memory the caller has: known before the shape rule (kv_write, adamw) */
    void (*prepare)(example_call *x); /* NULL, or finishes the inputs after filling (consistent lse, sorted ids ...) */
    uint32_t unwanted;                /* bit k: output k is not asked for */
    uint32_t acc;                     /* bit k: output k is added into */
    int64_t out_pad;                  /* outputs are views of rows wider by this many elements */
    uint32_t diff;                    /* inputs to differentiate by (f64 examples); 0: none */
    double tol;                       /* of differences against the gradient, relative; 0: 1e-6 */
    bool cost_bound; /* operations depend on the data: the cost rule is an upper bound, not the exact count */
} op_example;

typedef struct op_examples {
    op_example *e;
    size_t n, cap;
} op_examples;

/* An example ready to run. Inputs filled; outputs that are added into hold normals, others the byte 0xAB. */
struct example_call {
    const op_example *example;
    const tl_op_def *op;
    tl_op_call call;
    tl_run_info run;
    int64_t attr[TL_ATTR_MAX / 8];                     /* as completed by the shape rule */
    tl_desc inferred[TL_OP_OUTS];                      /* what the shape rule said, before unwanted and out_pad */
    size_t in_bytes[TL_OP_INS], out_bytes[TL_OP_OUTS]; /* whole buffers, padding included */
};

/* Random numbers into intervals of S keys that grow from row to row; some rows see nothing. */
static inline void example_spans(tl_arg *span, int64_t S) {
    for (int64_t b = 0; b < span->d.dim[0]; b++) {
        int64_t first = 0, end = 1;
        for (int64_t i = 0; i < span->d.dim[1]; i++) {
            int32_t *p = (int32_t *)span->data + tl_desc_row(&span->d, b * span->d.dim[1] + i);
            int32_t r = p[0];
            end = end + r % 5 * S / (2 * span->d.dim[1]) + r % 2;
            if (end > S) end = S;
            if (r % 3 == 0) first = (first + end) / 2 + r % 2;
            if (first > end) first = end;
            p[0] = (int32_t)first, p[1] = (int32_t)end;
        }
    }
}

/* ---- building --------------------------------------------------------------------------------------- */

static inline tl_desc example_desc(tl_dtype t, int ndim, int64_t a, int64_t b, int64_t c, int64_t d) {
    int64_t dim[4];
    dim[0] = a, dim[1] = b, dim[2] = c, dim[3] = d;
    return tl_desc_make(t, ndim, dim);
}
static inline tl_desc D1(tl_dtype t, int64_t a) {
    return example_desc(t, 1, a, 0, 0, 0);
}
static inline tl_desc D2(tl_dtype t, int64_t a, int64_t b) {
    return example_desc(t, 2, a, b, 0, 0);
}
static inline tl_desc D3(tl_dtype t, int64_t a, int64_t b, int64_t c) {
    return example_desc(t, 3, a, b, c, 0);
}
static inline tl_desc D4(tl_dtype t, int64_t a, int64_t b, int64_t c, int64_t d) {
    return example_desc(t, 4, a, b, c, d);
}
/* The same shape as a view of rows that are wider by pad elements. */
static inline tl_desc example_view(tl_desc d, int64_t pad) {
    int64_t stride = d.ndim ? d.dim[d.ndim - 1] + pad : 1;
    for (int i = d.ndim - 2; i >= 0; i--) {
        d.stride[i] = stride;
        stride *= d.dim[i];
    }
    return d;
}

/* A new example; the pointer holds until the next one. attr may be NULL. */
static inline op_example *example_add(op_examples *l, const char *op, const void *attr, size_t attr_size,
                                      const char *label) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        op_example *e = (op_example *)realloc(l->e, cap * sizeof *e);
        if (!e) abort();
        l->e = e;
        l->cap = cap;
    }
    op_example *e = &l->e[l->n++];
    memset(e, 0, sizeof *e);
    e->op = op;
    if (attr) memcpy(e->attr, attr, attr_size);
    snprintf(e->label, sizeof e->label, "%s", label);
    return e;
}
static inline void example_in(op_example *e, int i, tl_desc d, op_fill fill) {
    e->in[i] = d;
    e->fill[i] = fill;
}
static inline void example_range(op_example *e, int i, int64_t lo, int64_t hi) {
    e->lo[i] = lo;
    e->hi[i] = hi;
}

/* ---- running ---------------------------------------------------------------------------------------- */

/* Elements from the first to the last of a (view) descriptor. */
static inline int64_t example_span(const tl_desc *d) {
    int64_t rows = tl_desc_rows(d), last = tl_desc_last(d);
    return rows && last ? tl_desc_row(d, rows - 1) + last : 0;
}
static inline size_t example_size(const tl_desc *d) {
    return (size_t)(example_span(d) / tl_dtype_block(d->dtype)) * tl_dtype_bytes(d->dtype);
}

static inline void example_store(tl_arg *a, int64_t i, double v) {
    switch (a->d.dtype) {
    case TL_F32: ((float *)a->data)[i] = (float)v; break;
    case TL_F64: ((double *)a->data)[i] = v; break;
    case TL_BF16: ((uint16_t *)a->data)[i] = half_f32_to_bf16((float)v); break;
    case TL_F16: ((uint16_t *)a->data)[i] = half_f32_to_f16((float)v); break;
    case TL_I32: ((int32_t *)a->data)[i] = (int32_t)v; break;
    case TL_I64: ((int64_t *)a->data)[i] = (int64_t)v; break;
    default: break;
    }
}
static inline double example_load(const tl_arg *a, int64_t i) {
    switch (a->d.dtype) {
    case TL_F32: return (double)((const float *)a->data)[i];
    case TL_F64: return ((const double *)a->data)[i];
    case TL_BF16: return (double)half_bf16_to_f32(((const uint16_t *)a->data)[i]);
    case TL_F16: return (double)half_f16_to_f32(((const uint16_t *)a->data)[i]);
    case TL_I32: return (double)((const int32_t *)a->data)[i];
    case TL_I64: return (double)((const int64_t *)a->data)[i];
    default: return 0;
    }
}

/* Random bits, then every f16 of a block's header replaced by a small number. */
static inline void example_fill_blocks(tl_arg *a, size_t bytes, rng_key key) {
    uint8_t *p = (uint8_t *)a->data;
    size_t size = tl_dtype_bytes(a->d.dtype);
    size_t at = a->d.dtype == TL_Q6_K ? 208 : 0, halves = a->d.dtype == TL_Q4_K ? 2 : 1;
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)rng_u32(key, 0, i);
    for (size_t b = 0; b + size <= bytes; b += size)
        for (size_t k = 0; k < halves; k++) {
            uint16_t scale = half_f32_to_f16(0.01f * rng_uniform(key, 1 + k, b));
            memcpy(p + b + at + 2 * k, &scale, sizeof scale);
        }
}

/* Fills the elements of a (padding between rows of a view included, so that reading it shows). */
static inline void example_fill(tl_arg *a, size_t bytes, op_fill fill, int64_t lo, int64_t hi, double value,
                                rng_key key) {
    int64_t n = example_span(&a->d), last = tl_desc_last(&a->d), rows = tl_desc_rows(&a->d);
    if (tl_dtype_block(a->d.dtype) > 1) {
        example_fill_blocks(a, bytes, key);
        return;
    }
    if (fill == FILL_ARANGE) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < last; k++) example_store(a, tl_desc_row(&a->d, r) + k, (double)(lo + k));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        double v = value;
        if (fill == FILL_NORMAL) v = (double)rng_normal(key, 0, (uint64_t)i);
        if (fill == FILL_POSITIVE) v = 0.5 + (double)rng_uniform(key, 0, (uint64_t)i);
        if (fill == FILL_IDS) v = (double)(lo + (int64_t)(rng_u32(key, 0, (uint64_t)i) % (uint64_t)(hi - lo)));
        if (fill == FILL_CONST && (a->d.dtype == TL_I32 || a->d.dtype == TL_I64)) v = (double)lo;
        example_store(a, i, v);
    }
}

static inline void example_close(example_call *x) {
    for (int i = 0; i < TL_OP_INS; i++) free(x->call.in[i].data);
    for (int k = 0; k < TL_OP_OUTS; k++) free(x->call.out[k].data);
}

static inline void *example_alloc(size_t bytes) {
    size_t whole = (bytes + 127) / 64 * 64;
    void *p = aligned_alloc(64, whole);
    if (!p) abort();
    memset(p, 0xAB, whole);
    return p;
}

/* The output's buffer: what the shape rule said, perhaps with wider rows. */
static inline void example_open_out(const op_example *e, uint64_t seed, example_call *x, int k) {
    tl_arg *o = &x->call.out[k];
    o->d = x->inferred[k];
    if (o->d.dtype == TL_NONE || e->unwanted >> k & 1) {
        memset(&o->d, 0, sizeof o->d);
        return;
    }
    if (e->out_pad && !(x->op->flags & TL_OP_VIEW)) o->d = example_view(o->d, e->out_pad);
    x->out_bytes[k] = example_size(&o->d);
    o->data = example_alloc(x->out_bytes[k]);
    if (e->acc >> k & 1) example_fill(o, x->out_bytes[k], FILL_NORMAL, 0, 0, 0, rng_key_make(seed, 1, (uint64_t)k));
}

/* False, with the shape rule's words in err (may be NULL), if the example is refused. */
static inline bool example_open_err(const op_example *e, uint64_t seed, example_call *x, tl_error *err) {
    memset(x, 0, sizeof *x);
    x->example = e;
    x->op = tl_op_find(e->op);
    if (!x->op) return false;
    memcpy(x->attr, e->attr, sizeof x->attr);
    tl_op_infer s;
    memset(&s, 0, sizeof s);
    s.attr = x->attr;
    s.err = err;
    for (int i = 0; i < TL_OP_INS; i++) s.in[i] = e->fill[i] == FILL_ABSENT ? NULL : &e->in[i];
    memcpy(s.out, e->bound, sizeof s.out);
    if (x->op->shape(&s) != TL_OK) return false;
    memcpy(x->inferred, s.out, sizeof s.out);
    for (int i = 0; i < TL_OP_INS; i++) {
        tl_arg *a = &x->call.in[i];
        if (e->fill[i] == FILL_ABSENT) continue;
        a->d = e->in[i];
        x->in_bytes[i] = example_size(&a->d);
        a->data = example_alloc(x->in_bytes[i]);
        example_fill(a, x->in_bytes[i], e->fill[i], e->lo[i], e->hi[i], e->value[i],
                     rng_key_make(seed, 0, (uint64_t)i));
    }
    for (int k = 0; k < TL_OP_OUTS; k++) example_open_out(e, seed, x, k);
    x->run.seed = seed;
    x->run.step = 3;
    x->run.row0 = 5;
    x->call.attr = x->attr;
    x->call.acc = e->acc;
    x->call.run = &x->run;
    if (e->prepare) e->prepare(x);
    return true;
}
static inline bool example_open(const op_example *e, uint64_t seed, example_call *x) {
    return example_open_err(e, seed, x, NULL);
}

static inline void examples_free(op_examples *l) {
    free(l->e);
    l->e = NULL;
    l->n = l->cap = 0;
}

/* The lists: this folder's two halves of ops.def. */
#include "op/examples_b.h"
#include "op/examples_gau.h"
#include "op/examples_moe.h"
#if defined(__has_include)
#if __has_include("op/examples_a.h")
#include "op/examples_a.h"
#define EXAMPLES_A 1
#endif
#endif

static inline void examples_all(op_examples *l) {
    examples_b(l);
    examples_gau(l);
    examples_moe(l);
#ifdef EXAMPLES_A
    examples_a(l);
#endif
}

#endif
