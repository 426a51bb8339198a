/* Errors of building are sticky and name the operator and what it was applied to; no allocation that fails leaks. */
#include "graph/host.h"

typedef struct fixture {
    test_host h;
    tl_graph *g;
} fixture;

static void fixture_init(fixture *f) {
    tl_engine *e = test_host_init(&f->h, &mem_default);
    assert_int_equal(tl_graph_create(e, &f->g), TL_OK);
}

static void fixture_fini(fixture *f) {
    tl_graph_destroy(f->g);
    test_host_fini(&f->h);
}

static void first_error_stays(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    tl_tensor *x = tl_input(f.g, "x", TL_F32, DIMS(4, 8)), *w = tl_param(f.g, "w", TL_F32, DIMS(3, 7));
    tl_error err;
    assert_ok(tl_graph_status(f.g, &err), &err);
    tl_tensor *y = tl_linear(f.g, x, w, NULL, TL_NONE);
    assert_null(y);
    size_t nodes = f.g->n_nodes;
    tl_tensor *part[2] = {x, x};
    tl_split(f.g, y, 2, (int64_t[]){4, 4}, part); /* every builder takes NULL and gives NULL */
    assert_null(part[0]);
    assert_null(tl_act(f.g, y, TL_ACT_SILU));
    assert_null(tl_act(f.g, x, TL_ACT_SILU));
    assert_null(tl_attention(f.g, y, y, y, NULL, NULL));
    assert_null(tl_loss_head(f.g, y, y, y, y, NULL, NULL));
    assert_null(tl_kv_write(f.g, y, y, y, y));
    assert_null(tl_input(f.g, "z", TL_F32, DIMS(1)));
    assert_null(tl_dropout(f.g, y, 0.5f));
    assert_null(tl_reshape(f.g, y, DIMS(2)));
    assert_null(tl_concat(f.g, part, 2));
    assert_null(tl_linear_add(f.g, y, y, y, y));
    tl_adamw(f.g, y, y, y, y, y, y, y, true);
    tl_output(f.g, y, "y");
    tl_graph_backward(f.g, y, NULL, 0, NULL, true);
    tl_graph_fail(f.g, TL_ARG, "a later error");
    assert_int_equal(f.g->n_nodes, nodes);
    assert_fails(TL_SHAPE, tl_graph_status(f.g, &err), &err);
    assert_non_null(strstr(err.tensor, "linear(x, w"));
    assert_non_null(strstr(err.text, "(3,7)"));
    tl_plan *p = (tl_plan *)&f;
    assert_fails(TL_SHAPE, tl_plan_create(f.g, false, &p, &err), &err);
    assert_null(p);
    fixture_fini(&f);
}

static void expect(tl_graph *g, tl_status code, const char *place, const char *text) {
    tl_error err;
    assert_fails(code, tl_graph_status(g, &err), &err);
    if (!strstr(err.tensor, place) || !strstr(err.text, text)) print_message("%s | %s\n", err.tensor, err.text);
    assert_non_null(strstr(err.tensor, place));
    assert_non_null(strstr(err.text, text));
}

#define BAD(code, place, text, ...)                                                                                    \
    do {                                                                                                               \
        fixture f;                                                                                                     \
        fixture_init(&f);                                                                                              \
        tl_graph *g = f.g;                                                                                             \
        tl_tensor *x = tl_input(g, "x", TL_F32, DIMS(4, 8)), *ids = tl_input(g, "ids", TL_I32, DIMS(4));               \
        (void)x, (void)ids;                                                                                            \
        __VA_ARGS__;                                                                                                   \
        expect(g, code, place, text);                                                                                  \
        fixture_fini(&f);                                                                                              \
    } while (0)

static void what_is_refused(void **state) {
    (void)state;
    BAD(TL_ARG, "x", "of this name", tl_param(g, "x", TL_F32, DIMS(1)));
    BAD(TL_ARG, "", "needs a name", tl_param(g, NULL, TL_F32, DIMS(1)));
    BAD(TL_ARG, "y", "of this name", tl_output(g, tl_scale(g, x, 1), "y"); tl_output(g, tl_scale(g, x, 2), "y"));
    BAD(TL_SHAPE, "w", "negative", tl_param(g, "w", TL_F32, DIMS(1, -1)));
    BAD(TL_SHAPE, "w", "too large", tl_param(g, "w", TL_F32, DIMS(INT64_MAX / 2, 1 << 20)));
    BAD(TL_SHAPE, "w", "0 to 4", tl_param(g, "w", TL_F32, 5, (int64_t[]){1, 1, 1, 1, 1}));
    BAD(TL_DTYPE, "w", "dtype", tl_param(g, "w", (tl_dtype)99, DIMS(1)));
    BAD(TL_SHAPE, "w", "blocks", tl_const(g, "w", TL_Q8_0, DIMS(2, 31)));
    BAD(TL_ARG, "act", "missing", tl_apply(g, OP_DEF(act), NULL, NULL, 0, NULL, NULL, 0));
    BAD(TL_ARG, "", "no operator", tl_apply(g, NULL, NULL, NULL, 0, NULL, NULL, 0));
    BAD(TL_ARG, "act", "too many", tl_apply(g, OP_DEF(act), NULL, (tl_tensor *[]){x, x}, 2, NULL, NULL, 0));
    BAD(TL_SHAPE, "add(", "cannot be added into",
        tl_apply(g, OP_DEF(add), NULL, (tl_tensor *[]){x, x}, 2, (tl_tensor *[6]){x}, NULL, 0));
    BAD(TL_SHAPE, "cast(", "another shape",
        tl_apply(g, OP_DEF(cast), &(struct cast_attr){TL_F64}, (tl_tensor *[]){x}, 1, (tl_tensor *[6]){x}, NULL, 0));
    BAD(TL_STATE, "", "do not nest", tl_block_begin(g); tl_block_begin(g));
    BAD(TL_STATE, "", "without", tl_block_end(g));
    BAD(TL_ARG, "backward", "more than one", tl_graph_backward(g, x, NULL, 0, NULL, false));
    BAD(TL_ARG, "backward", "no floating-point", tl_graph_backward(g, ids, NULL, 0, NULL, false));
    BAD(TL_ARG, "backward", "shape and dtype", tl_graph_vjp(g, x, ids, NULL, 0, NULL));
    BAD(TL_ARG, "backward", "still open", tl_block_begin(g);
        tl_graph_backward(g, tl_reduce(g, x, 0, false), NULL, 0, NULL, false));
    BAD(TL_ARG, "y", "needs a tensor", tl_output(g, NULL, "y"));
    BAD(TL_LIMIT, "", "why not", tl_graph_fail(g, TL_LIMIT, "why %s", "not"));
}

