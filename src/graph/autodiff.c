/* The backward walk. Each operator's gradient rule appends operators; what they compute is added up here, per tensor.
 *
 * The gradient of a parameter has memory of its own, to which every contribution is added in place. The gradient of any
 * other tensor is a partial sum: the first contribution is the sum, later ones are added by operators that can (acc),
 * or by `add`. Partial sums may be shared (the gradient of a + b is one tensor for both), so adding makes a new value;
 * the planner finds out where that can happen in place. */
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

struct tl_grad {
    tl_graph *g;
    graph_node *node;          /* the forward operator */
    graph_node *fwd;           /* whose tensors the gradient reads: node, or what runs it again */
    size_t n_nodes, n_tensors; /* of the forward graph; what is appended comes after */
    tl_tensor **sum;           /* (n_tensors) gradient so far */
    unsigned char *needs;      /* (n_tensors) is a gradient wanted? */
    graph_node **again;        /* (n_nodes) what runs a forward operator again, or NULL */
    unsigned char *run;        /* (n_nodes) of the block at hand: run again? */
    tl_recompute level;
    tl_tensor **map;       /* (n_tensors) the tensor computed again, or NULL */
    const tl_tensor *root; /* the loss, if that is what was asked for */
    tl_tensor one;         /* stands in sum for the gradient of the loss until somebody reads it */
};

static bool grad_ok(const tl_grad *c) {
    return c->g->err.code == TL_OK;
}

static const char *grad_op(const tl_grad *c) {
    return c->node ? c->node->op->name : "gradient";
}

/* ---- what rules may ask ---------------------------------------------------------------------------- */

const void *tl_grad_attr(const tl_grad *c) {
    return c->node->attr;
}

tl_tensor *tl_grad_in(const tl_grad *c, int i) {
    tl_tensor *t = i < 0 || i >= TL_OP_INS ? NULL : c->fwd->in[i];
    bool again = t && (size_t)t->index < c->n_tensors && c->map[t->index];
    return again ? c->map[t->index] : t;
}

tl_tensor *tl_grad_out(const tl_grad *c, int k) {
    return graph_node_out(c->g, c->fwd, k);
}

static tl_tensor *grad_sum(tl_grad *c, const tl_tensor *t) {
    if (!t || (size_t)t->index >= c->n_tensors) return NULL;
    if (c->sum[t->index] == &c->one) c->sum[t->index] = graph_tensor(c->g, TENSOR_ONE, &t->d, NULL);
    return c->sum[t->index];
}

tl_tensor *tl_grad_dy(const tl_grad *c, int k) {
    tl_grad *mine = (tl_grad *)(uintptr_t)c; /* the one is made when first asked for: most losses never do */
    return k < 0 || k >= TL_OP_OUTS ? NULL : grad_sum(mine, c->node->out[k]);
}

bool tl_grad_needs(const tl_grad *c, int i) {
    const tl_tensor *t = i < 0 || i >= TL_OP_INS ? NULL : c->node->in[i];
    return t && c->needs[t->index];
}

bool tl_grad_dy_is_one(const tl_grad *c, int k) {
    const tl_tensor *t = k < 0 || k >= TL_OP_OUTS ? NULL : c->node->out[k];
    return t && t == c->root && c->sum[t->index] == &c->one;
}

void tl_grad_refuse(tl_grad *c, const char *reason) {
    graph_fail_at(c->g, TL_UNSUPPORTED, grad_op(c), reason ? reason : "no gradient");
}

/* ---- sums ----------------------------------------------------------------------------------------- */

/* The memory of a parameter's gradient, made when first needed. */
static tl_tensor *grad_param(tl_graph *g, tl_tensor *p) {
    if (p->grad) return p->grad;
    tl_desc d = tl_desc_make(tensor_sum_dtype(p->d.dtype), p->d.ndim, p->d.dim);
    char name[200];
    snprintf(name, sizeof name, "%s.grad", tl_tensor_name(p));
    return p->grad = graph_tensor(g, TENSOR_GRAD, &d, name);
}

