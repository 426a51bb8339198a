/* One operator on the caller's memory. Binding an operator to a kernel costs more than a small operator itself, so what
 * was bound is kept, found by everything that it depends on: operator, attributes, descriptors, sums, wanted outputs.
 */
#include "base/hash.h"
#include "graph/eval_copies.h"

#include <string.h>

enum { EVAL_KEPT = 256 };

typedef struct eval_key {
    const tl_op_def *op;
    unsigned char attr[TL_ATTR_MAX];
    tl_desc in[TL_OP_INS], out[TL_OP_OUTS];
    uint32_t acc, pad;
} eval_key;

typedef struct eval_entry {
    eval_key key;
    uint64_t hash, used;
    tl_op_call call;
    kernel_exec exec;
    kernel_task task;
    tl_run_info run;
    _Alignas(16) unsigned char attr[TL_ATTR_MAX]; /* completed by the shape rule */
    void *scratch;
} eval_entry;

typedef struct eval_cache {
    eval_entry *entry[EVAL_KEPT];
    uint64_t hash[EVAL_KEPT];
    size_t n;
    uint64_t clock;
} eval_cache;

static void eval_entry_free(graph_host *h, eval_entry *x) {
    if (!x) return;
    (void)device_wait(h->dev, 0, NULL); /* it may be queued */
    if (x->exec.state && x->exec.state_free) x->exec.state_free(x->exec.state, h->alloc);
    if (x->scratch) h->dev->free_bytes(h->dev, x->scratch, x->exec.scratch);
    mem_free(h->alloc, x);
}

static void eval_cache_free(graph_host *h) {
    eval_cache *c = h->eval_cache;
    if (!c) return;
    for (size_t i = 0; i < c->n; i++) eval_entry_free(h, c->entry[i]);
    mem_free(h->alloc, c);
    h->eval_cache = NULL;
}

/* Only what means something, so that keys compare as bytes. */
static tl_desc eval_desc(const tl_desc *d) {
    tl_desc clean;
    memset(&clean, 0, sizeof clean);
    if (d->dtype == TL_NONE) return clean;
    clean.dtype = d->dtype;
    clean.ndim = d->ndim;
    for (int i = 0; i < d->ndim; i++) {
        clean.dim[i] = d->dim[i];
        clean.stride[i] = d->stride[i];
    }
    return clean;
}

static tl_status eval_arg(const tl_op_def *op, const tl_arg *a, const char *kind, int i, tl_error *err) {
    const char *why = NULL;
    if (a->d.dtype == TL_NONE) return TL_OK;
    if (!tensor_valid(&a->d))
        why = "has no valid shape";
    else if (!a->data && tl_desc_count(&a->d) > 0)
        why = "has a shape but no memory";
    else if ((uintptr_t)a->data % (tl_dtype_bytes(a->d.dtype) & (~tl_dtype_bytes(a->d.dtype) + 1u)))
        why = "is not aligned to its dtype";
    else if (a->d.ndim > 0 && tl_desc_last(&a->d) > 1 && a->d.stride[a->d.ndim - 1] != 1)
        why = "is not contiguous in its last dimension";
    if (!why) return TL_OK;
    error_set(err, TL_ARG, "%s %d %s", kind, i, why);
    error_at_tensor(err, op->name);
    return TL_ARG;
}

static tl_status eval_check(const tl_op_def *op, const tl_arg *in, int n_in, const tl_arg *out, int n_out, uint32_t acc,
                            tl_error *err) {
    if (!op || n_in < 0 || n_in > op->n_in || n_out < 0 || n_out > op->n_out || (n_in && !in) || (n_out && !out))
        return error_set(err, TL_ARG, "no operator, or too many arguments for it");
    if (op->attr_size > TL_ATTR_MAX)
        return error_set(err, TL_ARG, "the operator's attributes are larger than TL_ATTR_MAX");
    for (int i = 0; i < n_in; i++) TRY(eval_arg(op, &in[i], "input", i, err));
    for (int k = 0; k < n_out; k++) TRY(eval_arg(op, &out[k], "output", k, err));
    for (int k = 0; k < TL_OP_OUTS; k++) {
        if (!(acc >> k & 1u)) continue;
        if (k < n_out && out[k].d.dtype != TL_NONE && (op->acc >> k & 1u)) continue;
        error_set(err, TL_ARG, "output %d cannot be added into", k);
        error_at_tensor(err, op->name);
        return TL_ARG;
    }
    return TL_OK;
}

static tl_status eval_shapes(eval_entry *x, tl_error *err) {
    const tl_op_def *op = x->key.op;
    const tl_desc *d[TL_OP_INS];
    tl_desc shape[TL_OP_OUTS] = {{0}};
    for (int i = 0; i < TL_OP_INS; i++) d[i] = &x->key.in[i];
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (x->key.acc >> k & 1u) shape[k] = x->key.out[k];
    TRY(graph_infer(op, x->attr, d, op->n_in, shape, err));
    for (int k = 0; k < op->n_out; k++) {
        const tl_desc *is = &x->key.out[k];
        char a[100], b[100];
        if (is->dtype == TL_NONE) continue;
        if (is->dtype == shape[k].dtype && tl_desc_same_shape(is, &shape[k])) continue;
        error_set(err, TL_SHAPE, "output %d is %s, must be %s", k, tensor_print(is, a, sizeof a),
                  shape[k].dtype == TL_NONE ? "absent in this call" : tensor_print(&shape[k], b, sizeof b));
        error_at_tensor(err, op->name);
        return TL_SHAPE;
    }
    return TL_OK;
}

