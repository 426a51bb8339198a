/* An operator of one's own: y = x * sigmoid(beta * x), with beta (1) learnt: the Swish of Ramachandran et al. 2017.
 * A row and its functions make it: shapes, gradient (built from operators, here a second one of our own), cost,
 * arithmetic. tl_gradcheck compares the gradient with differences; then a graph learns beta from a curve. Link with
 * -ltilia -lm. */
#include "tilia/graph.h"

#include <math.h>
#include <stdio.h>

static tl_op_def swish, swish_bwd;

/* x (N..), beta (1) -> y like x */
static tl_status swish_shape(tl_op_infer *s) {
    const tl_desc *x = s->in[0], *beta = s->in[1];
    if (!beta || tl_desc_count(beta) != 1 || beta->dtype != x->dtype || (x->dtype != TL_F32 && x->dtype != TL_F64))
        return TL_SHAPE;
    s->out[0] = tl_desc_make(x->dtype, x->ndim, x->dim);
    return TL_OK;
}

/* dy, x, beta -> dx like x, dbeta like beta */
static tl_status swish_bwd_shape(tl_op_infer *s) {
    s->out[0] = tl_desc_make(s->in[1]->dtype, s->in[1]->ndim, s->in[1]->dim);
    s->out[1] = tl_desc_make(s->in[2]->dtype, s->in[2]->ndim, s->in[2]->dim);
    return TL_OK;
}

/* Appends operators, computes nothing: output k of swish_bwd is the gradient of input to[k]. */
static void swish_grad(tl_grad *g) {
    tl_tensor *in[] = {tl_grad_dy(g, 0), tl_grad_in(g, 0), tl_grad_in(g, 1)};
    tl_grad_emit(g, &swish_bwd, NULL, in, 3, (int[]){0, 1}, 2);
}

static void swish_cost(const tl_op_call *c, tl_cost *cost) {
    double n = (double)tl_desc_count(&c->in[0].d), bytes = n * (double)tl_dtype_bytes(c->in[0].d.dtype);
    *cost = (tl_cost){.flops = 3 * n, .special = 2 * n, .bytes_read = bytes, .bytes_written = bytes};
}

/* The arithmetic, once per precision. Rows may lie apart (views), so element e of row r is at tl_desc_row(d, r) + e. */
#define SWISH(REAL, f)                                                                                                 \
    static void swish_##f(const tl_op_call *c) {                                                                       \
        const REAL *x = c->in[0].data, beta = *(const REAL *)c->in[1].data;                                            \
        REAL *y = c->out[0].data;                                                                                      \
        for (int64_t r = 0; r < tl_desc_rows(&c->in[0].d); r++)                                                        \
            for (int64_t e = 0; e < tl_desc_last(&c->in[0].d); e++) {                                                  \
                REAL v = x[tl_desc_row(&c->in[0].d, r) + e];                                                           \
                y[tl_desc_row(&c->out[0].d, r) + e] = v / (1 + (REAL)exp((double)(-beta * v)));                        \
            }                                                                                                          \
    }                                                                                                                  \
    static void swish_bwd_##f(const tl_op_call *c) {                                                                   \
        const REAL *dy = c->in[0].data, *x = c->in[1].data, beta = *(const REAL *)c->in[2].data;                       \
        REAL *dx = c->out[0].data, *dbeta = c->out[1].data, sum = 0;                                                   \
        for (int64_t r = 0; r < tl_desc_rows(&c->in[1].d); r++)                                                        \
            for (int64_t e = 0; e < tl_desc_last(&c->in[1].d); e++) {                                                  \
                REAL v = x[tl_desc_row(&c->in[1].d, r) + e], d = dy[tl_desc_row(&c->in[0].d, r) + e];                  \
                REAL s = 1 / (1 + (REAL)exp((double)(-beta * v))), by = d * s * (1 + beta * v * (1 - s));              \
                if (dx) dx[tl_desc_row(&c->out[0].d, r) + e] = by; /* NULL: not wanted */                              \
                sum += d * v * v * s * (1 - s);                                                                        \
            }                                                                                                          \
        if (dbeta) *dbeta = (c->acc >> 1 & 1 ? *dbeta : 0) + sum; /* acc: add to what is there */                      \
    }
