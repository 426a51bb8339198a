/* Every operator's gradient, through the graph's own walk and plans, against differences: all examples in f64 that say
 * by which inputs they can be differentiated. And tl_gradcheck itself: it must see a wrong gradient. */
#include "graph/host.h"

#include "op/examples.h"

static void every_operator(void **state) {
    (void)state;
    op_examples list = {NULL, 0, 0};
    examples_all(&list);
    test_host h;
    tl_engine *e = test_host_init(&h, &mem_default);
    unsigned char seen[OP_COUNT] = {0};
    int bad = 0;
    for (size_t i = 0; i < list.n; i++) {
        const op_example *x = &list.e[i];
        example_call c;
        bool plain = x->diff != 0;
        for (int j = 0; plain && j < TL_OP_INS; j++)
            if (x->fill[j] != FILL_ABSENT && !tl_desc_contiguous(&x->in[j])) plain = false; /* graphs bind no views */
        if (!plain) continue;
        tl_error err = {.code = TL_OK};
        if (!example_open_err(x, 11, &c, &err)) continue;
        tl_gradcheck_result r;
        tl_status s = tl_gradcheck(e, c.op, x->attr, c.call.in, c.op->n_in, x->diff, 1e-5, &r, &err);
        double tol = x->tol > 0 ? x->tol : 1e-6;
        if (s != TL_OK || !(r.worst <= tol)) {
            bad++;
            print_message("%s (%s): %s, worst %g at input %d element %lld; %s\n", x->op, x->label, tl_status_text(s),
                          s == TL_OK ? r.worst : 0, s == TL_OK ? r.input : -1, s == TL_OK ? (long long)r.element : -1,
                          err.text);
        }
        seen[c.op->id] = 1;
        example_close(&c);
    }
    assert_int_equal(bad, 0);
    for (int i = 0; i < OP_COUNT; i++) { /* every row with a derivative has an example */
        if (!seen[i] && !(op_table[i].flags & TL_OP_NOGRAD)) print_message("no example in f64: %s\n", op_table[i].name);
        if (i != OP_broadcast && i != OP_dropout) assert_true(seen[i] || (op_table[i].flags & TL_OP_NOGRAD));
    }
    examples_free(&list);
    test_host_fini(&h);
}

static void wrong_grad(tl_grad *g) {
    struct scale_attr a = {.by = 1.01f};
    tl_tensor *dy = tl_grad_dy(g, 0);
    tl_grad_emit(g, OP_DEF(scale), &a, &dy, 1, (int[]){0}, 1);
}

static void silent_grad(tl_grad *g) {
    (void)g;
}

static void sees_mistakes(void **state) {
    (void)state;
    test_host h;
    tl_engine *e = test_host_init(&h, &mem_default);
    double x[6] = {0.5, -1, 2, 0.25, 3, -0.75};
    tl_arg in = {x, tl_desc_make(TL_F64, 1, (int64_t[]){6})};
    struct scale_attr a = {.by = 1};
    tl_gradcheck_result r;
    tl_error err;
    tl_op_def own = *OP_DEF(scale);
    own.id = -1;
    assert_ok(tl_gradcheck(e, &own, &a, &in, 1, 1, 1e-5, &r, &err), &err);
    assert_true(r.worst < 1e-9);
    own.grad = wrong_grad;
    assert_ok(tl_gradcheck(e, &own, &a, &in, 1, 1, 1e-5, &r, &err), &err);
    assert_true(r.worst > 1e-3 && r.input == 0 && r.element >= 0);
    own.grad = silent_grad;
    assert_ok(tl_gradcheck(e, &own, &a, &in, 1, 1, 1e-5, &r, &err), &err);
    assert_true(r.worst > 0.05);
    x[3] = NAN;
    own.grad = OP_DEF(scale)->grad;
    assert_ok(tl_gradcheck(e, &own, &a, &in, 1, 1, 1e-5, &r, &err), &err);
    assert_true(isinf(r.worst) && r.element >= 0);
    assert_fails(TL_ARG, tl_gradcheck(e, &own, &a, &in, 1, 1, 0, &r, &err), &err);
    own.grad = NULL;
    assert_fails(TL_UNSUPPORTED, tl_gradcheck(e, &own, &a, &in, 1, 1, 1e-5, &r, &err), &err);
    test_host_fini(&h);
}

/* tl_eval: what fits runs, what does not says why, a bounded number of plans is kept. */
static void one_operator(void **state) {
    (void)state;
    test_alloc mem;
    test_alloc_init(&mem);
    test_host h;
    tl_engine *e = test_host_init(&h, &mem.base);
    float x[600], y[600];
    tl_error err;
    struct act_attr a = {.kind = TL_ACT_RELU};
    for (int i = 0; i < 600; i++) x[i] = (float)(i % 7) - 3;
    long entries = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int n = 1; n <= 600; n++) {
            tl_arg in = {x, tl_desc_make(TL_F32, 1, (int64_t[]){n})}, out = {y, in.d};
            y[n - 1] = -1;
            assert_ok(tl_eval(e, OP_DEF(act), &a, &in, 1, &out, 1, 0, &err), &err);
            assert_true(y[n - 1] == (x[n - 1] > 0 ? x[n - 1] : 0));
            if (n == 256) entries = mem.live;
            if (n > 256) assert_int_equal(mem.live, entries);
        }
    tl_arg in = {x, tl_desc_make(TL_F32, 2, (int64_t[]){3, 4})}, out = {y, tl_desc_make(TL_F32, 2, (int64_t[]){4, 3})};
    assert_fails(TL_SHAPE, tl_eval(e, OP_DEF(act), &a, &in, 1, &out, 1, 0, &err), &err);
    assert_non_null(strstr(err.text, "(3,4)"));
    out.d = in.d;
    assert_fails(TL_ARG, tl_eval(e, OP_DEF(act), &a, &in, 1, &out, 1, 1, &err), &err); /* act adds to nothing */
    in.data = NULL;
    assert_fails(TL_ARG, tl_eval(e, OP_DEF(act), &a, &in, 1, &out, 1, 0, &err), &err);
    in.data = (char *)x + 2;
    assert_fails(TL_ARG, tl_eval(e, OP_DEF(act), &a, &in, 1, &out, 1, 0, &err), &err);
    in.data = x;
    struct scale_attr by = {.by = 2};
    in.d = example_view(in.d, 3); /* a view of wider rows, and a sum */
    y[0] = 5, y[11] = 1;
    assert_ok(tl_eval(e, OP_DEF(scale), &by, &in, 1, &out, 1, 1, &err), &err);
    assert_true(y[0] == 5 + 2 * x[0] && y[11] == 1 + 2 * x[2 * 7 + 3]);
    long calls = mem.calls;
    assert_ok(tl_eval(e, OP_DEF(scale), &by, &in, 1, &out, 1, 1, &err), &err);
    assert_int_equal(mem.calls, calls);
    test_host_fini(&h);
    test_alloc_done(&mem);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_operator), cmocka_unit_test(sees_mistakes),
                                       cmocka_unit_test(one_operator)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
