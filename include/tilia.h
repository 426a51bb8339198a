/* tilia.h: the public face of Tilia: engine, tokenizer, model, session, trainer, cost.
 *
 *     tl_engine *e;   tl_engine_create(NULL, &e, &err);
 *     tl_model *m;    tl_model_open(e, "runs/latest", &m, &err);
 *     tl_session *s;  tl_session_create(m, NULL, &s, &err);
 *     tl_session_text(s, "Once", &err);
 *     while (tl_session_next(s, &piece, &err) == TL_OK && !piece.done) fwrite(piece.text, 1, piece.size, stdout);
 *
 * Further faces: tilia/graph.h (tensors, operators, gradients), tilia/attrs.h (their attributes), tilia/op.h (to write
 * operators), tilia/data.h (texts as batches), tilia/module.h (a model as one differentiable function).
 *
 * Every function that can fail returns tl_status and fills *err (which may be NULL) with the place. The library never
 * prints, exits or aborts. The line in brackets says who owns what, how a call fails, which threads may make it. */
#ifndef TILIA_H
#define TILIA_H

#include "tilia/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TILIA_VERSION "0.1.0"
TL_API const char *tl_version(void);

/* ---- tokenizer ---------------------------------------------------------------------------------- */

typedef struct tl_tokenizer tl_tokenizer;

/* Opens a tokenizer file or the directory that holds one; the format is found from the content.
 * [owns: caller] [fails: IO, NOTFOUND, FORMAT, UNSUPPORTED, NOMEM] */
TL_API tl_status tl_tokenizer_open(tl_engine *e, const char *path, tl_tokenizer **out, tl_error *err);
/* Ids 0..255 are the bytes, 256 ends a document. */
TL_API tl_status tl_tokenizer_bytes(tl_engine *e, tl_tokenizer **out, tl_error *err);
/* One id per code point of text (UTF-8), in order of code points, then unknown and end of document. */
TL_API tl_status tl_tokenizer_chars(tl_engine *e, const char *text, size_t n, tl_tokenizer **out, tl_error *err);
TL_API tl_status tl_tokenizer_save(const tl_tokenizer *t, const char *path, tl_error *err);
TL_API void tl_tokenizer_close(tl_tokenizer *t);
TL_API int64_t tl_tokenizer_vocab(const tl_tokenizer *t);
TL_API int32_t tl_tokenizer_bos(const tl_tokenizer *t); /* -1 if there is none */
TL_API int32_t tl_tokenizer_eos(const tl_tokenizer *t); /* the end of a document; -1 if there is none */
/* Writes at most max ids and stores in *n how many the text has. special: names of special tokens in the text count
 * as those tokens (never for text of strangers). [threads: any] */
TL_API tl_status tl_tokenizer_encode(const tl_tokenizer *t, const char *text, size_t size, bool special, int32_t *ids,
                                     size_t max, size_t *n, tl_error *err);
/* Writes at most max bytes (no terminator) and stores in *n how many there are. */
TL_API tl_status tl_tokenizer_decode(const tl_tokenizer *t, const int32_t *ids, size_t n_ids, char *text, size_t max,
                                     size_t *n, tl_error *err);

typedef struct tl_tokenizer_train_options {
    int64_t vocab;              /* upper bound of the vocabulary: 256 bytes + merges + special tokens */
    uint64_t min_count;         /* rarer pairs are not merged; 0: 1 */
    const char *split;          /* NULL: "gpt2"; "cl100k", "o200k", "llama3", "qwen2", "none", or a pattern */
    const char *const *special; /* borders of documents, never merged; the last ids */
    size_t n_special;
    const char *const *files;   /* read in order, after text */
    size_t n_files;
    bool (*progress)(void *user, const char *phase, uint64_t done, uint64_t total); /* false: stop (CANCELLED) */
    void *user;
} tl_tokenizer_train_options;
/* Byte-level BPE learnt from text (n bytes, one document; may be empty) and files.
 * [owns: caller] [fails: ARG, IO, NOTFOUND, FORMAT, CANCELLED, NOMEM] */
