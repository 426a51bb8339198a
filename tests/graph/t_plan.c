/* Plans: no two values that live at once share bytes, bytes are exact, in-place results do not change what is still to
 * be read. Checked from the outside: a graph of random operators is also computed with every value in memory of its
 * own. */
#include "graph/host.h"

/* ---- an independent evaluation: every tensor of the graph in memory of its own ----------------------------- */

typedef struct plain {
    void *data[512];
} plain;

static void *plain_of(plain *v, tl_graph *g, const tl_tensor *t, test_memory *m) {
    if (!t) return NULL;
    if (!v->data[t->index]) {
        size_t bytes;
        assert_true(tensor_bytes(&t->d, &bytes));
        v->data[t->index] = calloc(1, bytes + 64);
        void *bound = test_data_of(m, t);
        if (bound) memcpy(v->data[t->index], bound, bytes);
        if (t->kind == TENSOR_ONE) *(float *)v->data[t->index] = 1;
    }
    (void)g;
    return v->data[t->index];
}

/* Bound memory is written in place here too: sums into an external tensor are sums into its copy. */
static void plain_run(plain *v, tl_graph *g, test_memory *m) {
    *v = (plain){{NULL}};
    tl_run_info info = {0};
    for (size_t i = 0; i < g->n_nodes; i++) {
        const graph_node *n = g->nodes[i];
        tl_op_call c = {.attr = n->attr, .run = &info};
        for (int j = 0; j < TL_OP_INS; j++)
            if (n->in[j]) c.in[j] = (tl_arg){plain_of(v, g, n->in[j], m), n->in[j]->d};
        for (int k = 0; k < TL_OP_OUTS; k++) {
            if (!n->out[k]) continue;
            const tl_tensor *bound = n->acc[k] ? graph_external(n->acc[k]) : NULL;
            void *to = plain_of(v, g, bound ? bound : n->out[k], m);
            size_t bytes;
            tensor_bytes(&n->out[k]->d, &bytes);
            if (n->acc[k] && !bound) memcpy(to, plain_of(v, g, n->acc[k], m), bytes);
            if (n->acc[k]) c.acc |= 1u << k;
            c.out[k] = (tl_arg){to, n->out[k]->d};
        }
        n->op->ref_f32(&c);
    }
}

static void plain_free(plain *v) {
    for (int i = 0; i < 512; i++) free(v->data[i]);
}

/* ---- an independent check of lifetimes ------------------------------------------------------------------------ */

/* Byte by byte: who wrote last? Every argument must still hold what its own last writer put there. */
static void check_owners(const tl_plan *p) {
    size_t n = p->info.arena_bytes;
    int32_t *owner = malloc((n + 1) * sizeof *owner); /* root value that a byte holds */
    int32_t *value = malloc(p->n_tensors * sizeof *value);
    for (size_t i = 0; i < n; i++) owner[i] = -1;
    for (size_t i = 0; i < p->n_tensors; i++) value[i] = -1;
    for (size_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        for (int j = 0; j < TL_OP_INS + TL_OP_OUTS; j++) {
            bool in = j < TL_OP_INS;
            int32_t t = in ? s->in[j] : s->out[j - TL_OP_INS];
            if (t < 0 || !p->storages[p->tensors[t].storage].arena) continue;
            const plan_tensor *x = &p->tensors[t];
            const plan_storage *m = &p->storages[x->storage];
            assert_true(m->offset + m->bytes <= n);
            assert_true(x->offset + view_extent(&x->d) <= m->bytes);
            for (int64_t r = 0; r < tl_desc_rows(&x->d); r++) {
                size_t at = m->offset + x->offset + view_bytes(x->d.dtype, tl_desc_row(&x->d, r));
                for (size_t b = 0; b < view_bytes(x->d.dtype, tl_desc_last(&x->d)); b++) {
                    if (in && m->last != PLAN_FOREVER) assert_int_equal(owner[at + b], x->storage);
                    if (!in) owner[at + b] = x->storage;
                }
            }
        }
        if (s->exec.scratch) {
            assert_true(s->scratch_at + s->exec.scratch <= n);
            for (size_t b = 0; b < s->exec.scratch; b++) owner[s->scratch_at + b] = -2;
            for (int j = 0; j < TL_OP_INS + TL_OP_OUTS; j++) { /* scratch lies beside the step's own arguments */
                int32_t t = j < TL_OP_INS ? s->in[j] : s->out[j - TL_OP_INS];
                if (t < 0 || !p->storages[p->tensors[t].storage].arena) continue;
                const plan_storage *m = &p->storages[p->tensors[t].storage];
                assert_true(m->offset + m->bytes <= s->scratch_at || s->scratch_at + s->exec.scratch <= m->offset);
            }
        }
    }
    free(owner), free(value);
}

