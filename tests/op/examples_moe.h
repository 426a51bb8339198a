/* Examples of mixtures of experts. Included by examples.h. */
#ifndef TESTS_OP_EXAMPLES_MOE_H
#define TESTS_OP_EXAMPLES_MOE_H

/* Ids of a token all different, some tokens without. in[i] is (N..,k). */
static inline void example_moe_ids(tl_arg *id, int64_t experts, bool idle) {
    int64_t k = tl_desc_last(&id->d);
    for (int64_t n = 0; n < tl_desc_rows(&id->d); n++) {
        int32_t *row = (int32_t *)id->data + tl_desc_row(&id->d, n);
        int64_t first = row[0] < 0 ? -row[0] : row[0], none = idle && first % 5 == 1;
        for (int64_t j = 0; j < k; j++) row[j] = none ? -1 : (int32_t)((first + j) % experts);
    }
}
static inline bool example_moe_idle(const example_call *x) {
    return strstr(x->example->label, "idle") != NULL;
}
static inline void example_moe_sort(example_call *x) {
    example_moe_ids(&x->call.in[0], ((struct expert_sort_attr *)x->attr)->experts, example_moe_idle(x));
}
static inline void example_moe_route_bwd(example_call *x) {
    example_moe_ids(&x->call.in[1], tl_desc_last(&x->call.in[0].d), example_moe_idle(x));
}
/* Uneven parts, some of them empty; the last rows nobody's where idle. */
static inline void example_moe_begin(example_call *x) {
    tl_arg *begin = &x->call.in[2];
    int64_t P = x->call.in[0].d.dim[0], E = begin->d.dim[0] - 1, rows = example_moe_idle(x) ? P - P / 4 : P;
    int32_t *b = (int32_t *)begin->data, at = 0;
    for (int64_t e = 0; e < E; e++) {
        int64_t r = (int64_t)(uint32_t)b[e] % (2 * rows / E + 2);
        b[e] = at;
        at = e % 3 == 1 ? at : (int32_t)(at + r > rows ? rows : at + r);
    }
    b[E] = (int32_t)rows;
}
/* A permutation for in[i], with the entries of idle tokens at -1 and the others in front. */
static inline void example_moe_place_of(example_call *x, int i) {
    tl_arg *place = &x->call.in[i];
    int64_t P = tl_desc_count(&place->d), k = tl_desc_last(&place->d), at = 0;
    for (int pass = 0; pass < 2; pass++) /* odd entries first: an order that is not theirs */
        for (int64_t p = 0; p < P; p++) {
            if ((p & 1) == pass) continue;
            bool none = example_moe_idle(x) && p / k % 3 == 1;
            ((int32_t *)place->data)[tl_desc_row(&place->d, p / k) + p % k] = none ? -1 : (int32_t)at++;
        }
}
static inline void example_moe_place(example_call *x) {
    example_moe_place_of(x, 2);
}
static inline void example_moe_place_bwd(example_call *x) {
    example_moe_place_of(x, 3);
}

static inline void examples_moe_route(op_examples *l, tl_dtype t, tl_desc p, int32_t k, int32_t norm, int masks) {
    struct route_attr a;
    struct route_bwd_attr b;
    tl_desc mask = D1(TL_I32, p.dim[0]);
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    a.k = b.f.k = k, a.norm = b.f.norm = norm;
    if (p.ndim == 3) mask = D2(TL_I32, p.dim[0], p.dim[1]);
    op_example *e = EXAMPLE_B(l, "route", a, masks ? "idle" : norm ? "norm" : "plain", &p);
    example_in(e, 0, p, FILL_POSITIVE);
    if (masks & 1) example_in(e, 1, mask, FILL_IDS), example_range(e, 1, -1, 3);
    if (masks & 2) example_in(e, 2, mask, FILL_IDS), example_range(e, 2, -1, 2);
    if (!tl_desc_contiguous(&p)) e->out_pad = 3, e->acc = 12;
    if (t == TL_F64 && example_small(&p)) e->diff = 1;
    if (norm && !masks && p.ndim == 2) e->unwanted = 12;
    e->cost_bound = masks != 0;
    for (int form = 0; form < 3; form++) { /* both gradients, and each alone */
        e = EXAMPLE_B(l, "route_bwd", b, masks ? "idle" : norm ? "norm" : "plain", &p);
        tl_desc w = p;
        w.dim[p.ndim - 1] = k;
        w = tl_desc_make(p.dtype, p.ndim, w.dim);
        if (form != 1) example_in(e, 2, w, FILL_NORMAL);
        if (form != 2) example_in(e, 3, D1(t, tl_desc_last(&p)), FILL_NORMAL);
        example_in(e, 0, p, FILL_POSITIVE);
        w.dtype = TL_I32;
        example_in(e, 1, w, FILL_IDS), example_range(e, 1, 0, tl_desc_last(&p));
        if (masks & 2) example_in(e, 4, mask, FILL_IDS), example_range(e, 4, -1, 2);
        e->prepare = example_moe_route_bwd;
        e->acc = form == 1;
        e->cost_bound = masks != 0;
    }
}

