/* What fits into memory, and how it fills over a step. */
#include "cost/cost.h"

#include <string.h>

size_t cost_weight_bytes(const model_config *c, const model_params *p, tl_dtype dtype, model_dtype_fn fn, void *user) {
    size_t sum = 0;
    for (size_t i = 0; i < p->n; i++) {
        const model_param *m = &p->list[i];
        param_piece piece[PARAM_PIECES];
        int n = params_pieces(c, m, FORMAT_GGUF, piece);
        for (int k = 0; k < n; k++) {
            int64_t count = piece[k].rows ? piece[k].rows * piece[k].cols : piece[k].cols;
            tl_dtype t = !m->decay ? TL_F32 : fn ? fn(user, c, m, &piece[k]) : dtype;
            if (piece[k].cols % tl_dtype_block(t)) t = TL_F16; /* a block does not divide the row */
            sum += (size_t)(count / tl_dtype_block(t)) * tl_dtype_bytes(t);
        }
    }
    return sum;
}

/* ---- what fits ------------------------------------------------------------------------------------------------- */

typedef struct fit {
    tl_engine *engine;
    const model_config *c;
    cost_request q;
    size_t weights, bytes;
} fit;

static tl_status fits(fit *f, int64_t rows, int64_t context, bool *yes, tl_error *err) {
    cost_request q = f->q;
    cost_report r;
    q.context = context;
    if (q.mode == COST_DECODE)
        q.slots = rows, q.rows = build_bucket(rows);
    else
        q.rows = rows;
    TRY(cost_sum(f->engine, f->c, &q, NULL, &r, err));
    size_t need = r.memory - (f->weights ? r.total.weights : 0) + f->weights;
    *yes = need <= f->bytes;
    return TL_OK;
}

/* The largest x in 1 .. most for which it fits, rows or context; needs grow with x. */
static tl_status search(fit *f, bool rows, int64_t other, int64_t most, int64_t *out, tl_error *err) {
    int64_t low = 0, high = 1;
    bool yes = true;
    while (yes && low < most) {
        TRY(fits(f, rows ? high : other, rows ? other : high, &yes, err));
        if (yes) low = high;
        if (yes) high = high > most / 2 ? most : 2 * high;
        if (yes && low == high) break;
    }
    while (!yes && high - low > 1) {
        int64_t mid = low + (high - low) / 2;
        bool ok;
        TRY(fits(f, rows ? mid : other, rows ? other : mid, &ok, err));
        *(ok ? &low : &high) = mid;
    }
    *out = low;
    return TL_OK;
}

tl_status cost_fit(tl_engine *e, const model_config *c, const cost_request *q, size_t weights, size_t bytes,
                   int64_t *rows, int64_t *context, tl_error *err) {
    fit f = {.engine = e, .c = c, .q = *q, .weights = weights, .bytes = bytes};
    bool bounded = c->positions == POS_LEARNED || c->positions == POS_SINUSOIDAL;
    TRY(search(&f, true, q->context, 1 << 20, rows, err));
    return search(&f, false, 1, bounded ? c->context : 1 << 24, context, err);
}

/* ---- over a step --------------------------------------------------------------------------------------------------
 */

static void fill_timeline(const tl_plan *p, cost_machine *m, double footprint, cost_timeline *t) {
    double now = 0;
    for (size_t i = 0; i < p->n_steps; i++) {
        cost_step s;
        walk_step(p, i, 1, footprint, &s);
        now += m ? walk_seconds(m, &s) : 1;
        t->seconds[i] = now;
        t->scratch[i] = (double)p->steps[i].exec.scratch;
        if (s.backward && t->turn == t->n) t->turn = i;
    }
    for (size_t k = 0; k < p->n_storages; k++) {
        const plan_storage *s = &p->storages[k];
        if (!s->arena || s->first < 0) continue;
        bool kept = (size_t)s->first < t->turn && (size_t)s->last >= t->turn && t->turn < t->n;
        for (size_t i = (size_t)s->first; i < t->n && i <= (size_t)s->last; i++)
            *(kept ? &t->kept[i] : &t->passing[i]) += (double)s->bytes;
    }
}

tl_status cost_memory(tl_engine *e, const model_config *c, const cost_request *q, cost_machine *m, cost_timeline *t,
                      tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    model_params mp;
    cost_graph g[COST_GRAPHS];
    memset(t, 0, sizeof *t);
    TRY(params_init(&mp, a, c, err));
    tl_status s = graphs_make(e, c, &mp, q, true, g, err);
    params_fini(&mp, a);
    if (s != TL_OK) return s;
    t->n = t->turn = g[0].plan->n_steps;
    t->arena = g[0].plan->info.arena_bytes;
    t->kept = mem_new(a, 4 * t->n + 1, sizeof *t->kept);
    if (t->kept) {
        t->passing = t->kept + t->n;
        t->scratch = t->passing + t->n;
        t->seconds = t->scratch + t->n;
        fill_timeline(g[0].plan, m, graphs_footprint(g, COST_GRAPHS), t);
    }
    graphs_free(e, g, COST_GRAPHS);
    return t->kept ? TL_OK : error_set(err, TL_NOMEM, "no memory for a timeline");
}

void cost_timeline_free(tl_engine *e, cost_timeline *t) {
    mem_free(tl_engine_allocator(e), t->kept);
    memset(t, 0, sizeof *t);
}
