/* What holds between gated attention, mixed chunks and their special cases, in double on the references, which the
 * kernels are held against elsewhere (t_kernels, t_gated). Numbers in brackets are those of docs/attention.md. */
#include "op/calls.h"

static tl_status refusal(int op, const void *attr, const tl_arg *in, int n_in, tl_error *err) {
    int64_t copy[TL_ATTR_MAX / 8] = {0};
    tl_op_infer s = {.attr = copy, .err = err};
    memcpy(copy, attr, op_table[op].attr_size);
    for (int i = 0; i < n_in; i++) s.in[i] = in[i].data ? &in[i].d : NULL;
    return op_table[op].shape(&s);
}

/* q, k, v and what else a unit may have */
typedef struct unit {
    int64_t T, s, e;
    double *q, *k, *v, *bias, *theta, *sink;
    int32_t *doc;
    int64_t bias_n;
} unit;

static unit unit_of(int64_t T, int64_t s, int64_t e, uint64_t seed) {
    return (unit){.T = T,
                  .s = s,
                  .e = e,
                  .q = normals(T * s, seed),
                  .k = normals(T * s, seed + 1),
                  .v = normals(T * e, seed + 2)};
}
static void unit_free(unit *u) {
    free(u->q), free(u->k), free(u->v), free(u->bias), free(u->theta), free(u->sink), free(u->doc);
}

static void gau(const unit *u, struct gate_attr f, int64_t T, double *o, double *stat) {
    struct gau_attention_attr a = {.f = f};
    tl_arg in[7] = {arg3(u->q, 1, T, u->s), arg3(u->k, 1, T, u->s), arg3(u->v, 1, T, u->e)};
    if (u->doc) in[3] = (tl_arg){u->doc, D2(TL_I32, 1, T)};
    in[4] = arg1(u->bias, u->bias_n), in[5] = arg1(u->theta, 1), in[6] = arg1(u->sink, 1);
    tl_arg out[2] = {arg3(o, 1, T, u->e), {stat, D2(TL_F64, 1, T)}};
    call(OP_gau_attention, &a, in, 7, out, 2, 0);
}

typedef struct chunks {
    unit u;
    double *ql, *kl, *state;
    int32_t seen, parts;
    int64_t reach, period;
} chunks;

static chunks chunks_of(int64_t T, int64_t s, int64_t e, uint64_t seed) {
    return (chunks){.u = unit_of(T, s, e, seed), .ql = normals(T * s, seed + 3), .kl = normals(T * s, seed + 4)};
}
static void chunks_free(chunks *x) {
    unit_free(&x->u);
    free(x->ql), free(x->kl), free(x->state);
}

/* rows [from, from + T) */
static void flash(const chunks *x, struct gate_attr f, int64_t c, int32_t norm, int64_t from, int64_t T, double *o,
                  double *state) {
    struct mixed_chunk_attr a = {
        .f = f, .chunk = c, .norm = norm, .parts = x->parts, .reach = x->reach, .period = x->period};
    const unit *u = &x->u;
    tl_arg in[10] = {arg3(u->q + from * u->s, 1, T, u->s), arg3(u->k + from * u->s, 1, T, u->s),
                     arg3(x->ql + from * u->s, 1, T, u->s), arg3(x->kl + from * u->s, 1, T, u->s),
                     arg3(u->v + from * u->e, 1, T, u->e)};
    int32_t seen = x->seen;
    if (u->doc) in[5] = (tl_arg){u->doc + from, D2(TL_I32, 1, T)};
    in[6] = arg1(u->bias, u->bias_n), in[7] = arg1(u->theta, 1);
    if (x->state) in[8] = arg3(x->state, 1, u->s, u->e), in[9] = (tl_arg){&seen, D1(TL_I32, 1)};
    tl_arg out[2] = {arg3(o, 1, T, u->e), arg3(state, 1, u->s, u->e)};
    call(OP_mixed_chunk, &a, in, 10, out, 2, 0);
}

static double apart(const double *a, const double *b, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= worst)) worst = fabs(a[i] - b[i]);
    return worst;
}
#define SAME(a, b, n) assert_true(apart(a, b, n) < 1e-11)

