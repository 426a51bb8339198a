#include "cost/machine.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- by data sheet ------------------------------------------------------------------------------------------- */

typedef struct hardware_row {
    const char *name, *title;
    double f32, half, int8, bandwidth, memory, watts;
    const char *source;
} hardware_row;

#define HARDWARE(name, title, f32, half, int8, bandwidth, memory, watts, source)                                       \
    {#name, title, f32, half, int8, bandwidth, memory, watts, source},
static const hardware_row rows[] = {
#include "cost/hardware.def"
};
#undef HARDWARE
enum { ROWS = sizeof rows / sizeof *rows };

const char *machine_name(size_t i) {
    return i < ROWS ? rows[i].name : NULL;
}

tl_status machine_find(const char *name, cost_machine *m, tl_error *err) {
    char list[300] = "";
    size_t used = 0;
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < ROWS; i++) {
        const hardware_row *r = &rows[i];
        used += (size_t)snprintf(list + used, sizeof list - used, "%s, ", r->name);
        if (strcmp(r->name, name) != 0) continue;
        *m = (cost_machine){.f32 = 1e12 * r->f32,
                            .half = 1e12 * r->half,
                            .int8 = 1e12 * r->int8,
                            .bandwidth = 1e9 * r->bandwidth,
                            .memory = 1e9 * r->memory,
                            .watts = r->watts};
        snprintf(m->name, sizeof m->name, "%s", r->name);
        snprintf(m->title, sizeof m->title, "%s", r->title);
        snprintf(m->source, sizeof m->source, "%s", r->source);
        return TL_OK;
    }
    return error_set(err, TL_ARG, "no hardware \"%s\"; there are %sthis", name, list);
}

void machine_fini(cost_machine *m) {
    if (m->alloc) mem_free(m->alloc, m->point);
    m->point = NULL;
    m->n = m->cap = 0;
}

double machine_peak(const cost_machine *m, tl_dtype data) {
    bool half = data == TL_BF16 || data == TL_F16, blocks = tl_dtype_block(data) > 1 || data == TL_I8;
    if (half && m->half > m->f32) return m->half;
    if (blocks && m->int8 > m->f32) return m->int8;
    return m->f32;
}

/* ---- by file -------------------------------------------------------------------------------------------------- */

void machine_processor(char *out, size_t size) {
    snprintf(out, size, "unknown processor");
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "model name", 10) != 0 && strncmp(line, "Model", 5) != 0) continue;
        const char *at = strchr(line, ':');
        if (!at) continue;
        snprintf(out, size, "%.*s", (int)strcspn(at + 2, "\n"), at + 2);
        break;
    }
    if (f) fclose(f);
}

static json_t *machine_json(const cost_machine *m, const char *isa) {
    char processor[128];
    machine_processor(processor, sizeof processor);
    json_t *points = json_array();
    for (size_t i = 0; i < m->n && points; i++) {
        const cost_point *p = &m->point[i];
        json_t *f = json_array();
        for (int k = 0; k < COST_FEATURES; k++) json_array_append_new(f, json_real(p->feature[k]));
        json_array_append_new(points, json_pack("[s,s,s,o,f,f]", p->op, tl_dtype_name((tl_dtype)p->data),
                                                tl_dtype_name((tl_dtype)p->weight), f, p->seconds, p->limit));
    }
    return json_pack("{s:i,s:s,s:s,s:i,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:o}", "version", 1, "processor", processor,
                     "isa", isa, "threads", m->threads, "f32_flops", m->f32, "bf16_flops", m->half, "int8_ops", m->int8,
                     "bytes_per_second", m->bandwidth, "bytes_per_second_one_thread", m->bandwidth_one,
                     "launch_seconds", m->launch, "attention_flops", m->attention, "memory_bytes", m->memory, "points",
                     points);
}

tl_status machine_save(const cost_machine *m, const char *isa, const char *path, tl_error *err) {
    json_t *o = machine_json(m, isa);
    if (!o) return error_set(err, TL_NOMEM, "no memory for what was measured");
    tl_status s = json_write_file(m->alloc, path, o, err);
    json_decref(o);
    return s;
}

