#include "graph/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- life and errors --------------------------------------------------------------------------- */

tl_status tl_graph_create(tl_engine *e, tl_graph **out) {
    if (!out) return TL_ARG;
    *out = NULL;
    if (!e) return TL_ARG;
    graph_host *host = graph_host_of(e);
    tl_graph *g = mem_new(host->alloc, 1, sizeof *g);
    if (!g) return TL_NOMEM;
    g->host = host;
    g->refs = 1;
    g->block = -1;
    error_clear(&g->err);
    arena_init(&g->mem, host->alloc);
    *out = g;
    return TL_OK;
}

void graph_unref(tl_graph *g) {
    if (!g || --g->refs > 0) return;
    const tl_allocator *a = g->host->alloc;
    mem_free(a, g->nodes);
    mem_free(a, g->tensors);
    arena_fini(&g->mem);
    mem_free(a, g);
}

void tl_graph_destroy(tl_graph *g) {
    graph_unref(g);
}

tl_status tl_graph_status(const tl_graph *g, tl_error *err) {
    if (!g) return error_set(err, TL_ARG, "no graph");
    if (err && g->err.code != TL_OK) *err = g->err;
    return g->err.code;
}

void tl_graph_fail(tl_graph *g, tl_status code, const char *fmt, ...) {
    if (!g || g->err.code != TL_OK || code == TL_OK) return;
    char text[sizeof g->err.text];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    error_set(&g->err, code, "%s", text);
}

void *graph_fail_at(tl_graph *g, tl_status code, const char *place, const char *text) {
    if (g && g->err.code == TL_OK) {
        error_set(&g->err, code, "%s", text);
        error_at_tensor(&g->err, place);
    }
    return NULL;
}

/* ---- tensors ------------------------------------------------------------------------------------- */

