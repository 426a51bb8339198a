/* The only file that speaks to oneDNN. A product is one matmul primitive, made on the planning thread and run by one
 * worker at a time on its own memory objects; oneDNN's own threads and its process-wide cache of primitives are off
 * (its threads split long sums by their number, the cache would outlive the engine). */
#include "cpu/product/product.h"

#include <dnnl.h>

/* libgomp's, the runtime of Debian's oneDNN; declared here because clang may lack omp.h. */
int omp_get_max_threads(void);
void omp_set_num_threads(int n);

enum { ONEDNN_MEMORIES = 5 }; /* A, B, C, bias, scratchpad */

typedef struct onednn_worker {
    dnnl_stream_t stream;
    dnnl_memory_t memory[ONEDNN_MEMORIES];
} onednn_worker;

struct product {
    dnnl_engine_t engine;
    dnnl_primitive_t primitive;
    size_t scratch;
    bool bias;
    int workers;
    onednn_worker worker[];
};

int product_enter(void) {
    int before = omp_get_max_threads();
    if (before != 1) omp_set_num_threads(1);
    return before;
}

void product_leave(int before) {
    if (before != 1) omp_set_num_threads(before);
}

static dnnl_data_type_t onednn_type(tl_dtype t) {
    return t == TL_F32 ? dnnl_f32 : t == TL_BF16 ? dnnl_bf16 : dnnl_data_type_undef;
}

static bool onednn_matrix(dnnl_memory_desc_t *d, int64_t rows, int64_t cols, tl_dtype t, int64_t row, int64_t col) {
    dnnl_dims_t dims = {rows, cols}, strides = {row, col};
    return dnnl_memory_desc_init_by_strides(d, 2, dims, onednn_type(t), strides) == dnnl_success;
}

/* The primitive's descriptor with a scratchpad of ours; md gets A, B, C, bias. */
static bool onednn_describe(const product_spec *s, dnnl_engine_t engine, dnnl_memory_desc_t md[4],
                            dnnl_primitive_desc_t *out) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_matmul_desc_t mm;
    bool ok = onednn_matrix(&md[0], s->m, s->k, s->ab, s->a_row, s->a_col) &&
              onednn_matrix(&md[1], s->k, s->n, s->ab, s->b_row, s->b_col) &&
              onednn_matrix(&md[2], s->m, s->n, s->c, s->c_row, 1) &&
              (!s->bias || onednn_matrix(&md[3], 1, s->n, TL_F32, s->n, 1)) &&
              dnnl_matmul_desc_init(&mm, &md[0], &md[1], s->bias ? &md[3] : NULL, &md[2]) == dnnl_success &&
              dnnl_primitive_attr_create(&attr) == dnnl_success &&
              dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;
    if (ok && s->add)
        ok = dnnl_post_ops_create(&post) == dnnl_success && dnnl_post_ops_append_sum(post, 1.0f) == dnnl_success &&
             dnnl_primitive_attr_set_post_ops(attr, post) == dnnl_success;
    ok = ok && dnnl_primitive_desc_create(out, &mm, attr, engine, NULL) == dnnl_success;
    if (post) dnnl_post_ops_destroy(post);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return ok;
}

static size_t onednn_scratch(const_dnnl_primitive_desc_t pd) {
    const dnnl_memory_desc_t *d = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    return d ? (dnnl_memory_desc_get_size(d) + 63) / 64 * 64 : 0;
}

bool product_scratch(const product_spec *s, size_t *bytes) {
    dnnl_engine_t engine = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_memory_desc_t md[4];
    int before = product_enter();
    bool ok = dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success && onednn_describe(s, engine, md, &pd);
    if (ok) *bytes = onednn_scratch(pd);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (engine) dnnl_engine_destroy(engine);
    product_leave(before);
    return ok;
}

static bool onednn_worker_init(onednn_worker *w, dnnl_engine_t engine, const dnnl_memory_desc_t md[4], bool bias,
                               const dnnl_memory_desc_t *scratchpad) {
    bool ok = dnnl_stream_create(&w->stream, engine, dnnl_stream_in_order) == dnnl_success;
    for (int i = 0; ok && i < 4; i++)
        if (i < 3 || bias) ok = dnnl_memory_create(&w->memory[i], &md[i], engine, DNNL_MEMORY_NONE) == dnnl_success;
    return ok && dnnl_memory_create(&w->memory[4], scratchpad, engine, DNNL_MEMORY_NONE) == dnnl_success;
}

tl_status product_create(const product_spec *s, int workers, const tl_allocator *a, product **out) {
    *out = NULL;
    product *p = mem_new(a, 1, sizeof *p + (size_t)workers * sizeof p->worker[0]);
    if (!p) return TL_NOMEM;
    p->bias = s->bias;
    p->workers = workers;
    dnnl_memory_desc_t md[4];
    dnnl_primitive_desc_t pd = NULL;
    int before = product_enter();
    dnnl_set_primitive_cache_capacity(0);
    bool ok = dnnl_engine_create(&p->engine, dnnl_cpu, 0) == dnnl_success && onednn_describe(s, p->engine, md, &pd) &&
              dnnl_primitive_create(&p->primitive, pd) == dnnl_success;
    if (ok) {
        p->scratch = onednn_scratch(pd);
        const dnnl_memory_desc_t *scratchpad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        for (int i = 0; ok && i < workers; i++)
            ok = onednn_worker_init(&p->worker[i], p->engine, md, s->bias, scratchpad);
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    product_leave(before);
    if (!ok) {
        product_destroy(p, a);
        return TL_UNSUPPORTED;
    }
    *out = p;
    return TL_OK;
}

void product_destroy(product *p, const tl_allocator *a) {
    if (!p) return;
    for (int i = 0; i < p->workers; i++) {
        for (int j = 0; j < ONEDNN_MEMORIES; j++)
            if (p->worker[i].memory[j]) dnnl_memory_destroy(p->worker[i].memory[j]);
        if (p->worker[i].stream) dnnl_stream_destroy(p->worker[i].stream);
    }
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->engine) dnnl_engine_destroy(p->engine);
    mem_free(a, p);
}

void product_run(product *p, int worker, const void *a, const void *b, void *c, const float *bias, void *scratch) {
    onednn_worker *w = &p->worker[worker];
    /* oneDNN takes its inputs as memory objects too, so constness ends here; it does not write A, B or bias. */
    dnnl_memory_set_data_handle(w->memory[0], (void *)(uintptr_t)a);
    dnnl_memory_set_data_handle(w->memory[1], (void *)(uintptr_t)b);
    dnnl_memory_set_data_handle(w->memory[2], c);
    dnnl_memory_set_data_handle(w->memory[4], scratch);
    dnnl_exec_arg_t args[ONEDNN_MEMORIES] = {
        {DNNL_ARG_SRC, w->memory[0]},        {DNNL_ARG_WEIGHTS, w->memory[1]}, {DNNL_ARG_DST, w->memory[2]},
        {DNNL_ARG_SCRATCHPAD, w->memory[4]}, {DNNL_ARG_BIAS, w->memory[3]},
    };
    if (p->bias) dnnl_memory_set_data_handle(w->memory[3], (void *)(uintptr_t)bias);
    dnnl_primitive_execute(p->primitive, w->stream, p->bias ? 5 : 4, args);
}
