/* tilia bench generate: a prompt and the tokens behind it, of random weights or of a model's file. */
#include "cli/bench_cli.h"

#include "infer/decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4096, WARM = 8, ROWS_MOST = 512 };

typedef struct generate_times {
    double prompt[64], token[MOST], bytes; /* seconds of each; the reads a second, median of the rounds */
    int prompts, tokens;
} generate_times;

/* Bytes that a step of so many rows streams: every matrix but tables that are only looked up, and of a mixture of
 * experts as many as rows meet that choose at random. */
static double streamed(const tl_model *m, tl_dtype dtype, int64_t rows) {
    const model_config *c = &m->config;
    const double met = c->experts ? 1 - pow(1 - (double)c->experts_used / (double)c->experts, (double)rows) : 1;
    double bytes = 0;
    for (size_t i = 0; i < m->params.n; i++) {
        const model_param *p = &m->params.list[i];
        if (p->role == ROLE_POS || (p->role == ROLE_EMBED && !m->config.tied)) continue;
        const build_matrix *piece = m->flat || !p->decay ? NULL : &m->mapped.piece[i * PARAM_PIECES];
        const double share = p->role == ROLE_EXPERT_UP || p->role == ROLE_EXPERT_DOWN ? met : 1;
        for (int k = 0; piece && k < PARAM_PIECES && piece[k].dtype != TL_NONE; k++)
            bytes += share * (double)piece[k].rows * (double)(piece[k].cols / tl_dtype_block(piece[k].dtype)) *
                     (double)tl_dtype_bytes(piece[k].dtype);
        if (!piece)
            bytes += share * (double)((p->rows ? p->rows : 1) * p->cols) *
                     (double)(p->rows ? tl_dtype_bytes(dtype) : sizeof(float));
    }
    return bytes;
}

/* n tokens of one sequence from position 0 on. */
static tl_status run_prompt(const bench_options *o, decoder *d, int64_t n, double *took, tl_error *e) {
    int32_t *ids = calloc(3 * (size_t)n, sizeof *ids), *pos = ids + n, *slot = pos + n, last = (int32_t)(n - 1);
    const float *logits;
    if (!ids) return error_set(e, TL_NOMEM, "no memory for a prompt");
    for (int64_t i = 0; i < n; i++) {
        ids[i] = (int32_t)((i * 7919 + 3) % d->model->config.vocab);
        pos[i] = (int32_t)i;
    }
    const double from = bench_now(o);
    tl_status s = decoder_run(d, n, ids, pos, slot, 1, &last, &logits, e);
    *took = bench_now(o) - from;
    free(ids);
    return s;
}

/* One token for each of `rows` sequences. */
static tl_status run_token(const bench_options *o, decoder *d, int64_t rows, int64_t at, double *took, tl_error *e) {
    int32_t ids[ROWS_MOST], pos[ROWS_MOST], slot[ROWS_MOST], select[ROWS_MOST];
    const float *logits;
    for (int32_t i = 0; i < rows; i++) {
        ids[i] = (int32_t)((at * 7919 + i * 31) % d->model->config.vocab);
        pos[i] = (int32_t)at, slot[i] = select[i] = i;
    }
    const double from = bench_now(o);
    TRY(decoder_run(d, rows, ids, pos, slot, rows, select, &logits, e));
    *took = bench_now(o) - from;
    return TL_OK;
}

static tl_status measure(const bench_options *o, decoder *d, int64_t rows, int64_t prompt, int64_t steps,
                         size_t weights, generate_times *t, tl_error *e) {
    double reads[64], ignored;
    const int rounds = o->rounds ? (int)o->rounds : 3;
    if (prompt) TRY(run_prompt(o, d, prompt, &ignored, e)); /* makes the plan and touches every page */
    for (int r = 0; r < rounds; r++) {
        reads[r] = bench_reads(o, weights);
        if (prompt) TRY(run_prompt(o, d, prompt, &t->prompt[t->prompts++], e));
        for (int64_t pos = 0; pos < steps + WARM && t->tokens < MOST; pos++) {
            double *took = pos < WARM ? &ignored : &t->token[t->tokens++];
            TRY(run_token(o, d, rows, pos, took, e));
        }
    }
    t->bytes = bench_median(reads, rounds);
    return TL_OK;
}

