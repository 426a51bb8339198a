/* The machine that a command reckons with: a row of the hardware table, or this one as it was measured. */
#ifndef CLI_MACHINE_CLI_H
#define CLI_MACHINE_CLI_H

#include "cli/cli.h"
#include "cost/machine.h"
#include "engine/engine.h"

enum { MACHINE_PATH = 1024 };

/* Where this machine's measurement is kept: $XDG_CACHE_HOME (or ~/.cache) /tilia/machine-ISA-THREADS.json. */
tl_status machine_path(tl_engine *e, char *out, size_t size, tl_error *err);
/* "this": the measurement of this machine [fails: NOTFOUND never measured; STATE measured elsewhere]; else a row of
 * hardware.def. [owns: caller, machine_fini] */
tl_status machine_get(tl_engine *e, const char *name, cost_machine *m, tl_error *err);
/* The measured limits if there are any, else limits measured now, in a fraction of a second. */
tl_status machine_now(tl_engine *e, cost_machine *m, tl_error *err);

#endif