static tl_status eval_bind(graph_host *h, eval_entry *x, tl_error *err) {
    const tl_op_def *op = x->key.op;
    memcpy(x->attr, x->key.attr, sizeof x->attr);
    TRY(eval_shapes(x, err));
    x->call.attr = x->attr;
    x->call.acc = x->key.acc;
    x->call.run = &x->run;
    for (int i = 0; i < TL_OP_INS; i++) x->call.in[i].d = x->key.in[i];
    for (int k = 0; k < TL_OP_OUTS; k++) x->call.out[k].d = x->key.out[k];
    TRY(h->dev->choose(h->dev, op, &x->call, false, &x->exec, NULL, 0, err));
    if (x->exec.scratch) {
        x->scratch = h->dev->alloc_bytes(h->dev, x->exec.scratch);
        if (!x->scratch)
            return error_set(err, TL_NOMEM, "no memory for %s's scratch of %zu bytes", op->name, x->exec.scratch);
    }
    x->task = (kernel_task){.call = &x->call, .exec = &x->exec, .scratch = x->scratch, .workers = h->dev->threads};
    return TL_OK;
}

/* The entry of a key, bound now if it was not; the one unused longest gives way. */
static tl_status eval_find(graph_host *h, const eval_key *key, eval_entry **out, tl_error *err) {
    eval_cache *c = h->eval_cache;
    if (!c) {
        c = h->eval_cache = mem_new(h->alloc, 1, sizeof *c);
        if (!c) return error_set(err, TL_NOMEM, "no memory for the cache of operators");
        h->eval_cache_free = eval_cache_free;
    }
    uint64_t hash = hash_bytes(key, sizeof *key);
    size_t oldest = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (c->hash[i] == hash && !memcmp(&c->entry[i]->key, key, sizeof *key)) {
            c->entry[i]->used = ++c->clock;
            *out = c->entry[i];
            return TL_OK;
        }
        if (c->entry[i]->used < c->entry[oldest]->used) oldest = i;
    }
    eval_entry *x = mem_new(h->alloc, 1, sizeof *x);
    if (!x) return error_set(err, TL_NOMEM, "no memory for the cache of operators");
    memcpy(&x->key, key, sizeof *key);
    tl_status status = eval_bind(h, x, err);
    if (status != TL_OK) {
        eval_entry_free(h, x);
        return status;
    }
    size_t at = c->n;
    if (at == EVAL_KEPT) {
        at = oldest;
        eval_entry_free(h, c->entry[at]);
    } else {
        c->n++;
    }
    x->used = ++c->clock;
    c->entry[at] = x;
    c->hash[at] = hash;
    *out = x;
    return TL_OK;
}

static tl_status eval_entry_for(tl_engine *e, const tl_op_def *op, const void *attr, const tl_arg *in, int n_in,
                                const tl_arg *out, int n_out, uint32_t acc, eval_entry **x, tl_error *err) {
    if (!e) return error_set(err, TL_ARG, "no engine");
    TRY(eval_check(op, in, n_in, out, n_out, acc, err));
    eval_key key;
    memset(&key, 0, sizeof key);
    key.op = op;
    key.acc = acc;
    if (attr && op->attr_size) memcpy(key.attr, attr, op->attr_size);
    for (int i = 0; i < n_in; i++) key.in[i] = eval_desc(&in[i].d);
    for (int k = 0; k < n_out; k++) key.out[k] = eval_desc(&out[k].d);
    TRY(eval_find(graph_host_of(e), &key, x, err));
    for (int i = 0; i < n_in; i++) (*x)->call.in[i].data = in[i].d.dtype == TL_NONE ? NULL : in[i].data;
    for (int k = 0; k < n_out; k++) (*x)->call.out[k].data = out[k].d.dtype == TL_NONE ? NULL : out[k].data;
    return TL_OK;
}

tl_status eval_device(tl_engine *e, const tl_op_def *op, const void *attr, const tl_arg *in, int n_in,
                      const tl_arg *out, int n_out, tl_error *err) {
    eval_entry *x = NULL;
    TRY(eval_entry_for(e, op, attr, in, n_in, out, n_out, 0, &x, err));
    device *d = graph_host_of(e)->dev;
    d->launch(d, &x->task);
    return TL_OK;
}

tl_status tl_eval(tl_engine *e, const tl_op_def *op, const void *attr, const tl_arg *in, int n_in, tl_arg *out,
                  int n_out, uint32_t acc, tl_error *err) {
    eval_entry *x = NULL;
    TRY(eval_entry_for(e, op, attr, in, n_in, out, n_out, acc, &x, err));
    device *d = graph_host_of(e)->dev;
    eval_copies copies;
    if (d->memory) TRY(eval_copies_send(d, &x->call, &copies, err));
    d->launch(d, &x->task);
    return d->memory ? eval_copies_fetch(d, &copies, err) : TL_OK;
}
