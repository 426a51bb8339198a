/* In whose memory each tensor lies. Order of execution is order of construction, so one pass forward decides: views are
 * windows of what they view, sums lie in what they add to, elementwise results take over an argument that nobody reads
 * again, parts of a concatenation are written where the whole will be. Where that would change a value that is still to
 * be read, or memory of the caller, a copy is put before. */
#include "graph/plan.h"

#include <string.h>

/* Written once: the tensor's place in a storage, and at once the places of its views. */
static tl_status layout_put(plan_layout *l, int32_t t, int32_t storage, size_t offset, const tl_desc *d);

static tl_status layout_storage(plan_layout *l, size_t bytes, int32_t *out) {
    if (!mem_reserve(l->alloc, &l->storages, &l->cap_storages, l->n_storages + 1)) return TL_NOMEM;
    l->storages[l->n_storages] =
        (plan_storage){.bytes = bytes, .bound = -1, .arena = true, .first = -1, .last = -1, .member = -1};
    *out = (int32_t)l->n_storages++;
    return TL_OK;
}

/* A tensor of the planner's own. */
static tl_status layout_tensor(plan_layout *l, int32_t last, int32_t *out) {
    if (!mem_reserve(l->alloc, &l->tensors, &l->cap_tensors, l->n_tensors + 1)) return TL_NOMEM;
    l->tensors[l->n_tensors] = (plan_tensor){.storage = -1, .next = -1, .last = last, .used = true};
    *out = (int32_t)l->n_tensors++;
    return TL_OK;
}

/* t in memory of its own. */
static tl_status layout_fresh(plan_layout *l, int32_t t, const tl_desc *like) {
    tl_desc d = tl_desc_make(like->dtype, like->ndim, like->dim);
    size_t bytes;
    if (!tensor_bytes(&d, &bytes)) return TL_LIMIT;
    int32_t s;
    TRY(layout_storage(l, bytes, &s));
    if (t >= 0 && l->tensors[t].output) l->storages[s].bound = t;
    return layout_put(l, t, s, 0, &d);
}

/* Does t fill a storage of the arena by itself, so that the caller can bind that storage as t? */
static bool layout_whole(const plan_layout *l, int32_t storage, size_t offset, const tl_desc *d) {
    const plan_storage *s = &l->storages[storage];
    return s->arena && s->bound < 0 && offset == 0 && tl_desc_contiguous(d) && view_extent(d) == s->bytes;
}

/* ---- views --------------------------------------------------------------------------------------- */

static bool layout_window(const plan_tensor *x, const graph_node *v, int k, size_t *offset, tl_desc *d) {
    if (v->op == OP_DEF(split)) {
        const struct split_attr *a = v->attr;
        int64_t at = 0;
        for (int i = 0; i < k; i++) at += a->width[i];
        *d = tensor_window(&x->d, a->width[k]);
        *offset = x->offset + view_bytes(x->d.dtype, at);
        return true;
    }
    *offset = x->offset;
    return tensor_reshape(&x->d, v->d[k].ndim, v->d[k].dim, d);
}

static tl_status layout_view(plan_layout *l, int32_t x, const graph_node *v, int k) {
    int32_t u = v->out[k]->index, w;
    size_t offset;
    tl_desc d;
    bool fits = layout_window(&l->tensors[x], v, k, &offset, &d);
    int32_t storage = l->tensors[x].storage;
    if (fits && (!l->tensors[u].output || layout_whole(l, storage, offset, &d))) {
        if (l->tensors[u].output) l->storages[storage].bound = u;
        return layout_put(l, u, storage, offset, &d);
    }
    if (!fits) { /* copied when its turn comes: then x is read */
        if (l->tensors[x].last < v->index) l->tensors[x].last = v->index;
        l->pending[u] = 1 + x;
        return TL_OK;
    }
    TRY(layout_tensor(l, v->index, &w));
    l->pending[u] = 1 + w;
    return layout_put(l, w, storage, offset, &d);
}

