#include "support/testing.h"

#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

void test_tempdir(char *buf, size_t size) {
    const char *base = getenv("TMPDIR");
    int n = snprintf(buf, size, "%s/tilia-test-XXXXXX", base && *base ? base : "/tmp");
    if (n < 0 || (size_t)n >= size || !mkdtemp(buf)) fail_msg("no temporary folder at %s", buf);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *where) {
    (void)st, (void)flag, (void)where;
    return remove(path);
}

void test_tempdir_remove(const char *path) {
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_data(const char *name, char *buf, size_t size) {
    const char *base = getenv("TILIA_DATA");
    int n = base && *base ? snprintf(buf, size, "%s/%s", base, name)
                          : snprintf(buf, size, "%s/../shared/data/%s", TILIA_SOURCE_DIR, name);
    return n > 0 && (size_t)n < size && access(buf, R_OK) == 0 ? buf : NULL;
}

char *test_slurp(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *data = n < 0 ? NULL : malloc((size_t)n + 1);
    if (data && fread(data, 1, (size_t)n, f) != (size_t)n) {
        free(data);
        data = NULL;
    }
    fclose(f);
    if (!data) return NULL;
    data[n] = 0;
    if (size) *size = (size_t)n;
    return data;
}

void test_assert_ok(tl_status s, const tl_error *e, const char *expr, const char *file, int line) {
    if (s == TL_OK) return;
    char buf[1024];
    print_error("%s\n   answers: %s%s%s\n", expr, tl_status_text(s), e ? ": " : "",
                e ? tl_error_text(e, buf, sizeof buf) : "");
    _fail(file, line);
}

void test_assert_fails(tl_status code, tl_status s, const tl_error *e, const char *expr, const char *file, int line) {
    if (s == code && (!e || (e->code == code && e->text[0]))) return;
    char buf[1024];
    print_error("%s\n   must fail with \"%s\" and answers \"%s\" with the error \"%s\"\n", expr, tl_status_text(code),
                tl_status_text(s), e ? tl_error_text(e, buf, sizeof buf) : "none");
    _fail(file, line);
}

void test_assert_near(double a, double b, double tolerance, const char *ta, const char *tb, const char *file,
                      int line) {
    if (fabs(a - b) <= tolerance) return;
    print_error("%s = %.9g and %s = %.9g differ by %.3g, more than %.3g\n", ta, a, tb, b, fabs(a - b), tolerance);
    _fail(file, line);
}