static tl_tensor *grad_append(tl_graph *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in,
                              tl_tensor *const *acc) {
    graph_node *n = graph_append(g, op, attr, in, n_in, acc, 1);
    return n ? n->out[0] : NULL;
}

static tl_tensor *grad_cast(tl_graph *g, tl_tensor *t, tl_dtype dtype, tl_tensor *into) {
    struct cast_attr a = {.dtype = dtype};
    tl_tensor *acc[TL_OP_OUTS] = {into};
    return grad_append(g, OP_DEF(cast), &a, &t, 1, acc);
}

/* t is one more contribution to the gradient of x. */
static void grad_contribute(tl_grad *c, tl_tensor *x, tl_tensor *t) {
    if (!grad_ok(c) || !t) return;
    if (!tl_desc_same_shape(&x->d, &t->d)) {
        graph_fail_at(c->g, TL_INTERNAL, grad_op(c), "the gradient has another shape than its tensor");
        return;
    }
    if (x->kind == TENSOR_PARAM) {
        tl_tensor *into = grad_param(c->g, x);
        if (into) grad_cast(c->g, t, into->d.dtype, into);
        return;
    }
    if (t->d.dtype != x->d.dtype) t = grad_cast(c->g, t, x->d.dtype, NULL);
    tl_tensor *before = grad_sum(c, x);
    if (before) {
        struct add_attr a = {0};
        t = grad_append(c->g, OP_DEF(add), &a, (tl_tensor *[]){before, t}, 2, NULL);
    }
    if (t) c->sum[x->index] = t;
}

/* What an operator's output k (of shape d) may add into for input x: the parameter's gradient, or the sum so far if
 * that lies in the plan's own memory. NULL: nothing. */
static tl_tensor *grad_target(tl_grad *c, const tl_op_def *op, int k, const tl_desc *d, tl_tensor *x) {
    if (!(op->acc >> k & 1u)) return NULL;
    tl_tensor *into = x->kind == TENSOR_PARAM ? grad_param(c->g, x) : grad_sum(c, x);
    if (!into || (x->kind != TENSOR_PARAM && graph_external(into))) return NULL;
    return into->d.dtype == d->dtype && tl_desc_same_shape(&into->d, d) ? into : NULL;
}

/* The result of output k, added into `into` or not, counts as gradient of x. */
static void grad_take(tl_grad *c, tl_tensor *x, tl_tensor *t, const tl_tensor *into) {
    if (!into)
        grad_contribute(c, x, t);
    else if (x->kind != TENSOR_PARAM)
        c->sum[x->index] = t;
}

void tl_grad_emit(tl_grad *c, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in, const int *to,
                  int n_out) {
    if (!grad_ok(c)) return;
    if (!op || n_in < 0 || n_in > op->n_in || n_out < 0 || n_out > op->n_out) {
        graph_fail_at(c->g, TL_INTERNAL, grad_op(c), "the gradient rule passes a wrong number of arguments");
        return;
    }
    _Alignas(16) unsigned char copy[TL_ATTR_MAX] = {0};
    if (attr && op->attr_size <= sizeof copy) memcpy(copy, attr, op->attr_size);
    const tl_desc *d[TL_OP_INS] = {NULL};
    tl_desc shape[TL_OP_OUTS] = {{0}};
    for (int i = 0; i < n_in; i++) d[i] = in[i] ? &in[i]->d : NULL;
    uint32_t want = 0;
    for (int k = 0; k < n_out; k++)
        if (to[k] >= 0 && tl_grad_needs(c, to[k])) want |= 1u << k;
    if (!want) return;
    if (graph_infer(op, copy, d, n_in, shape, &c->g->err) != TL_OK) return;

    tl_tensor *acc[TL_OP_OUTS] = {NULL}, *x[TL_OP_OUTS] = {NULL};
    for (int k = 0; k < n_out; k++) {
        if (!(want >> k & 1u)) continue;
        if (shape[k].dtype == TL_NONE) {
            graph_fail_at(c->g, TL_INTERNAL, grad_op(c), "the gradient rule counts on an output that is not there");
            return;
        }
        x[k] = c->node->in[to[k]];
        acc[k] = grad_target(c, op, k, &shape[k], x[k]);
        for (int j = 0; j < k; j++)
            if (x[j] == x[k]) acc[k] = NULL; /* one input twice: the second result cannot go where the first one goes */
    }
    graph_node *n = graph_append(c->g, op, attr, in, n_in, acc, want);
    if (n) n->loose = true;
    for (int k = 0; n && k < n_out; k++)
        if (want >> k & 1u) grad_take(c, x[k], n->out[k], acc[k]);
}

