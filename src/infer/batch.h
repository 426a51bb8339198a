/* Many prompts at once: each in a slot of one cache, a step for all of them together; a slot that is done takes the
 * next prompt. A sequence's random numbers are keyed by its number, so that its text does not depend on its neighbours
 * but for the rounding of products over more rows. */
#ifndef INFER_BATCH_H
#define INFER_BATCH_H

#include "infer/session.h"

typedef struct batch_text {
    size_t index;     /* of the prompt */
    const char *text; /* what was written behind it; valid during the call */
    size_t size;
    int64_t prompt, tokens; /* ids */
    tl_finish finish;
} batch_text;

/* o: as of a session; its context is that of each sequence. slots: sequences at a time. told hears of every text when
 * it is finished, in whatever order that is; false ends it: CANCELLED. [fails: STATE no tokenizer; LIMIT a prompt that
 * does not fit, by its number; ARG, NOMEM] */
tl_status batch_run(tl_model *m, const tl_session_options *o, int64_t slots, const char *const *prompt, size_t n,
                    bool special, bool (*told)(void *user, const batch_text *t), void *user, tl_error *err);

#endif
