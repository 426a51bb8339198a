/* Every row of kernels.def that this machine can run, on every example that it accepts: against the reference in
 * double; with 1, 2, 3 and 8 threads to the bit; at unaligned addresses; in place where the operator may be; without
 * touching what lies between the rows of a view; with NaN and infinities. */
#include "base/mem.h"
#include "cpu/cpu.h"
#include "cpu/pool.h"
#include "op/examples.h"
#include "support/testing.h"

enum { GUARD = 64, THREADS = 4 };
static const int thread_counts[THREADS] = {1, 2, 3, 8};

typedef struct rig {
    pool *pool[THREADS];
    uint32_t isa;
    int bad, runs;
    int64_t tiles;      /* most of a phase of the last run */
    int accepted[1024]; /* by row: examples it took */
    const char *refused[1024];
} rig;

static bool is_16(tl_dtype t) {
    return t == TL_BF16 || t == TL_F16;
}

/* Relative to the largest element of the result: kernels add in another order, and 16-bit data are rounded once more
 * on the way (attention's weights). */
static double tolerance(const tl_op_call *c) {
    for (int i = 0; i < TL_OP_INS; i++)
        if (c->in[i].data && is_16(c->in[i].d.dtype)) return 1.6e-2;
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (c->out[k].data && is_16(c->out[k].d.dtype)) return 1.6e-2;
    return 4e-5;
}

static bool complain(rig *r, const example_call *x, const kernel_row *row, const char *what) {
    if (r->bad < 40) print_message("%s on %s (%s): %s\n", row->name, x->example->op, x->example->label, what);
    r->bad++;
    return false;
}

/* Runs a row on x's call as a plan would. false: refused. */
static const char *run_row(rig *r, const kernel_row *row, example_call *x, int t) {
    kernel_exec e;
    const char *why = cpu_row_accepts(row, r->isa, &x->call, thread_counts[t], false, &mem_default, &e);
    if (why) return r->refused[row - kernel_table] = why;
    uint8_t *scratch = e.scratch ? aligned_alloc(64, (e.scratch + GUARD + 63) / 64 * 64) : NULL;
    if (scratch) memset(scratch, 0xff, e.scratch + GUARD);
    kernel_task task = {.call = &x->call, .exec = &e, .scratch = scratch, .workers = thread_counts[t]};
    pool_run(r->pool[t], &task);
    for (int i = 0; scratch && i < GUARD; i++)
        if (scratch[e.scratch + (size_t)i] != 0xff) {
            complain(r, x, row, "writes behind its scratch");
            break;
        }
    free(scratch);
    if (e.state && e.state_free) e.state_free(e.state, &mem_default);
    r->runs++;
    r->tiles = 0;
    for (int i = 0; i < e.phases; i++) r->tiles = e.tiles[i] > r->tiles ? e.tiles[i] : r->tiles;
    return NULL;
}

static bool inside(const tl_desc *d, int64_t at) {
    int64_t rows = tl_desc_rows(d), last = tl_desc_last(d), low = 0, high = rows;
    while (low < high) { /* rows of these views lie in order */
        int64_t mid = (low + high) / 2;
        if (tl_desc_row(d, mid) <= at)
            low = mid + 1;
        else
            high = mid;
    }
    return low > 0 && at < tl_desc_row(d, low - 1) + last;
}