tl_tensor *tl_grad_temp(tl_grad *c, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in) {
    return grad_append(c->g, op, attr, in, n_in, NULL);
}

void tl_grad_pass(tl_grad *c, int i, tl_tensor *t) {
    if (tl_grad_needs(c, i)) grad_contribute(c, c->node->in[i], t);
}

void tl_grad_claim(tl_grad *c, int i, int k) {
    if (!grad_ok(c) || !tl_grad_needs(c, i)) return;
    graph_node *n = c->node;
    if (k <= 0 || k >= n->op->n_out || n->d[k].dtype == TL_NONE || c->fwd != n) {
        graph_fail_at(c->g, TL_INTERNAL, grad_op(c), "no such output to claim as a gradient");
        return;
    }
    tl_tensor *x = n->in[i], *into = NULL;
    if (n->acc[k]) {
        graph_fail_at(c->g, TL_STATE, grad_op(c), "the gradient of this loss was asked for already");
        return;
    }
    if (!n->out[k] && x->kind == TENSOR_PARAM) into = grad_target(c, n->op, k, &n->d[k], x);
    tl_tensor *t = graph_node_out(c->g, n, k);
    if (!t) return;
    n->acc[k] = into;
    grad_take(c, x, t, into);
}

/* ---- the walk -------------------------------------------------------------------------------------- */

static bool grad_wants_any(const tl_grad *c, const graph_node *n) {
    for (int i = 0; i < TL_OP_INS; i++)
        if (n->in[i] && c->needs[n->in[i]->index]) return true;
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (n->acc[k] && c->needs[n->acc[k]->index]) return true;
    return false;
}

/* Gradients are wanted of parameters, of wrt, and of everything computed from them. */
static void grad_mark(tl_grad *c, tl_tensor *const *wrt, int n_wrt) {
    for (size_t i = 0; i < c->n_tensors; i++) c->needs[i] = c->g->tensors[i]->kind == TENSOR_PARAM;
    for (int i = 0; i < n_wrt; i++)
        if (wrt[i]) c->needs[wrt[i]->index] = 1;
    for (size_t i = 0; i < c->n_nodes; i++) {
        const graph_node *n = c->g->nodes[i];
        if (!grad_wants_any(c, n)) continue;
        for (int k = 0; k < TL_OP_OUTS; k++)
            if (n->out[k] && tensor_is_float(n->out[k]->d.dtype)) c->needs[n->out[k]->index] = 1;
    }
}

static bool grad_reached(const tl_grad *c, const graph_node *n) {
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (n->out[k] && (size_t)n->out[k]->index < c->n_tensors && c->sum[n->out[k]->index]) return true;
    return false;
}

/* Appends operators of the block that ends with node `last` once more, in order: those that the level asks for. What
 * the gradients do not read of it, the planner removes. */
