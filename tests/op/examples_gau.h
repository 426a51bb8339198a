/* Examples of gated attention units and mixed chunks. Included by examples.h. */
#ifndef TESTS_OP_EXAMPLES_GAU_H
#define TESTS_OP_EXAMPLES_GAU_H

enum {
    GAU_WITH_DOC = 1,
    GAU_WITH_BIAS = 2,
    GAU_WITH_THETA = 4,
    GAU_WITH_SINK = 8,
    GAU_WITH_VIEWS = 16,
    GAU_WITH_STATE = 32,
    GAU_WITH_PAD = 64,
    GAU_WITH_DSTATE = 128,
    GAU_WITH_HEADS = 256, /* two */
    GAU_LOCAL = 512,
    GAU_FAR = 1024,
    GAU_WITH_SPAN = 2048,
    GAU_OTHER = 4096,   /* keys of another text, twice as long and one */
    GAU_REACH = 8192,   /* one chunk before its own */
    GAU_PERIOD = 16384, /* of four chunks */
    GAU_GRID = 32768
};

static inline op_example *example_gau(op_examples *l, const char *op, const void *attr, size_t size, tl_dtype t,
                                      const char *form) {
    char label[72];
    snprintf(label, sizeof label, "%.40s %s", form, tl_dtype_name(t));
    return example_add(l, op, attr, size, label);
}
#define EXAMPLE_GAU(l, op, attr, t, form) example_gau(l, op, &(attr), sizeof(attr), t, form)

static inline struct gate_attr example_gate(int32_t kind, int32_t count, int32_t causal, float alpha) {
    struct gate_attr a;
    memset(&a, 0, sizeof a);
    a.kind = kind, a.count = count, a.causal = causal, a.alpha = alpha;
    a.fixed = count == GATE_COUNT_FIXED ? 5.0f : 0;
    return a;
}

/* Random numbers into runs: documents 0, 1, .. and, with padding, negative tails and gaps. */
static inline void example_runs(tl_arg *doc, bool pad) {
    int64_t T = doc->d.dim[1];
    for (int64_t b = 0; b < doc->d.dim[0]; b++) {
        int32_t *p = (int32_t *)doc->data + tl_desc_row(&doc->d, b), number = 0;
        for (int64_t t = 0; t < T; t++) {
            if (t && p[t] % 7 == 0) number++;
            int32_t v = p[t];
            p[t] = number;
            if (pad && (t + 2 >= T || (v % 11 == 3 && t > T / 2))) p[t] = -1;
        }
    }
}

static inline void example_gau_docs(example_call *x) {
    const int keys = strstr(x->op->name, "_bwd") ? 2 : 1;
    for (int i = 0; i < TL_OP_INS; i++) {
        tl_arg *a = &x->call.in[i];
        if (a->d.dtype == TL_I32 && a->d.ndim == 2) example_runs(a, strstr(x->example->label, "pad") != NULL);
        if (a->d.dtype == TL_I32 && a->d.ndim == 3) example_spans(a, x->call.in[keys].d.dim[1]);
    }
}

/* Output and statistic that the backward pass is given: those of its own inputs. */
static inline void example_gau_forward(example_call *x) {
    tl_op_call c;
    example_gau_docs(x);
    if (x->call.in[4].d.dtype == TL_NONE) return;
    memset(&c, 0, sizeof c);
    c.attr = x->attr;
    for (int i = 0; i < 3; i++) c.in[i] = x->call.in[1 + i];
    for (int i = 0; i < 5; i++) c.in[3 + i] = x->call.in[6 + i];
    c.out[0] = x->call.in[4];
    c.out[1] = x->call.in[5];
    tl_op_find("gau_attention")->ref_f64(&c);
}

/* dim: B, T, s, e */
static inline void examples_gau_one(op_examples *l, tl_dtype t, const int64_t *dim, struct gate_attr f, int with,
                                    const char *form) {
    int64_t B = dim[0], T = dim[1], s = dim[2], e = dim[3];
    tl_dtype sum = example_sum(t);
    struct gau_attention_attr a;
    struct gau_attention_bwd_attr back;
    memset(&a, 0, sizeof a);
    memset(&back, 0, sizeof back);
    a.f = back.f = f;
    const bool heads = with & GAU_WITH_HEADS;
    const int64_t S = with & GAU_OTHER ? 2 * T + 1 : T;
    tl_desc q = heads ? D4(t, B, T, 2, s) : D3(t, B, T, s), wide = heads ? D4(t, B, T, 2, e) : D3(t, B, T, e);
    tl_desc k = heads ? D4(t, B, S, 2, s) : D3(t, B, S, s), v = heads ? D4(t, B, S, 2, e) : D3(t, B, S, e);
    if (with & GAU_WITH_VIEWS) q = example_view(q, 3), k = example_view(k, 3), v = example_view(v, 5);
    for (int bwd = 0; bwd < 2; bwd++) {
        op_example *x =
            bwd ? EXAMPLE_GAU(l, "gau_attention_bwd", back, t, form) : EXAMPLE_GAU(l, "gau_attention", a, t, form);
        int at = bwd ? 1 : 0, more = bwd ? 6 : 3;
        example_in(x, at, q, FILL_NORMAL);
        example_in(x, at + 1, k, FILL_NORMAL);
        example_in(x, at + 2, v, FILL_NORMAL);
        if (with & GAU_WITH_DOC) example_in(x, more, D2(TL_I32, B, T), FILL_IDS), example_range(x, more, 0, 1000);
        if (with & GAU_WITH_SPAN)
            example_in(x, more + 4, D3(TL_I32, B, T, 2), FILL_IDS), example_range(x, more + 4, 0, 1000);
        if (with & GAU_WITH_BIAS) example_in(x, more + 1, D1(sum, 2 * T + 3), FILL_NORMAL);
        if (with & GAU_WITH_THETA) example_in(x, more + 2, D1(sum, 1), FILL_NORMAL);
        if (with & GAU_WITH_SINK) example_in(x, more + 3, D1(sum, 1), FILL_NORMAL);
        x->cost_bound = (with & (GAU_WITH_DOC | GAU_WITH_SPAN)) != 0;
        x->prepare = example_gau_docs;
        if (with & GAU_WITH_VIEWS) x->out_pad = 2;
        if (bwd) {
            example_in(x, 0, wide, FILL_NORMAL);
            if (f.kind >= GATE_SOFTMAX) {
                example_in(x, 4, wide, FILL_NORMAL);
                example_in(x, 5, heads ? D3(sum, B, 2, T) : D2(sum, B, T), FILL_NORMAL);
            }
            x->prepare = example_gau_forward;
            if (T & 1) x->acc = (with & GAU_WITH_BIAS ? 8u : 0) | (with & GAU_WITH_THETA ? 16u : 0);
            if (T == 3) x->unwanted = 1;
        } else if (t == TL_F64 && B * T * (s + e) <= 200) {
            x->diff = 7u | (with & GAU_WITH_BIAS ? 16u : 0) | (with & GAU_WITH_THETA ? 32u : 0) |
                      (with & GAU_WITH_SINK ? 64u : 0);
            x->tol = 3e-6;
        }
    }
}