static uint64_t graph_name_hash(const char *s) {
    uint64_t h = 1469598103934665603u; /* FNV-1a */
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

/* The caller's names must tell tensors apart: parameters are saved and bound by them. */
static bool graph_name_taken(const tl_graph *g, const char *name, uint64_t hash, const tl_tensor *except) {
    for (size_t i = 0; i < g->n_tensors; i++) {
        const tl_tensor *t = g->tensors[i];
        if (t != except && t->name && t->name_hash == hash && (t->kind != TENSOR_NODE || t->output) &&
            !strcmp(t->name, name))
            return true;
    }
    return false;
}

tl_tensor *graph_tensor(tl_graph *g, tensor_kind kind, const tl_desc *d, const char *name) {
    if (g->err.code != TL_OK) return NULL;
    tl_tensor *t = arena_new(&g->mem, 1, sizeof *t);
    if (!t || g->n_tensors >= INT32_MAX || !mem_reserve(g->host->alloc, &g->tensors, &g->cap_tensors, g->n_tensors + 1))
        return graph_fail_at(g, TL_NOMEM, name ? name : "", "no memory for a tensor of the graph");
    *t = (tl_tensor){.graph = g, .d = *d, .kind = kind, .index = (int32_t)g->n_tensors};
    if (name) {
        t->name = arena_strdup(&g->mem, name);
        if (!t->name) return graph_fail_at(g, TL_NOMEM, name, "no memory for a tensor's name");
        t->name_hash = graph_name_hash(name);
    }
    g->tensors[g->n_tensors++] = t;
    return t;
}

static tl_tensor *graph_bound(tl_graph *g, tensor_kind kind, const char *name, tl_dtype dtype, int ndim,
                              const int64_t *dim) {
    if (!g || g->err.code != TL_OK) return NULL;
    if (!name || !*name) return graph_fail_at(g, TL_ARG, "", "an input or parameter needs a name");
    if (dtype <= TL_NONE || dtype >= TL_DTYPE_COUNT) return graph_fail_at(g, TL_DTYPE, name, "no such dtype");
    if (ndim < 0 || ndim > TL_DIMS || (ndim > 0 && !dim)) return graph_fail_at(g, TL_SHAPE, name, "0 to 4 dimensions");
    tl_desc d = tl_desc_make(dtype, ndim, dim);
    size_t bytes;
    if (!tensor_valid(&d) || !tensor_bytes(&d, &bytes))
        return graph_fail_at(g, TL_SHAPE, name, "dimensions are negative, too large or not whole blocks");
    if (graph_name_taken(g, name, graph_name_hash(name), NULL))
        return graph_fail_at(g, TL_ARG, name, "the graph has a tensor of this name already");
    return graph_tensor(g, kind, &d, name);
}

tl_tensor *tl_input(tl_graph *g, const char *name, tl_dtype dtype, int ndim, const int64_t *dim) {
    return graph_bound(g, TENSOR_INPUT, name, dtype, ndim, dim);
}

tl_tensor *tl_param(tl_graph *g, const char *name, tl_dtype dtype, int ndim, const int64_t *dim) {
    return graph_bound(g, TENSOR_PARAM, name, dtype, ndim, dim);
}

tl_tensor *tl_const(tl_graph *g, const char *name, tl_dtype dtype, int ndim, const int64_t *dim) {
    return graph_bound(g, TENSOR_CONST, name, dtype, ndim, dim);
}

tl_tensor *tl_name(tl_graph *g, tl_tensor *t, const char *name) {
    if (!g || !t || !name || g->err.code != TL_OK || t->kind != TENSOR_NODE || t->output) return t;
    t->name = arena_strdup(&g->mem, name);
    if (!t->name) return graph_fail_at(g, TL_NOMEM, name, "no memory for a tensor's name");
    t->name_hash = graph_name_hash(name);
    return t;
}

void tl_output(tl_graph *g, tl_tensor *t, const char *name) {
    if (!g || g->err.code != TL_OK) return;
    if (!t) {
        graph_fail_at(g, TL_ARG, name ? name : "", "an output needs a tensor");
        return;
    }
    if (t->graph != g) {
        graph_fail_at(g, TL_ARG, name ? name : "", "the tensor belongs to another graph");
        return;
    }
    if (t->kind != TENSOR_NODE) return; /* bound memory is valid after a run anyway */
    if (name && graph_name_taken(g, name, graph_name_hash(name), t)) {
        graph_fail_at(g, TL_ARG, name, "the graph has a tensor of this name already");
        return;
    }
    if (name && !tl_name(g, t, name) && g->err.code != TL_OK) return;
    t->output = true;
}

const char *tl_tensor_name(const tl_tensor *t) {
    if (!t) return "";
    if (t->name) return t->name;
    return t->node ? t->node->op->name : t->kind == TENSOR_ONE ? "1" : "";
}

const tl_desc *tl_tensor_desc(const tl_tensor *t) {
    return t ? &t->d : NULL;
}

const tl_tensor *graph_external(const tl_tensor *t) {
    while (t && t->kind == TENSOR_NODE) {
        const graph_node *n = t->node;
        t = n->op->flags & TL_OP_VIEW ? n->in[0] : n->acc[t->out];
    }
    return t;
}

/* ---- nodes --------------------------------------------------------------------------------------- */

tl_status graph_infer(const tl_op_def *op, void *attr, const tl_desc *const *in, int n_in, tl_desc *out,
                      tl_error *err) {
    tl_error local;
    if (!err) err = &local;
    tl_op_infer s = {.attr = attr, .err = err};
    error_clear(err);
    for (int i = 0; i < n_in; i++) s.in[i] = in[i] && in[i]->dtype != TL_NONE ? in[i] : NULL;
    for (int k = 0; k < op->n_out; k++) s.out[k] = out[k];
    for (int k = 0; k < op->n_out; k++) s.out[k] = out[k]; /* what is bound through acc: kv_write, adamw */
    if (op->n_in > 0 && !s.in[0]) {
        error_set(err, TL_ARG, "input 0 is missing");
        error_at_tensor(err, op->name);
        return TL_ARG;
    }
    tl_status status = op->shape(&s);
    for (int k = 0; status == TL_OK && k < op->n_out; k++) {
        size_t bytes;
        out[k] = s.out[k];
        if (out[k].dtype != TL_NONE && (!tensor_valid(&out[k]) || !tensor_bytes(&out[k], &bytes)))
            status = error_set(err, TL_SHAPE, "output %d would be too large", k);
    }
    if (status == TL_OK) return TL_OK;
    if (err->code == TL_OK) error_set(err, status, "%s", tl_status_text(status));
    if (!err->tensor[0]) error_at_tensor(err, op->name);
    return status;
}

/* "linear(x, w)": which of a model's many operators it was. */
static void graph_place(const tl_op_def *op, tl_tensor *const *in, int n_in, char *buf, size_t size) {
    size_t n = (size_t)snprintf(buf, size, "%s(", op->name);
    for (int i = 0; i < n_in && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%s", i ? ", " : "", in[i] ? tl_tensor_name(in[i]) : "-");
    if (n < size) snprintf(buf + n, size - n, ")");
}

static bool graph_call_fits(tl_graph *g, const tl_op_def *op, tl_tensor *const *in, int n_in) {
    const char *why = NULL;
    if (!op->shape || op->n_in < 0 || op->n_in > TL_OP_INS || op->n_out < 1 || op->n_out > TL_OP_OUTS)
        why = "the operator's row is incomplete: shape rule, at most 12 inputs, 1 to 6 outputs";
    else if (op->attr_size > TL_ATTR_MAX)
        why = "the operator's attributes are larger than TL_ATTR_MAX";
    else if ((op->flags & TL_OP_VIEW) && op != OP_DEF(split) && op != OP_DEF(reshape))
        why = "views are built in: the planner must know how they lie";
    else if (n_in < 0 || n_in > op->n_in)
        why = "too many inputs";
    for (int i = 0; !why && i < n_in; i++)
        if (in[i] && in[i]->graph != g) why = "an input belongs to another graph";
    if (why) graph_fail_at(g, TL_ARG, op->name ? op->name : "?", why);
    return !why;
}

static bool graph_acc_fits(tl_graph *g, const graph_node *n, const char *place) {
    for (int k = 0; k < n->op->n_out; k++) {
        const tl_tensor *a = n->acc[k];
        if (!a) continue;
        const char *why = NULL;
        if (a->graph != g)
            why = "the tensor to add into belongs to another graph";
        else if (!(n->op->acc >> k & 1u))
            why = "this output cannot be added into";
        else if (a->d.dtype != n->d[k].dtype || !tl_desc_same_shape(&a->d, &n->d[k]))
            why = "the tensor to add into has another shape or dtype than the output";
        if (why) return graph_fail_at(g, TL_SHAPE, place, why), false;
    }
    return true;
}

tl_tensor *graph_node_out(tl_graph *g, graph_node *n, int k) {
    if (k < 0 || k >= n->op->n_out || n->d[k].dtype == TL_NONE) return NULL;
    if (n->out[k]) return n->out[k];
    tl_tensor *t = graph_tensor(g, TENSOR_NODE, &n->d[k], NULL);
    if (!t) return NULL;
    t->node = n;
    t->out = k;
    return n->out[k] = t;
}

graph_node *graph_append(tl_graph *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in,
                         tl_tensor *const *acc, uint32_t want) {
    if (!g || g->err.code != TL_OK) return NULL;
    if (!op) return graph_fail_at(g, TL_ARG, "", "no operator");
    if (!graph_call_fits(g, op, in, n_in)) return NULL;
    char place[120];
    graph_place(op, in, n_in, place, sizeof place);

    graph_node *n = arena_new(&g->mem, 1, sizeof *n);
    if (n) n->attr = arena_new(&g->mem, 1, op->attr_size);
    if (!n || !n->attr || !mem_reserve(g->host->alloc, &g->nodes, &g->cap_nodes, g->n_nodes + 1))
        return graph_fail_at(g, TL_NOMEM, place, "no memory for a node of the graph");
    if (attr && op->attr_size) memcpy(n->attr, attr, op->attr_size);
    n->op = op;
    n->index = (int32_t)g->n_nodes;
    n->block = g->backward ? -1 : g->block;
    n->backward = g->backward;

    const tl_desc *d[TL_OP_INS] = {NULL};
    for (int i = 0; i < n_in; i++) {
        n->in[i] = in[i];
        d[i] = in[i] ? &in[i]->d : NULL;
    }
    tl_error err;
    for (int k = 0; k < op->n_out; k++) {
        n->acc[k] = acc ? acc[k] : NULL;
        if (n->acc[k]) n->d[k] = n->acc[k]->d;
    }
    if (graph_infer(op, n->attr, d, n_in, n->d, &err) != TL_OK) {
        g->err = err;
        error_at_tensor(&g->err, place);
        return NULL;
    }
    /* Values have no strides: where a split's parts lie is decided by the planner, which copies if it must. */
    for (int k = 0; k < op->n_out; k++)
        if (n->d[k].dtype != TL_NONE) n->d[k] = tl_desc_make(n->d[k].dtype, n->d[k].ndim, n->d[k].dim);
    if (!graph_acc_fits(g, n, place)) return NULL;
    g->nodes[g->n_nodes++] = n;
    for (int k = 0; k < op->n_out; k++)
        if ((want >> k & 1u) || n->acc[k]) graph_node_out(g, n, k);
    return g->err.code == TL_OK ? n : NULL;
}

tl_tensor *tl_apply(tl_graph *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in,
                    tl_tensor *const *acc, tl_tensor **out, int n_out) {
    for (int k = 0; out && k < n_out; k++) out[k] = NULL;
    uint32_t want = 1;
    for (int k = 0; out && k < n_out && k < TL_OP_OUTS; k++) want |= 1u << k;
    graph_node *n = graph_append(g, op, attr, in, n_in, acc, want);
    if (!n) return NULL;
    for (int k = 0; out && k < n_out && k < TL_OP_OUTS; k++) out[k] = n->out[k];
    return n->out[0];
}

tl_status tl_infer(const tl_op_def *op, const void *attr, const tl_desc *in, int n_in, tl_desc *out, tl_error *err) {
    if (!op || !out || n_in < 0 || n_in > op->n_in || (n_in && !in))
        return error_set(err, TL_ARG, "no operator or too many inputs");
    _Alignas(16) unsigned char copy[TL_ATTR_MAX] = {0};
    if (op->attr_size > sizeof copy)
        return error_set(err, TL_ARG, "the operator's attributes are larger than TL_ATTR_MAX");
    if (attr && op->attr_size) memcpy(copy, attr, op->attr_size);
    const tl_desc *d[TL_OP_INS] = {NULL};
    for (int i = 0; i < n_in; i++) d[i] = &in[i];
    for (int k = 0; k < op->n_out; k++) out[k] = (tl_desc){0};
    return graph_infer(op, copy, d, n_in, out, err);
}

/* ---- blocks --------------------------------------------------------------------------------------- */

void tl_block_begin(tl_graph *g) {
    if (!g || g->err.code != TL_OK) return;
    if (g->block >= 0)
        graph_fail_at(g, TL_STATE, "", "blocks do not nest: tl_block_end is missing");
    else
        g->block = g->blocks++;
}

void tl_block_end(tl_graph *g) {
    if (!g || g->err.code != TL_OK) return;
    if (g->block < 0)
        graph_fail_at(g, TL_STATE, "", "tl_block_end without tl_block_begin");
    else
        g->block = -1;
}
