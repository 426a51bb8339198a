/* Gradient rules by themselves: this file is a graph of one operator. It defines the functions of tilia/op.h that rules
 * call, runs what they emit with the double references at once, and compares with central differences, element by
 * element. It also sees which inputs and outputs the emitted operators read, and holds that against the save column of
 * ops.def. (graph/ has the real walk; this one knows neither order nor memory.) */
#include "support/testing.h"

#include "op/examples.h"

struct tl_tensor {
    tl_arg a;
};

enum { TAPE = 64 };

struct tl_grad {
    const example_call *x;
    tl_tensor in[TL_OP_INS], out[TL_OP_OUTS], dy[TL_OP_OUTS];
    uint32_t have_dy, needs;
    tl_tensor grad[TL_OP_INS];
    tl_tensor temp[TAPE];
    int temps;
    uint32_t used; /* as TL_SAVE_IN, TL_SAVE_OUT */
    const char *refused;
};

/* ---- the graph's half of tilia/op.h ------------------------------------------------------------------ */

const void *tl_grad_attr(const tl_grad *g) {
    return g->x->attr;
}
tl_tensor *tl_grad_in(const tl_grad *g, int i) {
    return g->in[i].a.data ? (tl_tensor *)&g->in[i] : NULL;
}
tl_tensor *tl_grad_out(const tl_grad *g, int i) {
    return (tl_tensor *)&g->out[i];
}
tl_tensor *tl_grad_dy(const tl_grad *g, int i) {
    return g->have_dy >> i & 1 ? (tl_tensor *)&g->dy[i] : NULL;
}
bool tl_grad_needs(const tl_grad *g, int i) {
    return g->needs >> i & 1;
}
bool tl_grad_dy_is_one(const tl_grad *g, int i) {
    (void)g, (void)i;
    return false;
}
const tl_desc *tl_tensor_desc(const tl_tensor *t) {
    return &t->a.d;
}

/* Runs op over double into fresh memory; outputs that are not in `wanted` are absent. */
static void tape_run(tl_grad *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in, uint32_t wanted,
                     tl_tensor **out) {
    int64_t copy[TL_ATTR_MAX / 8] = {0};
    memcpy(copy, attr, op->attr_size);
    tl_error err = {0};
    tl_op_infer s = {.attr = copy, .err = &err};
    tl_op_call c = {.attr = copy, .run = &g->x->run};
    struct scale_attr scale;
    memcpy(&scale, copy, sizeof scale);
    bool reads = op->id != OP_scale || scale.by != 0; /* by 0 nothing is read */
    assert_true(n_in <= op->n_in);
    for (int i = 0; i < n_in; i++) {
        if (!in[i]) continue;
        for (int k = 0; k < TL_OP_INS && reads; k++)
            if (in[i] == &g->in[k]) g->used |= TL_SAVE_IN(k);
        for (int k = 0; k < TL_OP_OUTS && reads; k++)
            if (in[i] == &g->out[k]) g->used |= TL_SAVE_OUT(k);
        s.in[i] = &in[i]->a.d;
        c.in[i] = in[i]->a;
    }
    if (op->shape(&s) != TL_OK) print_message("%s\n", err.text);
    assert_int_equal(err.code, TL_OK);
    for (int k = 0; k < op->n_out; k++) {
        if (!(wanted >> k & 1) || s.out[k].dtype == TL_NONE) continue;
        assert_true(g->temps < TAPE);
        tl_tensor *t = out[k] = &g->temp[g->temps++];
        t->a.d = s.out[k];
        t->a.data = example_alloc(example_size(&t->a.d));
        c.out[k] = t->a;
    }
    op->ref_f64(&c);
}

static void tape_add(tl_grad *g, int i, const tl_arg *t) {
    tl_arg *to = &g->grad[i].a;
    assert_true(tl_desc_same_shape(&t->d, &g->in[i].a.d));
    int64_t last = tl_desc_last(&to->d);
    for (int64_t j = 0; j < tl_desc_count(&to->d); j++)
        ((double *)to->data)[j] += example_load(t, tl_desc_row(&t->d, j / last) + j % last);
}

