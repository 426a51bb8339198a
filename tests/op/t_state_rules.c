/* What holds of states of one matrix, of heads and of halves of mixed chunks, in double on the references. Numbers in
 * brackets are those of docs/attention.md. */
#include "op/calls.h"

#include <math.h>

static tl_arg arg4(double *p, int64_t a, int64_t b, int64_t c, int64_t d) {
    return p ? (tl_arg){p, D4(TL_F64, a, b, c, d)} : (tl_arg){0};
}

static void same(const double *a, const double *b, int64_t n, double tol, const char *what) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= tol * (1 + fabs(b[i]))))
            fail_msg("%s: element %lld is %g, not %g", what, (long long)i, a[i], b[i]);
}

enum { T = 19, H = 2, S = 3, E = 4, Q = T * H * S, V = T * H * E, M = H * S * E };

typedef struct states {
    double *q, *k, *v, *g, o[V], state[M];
    tl_desc gd;
} states;

static void states_free(states *x) {
    free(x->q), free(x->k), free(x->v), free(x->g);
}

/* decay: 1 a number of a head, 2 of a token, 3 a vector; all of log a below zero */
static states states_of(int decay, uint64_t seed) {
    states x = {.q = normals(Q, seed), .k = normals(Q, seed + 1), .v = normals(V, seed + 2), .g = normals(Q, seed + 3)};
    for (int64_t i = 0; i < Q; i++) x.g[i] = -fabs(x.g[i]);
    x.gd = decay == 1 ? D1(TL_F64, H) : decay == 2 ? D3(TL_F64, 1, T, H) : D4(TL_F64, 1, T, H, S);
    return x;
}

/* tokens [from, from + n), a state carried in and out */
static void run(states *x, int decay, int64_t from, int64_t n, double *in_state, double *o, double *state) {
    const struct chunk_state_attr a = {.causal = 1};
    tl_arg in[6] = {arg4(x->q + from * H * S, 1, n, H, S), arg4(x->k + from * H * S, 1, n, H, S),
                    arg4(x->v + from * H * E, 1, n, H, E)};
    const int64_t per = decay == 1 ? 0 : decay == 2 ? H : H * S;
    if (decay) in[3] = (tl_arg){x->g + from * per, x->gd};
    if (decay > 1) in[3].d.dim[1] = n;
    if (decay > 1) in[3].d = tl_desc_make(TL_F64, in[3].d.ndim, in[3].d.dim);
    in[5] = arg4(in_state, 1, H, S, E);
    tl_arg out[2] = {arg4(o, 1, n, H, E), arg4(state, 1, H, S, E)};
    call(OP_chunk_state, &a, in, 6, out, 2, 0);
}

/* log a of token t, head h, number k */
static double log_decay(const states *x, int decay, int64_t t, int64_t h, int64_t k) {
    return decay == 0 ? 0 : decay == 1 ? x->g[h] : decay == 2 ? x->g[t * H + h] : x->g[(t * H + h) * S + k];
}

/* [45] The state form is the sum over pairs, each faded by the decays between: linear attention without a decay, RetNet
 * with one of a head, simple GLA and GLA with those of tokens; whole, or in segments of 1, 3, 16 tokens. */
static void forms_agree(void **state) {
    (void)state;
    for (int decay = 0; decay < 4; decay++) {
        states x = states_of(decay, 40 + (uint64_t)decay);
        double want[V] = {0};
        for (int64_t h = 0; h < H; h++)
            for (int64_t i = 0; i < T; i++)
                for (int64_t j = 0; j <= i; j++) {
                    double score = 0;
                    for (int64_t k = 0; k < S; k++) {
                        double fade = 0;
                        for (int64_t r = j + 1; r <= i; r++) fade += log_decay(&x, decay, r, h, k);
                        score += x.q[(i * H + h) * S + k] * x.k[(j * H + h) * S + k] * exp(fade);
                    }
                    for (int64_t d = 0; d < E; d++) want[(i * H + h) * E + d] += score * x.v[(j * H + h) * E + d];
                }
        static const int64_t cuts[] = {T, 16, 3, 1};
        double end[M];
        for (int c = 0; c < 4; c++) {
            double carried[M] = {0};
            for (int64_t t = 0; t < T; t += cuts[c]) {
                double next[M];
                run(&x, decay, t, T - t < cuts[c] ? T - t : cuts[c], carried, x.o + t * H * E, next);
                memcpy(carried, next, sizeof carried);
            }
            same(x.o, want, V, 1e-11, "outputs");
            if (c) same(carried, end, M, 1e-11, "state");
            memcpy(end, carried, sizeof end);
        }
        states_free(&x);
    }
}

