/* References of adamw, global_norm and dropout: 1000 steps beside PyTorch, and by their properties. */
#include "support/testing.h"

#include "base/half.h"
#include "base/rng.h"
#include "op/op.h"
#include "op/vectors_a.h"

#include <math.h>
#include <stdlib.h>

enum { N = 6, STEPS = 1000 };

static tl_arg arg(void *data, tl_dtype t, int ndim, int64_t a, int64_t b) {
    return (tl_arg){data, tl_desc_make(t, ndim, (int64_t[]){a, b})};
}

static double gradient(int t, int i) {
    return sin(0.05 * t * (i + 1)) + 0.25 * cos(i);
}
static double rate(int t) {
    return 0.01 * (1 - (t - 1) / (double)STEPS);
}

static void near(double x, double want, double tol, const char *what) {
    if (fabs(x - want) <= tol) return;
    print_message("%s: %.17g, not %.17g\n", what, x, want);
    fail();
}

/* One step over double or float memory: norm, then the update. */
#define DEFINE_STEPS(name, type, dtype, ref)                                                                           \
    typedef struct name##_state {                                                                                      \
        type p[N], m[N], v[N], g[N], hyper[HYPER_COUNT], norm;                                                         \
        uint16_t p16[N];                                                                                               \
    } name##_state;                                                                                                    \
    static void name##_step(name##_state *s, int t) {                                                                  \
        struct global_norm_attr none = {0};                                                                            \
        struct adamw_attr a = {1};                                                                                     \
        for (int i = 0; i < N; i++) s->g[i] = (type)gradient(t, i);                                                    \
        tl_op_call n = {.attr = &none};                                                                                \
        n.in[0] = arg(s->g, dtype, 1, N, 0);                                                                           \
        n.out[0] = arg(&s->norm, dtype, 1, 1, 0);                                                                      \
        OP_DEF(global_norm)->ref(&n);                                                                                  \
        s->hyper[HYPER_LR] = (type)rate(t);                                                                            \
        s->hyper[HYPER_BETA1] = (type)0.9;                                                                             \
        s->hyper[HYPER_BETA2] = (type)0.999;                                                                           \
        s->hyper[HYPER_EPS] = (type)1e-8;                                                                              \
        s->hyper[HYPER_DECAY] = (type)0.1;                                                                             \
        s->hyper[HYPER_CLIP] = 1;                                                                                      \
        s->hyper[HYPER_BC1] = (type)(1 - pow(0.9, t));                                                                 \
        s->hyper[HYPER_BC2] = (type)(1 - pow(0.999, t));                                                               \
        s->hyper[HYPER_GSCALE] = 1;                                                                                    \
        tl_op_call c = {.attr = &a, .acc = 31};                                                                        \
        c.in[0] = arg(s->hyper, dtype, 1, HYPER_COUNT, 0);                                                             \
        c.in[1] = n.out[0];                                                                                            \
        void *memory[] = {s->p, s->m, s->v, s->g};                                                                     \
        for (int k = 0; k < 4; k++) c.out[k] = arg(memory[k], dtype, 1, N, 0);                                         \
        c.out[4] = arg(s->p16, TL_BF16, 1, N, 0);                                                                      \
        OP_DEF(adamw)->ref(&c);                                                                                        \
        for (int i = 0; i < N; i++) {                                                                                  \
            assert_true(s->g[i] == 0);                                                                                 \
            near((double)half_bf16_to_f32(s->p16[i]), (double)s->p[i], fabs((double)s->p[i]) / 256, "p16");            \
        }                                                                                                              \
    }
DEFINE_STEPS(wide, double, TL_F64, ref_f64)
DEFINE_STEPS(narrow, float, TL_F32, ref_f32)

/* In double to rounding (PyTorch adds 1e-6 to the norm before it clips, which shows in the 7th digit: the tolerance);
 * in float within 1e-4 of the way that the parameters went. */
static void adamw_walks_beside_torch(void **state) {
    (void)state;
    wide_state w = {0};
    narrow_state n = {0};
    for (int i = 0; i < N; i++) {
        w.p[i] = sin(1.3 * i + 0.1);
        n.p[i] = (float)w.p[i];
    }
    for (int t = 1; t <= STEPS; t++) {
        wide_step(&w, t);
        narrow_step(&n, t);
        const double *want = t == 1 ? adamw_p1 : t == 10 ? adamw_p10 : t == STEPS ? adamw_p1000 : NULL;
        for (int i = 0; want && i < N; i++) {
            near(w.p[i], want[i], 1e-7 * adamw_path[i], "f64");
            near((double)n.p[i], want[i], 1e-4 * adamw_path[i], "f32");
        }
    }
    for (int i = 0; i < N; i++) {
        near(w.m[i], adamw_m[i], 2e-6, "m");
        near(w.v[i], adamw_v[i], 2e-6, "v");
    }
}

