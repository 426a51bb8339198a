/* Models as directories in Hugging Face's form; opening of every form. */
#include "model/mapped.h"

#include "base/file.h"
#include "base/half.h"
#include "tensor/quantize.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { PATH_ROOM = PATH_MAX + 64 };

/* ---- create and close ------------------------------------------------------------------------------- */

static tl_status take_flat(tl_model *m, tl_error *err) {
    size_t bytes = (size_t)m->params.total * sizeof(float);
    m->flat = mem_take(m->alloc, bytes);
    if (!m->flat)
        return error_set(err, TL_NOMEM, "no memory for %lld parameters (%zu bytes)", (long long)m->params.count, bytes);
    memset(m->flat, 0, bytes);
    return TL_OK;
}

static tl_status model_new(tl_engine *e, tl_model **out, tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    tl_model *m = mem_new(a, 1, sizeof *m);
    *out = NULL;
    if (!m) return error_set(err, TL_NOMEM, "no memory for a model");
    m->engine = e;
    m->alloc = a;
    m->log = ((const graph_host *)e)->log;
    generation_init(&m->generation);
    *out = m;
    return TL_OK;
}

void model_fit_tokenizer(model_config *c, const tl_tokenizer *t) {
    c->vocab = tokenizer_vocab(t);
    c->bos = tokenizer_role_id(t, TOKENIZER_BOS);
    c->eos = tokenizer_role_id(t, TOKENIZER_EOD);
    c->begin_document = c->bos < 0 && c->eos >= 0;
}

tl_status model_create(tl_engine *e, const model_config *c, tl_tokenizer *t, uint64_t seed, tl_model **out,
                       tl_error *err) {
    TRY(config_check(c, err));
    if (t && tokenizer_vocab(t) > c->vocab)
        return error_set(err, TL_CONFIG, "the tokenizer has %lld ids, the model a vocabulary of %lld",
                         (long long)tokenizer_vocab(t), (long long)c->vocab);
    tl_model *m;
    TRY(model_new(e, &m, err));
    m->config = *c;
    m->tokenizer = t;
    tl_status s = params_init(&m->params, m->alloc, c, err);
    if (s == TL_OK) s = take_flat(m, err);
    if (s != TL_OK) {
        model_close(m);
        return s;
    }
    params_initialize(&m->params, c, seed, m->flat);
    *out = m;
    return TL_OK;
}

float *model_numbers(const tl_model *m, size_t i) {
    const model_param *p = &m->params.list[i];
    if (m->flat) return m->flat + p->offset;
    return p->decay ? NULL : m->vectors + (p->offset - m->params.decayed);
}

void model_close(tl_model *m) {
    if (!m) return;
    if (m->memory) m->memory->newer = false; /* nobody will ask */
    (void)model_lift(m, NULL);
    if (m->flat) mem_give(m->alloc, m->flat, (size_t)m->params.total * sizeof(float));
    mapped_close(m);
    lora_close(m);
    if (m->flat16) mem_give(m->alloc, m->flat16, (size_t)m->params.decayed * sizeof(uint16_t));
    if (m->owns_tokenizer) tokenizer_close(m->tokenizer);
    params_fini(&m->params, m->alloc);
    mem_free(m->alloc, m);
}

/* ---- weights out ------------------------------------------------------------------------------------------ */

typedef struct save_list {
    const tl_model *m;
    safetensors_item *item;
    param_piece *piece; /* one for each item */
    size_t *param;
    size_t n;
    tl_dtype dtype; /* of matrices */
    float *scratch;
} save_list;

static void save_fill(void *user, size_t i, void *buf) {
    const save_list *l = user;
    const model_param *q = &l->m->params.list[l->param[i]];
    const float *x = l->m->flat + q->offset;
    if (l->item[i].dtype == TL_F32) {
        params_piece_out(&l->piece[i], q, x, buf);
        return;
    }
    params_piece_out(&l->piece[i], q, x, l->scratch);
    quantize_encode(l->item[i].dtype, l->scratch, params_piece_count(&l->piece[i]), buf);
}

