/* Examples of products, norms, activations, elementwise operators, reductions and views. Included by examples.h. */
#ifndef TESTS_OP_EXAMPLES_B_H
#define TESTS_OP_EXAMPLES_B_H

static const tl_dtype example_floats[4] = {TL_F32, TL_F64, TL_BF16, TL_F16};

static inline tl_dtype example_sum(tl_dtype t) {
    return t == TL_F64 ? TL_F64 : TL_F32;
}

/* Shapes of rowwise operators: one element, odd, vector-sized, one beyond; views; three and four dimensions. */
enum { EXAMPLE_ROWS = 8 };
static inline tl_desc example_rows(int n, tl_dtype t) {
    switch (n) {
    case 0: return D1(t, 1);
    case 1: return D2(t, 3, 7);
    case 2: return D2(t, 2, 16);
    case 3: return D3(t, 2, 3, 33);
    case 4: return example_view(D2(t, 5, 13), 6);
    case 5: return example_view(D3(t, 2, 3, 32), 32);
    case 6: return D4(t, 2, 1, 2, 5);
    default: return D2(t, 4, 259);
    }
}
/* Small enough to differentiate element by element. */
static inline bool example_small(const tl_desc *d) {
    return d->dtype == TL_F64 && tl_desc_count(d) <= 200;
}

static inline op_example *example_b(op_examples *l, const char *op, const void *attr, size_t size, const char *form,
                                    const tl_desc *d) {
    char shape[40], label[72];
    tensor_print(d, shape, sizeof shape);
    snprintf(label, sizeof label, "%.20s %s%s", form, shape, tl_desc_contiguous(d) ? "" : " view");
    return example_add(l, op, attr, size, label);
}
#define EXAMPLE_B(l, op, attr, form, d) example_b(l, op, &(attr), sizeof(attr), form, d)