static struct gate_attr gate(int32_t kind, int32_t count, int32_t causal, float alpha) {
    return example_gate(kind, count, causal, alpha);
}

/* ---- one unit ---------------------------------------------------------------------------------------------- */

enum { T = 19, S = 5, E = 7 };

/* [1] A = I gives v back; [3] v = 1: softmax gives 1, relu^2 its row sum; [44] one token. */
static void identities(void **state) {
    (void)state;
    unit u = unit_of(T, S, E, 1);
    double *o = normals(T * E, 9);
    memset(u.q, 0, T * S * sizeof *u.q);
    u.bias = constant(2 * T - 1, -1), u.bias_n = 2 * T - 1;
    u.bias[T - 1] = 1;
    gau(&u, gate(GATE_RELU2, 0, 0, 1), T, o, NULL);
    SAME(o, u.v, T * E);
    unit_free(&u);
    u = unit_of(T, S, E, 2);
    for (int i = 0; i < T * E; i++) u.v[i] = 1;
    gau(&u, gate(GATE_SOFTMAX, 0, 1, 0), T, o, NULL);
    for (int i = 0; i < T * E; i++) assert_near(o[i], 1, 1e-12);
    gau(&u, gate(GATE_RELU2_SUM, 0, 0, 0), T, o, NULL); /* [41] */
    for (int i = 0; i < T * E; i++) assert_near(o[i], 1, 1e-12);
    gau(&u, gate(GATE_RELU2, 0, 1, 1), T, o, NULL);
    for (int i = 0; i < T; i++) {
        double sum = 0;
        for (int j = 0; j <= i; j++) {
            double t = 0;
            for (int d = 0; d < S; d++) t += u.q[i * S + d] * u.k[j * S + d];
            sum += t > 0 ? t * t : 0;
        }
        assert_near(o[i * E], sum, 1e-11);
    }
    unit_free(&u);
    u = unit_of(1, S, E, 3);
    gau(&u, gate(GATE_SOFTMAX, 0, 1, 0), 1, o, NULL);
    SAME(o, u.v, E);
    unit_free(&u);
    free(o);
}

/* [8] A causal row does not know what follows; [9] dividing by the length would break that, and is refused. */
static void prefixes(void **state) {
    (void)state;
    static const struct gate_attr kinds[] = {
        {.kind = GATE_RELU2, .count = GATE_COUNT_VISIBLE, .causal = 1},
        {.kind = GATE_LAPLACE, .count = GATE_COUNT_FIXED, .fixed = 9, .causal = 1},
        {.kind = GATE_SOFTMAX, .causal = 1, .kappa = 1},
        {.kind = GATE_L2, .causal = 1},
    };
    double all[T * E], some[T * E];
    chunks x = chunks_of(T, S, E, 4);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int64_t n = 1; n <= T; n++) {
            gau(&x.u, kinds[k], T, all, NULL);
            gau(&x.u, kinds[k], n, some, NULL);
            assert_memory_equal(all, some, (size_t)(n * E) * sizeof *all);
            if (kinds[k].kind >= GATE_SOFTMAX) continue;
            flash(&x, kinds[k], 4, CHUNK_VISIBLE, 0, T, all, NULL);
            flash(&x, kinds[k], 4, CHUNK_VISIBLE, 0, n, some, NULL);
            assert_memory_equal(all, some, (size_t)(n * E) * sizeof *all);
        }
    struct gate_attr length = gate(GATE_RELU2, GATE_COUNT_LENGTH, 0, 0);
    gau(&x.u, length, T, all, NULL);
    gau(&x.u, length, T - 3, some, NULL);
    assert_true(apart(all, some, (T - 3) * E) > 1e-3); /* not causal it may, and it does not have the property */
    length.causal = 1;
    tl_error err = {0};
    struct gau_attention_attr a = {.f = length};
    tl_arg in[3] = {arg3(x.u.q, 1, T, S), arg3(x.u.k, 1, T, S), arg3(x.u.v, 1, T, E)};
    assert_int_equal(refusal(OP_gau_attention, &a, in, 3, &err), TL_ARG);
    assert_non_null(strstr(err.text, "future"));
    struct mixed_chunk_attr m = {.f = length, .chunk = 4};
    tl_arg in5[5] = {in[0], in[1], in[0], in[1], in[2]};
    assert_int_equal(refusal(OP_mixed_chunk, &m, in5, 5, &err), TL_ARG);
    assert_non_null(strstr(err.text, "future"));
    chunks_free(&x);
}

