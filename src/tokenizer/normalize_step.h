#ifndef TOKENIZER_NORMALIZE_STEP_H
#define TOKENIZER_NORMALIZE_STEP_H

#include "tokenizer/normalize.h"

/* One step: a to b (empty before). */
tl_status normalize_apply(const normalize_step *s, const unicode_table *u, const text_buf *a, text_buf *b, tl_error *e);
/* Unicode forms and case, by utf8proc: normalize_form.c */
tl_status normalize_form(normalize_kind kind, const text_buf *a, text_buf *b, tl_error *e);
void normalize_lower(const text_buf *a, text_buf *b);
bool normalize_is_mark(uint32_t cp); /* Mn, Mc, Me */
bool normalize_is_mn(uint32_t cp);
bool normalize_is_control(uint32_t cp); /* Cc, Cf, Co, Cs */
void normalize_precompiled(const normalize_step *s, const text_buf *a, text_buf *b);

#endif
