#include "cost/walk.h"

#include <math.h>
#include <string.h>

const char *const cost_part_name[COST_PARTS] = {"embedding", "norms", "projections", "attention",
                                                "mlp",       "head",  "optimizer",   "other"};

static bool has(const char *s, const char *part) {
    return s && strstr(s, part) != NULL;
}

static bool any_of(const char *s, const char *const *parts) {
    for (; *parts; parts++)
        if (has(s, *parts)) return true;
    return false;
}

/* The component a step belongs to, from its operator; products by the parameter they are named after. */
static int part_of(const plan_step *s) {
    static const char *const mixers[] = {"attention", "chunk",         "delta_rule", "rel_", "time_mix", "segment_mean",
                                         "matmul",    "inverse_start", "kv_write",   "rope", "shift",    "offset_scale",
                                         NULL};
    static const char *const mlps[] = {"act", "glu", "expert", "route", "balance", NULL};
    static const char *const mlp_names[] = {".up", ".down", ".router", ".expert", NULL};
    const char *op = s->op->name;
    if (has(op, "loss_head") || has(s->name, "logits") || has(s->name, "head")) return COST_HEAD;
    if (has(op, "adamw") || has(op, "global_norm")) return COST_OPTIMIZER;
    if (any_of(op, mixers)) return COST_ATTENTION;
    if (has(op, "embedding")) return COST_EMBED;
    if (has(op, "norm")) return COST_NORM;
    if (any_of(op, mlps)) return COST_MLP;
    if (has(op, "linear")) return any_of(s->name, mlp_names) ? COST_MLP : COST_PROJECTION;
    return COST_OTHER;
}

static bool floats(tl_dtype t) {
    return t == TL_F32 || t == TL_F64 || t == TL_BF16 || t == TL_F16 || tl_dtype_block(t) > 1;
}

static double bits(double x) {
    return log2(x > 1 ? x : 1);
}

/* ---- products ------------------------------------------------------------------------------------------------ */

static double rows_of(const tl_desc *d) {
    return d->dtype ? (double)tl_desc_rows(d) : 0;
}
static double last_of(const tl_desc *d) {
    return d->dtype ? (double)tl_desc_last(d) : 0;
}

/* Multiply-adds of dense products are exact; those of attention's kinds are what their rule counts, each score and each
 * weighted sum being a dot product as long as a row of the first argument. */
static void count_products(const tl_op_call *c, const char *op, cost_step *s) {
    const tl_desc *a = &c->in[0].d, *b = &c->in[1].d;
    if (strcmp(op, "linear") == 0 || strcmp(op, "linear_dx") == 0) {
        double n = op[6] ? (double)b->dim[1] : (double)b->dim[0]; /* columns of the result */
        s->dots = rows_of(a) * n;
        s->products = 2 * s->dots * last_of(a);
    } else if (strcmp(op, "linear_dw") == 0) {
        s->dots = c->out[0].d.dtype ? last_of(a) * last_of(b) : 0;
        s->products = 2 * s->dots * rows_of(a);
    } else if (has(op, "loss_head")) {
        const tl_desc *h = has(op, "bwd") ? &c->in[1].d : a, *w = has(op, "bwd") ? &c->in[2].d : b;
        double rows = rows_of(h), D = last_of(h), V = (double)w->dim[0], products = 1;
        s->dots = rows * V;
        for (int k = 0; k < TL_OP_OUTS; k++) { /* dh, dw */
            if (c->out[k].d.dtype == TL_NONE || last_of(&c->out[k].d) != D || rows_of(&c->out[k].d) < 2) continue;
            products++;
            s->dots += (double)tl_desc_count(&c->out[k].d);
        }
        s->products = 2 * products * rows * V * D;
    } else if (has(op, "attention") || has(op, "chunk") || has(op, "delta_rule") || has(op, "expert")) {
        double width = has(op, "bwd") ? last_of(&c->in[1].d) : last_of(a);
        s->products = s->cost.flops;
        s->dots = width > 0 ? s->cost.flops / (2 * width) : 0;
    }
    if (s->products > s->cost.flops) s->products = s->cost.flops;
}

/* ---- a step --------------------------------------------------------------------------------------------------- */

/* Sizes by which calls of one operator resemble each other: rows and width of the first two arguments and of the
 * result, operations a byte, and how much memory the plan passes through between two uses of the same bytes. */
static void features(const tl_op_call *c, const cost_step *s, double footprint, double *f) {
    const tl_desc *out = NULL;
    for (int k = 0; k < TL_OP_OUTS && !out; k++)
        if (c->out[k].d.dtype != TL_NONE) out = &c->out[k].d;
    f[0] = bits(rows_of(&c->in[0].d));
    f[1] = bits(last_of(&c->in[0].d));
    f[2] = bits(rows_of(&c->in[1].d));
    f[3] = out ? bits((double)tl_desc_last(out)) : 0;
    double bytes = s->cost.bytes_read + s->cost.bytes_written;
    f[4] = bytes > 0 ? bits(16 * (s->cost.flops + s->cost.special) / bytes) : 0;
    f[5] = bits(footprint / 65536);
}

/* Rules bound what one row may cost. On the way a row of a chunk sees half of it, and a chunk is folded into the state
 * once, not at every row. */
