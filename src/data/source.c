#include "data/source.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY /* for the decoder with our allocator */
#include <zstd.h>
#include <zstd_errors.h>

enum { SOURCE_BUFFER = 1 << 16 };
typedef enum source_kind { SOURCE_RAW, SOURCE_GZIP, SOURCE_ZSTD } source_kind;

struct source {
    const tl_allocator *alloc;
    char path[240];
    int fd;
    bool standard; /* standard input: not ours to close */
    source_kind kind;
    uint8_t in[SOURCE_BUFFER];
    size_t have, pos;
    int64_t offset; /* bytes of the file consumed before in[0] */
    bool ended;     /* the file has no more bytes */
    bool inside;    /* within a gzip member or zstd frame: the end of the file is not welcome */
    z_stream gz;
    bool gz_ready;
    ZSTD_DCtx *zs;
};

static tl_status source_fail(source *s, tl_error *e, const char *text) {
    error_set(e, TL_FORMAT, "%s", text);
    error_at_file(e, s->path);
    error_at_offset(e, s->offset + (int64_t)s->pos);
    return TL_FORMAT;
}

/* More bytes behind those that are left; at least one unless the file ends. */
static tl_status source_fill(source *s, tl_error *e) {
    memmove(s->in, s->in + s->pos, s->have - s->pos);
    s->offset += (int64_t)s->pos;
    s->have -= s->pos;
    s->pos = 0;
    for (;;) {
        ssize_t k = file_sys.read(s->fd, s->in + s->have, sizeof s->in - s->have);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) {
            tl_status st = error_errno(e, "cannot read");
            error_at_file(e, s->path);
            return st;
        }
        s->have += (size_t)k;
        s->ended = k == 0;
        return TL_OK;
    }
}

/* ---- memory of the two libraries ------------------------------------------------------------- */

static voidpf source_gz_alloc(voidpf user, uInt n, uInt size) {
    return mem_new(user, n, size);
}

static void source_gz_free(voidpf user, voidpf p) {
    mem_free(user, p);
}

static void *source_zs_alloc(void *user, size_t size) {
    return mem_new(user, 1, size);
}

static void source_zs_free(void *user, void *p) {
    mem_free(user, p);
}

/* ---- open ------------------------------------------------------------------------------------ */

static bool source_named(const source *s, const char *end) {
    const size_t n = strlen(s->path), m = strlen(end);
    return n > m && strcmp(s->path + n - m, end) == 0;
}

static tl_status source_start(source *s, tl_error *e) {
    while (s->have < 4 && !s->ended) TRY(source_fill(s, e));
    void *user = (void *)(uintptr_t)s->alloc;
    if (s->have >= 2 && s->in[0] == 0x1f && s->in[1] == 0x8b) {
        s->kind = SOURCE_GZIP;
        s->gz = (z_stream){.zalloc = source_gz_alloc, .zfree = source_gz_free, .opaque = user};
        if (inflateInit2(&s->gz, 15 + 16) != Z_OK) return error_set(e, TL_NOMEM, "no memory to unpack gzip");
        s->gz_ready = true;
    } else if (s->have >= 4 && !memcmp(s->in, "\x28\xb5\x2f\xfd", 4)) {
        s->kind = SOURCE_ZSTD;
        s->zs = ZSTD_createDCtx_advanced((ZSTD_customMem){source_zs_alloc, source_zs_free, user});
        if (!s->zs) return error_set(e, TL_NOMEM, "no memory to unpack zstd");
    } else if (s->have && (source_named(s, ".gz") || source_named(s, ".zst"))) {
        return source_fail(s, e, "is not compressed, though its name says so");
    }
    return TL_OK;
}

