/* What tests of sessions and decoders share: an engine of two threads as *state, and the logits of what comes next. */
#ifndef TESTS_INFER_SESSIONS_H
#define TESTS_INFER_SESSIONS_H

#include "support/testing.h"

#include "infer/session.h"

/* out (vocabulary) */
static inline void next_of(struct tl_session *s, float *out) {
    const float *z;
    tl_error e;
    assert_ok(session_logits(s, &z, &e), &e);
    memcpy(out, z, (size_t)s->model->config.vocab * sizeof *out);
}

static int setup(void **state) {
    static tl_engine *engine;
    *state = NULL;
    if (tl_engine_create(&(tl_engine_options){.threads = 2}, &engine, NULL) != TL_OK) return -1;
    *state = engine;
    return 0;
}
static int teardown(void **state) {
    tl_engine_destroy(*state);
    return 0;
}

#endif
