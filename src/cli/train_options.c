#include "cli/train_cli.h"

#include <string.h>

enum {
    KEY_CONFIG = 0x200, /* no letters: an option with one would be shown in the help */
    KEY_PRESET,
    KEY_DEPTH,
    KEY_SET,
    KEY_MODEL,
    KEY_SCALING,
    KEY_TOKENIZER,
    KEY_OUT,
    KEY_RESUME,
    KEY_STEPS,
    KEY_MINUTES,
    KEY_BATCH,
    KEY_MICRO,
    KEY_CONTEXT,
    KEY_SEGMENT,
    KEY_LR,
    KEY_MIN_LR,
    KEY_WARMUP,
    KEY_SCHEDULE,
    KEY_BETA1,
    KEY_BETA2,
    KEY_DECAY,
    KEY_CLIP,
    KEY_DROPOUT,
    KEY_LORA,
    KEY_LORA_ALPHA,
    KEY_LORA_DROPOUT,
    KEY_LORA_TARGETS,
    KEY_DTYPE,
    KEY_VAL,
    KEY_FIELD,
    KEY_SEPARATOR,
    KEY_FAMILY,
    KEY_PACKED,
    KEY_RANDOM,
    KEY_OBJECTIVE,
    KEY_RECOMPUTE,
    KEY_FREE, /* those behind it may go with --resume */
    KEY_SAVE,
    KEY_KEEP,
    KEY_EVAL,
    KEY_SAMPLE_EVERY,
    KEY_SAMPLE,
    KEY_LOG,
    KEY_NAN,
    KEY_PLOT
};

