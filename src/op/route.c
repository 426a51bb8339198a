/* route, route_bwd: which experts a token goes to; balance, balance_bwd: the loss that keeps experts equally busy.
 *
 * With s the sum of a token's k chosen p: w_j = p_j / s (norm), so dp_j = (dw_j - sum_i dw_i w_i) / s; or w_j = p_j.
 * Where a tally is kept every p_e of a counted token also gets dtally_e. */
#ifndef REAL
#include "op/rules.h"

static tl_status route_masks(const shape_rule *h, int first, int last, int like) {
    const tl_desc *p = h->s->in[like];
    for (int i = first; i <= last; i++) {
        if (!shape_has(h, i)) continue;
        TRY(shape_dtype(h, i, TL_I32));
        TRY(shape_ndim(h, i, p->ndim - 1));
        for (int k = 0; k < p->ndim - 1; k++) TRY(shape_dim(h, i, k, p->dim[k], "as p"));
    }
    return TL_OK;
}

static tl_status route_attrs(const shape_rule *h, const struct route_attr *a, int64_t E) {
    if (a->k < 1 || a->k > E || a->k > ROUTE_MOST)
        return shape_bad_attr(h, "%d experts a token of %lld; at most %d", (int)a->k, (long long)E, ROUTE_MOST);
    return a->norm == 0 || a->norm == 1 ? TL_OK : shape_bad_attr(h, "norm is 0 or 1");
}

tl_status route_shape(tl_op_infer *s) {
    const struct route_attr *a = ATTR(s, route);
    SHAPE(h, s, "route", "p", "slot", "counted");
    TRY(shape_float(&h, 0));
    TRY(shape_min_ndim(&h, 0, 2));
    TRY(shape_sum(&h, 0, 0));
    TRY(route_attrs(&h, a, tl_desc_last(s->in[0])));
    TRY(route_masks(&h, 1, 2, 0));
    shape_out_last(&h, 0, 0, a->k, s->in[0]->dtype);
    shape_out_last(&h, 1, 0, a->k, TL_I32);
    shape_out_vector(&h, 2, tl_desc_last(s->in[0]), s->in[0]->dtype);
    shape_out_vector(&h, 3, tl_desc_last(s->in[0]), s->in[0]->dtype);
    return TL_OK;
}

void route_grad(tl_grad *g) {
    struct route_bwd_attr a = {*(const struct route_attr *)tl_grad_attr(g)};
    tl_tensor *in[5] = {tl_grad_in(g, 0), tl_grad_out(g, 1), tl_grad_dy(g, 0), tl_grad_dy(g, 2), tl_grad_in(g, 2)};
    tl_grad_emit(g, OP_DEF(route_bwd), &a, in, 5, (int[1]){grad_to(g, 0)}, 1);
}

void route_cost(const tl_op_call *c, tl_cost *cost) {
    const struct route_attr *a = ATTR(c, route);
    int64_t rows = tl_desc_rows(&c->in[0].d);
    cost_begin(c, cost);
    if (a->norm) cost_add(cost, rows * a->k, 1, 1);
    if (cost_out(c, 2)) cost_add(cost, tl_desc_count(&c->in[0].d), 1, 0);
}

tl_status route_bwd_shape(tl_op_infer *s) {
    const struct route_attr *a = &ATTR(s, route_bwd)->f;
    SHAPE(h, s, "route_bwd", "p", "id", "dw", "dmass", "counted");
    TRY(shape_float(&h, 0));
    TRY(shape_min_ndim(&h, 0, 2));
    TRY(route_attrs(&h, a, tl_desc_last(s->in[0])));
    TRY(shape_dtype(&h, 1, TL_I32));
    TRY(shape_leading(&h, 1, 0));
    TRY(shape_dim(&h, 1, -1, a->k, "k"));
    if (shape_has(&h, 2)) {
        TRY(shape_sum(&h, 2, 0));
        TRY(shape_same(&h, 2, 1));
    }
    if (shape_has(&h, 3)) TRY(shape_vector(&h, 3, tl_desc_last(s->in[0]), 0, "E of p"));
    TRY(route_masks(&h, 4, 4, 0));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(route_bwd)

void route_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const struct route_attr *a = &ATTR(c, route_bwd)->f;
    int64_t rows = tl_desc_rows(&c->in[0].d);
    cost_begin(c, cost);
    if (!cost_in(c, 2)) return;
    cost_add(cost, rows * a->k, 1, 0);
    if (a->norm) cost_add(cost, rows, 4 * (double)a->k, 1 + (double)a->k);
}

