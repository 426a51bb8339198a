/* An operator's gradient against central differences in double: L = sum of dy y for a random dy, every element of every
 * checked input moved by +-step. The gradient is taken in each way a graph can ask for it: of plain inputs; of
 * parameters, whose gradients are added into memory that is not zero; and, where the result is one number, of the loss
 * itself. */
#include "base/rng.h"
#include "graph/graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct gradcheck {
    tl_engine *e;
    const tl_op_def *op;
    const void *attr;
    tl_arg in[TL_OP_INS]; /* own copies of what is moved */
    int n_in;
    uint32_t check, differ; /* inputs to check, outputs that L is made of */
    tl_arg y[TL_OP_OUTS];
    double *dy[TL_OP_OUTS];
    double *numeric[TL_OP_INS], *analytic[TL_OP_INS];
    arena mem;
    tl_gradcheck_result *result;
    tl_error *err;
} gradcheck;

enum { AS_INPUTS, AS_PARAMS, AS_LOSS, GRADCHECK_WAYS };
static const double gradcheck_before = 0.5; /* what a parameter's gradient holds before */

static tl_status gradcheck_memory(gradcheck *c, const tl_arg *in) {
    tl_desc d[TL_OP_INS], shape[TL_OP_OUTS];
    for (int i = 0; i < c->n_in; i++) d[i] = in[i].d;
    TRY(tl_infer(c->op, c->attr, d, c->n_in, shape, c->err));
    for (int i = 0; i < c->n_in; i++) {
        c->in[i] = in[i];
        if (!(c->check >> i & 1u)) continue;
        if (in[i].d.dtype != TL_F64 || !tl_desc_contiguous(&in[i].d) || !in[i].data)
            return error_set(c->err, TL_ARG, "input %d is to be checked: it must be contiguous f64", i);
        size_t n = (size_t)tl_desc_count(&in[i].d);
        c->in[i].data = arena_new(&c->mem, n, sizeof(double));
        c->numeric[i] = arena_new(&c->mem, n, sizeof(double));
        c->analytic[i] = arena_new(&c->mem, n, sizeof(double));
        if (!c->in[i].data || !c->numeric[i] || !c->analytic[i])
            return error_set(c->err, TL_NOMEM, "no memory for a check of gradients");
        if (n) memcpy(c->in[i].data, in[i].data, n * sizeof(double));
    }
    for (int k = 0; k < c->op->n_out; k++) {
        /* further outputs of a built-in operator are statistics for its own gradient */
        bool result = k == 0 || (c->op->flags & TL_OP_VIEW) || (c->op->id < 0 && !(c->op->save & TL_SAVE_OUT(k)));
        if (!result || shape[k].dtype != TL_F64) continue;
        shape[k] = tl_desc_make(TL_F64, shape[k].ndim, shape[k].dim); /* a part of a split too */
        size_t n = (size_t)tl_desc_count(&shape[k]);
        c->y[k] = (tl_arg){arena_new(&c->mem, n, sizeof(double)), shape[k]};
        c->dy[k] = arena_new(&c->mem, n, sizeof(double));
        if (!c->y[k].data || !c->dy[k]) return error_set(c->err, TL_NOMEM, "no memory for a check of gradients");
        for (size_t i = 0; i < n; i++) c->dy[k][i] = 0.1 + (double)rng_normal(rng_key_make(1, 0, (uint64_t)k), 0, i);
        c->differ |= 1u << k;
    }
    if (!c->differ) return error_set(c->err, TL_DTYPE, "%s gives nothing in f64 here to differentiate", c->op->name);
    return TL_OK;
}

static tl_status gradcheck_value(gradcheck *c, double *value) {
    TRY(tl_eval(c->e, c->op, c->attr, c->in, c->n_in, c->y, c->op->n_out, 0, c->err));
    double sum = 0;
    for (int k = 0; k < c->op->n_out; k++)
        for (int64_t i = 0; (c->differ >> k & 1u) && i < tl_desc_count(&c->y[k].d); i++)
            sum += c->dy[k][i] * ((double *)c->y[k].data)[i];
    *value = sum;
    return TL_OK;
}

static tl_status gradcheck_numeric(gradcheck *c, double step) {
    for (int j = 0; j < c->n_in; j++) {
        double *x = c->in[j].data;
        for (int64_t i = 0; (c->check >> j & 1u) && i < tl_desc_count(&c->in[j].d); i++) {
            double was = x[i], up, down, above = was + step, below = was - step;
            x[i] = above;
            TRY(gradcheck_value(c, &up));
            x[i] = below;
            TRY(gradcheck_value(c, &down));
            x[i] = was;
            c->numeric[j][i] = (up - down) / (above - below);
        }
    }
    return TL_OK;
}

