/* tilia devices: the machine as the engine sees it, and for every operator which kernel a typical call gets, what
 * stands before it and why that was refused. */
#include "cli/cli.h"

#include "engine/engine.h"

#include <string.h>

typedef struct options {
    cli_common common;
    bool all;
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
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option own[] = {{"all", 'a', NULL, 0, "kernels that stand by behind the chosen one, too", 0},
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

int cmd_devices(int argc, char **argv) {
    options o = {0};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    tl_engine *e;
    tl_error err = {0};
    if (cli_engine(&o.common, &e, &err) != TL_OK) return cli_fail(&err);
    const char *name = e->host.dev->name, *isa = tl_engine_isa(e);
    if (o.common.json) {
        printf("{\"device\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"kernels\": [", name, isa,
               tl_engine_threads(e));
        o.first = true;
    } else {
        printf("%s, %s, %d threads\n\n", name, isa, tl_engine_threads(e));
        printf("%-18s %-5s %-36s %-11s %s\n", "operator", "data", "kernel", "needs", "* chosen, or why not");
    }
    tl_status s = engine_list_kernels(e, o.common.json ? print_json : print_line, &o, &err);
    if (o.common.json) printf("\n]}\n");
    tl_engine_destroy(e);
    return s == TL_OK ? cli_finish(EXIT_DONE) : cli_fail(&err);
}
