/* Reference attention against PyTorch, against differences, and by the properties that softmax attention must have. */
#include "support/testing.h"

#include "op/op.h"
#include "op/vectors_a.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { ROOM = 4096 };

/* One call in double: arguments lie in memory of the case itself. */
typedef struct attention_case {
    struct attention_attr a;
    struct attention_bwd_attr back;
    tl_op_call fwd, bwd;
    double q[ROOM], k[ROOM], v[ROOM], o[ROOM], lse[ROOM], dy[ROOM], sinks[64], slopes[64], bias[512];
    double dq[ROOM], dk[ROOM], dv[ROOM], dsinks[64], dbias[512];
    int32_t doc[256];
    int64_t B, T, S, H, Hk, Dh, Dv;
} attention_case;

static double fill_at(int64_t i, double seed) {
    return sin(1.3 * (double)i + seed);
}
static void fill(double *x, int64_t n, double seed, double scale) {
    for (int64_t i = 0; i < n; i++) x[i] = scale * fill_at(i, seed);
}

static tl_arg arg(void *data, tl_dtype t, int ndim, int64_t a, int64_t b, int64_t c, int64_t d) {
    int64_t dim[] = {a, b, c, d};
    assert_true(a * (ndim > 1 ? b : 1) * (ndim > 2 ? c : 1) * (ndim > 3 ? d : 1) <= ROOM);
    return (tl_arg){data, tl_desc_make(t, ndim, dim)};
}

enum { DOC = 1, SINKS = 2, SLOPES = 4, BIAS = 8 };

/* Filled as the vectors were: q 0.1 (twice as large), k 0.2, v 0.3, sinks 0.4, slopes |0.5|, bias 0.6, dO 0.7. */
static attention_case *open_case(const int64_t *dim, struct attention_attr a, int with) {
    attention_case *x = calloc(1, sizeof *x);
    assert_non_null(x);
    x->a = a;
    int64_t B = x->B = dim[0], T = x->T = dim[1], S = x->S = dim[2], H = x->H = dim[3], Hk = x->Hk = dim[4];
    int64_t Dh = x->Dh = dim[5], Dv = x->Dv = dim[6], P = T > S ? T : S;
    fill(x->q, B * T * H * Dh, 0.1, 2);
    fill(x->k, B * S * Hk * Dh, 0.2, 1);
    fill(x->v, B * S * Hk * Dv, 0.3, 1);
    fill(x->sinks, H, 0.4, 1);
    fill(x->slopes, H, 0.5, 1);
    for (int64_t h = 0; h < H; h++) x->slopes[h] = fabs(x->slopes[h]);
    fill(x->bias, H * (2 * P - 1), 0.6, 1);
    fill(x->dy, B * T * H * Dv, 0.7, 1);
    for (int64_t i = 0; i < B * S; i++) x->doc[i] = (int32_t)(i % S >= S / 2);
    tl_arg *in = x->fwd.in, *back = x->bwd.in;
    in[0] = arg(x->q, TL_F64, 4, B, T, H, Dh);
    in[1] = arg(x->k, TL_F64, 4, B, S, Hk, Dh);
    in[2] = arg(x->v, TL_F64, 4, B, S, Hk, Dv);
    if (with & DOC) in[3] = arg(x->doc, TL_I32, 2, B, S, 1, 1);
    if (with & SINKS) in[4] = arg(x->sinks, TL_F64, 1, H, 1, 1, 1);
    if (with & SLOPES) in[5] = arg(x->slopes, TL_F64, 1, H, 1, 1, 1);
    if (with & BIAS) in[6] = arg(x->bias, TL_F64, 2, H, 2 * P - 1, 1, 1);
    x->fwd.out[0] = arg(x->o, TL_F64, 4, B, T, H, Dv);
    x->fwd.out[1] = arg(x->lse, TL_F64, 3, B, H, T, 1);
    back[0] = arg(x->dy, TL_F64, 4, B, T, H, Dv);
    for (int i = 0; i < 3; i++) back[1 + i] = in[i];
    back[4] = x->fwd.out[0];
    back[5] = x->fwd.out[1];
    for (int i = 0; i < 4; i++) back[6 + i] = in[3 + i];
    double *grad[] = {x->dq, x->dk, x->dv, x->dsinks, x->dbias};
    for (int i = 0; i < 5; i++) {
        x->bwd.out[i].d = in[i < 3 ? i : i == 3 ? 4 : 6].d;
        if (x->bwd.out[i].d.dtype != TL_NONE) x->bwd.out[i].data = grad[i];
    }
    return x;
}

