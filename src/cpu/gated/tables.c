/* Launchers of the tables of relative positions, and of grid_order.
 *
 * rel_buckets: distances of one bucket follow one another, so a row of the table is a few runs of one number, and a
 * gradient their sums. rel_toeplitz: with c_l, s_l the cosine and sine of l places within a block of GATED_TURNS and C,
 * S those of the block's beginning, even cos + odd sin of place l is (even C + odd S) c_l + (odd C - even S) s_l: two
 * multiply-adds a number in f32. All angles come from one cosine a frequency, turned on in double: a table of 2^25
 * places is off by 1e-10. */
#include "cpu/gated/launch.h"
#include "op/grid.h"
#include "op/rel_bucket.h"

/* ---- buckets ------------------------------------------------------------------------------------------------ */

static const char *table_check(const tl_op_call *c, int ins) {
    for (int i = 0; i <= ins; i++) {
        const tl_arg *a = i < ins ? &c->in[i] : &c->out[0];
        if (a->d.dtype != TL_F32) return "not f32";
        if (a->d.stride[1] != 1 && a->d.dim[1] > 1) return "numbers of a head with holes between them";
    }
    return NULL;
}
static float *table_row(const tl_arg *a, int64_t h) {
    return (float *)a->data + h * a->d.stride[0];
}

/* The first distance m > from with another bucket than `from`, at most `end`; toward keys ahead if `ahead`. Buckets
 * do not fall with the distance. */
static int64_t bucket_end(const struct rel_buckets_attr *a, bool ahead, int64_t from, int64_t end) {
    const int64_t sign = ahead ? 1 : -1, here = rel_bucket(a, sign * from);
    int64_t low = from + 1, high = end;
    while (low < high) {
        const int64_t mid = low + (high - low) / 2;
        if (rel_bucket(a, sign * mid) == here)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The runs of a side, nearest first: of distances [from, *end) with one bucket. */
static bool bucket_run(const struct rel_buckets_attr *a, bool ahead, int64_t *from, int64_t *end, int64_t *bucket) {
    *from = *end;
    if (*from >= a->reach) return false;
    *end = bucket_end(a, ahead, *from, a->reach);
    *bucket = rel_bucket(a, ahead ? *from : -*from);
    return true;
}

const char *gated_buckets_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                  kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    const char *why = table_check(c, 1);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = c->in[0].d.dim[0];
    return x->tiles[0] < 1 ? "nothing to do" : NULL;
}

void gated_buckets_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const struct rel_buckets_attr *a = ATTR(t->call, rel_buckets);
    const float scale = a->scale != 0 ? a->scale : 1;
    (void)phase, (void)worker;
    for (int64_t h = lo; h < hi; h++) {
        const float *w = table_row(&t->call->in[0], h);
        float *mid = table_row(&t->call->out[0], h) + a->reach - 1;
        for (int ahead = 0; ahead < 2; ahead++)
            for (int64_t from, end = ahead, k; bucket_run(a, ahead, &from, &end, &k);)
                for (int64_t m = from; m < end; m++) mid[ahead ? m : -m] = scale * w[k];
    }
}

const char *gated_buckets_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                      kernel_exec *x) {
    return gated_buckets_prepare(c, threads, dry, alloc, x);
}

void gated_buckets_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const struct rel_buckets_attr *a = &ATTR(t->call, rel_buckets_bwd)->f;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const float scale = a->scale != 0 ? a->scale : 1;
    float sums[1024];
    (void)phase, (void)worker;
    for (int64_t h = lo; h < hi; h++) {
        const float *mid = table_row(&t->call->in[0], h) + a->reach - 1;
        memset(sums, 0, sizeof sums);
        for (int ahead = 0; ahead < 2; ahead++)
            for (int64_t from, end = ahead, k; bucket_run(a, ahead, &from, &end, &k);)
                sums[k] += f->sum(ahead ? mid + from : mid - (end - 1), end - from);
        f->times(scale, sums, GEMM_F32, table_row(&t->call->out[0], h), GEMM_F32, a->buckets, t->call->acc & 1);
    }
}

/* ---- Toeplitz ----------------------------------------------------------------------------------------------- */

enum { TURN_PART = 16, TURN_FREQUENCIES = 8, TURN_MOST = 512 }; /* blocks, frequencies of a tile */

typedef struct turn_job {
    int64_t H, P, half, blocks, parts; /* half: pairs of numbers; parts: tiles of a head */
    int64_t lane, cos, sin, more,
        total; /* scratch in floats: cosines and sines of a block's places; of its beginning */
    bool backward;
} turn_job;