static const struct argp_option table[] = {
    {0, 0, 0, 0, "Model:", 1},
    {"config", KEY_CONFIG, "FILE", 0, "a config.json with Hugging Face's keys", 1},
    {"preset", KEY_PRESET, "NAME", 0, "tiny, char, char-cpu, stories, gpt2, gpt2-medium ...", 1},
    {"depth", KEY_DEPTH, "N", 0, "everything derived from the number of layers", 1},
    {"set", KEY_SET, "KEY=VALUE", 0, "change a key of the config.json: layers=8, mixers=[\"flash\",\"attention\"] ...",
     1},
    {"model", KEY_MODEL, "MODEL", 0, "go on from a model's weights", 1},
    {"rope-scaling", KEY_SCALING, "KIND:N", 0,
     "with --model: stretch positions N times, linear:N, ntk:N, dynamic:N or yarn:N", 1},
    {"tokenizer", KEY_TOKENIZER, "FILE|bytes|chars", 0, "default: bytes", 1},
    {"dropout", KEY_DROPOUT, "P", 0, "of embeddings, residual branches and attention weights", 1},
    {"lora", KEY_LORA, "RANK", 0, "with --model: train low-rank additions, the model itself stays as it is", 1},
    {"lora-alpha", KEY_LORA_ALPHA, "X", 0, "they count alpha/rank times (default: twice the rank)", 1},
    {"lora-targets", KEY_LORA_TARGETS, "LIST", 0, "of q,k,v,o,gate,up,down (default: all)", 1},
    {"lora-dropout", KEY_LORA_DROPOUT, "P", 0, "of what goes into them (default: 0)", 1},
    {0, 0, 0, 0, "Data:", 2},
    {"val", KEY_VAL, "FILE|FRACTION", 0, "held-out text (default: 0.1, at most 256k tokens)", 2},
    {"text-field", KEY_FIELD, "NAME", 0, "of JSON lines (default: text)", 2},
    {"separator", KEY_SEPARATOR, "TEXT", 0, "between the documents of a text file", 2},
    {"template", KEY_FAMILY, "NAME", 0,
     "of conversations: chatml, llama2, llama3, mistral, gemma, phi3, zephyr or plain (default: the model's own)", 2},
    {"packed", KEY_PACKED, 0, 0, "whole documents packed into rows, best fit", 2},
    {"random-windows", KEY_RANDOM, 0, 0, "windows at random offsets instead of epochs", 2},
    {0, 0, 0, 0, "Training:", 3},
    {"steps", KEY_STEPS, "N", 0, "length of the schedule", 3},
    {"minutes", KEY_MINUTES, "M", 0, "as many steps as fit (default: 10, without --steps)", 3},
    {"batch", KEY_BATCH, "TOKENS", 0, "tokens of a step (default: 16 contexts)", 3},
    {"micro-batch", KEY_MICRO, "ROWS", 0, "rows computed at a time (default: all)", 3},
    {"context", KEY_CONTEXT, "T", 0, "tokens of a row (default: the model's)", 3},
    {"segment", KEY_SEGMENT, "TOKENS", 0,
     "of a row computed at a time, with the gradients of the whole row: memory for so many tokens however long the row "
     "(flash and the mixers with a state; rows go on across documents; default: all)",
     3},
    {"lr", KEY_LR, "X", 0, "highest learning rate (default: by size; a tenth of it with --model, not so with --lora)",
     3},
    {"min-lr", KEY_MIN_LR, "X", 0, "lowest (default: a tenth)", 3},
    {"warmup", KEY_WARMUP, "N", 0, "steps (default: 100, at most a third; a hundredth of a long run)", 3},
    {"schedule", KEY_SCHEDULE, "cosine|linear|constant|wsd", 0, "default: cosine", 3},
    {"beta1", KEY_BETA1, "X", 0, "of AdamW (default: 0.9)", 3},
    {"beta2", KEY_BETA2, "X", 0, "of AdamW (default: 0.99 below 32k tokens a step, else 0.95)", 3},
    {"weight-decay", KEY_DECAY, "X", 0, "of matrices (default: 0.1)", 3},
    {"clip", KEY_CLIP, "X", 0, "of the gradient's norm (default: 1; 0: none)", 3},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "of products and activations (default: f32)", 3},
    {"recompute", KEY_RECOMPUTE, "LEVEL", OPTION_ARG_OPTIONAL,
     "what the backward pass computes again to save memory: none (default); light, what takes a pass over memory; "
     "wide, the products of the widest tensors too; full, all of a block (what --recompute alone means)",
     3},
    {"objective", KEY_OBJECTIVE, "NAME", 0,
     "causal: the next token; mlm: hidden ones; prefix: the next behind a prompt that sees both ways; seq2seq: a "
     "target "
     "from its source (default: the model's)",
     3},
    {"on-nan", KEY_NAN, "stop|skip|rollback", 0, "when a loss is not finite (default: stop)", 3},
    {0, 0, 0, 0, "Run:", 4},
    {"out", KEY_OUT, "RUN", 0, "run directory (default: runs/DATE-NAME)", 4},
    {"resume", KEY_RESUME, "RUN", 0, "go on where the run's last checkpoint stands, bit for bit", 4},
    {"save-every", KEY_SAVE, "N", 0, "steps between checkpoints (default: a tenth)", 4},
    {"keep", KEY_KEEP, "N", 0, "checkpoints kept (default: 2; 0: all)", 4},
    {"eval-every", KEY_EVAL, "N", 0, "steps between validations (default: a tenth; 0: at the end only)", 4},
    {"sample-every", KEY_SAMPLE_EVERY, "N", 0, "steps between samples of text (default: 0, none)", 4},
    {"sample", KEY_SAMPLE, "TEXT", 0, "what samples begin with", 4},
    {"log-every", KEY_LOG, "N", 0, "steps between lines (default: every two seconds)", 4},
    {"plot", KEY_PLOT, 0, 0, "draw the curves at the end: in the terminal, loss.svg, loss.png", 4},
    {0}};

static void parse_nan(train_options *o, const char *arg, struct argp_state *st) {
    static const char *const names[] = {"stop", "skip", "rollback"};
    for (int i = 0; i < 3; i++)
        if (strcmp(arg, names[i]) == 0) {
            o->on_nan = (train_on_nan)i;
            return;
        }
    argp_error(st, "--on-nan is \"%s\"; it can be stop, skip or rollback", arg);
}

static void parse_objective(train_options *o, const char *arg, struct argp_state *st) {
    for (int i = 0; i < OBJECTIVES; i++)
        if (strcmp(arg, objective_names[i]) == 0) {
            o->objective = i;
            return;
        }
    argp_error(st, "--objective is \"%s\"; it can be causal, mlm, prefix or seq2seq", arg);
}