/* ---- a graph, run by its plan and plainly, twice ----------------------------------------------------------------- */

static void check_plan(tl_graph *g, test_host *h) {
    tl_error err;
    tl_plan *p, *dry;
    test_alloc *a = h->host.alloc->user;
    assert_ok(tl_plan_create(g, true, &dry, &err), &err);
    assert_ok(tl_plan_create(g, false, &p, &err), &err);
    tl_plan_info info, told;
    tl_plan_info_get(p, &info);
    tl_plan_info_get(dry, &told);
    assert_int_equal(info.arena_bytes, told.arena_bytes);
    assert_int_equal(p->base_bytes, info.arena_bytes);
    assert_int_equal(info.steps, told.steps);
    assert_true(info.cost.flops == told.cost.flops && info.cost.bytes_read == told.cost.bytes_read);
    assert_int_equal(tl_plan_run(dry), TL_STATE);
    tl_plan_destroy(dry);
    check_owners(p);
    test_memory m = {.n = 0};
    test_bind_all(g, p, &m);
    plain v;
    plain_run(&v, g, &m);
    long calls = a->calls;
    if (info.arena_bytes) memset(p->base, 0xff, info.arena_bytes);
    for (size_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->kind == TENSOR_ONE && p->tensors[i].storage >= 0)
            *(float *)p->storages[p->tensors[i].storage].data = 1;
    assert_int_equal(tl_plan_run(p), TL_OK);
    assert_int_equal(a->calls, calls);
    for (size_t i = 0; i < g->n_tensors; i++) {
        const tl_tensor *t = g->tensors[i];
        if (t->kind == TENSOR_NODE && !t->output) continue;
        const void *got = t->kind == TENSOR_NODE ? tl_plan_data(p, t) : test_data_of(&m, t);
        size_t bytes;
        tensor_bytes(&t->d, &bytes);
        if (!got || !v.data[i]) continue;
        const tl_tensor *bound = t->node && t->node->acc[t->out] ? graph_external(t) : NULL;
        if (memcmp(got, v.data[bound ? (size_t)bound->index : i], bytes) != 0)
            print_message("tensor %zu, %s\n", i, tl_tensor_name(t));
        assert_memory_equal(got, v.data[bound ? (size_t)bound->index : i], bytes);
    }
    plain_free(&v);
    tl_plan_destroy(p);
    test_memory_free(&m);
}

typedef struct fixture {
    test_alloc a;
    test_host h;
    tl_engine *e;
    tl_graph *g;
} fixture;

static void fixture_init(fixture *f) {
    test_alloc_init(&f->a);
    f->e = test_host_init(&f->h, &f->a.base);
    assert_int_equal(tl_graph_create(f->e, &f->g), TL_OK);
}

static void fixture_fini(fixture *f) {
    tl_graph_destroy(f->g);
    test_host_fini(&f->h);
    test_alloc_done(&f->a);
}

/* ---- by hand: each way a result could destroy what is still needed --------------------------------------------------
 */

static void adversaries(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    tl_graph *g = f.g;
    tl_tensor *x = tl_input(g, "x", TL_F32, DIMS(4, 6)), *w = tl_const(g, "w", TL_F32, DIMS(6, 6));
    tl_tensor *a = tl_act(g, x, TL_ACT_TANH);       /* x is the caller's: not in place */
    tl_tensor *b = tl_act(g, a, TL_ACT_SILU);       /* a is read below: not in place */
    tl_tensor *c = tl_linear_add(g, a, b, w, NULL); /* a is read below: a copy */
    tl_tensor *d = tl_linear_add(g, c, c, w, NULL); /* into what it reads: a copy */
    tl_tensor *e = tl_linear_add(g, x, d, w, NULL); /* into the caller's input: a copy */
    tl_tensor *part[3];
    tl_split(g, e, 3, (int64_t[]){2, 1, 3}, part);
    tl_tensor *p0 = tl_act(g, part[0], TL_ACT_GELU); /* in place: a window beside two that are read later */
    tl_tensor *p2 = tl_scale(g, tl_reshape(g, part[2], DIMS(2, 2, 3)), 2);
    tl_tensor *flat = tl_reshape(g, part[2], DIMS(12)); /* no window can be flat: a copy */
    tl_tensor *p1 = tl_add(g, part[1], part[1]);
    tl_tensor *y = tl_concat(g, (tl_tensor *[]){p0, p1, tl_reshape(g, p2, DIMS(4, 3))}, 3);
    tl_tensor *again = tl_concat(g, (tl_tensor *[]){p1, p1, p0, y}, 4); /* parts used twice: must run */
    tl_tensor *z = tl_add(g, tl_mul(g, y, a), tl_act(g, y, TL_ACT_RELU));
    tl_output(g, z, "z"), tl_output(g, c, "c"), tl_output(g, flat, "flat"), tl_output(g, part[1], "middle");
    tl_output(g, again, "again"), tl_output(g, tl_reshape(g, z, DIMS(24)), "zflat");
    tl_output(g, tl_act(g, z, TL_ACT_SILU), "after"); /* z is an output: not in place */
    check_plan(g, &f.h);
    fixture_fini(&f);
}

