/* Finding, verifying and reading checkpoints. */
#include "train/checkpoint_files.h"

#include "model/lora.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { MANIFEST_MAX = 4 << 20, HASH_BUFFER = 1 << 20 };

/* ---- names and checksums ---------------------------------------------------------------------------------------- */

bool checkpoint_name(const char *name, int64_t *step, bool *old) {
    if (strncmp(name, "ckpt-", 5) != 0 || name[5] < '0' || name[5] > '9') return false;
    char *end;
    errno = 0;
    long long n = strtoll(name + 5, &end, 10);
    if (errno || (*end && strcmp(end, ".old") != 0)) return false;
    if (step) *step = n;
    if (old) *old = *end != 0;
    return true;
}

static tl_status hash_stream(int fd, uint8_t *buf, hash_state *h, int64_t *size, tl_error *err) {
    for (*size = 0;;) {
        ssize_t n = file_sys.read(fd, buf, HASH_BUFFER);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return error_errno(err, "cannot read");
        if (n == 0) return TL_OK;
        hash_add(h, buf, (size_t)n);
        *size += n;
    }
}

tl_status checkpoint_hash_file(const tl_allocator *a, const char *path, uint64_t *hash, int64_t *size, tl_error *err) {
    int fd = file_sys.open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        tl_status s = error_errno(err, "cannot open");
        error_at_file(err, path);
        return s;
    }
    uint8_t *buf = mem_take(a, HASH_BUFFER);
    hash_state *h = hash_begin(a);
    tl_status s = buf && h ? hash_stream(fd, buf, h, size, err) : error_set(err, TL_NOMEM, "no memory to read it");
    if (s != TL_OK) error_at_file(err, path);
    uint64_t value = h ? hash_end(a, h) : 0;
    if (buf) mem_give(a, buf, HASH_BUFFER);
    file_sys.close(fd);
    *hash = value;
    return s;
}

/* ---- verify ---------------------------------------------------------------------------------------------------------
 */

static tl_status at_file(tl_error *err, tl_status s, const char *path) {
    error_at_file(err, path);
    return s;
}

static tl_status verify_file(const tl_allocator *a, const char *dir, const char *name, const json_t *row,
                             tl_error *err) {
    char path[CHECKPOINT_PATH], hex[17];
    const char *want = NULL;
    int64_t bytes = -1, size;
    uint64_t hash;
    if (strchr(name, '/')) return error_set(err, TL_FORMAT, "the manifest lists \"%s\", outside of its folder", name);
    TRY(json_get_int(row, "bytes", 0, INT64_MAX, &bytes, err));
    TRY(json_get_str(row, "xxh3", &want, err));
    TRY(file_join(path, sizeof path, dir, name, err));
    TRY(checkpoint_hash_file(a, path, &hash, &size, err));
    checkpoint_hex(hash, hex);
    if (size != bytes)
        return at_file(
            err,
            error_set(err, TL_CHECKSUM, "has %lld bytes, the manifest says %lld", (long long)size, (long long)bytes),
            path);
    if (!want || strcmp(want, hex) != 0)
        return at_file(
            err, error_set(err, TL_CHECKSUM, "its checksum is %s, the manifest says %s", hex, want ? want : "nothing"),
            path);
    return TL_OK;
}

static tl_status verify_manifest(json_t *o, tl_error *err) {
    const char *format = NULL, *seal = NULL;
    char hex[17];
    int64_t version = 0;
    TRY(json_get_str(o, "format", &format, err));
    TRY(json_get_int(o, "version", 0, INT_MAX, &version, err));
    TRY(json_get_str(o, "seal", &seal, err));
    if (!format || strcmp(format, "tilia checkpoint") != 0)
        return error_set(err, TL_FORMAT, "is not the manifest of a checkpoint");
    if (version != CHECKPOINT_VERSION)
        return error_set(err, TL_UNSUPPORTED, "is of version %lld; this program reads version %d", (long long)version,
                         CHECKPOINT_VERSION);
    checkpoint_hex(checkpoint_seal(o), hex);
    if (!seal || strcmp(seal, hex) != 0)
        return error_set(err, TL_CHECKSUM, "its own checksum is %s, it says %s", hex, seal ? seal : "nothing");
    return TL_OK;
}

