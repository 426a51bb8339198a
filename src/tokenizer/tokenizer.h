/* tokenizer: text to token ids and back. Owns vocabularies, splitting, merging, training of byte-level BPE and
 * chat templates. Refuses: models, tensors, devices; it reads files only through base/ and format/.
 * Layer: above format, below graph and data.
 *
 * A tokenizer is immutable once made and may be used by any number of threads at once. */
#ifndef TOKENIZER_TOKENIZER_H
#define TOKENIZER_TOKENIZER_H

#include "base/mem.h"
#include "base/str.h"

typedef struct tl_tokenizer tokenizer;

/* ---- lists of ids ---------------------------------------------------------------------------- */

typedef struct token_span { /* bytes [begin, end) of the input text a token stands for */
    size_t begin, end;
} token_span;

/* A growing array of ids; encode appends. span is kept only when want_spans is set before the first append
 * (tokens that stand for no text, like an added BOS, get an empty span). */
typedef struct token_list {
    const tl_allocator *alloc;
    int32_t *id; /* (n) */
    size_t n, cap;
    token_span *span; /* (n) or NULL */
    size_t span_cap;
    bool want_spans;
} token_list;

void token_list_init(token_list *l, const tl_allocator *a);
void token_list_fini(token_list *l);
bool token_list_reserve(token_list *l, size_t extra); /* room for extra more; false: no memory */

/* ---- create ---------------------------------------------------------------------------------- */

/* Opens a tokenizer, the format told by content: tokenizer.json (Hugging Face 1.0 or ours), vocab.json beside
 * merges.txt (either path), a tiktoken rank file, a SentencePiece model, a GGUF file's tokenizer keys, or a
 * directory that holds one of them. "bytes" gives the byte tokenizer.
 * [owns: caller, tokenizer_close] [fails: NOMEM, IO, NOTFOUND, FORMAT, CONFIG, UNSUPPORTED, LIMIT] */
tl_status tokenizer_open(const tl_allocator *a, const char *path, tokenizer **out, tl_error *e);
/* A tokenizer.json held in memory. */
tl_status tokenizer_from_json(const tl_allocator *a, const char *text, size_t n, tokenizer **out, tl_error *e);
/* Ids 0..255 are the bytes, 256 ends a document. */
tl_status tokenizer_from_bytes(const tl_allocator *a, tokenizer **out, tl_error *e);
/* One id for each distinct code point of text, sorted by code point; then end of document; then unknown.
 * Bytes that are not UTF-8 are left out (they encode to unknown). */
tl_status tokenizer_from_chars(const tl_allocator *a, const char *text, size_t n, tokenizer **out, tl_error *e);
void tokenizer_close(tokenizer *t); /* NULL is fine */

/* ---- ask ------------------------------------------------------------------------------------- */

typedef enum tokenizer_role {
    TOKENIZER_BOS, /* begins a text */
    TOKENIZER_EOS, /* ends a text */
    TOKENIZER_EOT, /* ends a chat turn; the same as EOS where there is no other */
    TOKENIZER_EOD, /* stands between packed documents; EOS where there is no other */
    TOKENIZER_PAD,
    TOKENIZER_UNK,
    TOKENIZER_ROLES
} tokenizer_role;

int64_t tokenizer_vocab(const tokenizer *t);                        /* largest id + 1 */
int32_t tokenizer_role_id(const tokenizer *t, tokenizer_role role); /* -1: none */
/* The vocabulary entry of id: raw bytes for byte-level vocabularies; SentencePiece's keep U+2581 for a blank and <0xNN>
 * for a byte (decoding turns them into text). *n: bytes. An id outside the vocabulary, or a hole in it, gives NULL.
 * Borrowed. */
