#include "data/corpus.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "data/source.h"

#include <string.h>

enum { CORPUS_BUFFER = 1 << 20, CORPUS_DEPTH = 32 };

struct corpus {
    const tl_allocator *alloc;
    corpus_options o;
    arena names;
    char **path; /* (paths) in names */
    size_t paths, path_cap;

    size_t next; /* file to open next */
    const char *file;
    source *src;
    bool jsonl;
    char *buf; /* CORPUS_BUFFER */
    size_t have, pos;
    bool ended;     /* the source has no more bytes */
    int64_t line;   /* lines begun before buf[pos] */
    int64_t offset; /* bytes of the source before buf[0] */
    bool open_document;
    int64_t document_line;

    str json_line;
    json_t *json; /* holds the text of the last part */
    int64_t documents, bytes;
};

/* ---- which files ----------------------------------------------------------------------------- */

static bool corpus_ends_with(const char *s, size_t n, const char *end) {
    size_t k = strlen(end);
    return n > k && !memcmp(s + n - k, end, k);
}

/* Length of a name without .gz or .zst. */
static size_t corpus_bare(const char *name) {
    size_t n = strlen(name);
    if (corpus_ends_with(name, n, ".gz")) return n - 3;
    if (corpus_ends_with(name, n, ".zst")) return n - 4;
    return n;
}

static bool corpus_is_jsonl(const char *name) {
    size_t n = corpus_bare(name);
    return corpus_ends_with(name, n, ".jsonl") || corpus_ends_with(name, n, ".ndjson");
}

static bool corpus_is_text(const char *name) {
    static const char *const end[] = {".txt", ".text", ".md"};
    size_t n = corpus_bare(name);
    for (size_t i = 0; i < sizeof end / sizeof *end; i++)
        if (corpus_ends_with(name, n, end[i])) return true;
    return corpus_is_jsonl(name);
}

static tl_status corpus_add_path(corpus *c, const char *path, tl_error *e) {
    if (!mem_reserve(c->alloc, &c->path, &c->path_cap, c->paths + 1) ||
        !(c->path[c->paths] = arena_strdup(&c->names, path)))
        return error_set(e, TL_NOMEM, "no memory for file names");
    c->paths++;
    return TL_OK;
}

static tl_status corpus_search(corpus *c, const char *dir, int depth, tl_error *e) {
    char **name;
    size_t n;
    if (depth == CORPUS_DEPTH) {
        error_set(e, TL_LIMIT, "folders are nested too deeply (a link in a circle?)");
        error_at_file(e, dir);
        return TL_LIMIT;
    }
    TRY(file_list(c->alloc, dir, &name, &n, e));
    tl_status s = TL_OK;
    for (size_t i = 0; i < n && !s; i++) {
        if (name[i][0] == '.') continue;
        const char *p = arena_printf(&c->names, "%s/%s", dir, name[i]);
        if (!p)
            s = error_set(e, TL_NOMEM, "no memory for file names");
        else if (file_is_dir(p))
            s = corpus_search(c, p, depth + 1, e);
        else if (corpus_is_text(name[i]))
            s = corpus_add_path(c, p, e);
    }
    file_list_free(c->alloc, name);
    return s;
}

static tl_status corpus_add(corpus *c, const char *path, tl_error *e) {
    if (!strcmp(path, "-")) return corpus_add_path(c, path, e);
    tl_status s = TL_OK;
    size_t before = c->paths;
    if (!file_exists(path)) {
        s = error_set(e, TL_NOTFOUND, "there is no such file or folder");
    } else if (!file_is_dir(path)) {
        return corpus_add_path(c, path, e);
    } else {
        TRY(corpus_search(c, path, 0, e));
        if (c->paths == before)
            s = error_set(e, TL_NOTFOUND, "the folder has no .txt, .text, .md, .jsonl or .ndjson file (.gz, .zst)");
    }
    if (s) error_at_file(e, path);
    return s;
}

tl_status corpus_open(const tl_allocator *a, const char *const *path, size_t n, const corpus_options *o, corpus **out,
                      tl_error *e) {
    *out = NULL;
    if (!n) return error_set(e, TL_ARG, "no files were given");
    if (o && o->separator && (!*o->separator || strlen(o->separator) > 4096))
        return error_set(e, TL_ARG, "the separator must have 1 to 4096 bytes");
    corpus *c = mem_new(a, 1, sizeof *c);
    if (!c) return error_set(e, TL_NOMEM, "no memory for a corpus");
    c->alloc = a;
    if (o) c->o = *o;
    if (!c->o.text_field) c->o.text_field = "text";
    if (!c->o.max_line) c->o.max_line = (size_t)256 << 20;
    arena_init(&c->names, a);
    str_init(&c->json_line, a);
    c->buf = mem_new(a, CORPUS_BUFFER, 1);
    tl_status s = c->buf ? TL_OK : error_set(e, TL_NOMEM, "no memory for a corpus");
    for (size_t i = 0; i < n && !s; i++) s = corpus_add(c, path[i], e);
    if (s)
        corpus_close(c);
    else
        *out = c;
    return s;
}