static tl_status read_point(const json_t *v, cost_point *p, tl_error *err) {
    const json_t *f = json_array_get(v, 3);
    const char *op = json_string_value(json_array_get(v, 0)), *data = json_string_value(json_array_get(v, 1)),
               *weight = json_string_value(json_array_get(v, 2));
    if (!op || !data || !weight || strlen(op) >= sizeof p->op || json_array_size(f) != COST_FEATURES)
        return error_set(err, TL_FORMAT, "a measured point is not [operator, type, type, sizes, seconds, limit]");
    snprintf(p->op, sizeof p->op, "%s", op);
    p->data = (int32_t)tl_dtype_parse(data);
    p->weight = (int32_t)tl_dtype_parse(weight);
    for (size_t k = 0; k < COST_FEATURES; k++) p->feature[k] = json_number_value(json_array_get(f, k));
    p->seconds = json_number_value(json_array_get(v, 4));
    p->limit = json_number_value(json_array_get(v, 5));
    if (!(p->seconds > 0) || !(p->limit > 0)) return error_set(err, TL_FORMAT, "a measured point took no time");
    return TL_OK;
}

static tl_status read_machine(const json_t *o, const char *isa, int threads, cost_machine *m, tl_error *err) {
    char here[128];
    const char *processor = "", *had = "";
    int64_t version = 0, with = 0;
    machine_processor(here, sizeof here);
    TRY(json_get_int(o, "version", 0, 1000, &version, err));
    TRY(json_get_str(o, "processor", &processor, err));
    TRY(json_get_str(o, "isa", &had, err));
    TRY(json_get_int(o, "threads", 0, 1 << 20, &with, err));
    if (version != 1 || strcmp(processor, here) != 0 || strcmp(had, isa) != 0 || with != threads)
        return error_set(err, TL_STATE, "was measured on %s, %s, %lld threads", processor, had, (long long)with);
    TRY(json_get_real(o, "f32_flops", &m->f32, err));
    TRY(json_get_real(o, "bf16_flops", &m->half, err));
    TRY(json_get_real(o, "int8_ops", &m->int8, err));
    TRY(json_get_real(o, "bytes_per_second", &m->bandwidth, err));
    TRY(json_get_real(o, "bytes_per_second_one_thread", &m->bandwidth_one, err));
    TRY(json_get_real(o, "launch_seconds", &m->launch, err));
    TRY(json_get_real(o, "attention_flops", &m->attention, err));
    TRY(json_get_real(o, "memory_bytes", &m->memory, err));
    if (!(m->f32 > 0) || !(m->bandwidth > 0)) return error_set(err, TL_FORMAT, "no limits in it");
    m->threads = threads;
    snprintf(m->name, sizeof m->name, "this");
    snprintf(m->title, sizeof m->title, "%.100s, %d threads", here, threads);
    const json_t *points = json_object_get(o, "points");
    size_t n = json_array_size(points);
    m->point = mem_new(m->alloc, n ? n : 1, sizeof *m->point);
    if (!m->point) return error_set(err, TL_NOMEM, "no memory for what was measured");
    m->cap = n ? n : 1;
    for (; m->n < n; m->n++) TRY(read_point(json_array_get(points, m->n), &m->point[m->n], err));
    return TL_OK;
}

tl_status machine_load(cost_machine *m, const tl_allocator *a, const char *path, const char *isa, int threads,
                       tl_error *err) {
    json_t *o;
    *m = (cost_machine){.alloc = a};
    TRY(json_read_file(a, path, 64u << 20, &o, err));
    tl_status s = read_machine(o, isa, threads, m, err);
    snprintf(m->source, sizeof m->source, "measured by tilia devices --measure: %.300s", path);
    json_decref(o);
    if (s != TL_OK) {
        error_at_file(err, path);
        machine_fini(m);
    }
    return s;
}
