/* Examples of embeddings, rotary positions, attention, caches, dropout, the loss head and the optimizer. Included by
 * examples.h. */
#ifndef TESTS_OP_EXAMPLES_A_H
#define TESTS_OP_EXAMPLES_A_H

/* f32, f64, bf16, f16 in turn */
static const tl_dtype example_a_floats[4] = {TL_F32, TL_F64, TL_BF16, TL_F16};

static inline op_example *example_a(op_examples *l, const char *op, const void *attr, size_t size, const char *form,
                                    tl_dtype t) {
    char label[72];
    snprintf(label, sizeof label, "%s %s", form, tl_dtype_name(t));
    return example_add(l, op, attr, size, label);
}
#define EXAMPLE_A(l, op, attr, form, t) example_a(l, op, &(attr), sizeof(attr), form, t)

/* ---- embedding, rope, dropout ------------------------------------------------------------------------- */

static inline void examples_embedding_one(op_examples *l, tl_desc ids, int64_t V, int64_t D, tl_dtype t, float scale,
                                          tl_dtype to, const char *form) {
    struct embedding_attr a = {scale, to};
    struct embedding_bwd_attr b = {scale, 0, V};
    op_example *e = EXAMPLE_A(l, "embedding", a, form, t);
    example_in(e, 0, ids, FILL_IDS);
    example_range(e, 0, 0, V);
    example_in(e, 1, D2(t, V, D), FILL_NORMAL);
    e->acc = scale == 0;
    e->out_pad = scale == 2;
    if (t == TL_F64) e->diff = 2;
    if (tl_dtype_block(t) > 1) return;
    e = EXAMPLE_A(l, "embedding_bwd", b, form, t);
    example_in(e, 0, ids, FILL_IDS);
    example_range(e, 0, scale == 0 ? -2 : 0, V);
    e->cost_bound = scale == 0;
    example_in(e, 1, ids.ndim == 1 ? D2(t, ids.dim[0], D) : D3(t, ids.dim[0], ids.dim[1], D), FILL_NORMAL);
    e->acc = scale != 1;
}

static inline void examples_embedding(op_examples *l) {
    for (int i = 0; i < 3; i++) {
        tl_dtype t = example_a_floats[i];
        examples_embedding_one(l, D1(TL_I32, 1), 1, 1, t, 1, TL_NONE, "one");
        examples_embedding_one(l, D2(TL_I32, 3, 5), 4, 7, t, 0, TL_NONE, "scale 0");
        examples_embedding_one(l, example_view(D2(TL_I32, 2, 6), 1), 11, 65, t, 2, TL_NONE, "view of ids, scale");
    }
    examples_embedding_one(l, D1(TL_I32, 9), 6, 16, TL_BF16, 3, TL_F32, "to f32");
    examples_embedding_one(l, D1(TL_I32, 3), 6, 64, TL_Q8_0, 1, TL_F32, "blocks");
    struct embedding_attr a = {1, TL_NONE};
    op_example *e = EXAMPLE_A(l, "embedding", a, "ids that are none", TL_F32);
    example_in(e, 0, D1(TL_I32, 20), FILL_IDS);
    example_range(e, 0, -3, 8);
    example_in(e, 1, D2(TL_F32, 5, 4), FILL_NORMAL);
}

static inline void examples_rope(op_examples *l) {
    for (int i = 0; i < 3; i++) {
        tl_dtype t = example_a_floats[i], s = t == TL_F64 ? TL_F64 : TL_F32;
        struct rope_table_attr table = {i == 2 ? 1.25f : 0.0f, s, i == 1 ? 3 : 0, 0, 0};
        op_example *e = EXAMPLE_A(l, "rope_table", table, "", s);
        example_in(e, 0, i ? D2(TL_I32, 2, 7) : D1(TL_I32, 1), FILL_ARANGE);
        e->lo[0] = i == 1 ? 999990 : 0;
        example_in(e, 1, D1(TL_F64, i ? 8 : 1), FILL_POSITIVE);
        for (int inverse = 0; inverse < 2; inverse++) {
            struct rope_attr half = {ROPE_HALF, inverse}, pairs = {ROPE_INTERLEAVED, inverse};
            e = EXAMPLE_A(l, "rope", half, "half", t);
            example_in(e, 0, D3(t, 3, 2, 6), FILL_NORMAL);
            example_in(e, 1, D2(s, 3, 4), FILL_NORMAL);
            if (t == TL_F64) e->diff = 1;
            e = EXAMPLE_A(l, "rope", pairs, "pairs", t);
            example_in(e, 0, example_view(D4(t, 2, 3, 3, 6), 5), FILL_NORMAL);
            example_in(e, 1, D3(s, 2, 3, 6), FILL_NORMAL);
            e->out_pad = inverse;
            if (t == TL_F64) e->diff = 1;
            e = EXAMPLE_A(l, "rope", half, "wide", t);
            example_in(e, 0, D4(t, 1, 5, 1, 66), FILL_NORMAL);
            example_in(e, 1, D3(s, 1, 5, 66), FILL_NORMAL);
        }
    }
}

