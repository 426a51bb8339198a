/* Rules of attention, positions, caches, the loss head and the optimizer, where walking the examples does not reach:
 * the gradients that the loss head claims when it is the root, gradients that are refused, shapes that are refused. */
#include "support/testing.h"

#include "op/op.h"

#include <math.h>

/* ---- a graph that only writes down what a gradient rule asks of it -------------------------------------- */

struct tl_tensor {
    tl_desc d;
};
struct tl_grad {
    const void *attr;
    uint32_t absent, needs, have_dy, one; /* bits of inputs and outputs */
    tl_tensor in[TL_OP_INS], out[TL_OP_OUTS], dy[TL_OP_OUTS];
    char log[400];
    const char *refused;
};

static void note(tl_grad *g, const char *fmt, ...) {
    size_t n = strlen(g->log);
    va_list args;
    va_start(args, fmt);
    vsnprintf(g->log + n, sizeof g->log - n, fmt, args);
    va_end(args);
}

const void *tl_grad_attr(const tl_grad *g) {
    return g->attr;
}
tl_tensor *tl_grad_in(const tl_grad *g, int i) {
    return g->absent >> i & 1 ? NULL : (tl_tensor *)(uintptr_t)&g->in[i];
}
tl_tensor *tl_grad_out(const tl_grad *g, int i) {
    return (tl_tensor *)(uintptr_t)&g->out[i];
}
tl_tensor *tl_grad_dy(const tl_grad *g, int i) {
    return g->have_dy >> i & 1 ? (tl_tensor *)(uintptr_t)&g->dy[i] : NULL;
}
bool tl_grad_needs(const tl_grad *g, int i) {
    return g->needs >> i & 1;
}
bool tl_grad_dy_is_one(const tl_grad *g, int i) {
    return g->one >> i & 1;
}
const tl_desc *tl_tensor_desc(const tl_tensor *t) {
    return &t->d;
}
void tl_grad_emit(tl_grad *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in, const int *to,
                  int n_out) {
    (void)attr;
    note(g, "%s(", op->name);
    for (int i = 0; i < n_in; i++) {
        if (!in[i])
            note(g, " -");
        else if (in[i] >= g->in && in[i] < g->in + TL_OP_INS)
            note(g, " in%d", (int)(in[i] - g->in));
        else if (in[i] >= g->out && in[i] < g->out + TL_OP_OUTS)
            note(g, " out%d", (int)(in[i] - g->out));
        else
            note(g, " dy%d", (int)(in[i] - g->dy));
    }
    note(g, ") ->");
    for (int k = 0; k < n_out; k++) note(g, " %d", to[k]);
}
tl_tensor *tl_grad_temp(tl_grad *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in) {
    (void)attr, (void)in, (void)n_in;
    note(g, "%s; ", op->name);
    return &g->out[TL_OP_OUTS - 1];
}
void tl_grad_pass(tl_grad *g, int i, tl_tensor *t) {
    (void)t;
    note(g, "pass %d; ", i);
}
void tl_grad_claim(tl_grad *g, int i, int k) {
    note(g, "in%d = out%d; ", i, k);
}
void tl_grad_refuse(tl_grad *g, const char *reason) {
    g->refused = reason;
}

static const char *rule(tl_grad *g, int op) {
    static const int64_t zeros[TL_ATTR_MAX / 8];
    if (!g->attr) g->attr = zeros;
    op_table[op].grad(g);
    return g->log;
}

/* ---- gradients ------------------------------------------------------------------------------------------- */

