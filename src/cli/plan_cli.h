/* tilia plan in parts: options and what is reckoned (cmd_plan.c), tables (plan_tables.c), what would save
 * (plan_save.c), JSON (plan_json.c), pictures (plan_plot.c). */
#ifndef CLI_PLAN_CLI_H
#define CLI_PLAN_CLI_H

#include "cli/machine_cli.h"
#include "cost/cost.h"
#include "model/model.h"

enum { PLAN_SETS = 64 };

typedef struct plan_options {
    cli_common common;
    const char *set[PLAN_SETS];
    size_t n_set;
    lora_options lora; /* rank 0: none */
    const char *model, *preset, *depth, *config, *hardware, *weights, *plot;
    int64_t batch, context, segment;
    tl_dtype dtype, cache;
    int convention; /* 2, 1 or -1, as cost_flops takes it */
    double memory, tokens, price_hour, price_kwh, watts, bandwidth, peak;
    tl_recompute recompute;
    bool train, savings;
} plan_options;

/* A variant of the model or of its use, and what it changes. */
typedef struct plan_variant {
    char name[64];
    double memory, seconds; /* seconds: of a step, or of a decoded token */
    int64_t params;
} plan_variant;
enum { PLAN_VARIANTS = 11 };

/* Parameters by component. */
typedef struct plan_params {
    const char *name;
    int64_t count;
    double flops; /* of a token, forward: what a multiplication by the matrices takes */
} plan_params;
enum { PLAN_PARAMS = 6 };

typedef struct plan_result {
    model_config config;
    model_params params;
    cost_machine machine;
    bool has_machine;
    char no_machine[400]; /* why there is none */
    plan_params part[PLAN_PARAMS];
    cost_report pass;            /* training step or forward pass */
    double recomputed;           /* operations of it that are done a second time */
    cost_report prefill, decode; /* without --train */
    cost_crossing crossing;
    int64_t fit_rows, fit_context; /* with --memory */
    plan_variant variant[PLAN_VARIANTS];
    size_t variants;
    double tokens;           /* of the whole training */
    model_lora lora;         /* with --lora; owned */
    struct tl_model *opened; /* with --lora: the file, whose matrices stay in it; owned */
    build_matrices mapped;   /* number types of a file; owned */
    size_t stored;           /* bytes of the weights as they are run for inference */
    const char *type;        /* and the name of that form */
} plan_result;

/* By --weights or the file: the type of a matrix, as cost_weight_bytes asks for it. */
tl_status plan_savings(const plan_options *o, tl_engine *e, plan_result *r, tl_error *err);
size_t plan_stored(const plan_result *r, const char *type);
void plan_print(const plan_options *o, tl_engine *e, const plan_result *r);
void plan_json(const plan_options *o, const plan_result *r);
/* FILE.svg or .png: the roofline; FILE-memory.svg beside it: memory over the step. Both paths are printed to stderr. */
tl_status plan_plot(const plan_options *o, tl_engine *e, const plan_result *r, tl_error *err);

#endif