static inline void examples_dropout(op_examples *l) {
    for (int i = 0; i < 4; i++) {
        tl_dtype t = example_a_floats[i];
        struct dropout_attr a = {0.25f, 7}, none = {0, 1};
        op_example *e = EXAMPLE_A(l, "dropout", a, "", t);
        example_in(e, 0, D3(t, 2, 3, 33), FILL_NORMAL);
        if (t == TL_F64) e->diff = 1;
        e->acc = i & 1;
        e = EXAMPLE_A(l, "dropout", none, "p 0, view", t);
        example_in(e, 0, example_view(D2(t, 5, 16), 16), FILL_NORMAL);
    }
}

/* ---- attention ---------------------------------------------------------------------------------------- */

static inline void example_attention_spans(example_call *x) {
    const bool bwd = strcmp(x->op->name, "attention_bwd") == 0;
    tl_arg *span = &x->call.in[bwd ? 10 : 7];
    if (span->d.dtype != TL_NONE) example_spans(span, x->call.in[bwd ? 2 : 1].d.dim[1]);
    tl_arg *doc = &x->call.in[bwd ? 6 : 3];
    if (!((const struct attention_attr *)x->attr)->global || doc->d.dtype == TL_NONE) return;
    for (int64_t i = 0; i < tl_desc_count(&doc->d); i++) ((int32_t *)doc->data)[i] = (int32_t)(i / 20);
}

/* Output and logsumexp that the backward pass is given: those of its own inputs. */
static inline void example_attention_forward(example_call *x) {
    tl_op_call c;
    example_attention_spans(x);
    memset(&c, 0, sizeof c);
    c.attr = x->attr; /* begins with that of attention */
    for (int i = 0; i < 3; i++) c.in[i] = x->call.in[1 + i];
    for (int i = 0; i < 5; i++) c.in[3 + i] = x->call.in[6 + i];
    c.out[0] = x->call.in[4];
    c.out[1] = x->call.in[5];
    tl_op_find("attention")->ref_f64(&c);
}

enum { WITH_DOC = 1, WITH_SINKS = 2, WITH_SLOPES = 4, WITH_BIAS = 8, WITH_VIEWS = 16, WITH_SPAN = 32 };

