#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int file_sys_open(const char *path, int flags, unsigned mode) {
    return open(path, flags, (mode_t)mode);
}

static int file_sys_mkdir(const char *path, unsigned mode) {
    return mkdir(path, (mode_t)mode);
}

file_sys_table file_sys = {file_sys_open, read, write, fsync, close, rename, file_sys_mkdir, unlink};

/* ---- reading --------------------------------------------------------------------------------- */

static tl_status file_fail(tl_error *e, const char *what, const char *path) {
    tl_status s = error_errno(e, "cannot %s", what);
    error_at_file(e, path);
    return s;
}

static int file_open_retry(const char *path, int flags, unsigned mode) {
    int fd;
    do fd = file_sys.open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* Opens for reading and tells the size; refuses what is no regular file (a directory, a pipe: no size to trust). */
static tl_status file_open_regular(const char *path, int *fd, size_t *size, tl_error *e) {
    struct stat st;
    *fd = file_open_retry(path, O_RDONLY | O_NONBLOCK, 0); /* O_NONBLOCK: opening a pipe must not wait */
    if (*fd < 0) return file_fail(e, "open", path);
    tl_status s = TL_OK;
    if (fstat(*fd, &st)) {
        s = file_fail(e, "look at", path);
    } else if (!S_ISREG(st.st_mode)) {
        s = error_set(e, TL_IO, "%s", S_ISDIR(st.st_mode) ? "is a directory, not a file" : "is not a regular file");
        error_at_file(e, path);
    } else {
        *size = (size_t)st.st_size;
    }
    if (s) file_sys.close(*fd), *fd = -1;
    return s;
}

static tl_status file_read_all(int fd, char *data, size_t size, size_t *got, const char *path, tl_error *e) {
    *got = 0;
    while (*got < size) {
        ssize_t n = file_sys.read(fd, data + *got, size - *got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return file_fail(e, "read", path);
        if (n == 0) break; /* it shrank while we read */
        *got += (size_t)n;
    }
    return TL_OK;
}

tl_status file_read(const tl_allocator *a, const char *path, size_t max, char **data, size_t *size, tl_error *e) {
    int fd;
    size_t n, got = 0;
    *data = NULL;
    *size = 0;
    TRY(file_open_regular(path, &fd, &n, e));
    tl_status s = TL_OK;
    char *p = NULL;
    if (n > max) {
        s = error_set(e, TL_LIMIT, "has %zu bytes, more than the %zu allowed here", n, max);
    } else if (!(p = mem_new(a, n + 1, 1))) {
        s = error_set(e, TL_NOMEM, "no memory for %zu bytes", n);
    }
    error_at_file(s ? e : NULL, path);
    if (!s) s = file_read_all(fd, p, n, &got, path, e);
    file_sys.close(fd);
    if (s) {
        mem_free(a, p);
        return s;
    }
    p[got] = 0;
    *data = p;
    *size = got;
    return TL_OK;
}

tl_status file_map_open(const char *path, file_map *m, tl_error *e) {
    int fd;
    size_t size;
    *m = (file_map){0};
    TRY(file_open_regular(path, &fd, &size, e));
    void *p = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    tl_status s = p == MAP_FAILED ? file_fail(e, "map", path) : TL_OK;
    file_sys.close(fd);
#ifdef MADV_HUGEPAGE
    if (!s && size) (void)madvise(p, size, MADV_HUGEPAGE); /* a wish: what is read now goes into large pages */
#endif
    if (!s) *m = (file_map){p, size};
    return s;
}

void file_map_close(file_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (file_map){0};
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Whole large pages at their places: the system then keeps the file in large pages too, and whoever maps it next reads
 * it faster. */
enum { FILE_BUFFER = 2 << 20 };

static tl_status file_write_all(int fd, const uint8_t *p, size_t n, const char *path, tl_error *e) {
    while (n) {
        ssize_t k = file_sys.write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k == 0) errno = EIO;
        if (k <= 0) return file_fail(e, "write", path);
        p += k;
        n -= (size_t)k;
    }
    return TL_OK;
}

static int file_fsync_retry(int fd) {
    int r;
    do r = file_sys.fsync(fd);
    while (r && errno == EINTR);
    return r;
}

tl_status file_writer_open(file_writer *w, const tl_allocator *a, const char *path, tl_error *e) {
    *w = (file_writer){.fd = -1, .alloc = a};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof w->path) {
        error_set(e, TL_ARG, n ? "the path is longer than %zu bytes" : "the path is empty", sizeof w->path - 1);
        error_at_file(e, path);
        return TL_ARG;
    }
    memcpy(w->path, path, n + 1);
    snprintf(w->tmp, sizeof w->tmp, "%s.tmp-%ld", path, (long)getpid());
    w->buf = mem_new(a, FILE_BUFFER, 1);
    if (!w->buf) {
        error_set(e, TL_NOMEM, "no memory for a write buffer");
        error_at_file(e, path);
        return TL_NOMEM;
    }
    w->fd = file_open_retry(w->tmp, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (w->fd >= 0) return TL_OK;
    tl_status s = file_fail(e, "create", w->tmp);
    mem_free(a, w->buf);
    w->buf = NULL;
    return s;
}

static tl_status file_writer_flush(file_writer *w, tl_error *e) {
    size_t n = w->used;
    w->used = 0;
    return file_write_all(w->fd, w->buf, n, w->path, e);
}

tl_status file_writer_put(file_writer *w, const void *data, size_t n, tl_error *e) {
    if (w->fd < 0) return error_set(e, TL_STATE, "the writer is closed");
    const uint8_t *p = data;
    w->written += n;
    if (n > FILE_BUFFER - w->used) {
        const size_t fits = FILE_BUFFER - w->used;
        memcpy(w->buf + w->used, p, fits);
        w->used = FILE_BUFFER, p += fits, n -= fits;
        TRY(file_writer_flush(w, e));
        const size_t whole = n / FILE_BUFFER * FILE_BUFFER; /* no copy for what is large anyway */
        TRY(file_write_all(w->fd, p, whole, w->path, e));
        p += whole, n -= whole;
    }
    if (n) memcpy(w->buf + w->used, p, n);
    w->used += n;
    return TL_OK;
}

void file_writer_abort(file_writer *w) {
    if (w->fd >= 0) {
        file_sys.close(w->fd);
        file_sys.unlink(w->tmp);
    }
    if (w->buf) mem_free(w->alloc, w->buf);
    w->buf = NULL;
    w->fd = -1;
}

/* The folder that holds path, in buf. */
static void file_parent(const char *path, char *buf, size_t size) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    while (n > 0 && path[n - 1] != '/') n--;
    while (n > 1 && path[n - 1] == '/') n--;
    if (n == 0)
        snprintf(buf, size, ".");
    else
        snprintf(buf, size, "%.*s", (int)(n < size ? n : size - 1), path);
}

tl_status file_sync_dir(const char *path, tl_error *e) {
    int fd = file_open_retry(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return file_fail(e, "open the folder", path);
    /* Some file systems have nothing to sync in a folder and say so with EINVAL. */
    tl_status s = file_fsync_retry(fd) && errno != EINVAL ? file_fail(e, "sync the folder", path) : TL_OK;
    file_sys.close(fd);
    return s;
}

tl_status file_rename(const char *from, const char *to, tl_error *e) {
    if (file_sys.rename(from, to)) {
        tl_status s = error_errno(e, "cannot rename to %s", to);
        error_at_file(e, from);
        return s;
    }
    char dir[1024];
    file_parent(to, dir, sizeof dir);
    return file_sync_dir(dir, e);
}

tl_status file_writer_commit(file_writer *w, tl_error *e) {
    if (w->fd < 0) return error_set(e, TL_STATE, "the writer is closed");
    tl_status s = file_writer_flush(w, e);
    if (!s && file_fsync_retry(w->fd)) s = file_fail(e, "sync", w->path);
    if (s) {
        file_writer_abort(w);
        return s;
    }
    /* close may bring the error of a late write (NFS); whatever it says, the descriptor is gone. */
    int closed = file_sys.close(w->fd);
    w->fd = -1;
    if (closed && errno != EINTR) s = file_fail(e, "close", w->path);
    if (!s && file_sys.rename(w->tmp, w->path)) s = file_fail(e, "put in place", w->path);
    if (s) file_sys.unlink(w->tmp);
    file_writer_abort(w);
    if (s) return s;
    char dir[1024];
    file_parent(w->path, dir, sizeof dir);
    return file_sync_dir(dir, e);
}

tl_status file_write(const tl_allocator *a, const char *path, const void *data, size_t n, tl_error *e) {
    file_writer w;
    TRY(file_writer_open(&w, a, path, e));
    tl_status s = file_writer_put(&w, data, n, e);
    if (s) {
        file_writer_abort(&w);
        return s;
    }
    return file_writer_commit(&w, e);
}