/* [10] A later token changes no earlier row by a bit. */
static void causality(void **state) {
    (void)state;
    chunks x = chunks_of(T, S, E, 5);
    double before[T * E], after[T * E];
    for (int way = 0; way < 2; way++) {
        struct gate_attr f = gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0);
        if (way)
            flash(&x, f, 4, CHUNK_VISIBLE, 0, T, before, NULL);
        else
            gau(&x.u, f, T, before, NULL);
        x.u.k[12 * S] += 1, x.u.v[12 * E] -= 2, x.kl[12 * S + 1] += 3, x.u.q[12 * S] += 1, x.ql[12 * S] -= 1;
        if (way)
            flash(&x, f, 4, CHUNK_VISIBLE, 0, T, after, NULL);
        else
            gau(&x.u, f, T, after, NULL);
        assert_memory_equal(before, after, 12 * E * sizeof *before);
        assert_true(apart(before + 12 * E, after + 12 * E, (T - 12) * E) > 1e-3);
    }
    chunks_free(&x);
}

/* [16] No positions: permuted tokens give permuted rows. [17, 18] The bias's table: its centre is what counts. */
static void positions(void **state) {
    (void)state;
    unit u = unit_of(T, S, E, 6), p = unit_of(T, S, E, 6);
    double a[T * E], b[T * E];
    for (int i = 0; i < T; i++) {
        int to = (i * 7 + 3) % T;
        memcpy(p.q + to * S, u.q + i * S, S * sizeof *p.q);
        memcpy(p.k + to * S, u.k + i * S, S * sizeof *p.q);
        memcpy(p.v + to * E, u.v + i * E, E * sizeof *p.q);
    }
    gau(&u, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 0, 0), T, a, NULL);
    gau(&p, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 0, 0), T, b, NULL);
    for (int i = 0; i < T; i++) SAME(a + i * E, b + (i * 7 + 3) % T * E, E);
    u.bias = normals(61, 8), u.bias_n = 61;
    gau(&u, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), T, a, NULL);
    memmove(u.bias, u.bias + (30 - (T - 1)), (2 * T - 1) * sizeof *u.bias); /* the same about its centre */
    u.bias_n = 2 * T - 1;
    gau(&u, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), T, b, NULL);
    assert_memory_equal(a, b, sizeof a);
    unit_free(&u);
    unit_free(&p);
}

/* [24] relu^2 is homogeneous, so a temperature is a scale of the queries; [25] nothing above zero gives zero; [26] the
 * scale modes without bias differ by a factor. */
static void scales(void **state) {
    (void)state;
    unit u = unit_of(T, S, E, 10);
    double a[T * E], b[T * E];
    gau(&u, gate(GATE_RELU2, GATE_COUNT_FIXED, 0, 1.0f / 8), T, a, NULL);
    for (int i = 0; i < T * S; i++) u.q[i] *= 4;
    gau(&u, gate(GATE_RELU2, GATE_COUNT_FIXED, 0, 1.0f / 8), T, b, NULL);
    for (int i = 0; i < T * E; i++) assert_near(b[i], 16 * a[i], 1e-9);
    u.theta = constant(1, log(16.0));
    gau(&u, gate(GATE_RELU2, GATE_COUNT_FIXED, 0, 1.0f / 8), T, b, NULL);
    SAME(a, b, T * E);
    free(u.theta);
    u.theta = NULL;
    struct gate_attr paper = gate(GATE_RELU2, 0, 1, 1.0f / 16), ns = gate(GATE_RELU2, GATE_COUNT_FIXED, 1, 0);
    ns.fixed = 16;
    gau(&u, paper, T, a, NULL); /* relu^2(S / n) = (s / n) relu^2(S / sqrt s) / n */
    gau(&u, ns, T, b, NULL);
    for (int i = 0; i < T * E; i++) assert_near(a[i], b[i] * S / 16, 1e-9);
    for (int i = 0; i < T * S; i++) u.q[i] = fabs(u.q[i]), u.k[i] = -fabs(u.k[i]);
    gau(&u, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), T, a, NULL);
    for (int i = 0; i < T * E; i++) assert_true(a[i] == 0);
    unit_free(&u);
}

