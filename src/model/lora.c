/* Low-rank additions in memory: their table, their first numbers, merging. Files are in lora_files.c. */
#include "model/lora_table.h"

#include "base/file.h"
#include "base/rng.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- options ---------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    unsigned bits;
} words[] = {{"q", LORA_Q},       {"k", LORA_K},   {"v", LORA_V},       {"o", LORA_O},
             {"gate", LORA_GATE}, {"up", LORA_UP}, {"down", LORA_DOWN}, {"all", LORA_ALL}};

tl_status lora_targets(const char *text, unsigned *out, tl_error *e) {
    *out = 0;
    for (const char *s = text; *s || s == text;) {
        size_t n = strcspn(s, ","), i = 0;
        while (i < sizeof words / sizeof *words && (strlen(words[i].name) != n || memcmp(words[i].name, s, n) != 0))
            i++;
        if (i == sizeof words / sizeof *words)
            return error_set(e, TL_ARG, "no matrix \"%.*s\" to adapt; there are q, k, v, o, gate, up, down and all",
                             (int)(n < 40 ? n : 40), s);
        *out |= words[i].bits;
        s += n;
        if (*s == ',') s++;
        if (!*s) break;
    }
    return TL_OK;
}

tl_status lora_check(const lora_options *o, tl_error *e) {
    if (o->rank < 1 || o->rank > 65536)
        return error_set(e, TL_ARG, "a LoRA rank of %lld; it can be 1 to 65536", (long long)o->rank);
    if (!(o->alpha >= 0) || !isfinite(o->alpha)) return error_set(e, TL_ARG, "a LoRA alpha of %g", o->alpha);
    if (!(o->dropout >= 0 && o->dropout < 1))
        return error_set(e, TL_ARG, "a LoRA dropout of %g; it must be in [0,1)", o->dropout);
    return TL_OK;
}

double lora_scale(const lora_options *o) {
    double alpha = o->alpha > 0 ? o->alpha : 2 * (double)o->rank;
    return alpha / (o->root ? sqrt((double)o->rank) : (double)o->rank);
}

/* ---- table ------------------------------------------------------------------------------------------------------ */

/* What piece k of n of a parameter is called, and the targets that mean it; 0: it has no additions. */
static unsigned target_of(const model_config *c, param_role role, int k, int n, const char **name) {
    static const char *const qkv[] = {"q", "k", "v"}, *const up[] = {"gate", "up"};
    switch (role) {
    case ROLE_QKV: *name = n == 3 ? qkv[k] : "qkv"; return n == 3 ? (unsigned)LORA_Q << k : LORA_Q | LORA_K | LORA_V;
    case ROLE_ATTN_OUT: *name = "attn_out"; return LORA_O;
    case ROLE_UP:
        *name = n == 2 ? up[k] : "up";
        return n == 2 ? (unsigned)LORA_GATE << k : c->gated ? LORA_GATE | LORA_UP : LORA_UP;
    case ROLE_DOWN: *name = "down"; return LORA_DOWN;
    case ROLE_GAU_IN: *name = "gau_in"; return LORA_Q | LORA_K | LORA_V | LORA_GATE | LORA_UP;
    default: return 0;
    }
}

static void put(model_params *p, const model_param *w, const char *name, char which, int64_t rows, int64_t cols) {
    model_param *m = &p->list[p->n++];
    snprintf(m->name, sizeof m->name, "blocks.%d.%s.lora_%c", w->layer, name, which);
    m->role = which == 'A' ? ROLE_LORA_A : ROLE_LORA_B;
    m->layer = w->layer;
    m->rows = rows;
    m->cols = cols;
    m->decay = m->trainable = true;
}

tl_status lora_table(model_lora *l, const tl_allocator *a, const model_config *c, const model_params *base,
                     const lora_options *o, lora_want *want, const void *user, tl_error *e) {
    memset(l, 0, sizeof *l);
    TRY(lora_check(o, e));
    l->o = *o;
    if (!l->o.targets) l->o.targets = LORA_ALL;
    if (!(l->o.alpha > 0)) l->o.alpha = 2 * (double)o->rank;
    l->n_at = base->n * PARAM_PIECES;
    l->at = mem_new(a, l->n_at, sizeof *l->at);
    l->params.list = mem_new(a, 2 * l->n_at, sizeof *l->params.list);
    if (!l->at || !l->params.list) {
        lora_fini(l, a);
        return error_set(e, TL_NOMEM, "no memory for a table of adapters");
    }
    for (size_t i = 0; i < base->n; i++) {
        const model_param *w = &base->list[i];
        param_piece piece[PARAM_PIECES];
        int n = w->rows ? params_pieces(c, w, FORMAT_HF, piece) : 0;
        for (int k = 0; k < PARAM_PIECES; k++) {
            const char *name = "";
            unsigned target = k < n ? target_of(c, w->role, k, n, &name) : 0;
            bool is = target & l->o.targets && (!want || want(user, piece[k].name));
            l->at[i * PARAM_PIECES + (size_t)k] = is ? (int32_t)l->params.n : -1;
            if (!is) continue;
            put(&l->params, w, name, 'A', o->rank, piece[k].cols);
            put(&l->params, w, name, 'B', piece[k].rows, o->rank);
        }
    }
    params_place(&l->params);
    if (l->params.n) return TL_OK;
    lora_fini(l, a);
    return error_set(e, TL_CONFIG, "the model has none of the matrices to adapt");
}