static void forward(attention_case *x) {
    x->fwd.attr = &x->a;
    OP_DEF(attention)->ref_f64(&x->fwd);
}
static void backward(attention_case *x) {
    forward(x);
    x->back.f = x->a;
    x->bwd.attr = &x->back;
    OP_DEF(attention_bwd)->ref_f64(&x->bwd);
}

static int64_t size_of(const tl_arg *a) {
    return tl_desc_count(&a->d);
}
static void assert_close(const double *x, const double *want, int64_t n, double tol, const char *what) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(x[i] - want[i]) <= tol * fmax(1, fabs(want[i])))) {
            print_message("%s[%lld]: %.17g, not %.17g\n", what, (long long)i, x[i], want[i]);
            fail();
        }
}
#define SAME_AS(x, want, tol) assert_close((x), (want), sizeof(want) / sizeof *(want), (tol), #want)

static void equals_torch(void **state) {
    (void)state;
    attention_case *x =
        open_case((int64_t[]){1, 6, 6, 4, 2, 4, 3},
                  (struct attention_attr){.scale = 0.75f, .softcap = 1.5f, .causal = 1, .window = 3}, 15);
    backward(x);
    SAME_AS(x->o, full_o, 1e-13);
    SAME_AS(x->lse, full_lse, 1e-13);
    SAME_AS(x->dq, full_dq, 1e-12);
    SAME_AS(x->dk, full_dk, 1e-12);
    SAME_AS(x->dv, full_dv, 1e-12);
    SAME_AS(x->dsinks, full_dsinks, 1e-12);
    SAME_AS(x->dbias, full_dbias, 1e-12);
    free(x);
    x = open_case((int64_t[]){2, 3, 5, 4, 2, 4, 4}, (struct attention_attr){.causal = 1, .q_offset = 2}, 0);
    backward(x);
    SAME_AS(x->o, offset_o, 1e-13);
    SAME_AS(x->dq, offset_dq, 1e-12);
    SAME_AS(x->dk, offset_dk, 1e-12);
    SAME_AS(x->dv, offset_dv, 1e-12);
    free(x);
    x = open_case((int64_t[]){2, 3, 5, 2, 2, 4, 4}, (struct attention_attr){0}, 0);
    backward(x);
    SAME_AS(x->o, cross_o, 1e-13);
    SAME_AS(x->dq, cross_dq, 1e-12);
    SAME_AS(x->dk, cross_dk, 1e-12);
    SAME_AS(x->dv, cross_dv, 1e-12);
    free(x);
}

static double loss_of(attention_case *x) {
    forward(x);
    double sum = 0;
    for (int64_t i = 0; i < size_of(&x->fwd.out[0]); i++) sum += x->o[i] * x->dy[i];
    return sum;
}

static void check_differences(attention_case *x, double *input, const double *grad, int64_t n, const char *what) {
    const double step = 1e-5;
    for (int64_t i = 0; i < n; i++) {
        double keep = input[i];
        input[i] = keep + step;
        double up = loss_of(x);
        input[i] = keep - step;
        double down = loss_of(x);
        input[i] = keep;
        double numeric = (up - down) / (2 * step);
        assert_close(&grad[i], &numeric, 1, 1e-8, what);
    }
}