static inline void examples_gau_attention(op_examples *l) {
    static const int64_t one[] = {1, 1, 1, 1}, odd[] = {2, 3, 5, 7}, small[] = {1, 7, 4, 9}, less[] = {1, 63, 32, 40},
                         more[] = {2, 65, 16, 70};
    static const char *const names[GATE_KINDS] = {"relu2",    "laplace", "softplus2", "smooth2",  "smooth1",
                                                  "identity", "softmax", "l2",        "relu2_sum"};
    for (int n = 0; n < 4; n++) {
        tl_dtype t = example_floats[n];
        for (int32_t kind = 0; kind < GATE_KINDS; kind++) {
            bool sum = kind < GATE_SOFTMAX;
            struct gate_attr f = example_gate(kind, sum ? kind % GATE_COUNT_LENGTH : 0, kind % 2, 0);
            examples_gau_one(l, t, small, f, GAU_WITH_BIAS | (sum ? GAU_WITH_THETA : 0), names[kind]);
            f.causal = !f.causal;
            f.bias_scale = 0.5f;
            f.kappa = kind == GATE_SOFTMAX;
            examples_gau_one(l, t, odd, f, GAU_WITH_VIEWS | GAU_WITH_BIAS | (kind == GATE_SOFTMAX ? GAU_WITH_SINK : 0),
                             names[kind]);
            f.bias_scale = 0;
            if (t != TL_F16) examples_gau_one(l, t, less, f, GAU_WITH_DOC, names[kind]);
        }
        examples_gau_one(l, t, one, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 1), 0, "one");
        examples_gau_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0),
                         GAU_WITH_HEADS | GAU_WITH_BIAS | GAU_WITH_DOC, "heads");
        examples_gau_one(l, t, odd, example_gate(GATE_SOFTMAX, 0, 0, 0), GAU_WITH_HEADS | GAU_WITH_VIEWS, "heads");
        examples_gau_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), GAU_WITH_DOC, "documents");
        examples_gau_one(l, t, small, example_gate(GATE_L2, 0, 0, 0), GAU_WITH_DOC, "padded l2");
        examples_gau_one(l, t, one, example_gate(GATE_SOFTMAX, 0, 1, 1), 0, "one, softmax");
        examples_gau_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_LENGTH, 0, 0.1f), GAU_WITH_BIAS, "length");
        examples_gau_one(l, t, less, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 0, 0), GAU_WITH_DOC, "padded");
        examples_gau_one(l, t, less, example_gate(GATE_SOFTMAX, 0, 1, 0), GAU_WITH_DOC, "padded softmax");
        examples_gau_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 0, 0),
                         GAU_WITH_SPAN | GAU_WITH_BIAS | GAU_WITH_THETA, "spans");
        examples_gau_one(l, t, odd, example_gate(GATE_SOFTMAX, 0, 0, 0),
                         GAU_WITH_SPAN | GAU_OTHER | GAU_WITH_HEADS | GAU_WITH_VIEWS, "spans of another text");
        examples_gau_one(l, t, odd, example_gate(GATE_RELU2, GATE_COUNT_LENGTH, 0, 0), GAU_OTHER, "another text");
        examples_gau_one(l, t, less, example_gate(GATE_RELU2_SUM, 0, 0, 0), GAU_WITH_SPAN | GAU_WITH_DOC,
                         "spans, documents");
    }
    examples_gau_one(l, TL_F32, more, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), GAU_WITH_BIAS, "65");
    examples_gau_one(l, TL_BF16, more, example_gate(GATE_SOFTMAX, 0, 1, 0), 0, "65 softmax");
    static const int64_t far[] = {1, 300, 8, 12};
    examples_gau_one(l, TL_F32, far, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 0, 0), GAU_OTHER | GAU_WITH_SPAN,
                     "300 of 601");
}