static void parse_end(train_options *o, struct argp_state *st) {
    if (o->resume) {
        if (o->n_file) argp_error(st, "--resume goes on with the run's own text: leave the files out");
        if (o->foreign) argp_error(st, "--%s belongs to a new run; it cannot go with --resume", o->foreign);
        return;
    }
    if (!o->n_file) argp_error(st, "which text? Give files, directories, or - for standard input");
    int models = (o->config != NULL) + (o->preset != NULL) + (o->depth > 0) + (o->model != NULL);
    if (models > 1) argp_error(st, "--config, --preset, --depth and --model exclude each other");
    if (o->n_set && o->model) argp_error(st, "--set changes what a new model is; it cannot go with --model");
    if (o->scaling && !o->model) argp_error(st, "--rope-scaling stretches a model that is there; give --model");
    if (!o->lora.rank && (o->lora.alpha > 0 || o->lora.targets || o->lora.dropout > 0))
        argp_error(st, "--lora-alpha, --lora-targets and --lora-dropout need --lora RANK");
    if (o->lora.rank && o->dropout >= 0)
        argp_error(st, "with --lora dropout is --lora-dropout; the model stays as it is");
    if (o->lora.rank && !o->model) argp_error(st, "--lora adapts a model that is there: give it with --model");
    if (o->steps && o->minutes > 0) argp_error(st, "--steps and --minutes exclude each other");
    if (o->packed && o->random) argp_error(st, "--packed and --random-windows exclude each other");
    if (o->min_lr >= 0 && o->lr > 0 && o->min_lr > o->lr) argp_error(st, "--min-lr is above --lr");
    if (o->steps && o->warmup >= o->steps) argp_error(st, "--warmup takes all of --steps");
    if (!o->steps && !(o->minutes > 0)) o->minutes = 10;
}

static const char *name_of(int key) {
    for (size_t i = 0; table[i].name || table[i].doc; i++)
        if (table[i].key == key && table[i].name) return table[i].name;
    return NULL;
}