static void gradients_are_differences(void **state) {
    (void)state;
    static const int64_t dims[][7] = {
        {1, 5, 5, 4, 2, 3, 2}, {2, 3, 6, 2, 1, 4, 3}, {1, 6, 3, 1, 1, 2, 2}, {1, 3, 3, 1, 1, 66, 65}};
    static const struct attention_attr attrs[] = {{.softcap = 1, .causal = 1, .window = 3},
                                                  {.q_offset = 3, .causal = 1},
                                                  {.q_offset = -3, .causal = 1},
                                                  {.window = 2}};
    static const int with[] = {15, 6, 2, 12};
    for (int n = 0; n < 4; n++) {
        attention_case *x = open_case(dims[n], attrs[n], with[n]);
        backward(x);
        check_differences(x, x->q, x->dq, size_of(&x->fwd.in[0]), "dq");
        check_differences(x, x->k, x->dk, size_of(&x->fwd.in[1]), "dk");
        check_differences(x, x->v, x->dv, size_of(&x->fwd.in[2]), "dv");
        if (with[n] & SINKS) check_differences(x, x->sinks, x->dsinks, x->H, "dsinks");
        if (with[n] & BIAS) check_differences(x, x->bias, x->dbias, size_of(&x->fwd.in[6]), "dbias");
        free(x);
    }
}

static const int64_t square[] = {2, 7, 7, 4, 2, 4, 3};

/* The same call twice, one thing changed; forward and backward must say the same. */
static void assert_alike(attention_case *x, attention_case *y, double tol) {
    backward(x);
    backward(y);
    assert_close(x->o, y->o, size_of(&x->fwd.out[0]), tol, "o");
    assert_close(x->dq, y->dq, size_of(&x->fwd.in[0]), tol, "dq");
    assert_close(x->dk, y->dk, size_of(&x->fwd.in[1]), tol, "dk");
    assert_close(x->dv, y->dv, size_of(&x->fwd.in[2]), tol, "dv");
    free(x);
    free(y);
}

static void windows(void **state) {
    (void)state;
    for (int64_t w = 7; w < 20; w += 6)
        assert_alike(open_case(square, (struct attention_attr){.causal = 1, .window = w}, 0),
                     open_case(square, (struct attention_attr){.causal = 1}, 0), 0);
    /* a window of one token sees itself: O = V */
    attention_case *x = open_case(square, (struct attention_attr){.causal = 1, .window = 1}, 0);
    forward(x);
    for (int64_t t = 0; t < 14; t++)
        for (int64_t h = 0; h < 4; h++) assert_close(&x->o[(t * 4 + h) * 3], &x->v[(t * 2 + h / 2) * 3], 3, 1e-15, "o");
    free(x);
    /* both ways, a window of one is the same */
    assert_alike(open_case(square, (struct attention_attr){.window = 1}, 0),
                 open_case(square, (struct attention_attr){.causal = 1, .window = 1}, 0), 0);
}

/* Grouped heads are repeated heads, whose gradients add up. */
static void groups_are_repeated_heads(void **state) {
    (void)state;
    attention_case *x = open_case(square, (struct attention_attr){.causal = 1}, 0);
    attention_case *y = open_case((int64_t[]){2, 7, 7, 4, 4, 4, 3}, (struct attention_attr){.causal = 1}, 0);
    for (int64_t t = 0; t < 14; t++)
        for (int64_t h = 0; h < 4; h++) {
            memcpy(&y->k[(t * 4 + h) * 4], &x->k[(t * 2 + h / 2) * 4], 4 * sizeof(double));
            memcpy(&y->v[(t * 4 + h) * 3], &x->v[(t * 2 + h / 2) * 3], 3 * sizeof(double));
        }
    backward(x);
    backward(y);
    assert_close(x->o, y->o, size_of(&x->fwd.out[0]), 0, "o");
    assert_close(x->dq, y->dq, size_of(&x->fwd.in[0]), 0, "dq");
    for (int64_t t = 0; t < 14; t++)
        for (int64_t h = 0; h < 2; h++) {
            for (int64_t d = 0; d < 4; d++) {
                double sum = y->dk[(t * 4 + 2 * h) * 4 + d] + y->dk[(t * 4 + 2 * h + 1) * 4 + d];
                assert_close(&x->dk[(t * 2 + h) * 4 + d], &sum, 1, 1e-14, "dk");
            }
            for (int64_t d = 0; d < 3; d++) {
                double sum = y->dv[(t * 4 + 2 * h) * 3 + d] + y->dv[(t * 4 + 2 * h + 1) * 3 + d];
                assert_close(&x->dv[(t * 2 + h) * 3 + d], &sum, 1, 1e-14, "dv");
            }
        }
    free(x);
    free(y);
}