tl_status source_open(const tl_allocator *a, const char *path, source **out, tl_error *e) {
    *out = NULL;
    source *s = mem_new(a, 1, sizeof *s);
    if (!s) return error_set(e, TL_NOMEM, "no memory to read a file");
    s->alloc = a;
    s->standard = !strcmp(path, "-");
    const char *name = s->standard ? "standard input" : path;
    size_t n = strlen(name) < sizeof s->path ? strlen(name) : sizeof s->path - 1;
    memcpy(s->path, name, n);
    s->fd = s->standard ? 0 : file_sys.open(path, O_RDONLY | O_CLOEXEC, 0);
    tl_status st = TL_OK;
    if (s->fd < 0) {
        st = error_errno(e, "cannot open");
        error_at_file(e, s->path);
    } else if (!s->standard && file_is_dir(path)) {
        st = error_set(e, TL_IO, "is a directory, not a file");
        error_at_file(e, s->path);
    }
    if (!st) st = source_start(s, e);
    if (st)
        source_close(s);
    else
        *out = s;
    return st;
}

void source_close(source *s) {
    if (!s) return;
    if (s->gz_ready) inflateEnd(&s->gz);
    if (s->zs) ZSTD_freeDCtx(s->zs);
    if (!s->standard && s->fd >= 0) file_sys.close(s->fd);
    mem_free(s->alloc, s);
}

/* ---- read ------------------------------------------------------------------------------------ */

static tl_status source_read_raw(source *s, char *buf, size_t n, size_t *got, tl_error *e) {
    if (s->pos == s->have && !s->ended) TRY(source_fill(s, e));
    *got = s->have - s->pos < n ? s->have - s->pos : n;
    memcpy(buf, s->in + s->pos, *got);
    s->pos += *got;
    return TL_OK;
}

/* One step of inflate; several members in one file follow each other, as gzip has it. */
static tl_status source_inflate(source *s, char *buf, size_t n, size_t *got, tl_error *e) {
    if (!s->inside) {
        if (s->gz.total_in && inflateReset(&s->gz) != Z_OK) return source_fail(s, e, "gzip: cannot start again");
        s->inside = true;
    }
    s->gz.next_in = s->in + s->pos;
    s->gz.avail_in = (uInt)(s->have - s->pos);
    s->gz.next_out = (Bytef *)buf;
    s->gz.avail_out = n > 1 << 30 ? 1 << 30 : (uInt)n;
    uInt room = s->gz.avail_out;
    int r = inflate(&s->gz, Z_NO_FLUSH);
    s->pos = s->have - s->gz.avail_in;
    *got = room - s->gz.avail_out;
    if (r == Z_MEM_ERROR) return error_set(e, TL_NOMEM, "no memory to unpack gzip");
    if (r == Z_STREAM_END) s->inside = false;
    if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) return source_fail(s, e, "gzip: the data is damaged");
    return TL_OK;
}

static tl_status source_unzstd(source *s, char *buf, size_t n, size_t *got, tl_error *e) {
    ZSTD_inBuffer in = {s->in + s->pos, s->have - s->pos, 0};
    ZSTD_outBuffer out = {buf, n, 0};
    size_t r = ZSTD_decompressStream(s->zs, &out, &in);
    s->pos += in.pos;
    *got = out.pos;
    if (ZSTD_isError(r)) {
        if (ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation)
            return error_set(e, TL_NOMEM, "no memory to unpack zstd");
        return source_fail(s, e, "zstd: the data is damaged");
    }
    s->inside = r != 0;
    return TL_OK;
}

tl_status source_read(source *s, char *buf, size_t n, size_t *got, tl_error *e) {
    *got = 0;
    if (s->kind == SOURCE_RAW) return source_read_raw(s, buf, n, got, e);
    while (n && !*got) {
        if (s->pos == s->have && !s->ended) TRY(source_fill(s, e));
        bool empty = s->pos == s->have;
        if (empty && !s->inside) return TL_OK;
        TRY(s->kind == SOURCE_GZIP ? source_inflate(s, buf, n, got, e) : source_unzstd(s, buf, n, got, e));
        if (empty && !*got && s->inside) return source_fail(s, e, "the compressed file is cut off");
    }
    return TL_OK;
}