const char *tokenizer_text(const tokenizer *t, int32_t id, size_t *n);
bool tokenizer_is_special(const tokenizer *t, int32_t id);
/* The id of a special or added token by its exact content, else of a vocabulary entry; -1: none. */
int32_t tokenizer_find(const tokenizer *t, const char *text, size_t n);
/* "bytes", "chars", "bpe", "unigram", "wordpiece", "wordlevel" */
const char *tokenizer_kind(const tokenizer *t);
/* How text falls into pieces: the name of a pattern ("gpt2", "cl100k" ...) where one of ours does it, else the
 * pre-tokenizer as JSON; NULL: not at all. Borrowed. */
const char *tokenizer_split(const tokenizer *t);
size_t tokenizer_merges(const tokenizer *t);   /* of a BPE */
bool tokenizer_byte_level(const tokenizer *t); /* vocabulary entries are bytes: every text comes back whole */
/* The chat template found beside the tokenizer (Jinja text), NULL if there is none. Borrowed. */
const char *tokenizer_chat_template(const tokenizer *t);

/* ---- encode ---------------------------------------------------------------------------------- */

enum {
    TOKENIZER_PARSE = 1, /* special tokens written in the text become their ids; without it they are plain text */
    TOKENIZER_ADD = 2,   /* add what the tokenizer's post-processor adds around one text (BOS, EOS, [CLS] ...) */
};

/* Appends the ids of text[0..n) to out. Bytes that are not UTF-8 are kept by byte-level vocabularies and become
 * U+FFFD or unknown elsewhere. On an error out has its old length. [threads: any, on one tokenizer]
 * [fails: NOMEM, LIMIT, UNSUPPORTED] */
tl_status tokenizer_encode(const tokenizer *t, const char *text, size_t n, unsigned flags, token_list *out,
                           tl_error *e);

/* Many documents on several threads: text[i][0..n[i]) appends to out[i]. The ids do not depend on threads. */
tl_status tokenizer_encode_many(const tokenizer *t, const char *const *text, const size_t *n, size_t count,
                                unsigned flags, size_t threads, token_list *out, tl_error *e);

/* Streaming: text arrives in parts of any size, ids leave as soon as no later byte can change them. The ids are
 * those of the whole text. Holds the part not yet decided: at most a piece, or, for a tokenizer without a
 * splitter, a document. One thread at a time. */
typedef struct token_encoder token_encoder;
tl_status token_encoder_open(const tokenizer *t, unsigned flags, size_t threads, token_encoder **out, tl_error *e);
tl_status token_encoder_push(token_encoder *s, const char *text, size_t n, token_list *out, tl_error *e);
tl_status token_encoder_finish(token_encoder *s, token_list *out, tl_error *e); /* then ready for a new text */
void token_encoder_close(token_encoder *s);
size_t token_encoder_held(const token_encoder *s); /* bytes waiting inside */

/* ---- decode ---------------------------------------------------------------------------------- */

enum {
    TOKENIZER_SKIP = 1,    /* leave special tokens out */
    TOKENIZER_REPLACE = 2, /* bytes that are not UTF-8 become U+FFFD, one for each maximal bad subpart */
};

/* Appends the text of ids to out. An id outside the vocabulary is an ARG error. */
tl_status tokenizer_decode(const tokenizer *t, const int32_t *id, size_t n, unsigned flags, str *out, tl_error *e);

/* Incremental decoding: each push appends only what is certain: whole UTF-8 characters (a character split over
 * several tokens waits for its rest). finish gives what is left, broken characters as U+FFFD. */
typedef struct token_decoder {
    const tokenizer *t;
    unsigned flags;
    bool started;    /* a first token was there */
    size_t strip;    /* blanks still to be taken from the beginning */
    uint8_t held[8]; /* an unfinished character */
    size_t held_n;
    int32_t *id; /* all ids so far, only for decoders that need context (WordPiece, BPEDecoder ...) */
    size_t id_n, id_cap, sent;
} token_decoder;
void token_decoder_init(token_decoder *d, const tokenizer *t, unsigned flags);
tl_status token_decoder_push(token_decoder *d, int32_t id, str *out, tl_error *e);
tl_status token_decoder_finish(token_decoder *d, str *out, tl_error *e); /* frees; init again for a new text */