static tl_status save_weights(const tl_model *m, const char *path, tl_dtype dtype, tl_error *err) {
    size_t room = 0, largest = 1;
    save_list l = {.m = m, .dtype = dtype};
    for (size_t i = 0; i < m->params.n; i++)
        room += (size_t)params_piece_total(&m->config, &m->params.list[i], FORMAT_HF);
    l.item = mem_new(m->alloc, room, sizeof *l.item);
    l.piece = mem_new(m->alloc, room, sizeof *l.piece);
    l.param = mem_new(m->alloc, room, sizeof *l.param);
    tl_status s = l.item && l.piece && l.param ? TL_OK : error_set(err, TL_NOMEM, "no memory to save a model");
    for (size_t i = 0; i < m->params.n && s == TL_OK; i++) {
        int n = params_piece_total(&m->config, &m->params.list[i], FORMAT_HF);
        for (int k = 0; k < n; k++, l.n++) {
            param_piece *p = &l.piece[l.n];
            params_piece_get(&m->config, &m->params.list[i], FORMAT_HF, k, p);
            safetensors_item *t = &l.item[l.n];
            *t = (safetensors_item){.name = p->name, .dtype = p->rows ? dtype : TL_F32, .ndim = p->rows ? 2 : 1};
            if ((size_t)params_piece_count(p) > largest) largest = (size_t)params_piece_count(p);
            t->dim[0] = p->rows ? (p->transposed ? p->cols : p->rows) : p->cols;
            t->dim[1] = p->transposed ? p->rows : p->cols;
            l.param[l.n] = i;
        }
    }
    static const char *const metadata[] = {"format", "pt", NULL};
    if (dtype == TL_F32) largest = 1;
    l.scratch = mem_take(m->alloc, largest * sizeof *l.scratch);
    if (!l.scratch && s == TL_OK) s = error_set(err, TL_NOMEM, "no memory to save a model");
    if (s == TL_OK) s = safetensors_write(m->alloc, path, l.item, l.n, save_fill, &l, metadata, NULL, err);
    if (l.scratch) mem_give(m->alloc, l.scratch, largest * sizeof *l.scratch);
    mem_free(m->alloc, l.item);
    mem_free(m->alloc, l.piece);
    mem_free(m->alloc, l.param);
    return s;
}

/* Takes o. */
static tl_status write_json(const tl_model *m, const char *dir, const char *name, json_t *o, tl_error *err) {
    char path[PATH_ROOM];
    if (!o) return error_set(err, TL_NOMEM, "no memory for %s", name);
    tl_status s = file_join(path, sizeof path, dir, name, err);
    if (s == TL_OK) s = json_write_file(m->alloc, path, o, err);
    json_decref(o);
    return s;
}

/* config.json says in which type the matrices are. */
static json_t *config_of(const tl_model *m, tl_dtype dtype) {
    static const struct {
        tl_dtype dtype;
        const char *name;
    } names[] = {{TL_F16, "float16"}, {TL_BF16, "bfloat16"}};
    json_t *o = config_write(&m->config);
    for (size_t i = 0; o && i < sizeof names / sizeof *names; i++)
        if (names[i].dtype == dtype) json_object_set_new(o, "torch_dtype", json_string(names[i].name));
    return o;
}

static tl_status write_tokenizer(const tl_model *m, const char *dir, tl_error *err) {
    char path[PATH_ROOM];
    TRY(file_join(path, sizeof path, dir, "tokenizer.json", err));
    return m->tokenizer ? tokenizer_save(m->tokenizer, path, err) : TL_OK;
}

static tl_status write_files(const tl_model *m, const char *dir, tl_dtype dtype, tl_error *err) {
    TRY(model_pull(m, err));
    if (m->lora) {
        TRY(lora_write(m, dir, err));
        return write_tokenizer(m, dir, err);
    }
    if (!m->flat) return error_set(err, TL_STATE, "the weights are not in memory as numbers");
    char path[PATH_ROOM];
    TRY(write_json(m, dir, "config.json", config_of(m, dtype), err));
    TRY(write_json(m, dir, "generation_config.json", generation_write(&m->generation, &m->config), err));
    TRY(file_join(path, sizeof path, dir, "model.safetensors", err));
    TRY(save_weights(m, path, dtype, err));
    return write_tokenizer(m, dir, err);
}

tl_status model_write_files(const tl_model *m, const char *dir, tl_error *err) {
    return write_files(m, dir, TL_F32, err);
}

tl_status model_save(const tl_model *m, const char *dir, tl_error *err) {
    return model_save_as(m, dir, TL_F32, err);
}