static tl_status generate_one(bench_options *o, tl_model *m, tl_dtype dtype, const char *name, tl_error *e) {
    const int64_t rows = o->batch ? o->batch : 1, steps = o->steps ? o->steps : 64;
    const int64_t prompt = o->prompt >= 0 ? o->prompt : o->model ? 512 : 0;
    const int64_t most = prompt > steps + WARM ? prompt : steps + WARM;
    if (rows > ROWS_MOST) return error_set(e, TL_ARG, "at most %d sequences side by side", ROWS_MOST);
    if (most > m->config.context)
        return error_set(e, TL_ARG, "%lld tokens, but the model's context is %lld", (long long)most,
                         (long long)m->config.context);
    generate_times *t = calloc(1, sizeof *t);
    if (!t) return error_set(e, TL_NOMEM, "no memory for times");
    const double bytes = streamed(m, dtype, rows);
    decoder d;
    tl_status s = decoder_init(&d, m, rows, most, dtype, TL_F32, e);
    if (s == TL_OK) {
        s = measure(o, &d, rows, prompt, steps, (size_t)bytes, t, e);
        decoder_fini(&d);
    }
    if (s == TL_OK && o->common.json) {
        bench_json_row(o);
        printf("{\"dtype\": \"%s\", \"rows\": %lld, \"weight_bytes\": %.0f, \"limit_bytes\": %.4g, "
               "\"limit_flops\": %.4g, \"prompt\": %lld, ",
               name, (long long)rows, bytes, t->bytes, bench_peak(o, dtype), (long long)prompt);
        bench_print_seconds("prompt_seconds", t->prompt, t->prompts);
        printf(", ");
        bench_print_seconds("seconds", t->token, t->tokens);
        printf("}");
    } else if (s == TL_OK) {
        if (prompt) {
            const double mid = bench_median(t->prompt, t->prompts);
            printf("%-5s %8.1f ms a prompt of %lld (%.1f to %.1f)  %7.1f tokens/s\n", name, 1e3 * mid,
                   (long long)prompt, 1e3 * t->prompt[0], 1e3 * t->prompt[t->prompts - 1], (double)prompt / mid);
        }
        const double mid = bench_median(t->token, t->tokens);
        printf("%-5s %8.3f ms a token (%.3f to %.3f)  %7.1f tokens/s  %5.1f GB/s of weights, %.0f %% of the limit\n",
               name, 1e3 * mid, 1e3 * t->token[0], 1e3 * t->token[t->tokens - 1], (double)rows / mid,
               1e-9 * bytes / mid, t->bytes > 0 ? 100 * bytes / mid / t->bytes : 0);
    }
    free(t);
    return s;
}

tl_status bench_generate(bench_options *o, tl_error *e) {
    tl_model *m;
    if (o->model) {
        TRY(model_open_mapped(o->engine, o->model, &m, e));
        const char *type = m->flat ? "f32" : tl_dtype_name(m->mapped.piece[PARAM_PIECES * (m->params.n > 1)].dtype);
        for (size_t i = 0; !m->flat && i < m->params.n; i++) /* the most frequent kind of matrix */
            if (m->params.list[i].role == ROLE_DOWN) type = tl_dtype_name(m->mapped.piece[i * PARAM_PIECES].dtype);
        tl_status s = generate_one(o, m, TL_F32, type, e);
        model_close(m);
        return s;
    }
    TRY(bench_random_model(o, "gpt2", &m, e));
    tl_status s = TL_OK;
    if (o->dtype != TL_BF16) s = generate_one(o, m, TL_F32, "f32", e);
    if (s == TL_OK && o->dtype != TL_F32) s = generate_one(o, m, TL_BF16, "bf16", e);
    model_close(m);
    return s;
}