/* The loss itself: its own outputs are the gradients, and nothing is appended. Elsewhere: the backward operator. */
static void the_loss_head_claims(void **state) {
    (void)state;
    tl_grad g = {.needs = 1 | 2 | 16, .have_dy = 1, .one = 1};
    assert_string_equal(rule(&g, OP_loss_head), "in0 = out3; in1 = out4; in4 = out5; ");
    g = (tl_grad){.needs = 1 | 2 | 16, .have_dy = 1, .one = 1, .absent = 16};
    assert_string_equal(rule(&g, OP_loss_head), "in0 = out3; in1 = out4; ");
    g = (tl_grad){.needs = 1, .have_dy = 1, .one = 1};
    assert_string_equal(rule(&g, OP_loss_head), "in0 = out3; ");
    g = (tl_grad){.needs = 1 | 2, .have_dy = 1};
    assert_string_equal(rule(&g, OP_loss_head), "loss_head_bwd( dy0 in0 in1 in2 in3 out1 in4) -> 0 1 -1");
    assert_null(g.refused);
    g = (tl_grad){.needs = 1 | 2, .have_dy = 1 | 2, .one = 1};
    assert_string_equal(rule(&g, OP_loss_head), "");
    assert_non_null(strstr(g.refused, "only the loss"));
    g = (tl_grad){.needs = 1 | 8, .have_dy = 1};
    rule(&g, OP_loss_head);
    assert_non_null(strstr(g.refused, "labels"));
}

static void attention_rules(void **state) {
    (void)state;
    tl_grad g = {.needs = 7, .have_dy = 1, .absent = 8 | 16 | 32 | 64 | 128};
    assert_string_equal(rule(&g, OP_attention), "attention_bwd( dy0 in0 in1 in2 out0 out1 - - - - -) -> 0 1 2 -1 -1");
    g = (tl_grad){.needs = 2 | 16 | 64, .have_dy = 1};
    assert_string_equal(rule(&g, OP_attention),
                        "attention_bwd( dy0 in0 in1 in2 out0 out1 in3 in4 in5 in6 in7) -> -1 1 -1 4 6");
    g = (tl_grad){.needs = 1 | 32, .have_dy = 1};
    rule(&g, OP_attention);
    assert_non_null(strstr(g.refused, "slopes"));
    g = (tl_grad){.needs = 1, .have_dy = 3};
    rule(&g, OP_attention);
    assert_non_null(strstr(g.refused, "logsumexp"));
    g = (tl_grad){.needs = 1 | 2, .have_dy = 1};
    rule(&g, OP_rope);
    assert_non_null(strstr(g.refused, "constant"));
    g = (tl_grad){.needs = 1, .have_dy = 1};
    assert_string_equal(rule(&g, OP_rope), "rope( dy0 in1) -> 0");
    g = (tl_grad){.needs = 2, .have_dy = 1};
    g.in[1].d = tl_desc_make(TL_Q8_0, 2, (int64_t[]){4, 32});
    rule(&g, OP_embedding);
    assert_non_null(strstr(g.refused, "quantized"));
}

/* ---- shapes ---------------------------------------------------------------------------------------------- */

static tl_desc D(tl_dtype t, int n, int64_t a, int64_t b, int64_t c, int64_t d) {
    return tl_desc_make(t, n, (int64_t[]){a, b, c, d});
}

/* in: as many as the operator has, dtype TL_NONE for an absent one */
static void refuses(int op, const void *attr, const tl_desc *in, const tl_desc *bound, tl_status code,
                    const char *part) {
    int64_t copy[TL_ATTR_MAX / 8] = {0};
    tl_error err = {0};
    tl_op_infer s = {.attr = copy, .err = &err};
    memcpy(copy, attr, op_table[op].attr_size);
    for (int i = 0; i < op_table[op].n_in; i++) s.in[i] = in[i].dtype != TL_NONE ? &in[i] : NULL;
    for (int k = 0; bound && k < op_table[op].n_out; k++) s.out[k] = bound[k];
    tl_status got = op_table[op].shape(&s);
    if (got != code || !strstr(err.text, part)) print_message("%d: %s\n  not %d: %s\n", got, err.text, code, part);
    assert_int_equal(got, code);
    assert_non_null(strstr(err.text, part));
    assert_int_equal(strncmp(err.text, op_table[op].name, strlen(op_table[op].name)), 0);
}
#define ATTENTION_REFUSES(at, with, code, part, ...)                                                                   \
    do {                                                                                                               \
        tl_desc in_[TL_OP_INS] = {q, k, k};                                                                            \
        in_[at] = (with);                                                                                              \
        refuses(OP_attention, &(struct attention_attr){__VA_ARGS__}, in_, NULL, code, part);                           \
    } while (0)