static inline void examples_linear_one(op_examples *l, tl_desc x, tl_desc w, bool bias, tl_dtype y) {
    struct linear_attr a = {y};
    struct linear_dx_attr dx = {y};
    struct linear_dw_attr dw = {0};
    tl_desc dy = x;
    dy.dim[dy.ndim - 1] = w.dim[0];
    dy = tl_desc_make(x.dtype, dy.ndim, dy.dim);
    bool floats = tl_dtype_block(w.dtype) == 1;
    op_example *e = EXAMPLE_B(l, "linear", a, bias ? "bias" : "plain", &x);
    example_in(e, 0, x, FILL_NORMAL);
    example_in(e, 1, w, FILL_NORMAL);
    if (bias) example_in(e, 2, D1(example_sum(x.dtype), w.dim[0]), FILL_NORMAL);
    if (example_small(&x) && tl_desc_count(&w) <= 600) e->diff = bias ? 7 : 3;
    e->acc = x.ndim == 3;
    e->out_pad = x.dim[0] == 3 ? 5 : 0;
    e = EXAMPLE_B(l, "linear_dx", dx, "", &dy);
    example_in(e, 0, dy, FILL_NORMAL);
    example_in(e, 1, w, FILL_NORMAL);
    e->acc = bias;
    if (!floats) return;
    e = EXAMPLE_B(l, "linear_dw", dw, bias ? "db" : "", &dy);
    example_in(e, 0, dy, FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    e->unwanted = bias ? 0 : 2;
    e->acc = x.ndim == 2 ? 3 : 0;
    e = EXAMPLE_B(l, "linear_dw", dw, "db alone", &dy);
    example_in(e, 0, dy, FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    e->unwanted = 1;
}

static inline void examples_linear(op_examples *l) {
    for (int t = 0; t < 4; t++) {
        tl_dtype f = example_floats[t];
        examples_linear_one(l, D1(f, 1), D2(f, 1, 1), true, TL_NONE);
        examples_linear_one(l, D2(f, 3, 7), D2(f, 5, 7), true, TL_NONE);
        examples_linear_one(l, D3(f, 2, 2, 16), D2(f, 17, 16), false, TL_NONE);
        examples_linear_one(l, example_view(D2(f, 17, 65), 3), example_view(D2(f, 33, 65), 7), true, TL_NONE);
        examples_linear_one(l, D2(f, 64, 96), D2(f, 48, 96), false, TL_NONE);
        tl_desc heads = D4(f, 2, 5, 3, 16); /* of a wider row: rows do not lie at one distance */
        heads.stride[0] = 5 * 70, heads.stride[1] = 70;
        examples_linear_one(l, heads, D2(f, 7, 16), true, TL_NONE);
    }
    examples_linear_one(l, D2(TL_BF16, 6, 32), D2(TL_BF16, 9, 32), true, TL_F32);
    examples_linear_one(l, D2(TL_F32, 6, 32), D2(TL_BF16, 9, 32), true, TL_BF16);
    examples_linear_one(l, D2(TL_F32, 13, 144), D2(TL_F16, 9, 144), true, TL_NONE);
    examples_linear_one(l, D2(TL_F32, 2, 64), D2(TL_Q8_0, 5, 64), true, TL_NONE);
    examples_linear_one(l, D2(TL_BF16, 3, 64), D2(TL_Q4_0, 5, 64), false, TL_F32);
    examples_linear_one(l, D2(TL_F32, 3, 512), D2(TL_Q4_K, 3, 512), false, TL_NONE);
    examples_linear_one(l, D2(TL_F32, 1, 256), D2(TL_Q6_K, 7, 256), true, TL_NONE);
}

/* layernorm, or batchnorm, whose statistics are those of channels */
static inline void examples_mean_norm(op_examples *l, tl_desc x, int gains, const char *form, bool batch) {
    tl_dtype s = example_sum(x.dtype);
    const int64_t D = tl_desc_last(&x), stats = batch ? D : tl_desc_rows(&x);
    struct layernorm_attr ln = {1e-5f};
    struct layernorm_bwd_attr lnb = {1e-5f};
    struct batchnorm_attr bn = {1e-5f};
    struct batchnorm_bwd_attr bnb = {1e-5f};
    op_example *e = batch ? EXAMPLE_B(l, "batchnorm", bn, form, &x) : EXAMPLE_B(l, "layernorm", ln, form, &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (gains) example_in(e, 1, D1(s, D), FILL_NORMAL);
    if (gains == 2) example_in(e, 2, D1(s, D), FILL_NORMAL);
    if (example_small(&x) && (!batch || tl_desc_rows(&x) > 1)) e->diff = gains == 0 ? 1 : gains == 1 ? 3 : 7;
    if (gains == 1) e->unwanted = 6;
    if (gains == 2) e->out_pad = 3;

    e = batch ? EXAMPLE_B(l, "batchnorm_bwd", bnb, form, &x) : EXAMPLE_B(l, "layernorm_bwd", lnb, form, &x);
    example_in(e, 0, tl_desc_make(x.dtype, x.ndim, x.dim), FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    if (gains) example_in(e, 2, D1(s, D), FILL_NORMAL);
    example_in(e, 3, D1(s, stats), FILL_NORMAL);
    example_in(e, 4, D1(s, stats), FILL_POSITIVE);
    e->unwanted = gains == 0 ? 4 : 0;
    e->acc = gains == 1 ? 7 : gains == 2 ? 6 : 0;
}

/* gains: 0 none, 1 w, 2 w and b (layernorm) or an offset (rmsnorm) */
static inline void examples_norms_one(op_examples *l, tl_desc x, int gains) {
    tl_dtype s = example_sum(x.dtype);
    int64_t D = tl_desc_last(&x), rows = tl_desc_rows(&x);
    struct rmsnorm_attr rms = {1e-6f, gains == 2 ? 1.0f : 0.0f};
    struct rmsnorm_bwd_attr rmsb = {1e-6f, gains == 2 ? 1.0f : 0.0f};
    struct scalenorm_attr sc = {1e-5f};
    struct scalenorm_bwd_attr scb = {1e-5f};
    const char *form = gains == 0 ? "no gain" : gains == 1 ? "gain" : "gain+";
    tl_desc dense = tl_desc_make(x.dtype, x.ndim, x.dim);

    examples_mean_norm(l, x, gains, form, false);
    examples_mean_norm(l, x, gains, form, true);

    op_example *e = EXAMPLE_B(l, "rmsnorm", rms, form, &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (gains) example_in(e, 1, D1(s, D), FILL_NORMAL);
    if (example_small(&x)) e->diff = gains ? 3 : 1;
    if (gains == 1) e->unwanted = 2;
    if (gains == 2) e->out_pad = 3;

    e = EXAMPLE_B(l, "rmsnorm_bwd", rmsb, form, &x);
    example_in(e, 0, dense, FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    if (gains) example_in(e, 2, D1(s, D), FILL_NORMAL);
    example_in(e, 3, D1(s, rows), FILL_POSITIVE);
    e->acc = gains == 1 ? 3 : gains == 2 ? 2 : 0;
    e->unwanted = gains == 2 && rows == 3 ? 1 : 0;

    if (gains != 1) return;
    e = EXAMPLE_B(l, "scalenorm", sc, "", &x);
    example_in(e, 0, x, FILL_NORMAL);
    example_in(e, 1, D1(s, 1), FILL_POSITIVE);
    if (example_small(&x)) e->diff = 3;
    e = EXAMPLE_B(l, "scalenorm_bwd", scb, "", &x);
    example_in(e, 0, dense, FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    example_in(e, 2, D1(s, 1), FILL_POSITIVE);
    example_in(e, 3, D1(s, rows), FILL_POSITIVE);
    e->acc = rows == 3 ? 3 : 0;
    e->unwanted = rows == 2 ? 2 : 0;
}

static inline void examples_act_one(op_examples *l, tl_desc x, int32_t kind) {
    struct act_attr act = {kind};
    struct act_bwd_attr actb = {kind};
    struct glu_attr glu = {kind};
    struct glu_bwd_attr glub = {kind};
    char form[20];
    snprintf(form, sizeof form, "kind %d", (int)kind);
    tl_desc dense = tl_desc_make(x.dtype, x.ndim, x.dim);

    op_example *e = EXAMPLE_B(l, "act", act, form, &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;
    e = EXAMPLE_B(l, "act_bwd", actb, form, &x);
    example_in(e, 0, dense, FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    e->acc = kind & 1;
    e = EXAMPLE_B(l, "glu", glu, form, &x);
    example_in(e, 0, x, FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 3;
    e = EXAMPLE_B(l, "glu_bwd", glub, form, &x);
    example_in(e, 0, dense, FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    example_in(e, 2, x, FILL_NORMAL);
    e->out_pad = kind == 3 ? 4 : 0;
    e->unwanted = kind == 1 ? 1 : kind == 2 ? 2 : 0;
}

static inline void examples_pointwise_one(op_examples *l, tl_desc x) {
    struct add_attr add = {0};
    struct mul_attr mul = {0};
    struct scale_attr scale = {0.75f}, zero = {0};
    struct softcap_attr cap = {1.5f};
    struct softcap_bwd_attr capb = {1.5f};
    struct softmax_attr soft = {0};
    struct softmax_bwd_attr softb = {0};
    tl_desc dense = tl_desc_make(x.dtype, x.ndim, x.dim);
    uint32_t odd = tl_desc_last(&x) & 1;

    op_example *e = EXAMPLE_B(l, "add", add, "", &x);
    example_in(e, 0, x, FILL_NORMAL);
    example_in(e, 1, dense, FILL_NORMAL);
    if (example_small(&x)) e->diff = 3;
    e->out_pad = odd ? 2 : 0;
    e = EXAMPLE_B(l, "mul", mul, "", &x);
    example_in(e, 0, x, FILL_NORMAL);
    example_in(e, 1, dense, FILL_NORMAL);
    if (example_small(&x)) e->diff = 3;
    e->acc = odd;
    e = EXAMPLE_B(l, "scale", scale, "", &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;
    e->acc = odd;
    e = EXAMPLE_B(l, "scale", zero, "by 0", &x);
    example_in(e, 0, x, FILL_NORMAL);
    e = EXAMPLE_B(l, "softcap", cap, "", &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;
    e = EXAMPLE_B(l, "softcap_bwd", capb, "", &x);
    example_in(e, 0, dense, FILL_NORMAL);
    example_in(e, 1, x, FILL_NORMAL);
    e->acc = odd;
    e = EXAMPLE_B(l, "softmax", soft, "", &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;
    e->out_pad = odd ? 2 : 0;
    e = EXAMPLE_B(l, "softmax_bwd", softb, "", &x);
    example_in(e, 0, dense, FILL_NORMAL);
    example_in(e, 1, x, FILL_POSITIVE);
    e->acc = odd;
}

static inline void examples_reduce_one(op_examples *l, tl_desc x, int32_t kind, int32_t mean) {
    struct reduce_attr r = {kind, mean};
    struct broadcast_attr b;
    memset(&b, 0, sizeof b);
    b.kind = kind, b.mean = mean, b.ndim = x.ndim, b.dtype = x.dtype;
    for (int i = 0; i < x.ndim; i++) b.dim[i] = x.dim[i];
    char form[20];
    snprintf(form, sizeof form, "%s %s",
             kind == REDUCE_ALL    ? "all"
             : kind == REDUCE_ROWS ? "rows"
                                   : "last",
             mean ? "mean" : "sum");
    tl_desc y = D1(example_sum(x.dtype), kind == REDUCE_ROWS ? tl_desc_last(&x) : 1);
    if (kind == REDUCE_LAST) y.dtype = x.dtype;
    if (kind == REDUCE_LAST && x.ndim > 1) y = tl_desc_make(x.dtype, x.ndim - 1, x.dim);

    op_example *e = EXAMPLE_B(l, "reduce", r, form, &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;
    e->acc = (uint32_t)mean;
    e = EXAMPLE_B(l, "broadcast", b, form, &x);
    example_in(e, 0, y, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;
    e->acc = !mean;
    e->out_pad = mean ? 1 : 0;
}

static inline void examples_casts(op_examples *l, int n) {
    static const tl_dtype blocks[4] = {TL_Q8_0, TL_Q4_0, TL_Q4_K, TL_Q6_K};
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 5; to++) {
            struct cast_attr a = {to < 4 ? example_floats[to] : TL_NONE};
            tl_desc x = example_rows(n, example_floats[from]);
            op_example *e = EXAMPLE_B(l, "cast", a, tl_dtype_name(a.dtype), &x);
            example_in(e, 0, x, FILL_NORMAL);
            if (example_small(&x) && (a.dtype == TL_F64 || a.dtype == TL_NONE)) e->diff = 1;
            e->acc = to & 1;
        }
    for (int q = 0; q < 4 && n == 1; q++) {
        struct cast_attr a = {TL_F32};
        tl_desc x = D2(blocks[q], 3, 512);
        op_example *e = EXAMPLE_B(l, "cast", a, "blocks", &x);
        example_in(e, 0, x, FILL_NORMAL);
    }
}

static inline void examples_views(op_examples *l, tl_desc x) {
    struct split_attr s;
    memset(&s, 0, sizeof s);
    int64_t D = tl_desc_last(&x);
    s.n = D > 4 ? 3 : 1;
    s.width[0] = D > 4 ? 1 : D;
    if (D > 4) s.width[1] = D - 3, s.width[2] = 2;
    op_example *e = EXAMPLE_B(l, "split", s, "", &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;

    for (int n = 1; n <= 6; n += n == 1 ? 1 : 4) {
        struct concat_attr c = {n};
        e = EXAMPLE_B(l, "concat", c, n == 1 ? "one" : n == 2 ? "two" : "six", &x);
        for (int k = 0; k < n; k++) {
            tl_desc part = x;
            part.dim[part.ndim - 1] = k ? k : D;
            example_in(e, k, k ? tl_desc_make(x.dtype, part.ndim, part.dim) : x, FILL_NORMAL);
        }
        if (example_small(&x)) e->diff = (1u << n) - 1;
        e->out_pad = n == 2 ? 2 : 0;
    }

    struct reshape_attr r;
    memset(&r, 0, sizeof r);
    r.ndim = 3, r.dim[0] = -1, r.dim[1] = 1, r.dim[2] = D; /* rows merged */
    e = EXAMPLE_B(l, "reshape", r, "rows", &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;
    if (D % 2 || x.ndim > 3) return;
    memset(&r, 0, sizeof r);
    r.ndim = x.ndim + 1; /* heads: the last dimension cut up */
    for (int i = 0; i + 1 < x.ndim; i++) r.dim[i] = x.dim[i];
    r.dim[x.ndim - 1] = 2, r.dim[x.ndim] = D / 2;
    e = EXAMPLE_B(l, "reshape", r, "heads", &x);
    example_in(e, 0, x, FILL_NORMAL);
    if (example_small(&x)) e->diff = 1;
}

static inline void examples_b(op_examples *l) {
    examples_linear(l);
    for (int t = 0; t < 4; t++)
        for (int n = 0; n < EXAMPLE_ROWS; n++) {
            tl_desc x = example_rows(n, example_floats[t]);
            for (int gains = 0; gains < 3; gains++) examples_norms_one(l, x, gains);
            for (int32_t kind = 0; kind < ACT_KINDS; kind++)
                if (n < 5 || kind == ACT_SILU || kind == ACT_GELU) examples_act_one(l, x, kind);
            examples_pointwise_one(l, x);
            for (int32_t kind = 0; kind < 6; kind++) examples_reduce_one(l, x, kind / 2, kind % 2);
            if (t == 0) examples_casts(l, n);
            examples_views(l, x);
        }
    tl_desc ids = D2(TL_I32, 3, 8); /* views take any dtype */
    struct reshape_attr flat;
    memset(&flat, 0, sizeof flat);
    flat.ndim = 1, flat.dim[0] = 24;
    op_example *e = EXAMPLE_B(l, "reshape", flat, "ids", &ids);
    example_in(e, 0, ids, FILL_IDS);
    example_range(e, 0, 0, 100);
}

#endif