tl_status checkpoint_verify(const tl_allocator *a, const char *dir, json_t **manifest, tl_error *err) {
    char path[CHECKPOINT_PATH];
    json_t *o, *row;
    const char *name;
    if (manifest) *manifest = NULL;
    TRY(file_join(path, sizeof path, dir, "manifest.json", err));
    TRY(json_read_file(a, path, MANIFEST_MAX, &o, err));
    tl_status s = verify_manifest(o, err);
    json_t *files = json_object_get(o, "files");
    if (s == TL_OK && !json_object_get(files, "model.safetensors") &&
        !json_object_get(files, "adapter_model.safetensors"))
        s = error_set(err, TL_FORMAT, "lists neither model.safetensors nor adapter_model.safetensors");
    if (s != TL_OK) error_at_file(err, path);
    if (s == TL_OK) {
        json_object_foreach(files, name, row) {
            if (s == TL_OK) s = verify_file(a, dir, name, row, err);
        }
    }
    if (s == TL_OK && manifest)
        *manifest = o;
    else
        json_decref(o);
    return s;
}

/* ---- find
 * -------------------------------------------------------------------------------------------------------------- */

typedef struct search {
    const tl_allocator *alloc;
    const char *run;
    const log_sink *log;
    char *dir;
    size_t size;
    json_t **manifest;
} search;

/* One that is not whole is passed over with *found left false; one that could not be looked at for want of memory is an
 * error, lest it be taken for broken. */
static tl_status try_one(const search *s, const char *name, bool *found, tl_error *err) {
    char text[900];
    tl_error why = {0};
    tl_status st = file_join(s->dir, s->size, s->run, name, &why);
    if (st == TL_OK) st = checkpoint_verify(s->alloc, s->dir, s->manifest, &why);
    *found = st == TL_OK;
    if (st == TL_NOMEM && err) *err = why;
    if (st == TL_OK || st == TL_NOMEM) return st;
    log_line(s->log, TL_LOG_WARN, "checkpoint %s is passed over: %s", name, tl_error_text(&why, text, sizeof text));
    return TL_OK;
}

/* What RUN/latest says, "" if it says nothing usable. */
static tl_status read_latest(const search *s, char name[64], tl_error *err) {
    char path[CHECKPOINT_PATH], *text;
    size_t n;
    name[0] = 0;
    if (file_join(path, sizeof path, s->run, "latest", NULL) != TL_OK) return TL_OK;
    tl_status st = file_read(s->alloc, path, 63, &text, &n, NULL);
    if (st == TL_NOMEM) return error_set(err, TL_NOMEM, "no memory to read %s", path);
    if (st != TL_OK) return TL_OK;
    while (n && (text[n - 1] == '\n' || text[n - 1] == ' ')) text[--n] = 0;
    if (checkpoint_name(text, NULL, NULL)) memcpy(name, text, n + 1);
    mem_free(s->alloc, text);
    return TL_OK;
}

tl_status checkpoint_find(const tl_allocator *a, const char *run, const log_sink *log, char *dir, size_t size,
                          json_t **manifest, tl_error *err) {
    search s = {a, run, log, dir, size, manifest};
    char latest[64], **names;
    size_t n;
    bool found = false;
    if (!file_is_dir(run)) return at_file(err, error_set(err, TL_NOTFOUND, "no such run directory"), run);
    TRY(read_latest(&s, latest, err));
    if (latest[0]) TRY(try_one(&s, latest, &found, err));
    if (found) return TL_OK;
    TRY(file_list(a, run, &names, &n, err));
    tl_status st = TL_OK;
    /* Names sort by step; of two with one step the one that stepped aside comes later and is tried first, if it is
     * whole it is as good. */
    for (size_t i = n; i-- > 0 && !found && st == TL_OK;)
        if (checkpoint_name(names[i], NULL, NULL) && strcmp(names[i], latest) != 0)
            st = try_one(&s, names[i], &found, err);
    file_list_free(a, names);
    if (found || st != TL_OK) return st;
    return at_file(err, error_set(err, TL_NOTFOUND, "has no checkpoint that is whole"), run);
}