/* dim: B, T, s, e, c */
static inline void examples_chunk_one(op_examples *l, tl_dtype t, const int64_t *dim, struct gate_attr f, int32_t norm,
                                      int with, const char *form) {
    int64_t B = dim[0], T = dim[1], s = dim[2], e = dim[3];
    tl_dtype sum = example_sum(t);
    struct mixed_chunk_attr a;
    struct mixed_chunk_bwd_attr back;
    memset(&a, 0, sizeof a);
    memset(&back, 0, sizeof back);
    a.f = f, a.chunk = dim[4], a.norm = norm;
    a.parts = with & GAU_LOCAL ? CHUNK_LOCAL : with & GAU_FAR ? CHUNK_FAR : CHUNK_BOTH;
    a.reach = with & GAU_REACH ? 1 : 0;
    a.period = with & GAU_PERIOD ? 4 * dim[4] : 0;
    if (with & GAU_GRID) { /* windows at the edges are smaller */
        a.rows = T == 15 ? 3 : 20, a.cols = T / a.rows, a.high = T == 15 ? 2 : 7, a.wide = dim[4] / a.high;
    }
    const int64_t table = a.rows ? (2 * a.high - 1) * (2 * a.wide - 1) : 2 * (a.reach + 1) * dim[4] - 1;
    back.f = a;
    const bool heads = with & GAU_WITH_HEADS;
    tl_desc q = heads ? D4(t, B, T, 2, s) : D3(t, B, T, s), v = heads ? D4(t, B, T, 2, e) : D3(t, B, T, e), wide = v;
    if (with & GAU_WITH_VIEWS) q = example_view(q, 3), v = example_view(v, 5);
    for (int bwd = 0; bwd < 2; bwd++) {
        op_example *x =
            bwd ? EXAMPLE_GAU(l, "mixed_chunk_bwd", back, t, form) : EXAMPLE_GAU(l, "mixed_chunk", a, t, form);
        int at = bwd ? 2 : 0, more = at + 5;
        for (int i = 0; i < 4; i++) example_in(x, at + i, q, FILL_NORMAL);
        example_in(x, at + 4, v, FILL_NORMAL);
        if (with & GAU_WITH_DOC) example_in(x, more, D2(TL_I32, B, T), FILL_IDS), example_range(x, more, 0, 1000);
        if (with & GAU_WITH_BIAS) example_in(x, more + 1, D1(sum, table), FILL_NORMAL);
        if (with & GAU_WITH_THETA) example_in(x, more + 2, D1(sum, 1), FILL_NORMAL);
        if (with & GAU_WITH_STATE) {
            example_in(x, more + 3, heads ? D4(sum, B, 2, s, e) : D3(sum, B, s, e), FILL_NORMAL);
            example_in(x, more + 4, D1(TL_I32, B), FILL_IDS);
            example_range(x, more + 4, 1, 20);
        }
        x->cost_bound = (with & GAU_WITH_DOC) != 0;
        x->prepare = example_gau_docs;
        if (with & GAU_WITH_VIEWS) x->out_pad = 2;
        if (bwd) {
            example_in(x, 0, wide, FILL_NORMAL);
            if (with & GAU_WITH_DSTATE) example_in(x, 1, heads ? D4(sum, B, 2, s, e) : D3(sum, B, s, e), FILL_NORMAL);
            if (T & 1) x->acc = (with & GAU_WITH_BIAS ? 32u : 0) | (with & GAU_WITH_THETA ? 64u : 0);
            if (T == 5) x->unwanted = 8; /* R is then needed for dv alone */
        } else {
            if ((T & 1 || !f.causal) && !a.reach && !a.period) x->unwanted = 2;
            if (t == TL_F64 && B * T * (4 * s + e) <= 300) {
                x->diff = (with & GAU_LOCAL ? 19u
                           : with & GAU_FAR ? 28u
                                            : 31u) |
                          (with & GAU_WITH_BIAS ? 64u : 0) | (with & GAU_WITH_THETA ? 128u : 0) |
                          (with & GAU_WITH_STATE ? 256u : 0);
                x->tol = 3e-6;
            }
        }
    }
}

static inline void examples_chunk(op_examples *l) {
    static const int64_t one[] = {1, 1, 1, 1, 1}, odd[] = {2, 5, 3, 5, 2}, small[] = {1, 11, 3, 10, 4},
                         wide[] = {1, 9, 2, 17, 3}, lines[] = {1, 6, 4, 3, 1}, less[] = {2, 40, 6, 12, 8},
                         more[] = {1, 67, 16, 33, 16}, all[] = {1, 7, 3, 4, 9};
    for (int n = 0; n < 4; n++) {
        tl_dtype t = example_floats[n];
        examples_chunk_one(l, t, one, example_gate(GATE_RELU2, 0, 1, 1), 0, 0, "one");
        examples_chunk_one(l, t, odd, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), 0,
                           GAU_WITH_VIEWS | GAU_WITH_BIAS, "views");
        examples_chunk_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_FIXED, 1, 0), CHUNK_CONST,
                           GAU_WITH_BIAS | GAU_WITH_THETA, "fixed, constant");
        examples_chunk_one(l, t, small, example_gate(GATE_SOFTPLUS2, GATE_COUNT_VISIBLE, 1, 0.5f), 0,
                           GAU_WITH_STATE | GAU_WITH_DSTATE, "state");
        examples_chunk_one(l, t, small, example_gate(GATE_SMOOTH2, 0, 0, 0.5f), CHUNK_CONST, GAU_WITH_BIAS,
                           "both ways, constant");
        examples_chunk_one(l, t, wide, example_gate(GATE_LAPLACE, GATE_COUNT_VISIBLE, 0, 0), 0, GAU_WITH_THETA,
                           "both ways");
        examples_chunk_one(l, t, lines, example_gate(GATE_IDENTITY, GATE_COUNT_VISIBLE, 1, 0), 0, 0, "chunks of one");
        examples_chunk_one(l, t, all, example_gate(GATE_SMOOTH1, 0, 1, 0.25f), 0, GAU_WITH_DSTATE, "one chunk");
        examples_chunk_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), 0, GAU_WITH_DOC,
                           "documents");
        examples_chunk_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 0, 0), 0, GAU_WITH_DOC,
                           "padded both ways");
        examples_chunk_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), 0,
                           GAU_WITH_HEADS | GAU_WITH_BIAS | GAU_WITH_STATE | GAU_WITH_DSTATE | GAU_WITH_DOC, "heads");
        examples_chunk_one(l, t, odd, example_gate(GATE_SOFTPLUS2, GATE_COUNT_VISIBLE, 0, 0), 0,
                           GAU_WITH_HEADS | GAU_WITH_VIEWS | GAU_WITH_THETA, "heads both ways");
        for (int32_t causal = 0; causal < 2; causal++) {
            examples_chunk_one(l, t, small, example_gate(GATE_SOFTPLUS2, GATE_COUNT_VISIBLE, causal, 0), 0,
                               GAU_LOCAL | GAU_WITH_BIAS | GAU_WITH_HEADS, "local");
            examples_chunk_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, causal, 0), 0,
                               GAU_FAR | (causal ? GAU_WITH_STATE : 0), "linear");
            examples_chunk_one(l, t, small, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, causal, 0), 0,
                               GAU_FAR | GAU_WITH_DOC, "padded linear");
        }
        static const int64_t grid[] = {1, 15, 3, 4, 4}, windows[] = {1, 380, 6, 20, 49};
        const struct gate_attr plane = example_gate(GATE_SOFTPLUS2, GATE_COUNT_VISIBLE, 0, 0);
        examples_chunk_one(l, t, grid, plane, 0, GAU_GRID | GAU_WITH_BIAS | GAU_WITH_THETA, "grid");
        examples_chunk_one(l, t, grid, plane, 0, GAU_GRID | GAU_LOCAL | GAU_WITH_BIAS | GAU_WITH_HEADS, "grid, local");
        if (t == TL_F32) examples_chunk_one(l, t, windows, plane, 0, GAU_GRID | GAU_WITH_BIAS, "grid of 20 x 19");
        const struct gate_attr relu = example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0);
        examples_chunk_one(l, t, small, relu, 0, GAU_REACH | GAU_WITH_BIAS | GAU_WITH_THETA, "overlap");
        examples_chunk_one(l, t, odd, relu, CHUNK_CONST, GAU_REACH | GAU_WITH_HEADS | GAU_WITH_VIEWS, "overlap");
        examples_chunk_one(l, t, small, relu, 0, GAU_REACH | GAU_WITH_DOC, "overlap, padded documents");
        examples_chunk_one(l, t, odd, relu, 0, GAU_PERIOD | GAU_WITH_BIAS, "periods");
        examples_chunk_one(l, t, lines, relu, 0, GAU_PERIOD | GAU_REACH, "periods, overlap");
        examples_chunk_one(l, t, small, relu, 0, GAU_REACH | GAU_FAR, "overlap, linear");
        examples_chunk_one(l, t, small, relu, 0, GAU_REACH | GAU_LOCAL | GAU_WITH_BIAS, "overlap, local");
        if (t == TL_F16) continue;
        examples_chunk_one(l, t, less, relu, 0, GAU_REACH | GAU_PERIOD | GAU_WITH_DOC, "padded, periods, overlap");
        examples_chunk_one(l, t, more, relu, 0, GAU_REACH | GAU_WITH_BIAS, "67, overlap");
        examples_chunk_one(l, t, less, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), 0,
                           GAU_WITH_DOC | GAU_WITH_STATE | GAU_WITH_DSTATE, "padded, state");
        examples_chunk_one(l, t, more, example_gate(GATE_RELU2, 0, 1, 0.0625f), CHUNK_CONST, GAU_WITH_BIAS, "67");
    }
}

