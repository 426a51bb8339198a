#include "base/error.h"
#include "base/log.h"
#include "support/testing.h"

#include <errno.h>

static const tl_status every_status[] = {
#define X(name, number, message) TL_##name,
#include "tilia/status.def"
#undef X
};

static void every_status_has_its_own_text(void **state) {
    (void)state;
    size_t n = sizeof every_status / sizeof every_status[0];
    for (size_t i = 0; i < n; i++) {
        assert_true(strlen(tl_status_text(every_status[i])) > 3);
        for (size_t j = 0; j < i; j++) {
            assert_true(every_status[i] != every_status[j]);
            assert_string_not_equal(tl_status_text(every_status[i]), tl_status_text(every_status[j]));
        }
    }
    assert_string_equal(tl_status_text((tl_status)-9999), "unknown status");
}

static void an_error_tells_its_place(void **state) {
    (void)state;
    tl_error e;
    char buf[1024];
    memset(&e, 0xff, sizeof e);
    assert_int_equal(error_set(&e, TL_SHAPE, "%d is not %d", 3, 4), TL_SHAPE);
    assert_int_equal(e.code, TL_SHAPE);
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), "3 is not 4");
    error_at_tensor(&e, "wte.weight");
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), "wte.weight: 3 is not 4");
    error_at_line(&e, 12);
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), "line 12: wte.weight: 3 is not 4");
    error_at_file(&e, "config.json");
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), "config.json:12: wte.weight: 3 is not 4");
    error_at_offset(&e, 77);
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), "config.json:12: wte.weight: 3 is not 4 (at byte 77)");
    error_set(&e, TL_IO, "new"); /* a new error forgets the old place */
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), "new");
    error_clear(&e);
    assert_int_equal(e.code, TL_OK);
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), tl_status_text(TL_OK));
    error_set(&e, TL_SHAPE, "norm: x is flat"); /* said once */
    error_at_tensor(&e, "norm");
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), "norm: x is flat");
    error_at_tensor(&e, "nor");
    assert_string_equal(tl_error_text(&e, buf, sizeof buf), "nor: norm: x is flat");
}

static void small_buffers_and_no_error(void **state) {
    (void)state;
    tl_error e;
    char buf[8];
    error_set(&e, TL_IO, "a text that does not fit");
    error_at_file(&e, "name");
    for (size_t n = 1; n <= sizeof buf; n++) {
        memset(buf, 'x', sizeof buf);
        tl_error_text(&e, buf, n);
        assert_int_equal(strlen(buf), n - 1);
    }
    assert_string_equal(tl_error_text(&e, NULL, 0), "");
    assert_string_equal(tl_error_text(NULL, buf, sizeof buf), "done");
    assert_int_equal(error_set(NULL, TL_LIMIT, "%s", "x"), TL_LIMIT);
    error_at_file(NULL, "x"), error_at_tensor(NULL, "x"), error_at_line(NULL, 1), error_at_offset(NULL, 1);
    error_clear(NULL);
}

static void long_texts_show_that_they_were_cut(void **state) {
    (void)state;
    tl_error e;
    char text[2000];
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = 0;
    error_set(&e, TL_ARG, "%s", text);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    assert_string_equal(e.text + sizeof e.text - 5, "y...");
    error_at_file(&e, text);
    assert_string_equal(e.file + sizeof e.file - 5, "y...");
    error_at_tensor(&e, text);
    assert_string_equal(e.tensor + sizeof e.tensor - 5, "y...");
}

static void errno_becomes_a_status(void **state) {
    (void)state;
    static const struct {
        int number;
        tl_status code;
    } rows[] = {{ENOENT, TL_NOTFOUND}, {ENOTDIR, TL_NOTFOUND}, {ENOMEM, TL_NOMEM}, {ENOSPC, TL_NOSPACE},
                {EDQUOT, TL_NOSPACE},  {EACCES, TL_IO},        {EIO, TL_IO}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tl_error e;
        errno = rows[i].number;
        assert_int_equal(error_errno(&e, "cannot %s", "dance"), rows[i].code);
        assert_int_equal(errno, rows[i].number);
        assert_memory_equal(e.text, "cannot dance: ", 14);
        assert_string_equal(e.text + 14, strerror(rows[i].number));
        errno = rows[i].number;
        assert_int_equal(error_errno(NULL, "x"), rows[i].code);
    }
}

static char last_line[2048];
static int lines;

static void keep_line(void *user, tl_log_level level, const char *line) {
    assert_ptr_equal(user, &lines);
    (void)level;
    lines++;
    snprintf(last_line, sizeof last_line, "%s", line);
}

static void log_keeps_its_level_and_its_lines(void **state) {
    (void)state;
    log_sink l = {keep_line, &lines, TL_LOG_INFO};
    log_line(&l, TL_LOG_DEBUG, "hidden");
    assert_int_equal(lines, 0);
    log_line(&l, TL_LOG_WARN, "one\ntwo %d\r\n", 3);
    assert_int_equal(lines, 1);
    assert_string_equal(last_line, "one two 3  ");
    log_line(&l, TL_LOG_INFO, "%3000d", 1); /* cut, never overrun */
    assert_int_equal(strlen(last_line), 1023);
    log_line(&(log_sink){0}, TL_LOG_ERROR, "nobody listens");
    log_line(NULL, TL_LOG_ERROR, "nobody listens");
    assert_int_equal(lines, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_its_own_text), cmocka_unit_test(an_error_tells_its_place),
        cmocka_unit_test(small_buffers_and_no_error),    cmocka_unit_test(long_texts_show_that_they_were_cut),
        cmocka_unit_test(errno_becomes_a_status),        cmocka_unit_test(log_keeps_its_level_and_its_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
