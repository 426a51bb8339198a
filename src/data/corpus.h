/* data/corpus: documents out of files. Text files (a file is one document, or several with a separator between them),
 * JSON lines (one document a line, in a text field), both also as gzip or zstd, folders of them, standard input.
 * Everything is a stream: a document longer than the buffer arrives in parts, so memory is bounded. */
#ifndef DATA_CORPUS_H
#define DATA_CORPUS_H

#include "base/str.h"

typedef enum corpus_format {
    CORPUS_AUTO, /* JSON lines by name: .jsonl, .ndjson, also before .gz and .zst; anything else is text */
    CORPUS_TEXT,
    CORPUS_JSONL,
} corpus_format;

typedef struct corpus_options {
    corpus_format format;
    const char *text_field; /* of JSON lines; NULL: "text" */
    const char *separator;  /* between the documents of a text file, e.g. "\n\n" or "<|endoftext|>"; NULL: none. Line
                               breaks at a document's beginning, and documents of nothing else, are dropped */
    bool objects;           /* the documents of JSON lines are the lines themselves, objects as they are written */
    size_t max_line;        /* bytes of one JSON line; 0: 256 MiB */
} corpus_options;

/* A piece of a document. text is valid until the next call; it may cut a UTF-8 character in two. */
typedef struct corpus_part {
    const char *text;
    size_t n; /* may be 0 with last */
    bool last;
    const char *file; /* path as given or found */
    int64_t line;     /* where the document begins, 1-based */
} corpus_part;

typedef struct corpus corpus;

/* Folders are searched for .txt .text .md .jsonl .ndjson, also with .gz or .zst behind, hidden names left out, sorted
 * by name; files that are named themselves may be called anything. "-" is standard input. o may be NULL.
 * [owns: caller] [fails: NOMEM, NOTFOUND, IO; NOTFOUND a folder without text] */
tl_status corpus_open(const tl_allocator *a, const char *const *path, size_t n, const corpus_options *o, corpus **out,
                      tl_error *e);
/* *more false: that was all. [fails: IO, NOMEM; FORMAT with file and line: an empty file, binary data, broken JSON,
 * no text field, a compressed file that is cut off; LIMIT a line too long] */
tl_status corpus_next(corpus *c, corpus_part *part, bool *more, tl_error *e);
/* A whole document appended to out (its place in *part, may be NULL). [fails: also LIMIT above max bytes] */
tl_status corpus_document(corpus *c, size_t max, str *out, corpus_part *part, bool *more, tl_error *e);
void corpus_close(corpus *c); /* NULL is fine */

size_t corpus_files(const corpus *c);
const char *corpus_file(const corpus *c, size_t i);
int64_t corpus_documents(const corpus *c); /* completed so far */
int64_t corpus_bytes(const corpus *c);     /* of document text so far */

#endif
