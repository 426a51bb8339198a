/* Adapters as directories of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors; beside them
 * base.json, which says where the base lies and what its checksum was. */
#include "model/lora_table.h"

#include "base/file.h"
#include "base/hash.h"
#include "format/safetensors.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_MAX = 1 << 20, LORA_NAME = 192 };

static const char config_name[] = "adapter_config.json", weights_name[] = "adapter_model.safetensors",
                  base_name[] = "base.json";

static tl_status at_file(tl_error *e, tl_status s, const char *path) {
    if (s != TL_OK && e && !e->file[0]) error_at_file(e, path);
    return s;
}

static tl_status no_memory(tl_error *e) {
    return error_set(e, TL_NOMEM, "no memory for the files of an adapter");
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

/* "model.layers.0.self_attn.q_proj.weight" as PEFT writes it, of A and B */
static void peft_name(const char *hf, char which, char out[LORA_NAME]) {
    int n = (int)strlen(hf);
    if (n > 7 && strcmp(hf + n - 7, ".weight") == 0) n -= 7;
    snprintf(out, LORA_NAME, "base_model.model.%.*s.lora_%c.weight", n, hf, which);
}

/* The module's own name, by which PEFT finds it: the last word, the last two where one word means several. */
static void module_name(const param_piece *p, char out[64]) {
    char text[128];
    snprintf(text, sizeof text, "%s", p->name);
    char *dot = strrchr(text, '.'), *at;
    if (dot) *dot = 0;
    at = strrchr(text, '.');
    if (at && p->transposed) {
        *at = 0;
        char *two = strrchr(text, '.');
        *at = '.';
        at = two;
    }
    snprintf(out, 64, "%.63s", at ? at + 1 : text);
}

/* Every adapted piece of m in turn. */
typedef struct walk {
    const tl_model *m;
    size_t i;
    int k;
    param_piece piece; /* of Hugging Face's files */
    int64_t paired;    /* > 0: rows of W lie in the order of rotary pairs, so those of B do too */
    const model_param *a, *b;
    size_t at; /* number of a */
} walk;

static bool walk_next(walk *w) {
    const tl_model *m = w->m;
    const model_lora *l = m->lora;
    for (; w->i < m->params.n; w->i++, w->k = 0)
        while (w->k < PARAM_PIECES) {
            param_piece piece[PARAM_PIECES];
            int k = w->k++;
            int32_t at = l->at[w->i * PARAM_PIECES + (size_t)k];
            if (at < 0) continue;
            params_pieces(&m->config, &m->params.list[w->i], FORMAT_HF, piece);
            w->piece = piece[k];
            w->at = (size_t)at;
            w->a = &l->params.list[at];
            w->b = &l->params.list[at + 1];
            w->paired = m->pairs && m->params.list[w->i].role == ROLE_QKV && k < 2 ? m->config.head_dim : 0;
            return true;
        }
    return false;
}

/* B between the order of our rows and that of the file. */
static void b_rows(const walk *w, const float *src, float *dst, bool out) {
    param_piece p = {.rows = w->b->rows, .cols = w->b->cols, .paired = w->paired};
    if (out)
        params_piece_in(&p, w->b, src, dst); /* the file's halves are what elsewhere is ours */
    else
        params_piece_out(&p, w->b, src, dst);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

typedef struct writing {
    const tl_model *m;
    safetensors_item *item;
    char (*name)[LORA_NAME];
    walk *from; /* of item i */
} writing;

static void fill(void *user, size_t i, void *buf) {
    const writing *w = user;
    const walk *f = &w->from[i / 2];
    const float *flat = w->m->lora->flat;
    if (i % 2)
        b_rows(f, flat + f->b->offset, buf, true);
    else
        memcpy(buf, flat + f->a->offset, (size_t)(f->a->rows * f->a->cols) * sizeof(float));
}

static tl_status write_weights(const tl_model *m, const char *path, tl_error *e) {
    static const char *const metadata[] = {"format", "pt", NULL};
    size_t n = m->lora->params.n, at = 0;
    writing w = {.m = m};
    w.item = mem_new(m->alloc, n, sizeof *w.item);
    w.name = mem_new(m->alloc, n, sizeof *w.name);
    w.from = mem_new(m->alloc, n / 2, sizeof *w.from);
    tl_status s = w.item && w.name && w.from ? TL_OK : no_memory(e);
    for (walk x = {.m = m}; s == TL_OK && walk_next(&x); at += 2) {
        const model_param *p[2] = {x.a, x.b};
        w.from[at / 2] = x;
        for (size_t k = 0; k < 2; k++) {
            peft_name(x.piece.name, k ? 'B' : 'A', w.name[at + k]);
            w.item[at + k] =
                (safetensors_item){.name = w.name[at + k], .dtype = TL_F32, .ndim = 2, .dim = {p[k]->rows, p[k]->cols}};
        }
    }
    if (s == TL_OK) s = safetensors_write(m->alloc, path, w.item, n, fill, &w, metadata, NULL, e);
    mem_free(m->alloc, w.item);
    mem_free(m->alloc, w.name);
    mem_free(m->alloc, w.from);
    return s;
}

static json_t *config_json(const tl_model *m) {
    const model_lora *l = m->lora;
    json_t *modules = json_array();
    bool transposed = false;
    for (walk x = {.m = m}; modules && walk_next(&x);) {
        char name[64];
        bool there = false;
        size_t i;
        json_t *v;
        module_name(&x.piece, name);
        transposed |= x.piece.transposed;
        json_array_foreach(modules, i, v) there |= strcmp(json_string_value(v), name) == 0;
        if (!there) json_array_append_new(modules, json_string(name));
    }
    return json_pack("{s:s,s:s,s:s,s:I,s:f,s:f,s:o,s:s,s:b,s:b,s:b,s:b,s:n,s:b}", "peft_type", "LORA", "task_type",
                     "CAUSAL_LM", "base_model_name_or_path", l->base, "r", (json_int_t)l->o.rank, "lora_alpha",
                     l->o.alpha, "lora_dropout", l->o.dropout, "target_modules", modules, "bias", "none",
                     "fan_in_fan_out", transposed, "use_rslora", l->o.root, "use_dora", false, "init_lora_weights",
                     true, "modules_to_save", "inference_mode", true);
}

static tl_status write_json(const tl_model *m, const char *dir, const char *name, json_t *o, tl_error *e) {
    char path[LORA_PATH];
    if (!o) return no_memory(e);
    tl_status s = file_join(path, sizeof path, dir, name, e);
    if (s == TL_OK) s = json_write_file(m->alloc, path, o, e);
    json_decref(o);
    return s;
}

tl_status lora_write(const tl_model *m, const char *dir, tl_error *e) {
    char path[LORA_PATH], hex[17];
    if (!m->lora || !m->lora->flat) return error_set(e, TL_STATE, "the model has no adapters");
    TRY(model_pull(m, e));
    TRY(write_json(m, dir, config_name, config_json(m), e));
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)m->lora->hash);
    json_t *base = json_pack("{s:s,s:s}", "path", m->lora->base, "xxh3", hex);
    if (base && m->lora->scaling[0]) json_object_set_new(base, "rope_scaling", json_string(m->lora->scaling));
    TRY(write_json(m, dir, base_name, base, e));
    TRY(file_join(path, sizeof path, dir, weights_name, e));
    return write_weights(m, path, e);
}

