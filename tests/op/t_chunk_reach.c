/* Far chunks that are reached exactly, in double on the references, which the kernels are held against in t_kernels. */
#include "op/calls.h"

enum { N = 41, S = 5, E = 4, C = 3 };

typedef struct reach {
    double *q, *k, *v;
    int32_t *doc;
    int64_t chunk, skip;
    int32_t top, count;
} reach;

static reach reach_of(uint64_t seed) {
    return (reach){.q = normals(N * S, seed),
                   .k = normals(N * S, seed + 1),
                   .v = normals(N * E, seed + 2),
                   .chunk = C,
                   .top = 2,
                   .count = GATE_COUNT_VISIBLE};
}
static void reach_free(reach *x) {
    free(x->q), free(x->k), free(x->v), free(x->doc);
}

static struct chunk_reach_attr attr_of(const reach *x, int32_t kind) {
    return (struct chunk_reach_attr){
        .f = {.kind = kind, .count = x->count, .causal = 1}, .chunk = x->chunk, .skip = x->skip, .top = x->top};
}

/* rows [from, from + T) */
static void far(const reach *x, int32_t kind, int64_t from, int64_t T, double *o, int32_t *pick) {
    const struct chunk_reach_attr a = attr_of(x, kind);
    tl_arg in[5] = {arg3(x->q + from * S, 1, T, S), arg3(x->k + from * S, 1, T, S), arg3(x->v + from * E, 1, T, E)};
    if (x->doc) in[3] = (tl_arg){x->doc + from, D2(TL_I32, 1, T)};
    tl_arg out[2] = {arg3(o, 1, T, E), {pick, D3(TL_I32, 1, T, x->top)}};
    call(OP_chunk_reach, &a, in, 5, out, 2, 0);
}

/* With every chunk within reach, what lies within chunks and what is reached are all pairs, each once. */
static void every_pair_once(void **state) {
    (void)state;
    for (int64_t skip = 0; skip < 3; skip++) {
        reach x = reach_of(10 + (uint64_t)skip);
        double got[N * E], near[N * E];
        int32_t pick[N * 16];
        x.top = 16, x.skip = skip, x.count = GATE_COUNT_NONE;
        far(&x, GATE_IDENTITY, 0, N, got, pick);
        const struct mixed_chunk_attr local = {
            .f = {.kind = GATE_IDENTITY, .causal = 1}, .chunk = C, .parts = CHUNK_LOCAL, .reach = skip};
        tl_arg in[5] = {arg3(x.q, 1, N, S), arg3(x.k, 1, N, S), arg3(x.q, 1, N, S), arg3(x.k, 1, N, S),
                        arg3(x.v, 1, N, E)};
        tl_arg out = arg3(near, 1, N, E);
        call(OP_mixed_chunk, &local, in, 5, &out, 1, 0);
        for (int64_t i = 0; i < N; i++)
            for (int64_t d = 0; d < E; d++) {
                double want = 0;
                for (int64_t j = 0; j <= i; j++) {
                    double t = 0;
                    for (int64_t k = 0; k < S; k++) t += x.q[i * S + k] * x.k[j * S + k];
                    want += t / sqrt(S) * x.v[j * E + d];
                }
                assert_near(got[i * E + d] + near[i * E + d], want, 1e-10);
            }
        reach_free(&x);
    }
}

/* The chosen chunks lie whole behind the row, their landmarks have the largest products, and nothing else counts. */
static void the_best_are_chosen(void **state) {
    (void)state;
    reach x = reach_of(20);
    double got[N * E];
    int32_t pick[N * 2];
    far(&x, GATE_RELU2, 0, N, got, pick);
    for (int64_t i = 0; i < N; i++) {
        double score[N / C + 1], out[E] = {0};
        const int64_t there = i / C;
        for (int64_t h = 0; h < there; h++) {
            score[h] = 0;
            for (int64_t j = h * C; j < (h + 1) * C; j++)
                for (int64_t k = 0; k < S; k++) score[h] += x.q[i * S + k] * x.k[j * S + k] / C;
        }
        int n = 0;
        for (int l = 0; l < 2; l++) {
            const int32_t lo = pick[i * 2 + l];
            if (lo < 0) continue;
            int64_t better = 0;
            assert_true(lo % C == 0 && lo + C <= i / C * C);
            for (int64_t h = 0; h < there; h++) better += score[h] > score[lo / C];
            assert_true(better < 2);
            n++;
        }
        assert_int_equal(n, there < 2 ? there : 2);
        for (int l = 0; l < n; l++)
            for (int64_t j = pick[i * 2 + l]; j < pick[i * 2 + l] + C; j++) {
                double t = 0;
                for (int64_t k = 0; k < S; k++) t += x.q[i * S + k] * x.k[j * S + k] / sqrt(S);
                for (int d = 0; d < E && t > 0; d++) out[d] += t * t * x.v[j * E + d] / (n * C);
            }
        for (int d = 0; d < E; d++) assert_near(got[i * E + d], out[d], 1e-11);
    }
    reach_free(&x);
}

