/* The operations that a plan tells, against a count: for every preset and mixer, in small, a training step and a decode
 * step run through the reference kernels, compiled over a number that counts what is done to it. */
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

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wextra" /* C's ways with enums and casts are plain C */
#pragma GCC diagnostic ignored "-Wconversion"
#define _Alignas alignas
extern "C" {
#include "base/half.h"
#include "base/rng.h"
#include "cost/measure.h"
#include "cost/graphs.h"
#include "tensor/block.h"
}
#include "op/count.h"

#define REAL      count_real
#define REF(name) name##_ref_count
#define MATH(fn)  count_##fn
#define UNCOUNTED(...)                                                                                                 \
    do {                                                                                                               \
        count_ops counted_before = counted;                                                                            \
        __VA_ARGS__;                                                                                                   \
        counted = counted_before;                                                                                      \
    } while (0)
#define WIDE         count_real
#define WIDE_MATH(f) MATH(f)
#include "op/ref.h"
#include "op/refs.inc"
#pragma GCC diagnostic pop

typedef void (*ref_fn)(const tl_op_call *c);
#define OP(name, in, out, save, acc, flags) name##_ref_count,
static const ref_fn ref_count[OP_COUNT] = {
#include "op/ops.def"
};
#undef OP

static tl_engine *engine;

static int setup(void **state) {
    (void)state;
    tl_engine_options o;
    memset(&o, 0, sizeof o);
    o.threads = 1;
    o.isa = "ref";
    return tl_engine_create(&o, &engine, NULL) != TL_OK;
}

static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    return 0;
}

/* The same parts at sizes whose every operation can be counted in a moment. */
static void shrink(model_config *c) {
    c->vocab = 23;
    c->width = 16;
    c->layers = c->pattern > 2 ? c->pattern : 2;
    c->context = 12;
    c->mlp = 24;
    if (config_all_gated(c)) {
        c->shared = c->head_dim = 8;
        c->expand = c->mlp;
    } else {
        c->kv_heads = c->kv_heads < c->heads ? 1 : 2;
        c->heads = 2;
        c->head_dim = 8;
    }
    if (c->chunk) c->chunk = 4;
    if (c->window) c->window = 5;
    if (c->experts) c->expert_mlp = 8;
}

/* Rules that know descriptors alone bound what the numbers decide. */
static bool bounds(const char *op) {
    static const char *const names[] = {"attention_kv", "chunk_step", "expert", "route", "embedding"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(op, names[i])) return true;
    return false;
}

static void count_plan(const char *name, tl_graph *g, tl_plan *p, const measure_run *r) {
    tl_error e;
    void *memory;
    size_t bytes;
    int bad = 0;
    double told = 0, done = 0;
    assert_ok(measure_bind(engine, g, p, r, &memory, &bytes, &e), &e);
    for (size_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        counted.flops = counted.special = 0;
        ref_count[s->op->id](&s->call);
        bool same = s->cost.flops == counted.flops && s->cost.special == counted.special;
        if (bounds(s->op->name)) same = s->cost.flops >= counted.flops && s->cost.special >= counted.special;
        if (!same)
            print_message("%s: %s (%s): plan %.0f + %.0f, counted %.0f + %.0f\n", name, s->op->name, s->name, s->cost.flops,
                          s->cost.special, counted.flops, counted.special);
        bad += !same;
        told += bounds(s->op->name) ? counted.flops : s->cost.flops;
        done += counted.flops;
    }
    mem_give(tl_engine_allocator(engine), memory, bytes);
    assert_int_equal(bad, 0);
    assert_true(told == done && done > 1000);
}

static void count_preset(const char *name) {
    model_config c;
    model_params mp;
    tl_error e;
    cost_graph g[COST_GRAPHS];
    assert_ok(config_preset(name, &c, &e), &e);
    shrink(&c);
    assert_ok(config_check(&c, &e), &e);
    const tl_allocator *a = tl_engine_allocator(engine);
    assert_ok(params_init(&mp, a, &c, &e), &e);
    measure_run run;
    memset(&run, 0, sizeof run);
    run.vocab = c.vocab;
    run.context = c.context;
    static const tl_recompute levels[] = {TL_RECOMPUTE_NONE, TL_RECOMPUTE_FULL, TL_RECOMPUTE_WIDE, TL_RECOMPUTE_NONE};
    for (int k = 0; k < 4; k++) { /* training steps, kept and recomputed, and a decode step */
        cost_request q;
        memset(&q, 0, sizeof q);
        q.mode = k < 3 ? COST_TRAIN : COST_DECODE;
        q.rows = k < 3 ? 2 : 1;
        q.context = c.context;
        q.slots = k < 3 ? 0 : 1;
        q.recompute = levels[k];
        run.slots = q.slots;
        run.first = c.context - 1;
        assert_ok(graphs_make(engine, &c, &mp, &q, false, g, &e), &e);
        for (int i = 0; i < COST_GRAPHS && g[i].plan; i++) count_plan(name, g[i].graph, g[i].plan, &run);
        graphs_free(engine, g, COST_GRAPHS);
    }
    params_fini(&mp, a);
}

static void plans_tell_what_references_do(void **state) {
    (void)state;
    size_t n = 0;
    for (; config_preset_name(n, NULL); n++) count_preset(config_preset_name(n, NULL));
    assert_true(n >= 18);
}

int main() {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plans_tell_what_references_do)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