/* a: the oracle's call, b: the kernel's. finite: both have only finite numbers in. */
static bool same_results(rig *r, const example_call *a, const example_call *b, const kernel_row *row, const char *how,
                         bool finite) {
    char text[200];
    /* A tile multiplies what a row does not see, or a label that does not count, by zero, and zero times NaN is NaN:
     * these may spread it further. */
    bool masks = strstr(a->op->name, "attention") || strncmp(a->op->name, "loss_head", 9) == 0 ||
                 strstr(a->op->name, "chunk") || strstr(a->op->name, "delta_rule");
    bool rounds_x = strstr(row->name, "vnni"); /* to int8; tests/cpu/t_quant.c holds it to more */
    for (int k = 0; k < a->op->n_out; k++) {
        const tl_arg *x = &a->call.out[k], *y = &b->call.out[k];
        if (!x->data || !y->data) continue;
        int64_t span = example_span(&x->d);
        double most = 0, tol = rounds_x ? 0.01 : tolerance(&a->call);
        for (int64_t i = 0; i < span; i++)
            if (inside(&x->d, i) && isfinite(example_load(x, i))) most = fmax(most, fabs(example_load(x, i)));
        for (int64_t i = 0; i < span; i++) {
            double u = example_load(x, i), v = example_load(y, i);
            bool ok = u == v || (isnan(u) && !isfinite(v)) || fabs(u - v) <= tol * most + 1e-7; /* data are about 1 */
            if (!finite) ok = ok || (isinf(u) && !isfinite(v)) || fabs(u - v) <= 4 * tol * most;
            if (!finite && masks) ok = ok || !isfinite(v);
            if (!inside(&x->d, i)) ok = u == v || (isnan(u) && isnan(v));
            if (ok) continue;
            snprintf(text, sizeof text, "%s: output %d element %lld is %.9g, must be %.9g (largest %.3g)%s", how, k,
                     (long long)i, v, u, most, inside(&x->d, i) ? "" : ", between rows");
            return complain(r, b, row, text);
        }
    }
    return true;
}

static bool same_bits(rig *r, const example_call *a, const example_call *b, const kernel_row *row, const char *how) {
    for (int k = 0; k < a->op->n_out; k++)
        if (a->call.out[k].data && b->call.out[k].data &&
            memcmp(a->call.out[k].data, b->call.out[k].data, a->out_bytes[k]) != 0)
            return complain(r, b, row, how);
    return true;
}

static void poison_inputs(example_call *x, uint64_t seed) {
    static const double odd[4] = {NAN, INFINITY, -INFINITY, -0.0};
    for (int i = 0; i < TL_OP_INS; i++) {
        tl_arg *a = &x->call.in[i];
        if (!a->data || !(a->d.dtype == TL_F32 || is_16(a->d.dtype))) continue;
        int64_t span = example_span(&a->d);
        for (int64_t k = (int64_t)(seed + (uint64_t)i) % 5; k < span; k += 37) example_store(a, k, odd[(k + i) % 4]);
    }
}

/* Every buffer moved by one element. */
static void shift_buffers(example_call *x, bool back) {
    for (int j = 0; j < TL_OP_INS + TL_OP_OUTS; j++) {
        tl_arg *a = j < TL_OP_INS ? &x->call.in[j] : &x->call.out[j - TL_OP_INS];
        size_t bytes = j < TL_OP_INS ? x->in_bytes[j] : x->out_bytes[j - TL_OP_INS];
        if (!a->data || tl_dtype_block(a->d.dtype) > 1) continue;
        size_t by = tl_dtype_bytes(a->d.dtype);
        uint8_t *base = back ? (uint8_t *)a->data - by : a->data;
        memmove(back ? base : base + by, back ? base + by : base, bytes); /* buffers have at least 64 bytes behind */
        a->data = back ? base : base + by;
    }
}

static void check_in_place(rig *r, const kernel_row *row, const op_example *e, const example_call *plain) {
    example_call x;
    const tl_op_def *op = plain->op;
    if (!(op->flags & TL_OP_INPLACE) || (e->acc & 1) || !plain->call.out[0].data) return;
    const tl_desc *in = &plain->call.in[0].d, *out = &plain->call.out[0].d;
    if (in->dtype != out->dtype || !tl_desc_same_shape(in, out)) return;
    if (!tl_desc_contiguous(in) || !tl_desc_contiguous(out) || !example_open(e, 5, &x)) return;
    void *own = x.call.out[0].data;
    x.call.out[0].data = x.call.in[0].data;
    if (!run_row(r, row, &x, 1)) same_bits(r, plain, &x, row, "in place it gives other bits");
    x.call.out[0].data = own;
    example_close(&x);
}

