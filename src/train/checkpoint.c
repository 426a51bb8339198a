/* Writing and pruning. Reading is in restore.c. */
#include "train/checkpoint_files.h"

#include <stdio.h>
#include <string.h>

const char *const checkpoint_files[CHECKPOINT_FILES] = {
    "config.json", "model.safetensors",     "adapter_config.json", "adapter_model.safetensors",
    "base.json",   "optimizer.safetensors", "tokenizer.json"};

/* ---- checksums ---------------------------------------------------------------------------------------------- */

uint64_t checkpoint_layout(const model_params *p) {
    uint64_t h = 0;
    for (size_t i = 0; i < p->n; i++) {
        const model_param *q = &p->list[i];
        char line[160];
        int n = snprintf(line, sizeof line, "%016llx %s %lld %lld %lld", (unsigned long long)h, q->name,
                         (long long)q->rows, (long long)q->cols, (long long)q->offset);
        h = hash_bytes(line, (size_t)n);
    }
    return h;
}

uint64_t checkpoint_seal(json_t *manifest) {
    json_t *old = json_incref(json_object_get(manifest, "seal"));
    json_object_del(manifest, "seal");
    char *text = json_dumps(manifest, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    uint64_t h = text ? hash_bytes(text, strlen(text)) : 0;
    free(text);
    if (old) json_object_set_new(manifest, "seal", old);
    return h;
}

void checkpoint_hex(uint64_t h, char out[17]) {
    snprintf(out, 17, "%016llx", (unsigned long long)h);
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

typedef struct moments {
    const trainer *t;
    tl_status status;
    tl_error *err;
} moments;

static void fill_moment(void *user, size_t i, void *buf) {
    moments *w = user;
    const trainer *t = w->t;
    if (w->status == TL_OK)
        w->status = device_fetch(t->dev, buf, i ? t->v : t->m, (size_t)t->params->total * sizeof(float), w->err);
}

static tl_status write_optimizer(const trainer *t, const char *dir, tl_error *err) {
    char path[CHECKPOINT_PATH];
    int64_t n = t->params->total;
    safetensors_item item[2] = {{.name = "m", .dtype = TL_F32, .ndim = 1, .dim = {n}},
                                {.name = "v", .dtype = TL_F32, .ndim = 1, .dim = {n}}};
    moments w = {.t = t, .err = err};
    TRY(file_join(path, sizeof path, dir, "optimizer.safetensors", err));
    tl_status s = safetensors_write(t->alloc, path, item, 2, fill_moment, &w, NULL, NULL, err);
    return w.status == TL_OK ? s : w.status;
}

static tl_status no_memory(tl_error *err) {
    return error_set(err, TL_NOMEM, "no memory for the manifest of a checkpoint");
}

/* Sizes and checksums of the files as they lie on disk. */
static tl_status list_files(const tl_allocator *a, const char *dir, json_t *files, tl_error *err) {
    for (int i = 0; i < CHECKPOINT_FILES; i++) {
        char path[CHECKPOINT_PATH], hex[17];
        uint64_t hash;
        int64_t size;
        TRY(file_join(path, sizeof path, dir, checkpoint_files[i], err));
        if (!file_exists(path)) continue; /* a whole model's files, or an adapter's; a tokenizer, or none */
        TRY(checkpoint_hash_file(a, path, &hash, &size, err));
        checkpoint_hex(hash, hex);
        json_t *row = json_pack("{s:I,s:s}", "bytes", (json_int_t)size, "xxh3", hex);
        if (!row || json_object_set_new(files, checkpoint_files[i], row)) return no_memory(err);
    }
    return TL_OK;
}

static json_t *state_json(const trainer *t, const json_t *extra) {
    char layout[17];
    checkpoint_hex(checkpoint_layout(t->params), layout);
    json_t *o = json_pack("{s:s,s:i,s:s,s:I,s:I,s:I,s:I,s:s,s:o,s:{}}", "format", "tilia checkpoint", "version",
                          CHECKPOINT_VERSION, "tilia", TILIA_VERSION, "step", (json_int_t)t->step, "data_shift",
                          (json_int_t)t->data_shift, "skipped", (json_int_t)t->skipped, "tokens", (json_int_t)t->tokens,
                          "layout", layout, "settings", checkpoint_settings_json(&t->set), "files");
    if (o && extra && json_object_set_new(o, "extra", json_deep_copy(extra))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static tl_status write_manifest(const trainer *t, const char *dir, const json_t *extra, tl_error *err) {
    char path[CHECKPOINT_PATH], hex[17];
    json_t *o = state_json(t, extra);
    if (!o) return no_memory(err);
    tl_status s = list_files(t->alloc, dir, json_object_get(o, "files"), err);
    if (s == TL_OK) {
        checkpoint_hex(checkpoint_seal(o), hex);
        if (json_object_set_new(o, "seal", json_string(hex))) s = no_memory(err);
    }
    if (s == TL_OK) s = file_join(path, sizeof path, dir, "manifest.json", err);
    if (s == TL_OK) s = json_write_file(t->alloc, path, o, err);
    json_decref(o);
    return s;
}

static tl_status write_all(const trainer *t, const char *tmp, const json_t *extra, tl_error *err) {
    (void)file_remove_tree(t->alloc, tmp, NULL); /* what a killed writer left */
    TRY(file_mkdirs(tmp, err));
    TRY(model_write_files(t->model, tmp, err));
    TRY(write_optimizer(t, tmp, err));
    TRY(write_manifest(t, tmp, extra, err));
    return file_sync_dir(tmp, err);
}

/* Puts tmp in dir's place. A checkpoint of the same step (training went on from an older one) steps aside first and
 * is looked for under its .old name until the new one is there. */
static tl_status put_in_place(const trainer *t, const char *tmp, const char *dir, tl_error *err) {
    char old[CHECKPOINT_PATH + 8];
    snprintf(old, sizeof old, "%s.old", dir);
    bool replaced = file_exists(dir);
    if (replaced) {
        TRY(file_remove_tree(t->alloc, old, err));
        TRY(file_rename(dir, old, err));
    }
    tl_status s = file_rename(tmp, dir, err);
    if (s != TL_OK && replaced && !file_exists(dir)) (void)file_rename(old, dir, NULL);
    return s;
}

static tl_status point_latest(const trainer *t, const char *run, const char *name, tl_error *err) {
    char path[CHECKPOINT_PATH], line[64];
    TRY(file_join(path, sizeof path, run, "latest", err));
    int n = snprintf(line, sizeof line, "%s\n", name);
    return file_write(t->alloc, path, line, (size_t)n, err);
}

tl_status checkpoint_save(const trainer *t, const char *run, const json_t *extra, tl_error *err) {
    if (t->begun) return error_set(err, TL_STATE, "a step that is begun must end before a checkpoint");
    char name[32], dir[CHECKPOINT_PATH], tmp[CHECKPOINT_PATH + 8], old[CHECKPOINT_PATH + 8];
    snprintf(name, sizeof name, "ckpt-%08lld", (long long)t->step);
    TRY(file_mkdirs(run, err));
    TRY(file_join(dir, sizeof dir, run, name, err));
    snprintf(tmp, sizeof tmp, "%s.tmp", dir);
    snprintf(old, sizeof old, "%s.old", dir);
    tl_status s = write_all(t, tmp, extra, err);
    if (s == TL_OK) s = put_in_place(t, tmp, dir, err);
    if (s != TL_OK) {
        (void)file_remove_tree(t->alloc, tmp, NULL);
        return s;
    }
    TRY(point_latest(t, run, name, err));
    return file_remove_tree(t->alloc, old, err);
}

/* ---- pruning ------------------------------------------------------------------------------------------------- */

/* Under another name first: a kill in the middle of a removal must not leave a checkpoint with half its files. */
static tl_status remove_checkpoint(const tl_allocator *a, const char *run, const char *name, tl_error *err) {
    char path[CHECKPOINT_PATH], tmp[CHECKPOINT_PATH + 8];
    TRY(file_join(path, sizeof path, run, name, err));
    if (strstr(name, ".tmp")) return file_remove_tree(a, path, err);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    TRY(file_remove_tree(a, tmp, err));
    TRY(file_rename(path, tmp, err));
    return file_remove_tree(a, tmp, err);
}

tl_status checkpoint_prune(const tl_allocator *a, const char *run, int64_t keep, tl_error *err) {
    char **names;
    size_t n;
    int64_t seen = 0;
    TRY(file_list(a, run, &names, &n, err));
    tl_status s = TL_OK;
    for (size_t i = n; i-- > 0 && s == TL_OK;) { /* sorted by name is sorted by step */
        bool old = false;
        bool temporary = strncmp(names[i], "ckpt-", 5) == 0 && strstr(names[i], ".tmp");
        bool checkpoint = checkpoint_name(names[i], NULL, &old);
        if (checkpoint && !old) seen++;
        if (temporary || (checkpoint && old) || (checkpoint && keep > 0 && seen > keep))
            s = remove_checkpoint(a, run, names[i], err);
    }
    file_list_free(a, names);
    return s;
}
