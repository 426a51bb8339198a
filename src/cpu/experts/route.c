/* route, route_bwd, expert_sum, expert_sum_bwd: by tokens. */
#include "cpu/experts/experts.h"
#include "cpu/product/linear.h"
#include "cpu/row/launch.h"

#include <string.h>

enum { TOKENS = 64 };

static bool route_plain(const tl_arg *a) {
    return a->d.dtype == TL_NONE || (a->d.dtype == TL_I32 && tl_desc_contiguous(&a->d));
}
static bool route_negative(const tl_arg *mask, int64_t n) {
    return mask->data && ((const int32_t *)mask->data)[n] < 0;
}

#define PREPARE(name)                                                                                                  \
    const char *experts_##name##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,        \
                                         kernel_exec *x)
#define RUN(name) void experts_##name##_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker)

/* ---- route ------------------------------------------------------------------------------------------------------- */

static int64_t route_sums(const tl_op_call *c) { /* how many of mass and load are wanted */
    return row_has(&c->out[2]) + row_has(&c->out[3]);
}

PREPARE(route) {
    (void)threads, (void)dry, (void)alloc;
    int64_t rows = tl_desc_rows(&c->in[0].d), E = tl_desc_last(&c->in[0].d);
    if (c->in[0].d.dtype != TL_F32) return "not f32";
    if (!route_plain(&c->in[1]) || !route_plain(&c->in[2])) return "masks not contiguous i32";
    if (rows < 1) return "nothing to do";
    x->phases = route_sums(c) ? 2 : 1;
    x->tiles[0] = row_parts(rows, TOKENS);
    x->tiles[1] = 1;
    x->scratch = sizeof(float) * (size_t)(2 * E * x->tiles[0]);
    return NULL;
}

/* One token: ids and weights. */
static void route_token(const kernel_task *t, const float *p, float *w, int32_t *id, bool idle, bool add) {
    const struct route_attr *a = ATTR(t->call, route);
    int64_t E = tl_desc_last(&t->call->in[0].d);
    if (!idle) ((experts_choose *)t->exec->leaf)(p, E, a->k, id);
    float sum = 0;
    for (int64_t j = 0; !idle && a->norm && j < a->k; j++) sum += p[id[j]];
    for (int64_t j = 0; j < a->k; j++) {
        float v = idle ? 0 : a->norm ? p[id[j]] / sum : p[id[j]];
        if (w) w[j] = add ? w[j] + v : v;
        if (idle) id[j] = -1;
    }
}

RUN(route) {
    (void)worker;
    const tl_op_call *c = t->call;
    const int64_t rows = tl_desc_rows(&c->in[0].d), E = tl_desc_last(&c->in[0].d), k = ATTR(c, route)->k;
    float *parts = t->scratch;
    if (phase == 1) {
        for (int s = 0; s < 2 && lo < hi; s++)
            if (row_has(&c->out[2 + s]))
                row_gather(parts + s * E, row_parts(rows, TOKENS), 2 * E, 0, E, c->out[2 + s].data,
                           c->acc >> (2 + s) & 1);
        return;
    }
    const row_view p = row_view_of(&c->in[0]), w = row_view_of(&c->out[0]), id = row_view_of(&c->out[1]);
    for (int64_t tile = lo; tile < hi; tile++) {
        float *mass = parts + tile * 2 * E, *load = mass + E;
        memset(mass, 0, (size_t)(2 * E) * sizeof *mass);
        for (int64_t n = tile * TOKENS; n < row_least((tile + 1) * TOKENS, rows); n++) {
            int32_t own[EXPERTS_MOST], *ids = id.data ? row_view_at(&id, n) : own;
            const float *row = row_view_at(&p, n);
            bool idle = route_negative(&c->in[1], n);
            route_token(t, row, w.data ? row_view_at(&w, n) : NULL, ids, idle, c->acc & 1);
            if (idle || route_negative(&c->in[2], n) || !route_sums(c)) continue;
            for (int64_t e = 0; e < E; e++) mass[e] += row[e];
            for (int64_t j = 0; j < k; j++) load[ids[j]] += 1;
        }
    }
}

