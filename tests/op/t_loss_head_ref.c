/* The reference loss head against PyTorch's cross entropy, against differences, and by its properties. */
#include "support/testing.h"

#include "op/op.h"
#include "op/vectors_a.h"

#include <math.h>

enum { N = 5, D = 4, V = 7 };

typedef struct loss_case {
    struct loss_head_attr a;
    double h[N * D], w[V * D], b[V], denom, loss, lse[N], losses[N], dh[N * D], dw[V * D], db[V];
    int32_t targets[N];
    tl_op_call c;
} loss_case;

static tl_arg arg(void *data, tl_dtype t, int ndim, int64_t a, int64_t b) {
    return (tl_arg){data, tl_desc_make(t, ndim, (int64_t[]){a, b})};
}

static void fill(double *x, int n, double seed, double scale) {
    for (int i = 0; i < n; i++) x[i] = scale * sin(1.3 * i + seed);
}

/* As the vectors were made: h 0.1 (twice as large), w 0.2, b 0.3; row 2 not counted. */
static void open_case(loss_case *x, float smoothing, float zloss, float cap) {
    static const int32_t targets[N] = {3, 0, -1, 6, 3};
    *x = (loss_case){.a = {smoothing, zloss, cap, 0}, .denom = 4};
    fill(x->h, N * D, 0.1, 2);
    fill(x->w, V * D, 0.2, 1);
    fill(x->b, V, 0.3, 1);
    memcpy(x->targets, targets, sizeof targets);
    tl_arg *in = x->c.in, *out = x->c.out;
    in[0] = arg(x->h, TL_F64, 2, N, D);
    in[1] = arg(x->w, TL_F64, 2, V, D);
    in[2] = arg(x->targets, TL_I32, 1, N, 0);
    in[3] = arg(&x->denom, TL_F64, 1, 1, 0);
    in[4] = arg(x->b, TL_F64, 1, V, 0);
    out[0] = arg(&x->loss, TL_F64, 1, 1, 0);
    out[1] = arg(x->lse, TL_F64, 1, N, 0);
    out[2] = arg(x->losses, TL_F64, 1, N, 0);
    out[3] = arg(x->dh, TL_F64, 2, N, D);
    out[4] = arg(x->dw, TL_F64, 2, V, D);
    out[5] = arg(x->db, TL_F64, 1, V, 0);
}

static void run(loss_case *x) {
    x->c.attr = &x->a;
    OP_DEF(loss_head)->ref_f64(&x->c);
}

