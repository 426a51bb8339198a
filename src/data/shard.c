#include "base/hash.h"
#include "data/tokens.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static const uint8_t shard_magic[8] = {'T', 'L', 'S', 'H', 'A', 'R', 'D', 1};

static void shard_put(uint8_t *p, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t shard_get(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void shard_header(const shard_writer *w, uint64_t checksum, uint8_t h[SHARD_HEADER]) {
    memcpy(h, shard_magic, 8);
    shard_put(h + 8, w->marks.len ? SHARD_MARKED : SHARD_VERSION, 4);
    shard_put(h + 12, (uint64_t)w->count.width, 4);
    shard_put(h + 16, (uint64_t)w->count.vocab, 4);
    shard_put(h + 20, (uint64_t)(uint32_t)w->count.eod, 4);
    shard_put(h + 24, w->tokenizer_hash, 8);
    shard_put(h + 32, (uint64_t)w->count.n, 8);
    shard_put(h + 40, (uint64_t)w->count.documents, 8);
    shard_put(h + 48, checksum, 8);
    shard_put(h + 56, hash_bytes(h, 56), 8);
}

tl_status shard_writer_open(shard_writer *w, const tl_allocator *a, const char *path, int64_t vocab, int32_t eod,
                            uint64_t tokenizer_hash, tl_error *e) {
    memset(w, 0, sizeof *w);
    w->file.fd = -1;
    if (vocab < 1 || vocab > INT32_MAX) return error_set(e, TL_ARG, "a vocabulary of %lld", (long long)vocab);
    w->count = (tokens){.width = vocab <= 65536 ? 2 : 4, .vocab = (int32_t)vocab, .eod = eod};
    w->tokenizer_hash = tokenizer_hash;
    str_init(&w->marks, a);
    TRY(file_writer_open(&w->file, a, path, e));
    w->hash = hash_begin(a);
    tl_status s = w->hash ? TL_OK : error_set(e, TL_NOMEM, "no memory for a checksum");
    uint8_t empty[SHARD_HEADER] = {0}; /* filled in by commit: the counts are known at the end */
    if (!s) s = file_writer_put(&w->file, empty, sizeof empty, e);
    if (s) shard_writer_abort(w);
    return s;
}

tl_status shard_writer_add(shard_writer *w, const int32_t *id, size_t n, tl_error *e) {
    uint8_t buf[4096];
    size_t width = (size_t)w->count.width;
    for (size_t i = 0; i < n;) {
        size_t k = 0;
        for (; i < n && k + width <= sizeof buf; i++, k += width) {
            if (id[i] < 0 || id[i] >= w->count.vocab)
                return error_set(e, TL_ARG, "token %d is outside the vocabulary of %d", id[i], w->count.vocab);
            shard_put(buf + k, (uint64_t)id[i], (int)width);
        }
        hash_add(w->hash, buf, k);
        TRY(file_writer_put(&w->file, buf, k, e));
        w->count.n += (int64_t)(k / width);
    }
    return TL_OK;
}

tl_status shard_writer_end(shard_writer *w, tl_error *e) {
    if (w->count.eod < 0) return TL_OK;
    TRY(shard_writer_add(w, &w->count.eod, 1, e));
    w->count.documents++;
    return TL_OK;
}

tl_status shard_writer_example(shard_writer *w, const int32_t *id, const char *learned, size_t n, tl_error *e) {
    if (n < 2 || (w->count.n && !w->marks.len))
        return error_set(e, TL_ARG, n < 2 ? "an example of %zu ids" : "examples among texts (%zu ids)", n);
    TRY(shard_writer_add(w, id, n, e));
    for (size_t i = 0; i < n; i++) {
        char m = (char)((learned[i] ? TOKENS_LEARNED : 0) | (i + 1 == n ? TOKENS_LAST : 0));
        str_add(&w->marks, &m, 1);
    }
    w->count.documents++;
    return w->marks.failed ? error_set(e, TL_NOMEM, "no memory for the marks of %lld ids", (long long)w->count.n)
                           : TL_OK;
}

/* Puts the header over the placeholder: still in the buffer, or at the file's start already. */
static tl_status shard_write_header(shard_writer *w, const uint8_t h[SHARD_HEADER], tl_error *e) {
    if (w->file.written == w->file.used) {
        memcpy(w->file.buf, h, SHARD_HEADER);
        return TL_OK;
    }
    off_t end = lseek(w->file.fd, 0, SEEK_CUR);
    bool ok = end >= 0 && lseek(w->file.fd, 0, SEEK_SET) == 0;
    for (size_t done = 0; ok && done < SHARD_HEADER;) {
        ssize_t k = file_sys.write(w->file.fd, h + done, SHARD_HEADER - done);
        if (k < 0 && errno == EINTR) continue;
        ok = k > 0;
        if (ok) done += (size_t)k;
    }
    ok = ok && lseek(w->file.fd, end, SEEK_SET) == end;
    if (ok) return TL_OK;
    tl_status s = error_errno(e, "cannot write the header");
    error_at_file(e, w->file.path);
    return s;
}

tl_status shard_writer_commit(shard_writer *w, tl_error *e) {
    uint8_t h[SHARD_HEADER];
    tl_status s = w->count.n ? TL_OK : error_set(e, TL_FORMAT, "there are no tokens to write");
    if (s) error_at_file(e, w->file.path);
    if (!s && w->marks.len) {
        hash_add(w->hash, w->marks.data, w->marks.len);
        s = file_writer_put(&w->file, w->marks.data, w->marks.len, e);
    }
    if (!s) {
        shard_header(w, hash_end(w->file.alloc, w->hash), h);
        w->hash = NULL;
        s = shard_write_header(w, h, e);
    }
    str_fini(&w->marks);
    if (!s) return file_writer_commit(&w->file, e);
    shard_writer_abort(w);
    return s;
}

void shard_writer_abort(shard_writer *w) {
    if (w->hash) hash_end(w->file.alloc, w->hash);
    w->hash = NULL;
    if (w->marks.alloc) str_fini(&w->marks);
    file_writer_abort(&w->file);
}

/* ---- reading --------------------------------------------------------------------------------- */

static tl_status shard_bad(tl_error *e, tl_status code, const char *path, int64_t offset, const char *text) {
    error_set(e, code, "%s", text);
    error_at_file(e, path);
    error_at_offset(e, offset);
    return code;
}

static tl_status shard_check_header(const file_map *m, const char *path, shard *s, tl_error *e) {
    const uint8_t *h = m->data;
    if (m->size < SHARD_HEADER) return shard_bad(e, TL_FORMAT, path, 0, "too short for a token shard");
    if (memcmp(h, shard_magic, 8)) return shard_bad(e, TL_FORMAT, path, 0, "is not a token shard");
    if (shard_get(h + 56, 8) != hash_bytes(h, 56))
        return shard_bad(e, TL_CHECKSUM, path, 56, "the header's checksum does not match");
    const uint64_t version = shard_get(h + 8, 4);
    if (version != SHARD_VERSION && version != SHARD_MARKED)
        return shard_bad(e, TL_UNSUPPORTED, path, 8, "written by a newer version of the shard format");
    uint64_t width = shard_get(h + 12, 4), vocab = shard_get(h + 16, 4), n = shard_get(h + 32, 8);
    int32_t eod = (int32_t)(uint32_t)shard_get(h + 20, 4);
    if (width != 2 && width != 4) return shard_bad(e, TL_FORMAT, path, 12, "ids must have 2 or 4 bytes");
    if (!vocab || vocab > INT32_MAX || (width == 2 && vocab > 65536))
        return shard_bad(e, TL_FORMAT, path, 16, "the vocabulary does not fit the ids");
    if (eod < -1 || eod >= (int32_t)vocab)
        return shard_bad(e, TL_FORMAT, path, 20, "the end-of-document id is outside the vocabulary");
    const uint64_t each = width + (version == SHARD_MARKED);
    if (!n || n > (m->size - SHARD_HEADER) / each || SHARD_HEADER + n * each != m->size)
        return shard_bad(e, TL_FORMAT, path, 32, "the number of ids does not fit the file's size (cut off?)");
    if (shard_get(h + 40, 8) > n) return shard_bad(e, TL_FORMAT, path, 40, "more documents than ids");
    s->view = (tokens){.id = h + SHARD_HEADER,
                       .width = (int32_t)width,
                       .vocab = (int32_t)vocab,
                       .eod = eod,
                       .n = (int64_t)n,
                       .documents = (int64_t)shard_get(h + 40, 8)};
    if (version == SHARD_MARKED) s->view.mark = h + SHARD_HEADER + n * width;
    s->tokenizer_hash = shard_get(h + 24, 8);
    return TL_OK;
}

static tl_status shard_check_ids(const file_map *m, const char *path, const tokens *t, tl_error *e) {
    if (hash_bytes(t->id, m->size - SHARD_HEADER) != shard_get(m->data + 48, 8))
        return shard_bad(e, TL_CHECKSUM, path, 48, "the checksum of the ids does not match");
    int64_t ends = 0;
    for (int64_t i = 0; i < t->n; i++) {
        int32_t id = tokens_at(t, i);
        if (id < 0 || id >= t->vocab)
            return shard_bad(e, TL_FORMAT, path, SHARD_HEADER + i * t->width, "an id is outside the vocabulary");
        ends += tokens_ends(t, i);
    }
    if ((t->eod >= 0 || t->mark) && (ends != t->documents || !tokens_ends(t, t->n - 1)))
        return shard_bad(e, TL_FORMAT, path, 40, "the ends of documents are not as many as the header says");
    return TL_OK;
}

tl_status shard_open(const char *path, bool verify, shard *s, tl_error *e) {
    memset(s, 0, sizeof *s);
    TRY(file_map_open(path, &s->map, e));
    tl_status st = shard_check_header(&s->map, path, s, e);
    if (!st && verify) st = shard_check_ids(&s->map, path, &s->view, e);
    if (st) shard_close(s);
    return st;
}

void shard_close(shard *s) {
    file_map_close(&s->map);
    memset(s, 0, sizeof *s);
}