static void caps_and_sinks(void **state) {
    (void)state;
    assert_alike(open_case(square, (struct attention_attr){.softcap = 1e7f}, 0),
                 open_case(square, (struct attention_attr){0}, 0), 1e-10);
    /* |T| <= cap: no weight is further from another than e^2cap */
    attention_case *x =
        open_case((int64_t[]){1, 1, 2, 1, 1, 1, 1}, (struct attention_attr){.scale = 1, .softcap = 0.5f}, 0);
    x->q[0] = 1;
    x->k[0] = 1e9, x->k[1] = -1e9;
    x->v[0] = 1, x->v[1] = 0;
    forward(x);
    double most = 1 / (1 + exp(-1.0));
    assert_close(x->o, &most, 1, 1e-15, "o");
    free(x);
    /* a sink of -inf is none; one of 0 is a key of score 0 whose value is 0 */
    attention_case *y = open_case(square, (struct attention_attr){.causal = 1}, SINKS);
    for (int h = 0; h < 4; h++) y->sinks[h] = -INFINITY;
    assert_alike(y, open_case(square, (struct attention_attr){.causal = 1}, 0), 0);
    x = open_case((int64_t[]){1, 4, 4, 2, 2, 3, 3}, (struct attention_attr){0}, SINKS);
    y = open_case((int64_t[]){1, 4, 5, 2, 2, 3, 3}, (struct attention_attr){0}, 0);
    for (int h = 0; h < 2; h++) x->sinks[h] = 0;
    memset(&y->k[4 * 2 * 3], 0, 6 * sizeof(double));
    memset(&y->v[4 * 2 * 3], 0, 6 * sizeof(double));
    forward(x);
    forward(y);
    assert_close(x->o, y->o, 24, 1e-15, "o");
    assert_close(x->lse, y->lse, 8, 1e-15, "lse");
    /* a sink far above every score: all weight to it, nothing overflows */
    x->sinks[0] = 1e300;
    backward(x);
    for (int i = 0; i < 24; i++) {
        assert_true(isfinite(x->dq[i]) && isfinite(x->o[i]));
        if (i / 3 % 2 == 0) assert_true(x->o[i] == 0);
    }
    free(x);
    free(y);
}

/* A bias that is the same for all keys changes nothing but the logsumexp; one of -slope |i - j| is ALiBi. */
static void biases(void **state) {
    (void)state;
    attention_case *y = open_case(square, (struct attention_attr){.causal = 1}, BIAS);
    for (int i = 0; i < 4 * 13; i++) y->bias[i] = 100;
    attention_case *x = open_case(square, (struct attention_attr){.causal = 1}, 0);
    backward(x);
    backward(y);
    for (int i = 0; i < 56; i++) y->lse[i] -= 100;
    assert_close(x->lse, y->lse, 56, 1e-13, "lse");
    assert_alike(x, y, 1e-12);
    y = open_case(square, (struct attention_attr){0}, BIAS);
    x = open_case(square, (struct attention_attr){0}, SLOPES);
    for (int h = 0; h < 4; h++)
        for (int e = 0; e < 13; e++) y->bias[h * 13 + e] = -x->slopes[h] * abs(e - 6);
    assert_alike(x, y, 1e-13);
}