static void attention_shapes(void **state) {
    (void)state;
    tl_desc q = D(TL_F32, 4, 2, 5, 6, 8), k = D(TL_F32, 4, 2, 5, 3, 8), none = {0};
    tl_desc four = D(TL_F32, 4, 2, 5, 4, 8);
    refuses(OP_attention, &(struct attention_attr){0}, (tl_desc[TL_OP_INS]){q, four, four}, NULL, TL_SHAPE,
            "no multiple");
    ATTENTION_REFUSES(1, four, TL_SHAPE, "heads of k", .causal = 1);
    ATTENTION_REFUSES(1, D(TL_F32, 4, 2, 5, 3, 4), TL_SHAPE, "head width of q", .causal = 1);
    ATTENTION_REFUSES(1, D(TL_BF16, 4, 2, 5, 3, 8), TL_DTYPE, "f32 like q", .causal = 1);
    ATTENTION_REFUSES(2, D(TL_F32, 4, 2, 4, 3, 8), TL_SHAPE, "tokens of k", .causal = 1);
    ATTENTION_REFUSES(2, none, TL_ARG, "needs it", .causal = 1);
    ATTENTION_REFUSES(3, D(TL_I32, 2, 2, 5, 0, 0), TL_SHAPE, "same tokens", .q_offset = 1);
    ATTENTION_REFUSES(4, D(TL_F64, 1, 6, 0, 0, 0), TL_DTYPE, "sum type", .causal = 1);
    ATTENTION_REFUSES(5, D(TL_F32, 1, 3, 0, 0, 0), TL_SHAPE, "heads of q", .causal = 1);
    ATTENTION_REFUSES(6, D(TL_F32, 2, 6, 8, 0, 0), TL_SHAPE, "P >= 5", .causal = 1);
    ATTENTION_REFUSES(6, D(TL_F32, 2, 6, 7, 0, 0), TL_SHAPE, "P >= 5", .causal = 0);
    ATTENTION_REFUSES(6, D(TL_F32, 2, 6, 9, 0, 0), TL_SHAPE, "P >= 7", .q_offset = 2);
    ATTENTION_REFUSES(6, none, TL_ARG, "window is -1", .window = -1);
    ATTENTION_REFUSES(6, none, TL_ARG, "softcap is nan", .softcap = NAN);
    ATTENTION_REFUSES(6, none, TL_ARG, "scale is -1", .scale = -1);
}

