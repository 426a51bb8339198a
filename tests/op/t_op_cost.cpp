/* The cost rule of every operator against what its reference does: the references, compiled once more over a number
 * that counts, run on every example; bytes are counted from the descriptors. */
#include <cinttypes>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
#include "support/testing.h"
}

#include "op/examples.h"

extern "C" {
#include "tensor/block.h"
}

#include "op/count.h"

#define REAL      count_real
#define REF(name) name##_ref_count
#define MATH(fn)  count_##fn
/* what a reference works out again does not count; what it works out in double does */
#define UNCOUNTED(...)                                                                                                 \
    do {                                                                                                               \
        count_ops counted_before = counted;                                                                            \
        __VA_ARGS__;                                                                                                   \
        counted = counted_before;                                                                                      \
    } while (0)
#define WIDE         count_real
#define WIDE_MATH(f) MATH(f)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wextra" /* an enum's constant beside an int64_t is plain C */
#include "op/ref.h"
#include "op/refs.inc"
#pragma GCC diagnostic pop

typedef void (*ref_fn)(const tl_op_call *c);
#define OP(name, in, out, save, acc, flags) name##_ref_count,
static const ref_fn ref_count[OP_COUNT] = {
#include "op/ops.def"
};
#undef OP

/* Elements of the call's arguments in bytes, outputs that are added into read as well. */
static void bytes_of(const example_call *x, double *read, double *written) {
    *read = *written = 0;
    for (int i = 0; i < TL_OP_INS; i++) {
        const tl_desc *d = &x->call.in[i].d;
        if (d->dtype == TL_NONE) continue;
        *read += (double)(tl_desc_count(d) / tl_dtype_block(d->dtype)) * (double)tl_dtype_bytes(d->dtype);
    }
    for (int k = 0; k < TL_OP_OUTS; k++) {
        const tl_desc *d = &x->call.out[k].d;
        if (d->dtype == TL_NONE) continue;
        double bytes = (double)tl_desc_count(d) * (double)tl_dtype_bytes(d->dtype);
        *written += bytes;
        if (x->call.acc >> k & 1) *read += bytes;
    }
}

static bool check(const op_example *e, const example_call *x) {
    tl_cost cost;
    x->op->cost(&x->call, &cost);
    counted.flops = counted.special = 0;
    ref_count[x->op->id](&x->call);
    double read, written;
    bytes_of(x, &read, &written);
    bool good = cost.flops == counted.flops && cost.special == counted.special;
    if (e->cost_bound) good = cost.flops >= counted.flops && cost.special >= counted.special;
    /* A rule may know that an argument is read in part (rows of a table, a scale by 0), or that nothing moves. */
    bool bytes = cost.bytes_read <= read && cost.bytes_written <= written;
    if (!(x->op->flags & TL_OP_VIEW) && !e->cost_bound) bytes = bytes && cost.bytes_written == written;
    if (!good || !bytes)
        print_message("%s, %s: rule %.0f + %.0f, counted %.0f + %.0f; bytes %.0f + %.0f of %.0f + %.0f\n", e->op,
                      e->label, cost.flops, cost.special, counted.flops, counted.special, cost.bytes_read,
                      cost.bytes_written, read, written);
    return good && bytes;
}

static void rules_count_what_references_do(void **state) {
    (void)state;
    op_examples list = {NULL, 0, 0};
    examples_all(&list);
    int bad = 0;
    for (size_t i = 0; i < list.n; i++) {
        example_call x;
        if (!example_open(&list.e[i], 11, &x)) {
            print_message("%s, %s: refused\n", list.e[i].op, list.e[i].label);
            bad++;
            continue;
        }
        bad += !check(&list.e[i], &x);
        example_close(&x);
    }
    examples_free(&list);
    assert_int_equal(bad, 0);
}

/* Numbers known without any program: 2 M N K for a product, nothing for a view. */
static void known_costs(void **state) {
    (void)state;
    tl_op_call c;
    memset(&c, 0, sizeof c);
    linear_attr a;
    memset(&a, 0, sizeof a);
    c.attr = &a;
    c.in[0].d = D2(TL_BF16, 128, 512);
    c.in[1].d = D2(TL_BF16, 256, 512);
    c.out[0].d = D2(TL_BF16, 128, 256);
    tl_cost cost;
    tl_op_find("linear")->cost(&c, &cost);
    assert_true(cost.flops == 2.0 * 128 * 256 * 512);
    assert_true(cost.special == 0);
    assert_true(cost.bytes_read == 2.0 * (128 * 512 + 256 * 512));
    assert_true(cost.bytes_written == 2.0 * 128 * 256);
    c.acc = 1;
    tl_op_find("linear")->cost(&c, &cost);
    assert_true(cost.flops == 2.0 * 128 * 256 * 512 + 128 * 256);
    tl_op_find("split")->cost(&c, &cost);
    assert_true(cost.flops == 0 && cost.bytes_read == 0 && cost.bytes_written == 0);
}

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_count_what_references_do),
        cmocka_unit_test(known_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