/* Rows that see nothing: 0, +inf, no gradient; the same for scores that are all -inf; never NaN. */
static void rows_that_see_nothing(void **state) {
    (void)state;
    attention_case *x =
        open_case((int64_t[]){1, 5, 3, 2, 1, 2, 2}, (struct attention_attr){.causal = 1, .q_offset = -2}, 0);
    backward(x);
    for (int t = 0; t < 5; t++)
        for (int h = 0; h < 2; h++) {
            assert_true(t < 2 ? x->lse[h * 5 + t] == INFINITY : isfinite(x->lse[h * 5 + t]));
            for (int d = 0; d < 2; d++) {
                assert_true((x->o[(t * 2 + h) * 2 + d] == 0) == (t < 2));
                if (t < 2) assert_true(x->dq[(t * 2 + h) * 2 + d] == 0);
            }
        }
    for (int i = 0; i < 6; i++) assert_true(isfinite(x->dk[i]) && isfinite(x->dv[i]));
    free(x);
    x = open_case((int64_t[]){1, 2, 2, 1, 1, 1, 1}, (struct attention_attr){.scale = 1}, BIAS);
    for (int i = 0; i < 3; i++) x->bias[i] = -INFINITY;
    backward(x);
    for (int t = 0; t < 2; t++) {
        assert_true(x->o[t] == 0 && x->lse[t] == INFINITY);
        assert_true(x->dq[t] == 0 && x->dk[t] == 0 && x->dv[t] == 0);
    }
    /* only a key that comes later: row 1 still sees nothing, row 0 just key 1 */
    x->bias[2] = 0;
    backward(x);
    assert_true(x->o[0] == x->v[1] && x->o[1] == 0 && x->dv[0] == 0 && isfinite(x->dk[1]));
    free(x);
}

/* A token changes no row before it, and no row's gradient reaches a token after it. */
static void the_future_is_not_seen(void **state) {
    (void)state;
    attention_case *x = open_case(square, (struct attention_attr){.causal = 1}, SINKS | SLOPES);
    attention_case *y = open_case(square, (struct attention_attr){.causal = 1}, SINKS | SLOPES);
    for (int i = 0; i < 8; i++) y->k[4 * 8 + i] = 9, y->v[4 * 6 + i % 6] = -9;
    forward(x);
    forward(y);
    assert_memory_equal(x->o, y->o, 4 * 12 * sizeof(double));
    assert_memory_not_equal(x->o + 4 * 12, y->o + 4 * 12, 12 * sizeof(double));
    memset(x->dy, 0, sizeof x->dy);
    x->dy[2 * 12] = 1; /* row 2 of the first sequence */
    backward(x);
    for (int64_t i = 0; i < size_of(&x->fwd.in[1]); i++) assert_true((x->dk[i] == 0) == !(i < 3 * 8 && i % 8 < 4));
    free(x);
    free(y);
}

/* Documents packed together are documents alone. */
static void documents_are_apart(void **state) {
    (void)state;
    attention_case *x = open_case((int64_t[]){1, 8, 8, 2, 1, 3, 3}, (struct attention_attr){.causal = 1}, DOC);
    attention_case *y = open_case((int64_t[]){2, 4, 4, 2, 1, 3, 3}, (struct attention_attr){.causal = 1}, 0);
    backward(x);
    backward(y);
    assert_close(x->o, y->o, 48, 0, "o");
    assert_close(x->dq, y->dq, 48, 0, "dq");
    assert_close(x->dk, y->dk, 24, 0, "dk");
    assert_close(x->dv, y->dv, 24, 0, "dv");
    free(x);
    free(y);
}

/* q = 0: a running mean of v; one-hot keys and a large scale: the very row of v; one token: v. */
static void closed_forms(void **state) {
    (void)state;
    attention_case *x = open_case((int64_t[]){1, 9, 9, 1, 1, 9, 2}, (struct attention_attr){.causal = 1}, 0);
    memset(x->q, 0, sizeof x->q);
    forward(x);
    double mean[2] = {0, 0};
    for (int t = 0; t < 9; t++)
        for (int d = 0; d < 2; d++) {
            mean[d] += (x->v[t * 2 + d] - mean[d]) / (t + 1);
            assert_close(&x->o[t * 2 + d], &mean[d], 1, 1e-14, "mean");
        }
    x->a = (struct attention_attr){.scale = 1e6f};
    memset(x->k, 0, sizeof x->k);
    for (int t = 0; t < 9; t++) x->k[t * 9 + t] = 1, x->q[t * 9 + (t * 5 + 2) % 9] = 1;
    forward(x);
    for (int t = 0; t < 9; t++) assert_close(&x->o[t * 2], &x->v[(t * 5 + 2) % 9 * 2], 2, 0, "retrieved");
    free(x);
    x = open_case((int64_t[]){1, 1, 1, 2, 1, 3, 2}, (struct attention_attr){.causal = 1}, 0);
    forward(x);
    assert_close(x->o, x->v, 2, 0, "o");
    assert_close(x->o + 2, x->v, 2, 0, "o");
    free(x);
}

