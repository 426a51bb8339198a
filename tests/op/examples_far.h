/* Examples of what reaches far by few rows: landmarks of Nystromformer, far chunks. Included by examples_gau.h. */
#ifndef TESTS_OP_EXAMPLES_FAR_H
#define TESTS_OP_EXAMPLES_FAR_H

/* What landmarks need. A start is not negative, and no two of its columns have the same sum. */
static inline void example_start_prepare(example_call *x) {
    const tl_arg *a = &x->call.in[strstr(x->op->name, "_bwd") ? 1 : 0];
    const int64_t n = tl_desc_last(&a->d);
    for (int64_t r = 0; r < tl_desc_rows(&a->d); r++)
        for (int64_t i = 0; i < n; i++) {
            const double v = ((double)(1 + (7 * i + 5 * r) % 11) + 0.03 * (double)(i * i)) / (double)(6 * n);
            const int64_t at = tl_desc_row(&a->d, r) + i;
            if (a->d.dtype == TL_F64)
                ((double *)a->data)[at] = v;
            else if (a->d.dtype == TL_F32)
                ((float *)a->data)[at] = (float)v;
        }
}

static inline void examples_landmarks(op_examples *l) {
    static const struct {
        int64_t B, T, H, e, R;
    } d[] = {{1, 1, 1, 1, 1}, {2, 7, 2, 3, 3}, {2, 9, 1, 5, 9}, {1, 70, 3, 17, 20}, {2, 130, 2, 33, 65}};
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 5; i++) {
            const tl_dtype t = example_floats[n];
            struct segment_mean_attr a;
            memset(&a, 0, sizeof a);
            a.rows = d[i].R;
            const int64_t R = d[i].R, H = d[i].H;
            tl_desc x = D4(t, d[i].B, d[i].T, H, d[i].e);
            op_example *e = EXAMPLE_GAU(l, "segment_mean", a, t, "means");
            example_in(e, 0, i == 1 ? example_view(x, 4) : x, FILL_NORMAL);
            if (t == TL_F64 && i < 4) e->diff = 1;
            a.rows = d[i].T, a.spread = 1;
            e = EXAMPLE_GAU(l, "segment_mean", a, t, "spread");
            example_in(e, 0, D4(t, d[i].B, R, H, d[i].e), FILL_NORMAL);
            e->acc = i & 1;
            if (t == TL_F64 && i < 4) e->diff = 1;
            for (int form = 0; form < 4; form++) {
                struct matmul_attr m;
                memset(&m, 0, sizeof m);
                m.ta = form & 1, m.tb = form >> 1;
                if (form) m.alpha = -0.5f, m.diag = 3;
                if (i & 1) m.beta = 0.25f;
                e = EXAMPLE_GAU(l, "matmul", m, t, form ? "turned" : "plain");
                tl_desc left = m.ta ? D4(t, d[i].B, d[i].e, H, R) : D4(t, d[i].B, R, H, d[i].e);
                example_in(e, 0, i == 1 ? example_view(left, 4) : left, FILL_NORMAL);
                example_in(e, 1, m.tb ? D4(t, d[i].B, d[i].T, H, d[i].e) : D4(t, d[i].B, d[i].e, H, d[i].T),
                           FILL_NORMAL);
                if (i & 1) example_in(e, 2, D4(t, d[i].B, R, H, d[i].T), FILL_NORMAL);
                if (form == 3) e->acc = 1;
                if (t == TL_F64 && i < 3 && !e->acc) e->diff = i & 1 ? 7 : 3;
            }
            if (n > 1) continue;
            struct inverse_start_attr start = {0};
            struct inverse_start_bwd_attr back = {0};
            e = EXAMPLE_GAU(l, "inverse_start", start, t, "square");
            example_in(e, 0, D4(t, d[i].B, R, H, R), FILL_NORMAL);
            e->prepare = example_start_prepare;
            if (t == TL_F64 && i < 4) e->diff = 1;
            e = EXAMPLE_GAU(l, "inverse_start_bwd", back, t, "square");
            example_in(e, 0, D4(t, d[i].B, R, H, R), FILL_NORMAL);
            example_in(e, 1, D4(t, d[i].B, R, H, R), FILL_NORMAL);
            e->prepare = example_start_prepare;
            e->acc = i & 1;
        }
}

/* Choices of far chunks for the backward pass: some of those that lie behind a row, in order. */
static inline void example_reach_prepare(example_call *x) {
    const struct chunk_reach_attr *a = (const struct chunk_reach_attr *)x->attr;
    tl_arg *doc = &x->call.in[strstr(x->op->name, "_bwd") ? 5 : 3], *pick = &x->call.in[4];
    if (doc->data) example_runs(doc, true);
    if (!strstr(x->op->name, "_bwd")) return;
    const tl_desc *d = &pick->d;
    const int64_t T = d->dim[1], H = d->ndim == 4 ? d->dim[2] : 1;
    for (int64_t r = 0; r < tl_desc_rows(d); r++) {
        const int64_t i = r / H % T, b = r / H / T;
        int64_t first = i, n = 0;
        int32_t *to = (int32_t *)pick->data + tl_desc_row(d, r);
        const int32_t *docs = doc->data ? (const int32_t *)doc->data + tl_desc_row(&doc->d, b) : NULL;
        while (first > 0 && (!docs || docs[first - 1] == docs[i])) first--;
        const int64_t there = docs && docs[i] < 0 ? 0 : (i - first) / a->chunk - a->skip;
        for (int64_t h = 0; h < there && n < a->top; h++)
            if ((h + r) % 3 || there - h <= a->top - n) to[n++] = (int32_t)(first + h * a->chunk);
        while (n < a->top) to[n++] = -1;
    }
}