tl_status model_save_as(const tl_model *m, const char *dir, tl_dtype dtype, tl_error *err) {
    char tmp[PATH_ROOM];
    if (file_exists(dir)) {
        tl_status s = error_set(err, TL_BUSY, "is there already; nothing was overwritten");
        error_at_file(err, dir);
        return s;
    }
    if (snprintf(tmp, sizeof tmp, "%s.tmp", dir) >= (int)sizeof tmp)
        return error_set(err, TL_LIMIT, "the path is too long");
    (void)file_remove_tree(m->alloc, tmp, NULL); /* what an interrupted save left */
    TRY(file_mkdirs(tmp, err));
    tl_status s = write_files(m, tmp, dtype, err);
    if (s == TL_OK) s = file_sync_dir(tmp, err);
    if (s == TL_OK) s = file_rename(tmp, dir, err);
    if (s != TL_OK) file_remove_tree(m->alloc, tmp, NULL);
    return s;
}

/* ---- weights in ------------------------------------------------------------------------------------------------ */

/* The file's tensor for a piece: the family's name, or the same without its outer prefix, as some exporters write it.
 */
static const safetensors_entry *find_piece(const safetensors *s, const param_piece *p) {
    const safetensors_entry *t = safetensors_find(s, p->name);
    const char *dot = strchr(p->name, '.');
    return t || !dot ? t : safetensors_find(s, dot + 1);
}

static tl_status read_piece(tl_model *m, size_t i, const param_piece *p, const safetensors_entry *t, float *scratch,
                            tl_error *err) {
    int64_t d0 = p->rows ? (p->transposed ? p->cols : p->rows) : p->cols, d1 = p->transposed ? p->rows : p->cols;
    bool stacked = p->experts && t->ndim == 3 && t->dim[0] == p->experts && t->dim[1] * p->experts == p->rows &&
                   t->dim[2] == p->cols;
    bool fits = stacked   ? true
                : p->rows ? t->ndim == 2 && t->dim[0] == d0 && t->dim[1] == d1
                          : t->ndim == 1 && t->dim[0] == d0;
    if (!fits) {
        tl_status s =
            p->rows ? error_set(err, TL_SHAPE, "the configuration wants (%lld, %lld)", (long long)d0, (long long)d1)
                    : error_set(err, TL_SHAPE, "the configuration wants (%lld)", (long long)d0);
        error_at_tensor(err, t->name);
        return s;
    }
    const model_param *q = &m->params.list[i];
    float *ours = model_numbers(m, i);
    if (!ours) return TL_OK; /* stays in the file */
    float *direct = params_piece_direct(p, q, ours);
    if (direct) return safetensors_to_f32(t, direct, err);
    TRY(safetensors_to_f32(t, scratch, err));
    params_piece_in(p, q, scratch, ours);
    return TL_OK;
}

/* Buffers of old exporters that are no parameters. */
static bool ignorable(const char *name) {
    size_t n = strlen(name);
    return strstr(name, "rotary_emb.inv_freq") || strstr(name, ".attn.masked_bias") ||
           (n > 10 && strcmp(name + n - 10, ".attn.bias") == 0);
}

/* Pieces of parameter i in an open directory: fused is set where the experts of a layer are one tensor. */
static int directory_pieces(const tl_model *m, size_t i, const safetensors *s, param_piece *fused, bool *is_fused) {
    const model_param *q = &m->params.list[i];
    *is_fused = params_piece_fused(&m->config, q, fused) && safetensors_find(s, fused->name);
    return *is_fused ? 1 : params_piece_total(&m->config, q, FORMAT_HF);
}

void model_directory_piece(const tl_model *m, size_t i, const safetensors *s, int k, int *total, param_piece *out) {
    bool fused;
    *total = directory_pieces(m, i, s, out, &fused);
    if (!fused) params_piece_get(&m->config, &m->params.list[i], FORMAT_HF, k, out);
}