PREPARE(route_bwd) {
    (void)threads, (void)dry, (void)alloc;
    if (c->in[0].d.dtype != TL_F32) return "not f32";
    if (!route_plain(&c->in[4])) return "a mask not contiguous i32";
    if (tl_desc_rows(&c->in[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = row_parts(tl_desc_rows(&c->in[0].d), TOKENS);
    return NULL;
}

RUN(route_bwd) {
    (void)phase, (void)worker;
    const tl_op_call *c = t->call;
    const int64_t rows = tl_desc_rows(&c->in[0].d), E = tl_desc_last(&c->in[0].d);
    const row_view p = row_view_of(&c->in[0]), id = row_view_of(&c->in[1]), dw = row_view_of(&c->in[2]),
                   dp = row_view_of(&c->out[0]);
    const float *dmass = c->in[3].data;
    const struct route_attr *a = &ATTR(c, route_bwd)->f;
    for (int64_t n = lo * TOKENS; n < row_least(hi * TOKENS, rows); n++) {
        float *to = row_view_at(&dp, n);
        const int32_t *ids = row_view_at(&id, n);
        bool idle = ids[0] < 0, counted = dmass && !idle && !route_negative(&c->in[4], n);
        if (!(c->acc & 1)) memset(to, 0, (size_t)E * sizeof *to);
        for (int64_t e = 0; counted && e < E; e++) to[e] += dmass[e];
        if (dw.data && !idle)
            ((experts_unchoose *)t->exec->leaf)(row_view_at(&p, n), ids, row_view_at(&dw, n), a->k, a->norm, to);
    }
}

/* ---- expert_sum -------------------------------------------------------------------------------------------------- */

PREPARE(sum) {
    (void)threads, (void)dry, (void)alloc;
    if (gemm_type(c->in[0].d.dtype) < 0 || c->in[1].d.dtype != TL_F32) return "not f32, bf16 or f16";
    if (tl_desc_last(&c->in[1].d) > EXPERTS_MOST) return "more experts to a token than a tile holds";
    if (tl_desc_count(&c->out[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = row_parts(tl_desc_rows(&c->in[1].d), TOKENS);
    return NULL;
}

/* Entries of token n: rows of x and, backward, of dx. */
static void sum_entries(experts_sum_job *j, const row_view *x, const row_view *dx, const int32_t *place, const float *w,
                        int64_t P) {
    for (int64_t k = 0; k < j->n; k++) {
        bool has = place[k] >= 0 && place[k] < P;
        j->x[k] = has ? row_view_at(x, place[k]) : NULL;
        j->dx[k] = has && dx && dx->data ? row_view_at(dx, place[k]) : NULL;
        j->w[k] = w[k];
    }
}

RUN(sum) {
    (void)phase, (void)worker;
    const tl_op_call *c = t->call;
    const row_view x = row_view_of(&c->in[0]), w = row_view_of(&c->in[1]), place = row_view_of(&c->in[2]),
                   y = row_view_of(&c->out[0]);
    experts_sum_job j = {
        .n = tl_desc_last(&c->in[1].d), .d = c->in[0].d.dim[1], .type = gemm_type(c->in[0].d.dtype), .add = c->acc & 1};
    for (int64_t n = lo * TOKENS; n < row_least(hi * TOKENS, tl_desc_rows(&c->in[1].d)); n++) {
        sum_entries(&j, &x, NULL, row_view_at(&place, n), row_view_at(&w, n), c->in[0].d.dim[0]);
        j.y = row_view_at(&y, n);
        ((experts_sum_leaf *)t->exec->leaf)(&j);
    }
}

PREPARE(sum_bwd) {
    (void)threads, (void)dry, (void)alloc;
    if (gemm_type(c->in[0].d.dtype) < 0 || gemm_type(c->in[1].d.dtype) < 0 || c->in[2].d.dtype != TL_F32)
        return "not f32, bf16 or f16";
    if (tl_desc_last(&c->in[2].d) > EXPERTS_MOST) return "more experts to a token than a tile holds";
    if (tl_desc_count(&c->in[1].d) < 1) return "nothing to do";
    x->phases = 2;
    x->tiles[0] = row_parts(tl_desc_rows(&c->in[2].d), TOKENS);
    x->tiles[1] = row_has(&c->out[0]); /* rows that no entry has */
    return NULL;
}

RUN(sum_bwd) {
    (void)worker;
    const tl_op_call *c = t->call;
    const row_view dy = row_view_of(&c->in[0]), x = row_view_of(&c->in[1]), w = row_view_of(&c->in[2]),
                   place = row_view_of(&c->in[3]), dx = row_view_of(&c->out[0]), dw = row_view_of(&c->out[1]);
    experts_sum_job j = {.n = tl_desc_last(&c->in[2].d),
                         .d = c->in[1].d.dim[1],
                         .type = gemm_type(c->in[1].d.dtype),
                         .dy_type = gemm_type(c->in[0].d.dtype),
                         .wants_dw = dw.data != NULL};
    const int64_t rows = tl_desc_rows(&c->in[2].d), P = c->in[1].d.dim[0];
    if (phase == 1) {
        int64_t used = 0;
        for (int64_t n = 0; lo < hi && n < rows; n++)
            for (int64_t k = 0; k < j.n; k++) used += ((const int32_t *)row_view_at(&place, n))[k] >= 0;
        for (; lo < hi && used < P; used++) memset(row_view_at(&dx, used), 0, (size_t)(j.d * dx.size));
        return;
    }
    for (int64_t n = lo * TOKENS; n < row_least(hi * TOKENS, rows); n++) {
        sum_entries(&j, &x, &dx, row_view_at(&place, n), row_view_at(&w, n), P);
        j.dy = row_view_at(&dy, n);
        ((experts_sum_leaf *)t->exec->leaf)(&j);
        if (dw.data) memcpy(row_view_at(&dw, n), j.dw, (size_t)j.n * sizeof *j.dw);
    }
}