static tl_status layout_put(plan_layout *l, int32_t t, int32_t storage, size_t offset, const tl_desc *d) {
    plan_tensor *x = &l->tensors[t];
    x->d = *d;
    x->offset = offset;
    x->storage = storage;
    x->next = l->storages[storage].member;
    l->storages[storage].member = t;
    if ((size_t)t >= l->g->n_tensors) return TL_OK;
    for (int32_t v = l->view_head[t]; v; v = l->view_next[v - 1]) {
        const graph_node *n = l->g->nodes[v - 1];
        for (int k = 0; k < TL_OP_OUTS; k++)
            if (n->out[k] && l->tensors[n->out[k]->index].used) TRY(layout_view(l, t, n, k));
    }
    return TL_OK;
}

/* ---- steps ---------------------------------------------------------------------------------------- */

static tl_status layout_step(plan_layout *l, const graph_node *n, plan_draft **out) {
    if (!mem_reserve(l->alloc, &l->steps, &l->cap_steps, l->n_steps + 1)) return TL_NOMEM;
    if (l->n_steps >= INT32_MAX) return TL_LIMIT;
    plan_draft *s = &l->steps[l->n_steps++];
    *s = (plan_draft){.node = n};
    for (int i = 0; i < TL_OP_INS; i++) s->in[i] = n && n->in[i] ? n->in[i]->index : -1;
    for (int k = 0; k < TL_OP_OUTS; k++) s->out[k] = -1;
    *out = s;
    return TL_OK;
}

static tl_status layout_copy(plan_layout *l, int32_t from, int32_t to) {
    plan_draft *s;
    TRY(layout_step(l, NULL, &s));
    s->in[0] = from;
    s->out[0] = to;
    return TL_OK;
}

/* The views of node v that could not be windows. */
static tl_status layout_pending(plan_layout *l, const graph_node *v) {
    for (int k = 0; k < TL_OP_OUTS; k++) {
        int32_t u = v->out[k] ? v->out[k]->index : -1, c;
        if (u < 0 || !l->pending[u]) continue;
        int32_t from = l->pending[u] - 1;
        if (tl_desc_same_shape(&l->tensors[from].d, &v->d[k])) {
            TRY(layout_fresh(l, u, &v->d[k]));
            TRY(layout_copy(l, from, u));
            continue;
        }
        TRY(layout_tensor(l, v->index, &c)); /* the old shape made contiguous, then seen under the new one */
        TRY(layout_fresh(l, c, &l->tensors[from].d));
        TRY(layout_copy(l, from, c));
        tl_desc d = tl_desc_make(v->d[k].dtype, v->d[k].ndim, v->d[k].dim);
        if (l->tensors[u].output) l->storages[l->tensors[c].storage].bound = u;
        TRY(layout_put(l, u, l->tensors[c].storage, 0, &d));
    }
    return TL_OK;
}

/* May node n write a result over x? Only in the arena, only if nobody reads x, or what shares bytes with it, at this
 * step by another argument or at a later one. */
static bool layout_free(const plan_layout *l, const graph_node *n, int32_t x) {
    const plan_tensor *t = &l->tensors[x];
    const plan_storage *s = &l->storages[t->storage];
    if (!s->arena || t->output || t->last > n->index) return false;
    int times = 0;
    for (int i = 0; i < TL_OP_INS; i++) times += n->in[i] && n->in[i]->index == x;
    for (int k = 0; k < TL_OP_OUTS; k++) times += n->acc[k] && n->acc[k]->index == x;
    if (times > 1) return false;
    for (int32_t u = s->member; u >= 0; u = l->tensors[u].next) {
        const plan_tensor *y = &l->tensors[u];
        if (u != x && y->last >= n->index && view_overlap(t->offset, &t->d, y->offset, &y->d)) return false;
    }
    return true;
}

