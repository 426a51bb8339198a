/* tilia quantize SRC DST --type T: fewer bits a number, and what that costs. */
#include "cli/cli.h"

#include "base/file.h"
#include "eval/eval.h"
#include "study/convert.h"

#include <math.h>
#include <string.h>

enum { KEY_TYPE = 1, KEY_FORCE, KEY_TEXT };

typedef struct options {
    cli_common common;
    const char *src, *dst, *text;
    convert_options c;
} options;

/* What was written, by number type. */
typedef struct tally {
    const options *o;
    double count[TL_DTYPE_COUNT], bytes[TL_DTYPE_COUNT], worst[TL_DTYPE_COUNT], all, all_bytes;
    size_t tensors[TL_DTYPE_COUNT];
    char worst_name[TL_DTYPE_COUNT][64];
} tally;

static const struct argp_option table[] = {
    {"type", KEY_TYPE, "TYPE", 0, "q8_0, q6_k, q4_k_m, q4_0, f16, bf16 or f32", 0},
    {"text", KEY_TEXT, "FILE", 0, "measure the perplexity of this text before and after", 0},
    {"force", KEY_FORCE, 0, 0, "replace a file that is there", 0},
    {0}};

static const char usage[] = "tilia quantize SRC DST.gguf --type q8_0";

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_TYPE: o->c.type = arg; return 0;
    case KEY_TEXT: o->text = arg; return 0;
    case KEY_FORCE: o->c.overwrite = true; return 0;
    case ARGP_KEY_ARG: cli_pair_arg(st, &o->src, &o->dst, key, arg, usage); return 0;
    case ARGP_KEY_END:
        cli_pair_arg(st, &o->src, &o->dst, key, arg, usage);
        if (!o->c.type) argp_error(st, "which --type? For example q8_0, q4_k_m");
        if (!convert_is_gguf(o->dst)) argp_error(st, "quantized models are GGUF files: DST must end with .gguf");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "SRC DST.gguf --type TYPE",
    "Writes a model with fewer bits a number, in the block formats of GGUF, and reports sizes and errors.",
    children,
    NULL,
    NULL};

static void count(void *user, const gguf_saved *t) {
    tally *y = user;
    y->count[t->dtype] += (double)t->count;
    y->bytes[t->dtype] += (double)t->bytes;
    y->tensors[t->dtype]++;
    y->all += (double)t->count;
    y->all_bytes += (double)t->bytes;
    if (t->error > y->worst[t->dtype]) {
        y->worst[t->dtype] = t->error;
        snprintf(y->worst_name[t->dtype], sizeof y->worst_name[0], "%s", t->name);
    }
    if (!y->o->common.quiet && !y->o->common.json && (t->index + 1 == t->n || t->index % 32 == 31))
        fprintf(stderr, "[%zu of %zu tensors]\n", t->index + 1, t->n);
}

static tl_status perplexity(tl_engine *engine, tl_model *m, const options *o, double *out, tl_error *e) {
    char *text;
    size_t n;
    eval_result r;
    TRY(file_read(tl_engine_allocator(engine), o->text, (size_t)1 << 30, &text, &n, e));
    tl_status s = eval_text(m, &(eval_options){0}, text, n, &r, e);
    mem_free(tl_engine_allocator(engine), text);
    *out = s == TL_OK ? eval_perplexity(&r) : 0;
    return s;
}

static void report(const tally *y, const options *o, const double *before, const double *after) {
    if (o->common.json) {
        printf("{\"type\": \"%s\", \"parameters\": %.0f, \"bytes\": %.0f, \"bits\": %.6f, \"kinds\": [", o->c.type,
               y->all, y->all_bytes, 8 * y->all_bytes / y->all);
        const char *comma = "";
        for (int t = 0; t < TL_DTYPE_COUNT; t++) {
            if (!y->tensors[t]) continue;
            printf(
                "%s{\"type\": \"%s\", \"tensors\": %zu, \"parameters\": %.0f, \"bytes\": %.0f, \"worst_error\": %.9g}",
                comma, tl_dtype_name((tl_dtype)t), y->tensors[t], y->count[t], y->bytes[t], y->worst[t]);
            comma = ", ";
        }
        printf("]");
        if (after) printf(", \"perplexity_before\": %.9g, \"perplexity\": %.9g", *before, *after);
        printf("}\n");
        return;
    }
    char a[32], b[32];
    printf("%-8s %8s %12s %10s   largest relative error\n", "type", "tensors", "parameters", "bytes");
    for (int t = 0; t < TL_DTYPE_COUNT; t++)
        if (y->tensors[t])
            printf("%-8s %8zu %12s %10s   %.3g%s%s\n", tl_dtype_name((tl_dtype)t), y->tensors[t],
                   cli_count(y->count[t], a, sizeof a), cli_bytes(y->bytes[t], b, sizeof b), y->worst[t],
                   y->worst_name[t][0] ? " in " : "", y->worst_name[t]);
    printf("%s in %s: %.2f bits a parameter\n", cli_count(y->all, a, sizeof a), cli_bytes(y->all_bytes, b, sizeof b),
           8 * y->all_bytes / y->all);
    if (after) printf("perplexity %.4f -> %.4f (%+.2f %%)\n", *before, *after, 100 * (*after / *before - 1));
}

static tl_status quantize(tl_engine *engine, options *o, tl_error *e) {
    tl_model *m;
    tally y = {.o = o};
    double before = 0, after = 0;
    o->c.saved = count;
    o->c.user = &y;
    TRY(model_open(engine, o->src, &m, e));
    tl_status s = o->text ? perplexity(engine, m, o, &before, e) : TL_OK;
    if (s == TL_OK) s = convert_model(m, o->dst, &o->c, e);
    model_close(m);
    if (s == TL_OK && o->text) {
        TRY(model_open(engine, o->dst, &m, e));
        s = perplexity(engine, m, o, &after, e);
        model_close(m);
    }
    if (s == TL_OK) report(&y, o, &before, o->text ? &after : NULL);
    return s;
}

int cmd_quantize(int argc, char **argv) {
    options o = {0};
    tl_engine *engine;
    tl_error e = {0};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    int code = quantize(engine, &o, &e) == TL_OK ? EXIT_DONE : cli_fail(&e);
    tl_engine_destroy(engine);
    return code;
}
