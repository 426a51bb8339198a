/* linear, linear_dx, linear_dw: every kernel against the reference, at sizes around the tiles. */
#include "rows.h"

#include "cpu/product/linear.h"

#include <math.h>

static void add_products(op_examples *l, tl_dtype x, tl_dtype w, int64_t M, int64_t N, int64_t K, int64_t pad,
                         uint32_t acc) {
    struct linear_attr a = {x};
    op_example *e = example_add(l, "linear", &a, sizeof a, "linear");
    example_in(e, 0, example_view(D2(x, M, K), pad), FILL_NORMAL);
    example_in(e, 1, example_view(D2(w, N, K), pad), FILL_NORMAL);
    if (!acc) example_in(e, 2, D1(TL_F32, N), FILL_NORMAL);
    e->acc = acc & 1, e->out_pad = pad;
    struct linear_dx_attr d = {x};
    e = example_add(l, "linear_dx", &d, sizeof d, "dx");
    example_in(e, 0, example_view(D2(x, M, N), pad), FILL_NORMAL);
    example_in(e, 1, example_view(D2(w, N, K), pad), FILL_NORMAL);
    e->acc = acc & 1, e->out_pad = pad;
    struct linear_dw_attr g = {0};
    e = example_add(l, "linear_dw", &g, sizeof g, "dw");
    example_in(e, 0, example_view(D2(x, M, N), pad), FILL_NORMAL);
    example_in(e, 1, example_view(D2(x, M, K), pad), FILL_NORMAL);
    e->acc = acc, e->unwanted = acc ? 0 : 2;
    for (size_t i = l->n - 3; i < l->n; i++)
        snprintf(l->e[i].label, sizeof l->e[i].label, "%s %s M%d N%d K%d pad%d acc%d", tl_dtype_name(x),
                 tl_dtype_name(w), (int)M, (int)N, (int)K, (int)pad, (int)acc);
}

/* All kernels but that of half floats, whose error is its own: t_half.c. */
static void check_all(op_examples *l) {
    int taken = 0;
    kernel_row *rows = malloc(kernel_count * sizeof *rows);
    size_t n = 0;
    assert_non_null(rows);
    for (size_t i = 0; i < kernel_count; i++)
        if (!(kernel_table[i].isa & ISA_AVX512FP16)) rows[n++] = kernel_table[i];
    for (size_t i = 0; i < l->n; i++) taken += rows_check_in(rows, n, &l->e[i], 60);
    assert_true(taken >= (int)l->n || !(isa_probe() & ISA_AVX2));
    free(rows);
    examples_free(l);
}

static void test_sizes(void **state) {
    (void)state;
    static const int64_t size[][3] = {{1, 1, 1},   {1, 5, 3},    {2, 48, 16},  {3, 49, 17},    {7, 97, 33},
                                      {8, 31, 64}, {9, 193, 40}, {16, 16, 16}, {65, 200, 130}, {40, 33, 800}};
    op_examples l = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        for (int pad = 0; pad < 2; pad++)
            for (int t = 0; t < 4; t++) {
                const tl_dtype x = (tl_dtype[]){TL_F32, TL_BF16, TL_F32, TL_F16}[t];
                const tl_dtype w = (tl_dtype[]){TL_F32, TL_BF16, TL_BF16, TL_F16}[t];
                add_products(&l, x, w, size[i][0], size[i][1], size[i][2], 3 * pad, pad ? 3 : 0);
            }
    check_all(&l);
}

/* Sums longer than a block, more rows than a chunk of the packed form, several tiles of oneDNN. */
static void test_chunks(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    add_products(&l, TL_F32, TL_F32, 2100, 24, 30, 0, 3);
    add_products(&l, TL_BF16, TL_BF16, 2100, 24, 30, 5, 0);
    add_products(&l, TL_BF16, TL_BF16, 40, 30, 1600, 0, 3);
    add_products(&l, TL_F32, TL_F32, 300, 450, 70, 0, 3);
    add_products(&l, TL_BF16, TL_BF16, 300, 450, 70, 0, 0);
    check_all(&l);
}

product_sum_leaf onednn_linear_dw__avx512bf16;