/* A far token is found again: one key fits the query alone, and its value comes back, as exact as it lies there. */
static void a_far_token_is_found(void **state) {
    (void)state;
    reach x = reach_of(30);
    double got[N * E];
    int32_t pick[N];
    x.top = 1, x.count = GATE_COUNT_NONE;
    memset(x.k, 0, N * S * sizeof *x.k);
    memset(x.q, 0, N * S * sizeof *x.q);
    x.k[7 * S + 2] = 1, x.q[40 * S + 2] = sqrt(sqrt((double)S) * sqrt((double)S));
    far(&x, GATE_RELU2, 0, N, got, pick);
    assert_int_equal(pick[40], 6);
    for (int d = 0; d < E; d++) assert_near(got[40 * E + d], x.v[7 * E + d], 1e-12);
    reach_free(&x);
}

/* The first t rows of a text are those of the text of t rows, to the bit; what follows a row does not reach it. */
static void prefixes_and_causality(void **state) {
    (void)state;
    reach x = reach_of(40);
    double all[N * E], part[N * E];
    int32_t pick[N * 2], again[N * 2];
    far(&x, GATE_RELU2, 0, N, all, pick);
    for (int64_t t = 1; t <= N; t++) {
        far(&x, GATE_RELU2, 0, t, part, again);
        assert_memory_equal(part, all, (size_t)(t * E) * sizeof *all);
        assert_memory_equal(again, pick, (size_t)(t * 2) * sizeof *pick);
    }
    for (int k = 0; k < S; k++) x.k[20 * S + k] = 9, x.q[20 * S + k] = -3;
    far(&x, GATE_RELU2, 0, N, part, again);
    assert_memory_equal(part, all, 20 * E * sizeof *all);
    assert_true(memcmp(part, all, sizeof all) != 0);
    reach_free(&x);
}

/* Documents in one row are as by themselves; padding is seen by nobody. */
static void documents(void **state) {
    (void)state;
    reach x = reach_of(50);
    double all[N * E], part[N * E];
    int32_t pick[N * 2], own[N * 2], *doc = calloc(N, sizeof *doc);
    assert_non_null(doc);
    for (int i = 0; i < N; i++) doc[i] = i < 17 ? 0 : i < 36 ? 1 : -1;
    x.doc = doc;
    far(&x, GATE_RELU2, 0, N, all, pick);
    x.doc = NULL;
    far(&x, GATE_RELU2, 17, 19, part, own);
    assert_memory_equal(part, all + 17 * E, 19 * E * sizeof *all);
    for (int i = 0; i < 19 * 2; i++) assert_int_equal(pick[17 * 2 + i], own[i] < 0 ? -1 : own[i] + 17);
    for (int i = 36 * E; i < N * E; i++) assert_true(all[i] == 0);
    x.doc = doc;
    reach_free(&x);
}

/* Row by row over a cache: the same as all at once, for every length; a cache that forgets reaches what it has whole.
 */
static void recurrent(void **state) {
    (void)state;
    for (int64_t chunk = 1; chunk <= 5; chunk++)
        for (int64_t skip = 0; skip < 2; skip++) {
            reach x = reach_of(60 + (uint64_t)chunk);
            double all[N * E], one[E];
            int32_t pick[N * 2];
            x.chunk = chunk, x.skip = skip;
            far(&x, GATE_RELU2, 0, N, all, pick);
            const struct chunk_reach_kv_attr a = {attr_of(&x, GATE_RELU2)};
            for (int32_t i = 0; i < N; i++) {
                int32_t slot = 0, pos = i;
                tl_arg in[5] = {{x.q + i * S, D2(TL_F64, 1, S)},
                                {x.k, D4(TL_F64, 1, N, 1, S)},
                                {x.v, D4(TL_F64, 1, N, 1, E)},
                                {&slot, D1(TL_I32, 1)},
                                {&pos, D1(TL_I32, 1)}};
                tl_arg out = {one, D2(TL_F64, 1, E)};
                call(OP_chunk_reach_kv, &a, in, 5, &out, 1, 0);
                for (int d = 0; d < E; d++) assert_near(one[d], all[i * E + d], 1e-12);
            }
            reach_free(&x);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_once),
        cmocka_unit_test(the_best_are_chosen),
        cmocka_unit_test(a_far_token_is_found),
        cmocka_unit_test(prefixes_and_causality),
        cmocka_unit_test(documents),
        cmocka_unit_test(recurrent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
