/* The whole way by hand: linear, activation, linear, mean of squares; backward; a step downhill. */
#include "graph/host.h"

static void loss_goes_down(void **state) {
    (void)state;
    test_host h;
    tl_engine *e = test_host_init(&h, &mem_default);
    tl_graph *g;
    assert_int_equal(tl_graph_create(e, &g), TL_OK);
    tl_tensor *x = tl_input(g, "x", TL_F32, DIMS(8, 5));
    tl_tensor *target = tl_input(g, "target", TL_F32, DIMS(8, 3));
    tl_tensor *w1 = tl_param(g, "w1", TL_F32, DIMS(16, 5)), *b1 = tl_param(g, "b1", TL_F32, DIMS(16));
    tl_tensor *w2 = tl_param(g, "w2", TL_F32, DIMS(3, 16));
    tl_tensor *y = tl_linear(g, tl_act(g, tl_linear(g, x, w1, b1, TL_NONE), TL_ACT_SILU), w2, NULL, TL_NONE);
    tl_tensor *off = tl_add(g, y, tl_scale(g, target, -1));
    tl_tensor *loss = tl_reduce(g, tl_mul(g, off, off), 0, true);
    tl_output(g, loss, "loss");
    tl_graph_backward(g, loss, NULL, 0, NULL, false);
    tl_error err;
    tl_plan *p;
    assert_ok(tl_plan_create(g, false, &p, &err), &err);
    test_memory m = {.n = 0};
    test_bind_all(g, p, &m);
    tl_tensor *params[] = {w1, b1, w2};
    float first = 0, last = 0;
    for (int step = 0; step < 400; step++) {
        for (int i = 0; i < 3; i++) {
            tl_tensor *d = tl_param_grad(g, params[i]);
            assert_non_null(d);
            memset(test_data_of(&m, d), 0, (size_t)tl_desc_count(&d->d) * sizeof(float));
        }
        assert_int_equal(tl_plan_run(p), TL_OK);
        last = *(float *)tl_plan_data(p, loss);
        if (step == 0) first = last;
        for (int i = 0; i < 3; i++) {
            float *w = test_data_of(&m, params[i]), *d = test_data_of(&m, tl_param_grad(g, params[i]));
            for (int64_t k = 0; k < tl_desc_count(&params[i]->d); k++) w[k] -= 0.3f * d[k];
        }
    }
    assert_true(first > 0.1f);
    assert_true(last < first / 20);
    tl_plan_destroy(p);
    tl_graph_destroy(g);
    test_memory_free(&m);
    test_host_fini(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(loss_goes_down)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