void corpus_close(corpus *c) {
    if (!c) return;
    source_close(c->src);
    json_decref(c->json);
    str_fini(&c->json_line);
    mem_free(c->alloc, c->buf);
    mem_free(c->alloc, c->path);
    arena_fini(&c->names);
    mem_free(c->alloc, c);
}

size_t corpus_files(const corpus *c) {
    return c->paths;
}

const char *corpus_file(const corpus *c, size_t i) {
    return c->path[i];
}

int64_t corpus_documents(const corpus *c) {
    return c->documents;
}

int64_t corpus_bytes(const corpus *c) {
    return c->bytes;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static tl_status corpus_fail(const corpus *c, tl_error *e, tl_status code, int64_t line) {
    error_at_file(e, strcmp(c->file, "-") ? c->file : "standard input");
    if (line) error_at_line(e, line);
    return code;
}

static int64_t corpus_lines(const char *p, size_t n) {
    int64_t lines = 0;
    for (size_t i = 0; i < n; i++) lines += p[i] == '\n';
    return lines;
}

/* Consumes n bytes and counts their lines. */
static void corpus_eat(corpus *c, size_t n) {
    c->line += corpus_lines(c->buf + c->pos, n);
    c->pos += n;
}

/* Fills the buffer behind what is left of it, until it is full or the source ends. */
static tl_status corpus_fill(corpus *c, tl_error *e) {
    memmove(c->buf, c->buf + c->pos, c->have - c->pos);
    c->offset += (int64_t)c->pos;
    c->have -= c->pos;
    c->pos = 0;
    while (c->have < CORPUS_BUFFER && !c->ended) {
        size_t got;
        TRY(source_read(c->src, c->buf + c->have, CORPUS_BUFFER - c->have, &got, e));
        const char *zero = memchr(c->buf + c->have, 0, got);
        if (zero) {
            error_set(e, TL_FORMAT, "binary data, not text: a zero byte");
            error_at_offset(e, c->offset + (zero - c->buf));
            return corpus_fail(c, e, TL_FORMAT, c->line + corpus_lines(c->buf, (size_t)(zero - c->buf)));
        }
        c->have += got;
        c->ended = got == 0;
    }
    return TL_OK;
}

static tl_status corpus_open_next(corpus *c, tl_error *e) {
    c->file = c->path[c->next++];
    TRY(source_open(c->alloc, c->file, &c->src, e));
    c->jsonl = c->o.format == CORPUS_JSONL || (c->o.format == CORPUS_AUTO && corpus_is_jsonl(c->file));
    c->have = c->pos = 0;
    c->line = 1;
    c->offset = 0;
    c->ended = c->open_document = false;
    TRY(corpus_fill(c, e));
    if (c->have) {
        if (c->have >= 3 && !memcmp(c->buf, "\xef\xbb\xbf", 3)) c->pos = 3; /* a byte order mark is no text */
        return TL_OK;
    }
    error_set(e, TL_FORMAT, "is empty");
    return corpus_fail(c, e, TL_FORMAT, 0);
}

/* ---- documents ------------------------------------------------------------------------------- */

static void corpus_give(corpus *c, corpus_part *part, const char *text, size_t n, bool last) {
    *part = (corpus_part){text, n, last, c->file, c->document_line};
    c->bytes += (int64_t)n;
    c->documents += last;
    c->open_document = !last;
}

/* The next part of a text file; *found false: the file is done. */
static tl_status corpus_next_text(corpus *c, corpus_part *part, bool *found, tl_error *e) {
    size_t k = c->o.separator ? strlen(c->o.separator) : 0;
    *found = true;
    for (;;) {
        if (c->have - c->pos <= k && !c->ended) TRY(corpus_fill(c, e));
        if (!c->open_document && k)
            while (c->pos < c->have && strchr("\r\n", c->buf[c->pos])) corpus_eat(c, 1);
        size_t left = c->have - c->pos;
        if (!left && !c->ended) continue;
        if (!c->open_document) c->document_line = c->line;
        char *text = c->buf + c->pos, *sep = k ? memmem(text, left, c->o.separator, k) : NULL;
        if (!left && !c->open_document) {
            *found = false;
            return TL_OK;
        }
        size_t n = sep ? (size_t)(sep - text) : c->ended ? left : left - (k ? k - 1 : 0);
        bool last = sep || c->ended;
        corpus_eat(c, sep ? n + k : n);
        if (!n && last && !c->open_document) continue; /* nothing between two separators */
        if (!n && !last) continue;
        corpus_give(c, part, text, n, last);
        return TL_OK;
    }
}

/* One line into json_line; *found false: the file is done. */
static tl_status corpus_take_line(corpus *c, bool *found, tl_error *e) {
    str_clear(&c->json_line);
    c->document_line = c->line;
    for (;;) {
        if (c->pos == c->have && !c->ended) TRY(corpus_fill(c, e));
        size_t left = c->have - c->pos;
        char *end = memchr(c->buf + c->pos, '\n', left);
        size_t n = end ? (size_t)(end - (c->buf + c->pos)) : left;
        if (n > c->o.max_line - c->json_line.len) {
            error_set(e, TL_LIMIT, "a line of more than %zu bytes", c->o.max_line);
            return corpus_fail(c, e, TL_LIMIT, c->line);
        }
        str_add(&c->json_line, c->buf + c->pos, n);
        if (c->json_line.failed) return error_set(e, TL_NOMEM, "no memory for a line");
        *found = end || left || c->json_line.len;
        corpus_eat(c, end ? n + 1 : n);
        if (end || (c->ended && c->pos == c->have)) return TL_OK;
    }
}

/* The document of json_line, an object with a text field. */
static tl_status corpus_parse_line(corpus *c, const char **text, size_t *n, tl_error *e) {
    json_decref(c->json);
    c->json = NULL;
    tl_status s = json_parse(c->json_line.data, c->json_line.len, NULL, &c->json, e);
    const json_t *v = NULL;
    if (!s && !json_is_object(c->json)) s = error_set(e, TL_FORMAT, "the line is not a JSON object");
    if (!s && c->o.objects) {
        *text = c->json_line.data;
        *n = c->json_line.len;
        return TL_OK;
    }
    if (!s && !(v = json_object_get(c->json, c->o.text_field)))
        s = error_set(e, TL_FORMAT, "the object has no field \"%s\"", c->o.text_field);
    if (!s && !json_is_string(v)) s = error_set(e, TL_FORMAT, "the field \"%s\" is not a string", c->o.text_field);
    if (s) return corpus_fail(c, e, s, c->document_line);
    *text = json_string_value(v);
    *n = json_string_length(v);
    return TL_OK;
}

static tl_status corpus_next_json(corpus *c, corpus_part *part, bool *found, tl_error *e) {
    for (;;) {
        const char *text;
        size_t n;
        TRY(corpus_take_line(c, found, e));
        if (!*found) return TL_OK;
        if (strspn(c->json_line.data ? c->json_line.data : "", " \t\r") == c->json_line.len) continue; /* blank */
        TRY(corpus_parse_line(c, &text, &n, e));
        if (!n) continue; /* an empty text is no document */
        corpus_give(c, part, text, n, true);
        return TL_OK;
    }
}

tl_status corpus_next(corpus *c, corpus_part *part, bool *more, tl_error *e) {
    for (*more = true;;) {
        if (!c->src) {
            if (c->next == c->paths) {
                *more = false;
                if (c->documents) return TL_OK;
                error_set(e, TL_FORMAT, "there is no text in it");
                return c->file ? corpus_fail(c, e, TL_FORMAT, 0) : TL_FORMAT;
            }
            TRY(corpus_open_next(c, e));
        }
        bool found;
        TRY(c->jsonl ? corpus_next_json(c, part, &found, e) : corpus_next_text(c, part, &found, e));
        if (found) return TL_OK;
        source_close(c->src);
        c->src = NULL;
    }
}

tl_status corpus_document(corpus *c, size_t max, str *out, corpus_part *part, bool *more, tl_error *e) {
    corpus_part p;
    size_t start = out->len;
    do {
        TRY(corpus_next(c, &p, more, e));
        if (!*more) return TL_OK;
        if (p.n > max - (out->len - start)) {
            error_set(e, TL_LIMIT, "a document of more than %zu bytes", max);
            return corpus_fail(c, e, TL_LIMIT, p.line);
        }
        str_add(out, p.text, p.n);
        if (out->failed) return error_set(e, TL_NOMEM, "no memory for a document");
    } while (!p.last);
    if (part) *part = p;
    return TL_OK;
}