TL_API tl_status tl_tokenizer_train(tl_engine *e, const tl_tokenizer_train_options *o, const char *text, size_t n,
                                    tl_tokenizer **out, tl_error *err);

/* ---- model -------------------------------------------------------------------------------------- */

typedef struct tl_model tl_model;

typedef struct tl_model_info {
    int64_t layers, width, heads, kv_heads, head_dim, mlp, vocab, context;
    int64_t params, params_no_embedding;
    size_t weight_bytes;
    const char *type; /* model_type of config.json */
} tl_model_info;

/* A run directory (its latest checkpoint), a checkpoint, a Hugging Face directory, a .safetensors or a GGUF file. A run of
 * adapters, or a directory of PEFT's, opens as the base it names with them beside it; saving such a model saves them.
 * [owns: caller] [fails: IO, NOTFOUND, FORMAT, CONFIG, CHECKSUM, SHAPE, UNSUPPORTED, NOMEM] */
TL_API tl_status tl_model_open(tl_engine *e, const char *path, tl_model **out, tl_error *err);
/* A new model with seeded initial weights. config: the text of a config.json, or "preset:NAME", or "depth:N"; its
 * vocabulary is the tokenizer's. The model keeps its own copy of the tokenizer's reference: t must outlive it. */
TL_API tl_status tl_model_create(tl_engine *e, const char *config, tl_tokenizer *t, uint64_t seed, tl_model **out,
                                 tl_error *err);
/* Writes a Hugging Face directory: config.json, model.safetensors, tokenizer.json; whole or not at all. */
TL_API tl_status tl_model_save(const tl_model *m, const char *path, tl_error *err);
TL_API void tl_model_close(tl_model *m); /* after its sessions and trainers */
TL_API void tl_model_info_get(const tl_model *m, tl_model_info *info);
TL_API tl_tokenizer *tl_model_tokenizer(tl_model *m); /* borrowed; NULL if the directory had none */

/* A tensor of the model, named and shaped as in its Hugging Face files. */
typedef struct tl_model_tensor {
    char name[128];
    int32_t ndim;
    int64_t dim[2];
    float *data; /* where it lies if the model holds it in just this form, else NULL; borrowed from the model */
} tl_model_tensor;
TL_API size_t tl_model_tensors(const tl_model *m);
TL_API tl_status tl_model_tensor_info(const tl_model *m, size_t i, tl_model_tensor *out, tl_error *err);
/* Copies tensor i out, or in: f32, contiguous. Sessions forget what they computed before (tl_session_reset).
 * [fails: ARG, STATE the weights are not in memory as numbers] */
TL_API tl_status tl_model_tensor_get(const tl_model *m, size_t i, float *to, tl_error *err);
TL_API tl_status tl_model_tensor_set(tl_model *m, size_t i, const float *from, tl_error *err);

/* ---- session: generation ---------------------------------------------------------------------------- */

typedef struct tl_session tl_session;

typedef struct tl_session_options {
    int64_t max_tokens;   /* to generate; 0: until the stop token or the context is full */
    int64_t context;      /* positions to keep; 0: the model's */
    float temperature;    /* 0: greedy */
    int32_t top_k;        /* 0: all */
    float top_p;          /* 0 or 1: all */
    float min_p;          /* 0: all */
    float repeat_penalty; /* 0 or 1: none */
    int32_t repeat_last;  /* tokens looked back at; 0: 64 */
    uint64_t seed;
    const char *const *stop; /* texts that end the generation; not part of the output */
    size_t n_stop;
    bool ignore_eos;
    bool no_cache;        /* recompute everything for each token: for comparison */
    tl_dtype cache_dtype; /* TL_NONE: f32 */
    int64_t cache_window; /* > 0: text without end: so many of the last tokens are kept, and */
    int64_t cache_first;  /* so many of the first (StreamingLLM's sinks); positions count within the cache */
} tl_session_options;

