/* Folders and locks: the half of file.h that is not about contents. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static tl_status folder_fail(tl_error *e, const char *what, const char *path) {
    tl_status s = error_errno(e, "cannot %s", what);
    error_at_file(e, path);
    return s;
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int64_t file_size(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
}

tl_status file_mkdirs(const char *path, tl_error *e) {
    char part[1024];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) {
        error_set(e, TL_ARG, n ? "the path is longer than %zu bytes" : "the path is empty", sizeof part - 1);
        error_at_file(e, path);
        return TL_ARG;
    }
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (file_sys.mkdir(part, 0777) == 0) continue;
        int number = errno;
        if (file_is_dir(part)) continue; /* it was there, or another process was faster */
        errno = number;
        return folder_fail(e, "make the folder", part);
    }
    return TL_OK;
}

/* ---- listing --------------------------------------------------------------------------------- */

static int folder_compare(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* All names, one after the other with their zero bytes, into text. */
static tl_status folder_collect(DIR *d, const char *dir, str *text, size_t *n, tl_error *e) {
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(d);
        if (!entry) return errno ? folder_fail(e, "list", dir) : TL_OK;
        const char *name = entry->d_name;
        if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
        str_add(text, name, strlen(name) + 1);
        ++*n;
    }
}

tl_status file_list(const tl_allocator *a, const char *dir, char ***names, size_t *n, tl_error *e) {
    *names = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (!d) return folder_fail(e, "open the folder", dir);
    str text;
    size_t count = 0;
    str_init(&text, a);
    tl_status s = folder_collect(d, dir, &text, &count, e);
    closedir(d);
    char **block = s || text.failed ? NULL : mem_new(a, count * sizeof *block + text.len, 1);
    if (block) {
        char *p = (char *)(block + count);
        if (text.len) memcpy(p, text.data, text.len);
        for (size_t i = 0; i < count; p += strlen(p) + 1) block[i++] = p;
        qsort(block, count, sizeof *block, folder_compare);
        *names = block;
        *n = count;
    } else if (!s) {
        s = error_set(e, TL_NOMEM, "no memory to list the folder");
        error_at_file(e, dir);
    }
    str_fini(&text);
    return s;
}

void file_list_free(const tl_allocator *a, char **names) {
    mem_free(a, names);
}

/* ---- removal --------------------------------------------------------------------------------- */

enum { FOLDER_DEPTH = 64 };

static tl_status folder_remove(const tl_allocator *a, const char *path, int depth, tl_error *e) {
    struct stat st;
    if (lstat(path, &st)) return errno == ENOENT ? TL_OK : folder_fail(e, "look at", path);
    if (!S_ISDIR(st.st_mode)) /* a link is removed, not followed */
        return file_sys.unlink(path) && errno != ENOENT ? folder_fail(e, "remove", path) : TL_OK;
    if (depth == 0) {
        error_set(e, TL_LIMIT, "folders nest deeper than %d", FOLDER_DEPTH);
        error_at_file(e, path);
        return TL_LIMIT;
    }
    char **names;
    size_t n;
    TRY(file_list(a, path, &names, &n, e));
    tl_status s = TL_OK;
    str child;
    str_init(&child, a);
    for (size_t i = 0; i < n && !s; i++) {
        str_clear(&child);
        str_addf(&child, "%s/%s", path, names[i]);
        s = child.failed ? error_set(e, TL_NOMEM, "no memory to remove a folder")
                         : folder_remove(a, child.data, depth - 1, e);
    }
    str_fini(&child);
    file_list_free(a, names);
    if (!s && rmdir(path) && errno != ENOENT) s = folder_fail(e, "remove the folder", path);
    return s;
}

tl_status file_remove_tree(const tl_allocator *a, const char *path, tl_error *e) {
    return folder_remove(a, path, FOLDER_DEPTH, e);
}

/* ---- locks ----------------------------------------------------------------------------------- */

tl_status file_lock(const char *path, int *fd, tl_error *e) {
    *fd = -1;
    int f = file_sys.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (f < 0) return folder_fail(e, "open the lock", path);
    int r;
    do r = flock(f, LOCK_EX | LOCK_NB);
    while (r && errno == EINTR);
    char pid[32] = "";
    if (r) {
        tl_status s;
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(f, pid, sizeof pid - 1, 0);
            long holder = n > 0 ? strtol(pid, NULL, 10) : 0;
            s = holder > 0 ? error_set(e, TL_BUSY, "is in use by process %ld", holder)
                           : error_set(e, TL_BUSY, "is in use by another process");
            error_at_file(e, path);
        } else {
            s = folder_fail(e, "lock", path);
        }
        file_sys.close(f);
        return s;
    }
    /* The pid is for the reader of an error only; the lock holds without it. */
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(f, 0) == 0 && pwrite(f, pid, (size_t)n, 0) != n) (void)!ftruncate(f, 0);
    *fd = f;
    return TL_OK;
}

void file_unlock(int fd) {
    if (fd >= 0) file_sys.close(fd); /* the file stays: removing it would race with the next holder */
}

tl_status file_join(char *out, size_t size, const char *dir, const char *name, tl_error *e) {
    int n = snprintf(out, size, "%s/%s", dir, name);
    if (n >= 0 && (size_t)n < size) return TL_OK;
    tl_status s = error_set(e, TL_LIMIT, "a path of more than %zu bytes", size - 1);
    error_at_file(e, dir);
    return s;
}

void file_absolute(const char *path, char *out, size_t size) {
    char *real = realpath(path, NULL);
    const char *text = real && strlen(real) < size ? real : path;
    snprintf(out, size, "%s", text);
    free(real);
}
