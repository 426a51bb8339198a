/* What the launchers of cpu/gated share. */
#ifndef CPU_GATED_LAUNCH_H
#define CPU_GATED_LAUNCH_H

#include <math.h>
#include <string.h>

#include "cpu/gated/gated.h"
#include "cpu/launchers.h"
#include "cpu/product/linear.h"
#include "tensor/tensor.h"

/* An argument (B,T,w): token t of sequence b lies at p + size (b batch + t row). With heads, (B,T,H,w), head h of
 * sequence b counts as sequence b H + h. */
typedef struct gated_mat {
    char *p;
    int type; /* GEMM_F32 .. */
    int64_t size, batch, row, width, heads, head;
} gated_mat;

gated_mat gated_take(const tl_arg *a);
/* Rows (R,w) or (R,H,w): row r of head h is gated_at(m, r, h). */
gated_mat gated_take_rows(const tl_arg *a);
/* A state (B,s,e) or (B,H,s,e): its rows are those of s. */
gated_mat gated_take_state(const tl_arg *a);
static inline char *gated_at(const gated_mat *m, int64_t b, int64_t t) {
    const int64_t at = m->heads > 1 ? b / m->heads * m->batch + b % m->heads * m->head : b * m->batch;
    return m->p + m->size * (at + t * m->row);
}
static inline int64_t gated_heads(const tl_desc *d) {
    return d->ndim == 4 ? d->dim[2] : 1;
}
static inline bool gated_has(const tl_arg *a) {
    return a->d.dtype != TL_NONE;
}
static inline int64_t gated_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t gated_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static inline int64_t gated_ceil(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}
/* Position i of 0, n-1, 1, n-2, ...: neighbours weigh the same under a causal mask. */
static inline int64_t gated_balance(int64_t i, int64_t n) {
    return i % 2 ? n - 1 - i / 2 : i / 2;
}

/* The buffers of one worker for products. */
typedef struct gated_space {
    float *a, *b, *t;
} gated_space;
/* Floats of those for products of at most m rows, packed A at most `pack` floats, k at most `k`. */
int64_t gated_space_floats(int64_t m, int64_t pack, int64_t k);
gated_space gated_space_at(float *at, int64_t m, int64_t pack, int64_t k);

/* Rows of a matrix as an operand: as they are; and turned over. */
static inline gemm_matrix gated_rows(const void *p, int type, int64_t row) {
    return (gemm_matrix){(void *)(uintptr_t)p, type, row, 1};
}
static inline gemm_matrix gated_turned(const void *p, int type, int64_t row) {
    return (gemm_matrix){(void *)(uintptr_t)p, type, 1, row};
}
/* c (m,n) f32, rows c_row apart = [c +] a (m,k) b (k,n) */
void gated_product(const gated_leaf *f, const gated_space *w, int64_t m, int64_t n, int64_t k, gemm_matrix a,
                   gemm_matrix b, float *c, int64_t c_row, bool add);
/* the same into any type */
void gated_product_to(const gated_leaf *f, const gated_space *w, int64_t m, int64_t n, int64_t k, gemm_matrix a,
                      gemm_matrix b, void *c, int type, int64_t c_row, bool add);

/* b (k,n) of a product, and where it lies packed already if several products share it: panels of `depth` rows, of which
 * b begins at row `first`. */
typedef struct gated_shared {
    gemm_matrix b;
    float *panels; /* gemm_panel_floats(n, depth), or NULL: every product packs b by itself */
    int64_t depth, first;
} gated_shared;
void gated_share(const gated_leaf *f, const gated_shared *b, int64_t n, int64_t k);
/* gated_product with such a b */
void gated_product_by(const gated_leaf *f, const gated_space *w, int64_t m, int64_t n, int64_t k, gemm_matrix a,
                      const gated_shared *b, float *c, int64_t c_row, bool add);

/* Why a call of floats cannot be served, or NULL: first .. first + n of ins; f64, or a dtype without vectors. */
const char *gated_dtypes(const tl_op_call *c, int ins, int outs);
static inline const gated_leaf *gated_leaf_of(const kernel_exec *x) {
    return ((gated_leaf_fn *)x->leaf)();
}

/* ---- attributes ---- */
typedef struct gated_gate {
    const struct gate_attr *a;
    float alpha, bias_scale, cool; /* cool is exp(-theta) */
    const float *bias;             /* at distance 0 */
    int64_t reach;                 /* numbers of the table on either side of distance 0 */
} gated_gate;
gated_gate gated_gate_of(const struct gate_attr *a, int64_t s, const tl_arg *bias, const tl_arg *theta);
float gated_factor(const gated_gate *g, int64_t visible);
float gated_norm(const gated_gate *g, int64_t visible, int64_t length);
/* The row's constants without norm, stat, delta; column 0 is `ahead` of the row. */
gated_row gated_row_of(const gated_gate *g, int64_t ahead);

/* The run of documents around token i: [*first, *end), empty for padding. doc: of this sequence, or NULL. */
void gated_run(const int32_t *doc, int64_t T, int64_t i, int64_t *first, int64_t *end);
static inline const int32_t *gated_doc(const tl_arg *doc, int64_t b) {
    return doc->data ? (const int32_t *)doc->data + b * doc->d.stride[0] : NULL;
}

#endif
