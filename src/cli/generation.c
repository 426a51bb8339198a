/* Options that commands share beyond the common ones: how text is written with a model, which model, and the two paths
 * of conversions. */
#include "cli/cli.h"

#include "model/model.h"

#include <string.h>

/* ---- generation ------------------------------------------------------------------------------------------------- */

enum {
    KEY_TOP_K = 0x7100,
    KEY_TOP_P,
    KEY_MIN_P,
    KEY_PENALTY,
    KEY_CONTEXT,
    KEY_SCALING,
    KEY_CACHE,
    KEY_ADAPTER,
    KEY_WINDOW,
    KEY_FIRST
};

static const struct argp_option table[] = {
    {"tokens", 'n', "N", 0, "tokens to write at most (default 256, in a conversation 512)", 0},
    {"temperature", 't', "X", 0, "0 is greedy (default: what generation_config.json says, else 0.8)", 0},
    {"top-k", KEY_TOP_K, "K", 0, "only the K likeliest tokens (default 0: all)", 0},
    {"top-p", KEY_TOP_P, "P", 0, "only the likeliest tokens that together reach P (default: as there, else 0.95)", 0},
    {"min-p", KEY_MIN_P, "P", 0, "only tokens at least P times as likely as the likeliest", 0},
    {"repeat-penalty", KEY_PENALTY, "X", 0, "above 1: recent tokens become less likely", 0},
    {"context", KEY_CONTEXT, "N", 0, "positions to keep (default: the model's, or 4096 if more are not needed)", 0},
    {"rope-scaling", KEY_SCALING, "KIND:N", 0,
     "stretch positions N times: linear:N, ntk:N, dynamic:N or yarn:N (the context grows with them)", 0},
    {"adapter", KEY_ADAPTER, "DIR", 0, "a LoRA adapter in PEFT's form, or a run that made one", 0},
    {"kv-dtype", KEY_CACHE, "f32|bf16|f16|q8_0", 0, "type of the cached keys and values (default f32)", 0},
    {"cache-window", KEY_WINDOW, "N", 0, "text without end: keep the last N tokens, forget those before", 0},
    {"sinks", KEY_FIRST, "N", 0, "of the first tokens, keep N too (default 4, with --cache-window)", 0},
    {"cache-type", KEY_CACHE, 0, OPTION_ALIAS | OPTION_HIDDEN, 0, 0},
    {0}};

tl_dtype cli_cache_type(struct argp_state *st, const char *arg) {
    tl_dtype t = tl_dtype_parse(arg);
    if (t != TL_F32 && t != TL_BF16 && t != TL_F16 && t != TL_Q8_0)
        argp_error(st, "--kv-dtype is \"%s\"; it can be f32, bf16, f16 or q8_0", arg);
    return t;
}

tl_recompute cli_recompute(struct argp_state *st, const char *arg) {
    tl_recompute level = arg ? tl_recompute_parse(arg) : TL_RECOMPUTE_FULL;
    if (level == TL_RECOMPUTE_LEVELS) argp_error(st, "--recompute is \"%s\"; it can be none, light, wide or full", arg);
    return level;
}

static error_t parse(int key, char *arg, struct argp_state *st) {
    cli_generation *g = st->input;
    tl_session_options *s = &g->s;
    switch (key) {
    case 'n': s->max_tokens = cli_int(st, "-n", arg, 1, 1 << 30); return 0;
    case 't': s->temperature = (float)cli_real(st, "--temperature", arg, 0, 1e6); return 0;
    case KEY_TOP_K: s->top_k = (int32_t)cli_int(st, "--top-k", arg, 0, 1 << 30); return 0;
    case KEY_TOP_P: s->top_p = (float)cli_real(st, "--top-p", arg, 0, 1); return 0;
    case KEY_MIN_P: s->min_p = (float)cli_real(st, "--min-p", arg, 0, 1); return 0;
    case KEY_PENALTY: s->repeat_penalty = (float)cli_real(st, "--repeat-penalty", arg, 0, 1e3); return 0;
    case KEY_CONTEXT: s->context = cli_int(st, "--context", arg, 1, 1 << 30); return 0;
    case KEY_SCALING: g->scaling = arg; return 0;
    case KEY_WINDOW: s->cache_window = cli_int(st, "--cache-window", arg, 4, 1 << 30); return 0;
    case KEY_FIRST: g->sinks = cli_int(st, "--sinks", arg, 0, 1 << 20); return 0;
    case ARGP_KEY_END:
        if (g->sinks >= 0 && !s->cache_window) argp_error(st, "--sinks needs --cache-window N");
        if (s->cache_window && s->context) argp_error(st, "--context and --cache-window exclude each other");
        if (s->cache_window) s->cache_first = g->sinks >= 0 ? g->sinks : 4;
        return 0;
    case KEY_ADAPTER: g->adapter = arg; return 0;
    case KEY_CACHE: s->cache_dtype = cli_cache_type(st, arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cli_generation_argp = {table, parse, 0, 0, 0, 0, 0};

void cli_generation_init(cli_generation *g, int64_t tokens) {
    memset(g, 0, sizeof *g);
    g->sinks = -1;
    generation_unset(&g->s); /* what the user does not choose the model's files may */
    if (tokens) g->s.max_tokens = tokens;
}

tl_status cli_generation_open(cli_generation *g, tl_engine *engine, const char *path, tl_model **m, tl_error *e) {
    TRY(model_open_mapped(engine, path, m, e));
    tl_status s = g->adapter ? lora_open(*m, g->adapter, true, e) : TL_OK;
    if (s == TL_OK && g->scaling) s = config_scale(&(*m)->config, g->scaling, e);
    generation_fill(&(*m)->generation, &g->s);
    if (s == TL_OK) return TL_OK;
    model_close(*m);
    *m = NULL;
    return s;
}

/* ---- single options --------------------------------------------------------------------------------------------- */

tl_dtype cli_dtype(struct argp_state *s, const char *option, const char *arg) {
    tl_dtype t = tl_dtype_parse(arg);
    if (t != TL_F32 && t != TL_BF16) argp_error(s, "%s is \"%s\"; it can be f32 or bf16", option, arg);
    return t;
}

void cli_lora_targets(struct argp_state *s, const char *arg, unsigned *out) {
    tl_error e = {0};
    if (lora_targets(arg, out, &e) != TL_OK) argp_error(s, "--lora-targets: %s", e.text);
}

bool cli_model_arg(struct argp_state *s, const char **model, int key, char *arg) {
    if (key == ARGP_KEY_END) {
        if (!*model) argp_error(s, "which model? Give a run directory, a Hugging Face directory or a GGUF file");
        return true;
    }
    if (key != ARGP_KEY_ARG || *model) return false;
    *model = arg;
    return true;
}

void cli_pair_arg(struct argp_state *s, const char **src, const char **dst, int key, char *arg, const char *usage) {
    if (key == ARGP_KEY_END) {
        if (!*dst) argp_error(s, "which model, and where to? %s", usage);
    } else if (!*src) {
        *src = arg;
    } else if (!*dst) {
        *dst = arg;
    } else {
        argp_error(s, "more than a source and a destination");
    }
}