/* [45] Nothing remembered: o_t = (q_t.k_t) v_t. */
static void forgetting(void **state) {
    (void)state;
    states x = states_of(1, 50);
    for (int64_t h = 0; h < H; h++) x.g[h] = -1e4;
    run(&x, 1, 0, T, NULL, x.o, x.state);
    for (int64_t r = 0; r < T * H; r++) {
        double dot = 0;
        for (int64_t k = 0; k < S; k++) dot += x.q[r * S + k] * x.k[r * S + k];
        for (int64_t d = 0; d < E; d++) assert_near(x.o[r * E + d], dot * x.v[r * E + d], 1e-12);
    }
    states_free(&x);
}

/* [7] for states: one row after the other. */
static void steps_are_the_whole(void **state) {
    (void)state;
    for (int decay = 0; decay < 4; decay++) {
        states x = states_of(decay, 60 + (uint64_t)decay);
        const struct chunk_state_step_attr a = {.f = {.causal = 1}};
        double S_state[M], o[V];
        run(&x, decay, 0, T, NULL, x.o, x.state);
        for (int32_t t = 0; t < T; t++) {
            int32_t slot = 0, pos = t;
            tl_arg in[6] = {arg3(x.q + t * H * S, 1, H, S), arg3(x.k + t * H * S, 1, H, S),
                            arg3(x.v + t * H * E, 1, H, E)};
            if (decay == 1) in[3] = arg1(x.g, H);
            if (decay == 2) in[3] = (tl_arg){x.g + t * H, D2(TL_F64, 1, H)};
            if (decay == 3) in[3] = arg3(x.g + t * H * S, 1, H, S);
            in[4] = (tl_arg){&slot, D1(TL_I32, 1)}, in[5] = (tl_arg){&pos, D1(TL_I32, 1)};
            tl_arg out[2] = {arg3(o + t * H * E, 1, H, E), arg4(S_state, 1, H, S, E)};
            call(OP_chunk_state_step, &a, in, 6, out, 2, 2);
        }
        same(o, x.o, V, 1e-11, "outputs");
        same(S_state, x.state, M, 1e-11, "state");
        states_free(&x);
    }
}

/* ---- the delta rule -------------------------------------------------------------------------------------------- */

/* tokens [from, from + n) of one head */
static void delta(double *q, double *k, double *v, double *g, double *beta, int64_t n, int64_t s, int64_t e,
                  double *carried, double *o, double *state) {
    const struct delta_rule_attr a = {0};
    tl_arg in[7] = {arg4(q, 1, n, 1, s),       arg4(k, 1, n, 1, s), arg4(v, 1, n, 1, e), arg3(g, 1, n, 1), {0},
                    arg4(carried, 1, 1, s, e), arg3(beta, 1, n, 1)};
    tl_arg out[2] = {arg4(o, 1, n, 1, e), arg4(state, 1, 1, s, e)};
    call(OP_delta_rule, &a, in, 7, out, 2, 0);
}

/* [46] Orthonormal keys and beta 1: nothing to correct, so linear attention. */
static void orthonormal_keys(void **state) {
    (void)state;
    enum { N = 6 };
    double k[N * N], *q = normals(N * N, 3), *v = normals(N * E, 4), beta[N], o[N * E], end[N * E], want[N * E];
    double *x = normals(N * N, 5);
    for (int i = 0; i < N; i++) { /* Gram and Schmidt */
        double length = 0;
        memcpy(k + i * N, x + i * N, N * sizeof *k);
        for (int j = 0; j < i; j++) {
            double dot = 0;
            for (int d = 0; d < N; d++) dot += k[i * N + d] * k[j * N + d];
            for (int d = 0; d < N; d++) k[i * N + d] -= dot * k[j * N + d];
        }
        for (int d = 0; d < N; d++) length += k[i * N + d] * k[i * N + d];
        for (int d = 0; d < N; d++) k[i * N + d] /= sqrt(length);
        beta[i] = 1;
    }
    delta(q, k, v, NULL, beta, N, N, E, NULL, o, end);
    const struct chunk_state_attr a = {.causal = 1};
    tl_arg in[6] = {arg4(q, 1, N, 1, N), arg4(k, 1, N, 1, N), arg4(v, 1, N, 1, E)}, out[2] = {arg4(want, 1, N, 1, E)};
    call(OP_chunk_state, &a, in, 6, out, 2, 0);
    same(o, want, N * E, 1e-12, "outputs");
    free(q), free(v), free(x);
}

