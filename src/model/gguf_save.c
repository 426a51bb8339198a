/* A model as a GGUF file. */
#include "model/gguf.h"
#include "model/recipe.h"

#include "base/half.h"
#include "tensor/quantize.h"
#include "tensor/tensor.h"
#include "tokenizer/save_gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct out_piece {
    size_t param; /* or SIZE_MAX: factor k */
    param_piece piece;
    tl_dtype dtype;
} out_piece;

typedef struct saver {
    const tl_model *m;
    const gguf_save_options *o;
    gguf_writer w;
    out_piece *list;
    size_t n;
    gguf_factors factor[2];
    float *scratch;
    size_t scratch_n;
} saver;

/* The rows of one tensor, encoded by all threads. */
typedef struct encode_job {
    tl_dtype dtype;
    const float *x;
    uint8_t *to;
    int64_t n, step, block;
} encode_job;

static void encode_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)phase, (void)worker;
    const encode_job *j = t->exec->state;
    int64_t from = lo * j->step, end = hi * j->step < j->n ? hi * j->step : j->n;
    if (from < end)
        quantize_encode(j->dtype, j->x + from, end - from,
                        j->to + (size_t)(from / j->block) * tl_dtype_bytes(j->dtype));
}

static void encode(const tl_model *m, tl_dtype dtype, const float *x, int64_t n, void *to) {
    device *d = ((const graph_host *)m->engine)->dev;
    encode_job j = {dtype, x, to, n, 64 * 256, tl_dtype_block(dtype)};
    kernel_exec exec = {
        .name = "encode", .run = encode_run, .phases = 1, .tiles = {(n + j.step - 1) / j.step}, .state = &j};
    kernel_task task = {.exec = &exec, .workers = d->threads};
    d->launch(d, &task);
}

static double error_of(tl_dtype t, const float *x, int64_t n, const uint8_t *b) {
    enum { PART = 256 };
    double off = 0, all = 0;
    float y[PART];
    for (int64_t i = 0; i < n; i += PART) {
        int64_t k = n - i < PART ? n - i : PART;
        quantize_decode(t, b + (size_t)(i / tl_dtype_block(t)) * tl_dtype_bytes(t), k, y);
        for (int64_t j = 0; j < k; j++) {
            double d = (double)x[i + j] - (double)y[j];
            off += d * d;
            all += (double)x[i + j] * (double)x[i + j];
        }
    }
    return all > 0 ? sqrt(off / all) : 0;
}

static void tell(const saver *s, size_t i, const void *buf) {
    const out_piece *o = &s->list[i];
    int64_t n = params_piece_count(&o->piece);
    gguf_saved t = {.name = o->piece.name,
                    .dtype = o->dtype,
                    .count = n,
                    .bytes = (size_t)(n / tl_dtype_block(o->dtype)) * tl_dtype_bytes(o->dtype),
                    .error = o->dtype == TL_F32 ? 0 : error_of(o->dtype, s->scratch, n, buf),
                    .index = i,
                    .n = s->n};
    s->o->saved(s->o->user, &t);
}

static tl_status save_fill(void *user, size_t i, void *buf, tl_error *e) {
    saver *s = user;
    const out_piece *o = &s->list[i];
    if (o->param == SIZE_MAX) {
        const gguf_factors *f = &s->factor[o->piece.row];
        memcpy(buf, f->x, (size_t)f->n * sizeof *f->x);
        return TL_OK;
    }
    const model_param *q = &s->m->params.list[o->param];
    int64_t n = params_piece_count(&o->piece);
    params_piece_out(&o->piece, q, s->m->flat + q->offset, s->scratch);
    for (int64_t k = 0; k < n && tensor_is_quantized(o->dtype); k++)
        if (!isfinite(s->scratch[k])) {
            error_set(e, TL_NUMERIC, "element %lld is not a finite number and has no quantized form", (long long)k);
            error_at_tensor(e, o->piece.name);
            return TL_NUMERIC;
        }
    encode(s->m, o->dtype, s->scratch, n, buf);
    if (s->o->saved) tell(s, i, buf);
    return TL_OK;
}