static inline void examples_gau_kv(op_examples *l) {
    enum { R = 5, Q = 3, C = 9, s = 6, e = 20 };
    for (int n = 0; n < 4; n++)
        for (int32_t kind = 0; kind < GATE_KINDS; kind++) {
            tl_dtype t = example_floats[n], cache = t == TL_F32 && kind % 2 ? TL_BF16 : t, sum = example_sum(t);
            bool add = kind < GATE_SOFTMAX;
            struct gau_attention_kv_attr a;
            memset(&a, 0, sizeof a);
            a.f = example_gate(kind, add ? kind % GATE_COUNT_LENGTH : 0, 1, 0);
            a.f.kappa = kind == GATE_SOFTMAX;
            op_example *x = EXAMPLE_GAU(l, "gau_attention_kv", a, t, "cache");
            const int64_t H = kind % 3 ? 1 : 3;
            example_in(x, 0, H > 1 ? D3(t, R, H, s) : D2(t, R, s), FILL_NORMAL);
            example_in(x, 1, D4(cache, Q, C, H, s), FILL_NORMAL);
            example_in(x, 2, D4(cache, Q, C, H, e), FILL_NORMAL);
            example_in(x, 3, D1(TL_I32, R), FILL_IDS);
            example_range(x, 3, -1, Q);
            example_in(x, 4, D1(TL_I32, R), FILL_IDS);
            example_range(x, 4, 0, 2 * C);
            if (kind != GATE_L2) example_in(x, 5, D1(sum, 2 * C - 1), FILL_NORMAL);
            if (kind == GATE_LAPLACE) example_in(x, 6, D1(sum, 1), FILL_NORMAL);
            if (kind == GATE_SOFTMAX) example_in(x, 7, D1(sum, 1), FILL_NORMAL);
            if (kind == GATE_SMOOTH1 || kind == GATE_L2)
                example_in(x, 8, D1(TL_I32, R), FILL_IDS), example_range(x, 8, 0, 2 * C);
            x->cost_bound = true;
        }
    for (int n = 0; n < 4; n++) /* a prompt: rows of one slot, one after the other */
        for (int form = 0; form < 4; form++) {
            tl_dtype t = example_floats[n], sum = example_sum(t);
            struct gau_attention_kv_attr a;
            memset(&a, 0, sizeof a);
            a.f = example_gate(form == 1   ? GATE_SOFTMAX
                               : form == 2 ? GATE_L2
                                           : GATE_RELU2,
                               form ? 0 : GATE_COUNT_VISIBLE, 1, 0);
            op_example *x = EXAMPLE_GAU(l, "gau_attention_kv", a, t, "prompt");
            example_in(x, 0, D2(t, 71, s), FILL_NORMAL);
            example_in(x, 1, D4(t, Q, 90, 1, s), FILL_NORMAL);
            example_in(x, 2, D4(t, Q, 90, 1, e), FILL_NORMAL);
            example_in(x, 3, D1(TL_I32, 71), FILL_CONST);
            x->lo[3] = 1;
            example_in(x, 4, D1(TL_I32, 71), FILL_ARANGE);
            x->lo[4] = form % 3 * 9;
            if (form == 1) example_in(x, 5, D1(sum, 2 * 90 - 1), FILL_NORMAL);
            if (form > 1) example_in(x, 8, D1(TL_I32, 71), FILL_CONST), x->lo[8] = 80; /* all of it seen by all */
            x->cost_bound = true;
        }
}

/* Positions of a slot in order: rows go round the slots, each from a beginning of its own. */
static inline void example_step_positions(example_call *x) {
    int at = strcmp(x->op->name, "chunk_step") ? 1 : 5;
    int32_t *slot = (int32_t *)x->call.in[at].data, *pos = (int32_t *)x->call.in[at + 1].data, next[8];
    for (int i = 0; i < 8; i++) next[i] = pos[0] + 3 * i;
    for (int64_t r = 0; r < x->call.in[at].d.dim[0]; r++) pos[r] = slot[r] < 0 ? 0 : next[slot[r]]++;
}