static void other_shapes(void **state) {
    (void)state;
    tl_desc x = D(TL_BF16, 4, 2, 3, 4, 8), ids = D(TL_I32, 1, 6, 0, 0, 0), none = {0};
    struct rope_attr half = {0, 0};
    refuses(OP_rope, &half, (tl_desc[]){x, D(TL_F32, 2, 5, 8, 0, 0)}, NULL, TL_SHAPE, "one row for every 4 heads");
    refuses(OP_rope, &half, (tl_desc[]){x, D(TL_F32, 2, 6, 10, 0, 0)}, NULL, TL_SHAPE, "no wider than a head");
    refuses(OP_rope, &half, (tl_desc[]){x, D(TL_F32, 2, 6, 5, 0, 0)}, NULL, TL_SHAPE, "even");
    refuses(OP_rope, &half, (tl_desc[]){x, D(TL_BF16, 2, 6, 8, 0, 0)}, NULL, TL_DTYPE, "sum type");
    refuses(OP_rope, &(struct rope_attr){2, 0}, (tl_desc[]){x, D(TL_F32, 2, 6, 8, 0, 0)}, NULL, TL_ARG, "no style 2");
    refuses(OP_rope_table, &(struct rope_table_attr){.mscale = 1, .dtype = TL_BF16},
            (tl_desc[]){ids, D(TL_F64, 1, 4, 0, 0, 0)}, NULL, TL_ARG, "cannot be bf16");
    refuses(OP_dropout, &(struct dropout_attr){1, 0}, &x, NULL, TL_ARG, "p is 1");
    refuses(OP_embedding, &(struct embedding_attr){1, TL_F64}, (tl_desc[]){ids, D(TL_F32, 2, 9, 4, 0, 0)}, NULL, TL_ARG,
            "does not give f64");
    refuses(OP_embedding_bwd, &(struct embedding_bwd_attr){1, 0, 0}, (tl_desc[]){ids, D(TL_F32, 2, 6, 4, 0, 0)}, NULL,
            TL_ARG, "0 rows");
    tl_desc one = D(TL_F32, 1, 1, 0, 0, 0), h = D(TL_F32, 2, 6, 4, 0, 0), w = D(TL_F32, 2, 9, 4, 0, 0);
    refuses(OP_loss_head, &(struct loss_head_attr){1, 0, 0, 0}, (tl_desc[]){h, w, ids, one, none}, NULL, TL_ARG,
            "smoothing 1");
    refuses(OP_loss_head, &(struct loss_head_attr){0, 0, 0, 0}, (tl_desc[]){h, w, ids, one, one}, NULL, TL_SHAPE,
            "rows of w");
    refuses(OP_loss_head, &(struct loss_head_attr){0, 0, 0, 0},
            (tl_desc[]){h, D(TL_F32, 2, 9, 5, 0, 0), ids, one, none}, NULL, TL_SHAPE, "width of h");
    refuses(OP_global_norm, &(struct global_norm_attr){0}, (tl_desc[]){D(TL_BF16, 1, 5, 0, 0, 0)}, NULL, TL_DTYPE,
            "f32 or f64");
}

/* What lies in the caller's memory must be bound, and fit. */
static void bound_memory(void **state) {
    (void)state;
    tl_desc x = D(TL_F32, 3, 5, 2, 8, 0), row = D(TL_I32, 1, 5, 0, 0, 0), none = {0};
    tl_desc in[] = {x, row, row}, wrong = D(TL_F32, 4, 3, 16, 2, 4);
    struct kv_write_attr w = {0};
    refuses(OP_kv_write, &w, in, NULL, TL_ARG, "bound through acc");
    refuses(OP_kv_write, &w, in, (tl_desc[]){wrong}, TL_SHAPE, "(slots,capacity,heads,width)");
    struct adamw_attr a = {1};
    tl_desc hyper = D(TL_F32, 1, HYPER_COUNT, 0, 0, 0), p = D(TL_F32, 1, 7, 0, 0, 0), less = D(TL_F32, 1, 6, 0, 0, 0);
    refuses(OP_adamw, &a, (tl_desc[]){hyper, none}, NULL, TL_ARG, "p must be bound through acc");
    refuses(OP_adamw, &a, (tl_desc[]){hyper, none}, (tl_desc[]){p, p, p, none, none}, TL_ARG, "g is absent");
    refuses(OP_adamw, &a, (tl_desc[]){hyper, none}, (tl_desc[]){p, p, less, p, none}, TL_ARG, "v is (6) f32");
    refuses(OP_adamw, &a, (tl_desc[]){hyper, none}, (tl_desc[]){p, p, p, p, p}, TL_ARG, "p16 is (7) f32");
    refuses(OP_adamw, &a, (tl_desc[]){less, none}, (tl_desc[]){p, p, p, p, none}, TL_SHAPE, "HYPER_COUNT");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loss_head_claims), cmocka_unit_test(attention_rules), cmocka_unit_test(attention_shapes),
        cmocka_unit_test(other_shapes),         cmocka_unit_test(bound_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
