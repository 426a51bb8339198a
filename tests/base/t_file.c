/* Files under failing system calls: a file is its old content or its new one, never a part of either. */
#include "base/file.h"
#include "support/testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[512];
static file_sys_table real;

/* ---- failing system calls -------------------------------------------------------------------- */

enum { SYS_OPEN, SYS_READ, SYS_WRITE, SYS_FSYNC, SYS_CLOSE, SYS_RENAME, SYS_MKDIR, SYS_UNLINK, SYS_COUNT };
static struct {
    int which, number; /* which call to fail, with which errno */
    long at;           /* the call to fail, from 1 */
    long calls[SYS_COUNT];
    size_t most;    /* bytes a read or write may move at once; 0: any */
    int interrupts; /* so many reads and writes answer EINTR first */
    long opened;
} fault;

static bool fails(int which) {
    fault.calls[which]++;
    if (which != fault.which || fault.calls[which] != fault.at) return false;
    errno = fault.number;
    return true;
}

static int faulty_open(const char *path, int flags, unsigned mode) {
    if (fails(SYS_OPEN)) return -1;
    int fd = real.open(path, flags, mode);
    if (fd >= 0) fault.opened++;
    return fd;
}

static bool interrupted(void) {
    if (fault.interrupts <= 0) return false;
    fault.interrupts--;
    errno = EINTR;
    return true;
}

static ssize_t faulty_read(int fd, void *buf, size_t n) {
    if (fails(SYS_READ) || interrupted()) return -1;
    return real.read(fd, buf, fault.most && n > fault.most ? fault.most : n);
}

static ssize_t faulty_write(int fd, const void *buf, size_t n) {
    if (fails(SYS_WRITE) || interrupted()) return -1;
    return real.write(fd, buf, fault.most && n > fault.most ? fault.most : n);
}

static int faulty_fsync(int fd) {
    return fails(SYS_FSYNC) ? -1 : real.fsync(fd);
}

static int faulty_close(int fd) {
    fault.opened--;
    int r = real.close(fd); /* a close that fails has closed all the same */
    return fails(SYS_CLOSE) ? -1 : r;
}

static int faulty_rename(const char *from, const char *to) {
    return fails(SYS_RENAME) ? -1 : real.rename(from, to);
}

static int faulty_mkdir(const char *path, unsigned mode) {
    return fails(SYS_MKDIR) ? -1 : real.mkdir(path, mode);
}

static int faulty_unlink(const char *path) {
    return fails(SYS_UNLINK) ? -1 : real.unlink(path);
}

static void inject(int which, long at, int number) {
    memset(&fault, 0, sizeof fault);
    fault.which = which;
    fault.at = at;
    fault.number = number;
    file_sys = (file_sys_table){faulty_open,  faulty_read,   faulty_write, faulty_fsync,
                                faulty_close, faulty_rename, faulty_mkdir, faulty_unlink};
}

static void heal(void) {
    file_sys = real;
}

static int setup(void **state) {
    (void)state;
    real = file_sys;
    test_tempdir(dir, sizeof dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    heal();
    test_tempdir_remove(dir);
    return 0;
}

static const char *in_dir(const char *name) {
    static char path[4][1024];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, 1024, "%s/%s", dir, name);
    return p;
}

static size_t entries(void) {
    char **names;
    size_t n;
    assert_ok(file_list(&mem_default, dir, &names, &n, NULL), NULL);
    file_list_free(&mem_default, names);
    return n;
}