static inline void examples_step(op_examples *l) {
    enum { R = 13, Q = 3, c = 4, s = 6, e = 20 };
    for (int n = 0; n < 4; n++)
        for (int form = 0; form < 8; form++) {
            const bool heads = form == 3;
            tl_dtype t = example_floats[n], cache = t == TL_F32 && form ? TL_BF16 : t, sum = example_sum(t);
            struct chunk_step_attr a;
            memset(&a, 0, sizeof a);
            a.f.f = example_gate(form == 2 ? GATE_SOFTPLUS2 : GATE_RELU2, form ? GATE_COUNT_VISIBLE : 0, 1, 0);
            a.f.norm = form == 1 ? CHUNK_CONST : CHUNK_VISIBLE;
            a.f.reach = form > 5 ? 1 : 0, a.f.period = form == 7 ? 2 * c : 0;
            a.f.parts = form == 4 ? CHUNK_LOCAL : form == 5 ? CHUNK_FAR : CHUNK_BOTH;
            op_example *x = EXAMPLE_GAU(l, "chunk_step", a, t, form > 5 ? "overlap" : form ? "visible" : "plain");
            for (int i = 0; i < 4; i++) example_in(x, i, heads ? D3(t, R, 2, s) : D2(t, R, s), FILL_NORMAL);
            example_in(x, 4, heads ? D3(t, R, 2, e) : D2(t, R, e), FILL_NORMAL);
            example_in(x, 5, D1(TL_I32, R), FILL_IDS);
            example_range(x, 5, -1, Q);
            example_in(x, 6, D1(TL_I32, R), FILL_IDS);
            example_range(x, 6, 0, 9);
            if (form && form != 5) example_in(x, 7, D1(sum, 2 * c - 1), FILL_NORMAL);
            if (form == 2) example_in(x, 8, D1(sum, 1), FILL_NORMAL);
            x->bound[1] = heads ? D4(sum, Q, 2, s, e) : D3(sum, Q, s, e);
            x->bound[2] = x->bound[3] = heads ? D4(cache, Q, c, 2, s) : D3(cache, Q, c, s);
            x->bound[4] = heads ? D4(cache, Q, c, 2, e) : D3(cache, Q, c, e);
            x->acc = 30;
            x->cost_bound = true;
            x->prepare = example_step_positions;
        }
    for (int n = 0; n < 4; n++)
        for (int form = 0; form < 2; form++) {
            tl_dtype t = example_floats[n];
            struct shift_step_attr a = {0};
            op_example *x = EXAMPLE_GAU(l, "shift_step", a, t, form ? "some" : "all");
            example_in(x, 0, form ? example_view(D2(t, R, e), 4) : D2(t, R, e), FILL_NORMAL);
            example_in(x, 1, D1(TL_I32, R), FILL_IDS);
            example_range(x, 1, -1, Q);
            example_in(x, 2, D1(TL_I32, R), FILL_IDS);
            example_range(x, 2, 0, 2);
            x->bound[1] = D3(t, Q, 1 + form, form ? e / 2 : e);
            x->acc = 2;
            x->cost_bound = true;
            x->prepare = example_step_positions;
        }
}

static inline void examples_offset(op_examples *l) {
    for (int n = 0; n < 4; n++)
        for (int form = 0; form < 4; form++) {
            tl_dtype t = example_floats[n], sum = example_sum(t);
            tl_desc z = form == 0   ? D1(t, 1)
                        : form == 1 ? D3(t, 2, 3, 5)
                        : form == 2 ? example_view(D2(t, 4, 17), 3)
                                    : D2(t, 3, 64);
            int64_t width = (form == 0 ? 1 : form == 3 ? 2 : 4) * tl_desc_last(&z);
            tl_desc y = z;
            y.dim[y.ndim - 1] = width;
            y = tl_desc_make(t, y.ndim, y.dim);
            struct offset_scale_attr a = {0};
            struct offset_scale_bwd_attr back = {form & 1};
            op_example *x = EXAMPLE_GAU(l, "offset_scale", a, t, form & 1 ? "beta" : "gamma");
            example_in(x, 0, z, FILL_NORMAL);
            example_in(x, 1, D1(sum, width), FILL_NORMAL);
            if (form & 1) example_in(x, 2, D1(sum, width), FILL_NORMAL);
            if (t == TL_F64 && form < 2) x->diff = form ? 7 : 3;
            if (form == 2) x->out_pad = 3;
            x = EXAMPLE_GAU(l, "offset_scale_bwd", back, t, form & 1 ? "beta" : "gamma");
            example_in(x, 0, y, FILL_NORMAL);
            example_in(x, 1, z, FILL_NORMAL);
            example_in(x, 2, D1(sum, width), FILL_NORMAL);
            x->acc = form == 3 ? 7 : form == 2 ? 3 : 0;
            struct grid_order_attr grid;
            memset(&grid, 0, sizeof grid);
            grid.rows = form < 2 ? 4 : 7, grid.cols = form == 1 ? 1 : form == 3 ? 5 : 6, grid.high = 2;
            grid.wide = form == 1 ? 1 : 3;
            grid.inverse = form & 1;
            x = EXAMPLE_GAU(l, "grid_order", grid, t, form & 1 ? "back" : "windows");
            example_in(x, 0, example_view(D3(t, 2, grid.rows * grid.cols, 3), form == 2 ? 4 : 0), FILL_NORMAL);
            if (t == TL_F64) x->diff = 1;
            struct shift_attr sh;
            memset(&sh, 0, sizeof sh);
            sh.channels = form * 3, sh.inverse = form & 1;
            x = EXAMPLE_GAU(l, "shift", sh, t, form & 1 ? "back" : "forth");
            example_in(x, 0, form == 2 ? example_view(D3(t, 2, 5, 9), 3) : D3(t, 2, 5, 9), FILL_NORMAL);
            if (form > 1) example_in(x, 1, D2(TL_I32, 2, 5), FILL_IDS), example_range(x, 1, 0, 100);
            x->prepare = example_gau_docs;
            if (t == TL_F64 && form != 2) x->diff = 1;
            sh.channels = 4;
            x = EXAMPLE_GAU(l, "shift", sh, t, form & 1 ? "back, edge" : "forth, edge");
            example_in(x, 0, D3(t, 2, form > 1 ? 1 : 5, 9), FILL_NORMAL);
            if (form) example_in(x, 1, D2(TL_I32, 2, form > 1 ? 1 : 5), FILL_IDS), example_range(x, 1, 0, 100);
            example_in(x, 2, D2(t, 2, 4), FILL_NORMAL);
            x->prepare = example_gau_docs;
            if (t == TL_F64) x->diff = 5;
        }
}