/* dim: B, T, S, H, Hk, Dh, Dv */
static inline void examples_attention_one(op_examples *l, tl_dtype t, const int64_t *dim, struct attention_attr a,
                                          int with, const char *form) {
    int64_t B = dim[0], T = dim[1], S = dim[2], H = dim[3], Hk = dim[4], Dh = dim[5], Dv = dim[6];
    int64_t far = (T > S ? T : S) + (a.q_offset < 0 ? -a.q_offset : a.q_offset);
    tl_dtype s = t == TL_F64 ? TL_F64 : TL_F32;
    struct attention_bwd_attr back;
    memset(&back, 0, sizeof back);
    back.f = a;
    tl_desc q = D4(t, B, T, H, Dh), k = D4(t, B, S, Hk, Dh), v = D4(t, B, S, Hk, Dv);
    if (with & WITH_VIEWS) q = example_view(q, 3), k = example_view(k, 8), v = example_view(v, 1);
    for (int bwd = 0; bwd < 2; bwd++) {
        op_example *e = bwd ? EXAMPLE_A(l, "attention_bwd", back, form, t) : EXAMPLE_A(l, "attention", a, form, t);
        int at = bwd ? 1 : 0, more = bwd ? 6 : 3;
        example_in(e, at, q, FILL_NORMAL);
        example_in(e, at + 1, k, FILL_NORMAL);
        example_in(e, at + 2, v, FILL_NORMAL);
        if (with & WITH_DOC) example_in(e, more, D2(TL_I32, B, S), FILL_IDS);
        if (with & WITH_DOC) example_range(e, more, 0, 2);
        if (with & WITH_SINKS) example_in(e, more + 1, D1(s, H), FILL_NORMAL);
        if (with & WITH_SLOPES) example_in(e, more + 2, D1(s, H), FILL_POSITIVE);
        if (with & WITH_BIAS) example_in(e, more + 3, D2(s, H, 2 * far + 1), FILL_NORMAL);
        if (with & WITH_SPAN)
            example_in(e, more + 4, D3(TL_I32, B, T, 2), FILL_IDS), example_range(e, more + 4, 0, 1000);
        e->cost_bound = (with & (WITH_DOC | WITH_SPAN)) != 0;
        e->prepare = example_attention_spans;
        if (bwd) {
            example_in(e, 0, D4(t, B, T, H, Dv), FILL_NORMAL);
            example_in(e, 4, D4(t, B, T, H, Dv), FILL_NORMAL);
            example_in(e, 5, D3(s, B, H, T), FILL_NORMAL);
            e->prepare = example_attention_forward;
            if (with & WITH_SINKS) e->acc |= 8;
            if (with & WITH_BIAS && T & 1) e->acc |= 16;
            if (T == 3) e->unwanted = 1;
        } else if (t == TL_F64 && B * H * (T * Dh + S * Dv) <= 400) {
            e->diff = 7u | (with & WITH_SINKS ? 16u : 0) | (with & WITH_BIAS ? 64u : 0);
        }
        if (!bwd && T == 5) e->unwanted = 2;
        if (with & WITH_VIEWS) e->out_pad = 2;
    }
}

static inline struct attention_attr example_attention_attr(float scale, float cap, int causal, int64_t window,
                                                           int64_t q_offset) {
    struct attention_attr a;
    memset(&a, 0, sizeof a);
    a.scale = scale;
    a.softcap = cap;
    a.causal = causal;
    a.window = window;
    a.q_offset = q_offset;
    return a;
}