static tl_status balance_inputs(const shape_rule *h, const struct balance_attr *a, int load, int denom) {
    if (a->k < 1 || a->layers < 0 || !(a->coef >= 0))
        return shape_bad_attr(h, "k %d, %lld layers, coefficient %g", (int)a->k, (long long)a->layers, (double)a->coef);
    TRY(shape_float(h, load));
    TRY(shape_sum(h, load, load));
    TRY(shape_ndim(h, load, 1));
    return shape_vector(h, denom, 1, load, "the labels of the step");
}

tl_status balance_shape(tl_op_infer *s) {
    SHAPE(h, s, "balance", "mass", "load", "denom");
    TRY(balance_inputs(&h, ATTR(s, balance), 1, 2));
    TRY(shape_vector(&h, 0, s->in[1]->dim[0], 1, "E of load"));
    shape_out_vector(&h, 0, 1, s->in[0]->dtype);
    return TL_OK;
}

void balance_grad(tl_grad *g) {
    struct balance_bwd_attr a = {*(const struct balance_attr *)tl_grad_attr(g)};
    tl_tensor *in[3] = {tl_grad_dy(g, 0), tl_grad_in(g, 1), tl_grad_in(g, 2)};
    tl_grad_emit(g, OP_DEF(balance_bwd), &a, in, 3, (int[1]){grad_to(g, 0)}, 1); /* counts are constants */
}

void balance_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, c->in[0].d.dim[0], 3, 0);
    cost_add(cost, 1, 2, 1);
}

tl_status balance_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "balance_bwd", "dloss", "load", "denom");
    TRY(balance_inputs(&h, &ATTR(s, balance_bwd)->f, 1, 2));
    TRY(shape_vector(&h, 0, 1, 1, "a loss"));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(balance_bwd)

void balance_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, c->in[1].d.dim[0], 2, 0);
    cost_add(cost, 1, 2, 1);
}

#else

/* The k largest by insertion, the largest first; of equal ones the first stays before. What is not a number displaces
 * nothing, and stays where it is among the first k: a token of NaN keeps k experts, and its weights tell. */
static void REF(route_choose)(const tl_arg *p, int64_t at, int64_t E, int64_t k, int64_t *id) {
    int64_t n = 0;
    for (int64_t e = 0; e < E; e++) {
        REAL v = GET(p, at + e);
        int64_t j = n < k ? n++ : k;
        if (j == k) {
            if (!(GET(p, at + id[k - 1]) < v)) continue;
            j = k - 1;
        }
        for (; j > 0 && GET(p, at + id[j - 1]) < v; j--) id[j] = id[j - 1];
        id[j] = e;
    }
}

static bool REF(route_is_negative)(const tl_arg *mask, int64_t n) {
    return mask->data && GETI(mask, AT(mask, n)) < 0;
}