/* Logarithms of decays are not positive; documents; positions in order. */
static inline void example_state_prepare(example_call *x) {
    const bool step = strstr(x->op->name, "_step") != NULL;
    const float tau = ((const float *)x->attr)[1]; /* of chunk_state and delta_rule alike */
    tl_arg *g = &x->call.in[strstr(x->op->name, "_bwd") ? 5 : 3];
    for (int64_t i = 0; g->data && !(tau > 0) && i < tl_desc_count(&g->d); i++) {
        if (g->d.dtype == TL_F64)
            ((double *)g->data)[i] *= -1;
        else
            ((float *)g->data)[i] *= -1;
    }
    if (step) {
        int32_t *slot = (int32_t *)x->call.in[4].data, *pos = (int32_t *)x->call.in[5].data, next[8];
        for (int i = 0; i < 8; i++) next[i] = i % 2 ? pos[0] : 0;
        for (int64_t r = 0; r < x->call.in[4].d.dim[0]; r++) pos[r] = slot[r] < 0 ? 0 : next[slot[r]]++;
    } else {
        example_gau_docs(x);
    }
}

/* decay: 0 none, 1 a number of a head, 2 of a token, 3 a vector */
static inline void examples_state_one(op_examples *l, tl_dtype t, const int64_t *dim, int decay, float tau, int with,
                                      const char *form) {
    int64_t B = dim[0], T = dim[1], H = dim[2], s = dim[3], e = dim[4];
    const bool ones = with & GAU_WITH_THETA, causal = !(with & GAU_WITH_PAD);
    const int64_t n = e + ones;
    tl_dtype sum = example_sum(t);
    struct chunk_state_attr a;
    struct chunk_state_bwd_attr back;
    memset(&a, 0, sizeof a);
    a.scale = decay ? 0.5f : 0, a.tau = tau, a.causal = causal, a.ones = ones;
    back.f = a;
    tl_desc q = D4(t, B, T, H, s), v = D4(t, B, T, H, e);
    if (with & GAU_WITH_VIEWS) q = example_view(q, 3), v = example_view(v, 5);
    for (int bwd = 0; bwd < 2; bwd++) {
        op_example *x =
            bwd ? EXAMPLE_GAU(l, "chunk_state_bwd", back, t, form) : EXAMPLE_GAU(l, "chunk_state", a, t, form);
        const int at = bwd ? 2 : 0;
        for (int i = 0; i < 2; i++) example_in(x, at + i, q, FILL_NORMAL);
        example_in(x, at + 2, v, FILL_NORMAL);
        tl_desc g = decay == 1 ? D1(sum, H) : decay == 2 ? D3(sum, B, T, H) : D4(sum, B, T, H, s);
        if (decay) example_in(x, at + 3, g, tau > 0 ? FILL_NORMAL : FILL_POSITIVE);
        if (with & GAU_WITH_DOC) example_in(x, at + 4, D2(TL_I32, B, T), FILL_IDS), example_range(x, at + 4, 0, 1000);
        if (with & GAU_WITH_STATE) example_in(x, at + 5, D4(sum, B, H, s, n), FILL_NORMAL);
        x->cost_bound = (with & GAU_WITH_DOC) != 0;
        x->prepare = example_state_prepare;
        if (bwd) {
            example_in(x, 0, D4(t, B, T, H, n), FILL_NORMAL);
            if (with & GAU_WITH_DSTATE) example_in(x, 1, D4(sum, B, H, s, n), FILL_NORMAL);
            if (T == 5) x->unwanted = 5;
        } else {
            if (!causal || T == 5) x->unwanted = 2;
            if (t == TL_F64 && B * T * H * (2 * s + e) <= 300) {
                x->diff = 7u | (decay ? 8u : 0) | (with & GAU_WITH_STATE ? 32u : 0);
                x->tol = 3e-6;
            }
        }
    }
}

/* Rows over a number of theirs, and positive random features: T tokens of width D, m features of x of width d. */
static inline void examples_gau_features(op_examples *l, tl_dtype t, int64_t T, int64_t D, int64_t m, int64_t d) {
    for (int bwd = 0; bwd < 2; bwd++) {
        struct row_divide_attr a = {0.25f};
        struct row_divide_bwd_attr back = {0.25f};
        op_example *x =
            bwd ? EXAMPLE_GAU(l, "row_divide_bwd", back, t, "rows") : EXAMPLE_GAU(l, "row_divide", a, t, "rows");
        example_in(x, 0, D3(t, 2, T, D), FILL_NORMAL);
        example_in(x, 1, D3(t, 2, T, 1), FILL_POSITIVE);
        if (bwd) example_in(x, 2, D3(t, 2, T, D), FILL_NORMAL);
        if (!bwd && t == TL_F64) x->diff = 3;
        struct favor_attr f = {0};
        struct favor_bwd_attr fb = {0};
        x = bwd ? EXAMPLE_GAU(l, "favor_bwd", fb, t, "rows") : EXAMPLE_GAU(l, "favor", f, t, "rows");
        example_in(x, 0, D3(t, 2, T, m), FILL_NORMAL);
        example_in(x, 1, D3(t, 2, T, d), FILL_NORMAL);
        if (bwd) example_in(x, 2, D3(t, 2, T, m), FILL_POSITIVE);
        if (!bwd && t == TL_F64) x->diff = 3;
    }
}