/* ---- settings
 * ------------------------------------------------------------------------------------------------------------ */

json_t *checkpoint_settings_json(const trainer_settings *s) {
    json_t *o = json_pack("{s:s,s:f,s:f,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:f,s:f,s:f,s:f,s:s,s:b,s:I}", "schedule",
                          schedule_name(s->schedule.kind), "lr", s->schedule.lr, "min_lr", s->schedule.min_lr, "warmup",
                          (json_int_t)s->schedule.warmup, "steps", (json_int_t)s->schedule.steps, "rows",
                          (json_int_t)s->rows, "micro_rows", (json_int_t)s->micro, "context", (json_int_t)s->context,
                          "dtype", tl_dtype_name(s->dtype), "beta1", s->beta1, "beta2", s->beta2, "eps", s->eps,
                          "weight_decay", s->decay, "clip", s->clip, "recompute", tl_recompute_name(s->recompute),
                          "packed", s->packed, "seed", (json_int_t)s->seed);
    if (o && s->segment) json_object_set_new(o, "segment", json_integer(s->segment));
    return o;
}

static tl_status read_schedule(const json_t *o, schedule *s, tl_error *err) {
    const char *kind = "cosine";
    TRY(json_get_str(o, "schedule", &kind, err));
    if (!schedule_parse(kind, &s->kind)) return error_set(err, TL_CONFIG, "no schedule \"%s\"", kind);
    TRY(json_get_real(o, "lr", &s->lr, err));
    TRY(json_get_real(o, "min_lr", &s->min_lr, err));
    TRY(json_get_int(o, "warmup", 0, INT64_MAX, &s->warmup, err));
    return json_get_int(o, "steps", 0, INT64_MAX, &s->steps, err);
}

/* A level's name; runs of before levels have a truth value, which means all or nothing. */
static tl_status read_recompute(const json_t *o, tl_recompute *level, tl_error *err) {
    const char *name = "none";
    bool full = false;
    if (json_is_boolean(json_object_get(o, "recompute"))) {
        TRY(json_get_bool(o, "recompute", &full, err));
        *level = full ? TL_RECOMPUTE_FULL : TL_RECOMPUTE_NONE;
        return TL_OK;
    }
    TRY(json_get_str(o, "recompute", &name, err));
    *level = tl_recompute_parse(name);
    return *level == TL_RECOMPUTE_LEVELS ? error_set(err, TL_CONFIG, "no level of recomputation \"%s\"", name) : TL_OK;
}

tl_status checkpoint_settings(const json_t *manifest, trainer_settings *s, tl_error *err) {
    const json_t *o = json_object_get(manifest, "settings");
    const char *dtype = "f32";
    int64_t seed = 0;
    memset(s, 0, sizeof *s);
    if (!json_is_object(o)) return error_set(err, TL_CONFIG, "the manifest has no settings");
    TRY(read_schedule(o, &s->schedule, err));
    TRY(json_get_int(o, "rows", 1, INT32_MAX, &s->rows, err));
    TRY(json_get_int(o, "micro_rows", 1, INT32_MAX, &s->micro, err));
    TRY(json_get_int(o, "context", 1, INT32_MAX, &s->context, err));
    TRY(json_get_int(o, "segment", 0, INT32_MAX, &s->segment, err));
    TRY(json_get_str(o, "dtype", &dtype, err));
    TRY(json_get_real(o, "beta1", &s->beta1, err));
    TRY(json_get_real(o, "beta2", &s->beta2, err));
    TRY(json_get_real(o, "eps", &s->eps, err));
    TRY(json_get_real(o, "weight_decay", &s->decay, err));
    TRY(json_get_real(o, "clip", &s->clip, err));
    TRY(read_recompute(o, &s->recompute, err));
    TRY(json_get_bool(o, "packed", &s->packed, err));
    TRY(json_get_int(o, "seed", INT64_MIN, INT64_MAX, &seed, err));
    s->seed = (uint64_t)seed;
    s->dtype = tl_dtype_parse(dtype);
    return TL_OK;
}