static inline void examples_reach(op_examples *l) {
    static const struct {
        int64_t B, T, H, s, e, chunk, skip, top;
    } d[] = {{1, 1, 0, 1, 1, 1, 0, 1},   {2, 11, 0, 3, 5, 2, 0, 2},    {1, 14, 2, 4, 3, 3, 1, 2},
             {2, 41, 0, 6, 20, 4, 0, 3}, {1, 90, 2, 17, 70, 16, 0, 2}, {1, 70, 0, 70, 33, 7, 1, 16}};
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 6; i++) {
            const tl_dtype t = example_floats[n], sum = example_sum(t);
            struct chunk_reach_attr a;
            memset(&a, 0, sizeof a);
            a.f = example_gate(i == 3   ? GATE_SOFTPLUS2
                               : i == 5 ? GATE_LAPLACE
                                        : GATE_RELU2,
                               i == 2 ? GATE_COUNT_FIXED : GATE_COUNT_VISIBLE, 1, 0);
            a.chunk = d[i].chunk, a.skip = d[i].skip, a.top = (int32_t)d[i].top;
            struct chunk_reach_bwd_attr back = {a};
            const tl_desc q = d[i].H ? D4(t, d[i].B, d[i].T, d[i].H, d[i].s) : D3(t, d[i].B, d[i].T, d[i].s);
            const tl_desc v = d[i].H ? D4(t, d[i].B, d[i].T, d[i].H, d[i].e) : D3(t, d[i].B, d[i].T, d[i].e);
            tl_desc pick = q;
            pick.dim[pick.ndim - 1] = a.top;
            pick = tl_desc_make(TL_I32, pick.ndim, pick.dim);
            for (int bwd = 0; bwd < 2; bwd++)
                for (int docs = 0; docs < 2; docs++) {
                    op_example *x = bwd ? EXAMPLE_GAU(l, "chunk_reach_bwd", back, t, docs ? "docs" : "text")
                                        : EXAMPLE_GAU(l, "chunk_reach", a, t, docs ? "docs" : "text");
                    for (int k = 0; k < 2; k++) example_in(x, bwd + k, i == 1 ? example_view(q, 3) : q, FILL_NORMAL);
                    example_in(x, bwd + 2, v, FILL_NORMAL);
                    if (bwd) example_in(x, 0, v, FILL_NORMAL), example_in(x, 4, pick, FILL_CONST);
                    if (docs)
                        example_in(x, bwd ? 5 : 3, D2(TL_I32, d[i].B, d[i].T), FILL_IDS),
                            example_range(x, bwd ? 5 : 3, 0, 100);
                    if (i & 1) example_in(x, bwd ? 6 : 4, D1(sum, 1), FILL_NORMAL);
                    x->prepare = example_reach_prepare;
                    x->cost_bound = docs;
                    if (bwd && i == 3) x->acc = 8;
                    if (!bwd && t == TL_F64 && i < 3) x->diff = i & 1 ? 23 : 7;
                }
        }
    for (int n = 0; n < 4; n++)
        for (int form = 0; form < 4; form++) {
            enum { R = 13, Q = 3 };
            const tl_dtype t = example_floats[n], cache = t == TL_F32 && form ? TL_BF16 : t;
            const int64_t H = form == 3 ? 2 : 1, s = 6, e = 20, C = form == 2 ? 17 : 30;
            struct chunk_reach_kv_attr a;
            memset(&a, 0, sizeof a);
            a.f.f = example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0);
            a.f.chunk = 4, a.f.skip = form == 1, a.f.top = 1 + form;
            op_example *x = EXAMPLE_GAU(l, "chunk_reach_kv", a, t, "rows");
            example_in(x, 0, form == 3 ? D3(t, R, H, s) : D2(t, R, s), FILL_NORMAL);
            example_in(x, 1, D4(cache, Q, C, H, s), FILL_NORMAL);
            example_in(x, 2, D4(cache, Q, C, H, e), FILL_NORMAL);
            example_in(x, 3, D1(TL_I32, R), FILL_IDS);
            example_range(x, 3, -1, Q);
            example_in(x, 4, D1(TL_I32, R), FILL_IDS);
            example_range(x, 4, 0, 30);
            if (form & 1) example_in(x, 5, D1(example_sum(t), 1), FILL_NORMAL);
            x->cost_bound = true;
        }
}

#endif