/* [46] A key that comes again overwrites its value: asked for it, the state says the new one and not the sum. */
static void repeated_key(void **state) {
    (void)state;
    double k[3 * 2] = {0.6, 0.8, -0.8, 0.6, 0.6, 0.8}, v[3 * E] = {1, 2, 3, 4, 5, 6, 7, 8, -1, 0, 9, 2}, o[3 * E];
    double beta[3] = {1, 1, 1}, end[2 * E];
    delta(k, k, v, NULL, beta, 3, 2, E, NULL, o, end);
    for (int d = 0; d < E; d++) {
        assert_near(o[2 * E + d], v[2 * E + d], 1e-12);
        assert_near(-0.8 * end[d] + 0.6 * end[E + d], v[E + d], 1e-12); /* the other key's is still there */
    }
    beta[2] = 0.25; /* a quarter of the way */
    delta(k, k, v, NULL, beta, 3, 2, E, NULL, o, end);
    for (int d = 0; d < E; d++) assert_near(o[2 * E + d], 0.75 * v[d] + 0.25 * v[2 * E + d], 1e-12);
}

/* The formula with its matrices written out, with a decay; in segments; one row after the other. */
static void delta_forms(void **state) {
    (void)state;
    double *q = normals(T * S, 11), *k = normals(T * S, 12), *v = normals(T * E, 13), *g = normals(T, 14),
           *beta = normals(T, 15), M0[S][E] = {{0}}, want[T * E], o[T * E], carried[S * E] = {0}, step[S * E];
    for (int t = 0; t < T; t++) {
        double next[S][E], gone[S][S];
        g[t] = -fabs(g[t]), beta[t] = 1 / (1 + exp(beta[t]));
        for (int i = 0; i < S; i++)
            for (int j = 0; j < S; j++) gone[i][j] = exp(g[t]) * ((i == j) - beta[t] * k[t * S + i] * k[t * S + j]);
        for (int i = 0; i < S; i++)
            for (int d = 0; d < E; d++) {
                next[i][d] = beta[t] * k[t * S + i] * v[t * E + d];
                for (int j = 0; j < S; j++) next[i][d] += gone[i][j] * M0[j][d];
            }
        memcpy(M0, next, sizeof next);
        for (int d = 0; d < E; d++) {
            want[t * E + d] = 0;
            for (int i = 0; i < S; i++) want[t * E + d] += q[t * S + i] * M0[i][d];
        }
    }
    for (int64_t cut = 1; cut <= T; cut += 6) {
        memset(carried, 0, sizeof carried);
        for (int64_t t = 0; t < T; t += cut) {
            double next[S * E];
            const int64_t n = T - t < cut ? T - t : cut;
            delta(q + t * S, k + t * S, v + t * E, g + t, beta + t, n, S, E, carried, o + t * E, next);
            memcpy(carried, next, sizeof carried);
        }
        same(o, want, T * E, 1e-11, "segments");
        same(carried, &M0[0][0], S * E, 1e-11, "state");
    }
    const struct delta_rule_step_attr a = {{0}};
    for (int32_t t = 0; t < T; t++) {
        int32_t slot = 0, pos = t;
        tl_arg in[7] = {arg3(q + t * S, 1, 1, S), arg3(k + t * S, 1, 1, S), arg3(v + t * E, 1, 1, E)};
        in[3] = (tl_arg){g + t, D2(TL_F64, 1, 1)}, in[6] = (tl_arg){beta + t, D2(TL_F64, 1, 1)};
        in[4] = (tl_arg){&slot, D1(TL_I32, 1)}, in[5] = (tl_arg){&pos, D1(TL_I32, 1)};
        tl_arg out[2] = {arg3(o + t * E, 1, 1, E), arg4(step, 1, 1, S, E)};
        call(OP_delta_rule_step, &a, in, 7, out, 2, 2);
    }
    same(o, want, T * E, 1e-11, "steps");
    same(step, &M0[0][0], S * E, 1e-11, "state of steps");
    free(q), free(k), free(v), free(g), free(beta);
}

/* ---- units and chunks ------------------------------------------------------------------------------------------ */