void tl_grad_emit(tl_grad *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in, const int *to,
                  int n_out) {
    uint32_t wanted = 0;
    tl_tensor *out[TL_OP_OUTS] = {0};
    for (int k = 0; k < n_out; k++)
        if (to[k] >= 0 && g->needs >> to[k] & 1) wanted |= 1u << k;
    tape_run(g, op, attr, in, n_in, wanted, out);
    for (int k = 0; k < n_out; k++) {
        if (!(wanted >> k & 1)) continue;
        assert_non_null(out[k]);
        tape_add(g, to[k], &out[k]->a);
    }
}
tl_tensor *tl_grad_temp(tl_grad *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in) {
    tl_tensor *out[TL_OP_OUTS] = {0};
    tape_run(g, op, attr, in, n_in, 1, out);
    return out[0];
}
void tl_grad_pass(tl_grad *g, int i, tl_tensor *t) {
    tape_add(g, i, &t->a);
}
void tl_grad_claim(tl_grad *g, int i, int k) {
    tape_add(g, i, &g->out[k].a);
}
void tl_grad_refuse(tl_grad *g, const char *reason) {
    g->refused = reason;
}

/* ---- walking the examples ---------------------------------------------------------------------------- */

static tl_arg fresh(const tl_desc *d, bool random, uint64_t key) {
    tl_arg a = {NULL, tl_desc_make(d->dtype, d->ndim, d->dim)};
    size_t bytes = example_size(&a.d);
    a.data = example_alloc(bytes);
    example_fill(&a, bytes, random ? FILL_NORMAL : FILL_CONST, 0, 0, 0, rng_key_make(5, 5, key));
    return a;
}

/* Gradients of the sum over outputs in have_dy of <dy, y>, for the inputs in needs. */
static void tape_open(tl_grad *g, const example_call *x, uint32_t have_dy, uint32_t needs) {
    memset(g, 0, sizeof *g);
    g->x = x;
    g->have_dy = have_dy;
    g->needs = needs;
    for (int i = 0; i < TL_OP_INS; i++) {
        g->in[i].a = x->call.in[i];
        if (needs >> i & 1) g->grad[i].a = fresh(&x->call.in[i].d, false, 0);
    }
    for (int k = 0; k < TL_OP_OUTS; k++) {
        g->out[k].a = x->call.out[k];
        if (have_dy >> k & 1) g->dy[k].a = fresh(&x->call.out[k].d, true, (uint64_t)k);
    }
    x->op->grad(g);
}
static void tape_close(tl_grad *g) {
    for (int i = 0; i < TL_OP_INS; i++) free(g->grad[i].a.data);
    for (int k = 0; k < TL_OP_OUTS; k++) free(g->dy[k].a.data);
    for (int i = 0; i < g->temps; i++) free(g->temp[i].a.data);
}

static double objective(const tl_grad *g) {
    const tl_op_call *c = &g->x->call;
    double sum = 0;
    g->x->op->ref_f64(c);
    for (int k = 0; k < TL_OP_OUTS; k++) {
        const tl_arg *y = &c->out[k];
        int64_t last = tl_desc_last(&y->d);
        for (int64_t j = 0; g->have_dy >> k & 1 && j < tl_desc_count(&y->d); j++)
            sum += example_load(&g->dy[k].a, j) * example_load(y, tl_desc_row(&y->d, j / last) + j % last);
    }
    return sum;
}

/* Largest error relative to the largest derivative, or one. */
static double worst(const tl_grad *g, int i) {
    const tl_arg *x = &g->in[i].a;
    int64_t last = tl_desc_last(&x->d);
    double top = 1, error = 0;
    for (int64_t j = 0; j < tl_desc_count(&x->d); j++) {
        double *at = (double *)x->data + tl_desc_row(&x->d, j / last) + j % last, keep = *at, h = 1e-5;
        *at = keep + h;
        double up = objective(g);
        *at = keep - h;
        double down = objective(g);
        *at = keep;
        double numeric = (up - down) / (2 * h);
        top = fmax(top, fabs(numeric));
        double off = fabs(numeric - ((double *)g->grad[i].a.data)[j]);
        error = off == off ? fmax(error, off) : INFINITY; /* the double reference must not give NaN here */
    }
    objective(g);
    return error / top;
}