static tl_status read_all(tl_model *m, const safetensors *s, float *scratch, uint8_t *used, tl_error *err) {
    for (size_t i = 0; i < m->params.n; i++) {
        int n = 1;
        for (int k = 0; k < n; k++) {
            param_piece piece;
            model_directory_piece(m, i, s, k, &n, &piece);
            const safetensors_entry *t = find_piece(s, &piece);
            if (!t) {
                tl_status st = error_set(err, TL_NOTFOUND, "this tensor of the architecture is missing");
                error_at_tensor(err, piece.name);
                return st;
            }
            used[t - s->list] = 1;
            TRY(read_piece(m, i, &piece, t, scratch, err));
        }
    }
    for (size_t i = 0; i < s->n; i++) {
        bool tied_copy = m->config.tied && strcmp(s->list[i].name, "lm_head.weight") == 0;
        if (used[i] || tied_copy || ignorable(s->list[i].name)) continue;
        tl_status st = error_set(err, TL_FORMAT, "the architecture has no such tensor");
        error_at_tensor(err, s->list[i].name);
        return st;
    }
    return TL_OK;
}

tl_status model_read_tensors(tl_model *m, const safetensors *s, tl_error *err) {
    size_t largest = 1;
    for (size_t i = 0; m->flat && i < s->n; i++)
        if (s->list[i].count > (int64_t)largest) largest = (size_t)s->list[i].count;
    for (size_t i = 0; i < m->params.n; i++)
        if (m->params.list[i].cols > (int64_t)largest) largest = (size_t)m->params.list[i].cols;
    float *scratch = mem_take(m->alloc, largest * sizeof *scratch);
    uint8_t *used = mem_new(m->alloc, s->n, 1);
    tl_status st =
        scratch && used ? read_all(m, s, scratch, used, err) : error_set(err, TL_NOMEM, "no memory to read weights");
    if (scratch) mem_give(m->alloc, scratch, largest * sizeof *scratch);
    mem_free(m->alloc, used);
    return st == TL_OK ? model_push(m, err) : st;
}

tl_status model_read_weights(tl_model *m, const char *dir, tl_error *err) {
    safetensors s;
    TRY(safetensors_open(m->alloc, dir, &s, err));
    tl_status st = model_read_tensors(m, &s, err);
    if (st != TL_OK && err && !err->file[0]) error_at_file(err, dir);
    safetensors_close(&s);
    return st;
}

/* ---- open -------------------------------------------------------------------------------------------------------- */

/* What RUN/latest says, if it can be a name: "" if not. */
static tl_status read_latest(const tl_allocator *a, const char *file, char name[256], tl_error *err) {
    char *text;
    size_t n;
    TRY(file_read(a, file, 255, &text, &n, err));
    while (n && (text[n - 1] == '\n' || text[n - 1] == ' ')) text[--n] = 0;
    bool plain = n && !strchr(text, '/') && text[0] != '.';
    if (plain) memcpy(name, text, n + 1);
    mem_free(a, text);
    if (plain) return TL_OK;
    tl_status s = error_set(err, TL_FORMAT, "does not name a checkpoint");
    error_at_file(err, file);
    return s;
}

/* The last finished checkpoint of a folder by name: for a run that was killed before it wrote its first "latest", or
 * whose "latest" names one that is gone. "" if there is none. */
static tl_status newest_checkpoint(const tl_allocator *a, const char *path, char name[256], tl_error *err) {
    char **names;
    size_t n;
    name[0] = 0;
    TRY(file_list(a, path, &names, &n, err));
    for (size_t i = 0; i < n; i++) {
        char manifest[PATH_ROOM];
        int len = snprintf(manifest, sizeof manifest, "%s/%s/manifest.json", path, names[i]);
        if (strncmp(names[i], "ckpt-", 5) != 0 || strchr(names[i], '.') || strlen(names[i]) > 255) continue;
        if (len < (int)sizeof manifest && file_exists(manifest)) memcpy(name, names[i], strlen(names[i]) + 1);
    }
    file_list_free(a, names);
    return TL_OK;
}

/* The directory that holds the weights: path itself, the checkpoint that a run directory's "latest" names, or, of a
 * folder of runs, that of the run that its link "latest" leads to. */