static size_t steps_of(const tl_plan *p, const char *op) {
    size_t n = 0;
    tl_step_info info;
    for (size_t i = 0; i < tl_plan_steps(p); i++) {
        tl_plan_step(p, i, &info);
        n += !strcmp(info.op, op);
    }
    return n;
}

/* Parts that are written by operators of their own become windows of the whole, through reshapes, forward and
 * backward; rope and glu after a split work in place. */
static void concatenations_vanish(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    tl_graph *g = f.g;
    enum { T = 5, H = 2, DH = 4, D = H * DH };
    tl_tensor *x = tl_input(g, "x", TL_F32, DIMS(1, T, D)), *w = tl_param(g, "w", TL_F32, DIMS(3 * D, D));
    tl_tensor *table = tl_input(g, "table", TL_F32, DIMS(1, T, DH)), *qkv[3];
    tl_split(g, tl_linear(g, x, w, NULL, TL_NONE), 3, (int64_t[]){D, D, D}, qkv);
    for (int i = 0; i < 3; i++) qkv[i] = tl_reshape(g, qkv[i], DIMS(1, T, H, DH));
    tl_tensor *o = tl_attention(g, tl_rope(g, qkv[0], table, false), tl_rope(g, qkv[1], table, false), qkv[2],
                                &(tl_attention_options){.causal = true}, NULL);
    tl_tensor *loss = tl_reduce(g, tl_mul(g, o, o), 0, false);
    tl_output(g, loss, "loss");
    tl_graph_backward(g, loss, NULL, 0, NULL, false);
    tl_plan *p;
    tl_error err;
    assert_ok(tl_plan_create(g, true, &p, &err), &err);
    assert_int_equal(steps_of(p, "concat"), 0);
    assert_int_equal(steps_of(p, "cast"), 0);
    assert_int_equal(steps_of(p, "rope"), 4);
    assert_int_equal(steps_of(p, "split"), 0);
    for (size_t i = 0; i < p->n_steps; i++) /* forward rope: in place, in a window of qkv */
        if (p->steps[i].op == OP_DEF(rope) && !p->steps[i].backward) {
            const plan_tensor *in = &p->tensors[p->steps[i].in[0]], *out = &p->tensors[p->steps[i].out[0]];
            assert_int_equal(in->storage, out->storage);
            assert_int_equal(in->offset, out->offset);
            assert_int_equal(out->d.stride[1], 3 * D);
        }
    tl_plan_destroy(p);
    check_plan(g, &f.h);
    fixture_fini(&f);
}

/* A chain of elementwise operators needs one buffer. */
static void chains_are_in_place(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    tl_tensor *x = tl_input(f.g, "x", TL_F32, DIMS(100, 16));
    for (int i = 0; i < 10; i++) x = i & 1 ? tl_scale(f.g, x, 0.5f) : tl_act(f.g, x, TL_ACT_TANH);
    tl_output(f.g, x, "y");
    tl_plan *p;
    tl_error err;
    assert_ok(tl_plan_create(f.g, true, &p, &err), &err);
    tl_plan_info info;
    tl_plan_info_get(p, &info);
    assert_int_equal(info.arena_bytes, 100 * 16 * 4);
    assert_int_equal(info.bound_bytes, 100 * 16 * 4);
    tl_plan_destroy(p);
    check_plan(f.g, &f.h);
    fixture_fini(&f);
}

