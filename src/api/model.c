#include "api/api.h"
#include "infer/session.h"

#include <string.h>

/* ---- model --------------------------------------------------------------------------------------------- */

tl_status tl_model_open(tl_engine *e, const char *path, tl_model **out, tl_error *err) {
    return model_open(e, path, out, err);
}

tl_status tl_model_create(tl_engine *e, const char *config, tl_tokenizer *t, uint64_t seed, tl_model **out,
                          tl_error *err) {
    model_config c;
    char unknown[400];
    *out = NULL;
    TRY(config_parse(config, &c, unknown, sizeof unknown, err));
    const graph_host *host = (const graph_host *)e;
    if (unknown[0]) log_line(&host->log, TL_LOG_WARN, "keys of the configuration not known: %s", unknown);
    if (t) model_fit_tokenizer(&c, t);
    return model_create(e, &c, t, seed, out, err);
}

tl_status tl_model_save(const tl_model *m, const char *path, tl_error *err) {
    return model_save(m, path, err);
}

void tl_model_close(tl_model *m) {
    model_close(m);
}

tl_tokenizer *tl_model_tokenizer(tl_model *m) {
    return m->tokenizer;
}

void tl_model_info_get(const tl_model *m, tl_model_info *info) {
    const model_config *c = &m->config;
    *info = (tl_model_info){.layers = c->layers,
                            .width = c->width,
                            .heads = c->heads,
                            .kv_heads = c->kv_heads,
                            .head_dim = c->head_dim,
                            .mlp = c->mlp,
                            .vocab = c->vocab,
                            .context = c->context,
                            .params = m->params.count,
                            .params_no_embedding = m->params.count_no_embedding,
                            .weight_bytes = (size_t)m->params.total * sizeof(float),
                            .type = c->type};
}

/* ---- tensors of a model ------------------------------------------------------------------------------------- */

static bool tensor_find(const tl_model *m, size_t i, tensor_place *out) {
    for (size_t p = 0; p < m->params.n; p++) {
        size_t n = (size_t)params_piece_total(&m->config, &m->params.list[p], FORMAT_HF);
        if (i < n) {
            out->param = &m->params.list[p];
            params_piece_get(&m->config, out->param, FORMAT_HF, (int)i, &out->piece);
            return true;
        }
        i -= n;
    }
    return false;
}

size_t tl_model_tensors(const tl_model *m) {
    size_t n = 0;
    for (size_t p = 0; p < m->params.n; p++) n += (size_t)params_piece_total(&m->config, &m->params.list[p], FORMAT_HF);
    return n;
}

tl_status tensor_need(const tl_model *m, size_t i, tensor_place *at, tl_error *err) {
    if (!tensor_find(m, i, at)) return error_set(err, TL_ARG, "the model has no tensor %zu", i);
    return TL_OK;
}

static tl_status tensor_numbers(const tl_model *m, tl_error *err) {
    if (m->flat) return TL_OK;
    return error_set(err, TL_STATE, "the model's weights are not in memory as numbers");
}

tl_status tl_model_tensor_info(const tl_model *m, size_t i, tl_model_tensor *out, tl_error *err) {
    tensor_place at;
    memset(out, 0, sizeof *out);
    TRY(tensor_need(m, i, &at, err));
    const param_piece *p = &at.piece;
    memcpy(out->name, p->name, sizeof out->name);
    out->ndim = p->rows ? 2 : 1;
    out->dim[0] = p->rows ? (p->transposed ? p->cols : p->rows) : p->cols;
    out->dim[1] = p->rows ? (p->transposed ? p->rows : p->cols) : 1;
    if (m->flat &&
        !((const graph_host *)(const void *)m->engine)->dev->memory) /* there a pointer would show what it was once */
        out->data = params_piece_direct(p, at.param, m->flat + at.param->offset);
    return TL_OK;
}

tl_status tl_model_tensor_get(const tl_model *m, size_t i, float *to, tl_error *err) {
    tensor_place at;
    TRY(tensor_need(m, i, &at, err));
    TRY(tensor_numbers(m, err));
    TRY(model_pull(m, err));
    params_piece_out(&at.piece, at.param, m->flat + at.param->offset, to);
    return TL_OK;
}

tl_status tl_model_tensor_set(tl_model *m, size_t i, const float *from, tl_error *err) {
    tensor_place at;
    TRY(tensor_need(m, i, &at, err));
    TRY(tensor_numbers(m, err));
    TRY(model_pull(m, err));
    params_piece_in(&at.piece, at.param, from, m->flat + at.param->offset);
    if (m->memory) return model_push(m, err);
    return m->flat16 ? model_bf16(m, err) : TL_OK;
}

/* ---- session ------------------------------------------------------------------------------------------------ */

tl_status tl_session_create(tl_model *m, const tl_session_options *o, tl_session **out, tl_error *err) {
    return session_create(m, o, out, err);
}

void tl_session_destroy(tl_session *s) {
    session_destroy(s);
}

tl_status tl_session_text(tl_session *s, const char *text, size_t n, tl_error *err) {
    return session_text(s, text, n, false, err);
}

tl_status tl_session_ids(tl_session *s, const int32_t *ids, size_t n, tl_error *err) {
    return session_ids(s, ids, n, err);
}

tl_status tl_session_next(tl_session *s, tl_piece *piece, tl_error *err) {
    return session_next(s, piece, err);
}

tl_status tl_session_logits(tl_session *s, const float **logits, tl_error *err) {
    return session_logits(s, logits, err);
}

int64_t tl_session_position(const tl_session *s) {
    return (int64_t)s->seen.n;
}

int64_t tl_session_rewind(tl_session *s, int64_t n) {
    return session_rewind(s, n);
}

void tl_session_reset(tl_session *s) {
    session_reset(s);
}

const int32_t *tl_session_tokens(const tl_session *s, size_t *n) {
    *n = s->seen.n;
    return s->seen.id;
}

tl_status tl_session_fork(const tl_session *s, tl_session **out, tl_error *err) {
    return session_fork(s, out, err);
}
