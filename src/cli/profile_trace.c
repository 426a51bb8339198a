/* A profile as a Chrome trace: chrome://tracing, Perfetto and speedscope read it. */
#include "cli/profile_cli.h"

#include "base/file.h"

#include <string.h>

static void add_event(str *s, const profile_row *r, double begin) {
    char name[200];
    bool named = r->name && *r->name && strcmp(r->name, r->op) != 0;
    snprintf(name, sizeof name, "%s%s%.120s", r->op, named ? " " : "", named ? r->name : "");
    str_addf(s,
             ",\n{\"ph\": \"X\", \"pid\": 1, \"tid\": %d, \"ts\": %.3f, \"dur\": %.3f, \"cat\": \"%s%s\", \"name\": ",
             r->part + 1, 1e6 * begin, 1e6 * r->seconds, cost_part_name[r->part], r->backward ? ",backward" : "");
    str_add_json(s, name, strlen(name));
    str_addf(s,
             ", \"args\": {\"kernel\": \"%s\", \"flops\": %.0f, \"bytes\": %.0f, \"gflops_per_second\": %.3f, "
             "\"gbytes_per_second\": %.3f, \"predicted_us\": %.3f, \"limit_us\": %.3f}}",
             r->kernel, r->flops, r->bytes, 1e-9 * r->flops / r->seconds, 1e-9 * r->bytes / r->seconds,
             1e6 * r->predicted, 1e6 * r->limit);
}

tl_status profile_trace(const profile_options *o, const profile_run *r, tl_error *err) {
    str s;
    str_init(&s, tl_engine_allocator(r->model->engine));
    str_adds(&s, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n"
                 "{\"ph\": \"M\", \"pid\": 1, \"name\": \"process_name\", \"args\": {\"name\": \"tilia\"}}");
    for (int i = 0; i < COST_PARTS; i++)
        str_addf(&s,
                 ",\n{\"ph\": \"M\", \"pid\": 1, \"tid\": %d, \"name\": \"thread_name\", \"args\": {\"name\": \"%s\"}}",
                 i + 1, cost_part_name[i]);
    double at = 0;
    for (size_t i = 0; i < r->n; i++) {
        add_event(&s, &r->row[i], at);
        at += r->row[i].seconds;
    }
    str_adds(&s, "\n]}\n");
    tl_status st = s.failed ? error_set(err, TL_NOMEM, "no memory for a trace")
                            : file_write(s.alloc, o->trace, s.data, s.len, err);
    str_fini(&s);
    return st;
}
