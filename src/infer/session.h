/* A session: one sequence from text to text. Prompt tokens are computed when the next token is asked for, in one pass;
 * what the cache holds already is not computed again. */
#ifndef INFER_SESSION_H
#define INFER_SESSION_H

#include "infer/decoder.h"
#include "infer/sampler.h"

struct tl_session {
    tl_model *model;
    tl_session_options o;
    decoder dec;
    sampler pick;
    token_list source; /* beside an encoder: what was said; seen is then the answer behind an end-of-document id */
    bool encoded;      /* it is in the cache */
    token_list seen;   /* every token of the sequence, prompt and generated */
    int64_t computed;  /* the first so many are in the cache */
    int64_t prefix;    /* objective prefix: what was seen when the first token was computed, 0: nothing was yet */
    int64_t generated;
    int64_t dropped;     /* tokens that a window of the cache has forgotten: seen has those that are kept */
    const float *logits; /* of the last token, NULL before the first run */
    token_decoder text;  /* ids to whole characters */
    bool text_open;
    str out;      /* characters decoded and not given out yet */
    size_t given; /* bytes at the front of out that the last piece showed */
    char **stop;  /* own copies */
    size_t *stop_len;
    bool finished;
    int32_t *scratch; /* positions and slots of a prompt */
    size_t scratch_cap;
};

tl_status session_create(tl_model *m, const tl_session_options *o, struct tl_session **out, tl_error *err);
void session_destroy(struct tl_session *s);
tl_status session_text(struct tl_session *s, const char *text, size_t n, bool special, tl_error *err);
tl_status session_ids(struct tl_session *s, const int32_t *ids, size_t n, tl_error *err);
/* The ids of a prompt appended to l; the first of a text gets what stands before texts. */
tl_status session_prompt_ids(const tl_model *m, const char *text, size_t n, bool special, token_list *l, tl_error *err);
/* A decoder for the tokens behind `before` (-1: none), which stands in the same text: a blank that they begin with is
 * theirs, only that of a text's first word is not. out is work space and left as it was. */
tl_status session_decoder_init(const tl_model *m, int32_t before, token_decoder *d, str *out, tl_error *err);
/* The id that ends a text, -1 if there is none. */
int32_t session_end_of(const tl_model *m);
/* Is it that one, or another that the model's files name? */
bool session_is_end(const tl_model *m, int32_t id);
tl_status session_next(struct tl_session *s, tl_piece *piece, tl_error *err);
tl_status session_logits(struct tl_session *s, const float **logits, tl_error *err);
int64_t session_rewind(struct tl_session *s, int64_t n);
void session_reset(struct tl_session *s);
/* Another session that goes on from where s is: its own copy of the tokens, of what was computed and of text not shown.
 */
tl_status session_fork(const struct tl_session *s, struct tl_session **out, tl_error *err);

#endif