/* No derivative where one is needed, with the operator's name; where none is needed nobody asks. */
static void no_derivative(void **state) {
    (void)state;
    BAD(TL_UNSUPPORTED, "rope_table", "", {
        tl_tensor *freq = tl_param(g, "freq", TL_F64, DIMS(2));
        tl_tensor *t = tl_rope_table(g, ids, freq, 1);
        tl_graph_backward(g, tl_reduce(g, t, 0, false), NULL, 0, NULL, false);
    });
    fixture f;
    fixture_init(&f);
    tl_tensor *freq = tl_const(f.g, "freq", TL_F64, DIMS(2)), *ids = tl_input(f.g, "ids", TL_I32, DIMS(4));
    tl_tensor *x = tl_param(f.g, "x", TL_F32, DIMS(4, 1, 4)), *unused = tl_param(f.g, "unused", TL_F32, DIMS(1));
    tl_tensor *y = tl_rope(f.g, x, tl_rope_table(f.g, ids, freq, 1), false);
    tl_graph_backward(f.g, tl_reduce(f.g, y, 0, false), NULL, 0, NULL, false);
    tl_error err;
    assert_ok(tl_graph_status(f.g, &err), &err);
    assert_non_null(tl_param_grad(f.g, x));
    assert_null(tl_param_grad(f.g, unused));
    assert_null(tl_param_grad(f.g, y));
    fixture_fini(&f);
}

static void shapes_without_a_graph(void **state) {
    (void)state;
    tl_desc in[3] = {tl_desc_make(TL_BF16, 2, (int64_t[]){4, 8}), tl_desc_make(TL_BF16, 2, (int64_t[]){6, 8})}, out[1];
    tl_error err;
    assert_ok(tl_infer(tl_op_find("linear"), &(struct linear_attr){TL_F32}, in, 2, out, &err), &err);
    assert_int_equal(out[0].dtype, TL_F32);
    assert_int_equal(out[0].dim[1], 6);
    in[1].dim[1] = 7;
    assert_fails(TL_SHAPE, tl_infer(tl_op_find("linear"), NULL, in, 2, out, &err), &err);
    assert_string_equal(err.tensor, "linear");
}

/* ---- the n-th allocation fails ------------------------------------------------------------------------------ */

static tl_status whole_way(const tl_allocator *a, void *user) {
    (void)user;
    test_host h;
    tl_engine *e = test_host_init(&h, a);
    tl_graph *g;
    TRY(tl_graph_create(e, &g));
    tl_tensor *x = tl_input(g, "x", TL_F64, DIMS(4, 6));
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        tl_block_begin(g);
        tl_tensor *w = tl_param(g, name, TL_F64, DIMS(6, 6)), *part[2];
        tl_split(g, tl_linear(g, x, w, NULL, TL_NONE), 2, (int64_t[]){3, 3}, part);
        tl_tensor *y = tl_concat(g, (tl_tensor *[]){tl_act(g, part[1], TL_ACT_TANH), part[0]}, 2);
        x = tl_linear_add(g, x, y, w, NULL);
        tl_block_end(g);
    }
    tl_tensor *loss = tl_reduce(g, tl_mul(g, x, x), 0, true);
    tl_output(g, loss, "loss");
    tl_graph_backward(g, loss, NULL, 0, NULL, true);
    tl_plan *p = NULL;
    tl_status status = tl_plan_create(g, false, &p, NULL);
    if (status == TL_OK) {
        test_memory m = {.n = 0};
        test_bind_all(g, p, &m);
        status = tl_plan_run(p);
        test_memory_free(&m);
    }
    tl_plan_destroy(p);
    tl_graph_destroy(g);
    double xs[6] = {1, 2, 3, 4, 5, 6};
    tl_arg in = {xs, tl_desc_make(TL_F64, 2, (int64_t[]){2, 3})};
    tl_gradcheck_result r;
    if (status == TL_OK) status = tl_gradcheck(e, OP_DEF(softmax), NULL, &in, 1, 1, 1e-5, &r, NULL);
    if (status == TL_OK) assert_true(r.worst < 1e-7);
    test_host_fini(&h);
    return status;
}

static void failing_allocations(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(whole_way, NULL) > 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_error_stays),   cmocka_unit_test(what_is_refused),
        cmocka_unit_test(no_derivative),       cmocka_unit_test(shapes_without_a_graph),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