/* One score of value t: q = t, k = 1, v = 1. */
static double weight_of(int32_t kind, double t) {
    double one = 1, o;
    unit u = {.T = 1, .s = 1, .e = 1, .q = &t, .k = &one, .v = &one};
    gau(&u, gate(kind, 0, 0, 1), 1, &o, NULL);
    return o;
}

static double article(double x) { /* a smoothed relu^2 of the literature: wrong at both joints */
    const double eps = 0.5;
    return x > eps ? x * x : x < -eps ? 0 : x * x * x * x / (4 * eps * eps) + x * x / 2;
}

/* [27] The smooth kinds join; the article's form does not. [28] laplace touches relu^2 at sqrt(1/2). */
static void kinds(void **state) {
    (void)state;
    const double h = 1e-6, mu = sqrt(0.5);
    for (int32_t kind = GATE_SMOOTH2; kind <= GATE_SMOOTH1; kind++)
        for (int side = -1; side <= 1; side += 2) {
            double x = 0.5 * side, up = weight_of(kind, x + h), at = weight_of(kind, x), down = weight_of(kind, x - h);
            assert_near(up, down, 4 * h);
            assert_near((up - at) / h, (at - down) / h, 1e-4);
        }
    assert_near(weight_of(GATE_SMOOTH1, 2), 4, 1e-12);
    assert_near(weight_of(GATE_SMOOTH2, 2), 4 + 0.25 / 3, 1e-12);
    assert_true(weight_of(GATE_SMOOTH2, -0.6) == 0 && weight_of(GATE_SMOOTH1, -0.6) == 0);
    assert_true(fabs(article(0.5 + h) - article(0.5 - h)) > 0.05 && fabs(article(-0.5 + h) - article(-0.5 - h)) > 0.1);
    assert_near(weight_of(GATE_LAPLACE, mu), 0.5, 1e-12);
    assert_near((weight_of(GATE_LAPLACE, mu + h) - weight_of(GATE_LAPLACE, mu - h)) / (2 * h), sqrt(2), 1e-6);
    assert_true(fabs(0.5 * 2 / sqrt(M_PI) / (sqrt(M_PI / 4) * sqrt(2)) - sqrt(2)) > 0.9); /* the copied sigma */
    assert_near(weight_of(GATE_LAPLACE, 9), 1, 1e-12);
    assert_near(weight_of(GATE_LAPLACE, -9), 0, 1e-12);
    assert_near(weight_of(GATE_SOFTPLUS2, 0), log(2) * log(2), 1e-12);
    assert_near(weight_of(GATE_SOFTPLUS2, 40), 1600, 1e-9);
}

