/* tilia devices: the machine as the engine sees it, and for every operator which kernel a typical call gets, what
 * stands before it and why that was refused. --measure: what the machine can do, kept for plan, profile and train. */
#include "cli/machine_cli.h"

#include "base/file.h"
#include "cost/measure.h"

#include <string.h>
#include <unistd.h>

typedef struct options {
    cli_common common;
    bool all, measure;
    /* while listing */
    bool first;
    const char *op, *dtype;
} options;

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case 'a': o->all = true; return 0;
    case 'm': o->measure = true; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option own[] = {{"all", 'a', NULL, 0, "kernels that stand by behind the chosen one, too", 0},
                                         {"measure", 'm', NULL, 0,
                                          "measure the machine (about a minute, best when nothing else runs) and keep "
                                          "the result for plan, profile and train",
                                          0},
                                         {0}};
static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    own,
    parse,
    NULL,
    "The machine, and for every operator the kernel that a typical call gets. TILIA_ISA caps the instruction sets.",
    children,
    NULL,
    NULL};

static void print_json(void *user, const engine_kernel *k) {
    options *o = user;
    printf("%s\n  {\"op\": \"%s\", \"dtype\": \"%s\", \"kernel\": \"%s\", \"isa\": \"%s\", \"chosen\": %s, \"why\": ",
           o->first ? "" : ",", k->op, k->dtype, k->kernel, k->isa, k->chosen ? "true" : "false");
    cli_json_text(stdout, k->why, strlen(k->why));
    printf("}");
    o->first = false;
}

static void print_line(void *user, const engine_kernel *k) {
    options *o = user;
    bool same = o->op && o->op == k->op && o->dtype == k->dtype;
    bool after = same && o->first; /* behind the chosen one */
    if (!same) o->first = false;
    o->op = k->op;
    o->dtype = k->dtype;
    if (after && !o->all) return;
    printf("%-18s %-5s %-36s %-11s %s\n", same ? "" : k->op, same ? "" : k->dtype, k->kernel, k->isa,
           k->chosen ? "*" : k->why);
    o->first |= k->chosen;
}

/* ---- measuring ------------------------------------------------------------------------------------------ */

static bool show_progress(void *user, const char *what, size_t done, size_t total) {
    const options *o = user;
    if (cli_signal()) return false;
    if (o->common.quiet) return true;
    bool terminal = isatty(STDERR_FILENO);
    fprintf(stderr, "%smeasuring %zu/%zu: %s%s", terminal ? "\r\033[K" : "", done + 1, total, what,
            terminal && done + 1 < total ? "" : "\n");
    return true;
}

static void print_measured(const options *o, const cost_machine *m, const char *path) {
    char a[32], b[32];
    if (o->common.json) {
        printf("{\"machine\": ");
        cli_json_text(stdout, m->title, strlen(m->title));
        printf(", \"threads\": %d, \"f32_flops\": %.6g, \"bf16_flops\": %.6g, \"int8_ops\": %.6g, "
               "\"bytes_per_second\": %.6g, \"bytes_per_second_one_thread\": %.6g, \"attention_flops\": %.6g, "
               "\"launch_seconds\": %.6g, \"memory_bytes\": %.0f, \"points\": %zu, \"file\": ",
               m->threads, m->f32, m->half, m->int8, m->bandwidth, m->bandwidth_one, m->attention, m->launch, m->memory,
               m->n);
        cli_json_text(stdout, path, strlen(path));
        printf("}\n");
        return;
    }
    printf("%s\n", m->title);
    printf("  %-28s %16s\n", "f32 multiply-adds", cli_rate(m->f32, "FLOP/s", a, sizeof a));
    printf("  %-28s %16s\n", "bf16 multiply-adds", cli_rate(m->half, "FLOP/s", a, sizeof a));
    printf("  %-28s %16s\n", "int8 multiply-adds", cli_rate(m->int8, "op/s", a, sizeof a));
    printf("  %-28s %14s/s, one thread %s/s\n", "read from memory", cli_bytes(m->bandwidth, a, sizeof a),
           cli_bytes(m->bandwidth_one, b, sizeof b));
    printf("  %-28s %16s, the best of the shapes tried\n", "attention, f32",
           cli_rate(m->attention, "FLOP/s", a, sizeof a));
    printf("  %-28s %13.2f us\n", "to start a kernel", 1e6 * m->launch);
    printf("  %-28s %16zu\n", "calls of operators timed", m->n);
    printf("kept in %s\n", path);
}

static int measure(const options *o, tl_engine *e) {
    char path[MACHINE_PATH], dir[MACHINE_PATH];
    tl_error err = {0};
    cost_machine m;
    cli_catch_signals();
    if (machine_path(e, path, sizeof path, &err) != TL_OK) return cli_fail(&err);
    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(path, '/') - path), path);
    if (file_mkdirs(dir, &err) != TL_OK) return cli_fail(&err); /* before the work, not after it */
    options copy = *o;
    if (measure_machine(e, &m, show_progress, &copy, &err) != TL_OK)
        return cli_signal() ? cli_signal_code() : cli_fail(&err);
    int code = EXIT_DONE;
    if (machine_save(&m, tl_engine_isa(e), path, &err) != TL_OK)
        code = cli_fail(&err);
    else
        print_measured(o, &m, path);
    machine_fini(&m);
    return code;
}

static void print_device(void *user, const char *name, const char *what, const char *why_not) {
    const options *o = user;
    if (!o->common.json) {
        const char *why = strncmp(why_not, "device cuda: ", 13) == 0 ? why_not + 13 : why_not;
        printf("  %-5s %s%s\n", name, why[0] ? "not here: " : "", why[0] ? why : what);
        return;
    }
    printf("%s{\"name\": \"%s\", \"what\": ", strcmp(name, "cpu") == 0 ? "" : ", ", name);
    cli_json_text(stdout, what, strlen(what));
    printf(", \"why_not\": ");
    cli_json_text(stdout, why_not, strlen(why_not));
    printf("}");
}

int cmd_devices(int argc, char **argv) {
    options o = {0};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    tl_engine *e;
    tl_error err = {0};
    if (cli_engine(&o.common, &e, &err) != TL_OK) return cli_fail(&err);
    if (o.measure) {
        int code = measure(&o, e);
        tl_engine_destroy(e);
        return cli_finish(code);
    }
    const char *name = e->host.dev->name, *isa = tl_engine_isa(e);
    if (o.common.json) {
        printf("{\"device\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"devices\": [", name, isa,
               tl_engine_threads(e));
        engine_list_devices(e, print_device, &o);
        printf("], \"kernels\": [");
        o.first = true;
    } else {
        printf("%s, %s, %d threads\n\ndevices of this build:\n", name, isa, tl_engine_threads(e));
        engine_list_devices(e, print_device, &o);
        printf("\n");
        printf("%-18s %-5s %-36s %-11s %s\n", "operator", "data", "kernel", "needs", "* chosen, or why not");
    }
    tl_status s = engine_list_kernels(e, o.common.json ? print_json : print_line, &o, &err);
    if (o.common.json) printf("\n]}\n");
    tl_engine_destroy(e);
    return s == TL_OK ? cli_finish(EXIT_DONE) : cli_fail(&err);
}