static error_t parse(int key, char *arg, struct argp_state *st) {
    train_options *o = st->input;
    const int64_t big = (int64_t)1 << 40;
    if (key > 0 && key < KEY_FREE && key != KEY_RESUME && key != KEY_STEPS && !o->foreign) o->foreign = name_of(key);
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_CONFIG: o->config = arg; return 0;
    case KEY_PRESET: o->preset = arg; return 0;
    case KEY_DEPTH: o->depth = cli_int(st, "--depth", arg, 1, 256); return 0;
    case KEY_SET:
        if (o->n_set == TRAIN_SETS) argp_error(st, "more than %d keys to --set; write a config.json", TRAIN_SETS);
        o->set[o->n_set++] = arg;
        return 0;
    case KEY_MODEL: o->model = arg; return 0;
    case KEY_SCALING: o->scaling = arg; return 0;
    case KEY_TOKENIZER: o->tokenizer = arg; return 0;
    case KEY_OUT: o->out = arg; return 0;
    case KEY_RESUME: o->resume = arg; return 0;
    case KEY_STEPS: o->steps = cli_int(st, "--steps", arg, 1, big); return 0;
    case KEY_MINUTES: o->minutes = cli_real(st, "--minutes", arg, 0.01, 1e6); return 0;
    case KEY_BATCH: o->batch = cli_int(st, "--batch", arg, 1, 1 << 30); return 0;
    case KEY_MICRO: o->micro = cli_int(st, "--micro-batch", arg, 1, 1 << 20); return 0;
    case KEY_CONTEXT: o->context = cli_int(st, "--context", arg, 1, 1 << 24); return 0;
    case KEY_LR: o->lr = cli_real(st, "--lr", arg, 1e-12, 100); return 0;
    case KEY_MIN_LR: o->min_lr = cli_real(st, "--min-lr", arg, 0, 100); return 0;
    case KEY_WARMUP: o->warmup = cli_int(st, "--warmup", arg, 0, big); return 0;
    case KEY_SCHEDULE:
        if (!schedule_parse(arg, &o->schedule))
            argp_error(st, "--schedule is \"%s\"; it can be cosine, linear, constant or wsd", arg);
        return 0;
    case KEY_BETA1: o->beta1 = cli_real(st, "--beta1", arg, 0, 0.999999); return 0;
    case KEY_BETA2: o->beta2 = cli_real(st, "--beta2", arg, 0, 0.9999999); return 0;
    case KEY_DECAY: o->decay = cli_real(st, "--weight-decay", arg, 0, 100); return 0;
    case KEY_CLIP: o->clip = cli_real(st, "--clip", arg, 0, 1e9); return 0;
    case KEY_DROPOUT: o->dropout = cli_real(st, "--dropout", arg, 0, 0.99); return 0;
    case KEY_LORA: o->lora.rank = cli_int(st, "--lora", arg, 1, 65536); return 0;
    case KEY_LORA_ALPHA: o->lora.alpha = cli_real(st, "--lora-alpha", arg, 1e-6, 1e6); return 0;
    case KEY_LORA_DROPOUT: o->lora.dropout = cli_real(st, "--lora-dropout", arg, 0, 0.99); return 0;
    case KEY_LORA_TARGETS: cli_lora_targets(st, arg, &o->lora.targets); return 0;
    case KEY_DTYPE: o->dtype = cli_dtype(st, "--dtype", arg); return 0;
    case KEY_VAL: o->val = arg; return 0;
    case KEY_FIELD: o->text_field = arg; return 0;
    case KEY_SEPARATOR: o->separator = arg; return 0;
    case KEY_FAMILY: o->family = arg; return 0;
    case KEY_PACKED: o->packed = true; return 0;
    case KEY_RANDOM: o->random = true; return 0;
    case KEY_SEGMENT: o->segment = cli_int(st, "--segment", arg, 1, big); return 0;
    case KEY_RECOMPUTE: o->recompute = cli_recompute(st, arg); return 0;
    case KEY_OBJECTIVE: parse_objective(o, arg, st); return 0;
    case KEY_SAVE: o->save_every = cli_int(st, "--save-every", arg, 1, big); return 0;
    case KEY_KEEP: o->keep = cli_int(st, "--keep", arg, 0, big); return 0;
    case KEY_EVAL: o->eval_every = cli_int(st, "--eval-every", arg, 0, big); return 0;
    case KEY_SAMPLE_EVERY: o->sample_every = cli_int(st, "--sample-every", arg, 0, big); return 0;
    case KEY_SAMPLE: o->sample = arg; return 0;
    case KEY_LOG: o->log_every = cli_int(st, "--log-every", arg, 1, big); return 0;
    case KEY_NAN: parse_nan(o, arg, st); return 0;
    case KEY_PLOT: o->plot = true; return 0;
    case ARGP_KEY_ARG:
        if (o->n_file == TRAIN_FILES) argp_error(st, "more than %d files; give their directory", TRAIN_FILES);
        o->file[o->n_file++] = arg;
        return 0;
    case ARGP_KEY_END: parse_end(o, st); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "FILE...\n--resume RUN",
    "Trains a model on text: files (.txt, .jsonl, also .gz and .zst), directories of them, - for standard input."
    "\vJSON lines with \"messages\" (role, content) or \"prompt\" and \"completion\" are examples: rendered by the "
    "tokenizer's chat template, packed whole, and learned in their answers alone. "
    "Without --config, --preset, --depth or --model the model's size follows from the time and the text. With "
    "--minutes "
    "the number of steps is estimated from the measured speed and corrected on the way; a resumed run keeps the number "
    "it had. SIGINT and SIGTERM finish the step, save and exit with 130 or 143.",
    children,
    NULL,
    NULL};

int train_options_parse(train_options *o, int argc, char **argv) {
    memset(o, 0, sizeof *o);
    o->min_lr = o->beta1 = o->beta2 = o->decay = o->clip = o->dropout = -1;
    o->objective = -1;
    o->warmup = o->eval_every = o->sample_every = o->keep = -1;
    return cli_parse(&argp, argc, argv, o);
}