/* [39] kappa is 1 at 512 keys and the same up to 16; [40] l2 rows have norm 1; [42] no scores: the mean of the past. */
static void normalised(void **state) {
    (void)state;
    unit u = unit_of(T, S, T, 12);
    double a[T * T], b[T * T], stat[T];
    memset(u.v, 0, T * T * sizeof *u.v);
    for (int i = 0; i < T; i++) u.v[i * T + i] = 1; /* the output is A */
    gau(&u, gate(GATE_L2, 0, 1, 0), T, a, stat);
    for (int i = 0; i < T; i++) {
        double sum = 0;
        for (int j = 0; j < T; j++) sum += a[i * T + j] * a[i * T + j];
        assert_near(sum, 1, 1e-12);
    }
    struct gate_attr plus = gate(GATE_SOFTMAX, 0, 1, 0), plain = plus;
    plus.kappa = 1;
    plain.alpha = (float)(log(16) / log(512) / sqrt(S));
    gau(&u, plus, 16, a, NULL);
    gau(&u, plain, 16, b, NULL);
    assert_true(apart(a, b, 16 * T) < 1e-7);
    unit_free(&u);
    u = unit_of(512, 2, 1, 13);
    double *x = normals(512, 1), *y = normals(512, 1);
    plus.causal = plain.causal = 0, plain.alpha = 0;
    gau(&u, plus, 512, x, NULL);
    gau(&u, plain, 512, y, NULL);
    SAME(x, y, 512);
    free(x), free(y);
    unit_free(&u);
    u = unit_of(T, S, E, 14);
    memset(u.q, 0, T * S * sizeof *u.q);
    double mean[E] = {0}, o[T * E], r[T * E], bias[T * E];
    gau(&u, gate(GATE_SOFTMAX, 0, 1, 0), T, o, NULL);
    gau(&u, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), T, r, NULL);
    u.bias = constant(2 * T - 1, 0.5), u.bias_n = 2 * T - 1;
    gau(&u, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), T, bias, NULL);
    for (int i = 0; i < T; i++)
        for (int d = 0; d < E; d++) {
            mean[d] += (u.v[i * E + d] - mean[d]) / (i + 1);
            assert_near(o[i * E + d], mean[d], 1e-12);
            assert_true(r[i * E + d] == 0);
            assert_near(bias[i * E + d], 0.25 * mean[d], 1e-12);
        }
    /* [43] one-hot keys and a large scale fetch the exact row */
    memset(u.k, 0, T * S * sizeof *u.k);
    for (int i = 0; i < S; i++) u.k[i * S + i] = 1, u.q[(S + i) * S + i] = 1;
    free(u.bias);
    u.bias = NULL;
    gau(&u, gate(GATE_SOFTMAX, 0, 1, 1000), T, o, NULL);
    for (int i = 0; i < S; i++) SAME(o + (S + i) * E, u.v + i * E, E);
    unit_free(&u);
}

/* ---- chunks --------------------------------------------------------------------------------------------------- */

/* [4] Causal with chunks as long as the text it is the unit of its quadratic heads; [5, 6] both ways only without
 * linear heads. */
static void one_chunk(void **state) {
    (void)state;
    chunks x = chunks_of(T, S, E, 20);
    double a[T * E], b[T * E];
    struct gate_attr f = gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0);
    gau(&x.u, f, T, a, NULL);
    flash(&x, f, T, CHUNK_VISIBLE, 0, T, b, NULL);
    SAME(a, b, T * E);
    flash(&x, f, 5 * T, CHUNK_VISIBLE, 0, T, b, NULL);
    SAME(a, b, T * E);
    f.causal = 0;
    gau(&x.u, f, T, a, NULL);
    flash(&x, f, T, CHUNK_VISIBLE, 0, T, b, NULL);
    assert_true(apart(a, b, T * E) > 1e-2);
    memset(x.ql, 0, T * S * sizeof *x.ql);
    flash(&x, f, T, CHUNK_VISIBLE, 0, T, b, NULL);
    SAME(a, b, T * E);
    chunks_free(&x);
}

/* [11] Chunks of one: a self term and strictly lower linear attention over i. [12] Both ways without quadratic heads:
 * Q (K^T V) / n. */
static void linear_part(void **state) {
    (void)state;
    chunks x = chunks_of(T, S, E, 21);
    double o[T * E];
    memset(x.u.q, 0, T * S * sizeof *x.u.q);
    for (int way = 0; way < 2; way++) {
        flash(&x, gate(GATE_RELU2, GATE_COUNT_VISIBLE, !way, 0), way ? 4 : 1, CHUNK_VISIBLE, 0, T, o, NULL);
        for (int i = 0; i < T; i++)
            for (int d = 0; d < E; d++) {
                double sum = 0;
                for (int j = 0; j < (way ? T : i); j++) {
                    double t = 0;
                    for (int k = 0; k < S; k++) t += x.ql[i * S + k] * x.kl[j * S + k];
                    sum += t * x.u.v[j * E + d];
                }
                assert_near(o[i * E + d], sum == 0 ? 0 : sum / (way ? T : i), 1e-10);
            }
    }
    chunks_free(&x);
}