static inline void examples_attention(op_examples *l) {
    static const int64_t one[] = {1, 1, 1, 1, 1, 1, 1}, group[] = {2, 5, 5, 4, 2, 7, 3}, all[] = {1, 6, 6, 4, 2, 4, 3},
                         late[] = {2, 3, 7, 2, 1, 4, 4}, blind[] = {1, 7, 3, 2, 2, 4, 4},
                         wide[] = {1, 3, 4, 1, 1, 80, 70}, tile[] = {1, 64, 65, 2, 1, 8, 16},
                         less[] = {1, 63, 63, 1, 1, 32, 32}, more[] = {2, 65, 65, 2, 2, 64, 64};
    for (int i = 0; i < 4; i++) {
        tl_dtype t = example_a_floats[i];
        examples_attention_one(l, t, one, example_attention_attr(0, 0, 1, 0, 0), 0, "one");
        examples_attention_one(l, t, group, example_attention_attr(0, 0, 1, 0, 0), WITH_VIEWS, "causal, groups, views");
        examples_attention_one(l, t, group, example_attention_attr(0.5f, 0, 0, 2, 0), WITH_SINKS, "window both ways");
        examples_attention_one(l, t, all, example_attention_attr(0.75f, 1.5f, 1, 3, 0), 15, "everything");
        examples_attention_one(l, t, late, example_attention_attr(0, 0, 1, 2, 4), WITH_SINKS, "offset, window, sinks");
        examples_attention_one(l, t, blind, example_attention_attr(0, 0, 1, 0, -4), WITH_BIAS, "rows without keys");
        examples_attention_one(l, t, wide, example_attention_attr(0, 2, 0, 0, 0), WITH_SLOPES, "wide heads, cap");
        struct attention_attr drop = example_attention_attr(0, 0, 1, 0, 0),
                              dropped = example_attention_attr(0.75f, 1.5f, 1, 4, 0);
        drop.drop = 0.25f, drop.op = 3, dropped.drop = 0.5f;
        examples_attention_one(l, t, group, drop, WITH_VIEWS, "causal, groups, dropout");
        examples_attention_one(l, t, all, dropped, 15, "everything with dropout");
        examples_attention_one(l, t, group, example_attention_attr(0, 0, 0, 0, 0), WITH_SPAN | WITH_VIEWS, "spans");
        examples_attention_one(l, t, late, example_attention_attr(0, 0, 0, 3, 2), WITH_SPAN | WITH_SINKS | WITH_BIAS,
                               "spans, window, another text");
        struct attention_attr global = example_attention_attr(0, 0, 1, 2, 0);
        global.global = 2;
        examples_attention_one(l, t, all, global, WITH_SINKS | WITH_BIAS, "global tokens");
        examples_attention_one(l, t, group, global, WITH_DOC | WITH_VIEWS, "global tokens, documents");
        global.causal = 0, global.window = 1;
        examples_attention_one(l, t, group, global, WITH_VIEWS, "global tokens both ways");
        if (t == TL_F16) continue;
        global.window = 12, global.global = 3;
        examples_attention_one(l, t, less, global, WITH_DOC, "63, global tokens both ways, documents");
        global.causal = 1, global.softcap = 2;
        examples_attention_one(l, t, less, global, WITH_DOC | WITH_SLOPES, "63, global tokens, documents");
        examples_attention_one(l, t, less, example_attention_attr(0, 0, 0, 0, 0), WITH_SPAN | WITH_DOC,
                               "63, spans, documents");
        examples_attention_one(l, t, tile, example_attention_attr(0, 0, 0, 0, 0), WITH_BIAS, "64 x 65");
        examples_attention_one(l, t, less, example_attention_attr(0, 0, 1, 16, 0), WITH_DOC, "63, window, documents");
    }
    examples_attention_one(l, TL_F32, more, example_attention_attr(0, 0, 1, 0, 0), WITH_SLOPES, "65 x 65");
    examples_attention_one(l, TL_BF16, more, example_attention_attr(0, 0, 1, 0, 0), 0, "65 x 65");
    static const int64_t far[] = {2, 130, 410, 4, 2, 16, 24};
    static const int64_t long_[] = {1, 210, 210, 2, 1, 4, 4};
    for (int causal = 0; causal < 2; causal++) {
        struct attention_attr global = example_attention_attr(0, 0, causal, 17, 0);
        global.global = 20;
        examples_attention_one(l, TL_F32, long_, global, causal ? WITH_BIAS : 0, "210, global tokens");
        examples_attention_one(l, TL_BF16, long_, global, causal ? 0 : WITH_DOC, "210, global tokens");
    }
    examples_attention_one(l, TL_F32, far, example_attention_attr(0, 0, 0, 0, 0), WITH_SPAN, "130 x 410, spans");
    examples_attention_one(l, TL_BF16, far, example_attention_attr(0, 0, 0, 0, 0), WITH_SPAN, "130 x 410, spans");
}

/* ---- caches ------------------------------------------------------------------------------------------- */

/* busy: every row has a slot and sees a full cache */
static inline void examples_kv_one(op_examples *l, tl_dtype t, tl_dtype cache, struct attention_kv_attr a, int with,
                                   bool busy, const char *form) {
    enum { R = 5, Q = 3, C = 9, H = 4, Hk = 2, Dh = 8, Dv = 6 };
    struct kv_write_attr none = {0};
    tl_dtype s = t == TL_F64 ? TL_F64 : TL_F32;
    op_example *e = EXAMPLE_A(l, "attention_kv", a, form, t);
    example_in(e, 0, D3(t, R, H, Dh), FILL_NORMAL);
    example_in(e, 1, D4(cache, Q, C, Hk, Dh), FILL_NORMAL);
    example_in(e, 2, D4(cache, Q, C, Hk, Dv), FILL_NORMAL);
    example_in(e, 3, D1(TL_I32, R), FILL_IDS);
    example_range(e, 3, busy ? 0 : -1, Q);
    example_in(e, 4, D1(TL_I32, R), FILL_IDS);
    example_range(e, 4, busy ? C - 1 : -1, busy ? 3 * C : C);
    if (with & WITH_SINKS) example_in(e, 5, D1(s, H), FILL_NORMAL);
    if (with & WITH_SLOPES) example_in(e, 6, D1(s, H), FILL_POSITIVE);
    if (with & WITH_BIAS) example_in(e, 7, D2(s, H, 2 * 3 * C - 1), FILL_NORMAL);
    if (with & WITH_SPAN) example_in(e, 8, D1(TL_I32, R), FILL_IDS), example_range(e, 8, 0, 3 * C);
    e->cost_bound = !busy || with & WITH_SPAN;
    e->out_pad = !busy;

    e = EXAMPLE_A(l, "kv_write", none, form, t);
    example_in(e, 0, example_view(D3(t, R, Hk, Dh), busy ? 4 : 0), FILL_NORMAL);
    example_in(e, 1, D1(TL_I32, R), FILL_CONST);
    e->lo[1] = busy ? 2 : -1;
    example_in(e, 2, D1(TL_I32, R), FILL_ARANGE);
    e->lo[2] = C - 2;
    e->bound[0] = D4(cache, Q, C, Hk, Dh);
    e->acc = 1;
    e->cost_bound = true; /* rows written, not the cache */
}