/* ---- save ------------------------------------------------------------------------------------ */

/* Writes a file tokenizer_open reads back to the same ids: tokenizer.json of Hugging Face for BPE, Unigram,
 * WordPiece and WordLevel; a small JSON of ours for bytes and chars. */
tl_status tokenizer_save(const tokenizer *t, const char *path, tl_error *e);
/* Always the form Hugging Face's library loads, for bytes and chars too. */
tl_status tokenizer_save_hf(const tokenizer *t, const char *path, tl_error *e);

/* ---- train ----------------------------------------------------------------------------------- */

typedef struct tokenizer_train_options {
    size_t vocab;               /* upper bound of the vocabulary: 256 bytes + merges + specials */
    uint64_t min_count;         /* a pair below it is not merged; 0 means 1... pairs must occur at least once */
    const char *split;          /* "gpt2", "cl100k", "o200k", "llama3", "qwen2", "none", or a PCRE2 pattern */
    const char *const *special; /* borders of documents, never merged; get the last ids */
    size_t special_n;
    size_t threads;
    /* Called now and then with phase ("read", "merge"), done and total in bytes or merges; may be NULL.
     * Returning false cancels. */
    bool (*progress)(void *user, const char *phase, uint64_t done, uint64_t total);
    void *user;
} tokenizer_train_options;

typedef struct tokenizer_train_report {
    uint64_t bytes, pieces, distinct, merges;
} tokenizer_train_report;

/* Byte-level BPE (Sennrich et al. 2016, over bytes as in GPT-2). Most frequent pair first, ties to the
 * lexicographically greater pair of byte strings. Memory grows with distinct pieces, not with the corpus. */
typedef struct token_trainer token_trainer;
tl_status token_trainer_open(const tl_allocator *a, const tokenizer_train_options *o, token_trainer **out, tl_error *e);
tl_status token_trainer_text(token_trainer *r, const char *text, size_t n, tl_error *e); /* one document */
tl_status token_trainer_file(token_trainer *r, const char *path, tl_error *e); /* streamed; specials split it */
/* Learns the merges. The pieces counted so far are given up on the way: what memory they take, merging can use. */
tl_status token_trainer_finish(token_trainer *r, tokenizer **out, tokenizer_train_report *report, tl_error *e);
void token_trainer_close(token_trainer *r);

/* ---- chat templates -------------------------------------------------------------------------- */

typedef struct chat_message {
    const char *role; /* "system", "user", "assistant" ... */
    const char *text;
} chat_message;

/* Ids of a conversation in the format of a model family. Only the format's own markers become special tokens;
 * what the messages say can not. family NULL: found from the tokenizer's template by fingerprint; by name:
 * "chatml", "llama2", "llama3", "mistral", "mistral-v1", "gemma", "phi3", "zephyr". open_turn starts the assistant's
 * answer. text, if not NULL, gets the conversation as one string. out may be NULL. [fails: NOTFOUND no template;
 * UNSUPPORTED unknown template; ARG a role the family does not know] */
tl_status tokenizer_chat(const tokenizer *t, const char *family, const chat_message *m, size_t n, bool open_turn,
                         token_list *out, str *text, tl_error *e);
/* The same, whole, with a byte for each id appended to mark: 1 where it is (part of) what an assistant says or the
 * marker that ends it, which is what a model learns from. Family "plain" is known here: lines "User: ", "Assistant: ".
 * out must have been initialised with want_spans. */
tl_status tokenizer_chat_marked(const tokenizer *t, const char *family, const chat_message *m, size_t n,
                                token_list *out, str *mark, tl_error *e);
const char *tokenizer_chat_family(const tokenizer *t); /* by fingerprint; NULL: none or unknown */

#endif