static void dead_code_goes(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    tl_tensor *x = tl_input(f.g, "x", TL_F32, DIMS(4, 4)), *unused = tl_input(f.g, "unused", TL_F32, DIMS(4, 4));
    tl_output(f.g, tl_act(f.g, x, TL_ACT_RELU), "y");
    tl_act(f.g, tl_add(f.g, x, unused), TL_ACT_TANH);
    tl_plan *p;
    tl_error err;
    assert_ok(tl_plan_create(f.g, false, &p, &err), &err);
    assert_int_equal(tl_plan_steps(p), 1);
    float a[16] = {-1, 2};
    assert_int_equal(tl_plan_run(p), TL_STATE); /* x is not bound */
    assert_int_equal(tl_plan_bind(p, unused, a), TL_OK);
    assert_int_equal(tl_plan_bind(p, x, (char *)a + 1), TL_ARG);
    assert_int_equal(tl_plan_bind(p, x, a), TL_OK);
    assert_int_equal(tl_plan_run(p), TL_OK);
    tl_plan_destroy(p);
    fixture_fini(&f);
}

/* Caches and optimizer state are written where they lie; outputs go where the caller wants them. */
static void bound_memory(void **state) {
    (void)state;
    fixture f;
    fixture_init(&f);
    tl_graph *g = f.g;
    tl_tensor *x = tl_input(g, "x", TL_F32, DIMS(2, 1, 4)), *slot = tl_input(g, "slot", TL_I32, DIMS(2)),
              *pos = tl_input(g, "pos", TL_I32, DIMS(2));
    tl_tensor *cache = tl_input(g, "cache", TL_F32, DIMS(2, 3, 1, 4));
    tl_tensor *k = tl_kv_write(g, x, slot, pos, cache);
    tl_tensor *o = tl_attention_kv(g, x, k, cache, slot, pos, NULL);
    tl_output(g, o, "o");
    tl_plan *p;
    tl_error err;
    assert_ok(tl_plan_create(g, false, &p, &err), &err);
    assert_int_equal(tl_plan_steps(p), 2);
    float xs[8] = {1, 2, 3, 4, 5, 6, 7, 8}, c[24] = {0}, to[8] = {0};
    int32_t slots[2] = {1, 0}, at[2] = {0, 0};
    tl_plan_bind(p, x, xs), tl_plan_bind(p, slot, slots), tl_plan_bind(p, pos, at), tl_plan_bind(p, cache, c);
    assert_int_equal(tl_plan_run(p), TL_OK);
    assert_memory_equal(tl_plan_data(p, o), xs, sizeof xs); /* each row sees only itself */
    assert_memory_equal(c + 12, xs, 16);
    assert_memory_equal(c, xs + 4, 16);
    assert_int_equal(tl_plan_bind(p, o, to), TL_OK);
    assert_int_equal(tl_plan_run(p), TL_OK);
    assert_ptr_equal(tl_plan_data(p, o), to);
    assert_memory_equal(to, xs, sizeof xs);
    assert_int_equal(tl_plan_bind(p, k, to), TL_ARG);
    tl_tensor *late = tl_input(g, "late", TL_F32, DIMS(1));
    assert_int_equal(tl_plan_bind(p, late, to), TL_ARG);
    tl_graph_destroy(g); /* tensors stay valid keys while a plan lives */
    assert_int_equal(tl_plan_bind(p, x, xs), TL_OK);
    assert_int_equal(tl_plan_run(p), TL_OK);
    tl_plan_destroy(p);
    test_host_fini(&f.h);
    test_alloc_done(&f.a);
}

/* ---- at random -------------------------------------------------------------------------------------------------- */

static uint64_t dice_state;
static int dice(int n) {
    dice_state = dice_state * 6364136223846793005u + 1442695040888963407u;
    return (int)((dice_state >> 33) % (uint64_t)n);
}