static inline void examples_state(op_examples *l) {
    enum { R = 7, Q = 3, H = 2, s = 5, e = 9 };
    static const int64_t one[] = {1, 1, 1, 1, 1}, odd[] = {2, 5, 2, 3, 4}, small[] = {1, 7, 2, 4, 5},
                         less[] = {1, 63, 1, 5, 17}, more[] = {1, 65, 2, 17, 9}, far[] = {1, 193, 1, 8, 8};
    for (int n = 0; n < 4; n++) {
        tl_dtype t = example_floats[n];
        for (int decay = 0; decay < 4; decay++) {
            const float tau = decay == 3 ? 2.0f : 0;
            examples_state_one(l, t, one, decay, 0, 0, "one");
            examples_state_one(l, t, odd, decay, tau, GAU_WITH_VIEWS | GAU_WITH_THETA, "views, ones");
            examples_state_one(l, t, small, decay, decay ? 1.0f : 0, GAU_WITH_STATE | GAU_WITH_DSTATE, "state");
            examples_state_one(l, t, small, decay, 0, GAU_WITH_DOC | GAU_WITH_STATE | GAU_WITH_DSTATE, "documents");
            if (t == TL_F16) continue;
            examples_state_one(l, t, less, decay, tau, GAU_WITH_DOC | GAU_WITH_STATE | GAU_WITH_DSTATE, "padded");
            examples_state_one(l, t, more, decay, tau, 0, "65");
        }
        examples_state_one(l, t, odd, 0, 0, GAU_WITH_PAD | GAU_WITH_THETA, "both ways");
        examples_state_one(l, t, small, 0, 0, GAU_WITH_PAD | GAU_WITH_DOC, "padded both ways");
        if (t == TL_F32) examples_state_one(l, t, far, 2, 4.0f, GAU_WITH_STATE, "193");
        if (t == TL_F32) examples_state_one(l, t, far, 0, 0, GAU_WITH_PAD, "193 both ways");
        for (int decay = 0; decay < 4; decay++) {
            struct chunk_state_step_attr a;
            tl_dtype sum = example_sum(t);
            memset(&a, 0, sizeof a);
            a.f.causal = 1, a.f.ones = decay == 1, a.f.tau = decay == 2 ? 16.0f : 0;
            op_example *x = EXAMPLE_GAU(l, "chunk_state_step", a, t, "rows");
            for (int i = 0; i < 2; i++) example_in(x, i, D3(t, R, H, s), FILL_NORMAL);
            example_in(x, 2, D3(t, R, H, e), FILL_NORMAL);
            if (decay)
                example_in(x, 3,
                           decay == 1   ? D1(sum, H)
                           : decay == 2 ? D2(sum, R, H)
                                        : D3(sum, R, H, s),
                           FILL_POSITIVE);
            example_in(x, 4, D1(TL_I32, R), FILL_IDS);
            example_range(x, 4, -1, Q);
            example_in(x, 5, D1(TL_I32, R), FILL_IDS);
            example_range(x, 5, 0, 3);
            x->bound[1] = D4(sum, Q, H, s, e + (decay == 1));
            x->acc = 2;
            x->cost_bound = true;
            x->prepare = example_state_prepare;
        }
        examples_gau_features(l, t, 3, 5, 7, 4);
    }
}

/* Keys of about unit length, as models have them: longer ones make the state grow without end. */
static inline void example_delta_prepare(example_call *x) {
    example_state_prepare(x);
    tl_arg *k = &x->call.in[strstr(x->op->name, "_bwd") ? 3 : 1];
    const int64_t s = tl_desc_last(&k->d);
    for (int64_t r = 0; r < tl_desc_rows(&k->d); r++)
        for (int64_t i = 0; i < s; i++) {
            const int64_t at = tl_desc_row(&k->d, r) + i;
            example_store(k, at, example_load(k, at) / sqrt((double)s));
        }
}

static inline void examples_delta_one(op_examples *l, tl_dtype t, const int64_t *dim, bool decay, float tau, int with,
                                      const char *form) {
    int64_t B = dim[0], T = dim[1], H = dim[2], s = dim[3], e = dim[4];
    tl_dtype sum = example_sum(t);
    struct delta_rule_attr a = {decay ? 0.5f : 0, tau};
    struct delta_rule_bwd_attr back = {{decay ? 0.5f : 0, tau}};
    tl_desc q = D4(t, B, T, H, s), v = D4(t, B, T, H, e), b = D3(sum, B, T, H);
    if (with & GAU_WITH_VIEWS) q = example_view(q, 3), v = example_view(v, 5), b = example_view(b, 2);
    for (int bwd = 0; bwd < 2; bwd++) {
        op_example *x =
            bwd ? EXAMPLE_GAU(l, "delta_rule_bwd", back, t, form) : EXAMPLE_GAU(l, "delta_rule", a, t, form);
        const int at = bwd ? 2 : 0;
        for (int i = 0; i < 2; i++) example_in(x, at + i, q, FILL_NORMAL);
        example_in(x, at + 2, v, FILL_NORMAL);
        if (decay) example_in(x, at + 3, b, tau > 0 ? FILL_NORMAL : FILL_POSITIVE);
        if (with & GAU_WITH_DOC) example_in(x, at + 4, D2(TL_I32, B, T), FILL_IDS), example_range(x, at + 4, 0, 1000);
        if (with & GAU_WITH_STATE) example_in(x, at + 5, D4(sum, B, H, s, e), FILL_NORMAL);
        example_in(x, at + 6, b, FILL_POSITIVE);
        x->cost_bound = (with & GAU_WITH_DOC) != 0;
        x->prepare = example_delta_prepare;
        if (bwd) {
            example_in(x, 0, v, FILL_NORMAL);
            if (with & GAU_WITH_DSTATE) example_in(x, 1, D4(sum, B, H, s, e), FILL_NORMAL);
            if (T == 5) x->unwanted = 5;
        } else {
            if (T == 5) x->unwanted = 2;
            if (t == TL_F64 && B * T * H * (2 * s + e) <= 300) {
                x->diff = 7u | 64u | (decay ? 8u : 0) | (with & GAU_WITH_STATE ? 32u : 0);
                x->tol = 3e-6;
            }
        }
    }
}