/* [2] With the gate at one a layer is plain attention: (1 (.) A V) Wo = A V Wo, A written out. */
static void open_gate(void **state) {
    (void)state;
    enum { N = 7, s = 3, e = 4, D = 5 };
    double *q = normals(N * s, 1), *k = normals(N * s, 2), *v = normals(N * e, 3), *w = normals(D * e, 4);
    double *u = constant(N * e, 1), o[N * e], gated[N * e], y[N * D];
    struct gau_attention_attr a = {.f = {.kind = GATE_SOFTMAX, .causal = 1}};
    tl_arg in[7] = {arg3(q, 1, N, s), arg3(k, 1, N, s), arg3(v, 1, N, e)}, out = arg3(o, 1, N, e);
    call(OP_gau_attention, &a, in, 7, &out, 1, 0);
    struct mul_attr none = {0};
    tl_arg both[2] = {arg3(u, 1, N, e), arg3(o, 1, N, e)}, m = arg3(gated, 1, N, e);
    call(OP_mul, &none, both, 2, &m, 1, 0);
    struct linear_attr line = {0};
    tl_arg li[3] = {arg3(gated, 1, N, e), {w, D2(TL_F64, D, e)}}, lo = arg3(y, 1, N, D);
    call(OP_linear, &line, li, 3, &lo, 1, 0);
    for (int i = 0; i < N; i++) {
        double p[N], sum = 0;
        for (int j = 0; j <= i; j++) {
            p[j] = 0;
            for (int d = 0; d < s; d++) p[j] += q[i * s + d] * k[j * s + d];
            sum += p[j] = exp(p[j] / sqrt(s));
        }
        for (int r = 0; r < D; r++) {
            double want = 0;
            for (int j = 0; j <= i; j++)
                for (int d = 0; d < e; d++) want += p[j] / sum * v[j * e + d] * w[r * e + d];
            assert_near(y[i * D + r], want, 1e-12);
        }
    }
    free(q), free(k), free(v), free(w), free(u);
}

enum { CT = 17, CS = 3, CE = 4, CC = 5 };

/* mixed chunks of `heads` heads; x: qq kq ql kl v, one after the other */
static void chunks(double *const *x, int64_t heads, int32_t parts, double *o) {
    struct mixed_chunk_attr a = {
        .f = {.kind = GATE_RELU2, .count = GATE_COUNT_VISIBLE, .causal = 1}, .chunk = CC, .parts = parts};
    tl_arg in[10] = {{0}}, out[2] = {{0}};
    for (int i = 0; i < 5; i++) {
        const int64_t w = i == 4 ? CE : CS;
        in[i] = heads > 1 ? arg4(x[i], 1, CT, heads, w) : arg3(x[i], 1, CT, w);
    }
    out[0] = heads > 1 ? arg4(o, 1, CT, heads, CE) : arg3(o, 1, CT, CE);
    call(OP_mixed_chunk, &a, in, 10, out, 2, 0);
}

/* Heads side by side are calls one by one; the halves add up to the whole. */
static void heads_and_halves(void **state) {
    (void)state;
    double *x[5], both[CT * 2 * CE], near[CT * 2 * CE], far[CT * 2 * CE];
    for (int i = 0; i < 5; i++) x[i] = normals(CT * 2 * (i == 4 ? CE : CS), 70 + (uint64_t)i);
    chunks(x, 2, CHUNK_BOTH, both);
    chunks(x, 2, CHUNK_LOCAL, near);
    chunks(x, 2, CHUNK_FAR, far);
    for (int i = 0; i < CT * 2 * CE; i++) assert_near(near[i] + far[i], both[i], 1e-12);
    for (int64_t h = 0; h < 2; h++) {
        double part[5][CT * CE], *one[5], o[CT * CE];
        for (int i = 0; i < 5; i++) {
            const int64_t w = i == 4 ? CE : CS;
            one[i] = part[i];
            for (int64_t t = 0; t < CT; t++)
                memcpy(part[i] + t * w, x[i] + (t * 2 + h) * w, (size_t)w * sizeof(double));
        }
        chunks(one, 1, CHUNK_BOTH, o);
        for (int64_t t = 0; t < CT; t++) same(o + t * CE, both + (t * 2 + h) * CE, CE, 1e-13, "a head");
    }
    for (int i = 0; i < 5; i++) free(x[i]);
}