/* ---- the base --------------------------------------------------------------------------------------------------- */

bool lora_is_dir(const char *dir) {
    char path[LORA_PATH];
    return file_join(path, sizeof path, dir, config_name, NULL) == TL_OK && file_exists(path);
}

bool lora_only(const char *dir) {
    char path[LORA_PATH];
    return lora_is_dir(dir) && file_join(path, sizeof path, dir, "config.json", NULL) == TL_OK && !file_exists(path);
}

static tl_status read_json(const tl_allocator *a, const char *dir, const char *name, json_t **out, tl_error *e) {
    char path[LORA_PATH];
    TRY(file_join(path, sizeof path, dir, name, e));
    return json_read_file(a, path, CONFIG_MAX, out, e);
}

/* base.json, where there is one; what it does not say stays as it was. */
static tl_status read_base(const tl_allocator *a, const char *dir, char *path, size_t size, uint64_t *hash,
                           char *scaling, tl_error *e) {
    char file[LORA_PATH];
    const char *text = NULL, *hex = NULL, *stretched = NULL;
    json_t *o;
    TRY(file_join(file, sizeof file, dir, base_name, e));
    if (!file_exists(file)) return TL_OK;
    TRY(json_read_file(a, file, CONFIG_MAX, &o, e));
    tl_status s = json_get_str(o, "path", &text, e);
    if (s == TL_OK) s = json_get_str(o, "xxh3", &hex, e);
    if (s == TL_OK) s = json_get_str(o, "rope_scaling", &stretched, e);
    if (s == TL_OK && stretched) snprintf(scaling, LORA_SCALING, "%s", stretched);
    if (s == TL_OK && text) snprintf(path, size, "%s", text);
    if (s == TL_OK && hex) *hash = strtoull(hex, NULL, 16);
    json_decref(o);
    return at_file(e, s, file);
}

