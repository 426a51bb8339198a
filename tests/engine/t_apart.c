/* A device with memory of its own (support/apart.h) does what the processor does, to the bit: every operator by itself,
 * gradients through graphs whose caller binds host memory; and says so where it cannot. */
#include "support/apart.h"

#include "graph/plan.h"
#include "op/examples.h"
#include "support/testing.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct pair {
    tl_engine *cpu, *apart;
} pair;

static int setup(void **state) {
    static pair p;
    const tl_engine_options o = {.threads = 2};
    *state = &p;
    if (tl_engine_create(&o, &p.cpu, NULL) != TL_OK) return -1;
    return apart_engine(&o, &p.apart, NULL) == TL_OK ? 0 : -1;
}

static int teardown(void **state) {
    pair *p = *state;
    tl_engine_destroy(p->cpu);
    tl_engine_destroy(p->apart);
    return 0;
}

/* The pages are closed: a host that reads one dies. */
static void memory_is_closed(void **state) {
    const pair *p = *state;
    device *d = p->apart->host.dev;
    float *x = d->alloc_bytes(d, 100), y = 3;
    assert_non_null(x);
    device_upload(d, x, &y, sizeof y);
    assert_ok(device_wait(d, 0, NULL), NULL);
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        _exit(*(volatile float *)x == 3 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_ok(device_fetch(d, &y, x, sizeof y, NULL), NULL);
    assert_true(y == 3);
    d->free_bytes(d, x, 100);
}

/* Nothing is there before a wait, staging is read late, and a mark is waited for without what comes behind it. */
static void order_of_things(void **state) {
    const pair *p = *state;
    device *d = p->apart->host.dev;
    device_twin t;
    assert_true(device_twin_take(d, 64, &t));
    int32_t got = -1, *host = (int32_t *)(void *)t.host;
    host[0] = 5;
    device_twin_push(d, &t, host, sizeof *host);
    host[0] = 6; /* too early */
    device_download(d, &got, t.at, sizeof got);
    uint64_t mark = device_mark(d);
    assert_int_equal(got, -1);
    device_clear(d, t.at, 64);
    assert_ok(device_wait(d, mark, NULL), NULL);
    assert_int_equal(got, 6);
    got = 7;
    device_twin_pull(d, &t, host, sizeof *host);
    assert_ok(device_wait(d, 0, NULL), NULL);
    assert_int_equal(host[0], 0);
    device_twin_give(d, &t);
}

static bool same(const op_example *e, const example_call *a, const example_call *b) {
    for (int k = 0; k < a->op->n_out; k++)
        if (a->call.out[k].data && memcmp(a->call.out[k].data, b->call.out[k].data, a->out_bytes[k]) != 0) {
            print_message("%s (%s): output %d has other bits\n", e->op, e->label, k);
            return false;
        }
    return true;
}

static tl_status eval(tl_engine *e, example_call *x, tl_error *err) {
    return tl_eval(e, x->op, x->example->attr, x->call.in, x->op->n_in, x->call.out, x->op->n_out, x->call.acc, err);
}

static void every_operator(void **state) {
    const pair *p = *state;
    op_examples list = {NULL, 0, 0};
    examples_all(&list);
    int bad = 0, ran = 0;
    for (size_t i = 0; i < list.n; i++) {
        example_call x, y;
        tl_error e1 = {.code = TL_OK}, e2 = {.code = TL_OK};
        if (!example_open(&list.e[i], 3, &x)) continue;
        if (example_open(&list.e[i], 3, &y)) {
            tl_status s = eval(p->cpu, &x, &e1), t = eval(p->apart, &y, &e2);
            if (s != t || (s == TL_OK && !same(&list.e[i], &x, &y))) {
                print_message("%s (%s): %s, apart %s %s\n", x.op->name, list.e[i].label, tl_status_text(s),
                              tl_status_text(t), e2.text);
                bad++;
            }
            ran += s == TL_OK;
            example_close(&y);
        }
        example_close(&x);
    }
    examples_free(&list);
    assert_int_equal(bad, 0);
    assert_true(ran > OP_COUNT);
}

/* In place, and two results that are windows of one buffer: what overlaps here overlaps there. */
static void overlapping(void **state) {
    const pair *p = *state;
    float x[12], y[12];
    for (int i = 0; i < 12; i++) x[i] = y[i] = (float)i - 4;
    const struct act_attr silu = {.kind = TL_ACT_SILU};
    tl_desc d = tl_desc_make(TL_F32, 2, (int64_t[]){3, 4});
    tl_arg a = {x, d}, b = {y, d};
    assert_ok(tl_eval(p->cpu, OP_DEF(act), &silu, &a, 1, &a, 1, 0, NULL), NULL);
    assert_ok(tl_eval(p->apart, OP_DEF(act), &silu, &b, 1, &b, 1, 0, NULL), NULL);
    assert_memory_equal(x, y, sizeof x);
    tl_desc left = example_view(tl_desc_make(TL_F32, 2, (int64_t[]){3, 1}), 3);
    tl_desc right = example_view(tl_desc_make(TL_F32, 2, (int64_t[]){3, 2}), 2);
    const struct scale_attr two = {.by = 2};
    for (int k = 0; k < 2; k++) { /* into its own first column, out of the last two */
        tl_arg in = {k ? y : x, left}, out = {(k ? y : x) + 3, left};
        assert_ok(tl_eval(k ? p->apart : p->cpu, OP_DEF(scale), &two, &in, 1, &out, 1, 0, NULL), NULL);
        in = (tl_arg){(k ? y : x) + 1, right}, out = (tl_arg){(k ? y : x) + 1, right};
        assert_ok(tl_eval(k ? p->apart : p->cpu, OP_DEF(scale), &two, &in, 1, &out, 1, 0, NULL), NULL);
    }
    assert_memory_equal(x, y, sizeof x);
}

static void gradients(void **state) {
    const pair *p = *state;
    op_examples list = {NULL, 0, 0};
    examples_all(&list);
    unsigned char seen[OP_COUNT] = {0};
    int checked = 0;
    for (size_t i = 0; i < list.n; i++) {
        const op_example *x = &list.e[i];
        example_call c;
        bool plain = x->diff != 0;
        for (int j = 0; plain && j < TL_OP_INS; j++)
            if (x->fill[j] != FILL_ABSENT && !tl_desc_contiguous(&x->in[j])) plain = false;
        if (!plain || !example_open(x, 11, &c)) continue;
        tl_gradcheck_result r;
        tl_error err;
        if (!seen[c.op->id]) { /* one example of each: graph/t_gradients walks all */
            assert_ok(tl_gradcheck(p->apart, c.op, x->attr, c.call.in, c.op->n_in, x->diff, 1e-5, &r, &err), &err);
            if (!(r.worst <= (x->tol > 0 ? x->tol : 1e-6))) fail_msg("%s: worst %g", x->op, r.worst);
            seen[c.op->id] = 1;
            checked++;
        }
        example_close(&c);
    }
    examples_free(&list);
    assert_true(checked > 20);
}

/* ---- a plan ---------------------------------------------------------------------------------------------------- */

enum { N = 6, K = 5 };

typedef struct little {
    tl_graph *g;
    tl_plan *p;
    tl_tensor *x, *w, *y, *loss;
} little;

static little make(tl_engine *e) {
    little l = {0};
    tl_error err;
    assert_ok(tl_graph_create(e, &l.g), NULL);
    l.x = tl_input(l.g, "x", TL_F32, 2, (int64_t[]){N, K});
    l.w = tl_param(l.g, "w", TL_F32, 2, (int64_t[]){K, K});
    l.y = tl_linear(l.g, l.x, l.w, NULL, TL_NONE);
    tl_output(l.g, l.y, "y");
    l.loss = tl_reduce(l.g, tl_mul(l.g, l.y, l.y), 0, false);
    tl_output(l.g, l.loss, "loss");
    tl_graph_backward(l.g, l.loss, NULL, 0, NULL, TL_RECOMPUTE_NONE);
    assert_ok(tl_plan_create(l.g, false, &l.p, &err), &err);
    return l;
}

static void drop(little *l) {
    tl_plan_destroy(l->p);
    tl_graph_destroy(l->g);
}

static void run_little(tl_engine *e, float out[4][N * K]) {
    little l = make(e);
    float x[N * K], w[K * K], dw[K * K] = {0};
    for (int i = 0; i < N * K; i++) x[i] = 0.25f * (float)(i % 7) - 0.5f;
    for (int i = 0; i < K * K; i++) w[i] = 0.125f * (float)(i % 5) - 0.25f;
    assert_int_equal(tl_plan_run(l.p), TL_STATE); /* nothing is bound */
    assert_ok(tl_plan_bind(l.p, l.x, x), NULL);
    assert_ok(tl_plan_bind(l.p, l.w, w), NULL);
    assert_ok(tl_plan_bind(l.p, tl_param_grad(l.g, l.w), dw), NULL);
    assert_ok(tl_plan_run(l.p), NULL);
    const float *y = tl_plan_data(l.p, l.y);
    memcpy(out[0], y, sizeof x);
    x[3] = 4;                          /* the caller's memory is the truth at each run */
    assert_ok(tl_plan_run(l.p), NULL); /* adds to dw */
    assert_ptr_equal(tl_plan_data(l.p, l.y), y);
    memcpy(out[1], y, sizeof x);
    memset(out[2], 0, sizeof out[2]);
    memcpy(out[2], dw, sizeof dw);
    out[2][K * K] = *(float *)tl_plan_data(l.p, l.loss);
    float bound[N * K] = {0};
    assert_ok(tl_plan_bind(l.p, l.y, bound), NULL);
    assert_ptr_equal(tl_plan_data(l.p, l.y), bound);
    assert_ok(tl_plan_run_profiled(l.p), NULL);
    memcpy(out[3], bound, sizeof bound);
    assert_ok(tl_plan_bind(l.p, l.y, NULL), NULL); /* back into the arena */
    bound[0] = 99;
    assert_ok(tl_plan_run(l.p), NULL);
    assert_true(bound[0] == 99);
    assert_memory_equal(tl_plan_data(l.p, l.y), out[3], sizeof bound);
    drop(&l);
}

static void plans_on_host_memory(void **state) {
    const pair *p = *state;
    float a[4][N * K], b[4][N * K];
    run_little(p->cpu, a);
    run_little(p->apart, b);
    assert_memory_equal(a, b, sizeof a);
    assert_true(a[0][3] != a[1][3]);
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static void failures(void **state) {
    tl_engine *e;
    (void)state;
    assert_ok(apart_engine(NULL, &e, NULL), NULL);
    device *d = e->host.dev;
    float x[8] = {1}, y[8];
    tl_desc v = tl_desc_make(TL_F32, 1, (int64_t[]){8});
    tl_arg in = {x, v}, out = {y, v};
    const struct scale_attr two = {.by = 2};
    tl_error err;
    apart_fail_at(e, 1);
    assert_int_equal(tl_eval(e, OP_DEF(scale), &two, &in, 1, &out, 1, 0, &err), TL_NOMEM);
    assert_non_null(strstr(err.text, "apart"));
    apart_break(e, true);
    assert_int_equal(tl_eval(e, OP_DEF(scale), &two, &in, 1, &out, 1, 0, &err), TL_DEVICE);
    little l = make(e);
    float big[N * K] = {0}, w[K * K] = {0}, dw[K * K] = {0};
    assert_ok(tl_plan_bind(l.p, l.x, big), NULL);
    assert_ok(tl_plan_bind(l.p, l.w, w), NULL);
    assert_ok(tl_plan_bind(l.p, tl_param_grad(l.g, l.w), dw), NULL);
    assert_int_equal(tl_plan_run(l.p), TL_DEVICE);
    apart_break(e, false);
    apart_fail_at(e, 1);
    assert_int_equal(tl_plan_bind(l.p, l.x, NULL), TL_OK);
    float other[N * K] = {0};
    tl_plan *plan;
    assert_int_equal(tl_plan_create(l.g, false, &plan, &err), TL_NOMEM);
    assert_ok(tl_plan_bind(l.p, l.x, other), NULL); /* its counterpart is there already */
    drop(&l);
    device_twin t;
    apart_fail_at(e, 2); /* the staging */
    assert_false(device_twin_take(d, 64, &t));
    assert_int_equal(apart_counted(e)->blocks, 0);
    tl_engine_destroy(e);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_is_closed), cmocka_unit_test(order_of_things),
                                       cmocka_unit_test(every_operator),   cmocka_unit_test(overlapping),
                                       cmocka_unit_test(gradients),        cmocka_unit_test(plans_on_host_memory),
                                       cmocka_unit_test(failures)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
