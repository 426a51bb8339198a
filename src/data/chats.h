/* data/chats: conversations and prompts with their completions as examples: ids, of which only the answers are learned.
 * A line of a .jsonl file is an object with
 *   "messages": [{"role": "user", "content": "..."}, ...]           every assistant's turn is learned, with its end
 *   "prompt": "...", "completion": "..."                            the completion and the end of the document
 *   "source": "...", "target": "..."                                the same: what a translation is called
 *   "prompt": [messages], "completion": [messages]                  the turns of the completion
 * Contents may also be lists of {"type": "text", "text": "..."}. */
#ifndef DATA_CHATS_H
#define DATA_CHATS_H

#include "data/corpus.h"
#include "data/tokens.h"
#include "tokenizer/tokenizer.h"

typedef struct chats_report {
    int64_t examples, ids, learned; /* ids of answers */
} chats_report;

/* Are these files of examples? Told by the first object of the first file: JSON lines with "messages", with
 * "prompt" and "completion", or with "source" and "target". False for what cannot be opened: whoever opens it next says
 * why. */
bool chats_are(const tl_allocator *a, const char *const *file, size_t n);
/* All of them into w. family: of the chat template, as tokenizer_chat takes it; NULL: the tokenizer's own, "plain" if
 * it has none that is known. progress: as in tokenize_options.
 * [fails: FORMAT, ARG with file and line: no answer, a role that has no place, contents that are no text; CANCELLED] */
tl_status chats_write(const tl_allocator *a, const char *const *file, size_t n, const tokenizer *t, const char *family,
                      shard_writer *w, bool (*progress)(void *user, int64_t documents, int64_t bytes), void *user,
                      chats_report *out, tl_error *e);

#endif