tl_status lora_base_of(const tl_allocator *a, const char *dir, char *out, size_t size, tl_error *e) {
    uint64_t ignored;
    char nor_this[LORA_SCALING];
    json_t *o;
    const char *text = NULL;
    out[0] = 0;
    TRY(read_json(a, dir, config_name, &o, e));
    tl_status s = json_get_str(o, "base_model_name_or_path", &text, e);
    if (s == TL_OK && text) snprintf(out, size, "%s", text);
    json_decref(o);
    TRY(at_file(e, s, dir));
    TRY(read_base(a, dir, out, size, &ignored, nor_this, e));
    if (out[0] && file_exists(out)) return TL_OK;
    s = error_set(e, TL_NOTFOUND, "its base model \"%s\" is not there; give the base itself and this as --adapter",
                  out);
    error_at_file(e, dir);
    return s;
}

tl_status lora_hash(const tl_model *m, uint64_t *out, tl_error *e) {
    uint64_t h = 0;
    safetensors s;
    gguf_parts p;
    if (m->gguf) {
        TRY(gguf_parts_open(m->alloc, m->path, &p, e));
        for (size_t i = 0; i < p.n; i++) h = (h << 1 | h >> 63) ^ hash_bytes(p.part[i].bytes, p.part[i].size);
        gguf_parts_close(&p);
    } else {
        TRY(safetensors_open(m->alloc, m->path, &s, e));
        for (size_t i = 0; i < s.n_maps; i++) h = (h << 1 | h >> 63) ^ hash_bytes(s.maps[i].data, s.maps[i].size);
        safetensors_close(&s);
    }
    *out = h;
    return TL_OK;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static tl_status refuse(tl_error *e, const char *what) {
    return error_set(e, TL_UNSUPPORTED, "adapters with %s are not supported; plain LoRA is", what);
}

static bool given(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return v && !json_is_null(v) && !json_is_false(v) && !(json_is_object(v) && !json_object_size(v)) &&
           !(json_is_array(v) && !json_array_size(v));
}

static tl_status read_options(const json_t *o, lora_options *l, tl_error *e) {
    const char *type = "", *bias = "none";
    *l = (lora_options){.targets = LORA_ALL};
    TRY(json_get_str(o, "peft_type", &type, e));
    TRY(json_get_str(o, "bias", &bias, e));
    if (strcmp(type, "LORA") != 0) return error_set(e, TL_UNSUPPORTED, "an adapter of type \"%s\"; LORA is read", type);
    if (strcmp(bias, "none") != 0) return refuse(e, "trained biases");
    if (given(o, "use_dora")) return refuse(e, "DoRA");
    if (given(o, "modules_to_save")) return refuse(e, "modules saved whole");
    if (given(o, "rank_pattern") || given(o, "alpha_pattern")) return refuse(e, "ranks that differ");
    TRY(json_get_int(o, "r", 1, 65536, &l->rank, e));
    l->alpha = (double)l->rank;
    TRY(json_get_real(o, "lora_alpha", &l->alpha, e));
    TRY(json_get_real(o, "lora_dropout", &l->dropout, e));
    TRY(json_get_bool(o, "use_rslora", &l->root, e));
    if (l->rank > 0 && l->alpha >= 0 && l->dropout >= 0 && l->dropout < 1) return TL_OK;
    return error_set(e, TL_CONFIG, "r is %lld, lora_alpha %g, lora_dropout %g", (long long)l->rank, l->alpha,
                     l->dropout);
}

static bool is_there(const void *user, const char *hf) {
    char name[LORA_NAME];
    peft_name(hf, 'A', name);
    return safetensors_find(user, name) != NULL;
}

static tl_status read_one(const safetensors *s, const char *name, const model_param *p, float *to, tl_error *e) {
    const safetensors_entry *t = safetensors_find(s, name);
    tl_status st;
    if (!t)
        st = error_set(e, TL_NOTFOUND, "this half of an adapter is missing");
    else if (t->ndim != 2 || t->dim[0] != p->rows || t->dim[1] != p->cols)
        st = error_set(e, TL_SHAPE, "the model and the rank want (%lld, %lld)", (long long)p->rows, (long long)p->cols);
    else
        return safetensors_to_f32(t, to, e);
    error_at_tensor(e, name);
    return st;
}

static tl_status read_numbers(tl_model *m, const safetensors *s, tl_error *e) {
    int64_t largest = 1;
    size_t used = 0;
    model_lora *l = m->lora;
    for (size_t i = 0; i < l->params.n; i++)
        if (l->params.list[i].rows > largest) largest = l->params.list[i].rows;
    size_t bytes = (size_t)(largest * l->o.rank) * sizeof(float);
    float *b = mem_take(m->alloc, bytes);
    if (!b) return no_memory(e);
    tl_status st = TL_OK;
    for (walk x = {.m = m}; st == TL_OK && walk_next(&x); used += 2) {
        char name[LORA_NAME];
        peft_name(x.piece.name, 'A', name);
        st = read_one(s, name, x.a, l->flat + x.a->offset, e);
        peft_name(x.piece.name, 'B', name);
        if (st == TL_OK) st = read_one(s, name, x.b, b, e);
        if (st == TL_OK) b_rows(&x, b, l->flat + x.b->offset, false);
    }
    mem_give(m->alloc, b, bytes);
    if (st != TL_OK || used == s->n) return st;
    for (size_t i = 0; i < s->n; i++) { /* which one is left over? */
        bool known = false;
        for (walk x = {.m = m}; !known && walk_next(&x);)
            for (int k = 0; k < 2; k++) {
                char name[LORA_NAME];
                peft_name(x.piece.name, k ? 'B' : 'A', name);
                known |= strcmp(name, s->list[i].name) == 0;
            }
        if (known) continue;
        st = error_set(e, TL_FORMAT, "the model has no such matrix to adapt");
        error_at_tensor(e, s->list[i].name);
        return st;
    }
    return TL_OK;
}

static tl_status open_weights(tl_model *m, const char *dir, const lora_options *o, tl_error *e) {
    char path[LORA_PATH];
    safetensors s;
    TRY(file_join(path, sizeof path, dir, weights_name, e));
    TRY(safetensors_open(m->alloc, path, &s, e));
    tl_status st = !o || s.n ? TL_OK : error_set(e, TL_FORMAT, "the adapter is empty");
    if (st == TL_OK && o) {
        bool any = false; /* for an error that names a tensor, rather than one about none at all */
        for (size_t i = 0; i < m->params.n && !any; i++) {
            param_piece piece[PARAM_PIECES];
            int n = params_pieces(&m->config, &m->params.list[i], FORMAT_HF, piece);
            for (int k = 0; k < n && k < PARAM_PIECES; k++) any |= is_there(&s, piece[k].name);
        }
        if (!any) {
            st = error_set(e, TL_FORMAT, "the model has no such matrix to adapt");
            error_at_tensor(e, s.list[0].name);
        }
    }
    if (st == TL_OK && o) st = lora_take(m, o, is_there, &s, e);
    if (st == TL_OK) st = read_numbers(m, &s, e);
    safetensors_close(&s);
    return at_file(e, st, path);
}

tl_status lora_read(tl_model *m, const char *dir, tl_error *e) {
    if (!m->lora) return error_set(e, TL_STATE, "the model has no adapters");
    TRY(open_weights(m, dir, NULL, e));
    return model_push(m, e);
}

static tl_status check_base(const tl_model *m, const char *dir, bool any, uint64_t want, uint64_t *is, tl_error *e) {
    *is = want;
    if (!want || !m->path[0]) return TL_OK;
    TRY(lora_hash(m, is, e));
    if (*is == want) return TL_OK;
    if (any) {
        log_line(&m->log, TL_LOG_WARN, "%s: trained beside another base than %s (checksums differ)", dir, m->path);
        return TL_OK;
    }
    tl_status s = error_set(e, TL_CHECKSUM,
                            "the adapter belongs to another base: %s has the checksum %016llx, that of its base was "
                            "%016llx",
                            m->path, (unsigned long long)*is, (unsigned long long)want);
    error_at_file(e, dir);
    return s;
}

tl_status lora_stretch(tl_model *m, const char *scaling, tl_error *e) {
    if (!m->lora) return error_set(e, TL_STATE, "the model has no adapters");
    TRY(config_scale(&m->config, scaling, e));
    snprintf(m->lora->scaling, sizeof m->lora->scaling, "%s", scaling);
    return TL_OK;
}

/* As base.json says: what is wrong there is the file's mistake, not an argument's. */
static tl_status stretch_as_written(tl_model *m, const char *dir, const char *scaling, tl_error *e) {
    char path[LORA_PATH];
    TRY(file_join(path, sizeof path, dir, base_name, e));
    tl_status s = lora_stretch(m, scaling, e);
    if (s == TL_ARG) {
        s = TL_CONFIG;
        if (e) e->code = s;
    }
    return at_file(e, s, path);
}

tl_status lora_open(tl_model *m, const char *path, bool any_base, tl_error *e) {
    char dir[LORA_PATH], base[LORA_PATH] = "", scaling[LORA_SCALING] = "";
    uint64_t want = 0, is = 0;
    lora_options o;
    json_t *config;
    if (lora_is_dir(path))
        snprintf(dir, sizeof dir, "%s", path);
    else
        TRY(model_find_dir(m->alloc, path, dir, sizeof dir, e)); /* a run that made one */
    TRY(read_json(m->alloc, dir, config_name, &config, e));
    tl_status s = read_options(config, &o, e);
    json_decref(config);
    TRY(at_file(e, s, dir));
    TRY(read_base(m->alloc, dir, base, sizeof base, &want, scaling, e));
    TRY(check_base(m, dir, any_base, want, &is, e));
    s = open_weights(m, dir, &o, e);
    if (s == TL_OK && scaling[0]) s = stretch_as_written(m, dir, scaling, e);
    if (s != TL_OK) {
        lora_close(m);
        return s;
    }
    m->lora->hash = is;
    file_absolute(m->path, m->lora->base, sizeof m->lora->base);
    return TL_OK;
}
