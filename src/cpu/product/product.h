/* cpu/product: dense products. onednn.c is the only file that knows oneDNN; product.c cuts linear, linear_dx and
 * linear_dw into tiles fixed by their shapes; head.c is the chunked loss head; matvec is for a few rows. What this
 * folder gives the other kernels is the object below. It refuses quantized weights (cpu/quant) and f64. */
#ifndef CPU_PRODUCT_PRODUCT_H
#define CPU_PRODUCT_PRODUCT_H

#include "base/mem.h"
#include "cpu/kernel.h"

/* C (m,n) = [C +] A (m,k) B (k,n) [+ bias (n) f32], each operand by two strides in elements, of which one is 1; C's
 * columns are contiguous. A and B of one dtype, f32 or bf16; C f32 or bf16; sums in f32. */
typedef struct product_spec {
    int64_t m, n, k;
    tl_dtype ab, c;
    int64_t a_row, a_col, b_row, b_col, c_row;
    bool add, bias;
} product_spec;

typedef struct product product;

/* workers: how many may run it at the same time. [fails: NOMEM, UNSUPPORTED] */
tl_status product_create(const product_spec *s, int workers, const tl_allocator *a, product **out);
void product_destroy(product *p, const tl_allocator *a); /* NULL is fine */
/* Bytes of scratch one worker needs; known without creating state. false: oneDNN has no such product. */
bool product_scratch(const product_spec *s, size_t *bytes);
/* Runs on the calling thread alone, which must lie between product_enter and product_leave. scratch: of that many
 * bytes, aligned to 64. */
void product_run(product *p, int worker, const void *a, const void *b, void *c, const float *bias, void *scratch);
/* oneDNN's own threads off for the calling thread; product_leave takes what product_enter gave. */
int product_enter(void);
void product_leave(int before);

#endif