/* Output u in the memory of x. */
static tl_status layout_take(plan_layout *l, int32_t u, int32_t x) {
    plan_tensor t = l->tensors[x];
    if (l->tensors[u].output) l->storages[t.storage].bound = u;
    return layout_put(l, u, t.storage, t.offset, &t.d);
}

/* An output has storage of its own; may it lie where x lies? */
static bool layout_output_fits(const plan_layout *l, int32_t u, int32_t x) {
    const plan_tensor *t = &l->tensors[x];
    return !l->tensors[u].output || layout_whole(l, t->storage, t->offset, &t->d);
}

static tl_status layout_acc(plan_layout *l, const graph_node *n, int k) {
    int32_t u = n->out[k]->index, x = n->acc[k]->index, c;
    if (graph_external(n->acc[k])) {
        if (l->storages[l->tensors[x].storage].arena) return TL_UNSUPPORTED; /* a view that had to be copied */
        return layout_put(l, u, l->tensors[x].storage, l->tensors[x].offset, &l->tensors[x].d);
    }
    bool written = false; /* by another output of the same node */
    for (int j = 0; j < k; j++) written |= n->acc[j] == n->acc[k];
    if (!written && layout_free(l, n, x) && layout_output_fits(l, u, x)) return layout_take(l, u, x);
    if (l->tensors[u].output) {
        TRY(layout_fresh(l, u, &n->d[k]));
        return layout_copy(l, x, u);
    }
    TRY(layout_tensor(l, n->index, &c));
    TRY(layout_fresh(l, c, &n->d[k]));
    TRY(layout_copy(l, x, c));
    return layout_take(l, u, c);
}

static tl_status layout_out(plan_layout *l, const graph_node *n, int k) {
    int32_t u = n->out[k]->index;
    if (l->tensors[u].storage >= 0) return TL_OK; /* a part of a concatenation */
    if (n->acc[k]) return layout_acc(l, n, k);
    if (k == 0 && (n->op->flags & TL_OP_INPLACE) && n->in[0]) {
        const tl_tensor *x = n->in[0];
        if (x->d.dtype == n->d[0].dtype && tl_desc_same_shape(&x->d, &n->d[0]) && layout_free(l, n, x->index) &&
            layout_output_fits(l, u, x->index))
            return layout_take(l, u, x->index);
    }
    return layout_fresh(l, u, &n->d[k]);
}

/* Is output k computed? The first one always, where it was made at all; others if somebody uses them or the caller's
 * memory changes by them. */
static bool layout_wanted(const plan_layout *l, const graph_node *n, int k) {
    if (!n->out[k]) return false;
    return l->tensors[n->out[k]->index].used || (k == 0 && !n->loose) || (n->acc[k] && graph_external(n->acc[k]));
}

static tl_status layout_node(plan_layout *l, const graph_node *n) {
    if (n->op->flags & TL_OP_VIEW) return layout_pending(l, n);
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (layout_wanted(l, n, k)) TRY(layout_out(l, n, k)); /* may put copies before */
    plan_draft *s;
    TRY(layout_step(l, n, &s));
    for (int k = 0; k < TL_OP_OUTS; k++) {
        if (!layout_wanted(l, n, k)) continue;
        s->out[k] = n->out[k]->index;
        if (n->acc[k]) s->acc |= 1u << k;
    }
    return TL_OK;
}

/* ---- concatenations ---------------------------------------------------------------------------------- */