static inline void examples_delta(op_examples *l) {
    enum { R = 7, Q = 3, H = 2, s = 5, e = 9 };
    static const int64_t one[] = {1, 1, 1, 1, 1}, odd[] = {2, 5, 2, 3, 4}, small[] = {1, 7, 2, 4, 5},
                         less[] = {1, 63, 1, 5, 17}, more[] = {1, 65, 2, 17, 9}, far[] = {1, 193, 1, 8, 8};
    for (int n = 0; n < 4; n++) {
        tl_dtype t = example_floats[n];
        for (int decay = 0; decay < 2; decay++) {
            const float tau = decay ? 2.0f : 0;
            examples_delta_one(l, t, one, decay, 0, 0, "one");
            examples_delta_one(l, t, odd, decay, tau, GAU_WITH_VIEWS, "views");
            examples_delta_one(l, t, small, decay, tau, GAU_WITH_STATE | GAU_WITH_DSTATE, "state");
            examples_delta_one(l, t, small, decay, 0, GAU_WITH_DOC | GAU_WITH_STATE | GAU_WITH_DSTATE, "documents");
            if (t == TL_F16) continue;
            examples_delta_one(l, t, less, decay, tau, GAU_WITH_DOC | GAU_WITH_STATE | GAU_WITH_DSTATE, "padded");
            examples_delta_one(l, t, more, decay, tau, 0, "65");
            if (t == TL_F32) examples_delta_one(l, t, far, decay, tau, GAU_WITH_STATE | GAU_WITH_DSTATE, "193");
        }
        for (int decay = 0; decay < 2; decay++) {
            tl_dtype sum = example_sum(t);
            struct delta_rule_step_attr a = {{0, decay ? 16.0f : 0}};
            op_example *x = EXAMPLE_GAU(l, "delta_rule_step", a, t, "rows");
            for (int i = 0; i < 2; i++) example_in(x, i, D3(t, R, H, s), FILL_NORMAL);
            example_in(x, 2, D3(t, R, H, e), FILL_NORMAL);
            if (decay) example_in(x, 3, D2(sum, R, H), FILL_NORMAL);
            example_in(x, 4, D1(TL_I32, R), FILL_IDS);
            example_range(x, 4, -1, Q);
            example_in(x, 5, D1(TL_I32, R), FILL_IDS);
            example_range(x, 5, 0, 3);
            example_in(x, 6, D2(sum, R, H), FILL_POSITIVE);
            x->bound[1] = D4(sum, Q, H, s, e);
            x->acc = 2;
            x->cost_bound = true;
            x->prepare = example_delta_prepare;
        }
    }
}

static inline void examples_rel(op_examples *l) {
    static const struct rel_buckets_attr rows[] = {
        {1, 2, 3, 1, 0}, {40, 8, 20, 1, 0.5f}, {70, 8, 9, 0, 3.0f}, {9, 32, 128, 0, 0}, {300, 32, 128, 0, 0}};
    static const struct {
        int64_t heads, s, reach;
    } pairs[] = {{1, 2, 1}, {2, 4, 5}, {1, 6, 64}, {3, 2, 65}, {2, 38, 1100}};
    for (int n = 0; n < 2; n++) {
        const tl_dtype t = n ? TL_F64 : TL_F32;
        for (int i = 0; i < 5; i++) {
            struct rel_buckets_bwd_attr back = {rows[i]};
            op_example *x = EXAMPLE_GAU(l, "rel_buckets", rows[i], t, rows[i].causal ? "causal" : "both ways");
            example_in(x, 0, D2(t, 2, rows[i].buckets), FILL_NORMAL);
            if (n) x->diff = 1;
            x = EXAMPLE_GAU(l, "rel_buckets_bwd", back, t, rows[i].causal ? "causal" : "both ways");
            example_in(x, 0, D2(t, 2, 2 * rows[i].reach - 1), FILL_NORMAL);
            x->acc = i & 1;
            struct rel_toeplitz_attr a;
            struct rel_toeplitz_bwd_attr ab;
            memset(&a, 0, sizeof a);
            a.reach = pairs[i].reach, a.base = i == 2 ? 100.0f : 0;
            ab.f = a;
            x = EXAMPLE_GAU(l, "rel_toeplitz", a, t, "table");
            example_in(x, 0, D2(t, pairs[i].heads, 2 * pairs[i].s), FILL_NORMAL);
            if (n) x->diff = 1;
            x = EXAMPLE_GAU(l, "rel_toeplitz_bwd", ab, t, "table");
            example_in(x, 0, D2(t, pairs[i].heads, 2 * a.reach - 1), FILL_NORMAL);
            example_in(x, 1, D2(t, pairs[i].heads, 2 * pairs[i].s), FILL_NORMAL);
            x->acc = i & 1;
        }
    }
}

static inline void examples_time(op_examples *l) {
    static const struct {
        int64_t B, T, H, e, R, P;
    } d[] = {
        {1, 1, 1, 1, 1, 1}, {2, 7, 2, 3, 3, 9}, {2, 9, 1, 5, 4, 9}, {1, 70, 3, 17, 20, 300}, {2, 140, 2, 150, 33, 140}};
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < (n < 3 ? 5 : 3); i++) {
            const tl_dtype t = example_floats[n];
            struct time_mix_attr a = {0};
            struct time_mix_bwd_attr back = {0};
            tl_desc x = D4(t, d[i].B, d[i].T, d[i].H, d[i].e);
            if (i == 1) x = example_view(x, 4);
            for (int bwd = 0; bwd < 2; bwd++) {
                op_example *e = bwd ? EXAMPLE_GAU(l, "time_mix_bwd", back, t, "weights")
                                    : EXAMPLE_GAU(l, "time_mix", a, t, "weights");
                example_in(e, bwd, D2(t, d[i].R, d[i].P), FILL_NORMAL);
                example_in(e, bwd + 1, x, FILL_NORMAL);
                if (bwd) example_in(e, 0, D4(t, d[i].B, d[i].R, d[i].H, d[i].e), FILL_NORMAL);
                if (bwd && i & 1) e->acc = 2;
                if (!bwd && t == TL_F64 && i < 3) e->diff = 3;
            }
        }
}

#include "examples_far.h"

static inline void examples_gau(op_examples *l) {
    examples_reach(l);
    examples_landmarks(l);
    examples_time(l);
    examples_rel(l);
    examples_state(l);
    examples_delta(l);
    examples_offset(l);
    examples_gau_attention(l);
    examples_gau_kv(l);
    examples_chunk(l);
    examples_step(l);
}

#endif