/* [13] Padding on the right leaves rows alone; on the left too, and documents packed in a row are documents alone. */
static void documents(void **state) {
    (void)state;
    enum { A = 7, B = 9 };
    static const int32_t packed[T] = {3, 3, 3, 3, 3, 3, 3, -1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1};
    for (int causal = 0; causal < 2; causal++) {
        struct gate_attr f = gate(GATE_RELU2, GATE_COUNT_VISIBLE, causal, 0);
        chunks x = chunks_of(T, S, E, 22), tail;
        double all[T * E], part[T * E];
        for (int way = 0; way < 2; way++) {
            x.u.doc = malloc(sizeof packed);
            memcpy(x.u.doc, packed, sizeof packed);
            if (way)
                flash(&x, f, 4, CHUNK_VISIBLE, 0, T, all, NULL);
            else
                gau(&x.u, f, T, all, NULL);
            free(x.u.doc);
            x.u.doc = NULL;
            tail = x;
            tail.u.q += 8 * S, tail.u.k += 8 * S, tail.u.v += 8 * E;
            if (way)
                flash(&x, f, 4, CHUNK_VISIBLE, 0, A, part, NULL);
            else
                gau(&x.u, f, A, part, NULL);
            SAME(all, part, A * E);
            if (way)
                flash(&x, f, 4, CHUNK_VISIBLE, 8, B, part, NULL);
            else
                gau(&tail.u, f, B, part, NULL);
            SAME(all + 8 * E, part, B * E);
            for (int d = 0; d < E; d++) assert_true(all[7 * E + d] == 0 && all[17 * E + d] == 0);
        }
        chunks_free(&x);
    }
}

/* [14] What is padding gets no gradient. */
static void padding_gradients(void **state) {
    (void)state;
    static int32_t doc[T] = {0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, -1, -1};
    chunks x = chunks_of(T, S, E, 23);
    double *dy = normals(T * E, 24), d[5][T * E];
    struct mixed_chunk_bwd_attr a = {.f = {.f = gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0), .chunk = 4}};
    tl_arg in[12] = {arg3(dy, 1, T, E),    {0},
                     arg3(x.u.q, 1, T, S), arg3(x.u.k, 1, T, S),
                     arg3(x.ql, 1, T, S),  arg3(x.kl, 1, T, S),
                     arg3(x.u.v, 1, T, E), {doc, D2(TL_I32, 1, T)}};
    tl_arg out[5];
    for (int k = 0; k < 5; k++) out[k] = arg3(d[k], 1, T, k == 4 ? E : S);
    call(OP_mixed_chunk_bwd, &a, in, 12, out, 5, 0);
    for (int k = 0; k < 5; k++)
        for (int i = 0; i < T; i++)
            for (int j = 0; j < (k == 4 ? E : S); j++)
                if (doc[i] < 0) assert_true(d[k][i * (k == 4 ? E : S) + j] == 0);
    chunks_free(&x);
    free(dy);
}

/* [15] Both ways, no positions: whole chunks may change places. */
static void chunk_order(void **state) {
    (void)state;
    enum { N = 16, C = 4 };
    static const int to[] = {2, 0, 3, 1};
    chunks x = chunks_of(N, S, E, 25), y = chunks_of(N, S, E, 25);
    double a[N * E], b[N * E];
    x.u.bias = normals(2 * C - 1, 3), x.u.bias_n = 2 * C - 1;
    y.u.bias = normals(2 * C - 1, 3), y.u.bias_n = 2 * C - 1;
    for (int g = 0; g < 4; g++) {
        memcpy(y.u.q + to[g] * C * S, x.u.q + g * C * S, C * S * sizeof *a);
        memcpy(y.u.k + to[g] * C * S, x.u.k + g * C * S, C * S * sizeof *a);
        memcpy(y.ql + to[g] * C * S, x.ql + g * C * S, C * S * sizeof *a);
        memcpy(y.kl + to[g] * C * S, x.kl + g * C * S, C * S * sizeof *a);
        memcpy(y.u.v + to[g] * C * E, x.u.v + g * C * E, C * E * sizeof *a);
    }
    flash(&x, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 0, 0), C, CHUNK_VISIBLE, 0, N, a, NULL);
    flash(&y, gate(GATE_RELU2, GATE_COUNT_VISIBLE, 0, 0), C, CHUNK_VISIBLE, 0, N, b, NULL);
    for (int g = 0; g < 4; g++) SAME(a + g * C * E, b + to[g] * C * E, C * E);
    chunks_free(&x);
    chunks_free(&y);
}

