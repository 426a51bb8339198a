/* loss_head and loss_head_bwd: logits by chunks of rows, gradients from them in the same sweep, over the packed
 * product of gemm.h. Each chunk of rows is one repeat of the phases
 *   0  sum the groups' dh of the chunk before; pack h
 *   1  by vocabulary tiles: logits, their greatest and the sum of exponentials for each row
 *   2  by rows: logsumexp and loss
 *   3  by groups of vocabulary tiles: logits' gradients in place, dw and db, the group's part of dh
 * and one more repeat finishes the last dh and sums the loss. Groups are fixed by the shape, so no result depends on
 * the number of threads. Without gradients logits live only as one tile of each worker. */
#include "cpu/product/head.h"
#include "cpu/product/linear.h"
#include "cpu/quant/blocks.h"

#include <math.h>
#include <string.h>

enum {
    COLUMNS = 96,
    TILE_MOST = 768,
    GROUPS = 8,
    LOGITS = 16 << 20 /* floats of a chunk */,
    ROWS_MOST = 1024,
    ROW_TILE = 16
};

/* Arguments of both operators under one roof. */
typedef struct head_args {
    const struct loss_head_attr *a;
    const tl_arg *h, *w, *targets, *denom, *b, *lse_in, *dloss; /* the last two: of loss_head_bwd */
    const tl_arg *loss, *lse, *losses, *dh, *dw, *db;           /* NULL where the operator has none */
    bool add_dh, add_dw, add_db, grads, blocks;                 /* blocks: of w */
    int64_t rows, D, V, h_row, w_row;
} head_args;

/* How it is cut, and where things lie in scratch (in floats). */
typedef struct head_cut {
    int64_t chunk, chunks, tile, tiles, groups;
    int64_t pack_h, right_h, z, stats, of_target, lse, whole, dh_part, worker, per_worker, floats;
    int64_t z_row, pack_b, pack_dz, temp, w; /* within a worker's part; w: a tile of it as f32 */
} head_cut;

static bool head_is(const tl_arg *a) {
    return a && a->d.dtype != TL_NONE;
}

static const char *head_args_of(const tl_op_call *c, bool bwd, head_args *g) {
    memset(g, 0, sizeof *g);
    const tl_arg *in = c->in + bwd;
    g->a = bwd ? &ATTR(c, loss_head_bwd)->f : ATTR(c, loss_head);
    g->h = &in[0], g->w = &in[1], g->targets = &in[2], g->denom = &in[3], g->b = bwd ? &in[5] : &in[4];
    if (bwd)
        g->lse_in = &in[4], g->dloss = &c->in[0];
    else
        g->loss = &c->out[0], g->lse = &c->out[1], g->losses = &c->out[2];
    const int k = bwd ? 0 : 3;
    g->dh = &c->out[k], g->dw = &c->out[k + 1], g->db = &c->out[k + 2];
    g->add_dh = c->acc >> k & 1, g->add_dw = c->acc >> (k + 1) & 1, g->add_db = c->acc >> (k + 2) & 1;
    g->grads = head_is(g->dh) || head_is(g->dw) || head_is(g->db);
    g->rows = tl_desc_rows(&g->h->d), g->D = tl_desc_last(&g->h->d), g->V = g->w->d.dim[0];
    if (g->rows < 1 || g->D < 1 || g->V < 1) return "nothing to do";
    g->blocks = quant_type_of(g->w->d.dtype) >= 0;
    if (gemm_type(g->h->d.dtype) < 0 || (gemm_type(g->w->d.dtype) < 0 && !g->blocks)) return "not f32, bf16 or f16";
    if (g->blocks && head_is(g->dw)) return "a weight in blocks has no gradient";
    g->h_row = g->rows == 1 ? g->D : tensor_row_stride(&g->h->d);
    g->w_row = g->V == 1 ? g->D : tensor_row_stride(&g->w->d);
    if (g->h_row < g->D || g->w_row < g->D) return "rows do not lie at one distance";
    const tl_arg *plain[] = {g->targets, g->denom, g->b, g->lse_in, g->dloss, g->loss, g->lse, g->losses, g->db};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (!head_is(plain[i])) continue;
        if (plain[i]->d.dtype != (i ? TL_F32 : TL_I32) || !tl_desc_contiguous(&plain[i]->d))
            return "a vector not contiguous f32 or i32";
    }
    if (head_is(g->dw) && (g->dw->d.dtype != TL_F32 || (g->V > 1 && tensor_row_stride(&g->dw->d) < g->D)))
        return "dw not f32 by rows";
    if (head_is(g->dh) && gemm_type(g->dh->d.dtype) < 0) return "dh not f32, bf16 or f16";
    return NULL;
}

