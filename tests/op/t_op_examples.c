/* The examples themselves: every operator has some, every shape rule takes them; the references write the whole of
 * every output and nothing beside it, leave inputs alone, and say the same over float and over double. */
#include "support/testing.h"

#include "op/examples.h"

#include <math.h>

static op_examples list;

static int setup(void **state) {
    (void)state;
    examples_all(&list);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    examples_free(&list);
    return 0;
}

static void covers_every_operator(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        int n = 0;
        for (size_t i = 0; i < list.n; i++) n += !strcmp(list.e[i].op, op_table[op].name);
        if (n < 2) print_message("%s has %d examples\n", op_table[op].name, n);
        assert_true(n >= 2);
        assert_ptr_equal(tl_op_find(op_table[op].name), &op_table[op]);
        assert_int_equal(op_table[op].id, op);
    }
}

static void open_or_fail(const op_example *e, example_call *x) {
    tl_error err = {0};
    if (example_open_err(e, 7, x, &err)) return;
    print_message("%s, %s: %s\n", e->op, e->label, err.text);
    fail();
}

static void outputs_fit_the_table(void **state) {
    (void)state;
    for (size_t i = 0; i < list.n; i++) {
        example_call x;
        open_or_fail(&list.e[i], &x);
        for (int k = 0; k < TL_OP_OUTS; k++) {
            if (x.inferred[k].dtype == TL_NONE) continue;
            assert_true(k < x.op->n_out);
            assert_true(tensor_valid(&x.inferred[k]));
        }
        for (int k = 0; k < TL_OP_INS; k++) assert_true(list.e[i].fill[k] == FILL_ABSENT || k < x.op->n_in);
        assert_int_equal(list.e[i].acc & ~x.op->acc, 0); /* examples add only where the table allows */
        example_close(&x);
    }
}

/* Bytes of output k that lie between rows: true if they all still hold the byte. */
static bool padding_is(const example_call *x, int k, unsigned char byte) {
    const tl_arg *o = &x->call.out[k];
    size_t size = tl_dtype_bytes(o->d.dtype);
    unsigned char *mark = calloc(x->out_bytes[k] + 64, 1);
    for (int64_t r = 0; r < tl_desc_rows(&o->d); r++)
        memset(mark + (size_t)tl_desc_row(&o->d, r) * size, 1, (size_t)tl_desc_last(&o->d) * size);
    bool good = true;
    for (size_t i = 0; i < x->out_bytes[k] + 64; i++)
        if (!mark[i] && ((unsigned char *)o->data)[i] != byte) good = false;
    free(mark);
    return good;
}

static void references_write_their_outputs_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < list.n; i++) {
        const op_example *e = &list.e[i];
        example_call x, y;
        open_or_fail(e, &x);
        open_or_fail(e, &y);
        for (int k = 0; k < TL_OP_OUTS; k++)
            if (y.call.out[k].data && !(e->acc >> k & 1)) memset(y.call.out[k].data, 0x3C, y.out_bytes[k] + 64);
        x.op->ref_f32(&x.call);
        y.op->ref_f32(&y.call);
        bool good = true;
        for (int k = 0; k < TL_OP_OUTS; k++) {
            const tl_arg *a = &x.call.out[k], *b = &y.call.out[k];
            if (!a->data) continue;
            if (!(e->acc >> k & 1)) good = good && padding_is(&x, k, 0xAB) && padding_is(&y, k, 0x3C);
            size_t size = tl_dtype_bytes(a->d.dtype);
            for (int64_t r = 0; r < tl_desc_rows(&a->d); r++) {
                size_t at = (size_t)tl_desc_row(&a->d, r) * size, n = (size_t)tl_desc_last(&a->d) * size;
                good = good && !memcmp((char *)a->data + at, (char *)b->data + at, n);
            }
        }
        if (!good) print_message("%s, %s: wrote too little or too much\n", e->op, e->label);
        assert_true(good);
        example_close(&x);
        example_open(e, 7, &x); /* inputs as they were */
        for (int k = 0; k < TL_OP_INS; k++)
            if (x.in_bytes[k]) assert_memory_equal(x.call.in[k].data, y.call.in[k].data, x.in_bytes[k]);
        example_close(&x);
        example_close(&y);
    }
}

/* Relative to the largest element; half a unit of bf16 and f16 on the way out, sums of some hundred terms in f32. */
static double tolerance(tl_dtype t) {
    return t == TL_BF16 ? 1.0 / 128 : t == TL_F16 ? 1.0 / 1024 : 3e-5;
}

