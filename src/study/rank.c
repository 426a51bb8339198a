/* The rank of what a layer's mixer hands to its output projection: the concatenated heads of attention, or U (.) (A V)
 * of a gated unit, n tokens by w channels, on held-out text. */
#include "graph/graph.h"
#include "study/study.h"

#include <math.h>
#include <string.h>

enum { RANK_TOKENS = 256, RANK_WIDTH = 1024, SWEEPS = 30 };

/* ---- singular values ------------------------------------------------------------------------- */

/* Eigenvalues of the symmetric a (n,n), which is destroyed: cyclic Jacobi rotations. They end on the diagonal. */
static void jacobi(double *a, int64_t n) {
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double off = 0, diagonal = 0;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) *(i == j ? &diagonal : &off) += a[i * n + j] * a[i * n + j];
        if (off <= 1e-26 * diagonal) return;
        for (int64_t p = 0; p < n; p++)
            for (int64_t q = p + 1; q < n; q++) {
                double apq = a[p * n + q];
                if (apq == 0) continue;
                double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
                double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
                double c = 1 / sqrt(t * t + 1), s = t * c;
                for (int64_t k = 0; k < n; k++) {
                    double x = a[k * n + p], y = a[k * n + q];
                    a[k * n + p] = c * x - s * y;
                    a[k * n + q] = s * x + c * y;
                }
                for (int64_t k = 0; k < n; k++) {
                    double x = a[p * n + k], y = a[q * n + k];
                    a[p * n + k] = c * x - s * y;
                    a[q * n + k] = s * x + c * y;
                }
            }
    }
}

tl_status study_rank_of(const tl_allocator *a, const float *x, int64_t n, int64_t w, study_rank *out, tl_error *e) {
    const int64_t m = n < w ? n : w; /* the smaller Gram matrix has the same eigenvalues */
    double *g = mem_new(a, (size_t)(m * m), sizeof *g), top = 0, sum = 0, square = 0, entropy = 0;
    if (!g) return error_set(e, TL_NOMEM, "no memory for a Gram matrix");
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j <= i; j++) {
            double s = 0;
            for (int64_t k = 0; k < (n < w ? w : n); k++)
                s += n < w ? (double)x[i * w + k] * (double)x[j * w + k] : (double)x[k * w + i] * (double)x[k * w + j];
            g[i * m + j] = g[j * m + i] = s;
        }
    jacobi(g, m);
    memset(out, 0, sizeof *out);
    for (int64_t i = 0; i < m; i++) {
        double s = sqrt(fmax(0, g[i * m + i]));
        g[i] = s; /* the first row is done with: only diagonals are read, and i * m + i >= i */
        top = fmax(top, s);
        sum += s;
        square += s * s;
    }
    for (int64_t i = 0; i < m; i++) {
        double p = sum > 0 ? g[i] / sum : 0;
        out->numerical += g[i] > 1e-3 * top;
        if (p > 0) entropy -= p * log(p);
    }
    out->effective = exp(entropy);
    out->stable = top > 0 ? square / (top * top) : 0;
    mem_free(a, g);
    return TL_OK;
}

/* ---- the mixer's output ---------------------------------------------------------------------- */

typedef struct looking {
    tl_model *m;
    tl_graph *graph;
    tl_plan *plan;
    build_result r;
    tl_tensor *mixed, *values; /* what goes into the output projection; of a gated unit, A V */
    double freq[RANK_WIDTH];
    int32_t id[RANK_TOKENS], pos[RANK_TOKENS];
} looking;

static void find_tensors(looking *k, int64_t layer) {
    int64_t p = params_find(&k->m->params, ROLE_ATTN_OUT, (int32_t)layer, 0);
    k->mixed = k->values = NULL;
    for (size_t i = 0; p >= 0 && i < k->graph->n_nodes; i++) {
        const graph_node *n = k->graph->nodes[i];
        if (n->in[1] == k->r.params[p] && strcmp(n->op->name, "linear") == 0) k->mixed = n->in[0];
    }
    const graph_node *from = k->mixed ? k->mixed->node : NULL;
    if (from && strcmp(from->op->name, "mul") == 0) k->values = from->in[1];
    if (k->mixed) tl_output(k->graph, k->mixed, "mixed");
    if (k->values) tl_output(k->graph, k->values, "values");
}

static tl_status bind(looking *k, const tl_tensor *t, void *data) {
    return t ? tl_plan_bind(k->plan, t, data) : TL_OK;
}

static tl_status bind_all(looking *k, study_lab *l) {
    for (int32_t i = 0; i < RANK_TOKENS; i++) {
        k->id[i] = tokens_at(&l->corpus->held, i % l->corpus->held.n);
        k->pos[i] = i;
    }
    for (size_t i = 0; i < k->m->params.n; i++) TRY(bind(k, k->r.params[i], k->m->flat + k->m->params.list[i].offset));
    TRY(bind(k, k->r.ids, k->id));
    TRY(bind(k, k->r.pos, k->pos));
    return bind(k, k->r.freq, k->freq);
}

static tl_status look(looking *k, study_lab *l, int64_t layer, study_rank *mixed, study_rank *values, tl_error *e) {
    const tl_allocator *a = k->m->alloc;
    build_options o = {.mode = BUILD_LOGITS, .rows = 1, .context = RANK_TOKENS, .dtype = TL_F32};
    double mscale;
    if (tl_graph_create(k->m->engine, &k->graph) != TL_OK) return error_set(e, TL_NOMEM, "no memory for a graph");
    TRY(build_model(k->graph, a, &k->m->config, &k->m->params, &o, &k->r, e));
    find_tensors(k, layer);
    if (!k->mixed) return error_set(e, TL_UNSUPPORTED, "layer %lld has no output projection", (long long)layer);
    TRY(tl_plan_create(k->graph, false, &k->plan, e));
    if (k->m->config.positions == POS_ROPE) build_rope_freq(&k->m->config, RANK_TOKENS, k->freq, &mscale);
    TRY(model_pull(k->m, e));
    tl_status s = bind_all(k, l);
    if (s == TL_OK) s = tl_plan_run(k->plan);
    if (s != TL_OK) return error_set(e, s, "a layer could not be looked into");
    int64_t w = tl_desc_count(&k->mixed->d) / RANK_TOKENS;
    TRY(study_rank_of(a, tl_plan_data(k->plan, k->mixed), RANK_TOKENS, w, mixed, e));
    if (!k->values) {
        *values = *mixed;
        return TL_OK;
    }
    return study_rank_of(a, tl_plan_data(k->plan, k->values), RANK_TOKENS, w, values, e);
}

tl_status study_mixer_rank(study_lab *l, tl_model *m, int64_t layer, study_rank *mixed, study_rank *values,
                           tl_error *e) {
    if (build_rope_dims(&m->config) > 2 * RANK_WIDTH)
        return error_set(e, TL_UNSUPPORTED, "heads of %lld", (long long)m->config.head_dim);
    looking *k = mem_new(m->alloc, 1, sizeof *k);
    if (!k) return error_set(e, TL_NOMEM, "no memory to look into a layer");
    k->m = m;
    tl_status s = look(k, l, layer, mixed, values, e);
    tl_plan_destroy(k->plan);
    build_fini(&k->r, m->alloc);
    tl_graph_destroy(k->graph);
    mem_free(m->alloc, k);
    return s;
}
