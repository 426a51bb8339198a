#include "cli/cli.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- arguments ------------------------------------------------------------------------------------ */

enum { KEY_THREADS = 0x7000, KEY_SEED, KEY_DEVICE, KEY_QUIET, KEY_JSON };

static const struct argp_option common_options[] = {
    {0, 0, 0, 0, "Everywhere:", 90},
    {"threads", KEY_THREADS, "N", 0, "worker threads (default: the cores the process may use)", 90},
    {"seed", KEY_SEED, "N", 0, "seed of all random numbers", 90},
    {"device", KEY_DEVICE, "cpu|cuda", 0, "where to compute (cuda has no kernels yet: docs/cuda.md)", 90},
    {"quiet", KEY_QUIET, 0, 0, "no progress on stderr", 90},
    {"json", KEY_JSON, 0, 0, "one JSON document on stdout", 90},
    {0}};

static error_t common_parse(int key, char *arg, struct argp_state *s) {
    cli_common *c = s->input;
    switch (key) {
    case KEY_THREADS: c->threads = (int)cli_int(s, "--threads", arg, 1, 1024); return 0;
    case KEY_SEED:
        c->seed = (uint64_t)cli_int(s, "--seed", arg, 0, INT64_MAX);
        c->has_seed = true;
        return 0;
    case KEY_DEVICE: c->device = arg; return 0;
    case KEY_QUIET: c->quiet = true; return 0;
    case KEY_JSON: c->json = true; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cli_common_argp = {common_options, common_parse, 0, 0, 0, 0, 0};

int cli_parse(const struct argp *a, int argc, char **argv, void *input) {
    char name[64];
    snprintf(name, sizeof name, "tilia %s", argv[0]);
    argv[0] = name;
    argp_err_exit_status = EXIT_USAGE;
    return argp_parse(a, argc, argv, 0, NULL, input) ? EXIT_USAGE : EXIT_DONE;
}

int64_t cli_int(struct argp_state *s, const char *option, const char *arg, int64_t min, int64_t max) {
    char *end;
    errno = 0;
    long long v = strtoll(arg, &end, 10);
    if (end == arg || *end || errno || v < min || v > max)
        argp_error(s, "%s is \"%s\"; it takes a whole number from %lld to %lld", option, arg, (long long)min,
                   (long long)max);
    return v;
}

double cli_real(struct argp_state *s, const char *option, const char *arg, double min, double max) {
    char *end;
    double v = strtod(arg, &end);
    if (end == arg || *end || !(v >= min && v <= max))
        argp_error(s, "%s is \"%s\"; it takes a number from %g to %g", option, arg, min, max);
    return v;
}

/* ---- errors ------------------------------------------------------------------------------------------ */

int cli_fail(const tl_error *e) {
    char text[1024];
    fprintf(stderr, "tilia: %s\n", tl_error_text(e, text, sizeof text));
    return e->code == TL_ARG ? EXIT_USAGE : EXIT_FAILED;
}

int cli_usage(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "tilia: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    return EXIT_USAGE;
}

int cli_finish(int code) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    if (errno != EPIPE) fprintf(stderr, "tilia: writing to standard output: %s\n", strerror(errno));
    return code ? code : EXIT_FAILED;
}

/* ---- engine -------------------------------------------------------------------------------------------- */

static void log_to_stderr(void *user, tl_log_level level, const char *line) {
    (void)user;
    fprintf(stderr, "tilia: %s%s\n", level == TL_LOG_WARN ? "warning: " : "", line);
}

tl_status cli_engine(const cli_common *c, tl_engine **out, tl_error *e) {
    tl_engine_options o = {.log = log_to_stderr,
                           .log_level = c->quiet ? TL_LOG_WARN : TL_LOG_INFO,
                           .threads = c->threads,
                           .device = c->device};
    return tl_engine_create(&o, out, e);
}

/* ---- text ------------------------------------------------------------------------------------------------ */

const char *cli_count(double n, char *buf, size_t size) {
    static const char unit[] = {0, 'k', 'M', 'G', 'T', 'P', 'E'};
    size_t i = 0;
    for (; fabs(n) >= 999.5 && i + 1 < sizeof unit; i++) n /= 1000;
    if (i == 0)
        snprintf(buf, size, "%.0f", n);
    else
        snprintf(buf, size, "%.*f%c", n < 10 ? 2 : n < 100 ? 1 : 0, n, unit[i]);
    return buf;
}

const char *cli_rate(double n, const char *unit, char *buf, size_t size) {
    char count[24];
    size_t digits = strspn(cli_count(n, count, sizeof count), "-.0123456789");
    snprintf(buf, size, "%.*s %s%s", (int)digits, count, count + digits, unit);
    return buf;
}

const char *cli_bytes(double n, char *buf, size_t size) {
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    size_t i = 0;
    for (; fabs(n) >= 999.5 && i < 5; i++) n /= 1000;
    snprintf(buf, size, i == 0 ? "%.0f %s" : "%.3g %s", n, unit[i]);
    return buf;
}

void cli_json_text(FILE *f, const char *text, size_t n) {
    putc('"', f);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", f);
        else if (c == '\t')
            fputs("\\t", f);
        else if (c < 0x20)
            fprintf(f, "\\u%04x", c);
        else
            putc(c, f);
    }
    putc('"', f);
}

/* ---- signals ------------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t caught;

static void on_signal(int number) {
    if (caught) _exit(128 + number);
    caught = number;
}

/* On a stack of its own: generated code of oneDNN uses the stack pointer as one more register, so that a handler's
 * frame would land in the middle of its data. Threads of the pool block signals. */
void cli_catch_signals(void) {
    static char room[64 << 10];
    stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
    sigaltstack(&stack, NULL);
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

int cli_signal(void) {
    return caught;
}
int cli_signal_code(void) {
    return 128 + caught;
}