static void grad_run_again(tl_grad *c, size_t last) {
    int32_t block = c->g->nodes[last]->block;
    size_t first = last;
    while (first > 0 && c->g->nodes[first - 1]->block == block) first--;
    for (size_t i = first; i <= last; i++)
        for (int k = 0; k < TL_OP_OUTS; k++)
            if (c->root && c->g->nodes[i]->out[k] == c->root) return; /* its gradients come out of the forward pass */
    recompute_choose(c->g, first, last, c->level, c->run);
    for (size_t i = first; i <= last && grad_ok(c); i++) {
        const graph_node *n = c->g->nodes[i];
        if (!c->run[i - first]) continue;
        tl_tensor *in[TL_OP_INS], *acc[TL_OP_OUTS];
        uint32_t want = 0;
        for (int j = 0; j < TL_OP_INS; j++)
            in[j] = n->in[j] && c->map[n->in[j]->index] ? c->map[n->in[j]->index] : n->in[j];
        for (int k = 0; k < TL_OP_OUTS; k++) {
            acc[k] = n->acc[k] && c->map[n->acc[k]->index] ? c->map[n->acc[k]->index] : n->acc[k];
            if (acc[k] && graph_external(acc[k])) {
                graph_fail_at(c->g, TL_UNSUPPORTED, n->op->name,
                              "a block that writes bound memory cannot be run again");
                return;
            }
            if (n->out[k] && (size_t)n->out[k]->index < c->n_tensors) want |= 1u << k;
        }
        graph_node *clone = graph_append(c->g, n->op, n->attr, in, n->op->n_in, acc, want);
        if (!clone) return;
        c->again[i] = clone;
        for (int k = 0; k < TL_OP_OUTS; k++)
            if (want >> k & 1u) c->map[n->out[k]->index] = clone->out[k];
    }
}

static void grad_node(tl_grad *c, graph_node *n) {
    c->node = n;
    c->fwd = c->again[n->index] ? c->again[n->index] : n;
    bool inputs = false;
    for (int i = 0; i < TL_OP_INS; i++) inputs |= tl_grad_needs(c, i);
    if (inputs && ((n->op->flags & TL_OP_NOGRAD) || !n->op->grad)) {
        tl_grad_refuse(c, "this operator has no derivative");
        return;
    }
    if (inputs) n->op->grad(c);
    for (int k = 0; k < TL_OP_OUTS && grad_ok(c); k++) /* y = a + op(x): a gets y's gradient as it is */
        if (n->acc[k] && n->acc[k]->kind != TENSOR_GRAD && c->needs[n->acc[k]->index] && n->out[k])
            grad_contribute(c, n->acc[k], grad_sum(c, n->out[k]));
}

static void grad_walk(tl_grad *c) {
    int32_t done = -1;
    for (size_t i = c->n_nodes; i-- > 0 && grad_ok(c);) {
        graph_node *n = c->g->nodes[i];
        if (!grad_reached(c, n) || !grad_wants_any(c, n)) continue;
        if (c->level != TL_RECOMPUTE_NONE && n->block >= 0 && n->block != done) {
            size_t last = i;
            while (last + 1 < c->n_nodes && c->g->nodes[last + 1]->block == n->block) last++;
            grad_run_again(c, last);
            done = n->block;
        }
        if (grad_ok(c)) grad_node(c, n);
    }
    c->node = NULL;
}

/* What the caller gets: a value that can be an output, so no bare input or constant. */
static tl_tensor *grad_result(tl_grad *c, tl_tensor *x) {
    if (x->kind == TENSOR_PARAM) return x->grad;
    tl_tensor *t = grad_sum(c, x);
    return t && t->kind != TENSOR_NODE ? grad_cast(c->g, t, t->d.dtype, NULL) : t;
}

