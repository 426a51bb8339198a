/* linear over a weight of half floats, and of bf16 turned to those: exact where half floats are, near elsewhere, and
 * again in f32 where they overflow. */
#include "rows.h"

#include <math.h>

/* Whole numbers of which a thousand add up within half a float's 11 bits. */
static void small_numbers(example_call *c) {
    for (int i = 0; i < 2; i++) {
        tl_arg *a = &c->call.in[i];
        for (int64_t r = 0; r < tl_desc_rows(&a->d); r++)
            for (int64_t k = 0; k < tl_desc_last(&a->d); k++)
                example_store(a, tl_desc_row(&a->d, r) + k,
                              (double)((r * 7 + k * (i ? 5 : 3)) % 5 - 2) * (i ? 0.25 : 8));
    }
}

/* Sums of half floats overflow in some columns; a row has no numbers but these. */
static void great_numbers(example_call *c) {
    small_numbers(c);
    tl_arg *x = &c->call.in[0], *w = &c->call.in[1];
    for (int64_t n = 3; n < w->d.dim[0]; n += 17)
        for (int64_t k = 0; k < w->d.dim[1]; k++) example_store(w, tl_desc_row(&w->d, n) + k, 60000);
    for (int64_t k = 0; k < x->d.dim[1]; k++) example_store(x, tl_desc_row(&x->d, 5) + k, 1e31 * (double)(k % 3));
    for (int64_t k = 0; k < x->d.dim[1]; k++) example_store(x, tl_desc_row(&x->d, 6) + k, 1e-33 * (double)(k % 3));
}

static void no_numbers(example_call *c) {
    small_numbers(c);
    tl_arg *x = &c->call.in[0];
    example_store(x, tl_desc_row(&x->d, 2) + 9, NAN);
    example_store(x, tl_desc_row(&x->d, 4) + 7, INFINITY); /* and nothing that takes it away again */
    for (int64_t k = 0; k < x->d.dim[1]; k++) example_store(x, tl_desc_row(&x->d, 7) + k, 0);
}

static void add_one(op_examples *l, tl_dtype w, int64_t M, int64_t N, int64_t K, int64_t pad, bool acc,
                    void (*prepare)(example_call *c)) {
    struct linear_attr a = {TL_F32};
    op_example *e = example_add(l, "linear", &a, sizeof a, "");
    example_in(e, 0, example_view(D2(TL_F32, M, K), pad), FILL_NORMAL);
    example_in(e, 1, example_view(D2(w, N, K), pad), FILL_NORMAL);
    if (!acc) example_in(e, 2, D1(TL_F32, N), FILL_NORMAL);
    e->acc = acc, e->out_pad = pad, e->prepare = prepare;
    snprintf(e->label, sizeof e->label, "%s M%d N%d K%d pad%d acc%d", tl_dtype_name(w), (int)M, (int)N, (int)K,
             (int)pad, acc);
}

static void add_case(op_examples *l, int64_t M, int64_t N, int64_t K, int64_t pad, bool acc,
                     void (*prepare)(example_call *c)) {
    add_one(l, TL_F16, M, N, K, pad, acc, prepare);
    add_one(l, TL_BF16, M, N, K, pad, acc, prepare);
}

static void check(op_examples *l, double slack) {
    for (size_t i = 0; i < l->n; i++)
        if (!rows_check(&l->e[i], slack)) assert_false(isa_probe() & ISA_AVX2);
    examples_free(l);
}

static void sizes(void **state) {
    (void)state;
    static const int64_t size[][3] = {{1, 5, 128},   {8, 64, 144},   {12, 1, 128},   {13, 63, 144},   {14, 64, 160},
                                      {15, 65, 256}, {16, 127, 272}, {17, 129, 128}, {40, 300, 2064}, {19, 33, 4112}};
    op_examples l = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        add_case(&l, size[i][0], size[i][1], size[i][2], i % 2 * 3, i % 3 == 2, small_numbers);
    check(&l, 60);
}

static void numbers_of_any_size(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    add_case(&l, 14, 70, 512, 0, false, great_numbers);
    add_case(&l, 14, 70, 2112, 1, true, great_numbers);
    add_case(&l, 14, 70, 256, 0, false, no_numbers);
    check(&l, 60);
}

/* Any numbers: rounded to 11 bits, and so are sums of 128. */
static void rounding_stays_small(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    add_case(&l, 30, 100, 1024, 0, false, NULL);
    add_case(&l, 18, 64, 4096, 0, true, NULL);
    check(&l, 1e-3 * 0x1p24);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(numbers_of_any_size),
                                       cmocka_unit_test(rounding_stays_small)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