static inline void examples_kv(op_examples *l) {
    struct attention_kv_attr plain, capped;
    memset(&plain, 0, sizeof plain);
    memset(&capped, 0, sizeof capped);
    capped.scale = 0.5f;
    capped.softcap = 3;
    capped.window = 4;
    for (int i = 0; i < 4; i++) {
        tl_dtype t = example_a_floats[i];
        examples_kv_one(l, t, t, plain, 0, true, "full");
        examples_kv_one(l, t, t, capped, WITH_SINKS | WITH_SLOPES, true, "cap, window, sinks, slopes");
        examples_kv_one(l, t, t, plain, WITH_SINKS, false, "idle rows");
        examples_kv_one(l, t, t, plain, WITH_BIAS, true, "bias");
        examples_kv_one(l, t, t, plain, WITH_SPAN | WITH_BIAS, true, "ends, bias");
        examples_kv_one(l, t, t, capped, WITH_SPAN | WITH_SLOPES | WITH_SINKS, false, "ends, window, slopes");
    }
    for (int i = 0; i < 3; i++) {
        capped.global = 3;
        examples_kv_one(l, example_a_floats[i], example_a_floats[i], capped, WITH_SINKS, false, "window, global tokens");
    }
    capped.global = 0;
    examples_kv_one(l, TL_F32, TL_BF16, plain, WITH_SLOPES, true, "bf16 cache for");
    examples_kv_one(l, TL_BF16, TL_F16, capped, 0, false, "f16 cache for");
}

/* ---- loss head ---------------------------------------------------------------------------------------- */

/* The logsumexps that the backward pass is given: those of its own inputs. */
static inline void example_loss_forward(example_call *x) {
    tl_op_call c;
    memset(&c, 0, sizeof c);
    c.attr = x->attr;
    for (int i = 0; i < 4; i++) c.in[i] = x->call.in[1 + i];
    c.in[4] = x->call.in[6];
    c.out[1] = x->call.in[5];
    tl_op_find("loss_head")->ref_f64(&c);
}

static inline void examples_loss_one(op_examples *l, tl_dtype t, int64_t N, int64_t D, int64_t V,
                                     struct loss_head_attr a, bool bias, bool masked, uint32_t unwanted,
                                     const char *form) {
    tl_dtype s = t == TL_F64 ? TL_F64 : TL_F32;
    struct loss_head_bwd_attr back;
    memset(&back, 0, sizeof back);
    back.f = a;
    for (int bwd = 0; bwd < 2; bwd++) {
        op_example *e = bwd ? EXAMPLE_A(l, "loss_head_bwd", back, form, t) : EXAMPLE_A(l, "loss_head", a, form, t);
        example_in(e, bwd, D2(t, N, D), FILL_NORMAL);
        example_in(e, bwd + 1, D2(t, V, D), FILL_NORMAL);
        example_in(e, bwd + 2, D1(TL_I32, N), FILL_IDS);
        example_range(e, bwd + 2, masked ? -V : 0, V);
        example_in(e, bwd + 3, D1(s, 1), FILL_CONST);
        e->value[bwd + 3] = (double)N + 1;
        if (bias) example_in(e, bwd ? 6 : 4, D1(s, V), FILL_NORMAL);
        e->cost_bound = masked;
        if (bwd) {
            example_in(e, 0, D1(s, 1), FILL_NORMAL);
            example_in(e, 5, D1(s, N), FILL_NORMAL);
            e->prepare = example_loss_forward;
            e->unwanted = (unwanted >> 3 & 7) == 7 ? 6 : unwanted >> 3;
            e->acc = masked ? 7 : 0;
        } else {
            e->unwanted = unwanted;
            e->acc = masked ? 48 : 0;
            if (t == TL_F64 && N * D + V * D <= 200) e->diff = bias ? 19 : 3;
        }
    }
}