/* ---- restore
 * --------------------------------------------------------------------------------------------------------------- */

/* to: the device's. */
static tl_status read_moment(const tl_allocator *a, device *d, const safetensors *s, const char *name, int64_t n,
                             float *to, tl_error *err) {
    const safetensors_entry *t = safetensors_find(s, name);
    if (!t) return error_set(err, TL_FORMAT, "has no tensor \"%s\"", name);
    if (t->ndim != 1 || t->dim[0] != n) {
        tl_status st = error_set(err, TL_SHAPE, "the model has %lld numbers", (long long)n);
        error_at_tensor(err, name);
        return st;
    }
    if (!d->memory) return safetensors_to_f32(t, to, err);
    const size_t bytes = (size_t)n * sizeof *to;
    float *host = mem_take(a, bytes);
    if (!host) return error_set(err, TL_NOMEM, "no memory to read moments");
    tl_status st = safetensors_to_f32(t, host, err);
    if (st == TL_OK) device_upload(d, to, host, bytes);
    mem_give(a, host, bytes);
    return st;
}

static tl_status read_optimizer(trainer *t, const char *dir, tl_error *err) {
    char path[CHECKPOINT_PATH];
    safetensors s;
    TRY(file_join(path, sizeof path, dir, "optimizer.safetensors", err));
    TRY(safetensors_open(t->alloc, path, &s, err));
    tl_status st = read_moment(t->alloc, t->dev, &s, "m", t->params->total, t->m, err);
    if (st == TL_OK) st = read_moment(t->alloc, t->dev, &s, "v", t->params->total, t->v, err);
    if (st != TL_OK) error_at_file(err, path);
    safetensors_close(&s);
    return st;
}

tl_status checkpoint_restore(trainer *t, const char *dir, const json_t *manifest, tl_error *err) {
    const char *layout = NULL;
    char hex[17];
    int64_t step = -1, shift = 0, skipped = 0, seen = 0;
    TRY(json_get_str(manifest, "layout", &layout, err));
    checkpoint_hex(checkpoint_layout(t->params), hex);
    if (!layout || strcmp(layout, hex) != 0)
        return at_file(err, error_set(err, TL_SHAPE, "its moments belong to parameters laid out otherwise"), dir);
    TRY(json_get_int(manifest, "step", 0, INT64_MAX, &step, err));
    TRY(json_get_int(manifest, "data_shift", 0, INT64_MAX, &shift, err));
    TRY(json_get_int(manifest, "skipped", 0, INT64_MAX, &skipped, err));
    TRY(json_get_int(manifest, "tokens", 0, INT64_MAX, &seen, err));
    if (step < 0) return at_file(err, error_set(err, TL_CONFIG, "the manifest says no step"), dir);
    TRY(read_optimizer(t, dir, err));
    t->step = step;
    t->data_shift = shift;
    t->skipped = skipped;
    t->tokens = seen;
    t->model->step = step;
    return TL_OK;
}

tl_status checkpoint_resume(tl_engine *e, const char *dir, const json_t *manifest, int64_t steps, tl_model **model,
                            trainer **out, tl_error *err) {
    trainer_settings s;
    *model = NULL;
    *out = NULL;
    TRY(checkpoint_settings(manifest, &s, err));
    if (steps > 0) {
        s.schedule.steps = steps;
        if (s.schedule.warmup >= steps) s.schedule.warmup = steps - 1;
    }
    tl_status st = (lora_only(dir) ? model_open_mapped : model_open)(e, dir, model, err);
    if (st == TL_OK) st = trainer_create(*model, &s, out, err);
    if (st == TL_OK) st = checkpoint_restore(*out, dir, manifest, err);
    if (st == TL_OK) return TL_OK;
    trainer_destroy(*out);
    model_close(*model);
    *out = NULL;
    *model = NULL;
    return st;
}

const json_t *checkpoint_extra(const json_t *manifest) {
    return json_object_get(manifest, "extra");
}