static inline void examples_moe_balance(op_examples *l, tl_dtype t, int64_t E) {
    struct balance_attr a;
    struct balance_bwd_attr b;
    memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
    a.coef = b.f.coef = 0.125f, a.k = b.f.k = 2, a.layers = b.f.layers = 3;
    tl_desc v = D1(t, E);
    for (int zero = 0; zero < 2; zero++) {
        op_example *e = EXAMPLE_B(l, "balance", a, zero ? "nothing" : "", &v);
        example_in(e, 0, v, FILL_NORMAL);
        example_in(e, 1, v, FILL_POSITIVE);
        example_in(e, 2, D1(t, 1), zero ? FILL_CONST : FILL_POSITIVE);
        e->cost_bound = zero != 0;
        if (t == TL_F64) e->diff = 1;
        e = EXAMPLE_B(l, "balance_bwd", b, zero ? "nothing" : "", &v);
        example_in(e, 0, D1(t, 1), FILL_NORMAL);
        example_in(e, 1, v, FILL_POSITIVE);
        example_in(e, 2, D1(t, 1), zero ? FILL_CONST : FILL_POSITIVE);
        e->cost_bound = zero != 0;
    }
}

static inline void examples_moe_linear(op_examples *l, tl_dtype t, tl_dtype w, int64_t E, int64_t P, int64_t K,
                                       int64_t N, int with) {
    struct expert_linear_attr a = {0};
    struct expert_linear_dx_attr dx = {0};
    struct expert_linear_dw_attr dw = {0};
    enum { IDLE = 1, VIEW = 2 };
    tl_desc x = D2(t, P, K), y = D2(t, P, N), m = D2(w, E * N, K), begin = D1(TL_I32, E + 1);
    if (with & VIEW) x = example_view(x, 4), y = example_view(y, 2);
    for (int what = 0; what < 3; what++) {
        op_example *e = what == 0   ? EXAMPLE_B(l, "expert_linear", a, with & IDLE ? "idle" : "", &m)
                        : what == 1 ? EXAMPLE_B(l, "expert_linear_dx", dx, with & IDLE ? "idle" : "", &m)
                                    : EXAMPLE_B(l, "expert_linear_dw", dw, with & IDLE ? "idle" : "", &m);
        example_in(e, 0, what ? y : x, FILL_NORMAL);
        example_in(e, 1, what == 2 ? x : m, FILL_NORMAL);
        example_in(e, 2, begin, FILL_IDS), example_range(e, 2, 0, 1000);
        e->prepare = example_moe_begin;
        e->cost_bound = with & IDLE;
        if (with & VIEW) e->out_pad = 3;
        if (what == 0 && t == TL_F64 && P * K + E * N * K <= 400) e->diff = 3;
        if (what == 2) e->acc = P & 1;
        if (what == 1 && tl_dtype_block(w) > 1) return;
    }
}

