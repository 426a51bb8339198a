#include "cli/cli.h"

#include <signal.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int, char **);
    const char *help;
} commands[] = {
#define COMMAND(name, function, help) {#name, function, help},
#include "cli/commands.def"
#undef COMMAND
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void help(FILE *f) {
    fprintf(f, "Usage: tilia COMMAND [OPTION...]\n\nA Transformer the whole way in C: train, evaluate, generate.\n\n");
    for (size_t i = 0; i < COMMANDS; i++) fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\n`tilia COMMAND --help` shows a command's options; `tilia --version` the version.\n");
}

/* Letters to change, to put in, to leave out or to swap with their neighbour until a is b (Damerau 1964); both short.
 */
static size_t distance(const char *a, const char *b) {
    enum { MOST = 16 };
    size_t d[MOST + 1][MOST + 1], n = strlen(a), m = strlen(b);
    if (n > MOST || m > MOST) return SIZE_MAX;
    for (size_t i = 0; i <= n; i++) d[i][0] = i;
    for (size_t k = 0; k <= m; k++) d[0][k] = k;
    for (size_t i = 1; i <= n; i++)
        for (size_t k = 1; k <= m; k++) {
            size_t least = d[i - 1][k - 1] + (a[i - 1] != b[k - 1]);
            if (d[i - 1][k] + 1 < least) least = d[i - 1][k] + 1;
            if (d[i][k - 1] + 1 < least) least = d[i][k - 1] + 1;
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] && d[i - 2][k - 2] + 1 < least)
                least = d[i - 2][k - 2] + 1;
            d[i][k] = least;
        }
    return d[n][m];
}

/* The command that was probably meant, or NULL. */
static const char *nearest(const char *name) {
    const char *found = NULL;
    size_t least = 3;
    for (size_t i = 0; i < COMMANDS; i++) {
        const size_t d = distance(name, commands[i].name);
        if (d < least && d < strlen(commands[i].name)) {
            least = d;
            found = commands[i].name;
        }
    }
    return found;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk, not an end */
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        help(stdout);
        return cli_finish(EXIT_DONE);
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("tilia %s\n", tl_version());
        return cli_finish(EXIT_DONE);
    }
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return cli_finish(commands[i].run(argc - 1, argv + 1));
    const char *near = nearest(name);
    if (near) return cli_usage("no command \"%s\"; did you mean %s?", name, near);
    return cli_usage("no command \"%s\"; `tilia --help` lists them", name);
}