/* All tensors are (R, D) with D one of two widths. */
static void random_graph(tl_graph *g, bool backward) {
    enum { R = 3, MOST = 40 };
    tl_tensor *t[MOST + 8];
    int n = 0, params = 0;
    char name[16];
    t[n++] = tl_input(g, "a", TL_F32, DIMS(R, 4));
    t[n++] = tl_input(g, "b", TL_F32, DIMS(R, 8));
    tl_tensor *w[2][2];
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            snprintf(name, sizeof name, "w%d", params++);
            w[i][j] = tl_param(g, name, TL_F32, DIMS(4 + 4 * i, 4 + 4 * j));
        }
    while (n < 30) {
        tl_tensor *x = t[dice(n)], *y = t[dice(n)], *part[2];
        int64_t wide = tl_desc_last(&x->d);
        bool same = tl_desc_same_shape(&x->d, &y->d);
        switch (dice(9)) {
        case 0: t[n++] = tl_act(g, x, TL_ACT_TANH); break;
        case 1: t[n++] = same ? tl_add(g, x, y) : tl_scale(g, x, 0.5f); break;
        case 2: t[n++] = same ? tl_mul(g, x, y) : tl_softmax(g, x); break;
        case 3: t[n++] = tl_linear(g, x, w[dice(2)][wide == 8], NULL, TL_NONE); break;
        case 4: t[n++] = tl_linear_add(g, x, y, w[wide == 8][tl_desc_last(&y->d) == 8], NULL); break;
        case 5:
            if (wide == 8) {
                tl_split(g, x, 2, (int64_t[]){4, 4}, part);
                t[n++] = part[0], t[n++] = part[1];
            }
            break;
        case 6:
            if (wide == 4 && same) t[n++] = tl_concat(g, (tl_tensor *[]){x, y}, 2);
            break;
        case 7: t[n++] = tl_reshape(g, tl_scale(g, tl_reshape(g, x, DIMS(R, 2, wide / 2)), 2), DIMS(R, wide)); break;
        default: t[n++] = tl_reshape(g, tl_act(g, tl_reshape(g, x, DIMS(R * wide)), TL_ACT_SILU), DIMS(R, wide)); break;
        }
    }
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "o%d", i);
        tl_output(g, t[n - 1 - 3 * i], name);
    }
    if (!backward) return;
    tl_tensor *d[2], *loss = tl_reduce(g, tl_mul(g, t[n - 1], t[n - 1]), 0, false);
    tl_graph_backward(g, loss, t, 2, d, false);
    if (d[0]) tl_output(g, d[0], "da");
    if (d[1]) tl_output(g, d[1], "db");
}

static void random_graphs(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 600; seed++) {
        fixture f;
        fixture_init(&f);
        dice_state = seed;
        random_graph(f.g, seed & 1);
        tl_error err;
        assert_ok(tl_graph_status(f.g, &err), &err);
        check_plan(f.g, &f.h);
        fixture_fini(&f);
    }
}

/* ---- placement ----------------------------------------------------------------------------------------------------
 */

static void placement(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        dice_state = seed;
        place_item it[60];
        size_t total, least = 0;
        for (int i = 0; i < 60; i++) {
            int first = dice(40);
            it[i] = (place_item){.bytes = (size_t)(1 + dice(1000)), .first = first, .last = first + dice(8)};
        }
        assert_int_equal(place_items(&mem_default, it, 60, &total), TL_OK);
        for (int s = 0; s < 48; s++) {
            size_t sum = 0;
            for (int i = 0; i < 60; i++)
                if (it[i].first <= s && s <= it[i].last) sum += it[i].bytes;
            least = sum > least ? sum : least;
        }
        assert_true(total >= least && (double)total <= 1.25 * (double)least);
        size_t top = 0;
        for (int i = 0; i < 60; i++) {
            assert_int_equal(it[i].offset % PLACE_ALIGN, 0);
            top = it[i].offset + it[i].bytes > top ? it[i].offset + it[i].bytes : top;
            for (int j = 0; j < i; j++)
                if (it[i].first <= it[j].last && it[j].first <= it[i].last)
                    assert_true(it[i].offset + it[i].bytes <= it[j].offset ||
                                it[j].offset + it[j].bytes <= it[i].offset);
        }
        assert_int_equal(top, total);
    }
}

static void windows(void **state) {
    (void)state;
    tl_desc x = tl_desc_make(TL_F32, 3, (int64_t[]){2, 3, 8}), y, half = tensor_window(&x, 4);
    assert_true(tensor_reshape(&half, 4, (int64_t[]){2, 3, 2, 2}, &y));
    assert_int_equal(y.stride[1], 8);
    assert_int_equal(y.stride[2], 2);
    assert_true(tensor_reshape(&half, 2, (int64_t[]){6, 4}, &y));
    assert_int_equal(y.stride[0], 8);
    assert_false(tensor_reshape(&half, 2, (int64_t[]){3, 8}, &y));
    tl_desc column = tensor_window(&x, 1);
    assert_true(tensor_reshape(&column, 3, (int64_t[]){6, 1, 1}, &y));
    assert_int_equal(y.stride[0], 8);
    assert_false(tensor_reshape(&column, 1, (int64_t[]){6}, &y)); /* its last dimension would have a stride */
    assert_false(view_overlap(0, &half, 16, &half));
    assert_true(view_overlap(0, &half, 12, &half));
    assert_true(view_overlap(0, &x, 16, &half));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows),
        cmocka_unit_test(placement),
        cmocka_unit_test(adversaries),
        cmocka_unit_test(concatenations_vanish),
        cmocka_unit_test(chains_are_in_place),
        cmocka_unit_test(dead_code_goes),
        cmocka_unit_test(bound_memory),
        cmocka_unit_test(random_graphs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