/* [23] Two segments with the state handed over are one, if the cut lies between chunks; elsewhere not. */
static void carried_state(void **state) {
    (void)state;
    struct gate_attr f = gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0);
    for (int64_t cut = 4; cut <= 12; cut += 4) {
        chunks x = chunks_of(T, S, E, 26);
        double all[T * E], two[T * E], m[S * E], end[S * E], last[S * E];
        flash(&x, f, 4, CHUNK_VISIBLE, 0, T, all, end);
        flash(&x, f, 4, CHUNK_VISIBLE, 0, cut, two, m);
        x.state = malloc(sizeof m);
        memcpy(x.state, m, sizeof m);
        x.seen = (int32_t)cut;
        flash(&x, f, 4, CHUNK_VISIBLE, cut, T - cut, two + cut * E, last);
        SAME(all, two, T * E);
        SAME(end, last, S * E);
        free(x.state);
        x.state = NULL;
        flash(&x, f, 4, CHUNK_VISIBLE, 0, cut + 1, two, m);
        x.state = malloc(sizeof m);
        memcpy(x.state, m, sizeof m);
        x.seen = (int32_t)cut + 1;
        flash(&x, f, 4, CHUNK_VISIBLE, cut + 1, T - cut - 1, two + (cut + 1) * E, last);
        assert_true(apart(all, two, T * E) > 1e-3);
        chunks_free(&x);
    }
}

/* [7] One token after the other gives what all together give, for every length up to three chunks and one. */
static void recurrent(void **state) {
    (void)state;
    for (int64_t c = 1; c <= 5; c++)
        for (int form = 0; form < 6; form++) { /* the last four: overlap, periods */
            const int64_t reach = form > 1 ? form % 3 : 0, room = (reach + 1) * c, n = (form > 1 ? 4 : 3) * room + 1;
            chunks x = chunks_of(n, S, E, 30 + (uint64_t)c);
            struct gate_attr f =
                form % 2 ? gate(GATE_RELU2, 0, 1, 1.0f / 3) : gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0);
            x.reach = reach, x.period = form > 3 ? 2 * room : 0;
            struct chunk_step_attr a = {
                .f = {.f = f, .norm = form % 2 ? CHUNK_CONST : CHUNK_VISIBLE, .reach = x.reach, .period = x.period}};
            x.u.bias = normals(2 * room - 1, 5), x.u.bias_n = 2 * room - 1;
            double *all = normals(n * E, 1), *step = normals(n * E, 1);
            double *m = normals(2 * S * E, 2), *kq = normals(2 * room * S, 3), *kl = normals(2 * room * S, 4),
                   *v = normals(2 * room * E, 5);
            for (int64_t i = 0; i < n; i++) {
                int32_t slot = 1, pos = (int32_t)i;
                tl_arg in[9] = {{x.u.q + i * S, D2(TL_F64, 1, S)},
                                {x.u.k + i * S, D2(TL_F64, 1, S)},
                                {x.ql + i * S, D2(TL_F64, 1, S)},
                                {x.kl + i * S, D2(TL_F64, 1, S)},
                                {x.u.v + i * E, D2(TL_F64, 1, E)},
                                {&slot, D1(TL_I32, 1)},
                                {&pos, D1(TL_I32, 1)},
                                arg1(x.u.bias, x.u.bias_n)};
                tl_arg out[5] = {{step + i * E, D2(TL_F64, 1, E)},
                                 arg3(m, 2, S, E),
                                 arg3(kq, 2, room, S),
                                 arg3(kl, 2, room, S),
                                 arg3(v, 2, room, E)};
                call(OP_chunk_step, &a, in, 9, out, 5, 30);
                flash(&x, f, c, a.f.norm, 0, i + 1, all, NULL); /* the parallel form of every length */
                SAME(all, step, (i + 1) * E);
            }
            free(all), free(step), free(m), free(kq), free(kl), free(v);
            chunks_free(&x);
        }
}