tl_status model_find_dir(const tl_allocator *a, const char *path, char *dir, size_t size, tl_error *err) {
    char file[PATH_ROOM], run[PATH_ROOM], name[256] = "";
    if (!file_is_dir(path)) {
        tl_status s = error_set(err, TL_NOTFOUND, file_exists(path) ? "not a directory" : "no such directory");
        error_at_file(err, path);
        return s;
    }
    TRY(file_join(run, sizeof run, path, "latest", err));
    if (file_is_dir(run)) path = run;
    TRY(file_join(file, sizeof file, path, "latest", err));
    if (file_exists(file)) {
        TRY(read_latest(a, file, name, err));
        TRY(file_join(dir, size, path, name, err));
        if (file_is_dir(dir)) return TL_OK;
    }
    TRY(newest_checkpoint(a, path, name, err));
    return file_join(dir, size, path, name[0] ? name : ".", err);
}

static tl_status open_tokenizer(tl_model *m, const char *path, tl_error *err) {
    tl_error why;
    tl_status s = tokenizer_open(m->alloc, path, &m->tokenizer, &why);
    m->owns_tokenizer = s == TL_OK;
    if (s == TL_NOTFOUND) return TL_OK; /* a model without a tokenizer can still be trained on ids */
    if (s != TL_OK && err) *err = why;
    return s;
}

/* No more memory than the files justify, whatever config.json says: a number takes at least a byte. */
static tl_status check_justified(const tl_model *m, const safetensors *s, tl_error *err) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < s->n; i++) bytes += s->list[i].bytes;
    if ((uint64_t)m->params.count <= bytes) return TL_OK;
    return error_set(err, TL_SHAPE, "config.json speaks of %lld parameters, the weights have %llu bytes",
                     (long long)m->params.count, (unsigned long long)bytes);
}

static tl_status open_weights(tl_model *m, const char *path, tl_error *err) {
    safetensors s;
    TRY(safetensors_open(m->alloc, path, &s, err));
    tl_status st = check_justified(m, &s, err);
    bool whole = true;
    if (st == TL_OK && m->stay) {
        st = mapped_safetensors(m, &s, err);
        whole = st == TL_UNSUPPORTED && !m->source;
        if (whole) st = TL_OK;
    }
    if (st == TL_OK && whole) st = take_flat(m, err);
    if (st == TL_OK && whole) st = model_read_tensors(m, &s, err);
    if (st != TL_OK && err && !err->file[0]) error_at_file(err, path);
    if (s.alloc) safetensors_close(&s);
    return st;
}

/* generation_config.json, where there is one. */
static tl_status open_generation(tl_model *m, const char *dir, tl_error *err) {
    char path[PATH_ROOM];
    json_t *o;
    TRY(file_join(path, sizeof path, dir, "generation_config.json", err));
    if (!file_exists(path)) return TL_OK;
    TRY(json_read_file(m->alloc, path, 1u << 20, &o, err));
    tl_status s = generation_read(o, &m->generation, &m->config, err);
    json_decref(o);
    if (s != TL_OK) error_at_file(err, path);
    return s;
}

/* dir: where config.json and the tokenizer are; weights: that, or one .safetensors file of it. */
static tl_status open_dir(tl_model *m, const char *dir, const char *weights, tl_error *err) {
    char path[PATH_ROOM], unknown[400];
    json_t *o;
    TRY(file_join(path, sizeof path, dir, "config.json", err));
    TRY(json_read_file(m->alloc, path, 16u << 20, &o, err));
    tl_status s = config_read(o, &m->config, unknown, sizeof unknown, err);
    json_decref(o);
    if (s != TL_OK) {
        error_at_file(err, path);
        return s;
    }
    if (unknown[0]) log_line(&m->log, TL_LOG_WARN, "%s: keys not known: %s", path, unknown);
    TRY(open_generation(m, dir, err));
    TRY(params_init(&m->params, m->alloc, &m->config, err));
    TRY(open_weights(m, weights, err));
    return open_tokenizer(m, dir, err);
}

