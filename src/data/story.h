/* data/story: children's stories drawn from a probabilistic grammar of our own. Because every choice has a known
 * probability and every story exactly one derivation, -log p of a story is the exact entropy of its text: a language
 * model trained on them has a floor that is known, and a text can be judged by a parser.
 * The grammar is data (story_en.c, story_zh.c); story.c walks it, forwards with dice or along a given text. */
#ifndef DATA_STORY_H
#define DATA_STORY_H

#include "base/str.h"

typedef enum story_lang { STORY_EN, STORY_ZH } story_lang;

/* "en" or "zh"; false for any other name. */
bool story_lang_parse(const char *name, story_lang *out);

/* Appends story number `index` of a seed to out; stories are independent draws and any number can be had directly.
 * *nats (may be NULL) gets its exact -log p, the end included: a model that is perfect spends this on the story's
 * tokens and its end-of-document id together. [fails: NOMEM] [threads: any] */
tl_status story_generate(story_lang lang, uint64_t seed, uint64_t index, str *out, double *nats);

/* True if text is a whole story of the grammar; then *nats gets its exact -log p. If not, *where gets the length of
 * the longest prefix that some story starts with (n itself: the text is fine but stops early). Both may be NULL. */
bool story_score(story_lang lang, const char *text, size_t n, double *nats, size_t *where);
/* True if some story starts with text. */
bool story_prefix_ok(story_lang lang, const char *text, size_t n);
/* -log of the probability that a story starts with text (infinite if none does): differences between a prefix and the
 * next longer one are what each byte costs the best possible model. Takes as long as parsing the prefix. */
double story_prefix_nats(story_lang lang, const char *text, size_t n);
/* Number of derivations of text: 0 or 1, as tests make sure. */
size_t story_derivations(story_lang lang, const char *text, size_t n);

/* Distinct plain words and phrases in the grammar's word classes. */
size_t story_word_count(story_lang lang);
/* An upper bound of a story's length in bytes, so that a context can be chosen that holds every story. */
size_t story_max_bytes(story_lang lang);

#endif