static bool grad_check(tl_graph *g, tl_tensor *const *ys, tl_tensor *const *dys, int n, tl_tensor *const *wrt,
                       int n_wrt) {
    const char *why = NULL;
    for (int i = 0; !why && i < n; i++) {
        if (!ys[i] || ys[i]->graph != g || !tensor_is_float(ys[i]->d.dtype))
            why = "no floating-point tensor of this graph to differentiate";
        else if ((!dys || !dys[i]) && tl_desc_count(&ys[i]->d) != 1)
            why = "the loss has more than one element";
        else if (dys && dys[i] &&
                 (dys[i]->graph != g || dys[i]->d.dtype != ys[i]->d.dtype ||
                  !tl_desc_same_shape(&dys[i]->d, &ys[i]->d)))
            why = "the gradient of a result must have its shape and dtype";
    }
    for (int i = 0; !why && i < n_wrt; i++)
        if (!wrt[i] || wrt[i]->graph != g || !tensor_is_float(wrt[i]->d.dtype))
            why = "a gradient is asked for with respect to what is no floating-point tensor of this graph";
    if (!why && g->block >= 0) why = "a block is still open: tl_block_end is missing";
    if (why) graph_fail_at(g, TL_ARG, "backward", why);
    return !why;
}

void autodiff_run(tl_graph *g, tl_tensor *const *ys, tl_tensor *const *dys, int n, tl_tensor *const *wrt, int n_wrt,
                  tl_tensor **dwrt, tl_recompute recompute) {
    for (int i = 0; dwrt && i < n_wrt; i++) dwrt[i] = NULL;
    if (!g || g->err.code != TL_OK || !grad_check(g, ys, dys, n, wrt, n_wrt)) return;
    arena tmp;
    arena_init(&tmp, g->host->alloc);
    tl_grad c = {.g = g,
                 .n_nodes = g->n_nodes,
                 .n_tensors = g->n_tensors,
                 .root = dys && dys[0] ? NULL : ys[0],
                 .level = recompute};
    c.sum = arena_new(&tmp, c.n_tensors, sizeof *c.sum);
    c.map = arena_new(&tmp, c.n_tensors, sizeof *c.map);
    c.needs = arena_new(&tmp, c.n_tensors, 1);
    c.again = arena_new(&tmp, c.n_nodes, sizeof(graph_node *));
    c.run = arena_new(&tmp, c.n_nodes, 1);
    if (!c.sum || !c.map || !c.needs || !c.again || !c.run) {
        graph_fail_at(g, TL_NOMEM, "backward", "no memory for the backward walk");
    } else {
        grad_mark(&c, wrt, n_wrt);
        g->backward = true;
        for (int i = 0; i < n; i++) {
            tl_tensor *dy = dys ? dys[i] : NULL;
            if (dy && c.sum[ys[i]->index])
                grad_contribute(&c, ys[i], dy);
            else
                c.sum[ys[i]->index] = dy ? dy : &c.one;
        }
        grad_walk(&c);
        for (int i = 0; dwrt && i < n_wrt && grad_ok(&c); i++) dwrt[i] = grad_result(&c, wrt[i]);
        g->backward = false;
    }
    arena_fini(&tmp);
}

void tl_graph_backward(tl_graph *g, tl_tensor *loss, tl_tensor *const *wrt, int n_wrt, tl_tensor **dwrt,
                       tl_recompute recompute) {
    tl_tensor *ys[2] = {loss, g ? g->more_loss : NULL};
    autodiff_run(g, ys, NULL, ys[1] ? 2 : 1, wrt, n_wrt, dwrt, recompute);
}

void tl_graph_add_loss(tl_graph *g, tl_tensor *t) {
    if (g && g->err.code == TL_OK) g->more_loss = t;
}

void tl_graph_vjp(tl_graph *g, tl_tensor *y, tl_tensor *dy, tl_tensor *const *wrt, int n_wrt, tl_tensor **dwrt) {
    autodiff_run(g, &y, &dy, 1, wrt, n_wrt, dwrt, TL_RECOMPUTE_NONE);
}

tl_tensor *tl_param_grad(const tl_graph *g, const tl_tensor *param) {
    return g && param && param->graph == g && param->kind == TENSOR_PARAM ? param->grad : NULL;
}
