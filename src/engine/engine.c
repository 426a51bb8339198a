#include "engine/engine.h"

#include "base/mem.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ENGINE_THREADS_MAX = 1024 };

static tl_status engine_threads_of(int asked, int *threads, tl_error *err) {
    const char *env = getenv("TILIA_THREADS");
    long n = asked;
    if (asked == 0 && env && *env) {
        char *end;
        errno = 0;
        n = strtol(env, &end, 10);
        if (errno || *end || n < 1 || n > ENGINE_THREADS_MAX)
            return error_set(err, TL_ARG, "TILIA_THREADS is \"%s\", must be a number from 1 to %d", env,
                             ENGINE_THREADS_MAX);
    }
    if (n < 0 || n > ENGINE_THREADS_MAX)
        return error_set(err, TL_ARG, "threads: from 1 to %d, or 0", ENGINE_THREADS_MAX);
    *threads = n ? (int)n : pool_cores();
    return TL_OK;
}

static tl_status engine_isa_of(const char *asked, uint32_t *isa, tl_error *err) {
    const char *env = getenv("TILIA_ISA"), *cap = asked ? asked : env && *env ? env : NULL;
    *isa = isa_probe();
    uint32_t mask;
    if (!cap) return TL_OK;
    if (!isa_cap(cap, &mask))
        return error_set(err, TL_ARG,
                         "%s\"%s\" is no instruction set; known: ref, avx2, avx512, avx512vnni, avx512bf16, avx512fp16",
                         asked ? "" : "TILIA_ISA: ", cap);
    *isa &= mask;
    return TL_OK;
}

static tl_status engine_open(tl_engine *e, const tl_engine_options *o, tl_error *err) {
    int threads = 1;
    TRY(engine_threads_of(o->threads, &threads, err));
    TRY(engine_isa_of(o->isa, &e->isa, err));
    if (o->device && strcmp(o->device, "cuda") == 0) {
        e->device_destroy = cuda_device_destroy;
        return cuda_device_create(&e->alloc, &e->host.dev, err);
    }
    if (o->device && strcmp(o->device, "cpu") != 0)
        return error_set(err, TL_DEVICE, "there is no device \"%s\"; there are \"cpu\" and \"cuda\"", o->device);
    e->host.dev = cpu_device_create(&e->alloc, threads, e->isa, err);
    if (!e->host.dev) return err && err->code != TL_OK ? err->code : TL_NOMEM;
    e->device_destroy = cpu_device_destroy;
    return TL_OK;
}

tl_status tl_engine_create(const tl_engine_options *options, tl_engine **out, tl_error *err) {
    const tl_engine_options none = {0};
    const tl_engine_options *o = options ? options : &none;
    if (!out) return error_set(err, TL_ARG, "nowhere to put the engine");
    *out = NULL;
    error_clear(err);
    const tl_allocator *a = o->allocator ? o->allocator : &mem_default;
    tl_engine *e = mem_new(a, 1, sizeof *e);
    if (!e) return error_set(err, TL_NOMEM, "no memory for an engine");
    e->alloc = *a;
    e->host.alloc = &e->alloc;
    e->host.log = (log_sink){.fn = o->log, .user = o->log_user, .level = o->log_level};
    tl_status status = engine_open(e, o, err);
    if (status != TL_OK) {
        tl_engine_destroy(e);
        return status;
    }
    log_line(&e->host.log, TL_LOG_DEBUG, "engine: %s, %d threads, %s", e->host.dev->name, e->host.dev->threads,
             isa_name(e->isa));
    *out = e;
    return TL_OK;
}

void tl_engine_destroy(tl_engine *e) {
    if (!e) return;
    if (e->host.eval_cache_free) e->host.eval_cache_free(&e->host);
    if (e->host.dev) e->device_destroy(e->host.dev);
    tl_allocator a = e->alloc; /* the engine's own copy goes with it */
    mem_free(&a, e);
}

int tl_engine_threads(const tl_engine *e) {
    return e ? e->host.dev->threads : 0;
}

const tl_allocator *tl_engine_allocator(const tl_engine *e) {
    return e ? e->host.alloc : &mem_default;
}

void engine_list_devices(const tl_engine *e, engine_device_fn fn, void *user) {
    tl_error err = {.code = TL_OK};
    device *gpu = NULL;
    const bool on_gpu = e->host.dev->memory != NULL;
    fn(user, "cpu", isa_name(e->isa), "");
    if (on_gpu) {
        fn(user, e->host.dev->name, cuda_device_text(e->host.dev), "");
        return;
    }
    tl_status s = cuda_device_create(&e->alloc, &gpu, &err);
    fn(user, "cuda", gpu ? cuda_device_text(gpu) : "", s == TL_OK ? "" : err.text);
    if (gpu) cuda_device_destroy(gpu);
}

const char *tl_engine_isa(const tl_engine *e) {
    return e ? isa_name(e->isa) : "";
}