/* oneDNN where it is not the fastest, too. */
static void test_onednn(void **state) {
    (void)state;
#define ANYWHERE(op, isa, bit)                                                                                         \
    {                                                                                                                  \
        "onednn_" #op, OP_##op, bit, onednn_anywhere_##op##_prepare, onednn_##op##_run,                                \
            (void (*)(void))onednn_linear_dw__##isa                                                                    \
    }
    static const kernel_row rows[] = {ANYWHERE(linear, avx512bf16, ISA_AVX512BF16),
                                      ANYWHERE(linear_dx, avx512bf16, ISA_AVX512BF16),
                                      ANYWHERE(linear_dw, avx512bf16, ISA_AVX512BF16)};
    op_examples l = {NULL, 0, 0};
    for (int t = 0; t < 2; t++) {
        const tl_dtype x = t ? TL_BF16 : TL_F32;
        add_products(&l, x, x, 40, 33, 800, 0, 0);
        add_products(&l, x, x, 520, 30, 70, 3, 3);
        add_products(&l, x, x, 300, 450, 70, 0, 3);
        add_products(&l, x, x, 70, 200, 420, 0, 0);
    }
    int taken = 0;
    for (size_t i = 0; i < l.n; i++) taken += rows_check_in(rows, 3, &l.e[i], 60);
    assert_true(taken == (int)l.n || !(isa_probe() & ISA_AVX512BF16));
    examples_free(&l);
}

static void head_prepare(example_call *x) { /* rows that do not count, and a lse that fits */
    int32_t *targets = x->call.in[x->op->id == OP_loss_head ? 2 : 3].data;
    for (int64_t r = 2; r < x->call.in[x->op->id == OP_loss_head ? 2 : 3].d.dim[0]; r += 7) targets[r] = -1;
}

static void add_head(op_examples *l, tl_dtype t, int64_t rows, int64_t D, int64_t V, struct loss_head_attr a,
                     uint32_t acc, uint32_t unwanted) {
    op_example *e = example_add(l, "loss_head", &a, sizeof a, "");
    example_in(e, 0, example_view(D2(t, rows, D), acc ? 5 : 0), FILL_NORMAL);
    example_in(e, 1, example_view(D2(t, V, D), acc ? 2 : 0), FILL_NORMAL);
    example_in(e, 2, D1(TL_I32, rows), FILL_IDS), example_range(e, 2, 0, V);
    example_in(e, 3, D1(TL_F32, 1), FILL_CONST), e->value[3] = 100;
    example_in(e, 4, D1(TL_F32, V), FILL_NORMAL);
    e->acc = acc, e->unwanted = unwanted, e->prepare = head_prepare;
    snprintf(e->label, sizeof e->label, "%s %dx%dx%d acc%d", tl_dtype_name(t), (int)rows, (int)D, (int)V, (int)acc);
    struct loss_head_bwd_attr b = {a};
    e = example_add(l, "loss_head_bwd", &b, sizeof b, l->e[l->n - 1].label);
    example_in(e, 0, D1(TL_F32, 1), FILL_NORMAL);
    for (int i = 0; i < 4; i++)
        e[0].in[i + 1] = e[-1].in[i], e[0].fill[i + 1] = e[-1].fill[i], e[0].value[i + 1] = e[-1].value[i];
    example_range(e, 3, 0, V);
    example_in(e, 5, D1(TL_F32, rows), FILL_CONST), e->value[5] = 9;
    example_in(e, 6, D1(TL_F32, V), FILL_NORMAL);
    e->acc = acc >> 3, e->prepare = head_prepare;
}

static void test_head(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    const struct loss_head_attr plain = {0, 0, 0, 0}, all = {0.1f, 1e-3f, 5.0f, 0};
    add_head(&l, TL_F32, 1, 8, 3, plain, 0, 0);
    add_head(&l, TL_F32, 30, 20, 65, plain, 0, 0);
    add_head(&l, TL_F32, 33, 24, 100, all, 48, 0);
    add_head(&l, TL_BF16, 40, 33, 500, all, 48, 0);
    add_head(&l, TL_BF16, 17, 16, 7000, plain, 0, 8);
    add_head(&l, TL_F32, 1100, 6, 60, plain, 0, 0);
    add_head(&l, TL_F32, 40, 20, 900, all, 0, 8 | 16 | 32);
    check_all(&l);
}

/* A failing allocator: prepare says so and leaves nothing behind. */
static tl_status prepare_once(const tl_allocator *a, void *user) {
    const tl_op_call *c = user;
    for (size_t i = 0; i < kernel_count; i++) {
        kernel_exec x;
        if (kernel_table[i].op != OP_linear) continue;
        const char *why = cpu_row_accepts(&kernel_table[i], isa_probe(), c, 2, false, a, &x);
        if (why == kernel_no_memory) return TL_NOMEM;
        if (why) continue;
        if (x.state_free) x.state_free(x.state, a);
        return TL_OK;
    }
    return TL_OK;
}

static void test_no_memory(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    example_call x;
    add_products(&l, TL_F32, TL_F32, 128, 128, 64, 0, 0);
    assert_true(example_open(&l.e[0], 1, &x));
    test_alloc_sweep(prepare_once, &x.call);
    example_close(&x);
    examples_free(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_onednn), cmocka_unit_test(test_head),
                                       cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
