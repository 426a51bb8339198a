/* Files: whole reads, memory maps, durable atomic writes, locks, directories. Every system call goes through
 * file_sys, which tests replace to make the n-th read, write, sync or rename fail. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/mem.h"
#include "base/str.h"
#include <sys/types.h>

/* Replaceable system calls, for fault injection only (process-wide, set before any thread starts). */
typedef struct file_sys_table {
    int (*open)(const char *path, int flags, unsigned mode);
    ssize_t (*read)(int fd, void *buf, size_t n);
    ssize_t (*write)(int fd, const void *buf, size_t n);
    int (*fsync)(int fd);
    int (*close)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*mkdir)(const char *path, unsigned mode);
    int (*unlink)(const char *path);
} file_sys_table;
extern file_sys_table file_sys;

/* Whole file into memory (mem_new'd, one zero byte behind the end). Refuses more than max bytes. */
tl_status file_read(const tl_allocator *a, const char *path, size_t max, char **data, size_t *size, tl_error *e);

typedef struct file_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
} file_map;
/* Read-only map; refuses what is not a regular file. */
tl_status file_map_open(const char *path, file_map *m, tl_error *e);
void file_map_close(file_map *m);

/* Durable replacement: writes path.tmp-PID beside it, fsync, rename, fsync of the directory. */
typedef struct file_writer {
    int fd;
    char path[1024], tmp[1088];
    uint8_t *buf; /* 1 MiB, owned */
    size_t used;
    uint64_t written;
    const tl_allocator *alloc;
} file_writer;
tl_status file_writer_open(file_writer *w, const tl_allocator *a, const char *path, tl_error *e);
tl_status file_writer_put(file_writer *w, const void *data, size_t n, tl_error *e);
tl_status file_writer_commit(file_writer *w, tl_error *e); /* after it, or after abort, w is closed */
void file_writer_abort(file_writer *w);                    /* removes the temporary file; safe on a closed w */
tl_status file_write(const tl_allocator *a, const char *path, const void *data, size_t n, tl_error *e);

tl_status file_sync_dir(const char *path, tl_error *e);
tl_status file_mkdirs(const char *path, tl_error *e);             /* like mkdir -p */
tl_status file_rename(const char *from, const char *to, tl_error *e); /* rename and fsync of the parent */
tl_status file_remove_tree(const tl_allocator *a, const char *path, tl_error *e);
/* dir/name into out; LIMIT if it does not fit. */
tl_status file_join(char *out, size_t size, const char *dir, const char *name, tl_error *e);
/* path without links and dots, from the root on; as it is where that cannot be told or does not fit. */
void file_absolute(const char *path, char *out, size_t size);
bool file_exists(const char *path);
bool file_is_dir(const char *path);
int64_t file_size(const char *path); /* -1 if it cannot be told */
/* Names in a directory except . and .., sorted by bytes; one mem_new'd block of pointers and text. */
tl_status file_list(const tl_allocator *a, const char *dir, char ***names, size_t *n, tl_error *e);
void file_list_free(const tl_allocator *a, char **names);
/* An exclusive advisory lock on path (created); BUSY with the holder's pid if another process has it. */
tl_status file_lock(const char *path, int *fd, tl_error *e);
void file_unlock(int fd);

#endif