static void add_tensor(saver *s, size_t param, const param_piece *p, tl_dtype dtype) {
    s->list[s->n++] = (out_piece){param, *p, dtype};
    size_t n = (size_t)params_piece_count(p);
    if (n > s->scratch_n) s->scratch_n = n;
    int64_t ne[4] = {p->cols, p->experts ? p->rows / p->experts : p->rows, p->experts};
    gguf_put_tensor(&s->w, p->name, p->experts ? 3 : p->rows ? 2 : 1, ne, gguf_type_of(dtype));
}

static tl_status list_tensors(saver *s, tl_error *e) {
    const tl_model *m = s->m;
    s->list = mem_new(m->alloc, m->params.n * PARAM_PIECES + 3, sizeof *s->list);
    if (!s->list) return error_set(e, TL_NOMEM, "no memory to save a model");
    for (size_t i = 0; i < m->params.n; i++) {
        param_piece piece[PARAM_PIECES];
        int n = params_pieces(&m->config, &m->params.list[i], FORMAT_GGUF, piece);
        for (int k = 0; k < n; k++) {
            tl_dtype t = TL_F32;
            if (s->o->dtype && piece[k].rows) t = s->o->dtype(s->o->user, &m->config, &m->params.list[i], &piece[k]);
            if (piece[k].cols % tl_dtype_block(t)) t = TL_F16; /* rows that are no whole blocks */
            add_tensor(s, i, &piece[k], t);
        }
    }
    int n = gguf_factors_of(&m->config, s->factor);
    for (int k = 0; k < n; k++) {
        param_piece p = {.cols = s->factor[k].n, .row = k};
        snprintf(p.name, sizeof p.name, "%s", s->factor[k].name);
        add_tensor(s, SIZE_MAX, &p, TL_F32);
    }
    /* readers of gpt2 want the head by itself even where it is the embedding */
    if (m->config.tied && recipe_find(m->config.type)->keys == KEYS_GPT2) {
        out_piece o = s->list[0];
        snprintf(o.piece.name, sizeof o.piece.name, "output.weight");
        add_tensor(s, o.param, &o.piece, o.dtype);
    }
    return TL_OK;
}

static tl_status save_all(saver *s, const char *path, tl_error *e) {
    const tl_model *m = s->m;
    TRY(config_write_gguf(&m->config, &s->w, e));
    if (m->config.window && strcmp(m->config.type, "gemma2") != 0)
        log_line(&m->log, TL_LOG_WARN,
                 "%s: programs that ignore the window of this architecture (llama.cpp does) answer "
                 "otherwise behind %lld tokens",
                 path, (long long)m->config.window);
    if (m->config.experts && !m->config.expert_norm)
        log_line(
            &m->log, TL_LOG_WARN,
            "%s: the weights of a token's experts do not sum to one here; programs that make them (llama.cpp does) "
            "answer otherwise",
            path);
    gguf_put_u32(&s->w, "general.file_type", s->o->file_type);
    gguf_put_u32(&s->w, "general.quantization_version", 2);
    if (m->tokenizer) TRY(tokenizer_put_gguf(m->tokenizer, m->config.vocab, m->config.bos, m->config.eos, &s->w, e));
    TRY(list_tensors(s, e));
    s->scratch = mem_take(m->alloc, s->scratch_n * sizeof *s->scratch);
    if (!s->scratch) return error_set(e, TL_NOMEM, "no memory to save a model");
    return gguf_write(&s->w, path, save_fill, s, e);
}

tl_status model_write_gguf(const tl_model *m, const char *path, const gguf_save_options *o, tl_error *err) {
    static const gguf_save_options plain;
    saver s = {.m = m, .o = o ? o : &plain};
    if (!m->flat) return error_set(err, TL_STATE, "the weights are not in memory as numbers");
    TRY(model_pull(m, err));
    gguf_writer_init(&s.w, m->alloc);
    tl_status st = save_all(&s, path, err);
    if (st != TL_OK && err && !err->file[0]) error_at_file(err, path);
    if (s.scratch) mem_give(m->alloc, s.scratch, s.scratch_n * sizeof *s.scratch);
    mem_free(m->alloc, s.list);
    gguf_writer_fini(&s.w);
    return st;
}
