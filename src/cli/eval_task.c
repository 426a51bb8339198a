/* tilia eval MODEL --task NAME: what a model can do beyond predicting a text. */
#include "cli/eval_cli.h"

#include "eval/passkey.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *about;
} tasks[] = {{"passkey", "find a number hidden in a long text: a table of depth by length"}};

bool eval_task_known(const char *name) {
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (strcmp(name, tasks[i].name) == 0) return true;
    return false;
}

void eval_task_list(void) {
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) printf("%-12s %s\n", tasks[i].name, tasks[i].about);
}

size_t eval_task_numbers(struct argp_state *st, const char *option, const char *arg, double min, double max,
                         double *out, size_t most) {
    size_t n = 0;
    for (const char *s = arg; n < most;) {
        char *end;
        out[n] = strtod(s, &end);
        if (end == s || (*end && *end != ',') || !(out[n] >= min && out[n] <= max)) break;
        n++;
        if (!*end) return n;
        s = end + 1;
    }
    argp_error(st, "%s is \"%s\"; it takes numbers from %g to %g with commas between them, at most %zu", option, arg,
               min, max, most);
    return 0;
}

static bool told(void *user, const passkey_cell *c) {
    const eval_task *t = user;
    if (!t->common->quiet)
        fprintf(stderr, "[%lld tokens, depth %.0f %%: %.0f %% found]\n", (long long)c->tokens, 100 * c->depth,
                100 * c->found);
    return cli_signal() == 0;
}

static void print_json(const eval_task *t, const passkey_cell *cell, size_t n, double found) {
    printf("{\"task\": \"passkey\", \"trials\": %lld, \"seed\": %llu, \"found\": %.6f, \"cells\": [",
           (long long)t->trials, (unsigned long long)t->common->seed, found);
    for (size_t i = 0; i < n; i++)
        printf("%s{\"length\": %lld, \"tokens\": %lld, \"depth\": %.4f, \"found\": %.6f, \"logprob\": %.9g}",
               i ? ", " : "", (long long)cell[i].length, (long long)cell[i].tokens, cell[i].depth, cell[i].found,
               cell[i].logprob);
    printf("]}\n");
}

static void print_table(const eval_task *t, const passkey_options *o, const passkey_cell *cell, double found) {
    printf("%% found of %lld (nats a token of the number)\n%8s", (long long)t->trials, "depth");
    for (size_t i = 0; i < o->lengths; i++) printf(" %8lld      ", (long long)o->length[i]);
    printf("\n");
    for (size_t k = 0; k < o->depths; k++) {
        printf("%6.0f %%", 100 * o->depth[k]);
        for (size_t i = 0; i < o->lengths; i++) {
            const passkey_cell *c = &cell[i * o->depths + k];
            printf(" %8.0f (%.2f)", 100 * c->found, -c->logprob);
        }
        printf("\n");
    }
    printf("all %.1f %%\n", 100 * found);
}

tl_status eval_task_run(const eval_task *t, tl_model *m, tl_error *e) {
    int64_t length[EVAL_NUMBERS], context = m->config.context < 8192 ? m->config.context : 8192;
    double depth[EVAL_NUMBERS] = {0, 0.25, 0.5, 0.75, 1}, found = 0;
    passkey_options o = {.length = length,
                         .lengths = t->lengths,
                         .depth = depth,
                         .depths = 5,
                         .trials = t->trials,
                         .seed = t->common->seed};
    for (size_t i = 0; i < t->lengths; i++) length[i] = (int64_t)t->length[i];
    for (size_t i = 0; !t->lengths && i < 3; i++) length[o.lengths++] = context >> (2 - i);
    for (size_t i = 0; i < t->depths; i++) depth[i] = t->depth[i] / 100;
    if (t->depths) o.depths = t->depths;
    size_t n = o.lengths * o.depths;
    passkey_cell *cell = mem_new(m->alloc, n, sizeof *cell);
    if (!cell) return error_set(e, TL_NOMEM, "no memory for a table");
    tl_status s = passkey_run(m, &o, cell, told, (void *)(uintptr_t)t, e);
    while (s == TL_ARG && !t->lengths && o.lengths > 1) { /* lengths of our choice: the short ones may be too short */
        o.length++, o.lengths--, n -= o.depths;
        s = passkey_run(m, &o, cell, told, (void *)(uintptr_t)t, e);
    }
    for (size_t i = 0; i < n; i++) found += cell[i].found / (double)n;
    if (s == TL_OK && t->common->json)
        print_json(t, cell, n, found);
    else if (s == TL_OK)
        print_table(t, &o, cell, found);
    mem_free(m->alloc, cell);
    return s;
}
