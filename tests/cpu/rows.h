/* Runs examples through every row of kernels.def that takes them, cut in different ways, against the reference in
 * double. The ways must agree bit for bit; the distance to the reference has a bound by number type. */
#ifndef TESTS_CPU_ROWS_H
#define TESTS_CPU_ROWS_H

#include "op/examples.h"

#include "base/mem.h"
#include "cpu/cpu.h"
#include "cpu/launchers.h"
#include "support/testing.h"

enum { ROWS_THREADS = 3 };

/* One run of all phases with the tiles of a phase dealt out in `parts` parts, the last first if backwards. */
static inline void rows_launch(const kernel_exec *x, const tl_op_call *c, int parts, bool backwards) {
    kernel_task t = {.call = c, .exec = x, .workers = ROWS_THREADS};
    t.scratch = aligned_alloc(64, (x->scratch + 127) / 64 * 64);
    assert_non_null(t.scratch);
    memset(t.scratch, 0xff, x->scratch); /* NaN */
    const int64_t repeats = x->repeats > 1 ? x->repeats : 1;
    for (t.repeat = 0; t.repeat < repeats; t.repeat++)
        for (int phase = 0; phase < x->phases; phase++)
            for (int i = 0; i < parts; i++) {
                const int p = backwards ? parts - 1 - i : i;
                const int64_t lo = p * x->tiles[phase] / parts, hi = (p + 1) * x->tiles[phase] / parts;
                if (lo < hi) x->run(&t, phase, lo, hi, p % ROWS_THREADS);
            }
    free(t.scratch);
}

/* A unit of the last place: a tie that f32 sums decide otherwise than double ones. */
static inline double rows_eps(tl_dtype t) {
    return t == TL_BF16 ? 1.0 / 128 : t == TL_F16 ? 1.0 / 1024 : 0x1p-23;
}

/* Greatest distance of output k from the reference, over the output's largest magnitude; NaN where only one is NaN. */
static inline double rows_distance(const tl_arg *got, const tl_arg *want) {
    double worst = 0, scale = 1e-3;
    const int64_t rows = tl_desc_rows(&got->d), last = tl_desc_last(&got->d);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < last; i++) {
            const double w = fabs(example_load(want, tl_desc_row(&want->d, r) + i));
            if (isfinite(w) && w > scale) scale = w;
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < last; i++) {
            const double w = example_load(want, tl_desc_row(&want->d, r) + i);
            const double g = example_load(got, tl_desc_row(&got->d, r) + i);
            if (isnan(w) && isnan(g)) continue;
            if (w == g) continue;
            const double d = fabs(g - w) / scale;
            if (!(d <= worst)) worst = d;
        }
    return worst;
}

/* Every row of the table that is the example's operator's. slack: allowed distance in units of the output's rounding
 * (f32 data: of sums). Returns how many rows took it. */
static inline int rows_check_in(const kernel_row *table, size_t count, const op_example *e, double slack) {
    int taken = 0;
    const uint32_t isa = isa_probe();
    example_call want;
    assert_true(example_open(e, 7, &want));
    want.op->ref_f64(&want.call);
    for (size_t i = 0; i < count; i++) {
        const kernel_row *row = &table[i];
        if (row->op != want.op->id || (row->isa & ~isa)) continue;
        example_call first;
        for (int way = 0; way < 4; way++) {
            kernel_exec x;
            example_call got;
            assert_true(example_open(e, 7, &got));
            const char *why = cpu_row_accepts(row, isa, &got.call, ROWS_THREADS, false, &mem_default, &x);
            if (why) {
                example_close(&got);
                break;
            }
            rows_launch(&x, &got.call, (int[]){1, 2, 3, 7}[way], way & 1);
            if (x.state_free) x.state_free(x.state, &mem_default);
            for (int k = 0; k < TL_OP_OUTS; k++) {
                if (!got.call.out[k].data) continue;
                if (way && memcmp(got.call.out[k].data, first.call.out[k].data, got.out_bytes[k]))
                    fail_msg("%s [%s] %s: output %d differs with the way it is cut", e->op, e->label, row->name, k);
                const double d = rows_distance(&got.call.out[k], &want.call.out[k]);
                const double bound = slack * 0x1p-24 + 1.01 * rows_eps(got.call.out[k].d.dtype);
                if (!way && !(d <= bound))
                    fail_msg("%s [%s] %s: output %d is off by %g, allowed %g", e->op, e->label, row->name, k, d, bound);
            }
            taken += !way;
            if (way)
                example_close(&got);
            else
                first = got;
            if (way == 3) example_close(&first);
        }
    }
    example_close(&want);
    return taken;
}
static inline int rows_check(const op_example *e, double slack) {
    return rows_check_in(kernel_table, kernel_count, e, slack);
}

#endif