typedef enum tl_finish { TL_FINISH_NONE, TL_FINISH_EOS, TL_FINISH_STOP, TL_FINISH_LENGTH, TL_FINISH_CONTEXT } tl_finish;

typedef struct tl_piece {
    const char *text; /* whole UTF-8 characters; valid until the next call on the session; may be empty */
    size_t size;
    int32_t id;       /* the token just sampled; -1 on the last piece */
    float logprob;
    bool done;
    tl_finish finish;
} tl_piece;

TL_API tl_status tl_session_create(tl_model *m, const tl_session_options *o, tl_session **out, tl_error *err);
TL_API void tl_session_destroy(tl_session *s);
/* Appends text, or ids, to what the session has seen. An empty session given nothing starts from the BOS token. */
TL_API tl_status tl_session_text(tl_session *s, const char *text, size_t n, tl_error *err);
TL_API tl_status tl_session_ids(tl_session *s, const int32_t *ids, size_t n, tl_error *err);
/* One more token. [fails: STATE, NUMERIC, NOMEM] */
TL_API tl_status tl_session_next(tl_session *s, tl_piece *piece, tl_error *err);
/* Logits (V) f32 of the last position seen, without sampling; borrowed until the next call. */
TL_API tl_status tl_session_logits(tl_session *s, const float **logits, tl_error *err);
/* Position reached; goes back to position n if it can, answers where it is then. */
TL_API int64_t tl_session_position(const tl_session *s);
TL_API int64_t tl_session_rewind(tl_session *s, int64_t n);
TL_API void tl_session_reset(tl_session *s);
/* Every token of the sequence, prompt and generated; borrowed until the next call on the session. */
TL_API const int32_t *tl_session_tokens(const tl_session *s, size_t *n);
/* A second session that has seen the same, with its own copy of what was computed; both go on by themselves.
 * [owns: caller] [fails: NOMEM] */
TL_API tl_status tl_session_fork(const tl_session *s, tl_session **out, tl_error *err);

/* ---- trainer ---------------------------------------------------------------------------------------- */

typedef struct tl_trainer tl_trainer;

typedef enum tl_schedule { TL_SCHEDULE_COSINE, TL_SCHEDULE_LINEAR, TL_SCHEDULE_CONSTANT, TL_SCHEDULE_WSD } tl_schedule;

/* The learning rate of the update after `step` updates: lr (step + 1) / (warmup + 1) while step < warmup; then, with x
 * from 0 to 1 at `steps`, min_lr + (lr - min_lr) (1 + cos(pi x)) / 2, or lr + (min_lr - lr) x, or lr, or lr with a last
 * fifth of min_lr + (lr - min_lr) (1 - sqrt(y)). [threads: any] [allocates: no] */
TL_API double tl_schedule_lr(tl_schedule kind, double lr, double min_lr, int64_t warmup, int64_t steps, int64_t step);

struct tl_metrics;
typedef struct tl_trainer_options {
    int64_t steps;          /* length of the schedule */
    int64_t batch_rows;     /* sequences per step */
    int64_t micro_rows;     /* sequences computed at a time; 0: all */
    int64_t context;        /* tokens per sequence; 0: the model's */
    int64_t segment;        /* of a sequence computed at a time, with the same gradients: memory for so many tokens
                               whatever the context (models without attention over all tokens); 0: all */
    tl_dtype dtype;         /* TL_F32 (or TL_NONE) or TL_BF16 */
    float lr, min_lr;       /* lr 0: 1e-3; min_lr: the floor of the schedule */
    float beta1, beta2, eps, decay; /* 0: 0.9, 0.95, 1e-8, 0.1; negative: zero */
    float clip;             /* 0: 1.0; negative: none */
    int64_t warmup;         /* steps */
    tl_schedule schedule;
    tl_recompute recompute; /* tilia/graph.h: what the backward pass runs again, to save memory */
    bool packed;            /* rows are packed documents whose borders attention and loss respect */
    uint64_t seed;
    bool (*progress)(void *user, const struct tl_metrics *m); /* after each step; false: stop (CANCELLED) */
    void *user;
} tl_trainer_options;

