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
