/* The processor as a device: the thread pool and the table of kernels. */
#include "cpu/cpu.h"

#include "base/mem.h"
#include "cpu/pool.h"

#include <stdio.h>
#include <string.h>

const char kernel_no_memory[] = "no memory for the kernel's state";

typedef struct cpu_device {
    device base;
    uint32_t isa;
    pool *pool;
} cpu_device;

/* ---- the reference ----------------------------------------------------------------------------- */

typedef void (*reference_fn)(const tl_op_call *c);

static void cpu_reference_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)phase, (void)worker;
    if (lo < hi) ((reference_fn)t->exec->leaf)(t->call);
}

/* Double if a result is: then all sums are. */
static bool cpu_call_is_f64(const tl_op_call *c) {
    bool any = false;
    for (int k = 0; k < TL_OP_OUTS; k++) {
        if (c->out[k].d.dtype == TL_F64) return true;
        any |= c->out[k].d.dtype != TL_NONE;
    }
    return !any && c->in[0].d.dtype == TL_F64;
}

static tl_status cpu_reference(const tl_op_def *op, const tl_op_call *c, kernel_exec *x, tl_error *err) {
    bool f64 = cpu_call_is_f64(c);
    reference_fn leaf = f64 ? op->ref_f64 : op->ref_f32;
    if (!leaf) {
        error_set(err, TL_UNSUPPORTED, "no reference in %s", f64 ? "f64" : "f32");
        error_at_tensor(err, op->name);
        return TL_UNSUPPORTED;
    }
    *x = (kernel_exec){.name = f64 ? "ref_f64" : "ref_f32",
                       .run = cpu_reference_run,
                       .leaf = (void (*)(void))leaf,
                       .phases = 1,
                       .tiles = {1}};
    return TL_OK;
}

/* ---- choosing ------------------------------------------------------------------------------------ */

const char *cpu_row_accepts(const kernel_row *row, uint32_t isa, const tl_op_call *call, int threads, bool dry,
                            const tl_allocator *alloc, kernel_exec *x) {
    uint32_t lacks = row->isa & ~isa;
    if (lacks) {
        if (lacks & ISA_AVX2) return "needs avx2";
        if (lacks & ISA_AVX512) return "needs avx512";
        if (lacks & ISA_AVX512VNNI) return "needs avx512vnni";
        return lacks & ISA_AVX512BF16 ? "needs avx512bf16" : "needs avx512fp16";
    }
    *x = (kernel_exec){.name = row->name, .run = row->run, .leaf = row->leaf};
    return row->prepare(call, threads, dry, alloc, x);
}

static void cpu_refusal(char *buf, size_t size, const char *kernel, const char *why) {
    size_t n = buf && size ? strlen(buf) : 0;
    if (n < size) snprintf(buf + n, size - n, "%s%s: %s", n ? "; " : "", kernel, why);
}

static tl_status cpu_choose(device *d, const tl_op_def *op, const tl_op_call *call, bool dry, kernel_exec *out,
                            char *refusals, size_t refusals_size, tl_error *err) {
    const cpu_device *me = (const cpu_device *)d;
    if (refusals && refusals_size) refusals[0] = 0;
    for (size_t i = 0; op->id >= 0 && i < kernel_count; i++) {
        const kernel_row *row = &kernel_table[i];
        if (row->op != op->id) continue;
        kernel_exec x;
        const char *why = cpu_row_accepts(row, me->isa, call, d->threads, dry, d->alloc, &x);
        if (!why) {
            *out = x;
            return TL_OK;
        }
        if (why == kernel_no_memory) return error_set(err, TL_NOMEM, "%s: %s", row->name, why);
        if (refusals) cpu_refusal(refusals, refusals_size, row->name, why);
    }
    return cpu_reference(op, call, out, err);
}

/* ---- the device ------------------------------------------------------------------------------------ */

static void cpu_launch(device *d, const kernel_task *t) {
    pool_run(((cpu_device *)d)->pool, t);
}

static void *cpu_alloc_bytes(device *d, size_t bytes) {
    return mem_take(d->alloc, bytes);
}

static void cpu_free_bytes(device *d, void *p, size_t bytes) {
    mem_give(d->alloc, p, bytes);
}

device *cpu_device_create(const tl_allocator *a, int threads, uint32_t isa, tl_error *err) {
    cpu_device *me = mem_new(a, 1, sizeof *me);
    if (!me) {
        error_set(err, TL_NOMEM, "no memory for a device");
        return NULL;
    }
    me->base = (device){.name = "cpu",
                        .alloc = a,
                        .threads = threads,
                        .choose = cpu_choose,
                        .launch = cpu_launch,
                        .alloc_bytes = cpu_alloc_bytes,
                        .free_bytes = cpu_free_bytes};
    me->isa = isa;
    if (pool_create(a, threads, &me->pool, err) != TL_OK) {
        mem_free(a, me);
        return NULL;
    }
    return &me->base;
}

void cpu_device_destroy(device *d) {
    cpu_device *me = (cpu_device *)d;
    if (!me) return;
    pool_destroy(me->pool);
    mem_free(me->base.alloc, me);
}