typedef struct tl_metrics {
    int64_t step; /* steps done */
    double loss;  /* mean nats per token of the step */
    double norm;  /* of the gradient, before clipping */
    double lr;
    double seconds;
    int64_t tokens; /* counted by the loss in this step */
    double flops;   /* of the step, by the plan */
    double balance; /* mixtures of experts: the load-balancing loss, trained on beside loss; else 0 */
} tl_metrics;

TL_API tl_status tl_trainer_create(tl_model *m, const tl_trainer_options *o, tl_trainer **out, tl_error *err);
TL_API void tl_trainer_destroy(tl_trainer *t);
/* Training text: documents are added, then trained on in a keyed random order. */
TL_API tl_status tl_trainer_add_text(tl_trainer *t, const char *text, size_t n, tl_error *err);
/* One step on the added text; or on the caller's own batch of ids (batch_rows, context + 1). */
TL_API tl_status tl_trainer_step(tl_trainer *t, tl_metrics *m, tl_error *err);
TL_API tl_status tl_trainer_step_ids(tl_trainer *t, const int32_t *ids, tl_metrics *m, tl_error *err);
/* Runs to the end of the schedule, calling progress. */
TL_API tl_status tl_trainer_run(tl_trainer *t, tl_error *err);
/* Mean nats per token of the text under the model as it is now. */
TL_API tl_status tl_trainer_eval(tl_trainer *t, const char *text, size_t n, double *loss, tl_error *err);
/* A checkpoint in the directory `run` (made where missing): run/ckpt-N/, itself a Hugging Face directory, then
 * run/latest; older ones beyond the newest `keep` are removed (0: none). A kill at any moment leaves the last whole
 * one. [fails: IO, NOSPACE, NOMEM; older checkpoints are then untouched] */
TL_API tl_status tl_trainer_save(const tl_trainer *t, const char *run, int64_t keep, tl_error *err);
/* Goes on from the newest whole checkpoint of a run, of tl_trainer_save or of `tilia train`: the model and the trainer
 * with its settings, moments and place in the data. Given the same text or ids, the steps that follow have the bits of
 * a training that never stopped. Of o (NULL: nothing) are taken: progress with user, and steps > 0 as the schedule's
 * new length. [owns: caller, both; destroy the trainer first] [fails: NOTFOUND no checkpoint; CHECKSUM, FORMAT, IO,
 * NOMEM] */
TL_API tl_status tl_trainer_resume(tl_engine *e, const char *run, const tl_trainer_options *o, tl_model **model,
                                   tl_trainer **out, tl_error *err);
typedef struct tl_trainer_info {
    int64_t step, steps;         /* done; the length of the schedule */
    int64_t batch_rows, context; /* a step's */
    int64_t tokens;              /* counted by the loss so far */
} tl_trainer_info;
TL_API void tl_trainer_info_get(const tl_trainer *t, tl_trainer_info *info);
/* Bytes that training holds: planned, before anything is allocated, and exactly. */
TL_API size_t tl_trainer_bytes(const tl_trainer *t);

/* ---- cost --------------------------------------------------------------------------------------------- */

typedef struct tl_model_costs {
    int64_t params, params_no_embedding;
    double forward_flops, backward_flops;                /* of one batch, attention counted causal-exact */
    size_t weights, gradients, optimizer, activations;   /* bytes */
    size_t cache_per_token;                               /* bytes of keys and values, or of state */
    int64_t params_active;                                /* those that one token meets */
} tl_model_costs;

/* What training (or, train false, one forward pass) of B sequences of T tokens costs; allocates no weights. */
TL_API tl_status tl_model_cost(tl_engine *e, const char *config, int64_t rows, int64_t context, tl_dtype dtype, bool train,
                               tl_recompute recompute, tl_model_costs *out, tl_error *err);

#ifdef __cplusplus
}
#endif
#endif