static tl_status open_gguf(tl_model *m, const char *path, tl_error *err) {
    gguf_parts p;
    TRY(gguf_parts_open(m->alloc, path, &p, err));
    m->gguf = true;
    tl_status s = config_read_gguf(&p, &m->config, err);
    if (s == TL_OK) s = params_init(&m->params, m->alloc, &m->config, err);
    /* never more memory than the file justifies: its smallest type has 4 bits and a half a number */
    size_t bytes = 0;
    for (size_t i = 0; i < p.n; i++) bytes += p.part[i].size;
    if (s == TL_OK && (uint64_t)m->params.count / 2 > bytes)
        s = error_set(err, TL_FORMAT, "the keys speak of %lld parameters, the file has %zu bytes",
                      (long long)m->params.count, bytes);
    bool whole = true;
    if (s == TL_OK && m->stay) {
        s = mapped_gguf(m, &p, err);
        whole = s == TL_UNSUPPORTED && !m->source;
        if (whole) s = TL_OK;
    }
    if (s == TL_OK && whole) s = take_flat(m, err);
    if (s == TL_OK && whole) s = model_read_gguf(m, &p, err);
    if (p.alloc) gguf_parts_close(&p);
    if (s != TL_OK) {
        if (err && !err->file[0]) error_at_file(err, path);
        return s;
    }
    return open_tokenizer(m, path, err);
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static bool is_gguf(const tl_allocator *a, const char *path) {
    file_map m;
    if (ends_with(path, ".gguf")) return true;
    (void)a;
    if (file_map_open(path, &m, NULL) != TL_OK) return false;
    bool yes = m.size >= 4 && memcmp(m.data, "GGUF", 4) == 0;
    file_map_close(&m);
    return yes;
}

/* A file that is a model by itself or one of a directory. */
static tl_status open_file(tl_model *m, const char *path, tl_error *err) {
    static const char *const pickled[] = {".bin", ".pt", ".pth", ".ckpt", ".pkl"};
    tl_status s;
    if (is_gguf(m->alloc, path)) return open_gguf(m, path, err);
    for (size_t i = 0; i < sizeof pickled / sizeof *pickled; i++)
        if (ends_with(path, pickled[i])) {
            s = error_set(err, TL_UNSUPPORTED,
                          "a pickled file can run code when opened: convert it to safetensors with "
                          "safe_serialization=True of transformers' save_pretrained");
            error_at_file(err, path);
            return s;
        }
    if (!ends_with(path, ".safetensors") && !ends_with(path, ".safetensors.index.json")) {
        s = error_set(err, TL_FORMAT, "neither a GGUF nor a .safetensors file, nor a directory");
        error_at_file(err, path);
        return s;
    }
    char dir[PATH_ROOM];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir) return error_set(err, TL_LIMIT, "the path is too long");
    memcpy(dir, path, n);
    dir[n] = 0;
    return open_dir(m, n ? dir : slash ? "/" : ".", path, err);
}

static tl_status open_any(tl_engine *e, const char *path, bool stay, tl_model **out, tl_error *err);

/* A directory of adapters: its base, and they. */
static tl_status open_adapted(tl_engine *e, const char *dir, bool stay, tl_model **out, tl_error *err) {
    char base[PATH_ROOM];
    TRY(lora_base_of(tl_engine_allocator(e), dir, base, sizeof base, err));
    if (lora_only(base)) {
        tl_status s = error_set(err, TL_FORMAT, "its base model is an adapter itself");
        error_at_file(err, dir);
        return s;
    }
    TRY(open_any(e, base, stay, out, err));
    tl_status s = lora_open(*out, dir, false, err);
    if (s == TL_OK) return s;
    model_close(*out);
    *out = NULL;
    return s;
}

static tl_status open_any(tl_engine *e, const char *path, bool stay, tl_model **out, tl_error *err) {
    char dir[PATH_ROOM];
    tl_model *m;
    *out = NULL;
    bool file = file_exists(path) && !file_is_dir(path);
    if (!file) {
        TRY(model_find_dir(tl_engine_allocator(e), path, dir, sizeof dir, err));
        if (lora_only(dir)) return open_adapted(e, dir, stay, out, err);
    } else if (snprintf(dir, sizeof dir, "%s", path) >= (int)sizeof dir) {
        return error_set(err, TL_LIMIT, "the path is too long");
    }
    TRY(model_new(e, &m, err));
    m->stay = stay;
    memcpy(m->path, dir, strnlen(dir, sizeof m->path - 1)); /* for messages: may be cut */
    tl_status s = file ? open_file(m, dir, err) : open_dir(m, dir, dir, err);
    if (s != TL_OK) {
        model_close(m);
        return s;
    }
    *out = m;
    return TL_OK;
}

tl_status model_open(tl_engine *e, const char *path, tl_model **out, tl_error *err) {
    return open_any(e, path, false, out, err);
}

tl_status model_open_mapped(tl_engine *e, const char *path, tl_model **out, tl_error *err) {
    return open_any(e, path, true, out, err);
}