static head_cut head_cut_of(const head_args *g, int64_t threads) {
    head_cut k = {0};
    int64_t most = LOGITS / g->V / 64 * 64;
    most = most < 64 ? 64 : most > ROWS_MOST ? ROWS_MOST : most;
    k.chunks = (g->rows + most - 1) / most;
    k.chunk = linear_up((g->rows + k.chunks - 1) / k.chunks, GEMM_MR);
    k.chunks = (g->rows + k.chunk - 1) / k.chunk;
    k.tile = linear_up((g->V + 7) / 8, 48);
    if (k.tile > TILE_MOST) k.tile = TILE_MOST;
    k.tiles = (g->V + k.tile - 1) / k.tile;
    k.groups = k.tiles < GROUPS ? k.tiles : GROUPS;
    k.z_row = linear_up(g->grads ? g->V : k.tile, 16);
    if (k.z_row % 256 == 0) k.z_row += 16; /* rows a multiple of 4 KiB apart would share few sets of the caches */
    int64_t at = 0;
    k.pack_h = at, at += linear_up(gemm_pack_floats(k.chunk, g->D), 16);
    k.right_h = at, at += head_is(g->dw) ? gemm_panel_floats(g->D, k.chunk) : 0;
    k.z = at, at += g->grads ? k.chunk * k.z_row : 0;
    k.stats = at, at += linear_up(k.chunk * k.tiles * 3, 16);
    k.of_target = at, at += linear_up(k.chunk, 16);
    k.lse = at, at += linear_up(k.chunk, 16);
    k.whole = at, at += linear_up(g->rows, 16);
    k.dh_part = at, at += head_is(g->dh) ? linear_up(k.groups * k.chunk * g->D, 16) : 0;
    k.worker = at;
    const int64_t tall = k.chunk > k.tile ? k.chunk : k.tile;
    at = 0;
    k.pack_b = at, at += GEMM_KC * GEMM_NC;
    k.pack_dz = at, at += g->grads
                              ? linear_up(gemm_pack_floats(k.tile, k.chunk) + gemm_pack_floats(k.chunk, k.tile), 16)
                              : k.chunk * k.z_row;
    k.temp = at, at += (g->D > GEMM_KC || k.chunk > GEMM_KC || k.tile > GEMM_KC) ? (tall + GEMM_MR) * GEMM_NC : 0;
    k.w = at, at += g->blocks ? k.tile * g->D : 0;
    k.per_worker = at;
    k.floats = k.worker + k.per_worker * threads;
    return k;
}

static const char *head_prepare(const tl_op_call *c, bool bwd, int threads, kernel_exec *x) {
    head_args g;
    const char *why = head_args_of(c, bwd, &g);
    if (why) return why;
    if (bwd && !g.grads) return "nothing wanted";
    const head_cut k = head_cut_of(&g, threads);
    x->phases = 4;
    x->tiles[0] = (k.chunk + ROW_TILE - 1) / ROW_TILE;
    x->tiles[1] = k.tiles;
    x->tiles[2] = x->tiles[0];
    x->tiles[3] = g.grads ? k.groups : 0;
    x->repeats = k.chunks + 1;
    x->scratch = sizeof(float) * (size_t)k.floats;
    return NULL;
}

/* One worker's view of one chunk. */
typedef struct head_run {
    head_args g;
    head_cut k;
    const head_table *f;
    float *s, *mine;  /* scratch: shared, this worker's */
    int64_t r0, rows; /* of the chunk */
} head_run;

static const void *head_at(const tl_arg *a, int64_t row, int64_t stride) {
    return (const char *)a->data + (size_t)(row * stride) * tl_dtype_bytes(a->d.dtype);
}

static gemm_matrix head_matrix(const void *p, int type, int64_t row, int64_t col) {
    return (gemm_matrix){(void *)(uintptr_t)p, type, row, col};
}

