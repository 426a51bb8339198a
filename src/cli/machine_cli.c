#include "cli/machine_cli.h"

#include "base/file.h"
#include "cost/measure.h"

#include <stdlib.h>
#include <string.h>

tl_status machine_path(tl_engine *e, char *out, size_t size, tl_error *err) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char dir[MACHINE_PATH], name[96];
    if (cache && cache[0] == '/')
        TRY(file_join(dir, sizeof dir, cache, "tilia", err));
    else
        TRY(file_join(dir, sizeof dir, home && *home ? home : "/tmp", ".cache/tilia", err));
    const char *kind = e->host.dev->name;
    bool cpu = strcmp(kind, "cpu") == 0;
    snprintf(name, sizeof name, "machine-%s-%d.json", cpu ? tl_engine_isa(e) : kind, tl_engine_threads(e));
    return file_join(out, size, dir, name, err);
}

tl_status machine_get(tl_engine *e, const char *name, cost_machine *m, tl_error *err) {
    char path[MACHINE_PATH];
    if (strcmp(name, "this") != 0) return machine_find(name, m, err);
    TRY(machine_path(e, path, sizeof path, err));
    tl_status s = machine_load(m, tl_engine_allocator(e), path, tl_engine_isa(e), tl_engine_threads(e), err);
    if (s != TL_NOTFOUND) return s;
    s = error_set(err, TL_NOTFOUND, "this machine was not measured yet: run tilia devices --measure");
    error_at_file(err, path);
    return s;
}

tl_status machine_now(tl_engine *e, cost_machine *m, tl_error *err) {
    if (machine_get(e, "this", m, NULL) == TL_OK) return TL_OK;
    return measure_limits(e, CLOCK_MONOTONIC, m, err);
}
