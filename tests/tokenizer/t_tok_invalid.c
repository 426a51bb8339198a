/* invalid/NAME beside NAME.expected: the status and a part of the message each bad file must give. */
#include "support/testing.h"

#include "base/file.h"
#include "tokenizer/tokenizer.h"
#include <stdlib.h>

static void each_file_gives_its_error(void **state) {
    (void)state;
    char dir[600];
    char **names;
    size_t n, seen = 0, bad = 0;
    tl_error e = {0};
    snprintf(dir, sizeof dir, "%s/tests/tokenizer/invalid", TILIA_SOURCE_DIR);
    assert_ok(file_list(&mem_default, dir, &names, &n, &e), &e);
    for (size_t i = 0; i < n; i++) {
        char path[1000], want_path[1100], text[1200];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        snprintf(want_path, sizeof want_path, "%s.expected", path);
        size_t size;
        char *want = test_slurp(want_path, &size);
        if (!want) continue;
        seen++;
        char *part;
        long status = strtol(want, &part, 10);
        part += *part == ' ';
        part[strcspn(part, "\n")] = 0;
        tokenizer *t = NULL;
        memset(&e, 0, sizeof e);
        tl_status s = tokenizer_open(&mem_default, path, &t, &e);
        if (s != (tl_status)status || !strstr(tl_error_text(&e, text, sizeof text), part) ||
            !strstr(e.file, names[i])) {
            print_error("%s: got %d \"%s\", want %ld \"%s\"\n", names[i], s, s ? text : "opened", status, part);
            bad++;
        }
        if (s == TL_OK) tokenizer_close(t);
        free(want);
    }
    file_list_free(&mem_default, names);
    assert_true(seen >= 90);
    assert_int_equal(bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_file_gives_its_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