static inline void examples_moe_sum(op_examples *l, tl_dtype t, tl_desc w, int64_t D, bool idle) {
    struct expert_sum_attr a = {0};
    struct expert_sum_bwd_attr b = {0};
    int64_t P = tl_desc_count(&w);
    tl_desc x = D2(t, P, D), place = w, y = w;
    place.dtype = TL_I32;
    y.dim[w.ndim - 1] = D;
    y = tl_desc_make(t, w.ndim, y.dim);
    if (D % 2) x = example_view(x, 3), y = example_view(y, 2);
    op_example *e = EXAMPLE_B(l, "expert_sum", a, idle ? "idle" : "", &x);
    example_in(e, 0, x, FILL_NORMAL);
    example_in(e, 1, w, FILL_NORMAL);
    example_in(e, 2, place, FILL_IDS), example_range(e, 2, 0, 1);
    e->prepare = example_moe_place;
    e->cost_bound = idle;
    e->acc = w.ndim == 3;
    if (t == TL_F64 && P * D <= 200 && D % 2 == 0) e->diff = 3;
    for (int part = 0; part < 3; part++) {
        e = EXAMPLE_B(l, "expert_sum_bwd", b, idle ? "idle" : "", &x);
        example_in(e, 0, y, FILL_NORMAL);
        example_in(e, 1, x, FILL_NORMAL);
        example_in(e, 2, w, FILL_NORMAL);
        example_in(e, 3, place, FILL_IDS), example_range(e, 3, 0, 1);
        e->prepare = example_moe_place_bwd;
        e->cost_bound = idle;
        e->unwanted = part == 1 ? 1 : part == 2 ? 2 : 0;
        if (D % 2) e->out_pad = 1;
    }
}

static inline void examples_moe(op_examples *l) {
    for (int n = 0; n < 4; n++) {
        tl_dtype t = example_floats[n], s = example_sum(t);
        examples_moe_linear(l, t, t, 3, 7, 4, 5, 0);
        examples_moe_linear(l, t, t, 1, 1, 1, 1, 0);
        examples_moe_linear(l, t, t, 4, 33, 17, 50, 3);
        examples_moe_linear(l, t, t, 5, 150, 48, 97, 1);
        examples_moe_linear(l, t, t, 3, 67, 1040, 17, 0);
        examples_moe_sum(l, t, D2(s, 3, 2), 4, false);
        examples_moe_sum(l, t, D3(s, 2, 5, 3), 17, true);
        examples_moe_sum(l, t, D2(s, 70, 2), 40, false);
        examples_moe_sum(l, t, D2(s, 1, 1), 1, false);
        if (t != TL_F32 && t != TL_F64) continue;
        examples_moe_route(l, t, D2(t, 3, 4), 2, 1, 0);
        examples_moe_route(l, t, D2(t, 3, 5), 2, 0, 0);
        examples_moe_route(l, t, D3(t, 2, 3, 6), 3, 1, 2);
        examples_moe_route(l, t, example_view(D2(t, 9, 8), 3), 8, 1, 3);
        examples_moe_route(l, t, D2(t, 130, 17), 4, 0, 0);
        examples_moe_route(l, t, D2(t, 1, 1), 1, 1, 1);
        examples_moe_balance(l, t, 5);
        examples_moe_balance(l, t, 64);
    }
    examples_moe_linear(l, TL_F32, TL_BF16, 4, 6, 32, 20, 0);
    examples_moe_linear(l, TL_BF16, TL_F32, 4, 60, 32, 20, 0);
    static const tl_dtype blocks[] = {TL_Q8_0, TL_Q4_0, TL_Q4_K, TL_Q6_K};
    for (int n = 0; n < 4; n++)
        for (int64_t rows = 3; rows < 200; rows *= 7) examples_moe_linear(l, TL_F32, blocks[n], 3, rows, 512, 70, 1);
    struct expert_sort_attr a = {5};
    tl_desc id = D2(TL_I32, 9, 2);
    for (int idle = 0; idle < 3; idle++) {
        if (idle == 2) id = example_view(D3(TL_I32, 2, 40, 3), 1), a.experts = 7;
        op_example *e = EXAMPLE_B(l, "expert_sort", a, idle ? "idle" : "", &id);
        example_in(e, 0, id, FILL_IDS), example_range(e, 0, 0, 5);
        e->prepare = example_moe_sort;
    }
}

#endif
