/* tilia convert SRC DST: a model from one form into another. */
#include "cli/cli.h"

#include "study/convert.h"

#include <string.h>

enum { KEY_TYPE = 1, KEY_ADAPTER, KEY_KV_HEADS, KEY_FORCE };

typedef struct options {
    cli_common common;
    const char *src, *dst, *adapter;
    convert_options c;
} options;

static const struct argp_option table[] = {
    {"type", KEY_TYPE, "TYPE", 0,
     "number type of matrices: f32 (default), f16, bf16; of a directory also f8_e4m3, f8_e5m2 (for blocks: tilia "
     "quantize)",
     0},
    {"kv-heads", KEY_KV_HEADS, "N", 0, "merge key-value heads to N by averaging, to be trained on", 0},
    {"adapter", KEY_ADAPTER, "DIR", 0, "merge a LoRA adapter into SRC (one of a run that made it is merged anyway)", 0},
    {"force", KEY_FORCE, 0, 0, "replace a GGUF file that is there", 0},
    {0}};

static const char usage[] = "tilia convert SRC DST";

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_TYPE: o->c.type = arg; return 0;
    case KEY_KV_HEADS: o->c.kv_heads = cli_int(st, "--kv-heads", arg, 1, 65536); return 0;
    case KEY_ADAPTER: o->adapter = arg; return 0;
    case KEY_FORCE: o->c.overwrite = true; return 0;
    case ARGP_KEY_ARG: cli_pair_arg(st, &o->src, &o->dst, key, arg, usage); return 0;
    case ARGP_KEY_END: cli_pair_arg(st, &o->src, &o->dst, key, arg, usage); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "SRC DST",
    "Writes a model in another form: a GGUF file where DST ends with .gguf, else a Hugging "
    "Face directory. SRC is a run directory, a Hugging Face directory, a .safetensors file "
    "or a GGUF file.",
    children,
    NULL,
    NULL};

int cmd_convert(int argc, char **argv) {
    options o = {0};
    tl_engine *engine;
    tl_model *m = NULL;
    tl_error e = {0};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    tl_status s = model_open(engine, o.src, &m, &e);
    if (s == TL_OK && o.adapter) s = lora_open(m, o.adapter, true, &e);
    if (s == TL_OK) s = convert_model(m, o.dst, &o.c, &e);
    int code = s == TL_OK ? EXIT_DONE : cli_fail(&e);
    if (s == TL_OK && o.common.json) {
        printf("{\"written\": ");
        cli_json_text(stdout, o.dst, strlen(o.dst));
        printf(", \"type\": \"%s\", \"parameters\": %lld}\n", o.c.type ? o.c.type : "f32", (long long)m->params.count);
    } else if (s == TL_OK && !o.common.quiet) {
        char n[32];
        fprintf(stderr, "[%s: %s parameters, %s]\n", o.dst, cli_count((double)m->params.count, n, sizeof n),
                m->config.type);
    }
    model_close(m);
    tl_engine_destroy(engine);
    return code;
}