tl_status lora_init(model_lora *l, const tl_allocator *a, const model_config *c, const model_params *base,
                    const lora_options *o, tl_error *e) {
    return lora_table(l, a, c, base, o, NULL, NULL, e);
}

void lora_fini(model_lora *l, const tl_allocator *a) {
    if (l->flat) mem_give(a, l->flat, (size_t)l->params.total * sizeof *l->flat);
    if (l->flat16) mem_give(a, l->flat16, (size_t)l->params.total * sizeof *l->flat16);
    params_fini(&l->params, a);
    mem_free(a, l->at);
    memset(l, 0, sizeof *l);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

static void first_numbers(model_lora *l, uint64_t seed) {
    for (size_t k = 0; k < l->params.n; k++) {
        const model_param *m = &l->params.list[k];
        float *w = l->flat + m->offset, reach = (float)(1 / sqrt((double)m->cols));
        rng_key key = rng_key_make(seed, 0, 0x6c6f7261 + (uint64_t)k); /* "lora" + number */
        if (m->role == ROLE_LORA_A)
            for (int64_t i = 0; i < m->rows * m->cols; i++) w[i] = reach * (2 * rng_uniform(key, 0, (uint64_t)i) - 1);
    }
}

tl_status lora_take(tl_model *m, const lora_options *o, lora_want *want, const void *user, tl_error *e) {
    if (m->lora) return error_set(e, TL_STATE, "the model has adapters already; merge them first");
    TRY(model_pull(m, e)); /* from now on it is the adapters that change */
    model_lora *l = mem_new(m->alloc, 1, sizeof *l);
    if (!l) return error_set(e, TL_NOMEM, "no memory for adapters");
    tl_status s = lora_table(l, m->alloc, &m->config, &m->params, o, want, user, e);
    if (s == TL_OK) {
        size_t bytes = (size_t)l->params.total * sizeof *l->flat;
        l->flat = mem_take(m->alloc, bytes);
        if (l->flat)
            memset(l->flat, 0, bytes);
        else
            s = error_set(e, TL_NOMEM, "no memory for adapters of %lld numbers", (long long)l->params.count);
    }
    if (s != TL_OK) {
        lora_fini(l, m->alloc);
        mem_free(m->alloc, l);
        return s;
    }
    m->lora = l;
    return TL_OK;
}

tl_status lora_add(tl_model *m, const lora_options *o, uint64_t seed, tl_error *e) {
    uint64_t hash = 0;
    if (m->path[0]) TRY(lora_hash(m, &hash, e));
    TRY(lora_take(m, o, NULL, NULL, e));
    first_numbers(m->lora, seed);
    m->lora->hash = hash;
    file_absolute(m->path, m->lora->base, sizeof m->lora->base);
    return TL_OK;
}

void lora_close(tl_model *m) {
    if (!m->lora) return;
    model_lift_lora(m);
    lora_fini(m->lora, m->alloc);
    mem_free(m->alloc, m->lora);
    m->lora = NULL;
}

/* w (rows, cols) += s b (rows, rank) a (rank, cols) */
static void add_product(float *w, const float *a, const float *b, int64_t rows, int64_t cols, int64_t rank, float s) {
    for (int64_t o = 0; o < rows; o++)
        for (int64_t r = 0; r < rank; r++) {
            const float by = s * b[o * rank + r];
            if (by != 0)
                for (int64_t i = 0; i < cols; i++) w[o * cols + i] += by * a[r * cols + i];
        }
}

tl_status lora_merge(tl_model *m, tl_error *e) {
    model_lora *l = m->lora;
    if (!l) return TL_OK;
    if (!m->flat) return error_set(e, TL_STATE, "adapters cannot be merged into weights that stay in their file");
    TRY(model_pull(m, e));
    for (size_t i = 0; i < m->params.n; i++) {
        const model_param *w = &m->params.list[i];
        param_piece piece[PARAM_PIECES];
        int n = w->rows ? params_pieces(&m->config, w, FORMAT_HF, piece) : 0;
        for (int k = 0; k < n && k < PARAM_PIECES; k++) {
            int32_t at = l->at[i * PARAM_PIECES + (size_t)k];
            if (at < 0) continue;
            const float *a = l->flat + l->params.list[at].offset, *b = l->flat + l->params.list[at + 1].offset;
            add_product(m->flat + w->offset + piece[k].row * w->cols, a, b, piece[k].rows, piece[k].cols, l->o.rank,
                        (float)lora_scale(&l->o));
        }
    }
    lora_close(m);
    TRY(model_push(m, e));
    return m->flat16 ? model_bf16(m, e) : TL_OK;
}