/* The tensor that an operator must write so that x, a reshape of it or itself, lies as d says. -1: cannot be. */
static int32_t layout_part(const plan_layout *l, const tl_tensor *x, tl_desc *d) {
    for (;;) {
        const plan_tensor *t = &l->tensors[x->index];
        if (x->kind != TENSOR_NODE || t->output || t->storage >= 0) return -1;
        const graph_node *n = x->node;
        if (n->op == OP_DEF(reshape)) {
            tl_desc up, down;
            const tl_tensor *from = n->in[0];
            if (!tensor_reshape(d, from->d.ndim, from->d.dim, &up) ||
                !tensor_reshape(&up, x->d.ndim, x->d.dim, &down) ||
                memcmp(down.stride, d->stride, sizeof(int64_t) * (size_t)d->ndim) != 0)
                return -1;
            *d = up;
            x = from;
            continue;
        }
        bool plain = !(n->op->flags & TL_OP_VIEW) && !n->acc[x->out] && n->op != OP_DEF(concat);
        return plain ? x->index : -1;
    }
}

/* If every part is written by an operator of its own, the parts are windows of the whole and nothing is left to do. */
static tl_status layout_concat(plan_layout *l, const graph_node *n) {
    const tl_tensor *y = n->out[0];
    int32_t part[TL_OP_INS];
    tl_desc d[TL_OP_INS];
    size_t at[TL_OP_INS];
    int count = 0;
    int64_t column = 0;
    if (!y || n->acc[0] || l->tensors[y->index].storage >= 0) return TL_OK;
    for (; count < TL_OP_INS && n->in[count]; count++) {
        const tl_tensor *x = n->in[count];
        d[count] = tensor_window(&y->d, tl_desc_last(&x->d));
        at[count] = view_bytes(y->d.dtype, column);
        column += tl_desc_last(&x->d);
        part[count] = x->d.dtype == y->d.dtype && x->d.ndim == y->d.ndim ? layout_part(l, x, &d[count]) : -1;
        if (part[count] < 0) return TL_OK;
        for (int i = 0; i < count; i++)
            if (part[i] == part[count]) return TL_OK;
    }
    if (count == 0 || column != tl_desc_last(&y->d)) return TL_OK;
    TRY(layout_fresh(l, y->index, &y->d));
    int32_t s = l->tensors[y->index].storage;
    for (int i = 0; i < count; i++) TRY(layout_put(l, part[i], s, at[i], &d[i]));
    l->gone[n->index] = 1;
    return TL_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------- */

/* Results are outputs and what is written into the caller's memory; all they need is live, the rest is left out. */
static void layout_live(plan_layout *l) {
    for (size_t i = l->g->n_nodes; i-- > 0;) {
        const graph_node *n = l->g->nodes[i];
        bool live = false;
        for (int k = 0; k < TL_OP_OUTS; k++) {
            if (!n->out[k]) continue;
            plan_tensor *t = &l->tensors[n->out[k]->index];
            if (t->output) t->used = true;
            live |= t->used || (n->acc[k] && graph_external(n->acc[k]));
        }
        l->live[i] = live;
        for (int j = 0; live && j < TL_OP_INS; j++)
            if (n->in[j]) l->tensors[n->in[j]->index].used = true;
        for (int k = 0; live && k < TL_OP_OUTS; k++)
            if (n->acc[k]) l->tensors[n->acc[k]->index].used = true;
    }
}

static void layout_reads(plan_layout *l) {
    for (size_t i = 0; i < l->g->n_nodes; i++) {
        const graph_node *n = l->g->nodes[i];
        if (!l->live[i]) continue;
        if (n->op->flags & TL_OP_VIEW) {
            int32_t x = n->in[0]->index;
            l->view_next[i] = l->view_head[x];
            l->view_head[x] = 1 + (int32_t)i;
            continue;
        }
        for (int j = 0; j < TL_OP_INS; j++)
            if (n->in[j] && !l->tensors[n->in[j]->index].output) l->tensors[n->in[j]->index].last = (int32_t)i;
        for (int k = 0; k < TL_OP_OUTS; k++)
            if (n->acc[k] && !l->tensors[n->acc[k]->index].output) l->tensors[n->acc[k]->index].last = (int32_t)i;
    }
}

/* What the caller binds, and the constant one, which the plan writes once into its arena. */
static tl_status layout_bound(plan_layout *l) {
    for (size_t i = 0; i < l->g->n_tensors; i++) {
        const tl_tensor *t = l->g->tensors[i];
        if (t->kind == TENSOR_NODE || !l->tensors[i].used) continue;
        TRY(layout_fresh(l, (int32_t)i, &t->d));
        plan_storage *s = &l->storages[l->tensors[i].storage];
        if (t->kind == TENSOR_ONE) {
            s->first = 0;
            s->last = PLAN_FOREVER;
            l->tensors[i].last = PLAN_FOREVER;
        } else {
            s->arena = false;
            s->bound = (int32_t)i;
        }
    }
    return TL_OK;
}

static void layout_use(plan_layout *l, int32_t t, int32_t step) {
    if (t < 0) return;
    plan_storage *s = &l->storages[l->tensors[t].storage];
    if (s->first < 0) s->first = step;
    if (s->last < step) s->last = step;
    if (l->tensors[t].output) s->last = PLAN_FOREVER;
}

static void layout_lifetimes(plan_layout *l) {
    for (size_t i = 0; i < l->n_steps; i++) {
        for (int j = 0; j < TL_OP_INS; j++) layout_use(l, l->steps[i].in[j], (int32_t)i);
        for (int k = 0; k < TL_OP_OUTS; k++) layout_use(l, l->steps[i].out[k], (int32_t)i);
    }
    for (size_t i = 0; i < l->n_tensors; i++) /* an output that is a window of something keeps it */
        if (l->tensors[i].output && l->tensors[i].storage >= 0) l->storages[l->tensors[i].storage].last = PLAN_FOREVER;
}

static tl_status layout_run(plan_layout *l) {
    const tl_graph *g = l->g;
    layout_live(l);
    layout_reads(l);
    TRY(layout_bound(l));
    for (size_t i = 0; i < g->n_nodes; i++)
        if (l->live[i] && g->nodes[i]->op == OP_DEF(concat)) TRY(layout_concat(l, g->nodes[i]));
    for (size_t i = 0; i < g->n_nodes; i++)
        if (l->live[i] && !l->gone[i]) TRY(layout_node(l, g->nodes[i]));
    layout_lifetimes(l);
    return TL_OK;
}

tl_status layout_make(plan_layout *l, const tl_graph *g, tl_error *err) {
    *l = (plan_layout){.g = g, .alloc = g->host->alloc};
    arena_init(&l->tmp, l->alloc);
    size_t n = g->n_tensors ? g->n_tensors : 1, m = g->n_nodes ? g->n_nodes : 1;
    l->live = arena_new(&l->tmp, m, 1);
    l->gone = arena_new(&l->tmp, m, 1);
    l->view_next = arena_new(&l->tmp, m, sizeof *l->view_next);
    l->view_head = arena_new(&l->tmp, n, sizeof *l->view_head);
    l->pending = arena_new(&l->tmp, n, sizeof *l->pending);
    tl_status status = TL_NOMEM;
    if (l->live && l->gone && l->view_next && l->view_head && l->pending &&
        mem_reserve(l->alloc, &l->tensors, &l->cap_tensors, n)) {
        for (size_t i = 0; i < g->n_tensors; i++)
            l->tensors[i] = (plan_tensor){.t = g->tensors[i],
                                          .storage = -1,
                                          .next = -1,
                                          .output = g->tensors[i]->output,
                                          .last = g->tensors[i]->output ? PLAN_FOREVER : -1};
        l->n_tensors = g->n_tensors;
        status = layout_run(l);
    }
    if (status != TL_OK) error_set(err, status, "%s while planning", tl_status_text(status));
    return status;
}

void layout_fini(plan_layout *l) {
    mem_free(l->alloc, l->tensors);
    mem_free(l->alloc, l->storages);
    mem_free(l->alloc, l->steps);
    arena_fini(&l->tmp);
}