static void assert_content(const char *path, const void *want, size_t n) {
    char *data;
    size_t size;
    tl_error e;
    assert_ok(file_read(&mem_default, path, SIZE_MAX, &data, &size, &e), &e);
    assert_int_equal(size, n);
    assert_memory_equal(data, want, n);
    assert_int_equal(data[n], 0);
    mem_free(&mem_default, data);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static tl_status write_and_read(const tl_allocator *a, void *user) {
    (void)user;
    tl_error e;
    char *data;
    size_t size;
    tl_status s = file_write(a, in_dir("x"), "abc", 3, &e);
    if (s) return s;
    s = file_read(a, in_dir("x"), 3, &data, &size, &e);
    if (s) return s;
    assert_true(size == 3 && !strcmp(data, "abc"));
    mem_free(a, data);
    return TL_OK;
}

static void allocation_failures_leave_nothing(void **state) {
    (void)state;
    assert_int_equal(test_alloc_sweep(write_and_read, NULL), 2);
    assert_int_equal(entries(), 1);
}

static void large_files_in_pieces(void **state) {
    (void)state;
    size_t n = 5u << 20;
    char *data = malloc(n);
    for (size_t i = 0; i < n; i++) data[i] = (char)(i * 2654435761u >> 13);
    file_writer w;
    tl_error e;
    inject(-1, 0, 0);
    fault.most = 70001; /* short writes and interruptions are not errors */
    fault.interrupts = 3;
    assert_ok(file_writer_open(&w, &mem_default, in_dir("big"), &e), &e);
    for (size_t at = 0, k = 1; at < n; at += k, k = k * 3 + 1) {
        if (k > n - at) k = n - at;
        assert_ok(file_writer_put(&w, data + at, k, &e), &e);
    }
    assert_int_equal(w.written, n);
    assert_false(file_exists(in_dir("big"))); /* nothing to see before the commit */
    assert_ok(file_writer_commit(&w, &e), &e);
    assert_fails(TL_STATE, file_writer_put(&w, "x", 1, &e), &e);
    assert_fails(TL_STATE, file_writer_commit(&w, &e), &e);
    file_writer_abort(&w);
    fault.interrupts = 3;
    assert_content(in_dir("big"), data, n);
    assert_int_equal(fault.opened, 0);
    assert_true(fault.calls[SYS_FSYNC] >= 2); /* the file and its folder */
    heal();
    assert_int_equal(file_size(in_dir("big")), n);
    file_map m;
    assert_ok(file_map_open(in_dir("big"), &m, &e), &e);
    assert_int_equal(m.size, n);
    assert_memory_equal(m.data, data, n);
    file_map_close(&m);
    file_map_close(&m);
    free(data);
    assert_ok(file_remove_tree(&mem_default, in_dir("big"), &e), &e);
}

/* Whatever call fails: a clear error, the old content, no temporary file left, no descriptor lost. */
static void a_failed_write_keeps_the_old_file(void **state) {
    (void)state;
    static const struct {
        int which, number;
        long at;
        tl_status code;
        bool replaced; /* the rename was done, only its durability is in doubt */
    } rows[] = {
        {SYS_OPEN, EACCES, 1, TL_IO, false},       {SYS_WRITE, ENOSPC, 1, TL_NOSPACE, false},
        {SYS_WRITE, EIO, 2, TL_IO, false},         {SYS_FSYNC, EIO, 1, TL_IO, false},
        {SYS_CLOSE, EDQUOT, 1, TL_NOSPACE, false}, {SYS_RENAME, EACCES, 1, TL_IO, false},
        {SYS_OPEN, EMFILE, 2, TL_IO, true},        {SYS_FSYNC, EIO, 2, TL_IO, true},
    };
    size_t before = entries();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tl_error e;
        assert_ok(file_write(&mem_default, in_dir("keep"), "old", 3, &e), &e);
        inject(rows[i].which, rows[i].at, rows[i].number);
        fault.most = 2; /* so that there is a second write */
        assert_fails(rows[i].code, file_write(&mem_default, in_dir("keep"), "newer", 5, &e), &e);
        assert_true(e.file[0]);
        assert_int_equal(fault.opened, 0);
        heal();
        assert_int_equal(entries(), before + 1);
        assert_content(in_dir("keep"), rows[i].replaced ? "newer" : "old", rows[i].replaced ? 5 : 3);
    }
    /* a folder that cannot be synced, as some file systems have it, is no error */
    inject(SYS_FSYNC, 2, EINVAL);
    assert_ok(file_write(&mem_default, in_dir("keep"), "x", 1, NULL), NULL);
    heal();
    unlink(in_dir("keep"));
}

static void a_failed_read_is_reported(void **state) {
    (void)state;
    tl_error e;
    char *data = (char *)1;
    size_t size = 1;
    assert_ok(file_write(&mem_default, in_dir("r"), "12345", 5, &e), &e);
    inject(SYS_READ, 1, EIO);
    assert_fails(TL_IO, file_read(&mem_default, in_dir("r"), 100, &data, &size, &e), &e);
    assert_null(data);
    assert_int_equal(fault.opened, 0);
    heal();
    assert_fails(TL_LIMIT, file_read(&mem_default, in_dir("r"), 4, &data, &size, &e), &e);
    assert_fails(TL_NOTFOUND, file_read(&mem_default, in_dir("none"), 4, &data, &size, &e), &e);
    assert_string_equal(e.file, in_dir("none"));
    assert_fails(TL_IO, file_read(&mem_default, dir, 4, &data, &size, &e), &e);
    file_map m;
    assert_fails(TL_IO, file_map_open(dir, &m, &e), &e);
    assert_fails(TL_NOTFOUND, file_map_open(in_dir("none"), &m, &e), &e);
    assert_int_equal(mkfifo(in_dir("pipe"), 0600), 0);
    assert_fails(TL_IO, file_map_open(in_dir("pipe"), &m, &e), &e); /* and it does not wait for a writer */
    assert_ok(file_write(&mem_default, in_dir("empty"), "", 0, &e), &e);
    assert_ok(file_map_open(in_dir("empty"), &m, &e), &e);
    assert_true(m.data == NULL && m.size == 0);
    file_map_close(&m);
    assert_content(in_dir("empty"), "", 0);
    unlink(in_dir("pipe")), unlink(in_dir("empty")), unlink(in_dir("r"));
}