static inline void examples_loss(op_examples *l) {
    struct loss_head_attr plain = {0, 0, 0, 0}, smooth = {0.125f, 0, 0, 0}, all = {0.25f, 0.0625f, 1.5f, 0};
    for (int i = 0; i < 4; i++) {
        tl_dtype t = example_a_floats[i];
        examples_loss_one(l, t, 1, 1, 1, plain, false, false, 0, "one");
        examples_loss_one(l, t, 5, 4, 7, plain, false, false, 0, "plain");
        examples_loss_one(l, t, 5, 4, 7, smooth, true, true, 0, "smoothed, some masked");
        examples_loss_one(l, t, 5, 4, 7, all, true, false, 0, "everything");
        examples_loss_one(l, t, 3, 5, 4, all, false, false, 56, "loss alone");
        if (t == TL_F16) continue;
        examples_loss_one(l, t, 17, 65, 33, plain, true, true, 2 + 4, "odd sizes");
        examples_loss_one(l, t, 4, 16, 65, all, false, false, 2 + 4 + 16, "dh alone");
    }
    examples_loss_one(l, TL_F32, 300, 8, 21, plain, true, false, 0, "many rows");
    /* a head of its own: (B,T,D), targets a view of ids, bf16 weights */
    struct loss_head_attr a = {0, 0.001f, 30, 0};
    op_example *e = EXAMPLE_A(l, "loss_head", a, "bf16 words, view of ids", TL_F32);
    example_in(e, 0, D3(TL_F32, 2, 3, 8), FILL_NORMAL);
    example_in(e, 1, D2(TL_BF16, 11, 8), FILL_NORMAL);
    example_in(e, 2, example_view(D2(TL_I32, 2, 3), 1), FILL_IDS);
    example_range(e, 2, 0, 11);
    example_in(e, 3, D1(TL_F32, 1), FILL_CONST);
    e->value[3] = 6;
}

/* ---- optimizer ---------------------------------------------------------------------------------------- */

static inline void example_adamw_prepare(example_call *x) {
    static const double hyper[HYPER_COUNT] = {0.01, 0.9, 0.999, 1e-8, 0.1, 0.5, 0.271, 0.00299,
                                              0.5,  0,   0,     0,    0,   0,   0,     0};
    for (int i = 0; i < HYPER_COUNT; i++) example_store(&x->call.in[0], i, hyper[i]);
    tl_arg *v = &x->call.out[2];
    for (int64_t i = 0; i < v->d.dim[0]; i++) example_store(v, i, fabs(example_load(v, i)));
}

static inline void examples_optimizer(op_examples *l) {
    static const int64_t size[] = {1, 7, 130, 4097, 12289};
    struct global_norm_attr none = {0};
    for (int i = 0; i < 10; i++) {
        tl_dtype t = i & 1 ? TL_F64 : TL_F32;
        tl_desc flat = D1(t, size[i / 2]);
        op_example *e = EXAMPLE_A(l, "global_norm", none, "", t);
        example_in(e, 0, flat, FILL_NORMAL);
        if (i >= 8) continue;
        for (int form = 0; form < 4; form++) {
            struct adamw_attr a = {form & 1};
            e = EXAMPLE_A(l, "adamw", a, form & 2 ? "clipped" : "plain", t);
            example_in(e, 0, D1(t, HYPER_COUNT), FILL_CONST);
            if (form & 2) example_in(e, 1, D1(t, 1), FILL_POSITIVE);
            for (int k = 0; k < 4; k++) e->bound[k] = flat;
            if (form) e->bound[4] = D1(TL_BF16, flat.dim[0]);
            e->acc = form ? 31 : 15;
            e->prepare = example_adamw_prepare;
        }
    }
}

static inline void examples_a(op_examples *l) {
    examples_embedding(l);
    examples_rope(l);
    examples_dropout(l);
    examples_attention(l);
    examples_kv(l);
    examples_loss(l);
    examples_optimizer(l);
}

#endif