static turn_job turn_open(const tl_op_call *c, bool backward) {
    const struct rel_toeplitz_attr *a = backward ? &ATTR(c, rel_toeplitz_bwd)->f : ATTR(c, rel_toeplitz);
    const tl_desc *ab = &c->in[backward ? 1 : 0].d;
    turn_job j = {.H = ab->dim[0], .P = a->reach, .half = ab->dim[1] / 4, .backward = backward};
    j.blocks = gated_ceil(j.P, GATED_TURNS);
    j.parts = gated_ceil(j.blocks, TURN_PART);
    j.lane = j.half * GATED_TURNS;
    j.cos = 2 * j.lane, j.sin = j.cos + j.blocks * j.half, j.more = j.sin + j.blocks * j.half;
    j.total = j.more + (backward ? j.H * j.parts * 2 * j.half : 0);
    return j;
}

static const char *turn_prepare(const tl_op_call *c, bool backward, kernel_exec *x) {
    const char *why = table_check(c, backward ? 2 : 1);
    if (why) return why;
    const turn_job j = turn_open(c, backward);
    if (j.H < 1) return "nothing to do";
    x->phases = backward ? 3 : 2;
    x->tiles[0] = gated_ceil(j.half, TURN_FREQUENCIES);
    x->tiles[1] = j.H * j.parts;
    x->tiles[2] = backward ? j.H : 0;
    x->scratch = sizeof(float) * (size_t)j.total;
    return NULL;
}

/* Cosines and sines of frequency k. Places within a block lie as the leaf reads them. */
static void turn_angles(const turn_job *j, const struct rel_toeplitz_attr *a, float *scratch, int64_t k) {
    const double w = pow(a->base > 0 ? (double)a->base : 10000.0, -(double)k / (double)j->half);
    const double one_c = cos(w), one_s = sin(w);
    const double all_c = cos(GATED_TURNS * w), all_s = sin(GATED_TURNS * w);
    double c = 1, s = 0;
    for (int64_t l = 0; l < GATED_TURNS; l++) {
        const int64_t at = j->backward ? l * j->half + k : k * GATED_TURNS + l;
        scratch[at] = (float)c, scratch[j->lane + at] = (float)s;
        const double next = c * one_c - s * one_s;
        s = s * one_c + c * one_s, c = next;
    }
    c = 1, s = 0;
    for (int64_t i = 0; i < j->blocks; i++) {
        scratch[j->cos + i * j->half + k] = (float)c, scratch[j->sin + i * j->half + k] = (float)s;
        const double next = c * all_c - s * all_s;
        s = s * all_c + c * all_s, c = next;
    }
}

/* The blocks of a tile, [*lo, *hi). */
static void turn_part(const turn_job *j, int64_t tile, int64_t *lo, int64_t *hi) {
    *lo = tile % j->parts * TURN_PART, *hi = gated_min(*lo + TURN_PART, j->blocks);
}

static void turn_forward(const turn_job *j, const tl_op_call *c, const gated_leaf *f, const float *scratch,
                         int64_t tile) {
    const int64_t n = j->half;
    const float *ab = table_row(&c->in[0], tile / j->parts);
    float *mid = table_row(&c->out[0], tile / j->parts) + j->P - 1, by[4 * TURN_MOST];
    float ahead[GATED_TURNS], back[GATED_TURNS];
    int64_t lo, hi;
    turn_part(j, tile, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const float *C = scratch + j->cos + i * n, *S = scratch + j->sin + i * n;
        for (int64_t k = 0; k < n; k++) {
            const float a1 = ab[k], a2 = ab[n + k], b1 = ab[2 * n + k], b2 = ab[3 * n + k];
            const float even = a1 * b1 + a2 * b2, odd = a2 * b1 - a1 * b2;
            by[k] = even * C[k] + odd * S[k], by[n + k] = odd * C[k] - even * S[k];
            by[2 * n + k] = even * C[k] - odd * S[k], by[3 * n + k] = -odd * C[k] - even * S[k];
        }
        f->turn(scratch, scratch + j->lane, by, n, ahead, back);
        const int64_t d0 = i * GATED_TURNS, m = gated_min(GATED_TURNS, j->P - d0);
        memcpy(mid + d0, ahead, (size_t)m * sizeof *mid);
        for (int64_t l = i == 0; l < m; l++) mid[-d0 - l] = back[l];
    }
}