void REF(route)(const tl_op_call *c) {
    const tl_arg *p = &c->in[0], *w = &c->out[0], *id = &c->out[1];
    int64_t rows = tl_desc_rows(&p->d), E = tl_desc_last(&p->d), k = ATTR(c, route)->k;
    for (int64_t n = 0; n < rows; n++) {
        int64_t at = ROW(p, n), to = ROW(w, n), chosen[ROUTE_MOST];
        bool idle = REF(route_is_negative)(&c->in[1], n);
        if (!idle) REF(route_choose)(p, at, E, k, chosen);
        REAL sum = (REAL)0;
        bool norm = ATTR(c, route)->norm != 0;
        for (int64_t j = 0; !idle && norm && j < k; j++) sum = sum + GET(p, at + chosen[j]);
        for (int64_t j = 0; j < k; j++) {
            if (id->data) ((int32_t *)id->data)[ROW(id, n) + j] = idle ? -1 : (int32_t)chosen[j];
            if (idle)
                PUT(c, 0, to + j, (REAL)0);
            else
                PUT(c, 0, to + j, norm ? GET(p, at + chosen[j]) / sum : GET(p, at + chosen[j]));
        }
    }
    for (int64_t e = 0; (WANTS(c, 2) || WANTS(c, 3)) && e < E; e++) {
        REAL sum = (REAL)0;
        int64_t count = 0;
        for (int64_t n = 0; n < rows; n++) {
            if (REF(route_is_negative)(&c->in[1], n) || REF(route_is_negative)(&c->in[2], n)) continue;
            int64_t chosen[ROUTE_MOST];
            if (WANTS(c, 2)) sum = sum + GET(p, ROW(p, n) + e);
            REF(route_choose)(p, ROW(p, n), E, k, chosen);
            for (int64_t j = 0; j < k; j++) count += chosen[j] == e;
        }
        PUT(c, 2, e, sum);
        PUT(c, 3, e, (REAL)count);
    }
}

void REF(route_bwd)(const tl_op_call *c) {
    const tl_arg *p = &c->in[0], *id = &c->in[1], *dw = &c->in[2], *dmass = &c->in[3];
    int64_t rows = tl_desc_rows(&p->d), E = tl_desc_last(&p->d), k = ATTR(c, route_bwd)->f.k;
    bool norm = ATTR(c, route_bwd)->f.norm != 0;
    for (int64_t n = 0; n < rows; n++) {
        int64_t at = ROW(p, n), chosen = ROW(id, n), to = ROW(&c->out[0], n);
        bool idle = GETI(id, chosen) < 0, counted = dmass->data && !REF(route_is_negative)(&c->in[4], n) && !idle;
        REAL sum = (REAL)0, inner = (REAL)0;
        for (int64_t j = 0; dw->data && norm && !idle && j < k; j++) {
            REAL v = GET(p, at + GETI(id, chosen + j));
            sum = sum + v;
            inner = inner + GET(dw, ROW(dw, n) + j) * v;
        }
        if (dw->data && norm && !idle) inner = inner / sum;
        for (int64_t e = 0; e < E; e++) {
            REAL v = counted ? GET(dmass, e) : (REAL)0;
            for (int64_t j = 0; dw->data && !idle && j < k; j++) {
                if (GETI(id, chosen + j) != e) continue;
                REAL d = GET(dw, ROW(dw, n) + j);
                v = v + (norm ? (d - inner) / sum : d);
            }
            PUT(c, 0, to + e, v);
        }
    }
}

/* coef E k / layers, which multiplies sum C S / (sum C denom) of loads C and masses S: the tokens counted are
 * sum C / (layers k). */
static double REF(balance_scale)(const struct balance_attr *a, int64_t E) {
    return (double)a->coef * (double)E * (double)a->k / (double)(a->layers ? a->layers : 1);
}

void REF(balance)(const tl_op_call *c) {
    const tl_arg *mass = &c->in[0], *load = &c->in[1];
    int64_t E = load->d.dim[0];
    REAL all = (REAL)0, dot = (REAL)0, denom = GET(&c->in[2], 0);
    for (int64_t e = 0; e < E; e++) {
        all = all + GET(load, e);
        dot = dot + GET(load, e) * GET(mass, e);
    }
    REAL under = all * denom, scale = (REAL)REF(balance_scale)(ATTR(c, balance), E);
    PUT(c, 0, 0, under == (REAL)0 ? (REAL)0 : scale * dot / under);
}

void REF(balance_bwd)(const tl_op_call *c) {
    const tl_arg *load = &c->in[1];
    int64_t E = load->d.dim[0];
    REAL all = (REAL)0, denom = GET(&c->in[2], 0);
    for (int64_t e = 0; e < E; e++) all = all + GET(load, e);
    REAL under = all * denom, scale = (REAL)REF(balance_scale)(&ATTR(c, balance_bwd)->f, E);
    REAL factor = under == (REAL)0 ? (REAL)0 : GET(&c->in[0], 0) * scale / under;
    for (int64_t e = 0; e < E; e++) PUT(c, 0, e, factor * GET(load, e));
}

#endif