/* The graph of one way to ask. */
static void gradcheck_build(gradcheck *c, tl_graph *g, int way, tl_tensor **in, tl_tensor **dy, tl_tensor **dx) {
    char name[32];
    tl_tensor *wrt[TL_OP_INS], *dwrt[TL_OP_INS], *out[TL_OP_OUTS], *ys[TL_OP_OUTS], *dys[TL_OP_OUTS];
    int n_wrt = 0, n = 0;
    for (int i = 0; i < c->n_in; i++) {
        const tl_desc *d = &c->in[i].d;
        snprintf(name, sizeof name, "in%d", i);
        in[i] = NULL;
        if (d->dtype == TL_NONE) continue;
        bool param = way != AS_INPUTS && (c->check >> i & 1u);
        in[i] = (param ? tl_param : tl_input)(g, name, d->dtype, d->ndim, d->dim);
        if (!param && (c->check >> i & 1u)) wrt[n_wrt++] = in[i];
    }
    tl_apply(g, c->op, c->attr, in, c->n_in, NULL, out, c->differ == 1 ? 1 : c->op->n_out);
    for (int k = 0; k < c->op->n_out; k++) {
        dy[k] = NULL;
        if (!(c->differ >> k & 1u)) continue;
        snprintf(name, sizeof name, "dy%d", k);
        if (way != AS_LOSS) dy[k] = tl_input(g, name, TL_F64, c->y[k].d.ndim, c->y[k].d.dim);
        ys[n] = out[k];
        dys[n++] = dy[k];
    }
    if (way == AS_LOSS)
        tl_graph_backward(g, ys[0], NULL, 0, NULL, false);
    else
        autodiff_run(g, ys, dys, n, wrt, n_wrt, dwrt, false);
    n_wrt = 0;
    for (int i = 0; i < c->n_in; i++) {
        dx[i] = NULL;
        if (!in[i] || !(c->check >> i & 1u)) continue;
        dx[i] = way == AS_INPUTS ? dwrt[n_wrt++] : tl_param_grad(g, in[i]);
        if (way == AS_INPUTS && dx[i] && dx[i]->kind == TENSOR_NODE) tl_output(g, dx[i], NULL);
    }
}

static tl_status gradcheck_run(gradcheck *c, tl_graph *g, int way) {
    tl_tensor *in[TL_OP_INS], *dy[TL_OP_OUTS], *dx[TL_OP_INS];
    gradcheck_build(c, g, way, in, dy, dx);
    tl_plan *p;
    TRY(tl_plan_create(g, false, &p, c->err));
    tl_status status = TL_OK;
    for (int i = 0; i < c->n_in && status == TL_OK; i++) {
        if (in[i]) status = tl_plan_bind(p, in[i], c->in[i].data);
        if (!(c->check >> i & 1u)) continue;
        for (int64_t k = 0; k < tl_desc_count(&c->in[i].d); k++)
            c->analytic[i][k] = way == AS_INPUTS ? 0 : gradcheck_before;
        if (dx[i] && way != AS_INPUTS && status == TL_OK) status = tl_plan_bind(p, dx[i], c->analytic[i]);
    }
    for (int k = 0; k < c->op->n_out && status == TL_OK; k++)
        if (dy[k]) status = tl_plan_bind(p, dy[k], c->dy[k]);
    if (status == TL_OK) status = tl_plan_run(p);
    if (status != TL_OK) error_set(c->err, status, "the gradient of %s does not run", c->op->name);
    for (int i = 0; i < c->n_in && status == TL_OK; i++) {
        if (way != AS_INPUTS || !dx[i]) continue;
        const void *got = tl_plan_data(p, dx[i]);
        if (got) memcpy(c->analytic[i], got, (size_t)tl_desc_count(&c->in[i].d) * sizeof(double));
    }
    tl_plan_destroy(p);
    return status;
}

static void gradcheck_compare(gradcheck *c, int way) {
    for (int i = 0; i < c->n_in; i++) {
        if (!(c->check >> i & 1u)) continue;
        int64_t n = tl_desc_count(&c->in[i].d);
        double scale = 1, unit = way == AS_LOSS ? c->dy[0][0] : 1;
        for (int64_t k = 0; k < n; k++) scale = fmax(scale, fabs(c->numeric[i][k]));
        for (int64_t k = 0; k < n; k++) {
            double got = (c->analytic[i][k] - (way == AS_INPUTS ? 0 : gradcheck_before)) * unit;
            double off = fabs(got - c->numeric[i][k]) / scale;
            if (!(off <= c->result->worst)) { /* true for what is no number, too */
                c->result->worst = isfinite(off) ? off : INFINITY;
                c->result->input = i;
                c->result->element = k;
                if (!isfinite(off)) return;
            }
        }
    }
}

static tl_status gradcheck_all(gradcheck *c, const tl_arg *in, double step) {
    TRY(gradcheck_memory(c, in));
    TRY(gradcheck_numeric(c, step));
    for (int way = 0; way < GRADCHECK_WAYS; way++) {
        if (way == AS_LOSS && (c->differ != 1 || tl_desc_count(&c->y[0].d) != 1)) continue;
        tl_graph *g;
        tl_status status = tl_graph_create(c->e, &g);
        if (status != TL_OK) return error_set(c->err, status, "no memory for a check of gradients");
        status = gradcheck_run(c, g, way);
        tl_graph_destroy(g);
        TRY(status);
        gradcheck_compare(c, way);
    }
    return TL_OK;
}

tl_status tl_gradcheck(tl_engine *e, const tl_op_def *op, const void *attr, const tl_arg *in, int n_in, uint32_t check,
                       double step, tl_gradcheck_result *result, tl_error *err) {
    if (!e || !op || !result || !in || n_in < 1 || n_in > op->n_in)
        return error_set(err, TL_ARG, "no operator or too many inputs");
    if (!(step > 0)) return error_set(err, TL_ARG, "the step must be positive");
    *result = (tl_gradcheck_result){.input = -1, .element = -1};
    gradcheck c = {.e = e,
                   .op = op,
                   .attr = attr,
                   .n_in = n_in,
                   .check = check & ((1u << n_in) - 1u),
                   .result = result,
                   .err = err};
    arena_init(&c.mem, graph_host_of(e)->alloc);
    tl_status status = gradcheck_all(&c, in, step);
    arena_fini(&c.mem);
    return status;
}