SWISH(float, f32)
SWISH(double, f64)

/* clang-format off */
static tl_op_def swish = {
    .name = "swish", .id = -1, .n_in = 2, .n_out = 1, .save = TL_SAVE_IN(0) | TL_SAVE_IN(1), .flags = TL_OP_INPLACE,
    .shape = swish_shape, .grad = swish_grad, .cost = swish_cost, .ref_f32 = swish_f32, .ref_f64 = swish_f64};
static tl_op_def swish_bwd = { /* acc: output 1 can be added into */
    .name = "swish_bwd", .id = -1, .n_in = 3, .n_out = 2, .acc = 2, .flags = TL_OP_NOGRAD, .shape = swish_bwd_shape,
    .cost = swish_cost, .ref_f32 = swish_bwd_f32, .ref_f64 = swish_bwd_f64};
/* clang-format on */

static int fail(const tl_error *err) {
    char text[512];
    fprintf(stderr, "%s\n", tl_error_text(err, text, sizeof text));
    return 1;
}

int main(void) {
    tl_engine *e;
    tl_error err;
    if (tl_engine_create(NULL, &e, &err)) return fail(&err);

    double xs[8] = {-3, -2, -1, -0.3, 0.2, 1, 2, 3}, b = 0.7;
    tl_arg in[] = {{xs, tl_desc_make(TL_F64, 1, (int64_t[]){8})}, {&b, tl_desc_make(TL_F64, 1, (int64_t[]){1})}};
    tl_gradcheck_result r; /* inputs 0 and 1: bits 3 */
    if (tl_gradcheck(e, &swish, NULL, in, 2, 3, 1e-5, &r, &err)) return fail(&err);
    printf("gradient against differences: off by %.1e at most\n", r.worst);

    float x[64], goal[64], beta = 0.5f, dbeta;
    for (int i = 0; i < 64; i++) x[i] = (float)i / 8 - 4, goal[i] = x[i] / (1 + expf(-1.5f * x[i]));
    tl_graph *g;
    tl_plan *p;
    tl_graph_create(e, &g);
    tl_tensor *tx = tl_input(g, "x", TL_F32, 1, (int64_t[]){64}),
              *tgoal = tl_input(g, "goal", TL_F32, 1, (int64_t[]){64});
    tl_tensor *tbeta = tl_param(g, "beta", TL_F32, 1, (int64_t[]){1});
    tl_tensor *y = tl_apply(g, &swish, NULL, (tl_tensor *[]){tx, tbeta}, 2, NULL, NULL, 0);
    tl_tensor *off = tl_add(g, y, tl_scale(g, tgoal, -1)), *loss = tl_reduce(g, tl_mul(g, off, off), 0, true);
    tl_output(g, loss, "loss");
    tl_graph_backward(g, loss, NULL, 0, NULL, false);
    if (tl_plan_create(g, false, &p, &err)) return fail(&err);
    tl_plan_bind(p, tx, x), tl_plan_bind(p, tgoal, goal), tl_plan_bind(p, tbeta, &beta);
    tl_plan_bind(p, tl_param_grad(g, tbeta), &dbeta);
    for (int step = 0; step <= 200; step++, beta -= 2 * dbeta) {
        dbeta = 0; /* gradients of parameters are added to what is there */
        if (tl_plan_run(p)) return 1;
        if (step % 50 == 0) printf("step %3d  loss %.6f  beta %.4f\n", step, *(float *)tl_plan_data(p, loss), beta);
    }
    tl_plan_destroy(p), tl_graph_destroy(g), tl_engine_destroy(e);
    return !(r.worst < 1e-6 && fabsf(beta - 1.5f) < 0.01f);
}