static void check_row(rig *r, const kernel_row *row, const op_example *e, const example_call *oracle) {
    example_call x, y;
    if (!example_open(e, 5, &x)) return;
    if (!run_row(r, row, &x, 0)) {
        r->accepted[row - kernel_table]++;
        same_results(r, oracle, &x, row, "one thread", true);
        bool divided = r->tiles > 1; /* one tile is never given away */
        for (int t = 1; t < THREADS && divided && example_open(e, 5, &y); t++) {
            char how[64];
            snprintf(how, sizeof how, "%d threads give other bits", thread_counts[t]);
            if (!run_row(r, row, &y, t)) same_bits(r, &x, &y, row, how);
            example_close(&y);
        }
        check_in_place(r, row, e, &x);
        if (example_open(e, 5, &y)) {
            shift_buffers(&y, false);
            const char *why = run_row(r, row, &y, 2);
            shift_buffers(&y, true);
            if (!why) same_results(r, oracle, &y, row, "unaligned", true);
            example_close(&y);
        }
    }
    example_close(&x);
}

static void check_special(rig *r, const kernel_row *row, const op_example *e) {
    example_call x, y;
    if (!example_open(e, 6, &x)) return;
    if (example_open(e, 6, &y)) {
        poison_inputs(&x, 6), poison_inputs(&y, 6);
        x.op->ref_f64(&x.call);
        if (!run_row(r, row, &y, 1)) same_results(r, &x, &y, row, "with NaN and infinities", false);
        example_close(&y);
    }
    example_close(&x);
}

static bool f64_example(const op_example *e) {
    for (int i = 0; i < TL_OP_INS; i++)
        if (e->fill[i] != FILL_ABSENT && e->in[i].dtype == TL_F64 && strcmp(e->op, "rope_table") != 0) return true;
    return false;
}

static void every_row(void **state) {
    (void)state;
    op_examples list = {NULL, 0, 0};
    examples_all(&list);
    rig r = {.isa = isa_probe()};
    tl_error err;
    const char *only = getenv("TILIA_TEST_KERNEL");
    for (int t = 0; t < THREADS; t++) assert_ok(pool_create(&mem_default, thread_counts[t], &r.pool[t], &err), &err);
    for (size_t i = 0; i < list.n; i++) {
        const op_example *e = &list.e[i];
        example_call oracle;
        if (f64_example(e) || !example_open(e, 5, &oracle)) continue;
        bool ran = false;
        for (size_t k = 0; k < kernel_count; k++) {
            const kernel_row *row = &kernel_table[k];
            if (row->op != oracle.op->id || (row->isa & ~r.isa) || (only && !strstr(row->name, only))) continue;
            if (!ran) oracle.op->ref_f64(&oracle.call);
            ran = true;
            check_row(&r, row, e, &oracle);
            check_special(&r, row, e);
        }
        example_close(&oracle);
    }
    int unseen = 0;
    for (size_t k = 0; k < kernel_count; k++)
        if (!(kernel_table[k].isa & ~r.isa) && !r.accepted[k] && (!only || strstr(kernel_table[k].name, only))) {
            const char *why = r.refused[k] ? r.refused[k] : "there is none";
            print_message("%s accepts no example: %s\n", kernel_table[k].name, why);
            unseen += !strstr(why, "this processor");
        }
    print_message("%d runs of %zu kernels\n", r.runs, kernel_count);
    for (int t = 0; t < THREADS; t++) pool_destroy(r.pool[t]);
    examples_free(&list);
    assert_int_equal(r.bad, 0);
    assert_int_equal(unseen, 0);
}

/* The reference is chosen where nothing else is, in double where a result is. */
static void reference_is_last(void **state) {
    (void)state;
    tl_error err;
    device *d = cpu_device_create(&mem_default, 1, 0, &err);
    assert_non_null(d);
    op_examples list = {NULL, 0, 0};
    examples_all(&list);
    for (size_t i = 0; i < list.n; i++) {
        example_call x;
        if (!example_open(&list.e[i], 1, &x)) continue;
        kernel_exec e;
        char refusals[1024];
        assert_ok(d->choose(d, x.op, &x.call, true, &e, refusals, sizeof refusals, &err), &err);
        bool f64 = false;
        for (int k = 0; k < TL_OP_OUTS; k++) f64 |= x.call.out[k].d.dtype == TL_F64;
        assert_string_equal(e.name, f64 ? "ref_f64" : "ref_f32");
        for (size_t k = 0; k < kernel_count; k++)
            if (kernel_table[k].op == x.op->id && strlen(refusals) < 900)
                assert_non_null(strstr(refusals, kernel_table[k].name));
        example_close(&x);
    }
    examples_free(&list);
    cpu_device_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row), cmocka_unit_test(reference_is_last)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