/* [22] The two sweeps of the backward pass against the gradient with every prefix M_g kept: of the linear half
 * o_i = ql_i M_g / N_g. */
static void saved_prefixes(void **state) {
    (void)state;
    enum { G = (CT + CC - 1) / CC };
    double *x[5], *dy = normals(CT * CE, 90), m[G][CS][CE] = {{{0}}}, dm[G][CS][CE] = {{{0}}};
    double dq[CT * CS] = {0}, dk[CT * CS] = {0}, dv[CT * CE] = {0}, got_q[CT * CS], got_k[CT * CS], got_v[CT * CE];
    for (int i = 0; i < 5; i++) x[i] = normals(CT * (i == 4 ? CE : CS), 80 + (uint64_t)i);
    const double *ql = x[2], *kl = x[3], *v = x[4];
    for (int g = 1; g < G; g++) /* M before chunk g */
        for (int t = 0; t < g * CC; t++)
            for (int k = 0; k < CS; k++)
                for (int d = 0; d < CE; d++) m[g][k][d] += kl[t * CS + k] * v[t * CE + d];
    for (int t = CC; t < CT; t++)
        for (int k = 0; k < CS; k++)
            for (int d = 0; d < CE; d++) {
                const int g = t / CC;
                dq[t * CS + k] += dy[t * CE + d] * m[g][k][d] / (g * CC);
                dm[g][k][d] += ql[t * CS + k] * dy[t * CE + d] / (g * CC);
            }
    for (int g = 1; g < G; g++)
        for (int t = 0; t < g * CC; t++)
            for (int k = 0; k < CS; k++)
                for (int d = 0; d < CE; d++) {
                    dk[t * CS + k] += v[t * CE + d] * dm[g][k][d];
                    dv[t * CE + d] += kl[t * CS + k] * dm[g][k][d];
                }
    struct mixed_chunk_bwd_attr a = {.f = {.f = {.kind = GATE_RELU2, .causal = 1}, .chunk = CC, .parts = CHUNK_FAR}};
    tl_arg in[12] = {arg3(dy, 1, CT, CE)}, out[8] = {{0}};
    for (int i = 0; i < 5; i++) in[2 + i] = arg3(x[i], 1, CT, i == 4 ? CE : CS);
    out[2] = arg3(got_q, 1, CT, CS), out[3] = arg3(got_k, 1, CT, CS), out[4] = arg3(got_v, 1, CT, CE);
    call(OP_mixed_chunk_bwd, &a, in, 12, out, 8, 0);
    same(got_q, dq, CT * CS, 1e-12, "dql");
    same(got_k, dk, CT * CS, 1e-12, "dkl");
    same(got_v, dv, CT * CE, 1e-12, "dv");
    for (int i = 0; i < 5; i++) free(x[i]);
    free(dy);
}

/* The mean of random features' products is the kernel they stand for. */
static void features_estimate(void **state) {
    (void)state;
    enum { W = 4, N = 200000 };
    double *w = normals((int64_t)N * W, 5), x[2][W] = {{0.3, -0.5, 0.2, 0.1}, {0.4, 0.2, -0.3, 0.5}}, *y[2], dot = 0,
           sum = 0;
    for (int i = 0; i < 2; i++) {
        double *p = constant(N, 0);
        for (int n = 0; n < N; n++)
            for (int d = 0; d < W; d++) p[n] += w[n * W + d] * x[i][d];
        y[i] = constant(N, 0);
        const struct favor_attr none = {0};
        tl_arg in[2] = {{p, D2(TL_F64, 1, N)}, {x[i], D2(TL_F64, 1, W)}}, out = {y[i], D2(TL_F64, 1, N)};
        call(OP_favor, &none, in, 2, &out, 1, 0);
        free(p);
    }
    for (int d = 0; d < W; d++) dot += x[0][d] * x[1][d];
    for (int n = 0; n < N; n++) sum += y[0][n] * y[1][n];
    assert_near(sum / exp(dot), 1, 0.02);
    free(w), free(y[0]), free(y[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_agree),       cmocka_unit_test(forgetting),       cmocka_unit_test(steps_are_the_whole),
        cmocka_unit_test(open_gate),         cmocka_unit_test(heads_and_halves), cmocka_unit_test(saved_prefixes),
        cmocka_unit_test(features_estimate), cmocka_unit_test(orthonormal_keys), cmocka_unit_test(repeated_key),
        cmocka_unit_test(delta_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