/* No decay, no norm, no copy: what is left out has no effect; hyper[DECAY] is not read. */
static void options_of_adamw(void **state) {
    (void)state;
    for (int form = 0; form < 3; form++) {
        double hyper[HYPER_COUNT] = {0.1, 0.5, 0.75, 0, 0.25, form == 2 ? 1 : 0, 0.5, 0.25, 2};
        double p = 4, m = 0, v = 0, g = 3, norm = 12;
        struct adamw_attr a = {form != 0};
        tl_op_call c = {.attr = &a, .acc = 15};
        c.in[0] = arg(hyper, TL_F64, 1, HYPER_COUNT, 0);
        if (form == 2) c.in[1] = arg(&norm, TL_F64, 1, 1, 0);
        double *memory[] = {&p, &m, &v, &g};
        for (int k = 0; k < 4; k++) c.out[k] = arg(memory[k], TL_F64, 1, 1, 0);
        OP_DEF(adamw)->ref_f64(&c);
        double gs = form == 2 ? 0.5 : 6; /* 3 x 2, clipped by 1/12 in form 2 */
        near(m, 0.5 * gs, 1e-15, "m");
        near(v, 0.25 * gs * gs, 1e-15, "v");
        near(p, 4 - 0.1 * (1 + (form ? 0.25 * 4 : 0)), 1e-15, "p"); /* the first step has length 1 */
        assert_true(g == 0);
    }
}

static void norms(void **state) {
    (void)state;
    enum { MANY = 3 * 4096 + 5 };
    static float x[MANY];
    double sum = 0;
    float norm;
    for (int i = 0; i < MANY; i++) {
        x[i] = 1.0f + (float)(i % 7);
        sum += (double)x[i] * (double)x[i];
    }
    struct global_norm_attr none = {0};
    tl_op_call c = {.attr = &none};
    c.in[0] = arg(x, TL_F32, 1, MANY, 0);
    c.out[0] = arg(&norm, TL_F32, 1, 1, 0);
    OP_DEF(global_norm)->ref_f32(&c);
    near((double)norm, sqrt(sum), 1e-6 * sqrt(sum), "norm");
    x[4100] = NAN;
    OP_DEF(global_norm)->ref_f32(&c);
    assert_true(isnan(norm));
    c.in[0].d.dim[0] = 0;
    OP_DEF(global_norm)->ref_f32(&c);
    assert_true(norm == 0);
}

static void drop(double *x, int64_t rows, int64_t width, float p, int op, tl_run_info run, double *y) {
    struct dropout_attr a = {p, op};
    tl_op_call c = {.attr = &a, .run = &run};
    c.in[0] = arg(x, TL_F64, 2, rows, width);
    c.out[0] = arg(y, TL_F64, 2, rows, width);
    OP_DEF(dropout)->ref_f64(&c);
}

/* p 0 is the identity; the kept share is 1 - p and the mean stays; a row's mask is its own wherever the micro-batch
 * starts; seed, step and operator each give another mask; the gradient has the mask of the forward pass. */
static void dropout_properties(void **state) {
    (void)state;
    enum { ROWS = 64, WIDTH = 129, ALL = ROWS * WIDTH };
    static double x[ALL], y[ALL], z[ALL];
    tl_run_info run = {.seed = 5, .step = 9, .row0 = 0};
    for (int i = 0; i < ALL; i++) x[i] = 1;
    drop(x, ROWS, WIDTH, 0, 3, run, y);
    assert_memory_equal(x, y, sizeof y);
    drop(x, ROWS, WIDTH, 0.25f, 3, run, y);
    double kept = 0;
    for (int i = 0; i < ALL; i++) {
        assert_true(y[i] == 0 || y[i] == 1 / 0.75);
        kept += y[i] != 0;
    }
    near(kept / ALL, 0.75, 0.02, "kept"); /* four standard deviations */
    rng_key key = rng_key_make(5, 9, 3);
    for (int i = 0; i < ALL; i++)
        assert_true((y[i] != 0) == (rng_uniform(key, (uint64_t)(i / WIDTH), (uint64_t)(i % WIDTH)) >= 0.25f));
    for (int r = 0; r < ROWS; r += 16) {
        run.row0 = r;
        drop(x + r * WIDTH, 16, WIDTH, 0.25f, 3, run, z + r * WIDTH);
    }
    assert_memory_equal(y, z, sizeof z);
    run.row0 = 0;
    for (int what = 0; what < 3; what++) {
        tl_run_info other = run;
        if (what == 0) other.seed++;
        if (what == 1) other.step++;
        drop(x, ROWS, WIDTH, 0.25f, what == 2 ? 4 : 3, other, z);
        double same = 0;
        for (int i = 0; i < ALL; i++) same += (y[i] != 0) == (z[i] != 0);
        near(same / ALL, 0.75 * 0.75 + 0.25 * 0.25, 0.03, "independent masks");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_walks_beside_torch),
        cmocka_unit_test(options_of_adamw),
        cmocka_unit_test(norms),
        cmocka_unit_test(dropout_properties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
