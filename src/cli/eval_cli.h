/* tilia eval in parts: texts (cmd_eval.c) and tasks (eval_task.c). */
#ifndef CLI_EVAL_CLI_H
#define CLI_EVAL_CLI_H

#include "cli/cli.h"

#include "model/model.h"

enum { EVAL_NUMBERS = 32 };

typedef struct eval_task {
    const cli_common *common;
    const char *name;                                 /* NULL: a text is evaluated */
    double length[EVAL_NUMBERS], depth[EVAL_NUMBERS]; /* depth in percent */
    size_t lengths, depths;
    int64_t trials;
} eval_task;

bool eval_task_known(const char *name);
void eval_task_list(void);
/* "1,2,3" within bounds; argp_error names the option otherwise. */
size_t eval_task_numbers(struct argp_state *st, const char *option, const char *arg, double min, double max,
                         double *out, size_t most);
tl_status eval_task_run(const eval_task *t, tl_model *m, tl_error *e);

#endif
