/* Which model: given by name, by file, or chosen by time and text; and how fast the machine is. */
#include "cli/machine_cli.h"
#include "cli/train_cli.h"

#include <math.h>
#include <string.h>

double train_now(void);

/* Sizes to choose from; parameters are about 12 L D^2 and the embedding. */
static const struct {
    int64_t layers, width, heads;
} ladder[] = {{2, 64, 2},  {3, 96, 3},   {4, 128, 4},  {4, 160, 5},  {5, 192, 6},
              {6, 256, 8}, {8, 320, 10}, {8, 448, 14}, {12, 512, 16}};

static double ladder_params(size_t i, int64_t vocab) {
    double D = (double)ladder[i].width;
    return 12 * (double)ladder[i].layers * D * D + D * (double)vocab;
}

/* Training C = 6 N n operations is best spent at n = 20 N tokens (Hoffmann et al. 2022), so N = sqrt(C / 120); small
 * models gain from fewer tokens a parameter, hence the factor 2. A text bears about two parameters a token before it is
 * learned by heart. A run reaches a third of the machine's peak. */
static void choose(model_config *c, int64_t vocab, int64_t n_tokens, double seconds, double peak) {
    double best = 2 * sqrt(seconds * peak / 3 / 120), most = 2 * (double)n_tokens;
    size_t pick = 0;
    for (size_t i = 0; i < sizeof ladder / sizeof *ladder; i++)
        if (ladder_params(i, vocab) <= best && ladder_params(i, vocab) <= most) pick = i;
    c->layers = ladder[pick].layers;
    c->width = ladder[pick].width;
    c->heads = c->kv_heads = ladder[pick].heads;
    c->head_dim = c->width / c->heads;
    c->mlp = (8 * c->width / 3 + 31) / 32 * 32;
    c->context = 256;
    c->tied = true;
    c->init = INIT_GPT2;
}

static tl_status read_config(const train_options *o, tl_engine *engine, model_config *c, tl_error *e) {
    const tl_allocator *a = tl_engine_allocator(engine);
    char unknown[400] = "";
    json_t *v;
    TRY(json_read_file(a, o->config, 16u << 20, &v, e));
    tl_status s = config_read(v, c, unknown, sizeof unknown, e);
    json_decref(v);
    if (s != TL_OK) error_at_file(e, o->config);
    if (s == TL_OK && unknown[0])
        log_line(&((const graph_host *)(void *)engine)->log, TL_LOG_WARN, "%s: keys not known: %s", o->config, unknown);
    return s;
}

static void set_dropout(model_config *c, double p) {
    if (p < 0) return;
    c->drop_embed = c->drop_resid = p;
    if (c->mixer == MIXER_ATTENTION) c->drop_attn = p;
}

static tl_status configure(const train_options *o, tl_engine *engine, const tokenizer *t, int64_t n_tokens,
                           double seconds, double peak, model_config *c, tl_error *e) {
    int64_t vocab = 0;
    if (o->config) {
        TRY(read_config(o, engine, c, e));
        vocab = c->vocab; /* a file's vocabulary is meant: it must have room for the tokenizer's */
    } else if (o->preset) {
        TRY(config_preset(o->preset, c, e));
    } else if (o->depth) {
        TRY(config_depth(o->depth, tokenizer_vocab(t), c, NULL, e));
    } else {
        TRY(config_recipe("llama", c, e));
        choose(c, tokenizer_vocab(t), n_tokens, seconds > 0 ? seconds : 600, peak);
    }
    if (vocab && vocab < tokenizer_vocab(t)) {
        tl_status s = error_set(e, TL_CONFIG, "the tokenizer has %lld ids, vocab_size is %lld",
                                (long long)tokenizer_vocab(t), (long long)vocab);
        error_at_file(e, o->config);
        return s;
    }
    model_fit_tokenizer(c, t);
    if (vocab) c->vocab = vocab;
    if (o->objective >= 0) c->objective = o->objective; /* keys may ask for it */
    TRY(config_set(c, o->set, o->n_set, e));
    if (o->context) c->context = o->context;
    set_dropout(c, o->dropout);
    return config_objective(c, o->objective >= 0 ? o->objective : c->objective, true, e);
}

tl_status train_model(const train_options *o, tl_engine *engine, tokenizer *t, int64_t n_tokens, double seconds,
                      double peak, tl_model **out, tl_error *e) {
    model_config c;
    if (!o->model) {
        TRY(configure(o, engine, t, n_tokens, seconds, peak, &c, e));
        return model_create(engine, &c, t, o->common.seed, out, e);
    }
    /* Beside adapters the base stays where its file has it, in its number types. */
    TRY((o->lora.rank ? model_open_mapped : model_open)(engine, o->model, out, e));
    tl_model *m = *out;
    bool twice = m->tokenizer && t;
    if (!twice && t) m->tokenizer = t; /* stays the caller's */
    if (twice || !m->tokenizer || tokenizer_vocab(m->tokenizer) > m->config.vocab) {
        tl_status s = twice ? error_set(e, TL_ARG, "brings its own tokenizer: leave --tokenizer out")
                      : m->tokenizer
                          ? error_set(e, TL_CONFIG, "the tokenizer has %lld ids, the model a vocabulary of %lld",
                                      (long long)tokenizer_vocab(m->tokenizer), (long long)m->config.vocab)
                          : error_set(e, TL_NOTFOUND, "the model has no tokenizer: give --tokenizer");
        error_at_file(e, o->model);
        model_close(m);
        *out = NULL;
        return s;
    }
    set_dropout(&m->config, o->dropout);
    tl_status s = o->scaling && !o->lora.rank ? config_scale(&m->config, o->scaling, e) : TL_OK;
    if (s == TL_OK && o->objective >= 0) s = config_objective(&m->config, o->objective, false, e);
    if (s == TL_OK && m->lora && !o->lora.rank) s = lora_merge(m, e); /* an adapted model, trained on as a whole */
    if (s == TL_OK && o->lora.rank) s = lora_add(m, &o->lora, o->common.seed, e);
    if (s == TL_OK && o->lora.rank && o->scaling) s = lora_stretch(m, o->scaling, e);
    if (s == TL_OK) return TL_OK;
    error_at_file(e, o->model);
    model_close(m);
    *out = NULL;
    return s;
}

/* ---- the machine's speed ------------------------------------------------------------------------------------------
 */

tl_status train_machine(tl_engine *engine, tl_dtype dtype, double *peak, double *bandwidth, tl_error *e) {
    cost_machine m;
    TRY(machine_now(engine, &m, e));
    *peak = machine_peak(&m, dtype);
    *bandwidth = m.bandwidth;
    machine_fini(&m);
    return TL_OK;
}
