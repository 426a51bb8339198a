/* What `tilia devices` prints: for each operator which kernels there are, which one a typical call gets, and why not
 * the others. */
#include "base/mem.h"
#include "cpu/cpu.h"
#include "cuda/cuda.h"
#include "engine/engine.h"
#include "engine/typical.h"

static const char *kernels_verdict(tl_engine *e, const kernel_row *row, const tl_op_call *c) {
    kernel_exec x = {.state = NULL};
    const char *why = cpu_row_accepts(row, e->isa, c, e->host.dev->threads, true, &e->alloc, &x);
    if (x.state && x.state_free) x.state_free(x.state, &e->alloc);
    return why;
}

/* Of a GPU: its rows, and where none takes the call, that there is none. */
static void list_cuda(tl_engine *e, const tl_op_call *c, int op, tl_dtype t, engine_kernel_fn fn, void *user) {
    cuda_verdict v;
    bool found = false;
    engine_kernel k = {.op = op_table[op].name, .dtype = tl_dtype_name(t)};
    for (size_t i = 0; cuda_row(e->host.dev, c, op, i, &v); i++) {
        k.kernel = v.kernel, k.isa = v.needs;
        k.chosen = !found && !v.why[0];
        k.why = v.why[0] || k.chosen ? v.why : "a faster one is chosen";
        found |= k.chosen;
        fn(user, &k);
    }
    k.kernel = "none", k.isa = "", k.why = "no CUDA kernel yet", k.chosen = false;
    if (!found) fn(user, &k);
}

tl_status engine_list_kernels(tl_engine *e, engine_kernel_fn fn, void *user, tl_error *err) {
    static const tl_dtype dtypes[] = {TL_F32, TL_BF16};
    if (!e || !fn) return error_set(err, TL_ARG, "no engine to ask");
    for (int op = 0; op < OP_COUNT; op++) {
        if (op_table[op].flags & TL_OP_VIEW) continue; /* nothing runs */
        for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++) {
            typical_call c;
            TRY(typical_make(op, dtypes[t], &c, err));
            if (e->host.dev->memory) {
                list_cuda(e, &c.call, op, dtypes[t], fn, user);
                continue;
            }
            bool found = false;
            for (size_t i = 0; i < kernel_count; i++) {
                const kernel_row *row = &kernel_table[i];
                if (row->op != op) continue;
                const char *why = kernels_verdict(e, row, &c.call);
                engine_kernel k = {.op = op_table[op].name,
                                   .kernel = row->name,
                                   .isa = isa_name(row->isa),
                                   .dtype = tl_dtype_name(dtypes[t]),
                                   .why = why     ? why
                                          : found ? "a faster one is chosen"
                                                  : "",
                                   .chosen = !why && !found};
                found |= k.chosen;
                fn(user, &k);
            }
            engine_kernel k = {.op = op_table[op].name,
                               .kernel = "reference",
                               .isa = "ref",
                               .dtype = tl_dtype_name(dtypes[t]),
                               .why = found ? "a faster one is chosen" : "",
                               .chosen = !found};
            fn(user, &k);
        }
    }
    return TL_OK;
}