/* Keys split anywhere: parts join by their logsumexps. */
static void parts_join(void **state) {
    (void)state;
    attention_case *x = open_case((int64_t[]){1, 3, 8, 1, 1, 4, 2}, (struct attention_attr){0}, 0);
    forward(x);
    for (int64_t cut = 1; cut < 8; cut++) {
        attention_case *a = open_case((int64_t[]){1, 3, cut, 1, 1, 4, 2}, (struct attention_attr){0}, 0);
        attention_case *b = open_case((int64_t[]){1, 3, 8 - cut, 1, 1, 4, 2}, (struct attention_attr){0}, 0);
        memcpy(b->k, &x->k[cut * 4], sizeof(double) * (size_t)(8 - cut) * 4);
        memcpy(b->v, &x->v[cut * 2], sizeof(double) * (size_t)(8 - cut) * 2);
        forward(a);
        forward(b);
        for (int t = 0; t < 3; t++) {
            double l = log(exp(a->lse[t]) + exp(b->lse[t]));
            assert_close(&x->lse[t], &l, 1, 1e-14, "lse");
            for (int d = 0; d < 2; d++) {
                double o = exp(a->lse[t] - l) * a->o[t * 2 + d] + exp(b->lse[t] - l) * b->o[t * 2 + d];
                assert_close(&x->o[t * 2 + d], &o, 1, 1e-14, "joined");
            }
        }
        free(a);
        free(b);
    }
    free(x);
}

/* Decoding token by token over a cache, ring or not, is causal attention with that window. */
static void caches_are_causal_attention(void **state) {
    (void)state;
    enum { T = 11, H = 4, HK = 2, DH = 3, DV = 2, Q = 3 };
    for (int capacity = 4; capacity <= 12; capacity += 8)
        for (int window = 0; window <= 3; window += 3) {
            int64_t sees = window ? window : capacity;
            attention_case *x =
                open_case((int64_t[]){1, T, T, H, HK, DH, DV},
                          (struct attention_attr){.softcap = 2, .causal = 1, .window = sees}, SINKS | SLOPES);
            forward(x);
            double *kc = calloc(Q * 12 * HK * DH, sizeof *kc), *vc = calloc(Q * 12 * HK * DV, sizeof *vc),
                   o[2 * H * DV];
            for (int32_t t = 0; t < T; t++) {
                int32_t slot[2] = {-1, 1}, pos[2] = {0, t};
                double two[2 * H * DH] = {0};
                struct kv_write_attr none = {0};
                struct attention_kv_attr a = {.softcap = 2, .window = window};
                tl_op_call w = {.attr = &none, .acc = 1};
                w.in[1] = arg(slot, TL_I32, 1, 2, 1, 1, 1);
                w.in[2] = arg(pos, TL_I32, 1, 2, 1, 1, 1);
                memcpy(two + HK * DH, x->k + t * HK * DH, sizeof(double) * HK * DH);
                w.in[0] = arg(two, TL_F64, 3, 2, HK, DH, 1);
                w.out[0] = arg(kc, TL_F64, 4, Q, capacity, HK, DH);
                OP_DEF(kv_write)->ref_f64(&w);
                memcpy(two + HK * DV, x->v + t * HK * DV, sizeof(double) * HK * DV);
                w.in[0] = arg(two, TL_F64, 3, 2, HK, DV, 1);
                w.out[0] = arg(vc, TL_F64, 4, Q, capacity, HK, DV);
                OP_DEF(kv_write)->ref_f64(&w);
                memcpy(two + H * DH, x->q + t * H * DH, sizeof(double) * H * DH);
                tl_op_call c = {.attr = &a};
                c.in[0] = arg(two, TL_F64, 3, 2, H, DH, 1);
                c.in[1] = arg(kc, TL_F64, 4, Q, capacity, HK, DH);
                c.in[2] = w.out[0];
                c.in[3] = w.in[1];
                c.in[4] = w.in[2];
                c.in[5] = x->fwd.in[4];
                c.in[6] = x->fwd.in[5];
                c.out[0] = arg(o, TL_F64, 3, 2, H, DV, 1);
                OP_DEF(attention_kv)->ref_f64(&c);
                for (int i = 0; i < H * DV; i++) assert_true(o[i] == 0); /* the idle row */
                assert_close(o + H * DV, x->o + t * H * DV, H * DV, 1e-14, "decoded");
            }
            for (int i = 0; i < capacity * HK * DH; i++) assert_true(kc[i] == 0); /* another's slot */
            free(kc);
            free(vc);
            free(x);
        }
}

