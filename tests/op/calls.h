/* Calls of references in double with little ceremony. */
#ifndef TESTS_OP_CALLS_H
#define TESTS_OP_CALLS_H

#include "op/examples.h"
#include "support/testing.h"

static inline double *normals(int64_t n, uint64_t seed) {
    double *p = malloc((size_t)(n + 1) * sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = (double)rng_normal(rng_key_make(seed, 0, 0), 0, (uint64_t)i);
    return p;
}
static inline double *constant(int64_t n, double v) {
    double *p = malloc((size_t)(n + 1) * sizeof *p);
    for (int64_t i = 0; i < n; i++) p[i] = v;
    return p;
}
static inline tl_arg arg3(double *p, int64_t a, int64_t b, int64_t c) {
    return p ? (tl_arg){p, D3(TL_F64, a, b, c)} : (tl_arg){0};
}
static inline tl_arg arg1(double *p, int64_t n) {
    return p ? (tl_arg){p, D1(TL_F64, n)} : (tl_arg){0};
}

static inline void call(int op, const void *attr, const tl_arg *in, int n_in, tl_arg *out, int n_out, uint32_t acc) {
    static const tl_run_info info;
    int64_t copy[TL_ATTR_MAX / 8] = {0};
    tl_error err = {0};
    tl_op_infer s = {.attr = copy, .err = &err};
    tl_op_call c = {.attr = copy, .acc = acc, .run = &info};
    memcpy(copy, attr, op_table[op].attr_size);
    for (int i = 0; i < n_in; i++) {
        c.in[i] = in[i];
        s.in[i] = in[i].data ? &in[i].d : NULL;
    }
    for (int k = 0; k < n_out; k++)
        if (acc >> k & 1) s.out[k] = out[k].d;
    if (op_table[op].shape(&s) != TL_OK) fail_msg("%s", err.text);
    for (int k = 0; k < n_out; k++) {
        c.out[k] = out[k];
        if (out[k].data) c.out[k].d = s.out[k];
    }
    op_table[op].ref_f64(&c);
}

#endif