static void bad_paths_are_refused(void **state) {
    (void)state;
    char longer[2000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    tl_error e;
    file_writer w;
    assert_fails(TL_ARG, file_writer_open(&w, &mem_default, longer, &e), &e);
    file_writer_abort(&w);
    assert_fails(TL_ARG, file_writer_open(&w, &mem_default, "", &e), &e);
    assert_fails(TL_ARG, file_mkdirs(longer, &e), &e);
    assert_fails(TL_ARG, file_mkdirs("", &e), &e);
    assert_fails(TL_NOTFOUND, file_write(&mem_default, in_dir("no/such/folder"), "x", 1, &e), &e);
    assert_false(file_exists(in_dir("no")));
    char joined[6];
    assert_ok(file_join(joined, sizeof joined, "ab", "cd", &e), &e);
    assert_string_equal(joined, "ab/cd");
    assert_fails(TL_LIMIT, file_join(joined, sizeof joined, "ab", "cde", &e), &e);
    assert_int_equal(file_size(dir), -1);
    assert_int_equal(file_size(in_dir("none")), -1);
}

static tl_status list_folder(const tl_allocator *a, void *user) {
    char **names;
    size_t n;
    tl_status s = file_list(a, user, &names, &n, NULL);
    if (s) return s;
    assert_int_equal(n, 3);
    assert_string_equal(names[0], "B");
    assert_string_equal(names[1], "a");
    assert_string_equal(names[2], "b");
    file_list_free(a, names);
    return TL_OK;
}

static tl_status remove_folder(const tl_allocator *a, void *user) {
    return file_remove_tree(a, user, NULL);
}

static void folders_are_made_listed_and_removed(void **state) {
    (void)state;
    tl_error e;
    char root[1024];
    snprintf(root, sizeof root, "%s", in_dir("tree"));
    assert_ok(file_mkdirs(in_dir("tree/b//c/"), &e), &e);
    assert_ok(file_mkdirs(in_dir("tree/b/c"), &e), &e); /* again is fine */
    assert_true(file_is_dir(in_dir("tree/b/c")));
    assert_ok(file_write(&mem_default, in_dir("tree/a"), "x", 1, &e), &e);
    assert_ok(file_write(&mem_default, in_dir("tree/B"), "x", 1, &e), &e);
    assert_ok(file_write(&mem_default, in_dir("outside"), "x", 1, &e), &e);
    assert_int_equal(symlink(dir, in_dir("tree/b/up")), 0);
    assert_fails(TL_IO, file_mkdirs(in_dir("tree/a"), &e), &e); /* a file is in the way */
    assert_fails(TL_IO, file_mkdirs(in_dir("tree/a/d"), &e), &e);
    inject(SYS_MKDIR, 1, EROFS);
    assert_fails(TL_IO, file_mkdirs("/nowhere-at-all/x", &e), &e);
    heal();
    test_alloc_sweep(list_folder, root);
    char **names;
    size_t n;
    assert_fails(TL_NOTFOUND, file_list(&mem_default, in_dir("none"), &names, &n, &e), &e);
    assert_ok(file_rename(in_dir("tree/a"), in_dir("tree/z"), &e), &e);
    assert_true(file_exists(in_dir("tree/z")) && !file_exists(in_dir("tree/a")));
    assert_fails(TL_NOTFOUND, file_rename(in_dir("tree/a"), in_dir("tree/z"), &e), &e);
    assert_fails(TL_NOTFOUND, file_sync_dir(in_dir("none"), &e), &e);
    test_alloc_sweep(remove_folder, root);
    assert_false(file_exists(root));
    assert_true(file_exists(in_dir("outside"))); /* the link was not followed */
    assert_ok(file_remove_tree(&mem_default, root, &e), &e);
    unlink(in_dir("outside"));
}

static void a_lock_excludes_other_processes(void **state) {
    (void)state;
    tl_error e;
    int fd;
    char path[1024];
    snprintf(path, sizeof path, "%s", in_dir("lock"));
    assert_ok(file_lock(path, &fd, &e), &e);
    pid_t child = fork();
    if (child == 0) {
        int mine;
        tl_error ce;
        char want[64];
        snprintf(want, sizeof want, "process %ld", (long)getppid());
        close(fd); /* the copy that fork gave; the parent still holds the lock */
        tl_status s = file_lock(path, &mine, &ce);
        _exit(s == TL_BUSY && strstr(ce.text, want) ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    file_unlock(fd);
    assert_ok(file_lock(path, &fd, &e), &e);
    file_unlock(fd);
    file_unlock(-1);
    assert_fails(TL_NOTFOUND, file_lock(in_dir("none/lock"), &fd, &e), &e);
    assert_int_equal(fd, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocation_failures_leave_nothing),
        cmocka_unit_test(large_files_in_pieces),
        cmocka_unit_test(a_failed_write_keeps_the_old_file),
        cmocka_unit_test(a_failed_read_is_reported),
        cmocka_unit_test(bad_paths_are_refused),
        cmocka_unit_test(folders_are_made_listed_and_removed),
        cmocka_unit_test(a_lock_excludes_other_processes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
