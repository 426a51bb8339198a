/* Encoding of one text by one thread. An encoder is the scratch memory that needs: piece cache, merge lists,
 * normalized text. Tokenizers keep idle encoders in a pool. */
#ifndef TOKENIZER_ENCODE_H
#define TOKENIZER_ENCODE_H

#include "tokenizer/internal.h"

typedef struct encoder encoder;

tl_status encoder_take(const tokenizer *t, encoder **out, tl_error *e); /* from the pool, or new */
void encoder_give(encoder *x);                                          /* back to it */
void encoder_drop_pool(tokenizer *t);

/* Encodes text[0..n), whose first byte is byte base of the whole text (spans count from there). final: the text
 * ends here; otherwise only what no later byte can change is encoded. *used: bytes encoded. */
tl_status encoder_run(encoder *x, const char *text, size_t n, size_t base, unsigned flags, bool final, size_t *used,
                      token_list *out, tl_error *e);
/* Does the text to come go on between two added tokens, in the middle of what was normalized as one? Where a stream is
 * cut there; a new text begins outside. */
bool encoder_inside(const encoder *x);
void encoder_set_inside(encoder *x, bool inside);
/* Can this tokenizer decide anything before the text's end? */
bool encoder_streams(const tokenizer *t);

#endif