/* Columns of a product in blocks that the leaf takes; behind the last of them `then` will be read. */
static void head_product(const head_run *u, gemm_job *j, gemm_next then) {
    j->pack_b = u->mine + u->k.pack_b;
    j->temp = j->k > GEMM_KC ? u->mine + u->k.temp : NULL;
    for (int64_t c = 0, c1; c < j->n; c = c1) {
        c1 = c + COLUMNS < j->n ? c + COLUMNS : j->n;
        const int64_t c2 = c1 + COLUMNS < j->n ? c1 + COLUMNS : j->n;
        j->next = c1 == j->n ? then : j->panels ? (gemm_next){0} : gemm_next_b(j, 0, c1, c2);
        u->f->gemm(GEMM_TILE, j, 0, gemm_slivers(j->m), c, c1);
    }
}

static int64_t head_less(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t head_target(const head_run *u, int64_t r) {
    const int64_t t = ((const int32_t *)u->g.targets->data)[u->r0 + r];
    return t >= 0 && t < u->g.V ? t : -1;
}

/* Gradient of the result with respect to one row's loss. */
static float head_by(const head_args *g) {
    const float denom = *(const float *)g->denom->data;
    if (denom == 0) return 0;
    return g->dloss ? *(const float *)g->dloss->data * (1.0f / denom) : 1.0f / denom;
}

/* ---- phase 0 ------------------------------------------------------------------------------------ */

static void head_finish(const head_run *u, int64_t lo, int64_t hi, int64_t before) {
    const head_args *g = &u->g;
    const head_cut *k = &u->k;
    if (head_is(g->dh) && g->dh->data)
        for (int64_t r = lo; r < hi && before + r < g->rows; r++) {
            void *out =
                (char *)g->dh->data + (size_t)tl_desc_row(&g->dh->d, before + r) * tl_dtype_bytes(g->dh->d.dtype);
            u->f->sum(u->s + k->dh_part + r * g->D, k->groups, k->chunk * g->D, g->D, out, gemm_type(g->dh->d.dtype),
                      g->add_dh);
        }
}

static void head_total(const head_run *u) {
    const head_args *g = &u->g;
    if (!head_is(g->loss) || !g->loss->data) return;
    double total = 0;
    for (int64_t r = 0; r < g->rows; r++) total += (double)u->s[u->k.whole + r];
    const float denom = *(const float *)g->denom->data;
    *(float *)g->loss->data = denom == 0 ? 0 : (float)(total / (double)denom);
}

static void head_begin(const head_run *u, int64_t repeat, int64_t lo, int64_t hi) {
    if (repeat > 0 && u->g.grads)
        head_finish(u, lo * ROW_TILE, hi * ROW_TILE < u->k.chunk ? hi * ROW_TILE : u->k.chunk, u->r0 - u->k.chunk);
    if (repeat == u->k.chunks) {
        if (lo == 0) head_total(u);
        return;
    }
    gemm_job j = {.m = u->rows, .k = u->g.D, .pack_a = u->s + u->k.pack_h};
    j.a = head_matrix(head_at(u->g.h, u->r0, u->g.h_row), gemm_type(u->g.h->d.dtype), u->g.h_row, 1);
    const int64_t per = ROW_TILE / GEMM_MR, end = hi * per < gemm_slivers(j.m) ? hi * per : gemm_slivers(j.m);
    if (lo * per < end) u->f->gemm(GEMM_PACK, &j, lo * per, end, 0, 0);
    if (!head_is(u->g.dw)) return;
    const int64_t h0 = lo * ROW_TILE, h1 = head_less(hi * ROW_TILE, u->rows);
    if (h0 >= h1) return;
    gemm_job right = {.n = u->g.D, .k = h1 - h0, .panels = u->s + u->k.right_h, .depth = u->k.chunk, .first = h0};
    right.b = head_matrix(head_at(u->g.h, u->r0 + h0, u->g.h_row), j.a.type, j.a.row, 1);
    u->f->gemm(GEMM_PANELS, &right, 0, 0, 0, u->g.D);
}

/* Words [v0, v0 + n) of w, by their rows; those in blocks as f32 in this worker's memory. */
static gemm_matrix head_words(const head_run *u, int64_t v0, int64_t n) {
    const head_args *g = &u->g;
    if (!g->blocks) return head_matrix(head_at(g->w, v0, g->w_row), gemm_type(g->w->d.dtype), g->w_row, 1);
    quant_job j = blocks_job(g->w->data, g->w->d.dtype, g->w_row, 0, g->D);
    j.out = u->mine + u->k.w;
    u->f->blocks(QUANT_DECODE, &j, v0, v0 + n);
    return head_matrix(j.out, GEMM_F32, g->D, 1);
}

/* Under a cap the gradient needs the logit itself. */
static bool head_keep(const head_args *g) {
    return g->grads && !(g->a->softcap > 0);
}

/* ---- phase 1 ------------------------------------------------------------------------------------ */

static void head_logits(const head_run *u, int64_t tile, bool more) {
    const head_args *g = &u->g;
    const head_cut *k = &u->k;
    const int64_t v0 = tile * k->tile, n = g->V - v0 < k->tile ? g->V - v0 : k->tile;
    float *z = g->grads ? u->s + k->z + v0 : u->mine + k->pack_dz;
    gemm_job j = {.m = u->rows, .n = n, .k = g->D, .pack_a = u->s + k->pack_h};
    const gemm_matrix w = head_words(u, v0, n);
    j.b = head_matrix(w.p, w.type, 1, w.row);
    j.c = head_matrix(z, GEMM_F32, k->z_row, 1);
    if (head_is(g->b) && g->b->data) j.bias = (const float *)g->b->data + v0;
    gemm_job after = j;
    after.b.p = (char *)after.b.p + n * after.b.col * (after.b.type == GEMM_F32 ? 4 : 2);
    head_product(u, &j,
                 more && !g->blocks ? gemm_next_b(&after, 0, 0, head_less(g->V - v0 - n, COLUMNS)) : (gemm_next){0});
    for (int64_t r = 0; r < u->rows; r++) {
        const int64_t t = head_target(u, r) - v0;
        head_row row = {.z = z + r * k->z_row, .n = n, .target = t, .cap = g->a->softcap, .keep = head_keep(g)};
        u->f->stats(&row);
        float *stats = u->s + k->stats + 3 * (r * k->tiles + tile);
        stats[0] = row.max, stats[1] = row.sum, stats[2] = row.all;
        if (t >= 0 && t < n) u->s[k->of_target + r] = row.of_target;
    }
}

/* ---- phase 2 ------------------------------------------------------------------------------------ */

static void head_row_loss(const head_run *u, int64_t r) {
    const head_args *g = &u->g;
    const float *stats = u->s + u->k.stats + 3 * r * u->k.tiles;
    float lse = 0, loss = 0, whole = 0;
    if (head_target(u, r) >= 0) {
        float max = -INFINITY, all = 0;
        double sum = 0;
        for (int64_t t = 0; t < u->k.tiles; t++) {
            if (stats[3 * t] > max) max = stats[3 * t];
            all += stats[3 * t + 2];
        }
        if (max == -INFINITY) max = 0;
        for (int64_t t = 0; t < u->k.tiles; t++) {
            /* a tile of nothing but -inf took its sum from 0, not from its greatest */
            const float base = stats[3 * t] == -INFINITY ? 0 : stats[3 * t];
            sum += (double)stats[3 * t + 1] * (stats[3 * t + 1] == 0 ? 0 : exp((double)(base - max)));
        }
        lse = (float)((double)max + log(sum));
        loss = lse - (1.0f - g->a->smoothing) * u->s[u->k.of_target + r];
        if (g->a->smoothing > 0) loss -= g->a->smoothing / (float)g->V * all;
        whole = loss + g->a->zloss * lse * lse;
    }
    u->s[u->k.lse + r] = lse;
    u->s[u->k.whole + u->r0 + r] = whole;
    if (head_is(g->lse) && g->lse->data) ((float *)g->lse->data)[u->r0 + r] = lse;
    if (head_is(g->losses) && g->losses->data) ((float *)g->losses->data)[u->r0 + r] = loss;
}

/* ---- phase 3 ------------------------------------------------------------------------------------ */

static void head_gradients(const head_run *u, int64_t tile, int64_t group, bool first, bool more) {
    const head_args *g = &u->g;
    const head_cut *k = &u->k;
    const int64_t v0 = tile * k->tile, n = g->V - v0 < k->tile ? g->V - v0 : k->tile;
    float *z = u->s + k->z + v0, *pack = u->mine + k->pack_dz;
    for (int64_t r = 0; r < u->rows; r++) {
        const int64_t target = head_target(u, r);
        head_row row = {.z = z + r * k->z_row, .n = n, .target = target - v0, .cap = g->a->softcap, .by = head_by(g)};
        row.hit = 1.0f - g->a->smoothing, row.each = g->a->smoothing / (float)g->V, row.zloss2 = 2 * g->a->zloss;
        row.lse = g->lse_in ? ((const float *)g->lse_in->data)[u->r0 + r] : u->s[k->lse + r];
        row.keep = head_keep(g), row.max = u->s[k->stats + 3 * (r * k->tiles + tile)];
        if (r + 2 < u->rows) row.next = z + (r + 2) * k->z_row;
        if (target < 0)
            memset(row.z, 0, sizeof(float) * (size_t)n);
        else
            u->f->grad(&row);
    }
    if (head_is(g->dh) && g->dh->data) { /* dh = dz w */
        gemm_job j = {.m = u->rows, .n = g->D, .k = n, .add = !first};
        j.a = head_matrix(z, GEMM_F32, k->z_row, 1);
        j.b = head_words(u, v0, n);
        j.c = head_matrix(u->s + k->dh_part + group * k->chunk * g->D, GEMM_F32, g->D, 1);
        head_product(u, &j, (gemm_next){0});
    }
    const bool dw = head_is(g->dw) && g->dw->data, db = head_is(g->db) && g->db->data;
    if (!dw && !db) return;
    gemm_job j = {.m = n, .n = g->D, .k = u->rows, .add = g->add_dw || u->r0 > 0, .pack_a = pack}; /* dw = dz^T h */
    if (db) j.row_sum = (float *)g->db->data + v0, j.row_sum_add = g->add_db || u->r0 > 0;
    j.a = head_matrix(z, GEMM_F32, 1, k->z_row);
    u->f->gemm(GEMM_PACK, &j, 0, gemm_slivers(j.m), 0, 0);
    if (!dw) return;
    const int64_t dw_row = g->V == 1 ? g->D : tensor_row_stride(&g->dw->d);
    j.panels = u->s + k->right_h, j.depth = k->chunk;
    j.c = head_matrix(head_at(g->dw, v0, dw_row), GEMM_F32, dw_row, 1);
    gemm_job after = {.n = g->D, .k = head_less(k->tile, g->V - v0 - n)};
    if (more && !g->blocks && head_is(g->dh)) after.b = head_words(u, v0 + n, after.k);
    head_product(u, &j, after.b.p ? gemm_next_b(&after, 0, 0, head_less(g->D, COLUMNS)) : (gemm_next){0});
}

static void head_phases(const kernel_task *t, bool bwd, int phase, int64_t lo, int64_t hi, int worker) {
    head_run u;
    if (head_args_of(t->call, bwd, &u.g)) return;
    u.k = head_cut_of(&u.g, t->workers);
    u.f = ((head_leaf *)t->exec->leaf)();
    u.s = t->scratch;
    u.mine = u.s + u.k.worker + worker * u.k.per_worker;
    u.r0 = t->repeat * u.k.chunk;
    u.rows = u.g.rows - u.r0 < u.k.chunk ? u.g.rows - u.r0 : u.k.chunk;
    if (phase == 0) {
        head_begin(&u, t->repeat, lo, hi);
        return;
    }
    if (t->repeat == u.k.chunks) return;
    if (phase == 1)
        for (int64_t i = lo; i < hi; i++) head_logits(&u, i, i + 1 < hi);
    if (phase == 2 && !bwd)
        for (int64_t r = lo * ROW_TILE; r < hi * ROW_TILE && r < u.rows; r++) head_row_loss(&u, r);
    if (phase == 3)
        for (int64_t group = lo; group < hi; group++) {
            const int64_t t0 = group * u.k.tiles / u.k.groups, t1 = (group + 1) * u.k.tiles / u.k.groups;
            for (int64_t i = t0; i < t1; i++) head_gradients(&u, i, group, i == t0, i + 1 < t1 || group + 1 < hi);
        }
}

#define HEAD(name, bwd)                                                                                                \
    const char *head_##name##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,           \
                                      kernel_exec *x) {                                                                \
        (void)dry, (void)alloc;                                                                                        \
        return head_prepare(c, bwd, threads, x);                                                                       \
    }                                                                                                                  \
    void head_##name##_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {                      \
        head_phases(t, bwd, phase, lo, hi, worker);                                                                    \
    }
HEAD(loss_head, false)
HEAD(loss_head_bwd, true)