static void chunk_average(const tl_op_call *c, tl_cost *cost) {
    double rows = (double)c->in[0].d.dim[0], s = last_of(&c->in[0].d), e = last_of(&c->in[4].d);
    double chunk = (double)c->out[2].d.dim[1], fold = rows * chunk * 2 * s * e, linear = rows * (e * (2 * s + 3) + 1);
    double inside = cost->flops - fold - linear;
    cost->flops = inside * (chunk + 1) / (2 * chunk) + fold / chunk + linear;
    cost->special *= (chunk + 1) / (2 * chunk);
}

void walk_step(const tl_plan *p, size_t i, double seen, double footprint, cost_step *s) {
    const plan_step *q = &p->steps[i];
    const tl_op_call *c = &q->call;
    *s = (cost_step){.step = q, .part = part_of(q), .backward = q->backward, .cost = q->cost};
    if (has(q->op->name, "attention_kv")) { /* what is not seen is neither read nor multiplied */
        s->cost.flops *= seen;
        s->cost.special *= seen;
        s->cost.bytes_read *= seen;
    }
    if (strcmp(q->op->name, "chunk_step") == 0) chunk_average(c, &s->cost);
    for (int k = 0; k < TL_OP_INS && !s->data; k++)
        if (c->in[k].d.dtype != TL_NONE && floats(c->in[k].d.dtype)) s->data = c->in[k].d.dtype;
    s->weight = has(q->op->name, "linear") || has(q->op->name, "expert") ? c->in[1].d.dtype : TL_NONE;
    count_products(c, q->op->name, s);
    int64_t tiles = 0; /* one tile runs on the calling thread, without a barrier */
    for (int k = 0; k < q->exec.phases; k++)
        if (q->exec.tiles[k] > tiles) tiles = q->exec.tiles[k];
    s->phases = tiles < 2 ? 0 : (double)q->exec.phases * (double)(q->exec.repeats > 1 ? q->exec.repeats : 1);
    features(c, s, footprint, s->feature);
}

double walk_footprint(const tl_plan *p) {
    return (double)p->info.arena_bytes + (double)p->info.bound_bytes;
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

double walk_limit(const cost_machine *m, const cost_step *s, bool *compute) {
    double rest = s->cost.flops - s->products + s->cost.special;
    tl_dtype kind = s->weight && tl_dtype_block(s->weight) > 1 ? s->weight : s->data;
    double work = s->products / machine_peak(m, kind) + rest / m->f32;
    double move = (s->cost.bytes_read + s->cost.bytes_written) / m->bandwidth;
    if (compute) *compute = work >= move;
    double most = work > move ? work : move;
    return most > 1e-12 ? most : 1e-12;
}

enum { NEAREST = 4 };

static double distance(const cost_point *p, const cost_step *s) {
    static const double weight[COST_FEATURES] = {1, 1, 1, 1, 1, 0.5};
    double d = 0;
    for (int k = 0; k < COST_FEATURES; k++) {
        double x = p->feature[k] - s->feature[k];
        d += weight[k] * x * x;
    }
    return d;
}

typedef struct near {
    double distance, value;
} near;

/* Keeps the nearest, sorted. */
static void near_add(near *list, int *n, double d, double value) {
    if (*n == NEAREST && d >= list[NEAREST - 1].distance) return;
    int at = *n < NEAREST ? (*n)++ : NEAREST - 1;
    for (; at > 0 && list[at - 1].distance > d; at--) list[at] = list[at - 1];
    list[at] = (near){d, value};
}

/* How often its limit a call takes: the measured calls of the operator that are most like it, the nearer the more, as a
 * geometric mean. 0: nothing of the kind was measured. */
static double slowness(const cost_machine *m, const cost_step *s, bool same_types) {
    near list[NEAREST];
    int n = 0;
    for (size_t i = 0; i < m->n; i++) {
        const cost_point *p = &m->point[i];
        if (strcmp(p->op, s->step->op->name) != 0) continue;
        if (same_types && (p->data != (int32_t)s->data || p->weight != (int32_t)s->weight)) continue;
        near_add(list, &n, distance(p, s), log(p->seconds / p->limit));
    }
    double sum = 0, total = 0;
    for (int i = 0; i < n; i++) {
        double w = 1 / (list[i].distance * list[i].distance + 0.01);
        sum += w * list[i].value;
        total += w;
    }
    return n ? exp(sum / total) : 0;
}

static double times_of(cost_machine *m, const cost_step *s) {
    const tl_op_def *op = s->step->op;
    size_t h = (size_t)op->id * 31;
    for (int k = 0; k < COST_FEATURES; k++) h = h * 37 + (size_t)(s->feature[k] * 16);
    cost_memo *memo = &m->memo[h % COST_MEMOS];
    if (memo->op == op && memo->data == (int32_t)s->data && memo->weight == (int32_t)s->weight &&
        memcmp(memo->feature, s->feature, sizeof memo->feature) == 0)
        return memo->times;
    double times = slowness(m, s, true);
    if (times <= 0) times = slowness(m, s, false);
    if (times <= 0) times = 3; /* no call of the operator was ever measured: a third of the limit */
    *memo = (cost_memo){.op = op, .data = (int32_t)s->data, .weight = (int32_t)s->weight, .times = times};
    memcpy(memo->feature, s->feature, sizeof memo->feature);
    return times;
}

double walk_seconds(cost_machine *m, const cost_step *s) {
    double limit = walk_limit(m, s, NULL);
    return m->n ? limit * times_of(m, s) + m->launch * s->phases : limit;
}