static void assert_close(const double *x, const double *want, size_t n, double tol, const char *what) {
    for (size_t i = 0; i < n; i++)
        if (!(fabs(x[i] - want[i]) <= tol * fmax(1, fabs(want[i])))) {
            print_message("%s[%zu]: %.17g, not %.17g\n", what, i, x[i], want[i]);
            fail();
        }
}
#define SAME_AS(x, want) assert_close((x), (want), sizeof(want) / sizeof *(want), 1e-13, #want)
#define SAME_CASE(x, name)                                                                                             \
    do {                                                                                                               \
        SAME_AS(&(x).loss, loss_##name##_loss);                                                                        \
        SAME_AS((x).losses, loss_##name##_losses);                                                                     \
        SAME_AS((x).lse, loss_##name##_lse);                                                                           \
        SAME_AS((x).dh, loss_##name##_dh);                                                                             \
        SAME_AS((x).dw, loss_##name##_dw);                                                                             \
        SAME_AS((x).db, loss_##name##_db);                                                                             \
    } while (0)

static void equals_torch(void **state) {
    (void)state;
    loss_case x;
    open_case(&x, 0, 0, 0);
    run(&x);
    SAME_CASE(x, plain);
    open_case(&x, 0.125f, 0, 0);
    run(&x);
    SAME_CASE(x, smooth);
    open_case(&x, 0.25f, 0.0625f, 1.5f);
    run(&x);
    SAME_CASE(x, all);
    /* nothing asked for but the loss: the same loss */
    double loss = x.loss;
    for (int k = 1; k < 6; k++) x.c.out[k] = (tl_arg){0};
    run(&x);
    assert_true(x.loss == loss);
    assert_true(loss != 0);
}

static void check_differences(loss_case *x, double *input, const double *grad, int n, const char *what) {
    for (int i = 0; i < n; i++) {
        double keep = input[i], step = 1e-5;
        input[i] = keep + step;
        run(x);
        double up = x->loss;
        input[i] = keep - step;
        run(x);
        input[i] = keep;
        double numeric = (up - x->loss) / (2 * step);
        assert_close(&grad[i], &numeric, 1, 1e-9, what);
    }
}

static void gradients_are_differences(void **state) {
    (void)state;
    static loss_case x, y;
    open_case(&x, 0.25f, 0.0625f, 1.5f);
    run(&x);
    open_case(&y, 0.25f, 0.0625f, 1.5f);
    check_differences(&y, y.h, x.dh, N * D, "dh");
    check_differences(&y, y.w, x.dw, V * D, "dw");
    check_differences(&y, y.b, x.db, V, "db");
}

/* The backward operator of a loss that is not the root: dloss times what the loss head claims by itself. */
static void backward_alone(void **state) {
    (void)state;
    static loss_case x;
    open_case(&x, 0.25f, 0.0625f, 1.5f);
    run(&x);
    double dloss = -3, dh[N * D], dw[V * D], db[V];
    for (int i = 0; i < V * D; i++) dw[i] = 100;
    struct loss_head_bwd_attr a = {x.a};
    tl_op_call c = {.attr = &a, .acc = 2};
    c.in[0] = arg(&dloss, TL_F64, 1, 1, 0);
    for (int i = 0; i < 4; i++) c.in[1 + i] = x.c.in[i];
    c.in[5] = x.c.out[1];
    c.in[6] = x.c.in[4];
    c.out[0] = arg(dh, TL_F64, 2, N, D);
    c.out[1] = arg(dw, TL_F64, 2, V, D);
    c.out[2] = arg(db, TL_F64, 1, V, 0);
    OP_DEF(loss_head_bwd)->ref_f64(&c);
    for (int i = 0; i < V * D; i++) dw[i] = (dw[i] - 100) / -3;
    for (int i = 0; i < N * D; i++) dh[i] /= -3;
    for (int i = 0; i < V; i++) db[i] /= -3;
    assert_close(dh, x.dh, N * D, 1e-15, "dh");
    assert_close(dw, x.dw, V * D, 1e-13, "dw");
    assert_close(db, x.db, V, 1e-15, "db");
}

static void rows_without_labels(void **state) {
    (void)state;
    static loss_case x;
    /* no label in the whole step: 0, not 0/0, and gradients of 0 */
    open_case(&x, 0.1f, 0.1f, 0);
    for (int n = 0; n < N; n++) x.targets[n] = -100;
    x.denom = 0;
    run(&x);
    assert_true(x.loss == 0);
    for (int i = 0; i < N * D; i++) assert_true(x.dh[i] == 0);
    for (int i = 0; i < V * D; i++) assert_true(x.dw[i] == 0);
    /* a row that is not counted may hold anything; a target beyond the vocabulary is not counted */
    open_case(&x, 0.125f, 0, 0);
    for (int d = 0; d < D; d++) x.h[2 * D + d] = NAN;
    x.targets[2] = V;
    run(&x);
    SAME_CASE(x, smooth);
    assert_true(x.losses[2] == 0 && x.lse[2] == 0 && x.dh[2 * D] == 0);
}

/* Splitting a step into micro-batches: losses add, gradients add up in place. */
static void micro_batches_add(void **state) {
    (void)state;
    static loss_case x, y;
    open_case(&x, 0.25f, 0.0625f, 1.5f);
    run(&x);
    open_case(&y, 0.25f, 0.0625f, 1.5f);
    double loss = 0;
    for (int n = 0; n < N; n++) {
        y.c.in[0] = arg(y.h + n * D, TL_F64, 2, 1, D);
        y.c.in[2] = arg(y.targets + n, TL_I32, 1, 1, 0);
        y.c.out[3] = arg(y.dh + n * D, TL_F64, 2, 1, D);
        y.c.out[1] = y.c.out[2] = (tl_arg){0};
        y.c.acc = n ? 48 : 0;
        run(&y);
        loss += y.loss;
    }
    assert_close(&loss, &x.loss, 1, 1e-15, "loss");
    assert_close(y.dh, x.dh, N * D, 0, "dh");
    assert_close(y.dw, x.dw, V * D, 1e-15, "dw");
    assert_close(y.db, x.db, V, 1e-15, "db");
}

/* Equal logits: log V; a logit of 1e30 overflows nothing; a constant added to all logits changes nothing; words with
 * a bias of -inf are not there. */
static void closed_forms(void **state) {
    (void)state;
    static loss_case x, y;
    open_case(&x, 0, 0, 0);
    memset(x.h, 0, sizeof x.h);
    for (int v = 0; v < V; v++) x.b[v] = -3;
    run(&x);
    double want = log(V);
    assert_close(&x.loss, &want, 1, 1e-15, "log V");
    open_case(&x, 0.125f, 0, 0);
    for (int v = 0; v < V; v++) x.b[v] += 500;
    run(&x);
    assert_close(&x.loss, loss_smooth_loss, 1, 1e-12, "loss");
    assert_close(x.dw, loss_smooth_dw, V * D, 1e-12, "dw");
    open_case(&x, 0, 0, 0);
    x.b[3] = 1e30;
    run(&x);
    assert_true(x.losses[0] == 0 && isfinite(x.loss) && isfinite(x.dw[0]));
    open_case(&x, 0, 0, 0);
    open_case(&y, 0, 0, 0);
    x.b[4] = x.b[5] = -INFINITY;
    for (int d = 0; d < D; d++) { /* the last word in the place of the first that is gone */
        y.w[4 * D + d] = y.w[6 * D + d];
        y.b[4] = y.b[6];
    }
    y.targets[3] = 4;
    y.c.in[1].d.dim[0] = y.c.in[4].d.dim[0] = y.c.out[4].d.dim[0] = y.c.out[5].d.dim[0] = 5;
    run(&x);
    run(&y);
    assert_close(&x.loss, &y.loss, 1, 1e-15, "loss");
    assert_close(x.dh, y.dh, N * D, 1e-15, "dh");
    assert_true(x.db[4] == 0 && x.dw[5 * D] == 0);
}

/* 300 rows: the reference's own blocks of rows do not show. */
static void many_rows(void **state) {
    (void)state;
    enum { ROWS = 300 };
    static loss_case x;
    static double h[ROWS * D], dh[ROWS * D], lse[ROWS], losses[ROWS];
    static int32_t targets[ROWS];
    open_case(&x, 0.25f, 0.0625f, 1.5f);
    run(&x);
    for (int n = 0; n < ROWS; n++) {
        memcpy(h + n * D, x.h + n % N * D, D * sizeof *h);
        targets[n] = x.targets[n % N];
    }
    static loss_case y;
    open_case(&y, 0.25f, 0.0625f, 1.5f);
    y.denom = 4.0 * ROWS / N;
    y.c.in[0] = arg(h, TL_F64, 2, ROWS, D);
    y.c.in[2] = arg(targets, TL_I32, 1, ROWS, 0);
    y.c.out[1] = arg(lse, TL_F64, 1, ROWS, 0);
    y.c.out[2] = arg(losses, TL_F64, 1, ROWS, 0);
    y.c.out[3] = arg(dh, TL_F64, 2, ROWS, D);
    run(&y);
    assert_close(&y.loss, &x.loss, 1, 1e-14, "loss");
    assert_close(y.dw, x.dw, V * D, 1e-14, "dw");
    assert_close(y.db, x.db, V, 1e-14, "db");
    assert_close(losses + 295, x.losses, N, 0, "losses");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_torch),      cmocka_unit_test(gradients_are_differences),
        cmocka_unit_test(backward_alone),    cmocka_unit_test(rows_without_labels),
        cmocka_unit_test(micro_batches_add), cmocka_unit_test(closed_forms),
        cmocka_unit_test(many_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