/* Scores that are weights by themselves, all over c: whatever sees a pair, it adds the same. So chunks that overlap,
 * and levels of chunks in chunks, give linear attention without a hole and with nothing counted twice. */
static void no_hole(void **state) {
    (void)state;
    enum { N = 41 };
    for (int64_t c = 1; c <= 6; c++)
        for (int form = 0; form < 4; form++) {
            chunks x = chunks_of(N, S, E, 70 + (uint64_t)c);
            double want[N * E], got[N * E], far[N * E];
            memcpy(x.ql, x.u.q, N * S * sizeof *x.ql), memcpy(x.kl, x.u.k, N * S * sizeof *x.kl);
            for (int64_t i = 0; i < N; i++)
                for (int64_t d = 0; d < E; d++) {
                    double sum = 0;
                    for (int64_t j = 0; j <= i; j++) {
                        double t = 0;
                        for (int64_t k = 0; k < S; k++) t += x.u.q[i * S + k] * x.u.k[j * S + k];
                        sum += t * x.u.v[j * E + d];
                    }
                    want[i * E + d] = sum / (double)c;
                }
            x.reach = form < 3 ? form : 0;
            x.period = form == 3 ? 3 * c : 0;
            flash(&x, gate(GATE_IDENTITY, 0, 1, 1 / (float)c), c, CHUNK_CONST, 0, N, got, NULL);
            if (form == 3) { /* three levels: chunks of c within blocks of 3 c, and the blocks before */
                x.parts = CHUNK_FAR, x.period = 0;
                flash(&x, gate(GATE_IDENTITY, 0, 1, 1), 3 * c, CHUNK_CONST, 0, N, far, NULL);
                for (int64_t i = 0; i < N * E; i++) got[i] += 3 * far[i];
            }
            assert_true(apart(got, want, N * E) < 1e-6); /* 1 / c is an attribute in single precision */
            chunks_free(&x);
        }
}

/* [51] The token shift and its adjoint: <S x, y> = <x, S^T y>; the first row sees zeros. */
static void shift_adjoint(void **state) {
    (void)state;
    static int32_t doc[T] = {0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3};
    double *x = normals(T * E, 1), *y = normals(T * E, 2), sx[T * E], sy[T * E], a = 0, b = 0;
    for (int with = 0; with < 2; with++) {
        struct shift_attr f = {.channels = 3};
        tl_arg in[2] = {arg3(x, 1, T, E)}, out = arg3(sx, 1, T, E);
        if (with) in[1] = (tl_arg){doc, D2(TL_I32, 1, T)};
        call(OP_shift, &f, in, 2, &out, 1, 0);
        f.inverse = 1;
        in[0] = arg3(y, 1, T, E), out = arg3(sy, 1, T, E);
        call(OP_shift, &f, in, 2, &out, 1, 0);
        a = b = 0;
        for (int i = 0; i < T * E; i++) a += sx[i] * y[i], b += x[i] * sy[i];
        assert_near(a, b, 1e-11);
        for (int d = 0; d < E; d++) assert_true(sx[d] == (d < 3 ? 0 : x[d]));
        for (int d = 0; d < 3; d++) assert_true(sx[4 * E + d] == (with ? 0 : x[3 * E + d]));
    }
    free(x), free(y);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identities),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(causality),
        cmocka_unit_test(positions),
        cmocka_unit_test(scales),
        cmocka_unit_test(kinds),
        cmocka_unit_test(normalised),
        cmocka_unit_test(one_chunk),
        cmocka_unit_test(linear_part),
        cmocka_unit_test(documents),
        cmocka_unit_test(padding_gradients),
        cmocka_unit_test(chunk_order),
        cmocka_unit_test(carried_state),
        cmocka_unit_test(recurrent),
        cmocka_unit_test(no_hole),
        cmocka_unit_test(shift_adjoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