/* The tile's share of the gradients of even and odd. */
static void turn_backward(const turn_job *j, const tl_op_call *c, const gated_leaf *f, float *scratch, int64_t tile) {
    const int64_t n = j->half;
    const float *mid = table_row(&c->in[0], tile / j->parts) + j->P - 1;
    float *even = scratch + j->more + tile * 2 * n, *odd = even + n, to[4 * TURN_MOST];
    int64_t lo, hi;
    memset(even, 0, (size_t)(2 * n) * sizeof *even);
    turn_part(j, tile, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const float *C = scratch + j->cos + i * n, *S = scratch + j->sin + i * n;
        const int64_t d0 = i * GATED_TURNS, m = gated_min(GATED_TURNS, j->P - d0);
        float plus[GATED_TURNS] = {0}, less[GATED_TURNS] = {0};
        for (int64_t l = 0; l < m; l++) {
            const float ahead = mid[d0 + l], back = d0 + l > 0 ? mid[-d0 - l] : 0;
            plus[l] = ahead + back, less[l] = ahead - back;
        }
        f->unturn(scratch, scratch + j->lane, plus, less, n, to);
        for (int64_t k = 0; k < n; k++) {
            even[k] += C[k] * to[k] - S[k] * to[n + k];
            odd[k] += S[k] * to[2 * n + k] + C[k] * to[3 * n + k];
        }
    }
}

/* Of a head: the shares in order, then through the products of a and b. */
static void turn_gather(const turn_job *j, const tl_op_call *c, const gated_leaf *f, float *scratch, int64_t h) {
    const int64_t n = j->half;
    const float *ab = table_row(&c->in[1], h);
    float *even = scratch + j->more + h * j->parts * 2 * n, *odd = even + n, *to = table_row(&c->out[0], h);
    float d[4 * TURN_MOST];
    for (int64_t i = 1; i < j->parts; i++) f->axpy(1, even + i * 2 * n, GEMM_F32, even, 2 * n);
    for (int64_t k = 0; k < n; k++) {
        const float a1 = ab[k], a2 = ab[n + k], b1 = ab[2 * n + k], b2 = ab[3 * n + k];
        d[k] = even[k] * b1 - odd[k] * b2, d[n + k] = even[k] * b2 + odd[k] * b1;
        d[2 * n + k] = even[k] * a1 + odd[k] * a2, d[3 * n + k] = even[k] * a2 - odd[k] * a1;
    }
    f->put(d, to, GEMM_F32, 4 * n, c->acc & 1);
}

const char *gated_toeplitz_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                   kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    return turn_prepare(c, false, x);
}
const char *gated_toeplitz_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                       kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    return turn_prepare(c, true, x);
}

static void turn_tiles(const turn_job *j, const struct rel_toeplitz_attr *a, float *scratch, int64_t lo, int64_t hi) {
    for (int64_t k = lo * TURN_FREQUENCIES; k < gated_min(hi * TURN_FREQUENCIES, j->half); k++)
        turn_angles(j, a, scratch, k);
}

void gated_toeplitz_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const turn_job j = turn_open(t->call, false);
    (void)worker;
    if (phase == 0) turn_tiles(&j, ATTR(t->call, rel_toeplitz), t->scratch, lo, hi);
    for (int64_t i = lo; i < hi && phase == 1; i++) turn_forward(&j, t->call, gated_leaf_of(t->exec), t->scratch, i);
}

void gated_toeplitz_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const turn_job j = turn_open(t->call, true);
    const gated_leaf *f = gated_leaf_of(t->exec);
    (void)worker;
    if (phase == 0) turn_tiles(&j, &ATTR(t->call, rel_toeplitz_bwd)->f, t->scratch, lo, hi);
    for (int64_t i = lo; i < hi && phase > 0; i++) {
        if (phase == 1)
            turn_backward(&j, t->call, f, t->scratch, i);
        else
            turn_gather(&j, t->call, f, t->scratch, i);
    }
}

/* ---- grids: rows in another order --------------------------------------------------------------------------- */

enum { GRID_ROWS = 64 };

const char *gated_grid_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    if (c->in[0].d.dtype == TL_F64) return "not f32, bf16 or f16";
    if (tl_desc_count(&c->in[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = gated_ceil(tl_desc_rows(&c->in[0].d), GRID_ROWS);
    return NULL;
}

void gated_grid_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const struct grid_order_attr *a = ATTR(t->call, grid_order);
    const gated_mat x = gated_take(&t->call->in[0]), y = gated_take(&t->call->out[0]);
    const int64_t T = t->call->in[0].d.dim[1], end = gated_min(hi * GRID_ROWS, tl_desc_rows(&t->call->in[0].d));
    (void)phase, (void)worker;
    for (int64_t r = lo * GRID_ROWS; r < end; r++) {
        const int64_t i = r % T, j = grid_place(a->rows, a->cols, a->high, a->wide, i);
        memcpy(gated_at(&y, r / T, a->inverse ? j : i), gated_at(&x, r / T, a->inverse ? i : j),
               (size_t)(x.size * x.width));
    }
}
