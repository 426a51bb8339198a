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
    fprintf(stderr, "tilia: no command \"%s\"; `tilia --help` lists them\n", name);
    return EXIT_USAGE;
}