static bool example_good(const op_example *e, uint32_t have_dy, uint32_t *used) {
    op_example whole = *e;
    whole.unwanted = whole.acc = 0; /* saved statistics are there */
    example_call x;
    tl_grad g;
    assert_true(example_open(&whole, 21, &x));
    x.op->ref_f64(&x.call);
    if (strcmp(e->op, "split")) have_dy = 1;
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (!x.call.out[k].data) have_dy &= ~(1u << k);
    tape_open(&g, &x, have_dy, e->diff);
    bool good = !g.refused && !(g.used & ~x.op->save);
    if (!good)
        print_message("%s, %s: reads %x, saved %x; %s\n", e->op, e->label, g.used, x.op->save,
                      g.refused ? g.refused : "");
    used[x.op->id] |= g.used;
    for (int i = 0; i < TL_OP_INS && good; i++) {
        if (!(e->diff >> i & 1)) continue;
        double error = worst(&g, i);
        if (error <= (e->tol > 0 ? e->tol : 1e-6)) continue;
        print_message("%s, %s: gradient of input %d is off by %g\n", e->op, e->label, i, error);
        good = false;
    }
    tape_close(&g);
    example_close(&x);
    return good;
}

static void rules_match_differences(void **state) {
    (void)state;
    op_examples list = {0};
    uint32_t used[OP_COUNT] = {0};
    bool seen[OP_COUNT] = {0};
    int bad = 0;
    examples_all(&list);
    for (size_t i = 0; i < list.n; i++) {
        if (!list.e[i].diff) continue;
        seen[tl_op_find(list.e[i].op)->id] = true;
        bad += !example_good(&list.e[i], 0x3f, used);
        if (!strcmp(list.e[i].op, "split"))
            bad += !example_good(&list.e[i], 2, used) + !example_good(&list.e[i], 5, used);
    }
    examples_free(&list);
    for (int op = 0; op < OP_COUNT; op++) {
        const tl_op_def *d = &op_table[op];
        if (!seen[op] && !(d->flags & TL_OP_NOGRAD))
            print_message("%s is not differentiated by any example\n", d->name), bad++;
        if (!seen[op]) continue;
        if (used[op] != d->save) print_message("%s: reads %x, the table says %x\n", d->name, used[op], d->save), bad++;
    }
    assert_int_equal(bad, 0);
}

/* An input nobody asks about gets nothing, and asking for one alone gives what asking for all does. */
static void rules_serve_one_at_a_time(void **state) {
    (void)state;
    op_examples list = {0};
    examples_all(&list);
    for (size_t n = 0; n < list.n; n++) {
        op_example e = list.e[n];
        if (!(e.diff & (e.diff - 1))) continue;
        example_call x;
        tl_grad all, one;
        e.acc = e.unwanted = 0;
        assert_true(example_open(&e, 22, &x));
        x.op->ref_f64(&x.call);
        uint32_t have_dy = 1; /* of split: zeros stand for the others */
        tape_open(&all, &x, have_dy, e.diff);
        for (int i = 0; i < TL_OP_INS; i++) {
            if (!(e.diff >> i & 1)) continue;
            tape_open(&one, &x, have_dy, 1u << i);
            assert_memory_equal(one.grad[i].a.data, all.grad[i].a.data, example_size(&one.grad[i].a.d));
            tape_close(&one);
        }
        tape_close(&all);
        example_close(&x);
    }
    examples_free(&list);
}

static const char *refusal(const tl_op_def *op) {
    tl_grad g = {0};
    example_call x = {.op = op};
    g.x = &x;
    op->grad(&g);
    return g.refused;
}

static void operators_without_gradient_say_so(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        if (!(op_table[op].flags & TL_OP_NOGRAD)) continue;
        const char *reason = refusal(&op_table[op]);
        if (!reason || !strstr(reason, op_table[op].name))
            print_message("%s: %s\n", op_table[op].name, reason ? reason : "no word");
        assert_non_null(reason);
        assert_non_null(strstr(reason, op_table[op].name));
    }
}

static void quantized_weights_have_no_gradient(void **state) {
    (void)state;
    op_example e = {.op = "linear"};
    example_in(&e, 0, D2(TL_F64, 2, 32), FILL_NORMAL);
    example_in(&e, 1, D2(TL_Q8_0, 3, 32), FILL_NORMAL);
    example_call x;
    tl_grad g;
    e.in[0].dtype = TL_F32;
    assert_true(example_open(&e, 1, &x));
    x.op->ref_f64(&x.call);
    memset(&g, 0, sizeof g);
    g.x = &x;
    g.needs = 2;
    g.in[0].a = x.call.in[0], g.in[1].a = x.call.in[1];
    x.op->grad(&g);
    assert_non_null(g.refused);
    assert_non_null(strstr(g.refused, "quantized"));
    example_close(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_match_differences),
        cmocka_unit_test(rules_serve_one_at_a_time),
        cmocka_unit_test(operators_without_gradient_say_so),
        cmocka_unit_test(quantized_weights_have_no_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
