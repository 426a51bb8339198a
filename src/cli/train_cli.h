/* tilia train in parts: options (train_options.c), data (train_data.c), model (train_model.c), the loop
 * (train_loop.c) and the command (cmd_train.c). */
#ifndef CLI_TRAIN_CLI_H
#define CLI_TRAIN_CLI_H

#include "cli/cli.h"

#include "eval/eval.h"
#include "runlog/metrics.h"
#include "train/checkpoint.h"

typedef enum train_on_nan { NAN_STOP, NAN_SKIP, NAN_ROLLBACK } train_on_nan;

enum { TRAIN_FILES = 4096, TRAIN_SETS = 64, TRAIN_PATH = 1024 };

typedef struct train_options {
    cli_common common;
    const char *file[TRAIN_FILES];
    size_t n_file;
    const char *set[TRAIN_SETS]; /* KEY=VALUE */
    size_t n_set;
    int objective; /* OBJECTIVE_CAUSAL .., -1: the model's own */
    const char *config, *preset, *model, *tokenizer, *val, *out, *resume, *text_field, *separator, *sample,
        *scaling, *family;
    int64_t depth, steps, batch, micro, context, segment, warmup, save_every, eval_every, sample_every, log_every, keep;
    double minutes, lr, min_lr, beta1, beta2, decay, clip, dropout;
    tl_schedule schedule;
    tl_dtype dtype;
    train_on_nan on_nan;
    tl_recompute recompute;
    bool packed, plot, random;
    lora_options lora;   /* rank 0: the whole model is trained */
    const char *foreign; /* an option of a new run, given: not to go with --resume */
} train_options;

/* Parses and checks what can be checked without files. 0, or the exit code. */
int train_options_parse(train_options *o, int argc, char **argv);

/* ---- data -------------------------------------------------------------------------------------------------- */

/* Ids as shards in the run directory, so that a resumed run sees what the first one saw. */
typedef struct train_data {
    shard all, held; /* held: of --val FILE */
    bool has_held;
    tokens train, val;
    double fraction; /* of all, held out; 0 with a file */
    int64_t documents, bytes;
    int64_t learned; /* of examples: ids of answers, of the files just read */
} train_data;

/* The tokenizer that the options ask for (not with --model). */
tl_status train_tokenizer(const train_options *o, const tl_allocator *a, tokenizer **out, tl_error *e);
/* Reads the files, writes RUN/data.tokens (and RUN/val.tokens), opens them. */
tl_status train_data_make(train_data *d, const train_options *o, const tl_allocator *a, const char *run,
                          const tokenizer *t, size_t threads, tl_error *e);
/* Opens what is there; data: the object that train_data_json made, whose checksum must fit. */
tl_status train_data_open(train_data *d, const char *run, const json_t *data, tl_error *e);
json_t *train_data_json(const train_data *d);
void train_data_close(train_data *d);

/* ---- model -------------------------------------------------------------------------------------------------- */

/* The model that the options ask for. seconds: how long it will train, 0 if that is not known; peak: FLOP/s of the
 * machine. Both only choose the size where the options leave it open. */
tl_status train_model(const train_options *o, tl_engine *engine, tokenizer *t, int64_t n_tokens, double seconds,
                      double peak, tl_model **out, tl_error *e);
/* The machine's limits: operations a second with that type, bytes a second. What tilia devices --measure found, else
 * measured in a fraction of a second. */
tl_status train_machine(tl_engine *engine, tl_dtype dtype, double *peak, double *bandwidth, tl_error *e);

/* ---- the run ------------------------------------------------------------------------------------------------- */

typedef struct train_run {
    const train_options *o;
    tl_engine *engine;
    const tl_allocator *alloc;
    log_sink log;
    char path[TRAIN_PATH];
    tl_model *model;
    tokenizer *tokenizer; /* NULL where the model owns it */
    trainer *trainer;
    evaluator *eval;
    loader *loader;
    loader_mode order;
    train_data data;
    metrics_writer metrics;
    bool metrics_failed, save_failed;
    int64_t eval_every, sample_every, save_every, keep;
    int64_t saved; /* step of the last good checkpoint, -1: none */
    int64_t rollbacks;
    double peak, bandwidth; /* of the machine, a second */
    double begin, deadline; /* deadline 0: the number of steps is fixed */
    double last_line, eval_seconds, loss, val_loss, bits_per_byte;
    int64_t next_estimate, val_step;
    bool terminal, line_open;
} train_run;

double train_now(void);
/* What the checkpoint says beside the trainer's state. */
json_t *train_extra(const train_run *r);
/* From where the trainer stands to the end. The exit code; errors are printed. */
int train_loop(train_run *r);
/* Saves, prunes; a failure is told and remembered, not an error: training goes on. */
void train_save(train_run *r);
/* Steps of linear growth that a schedule of so many steps gets. */
int64_t train_warmup(int64_t steps);
/* Number of steps for what is left of the time. */
void train_estimate(train_run *r, double seconds_per_step);
/* Validation loss now. */
tl_status train_evaluate(train_run *r, tl_error *e);

#endif
