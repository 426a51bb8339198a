/* A device of references alone, one thread: graphs are tested without the floor above them. */
#ifndef TESTS_GRAPH_HOST_H
#define TESTS_GRAPH_HOST_H

#include "support/testing.h"

#include "graph/plan.h"

#include <math.h>
#include <stdlib.h>

typedef struct test_host {
    graph_host host; /* first, as in an engine */
    device dev;
    long launches;
} test_host;

typedef void (*test_reference)(const tl_op_call *c);

static inline void test_host_ref(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)phase, (void)lo, (void)hi, (void)worker;
    ((test_reference)t->exec->leaf)(t->call);
}

static inline tl_status test_host_choose(device *d, const tl_op_def *op, const tl_op_call *c, bool dry, kernel_exec *x,
                                         char *refusals, size_t size, tl_error *err) {
    (void)d, (void)dry, (void)err;
    bool f64 = false;
    for (int k = 0; k < TL_OP_OUTS; k++) f64 |= c->out[k].d.dtype == TL_F64;
    *x = (kernel_exec){.name = "ref", .run = test_host_ref, .phases = 1, .tiles = {1}};
    x->leaf = (void (*)(void))(f64 ? op->ref_f64 : op->ref_f32);
    x->scratch = op == OP_DEF(linear) ? 192 : 0; /* as if it needed some, so that plans place scratch too */
    if (refusals && size) refusals[0] = 0;
    return TL_OK;
}

static inline void test_host_launch(device *d, const kernel_task *t) {
    ((test_host *)(void *)((char *)d - offsetof(test_host, dev)))->launches++;
    if (t->exec->scratch) memset(t->scratch, 0xff, t->exec->scratch); /* NaN: nobody else's data may lie here */
    t->exec->run(t, 0, 0, 1, 0);
}

static inline void *test_host_alloc(device *d, size_t n) {
    return mem_take(d->alloc, n);
}

static inline void test_host_free(device *d, void *p, size_t n) {
    mem_give(d->alloc, p, n);
}

static inline tl_engine *test_host_init(test_host *h, const tl_allocator *a) {
    *h = (test_host){0};
    h->dev = (device){.name = "test",
                      .alloc = a,
                      .threads = 1,
                      .choose = test_host_choose,
                      .launch = test_host_launch,
                      .alloc_bytes = test_host_alloc,
                      .free_bytes = test_host_free};
    h->host = (graph_host){.alloc = a, .dev = &h->dev};
    return (tl_engine *)(void *)h;
}

static inline void test_host_fini(test_host *h) {
    if (h->host.eval_cache_free) h->host.eval_cache_free(&h->host);
}

#define DIMS(...)                                                                                                      \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) {                                           \
        __VA_ARGS__                                                                                                    \
    }

/* Memory for everything a graph binds: floats in a reproducible mess around zero, integers zero. */
typedef struct test_bound {
    const tl_tensor *t;
    void *data;
    size_t bytes, room;
} test_bound;
typedef struct test_memory {
    test_bound b[256];
    int n;
} test_memory;

static inline double test_number(uint64_t i) {
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    i ^= i >> 29;
    i *= 0xbf58476d1ce4e5b9u;
    i ^= i >> 32;
    return (double)(i >> 11) / 9007199254740992.0 * 2 - 1;
}

static inline void *test_data_of(const test_memory *m, const tl_tensor *t) {
    for (int i = 0; i < m->n; i++)
        if (m->b[i].t == t) return m->b[i].data;
    return NULL;
}

static inline void test_fill(const tl_tensor *t, void *data, uint64_t seed) {
    for (int64_t i = 0; i < tl_desc_count(&t->d); i++) {
        double v = t->kind == TENSOR_GRAD ? 0 : test_number(seed * 1000003u + (uint64_t)i);
        if (t->d.dtype == TL_F32) ((float *)data)[i] = (float)v;
        if (t->d.dtype == TL_F64) ((double *)data)[i] = v;
    }
}

/* Binds whatever the plan wants bound; what a graph binds twice (two plans) stays where it is. */
static inline void test_bind_all(tl_graph *g, tl_plan *p, test_memory *m) {
    for (size_t i = 0; i < g->n_tensors; i++) {
        const tl_tensor *t = g->tensors[i];
        if (t->kind == TENSOR_NODE || t->kind == TENSOR_ONE) continue;
        void *data = test_data_of(m, t);
        if (!data) {
            test_bound *b = &m->b[m->n++];
            assert_in_range(m->n, 1, 255);
            assert_true(tensor_bytes(&t->d, &b->bytes));
            b->t = t;
            b->room = (b->bytes + 127) / 64 * 64;
            b->data = data = aligned_alloc(64, b->room);
            memset(data, 0, b->room);
            test_fill(t, data, i);
        }
        assert_int_equal(tl_plan_bind(p, t, data), TL_OK);
    }
}

static inline void test_memory_free(test_memory *m) {
    for (int i = 0; i < m->n; i++) free(m->b[i].data);
    m->n = 0;
}

#endif