static void float_and_double_agree(void **state) {
    (void)state;
    for (size_t i = 0; i < list.n; i++) {
        const op_example *e = &list.e[i];
        example_call x, y;
        open_or_fail(e, &x);
        open_or_fail(e, &y);
        x.op->ref_f32(&x.call);
        y.op->ref_f64(&y.call);
        for (int k = 0; k < TL_OP_OUTS; k++) {
            const tl_arg *a = &x.call.out[k], *b = &y.call.out[k];
            if (!a->data || tl_dtype_block(a->d.dtype) > 1) continue;
            double top = 0, worst = 0;
            int64_t last = tl_desc_last(&a->d);
            for (int64_t j = 0; j < tl_desc_count(&a->d); j++) {
                double u = example_load(a, tl_desc_row(&a->d, j / last) + j % last);
                double v = example_load(b, tl_desc_row(&b->d, j / last) + j % last);
                if (u == v || (isnan(u) && isnan(v))) continue;
                top = fmax(top, fabs(v));
                worst = fmax(worst, fabs(u - v));
                if (isnan(u) || isnan(v)) worst = INFINITY;
            }
            bool good = worst <= tolerance(a->d.dtype) * fmax(top, 1);
            if (!good) print_message("%s, %s: output %d differs by %g of %g\n", e->op, e->label, k, worst, top);
            assert_true(good);
        }
        example_close(&x);
        example_close(&y);
    }
}

/* out[0] in in[0]'s memory, where the table allows it. */
static void in_place_says_the_same(void **state) {
    (void)state;
    size_t tried = 0;
    for (size_t i = 0; i < list.n; i++) {
        op_example e = list.e[i];
        example_call x, y;
        const tl_op_def *op = tl_op_find(e.op);
        if (!(op->flags & TL_OP_INPLACE) || !tl_desc_contiguous(&e.in[0])) continue;
        e.acc = 0, e.out_pad = 0;
        open_or_fail(&e, &x);
        open_or_fail(&e, &y);
        bool fits =
            x.call.out[0].data && x.inferred[0].dtype == e.in[0].dtype && tl_desc_same_shape(&x.inferred[0], &e.in[0]);
        if (fits) {
            void *own = y.call.out[0].data;
            op->ref_f32(&x.call);
            y.call.out[0].data = y.call.in[0].data;
            op->ref_f32(&y.call);
            for (int k = 0; k < TL_OP_OUTS; k++)
                if (x.out_bytes[k]) assert_memory_equal(x.call.out[k].data, y.call.out[k].data, x.out_bytes[k]);
            y.call.out[0].data = own;
            tried++;
        }
        example_close(&x);
        example_close(&y);
    }
    assert_true(tried > 50);
}

/* Adding into an output is the plain result plus what was there, up to the rounding of the output's dtype. */
static void adding_is_the_sum(void **state) {
    (void)state;
    size_t tried = 0;
    for (size_t i = 0; i < list.n; i++) {
        op_example e = list.e[i], plain = e;
        example_call before, x, y;
        bool updates = !strcmp(e.op, "adamw") || !strcmp(e.op, "kv_write") || strstr(e.op, "_step"); /* not sums */
        if (!e.acc || updates) continue;
        plain.acc = 0;
        open_or_fail(&e, &before);
        open_or_fail(&e, &x);
        open_or_fail(&plain, &y);
        x.op->ref_f64(&x.call);
        y.op->ref_f64(&y.call);
        for (int k = 0; k < TL_OP_OUTS; k++) {
            const tl_arg *a = &x.call.out[k], *b = &y.call.out[k], *old = &before.call.out[k];
            if (!(e.acc >> k & 1) || !a->data) continue;
            int64_t last = tl_desc_last(&a->d);
            for (int64_t j = 0; j < tl_desc_count(&a->d); j++) {
                int64_t at = tl_desc_row(&a->d, j / last) + j % last;
                double sum = example_load(b, at) + example_load(old, at), got = example_load(a, at);
                double size = fabs(example_load(b, at)) + fabs(example_load(old, at)) + fabs(got);
                if (fabs(got - sum) > tolerance(a->d.dtype) * size)
                    fail_msg("%s, %s: %g, not %g", e.op, e.label, got, sum);
            }
            tried++;
        }
        example_close(&before);
        example_close(&x);
        example_close(&y);
    }
    assert_true(tried > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(covers_every_operator),
        cmocka_unit_test(outputs_fit_the_table),
        cmocka_unit_test(references_write_their_outputs_alone),
        cmocka_unit_test(float_and_double_agree),
        cmocka_unit_test(in_place_says_the_same),
        cmocka_unit_test(adding_is_the_sum),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