/* A key that is NaN spoils the rows that see it and no other. */
static void nan_stays_where_it_is_seen(void **state) {
    (void)state;
    attention_case *x = open_case(square, (struct attention_attr){.causal = 1, .window = 2}, 0);
    x->k[3 * 8] = NAN; /* token 3, key head 0 */
    forward(x);
    for (int t = 0; t < 14; t++)
        for (int h = 0; h < 4; h++) {
            bool spoiled = (t == 3 || t == 4) && h < 2;
            for (int d = 0; d < 3; d++) assert_true(isnan(x->o[(t * 4 + h) * 3 + d]) == spoiled);
            assert_true(isnan(x->lse[(t / 7 * 4 + h) * 7 + t % 7]) == spoiled);
        }
    free(x);
}

/* Queries and keys normed per head: rows of any length give the same attention, and scores stay within g_q g_k
 * sqrt(Dh). */
static void normed_queries_and_keys(void **state) {
    (void)state;
    const double gain = 1.5;
    attention_case *x = open_case((int64_t[]){1, 6, 6, 2, 2, 8, 3}, (struct attention_attr){.causal = 1}, 0);
    attention_case *y = open_case((int64_t[]){1, 6, 6, 2, 2, 8, 3}, (struct attention_attr){.causal = 1}, 0);
    for (int i = 0; i < 96; i++) y->q[i] *= 1 + i / 8, y->k[i] *= 100 - i / 8;
    attention_case *both[] = {x, y};
    for (int c = 0; c < 2; c++)
        for (int r = 0; r < 12; r++) {
            double *rows[] = {both[c]->q + 8 * r, both[c]->k + 8 * r};
            double g[8];
            for (int d = 0; d < 8; d++) g[d] = gain;
            for (int i = 0; i < 2; i++) {
                struct rmsnorm_attr a = {0, 0};
                tl_op_call n = {.attr = &a};
                n.in[0] = n.out[0] = arg(rows[i], TL_F64, 2, 1, 8, 1, 1);
                n.in[1] = arg(g, TL_F64, 1, 8, 1, 1, 1);
                OP_DEF(rmsnorm)->ref_f64(&n);
            }
        }
    forward(x);
    forward(y);
    assert_close(y->o, x->o, 36, 1e-14, "o");
    for (int h = 0; h < 2; h++)
        for (int t = 0; t < 6; t++) /* logsumexp of t + 1 scores, none larger than the bound */
            assert_true(fabs(x->lse[h * 6 + t] - log(t + 1)) <= gain * gain * sqrt(8) * (1 + 1e-12));
    free(x);
    free(y);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_torch),
        cmocka_unit_test(gradients_are_differences),
        cmocka_unit_test(windows),
        cmocka_unit_test(groups_are_repeated_heads),
        cmocka_unit_test(caps_and_sinks),
        cmocka_unit_test(biases),
        cmocka_unit_test(rows_that_see_nothing),
        cmocka_unit_test(the_future_is_not_seen),
        cmocka_unit_test(documents_are_apart),
        cmocka_unit_test(closed_forms),
        cmocka_unit_test(nan_stays_where_it_is_seen),
        cmocka_unit_test(normed_queries_and_keys),
        cmocka_unit_test(parts_join),
        cmocka_unit_test(caches_are_causal_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
