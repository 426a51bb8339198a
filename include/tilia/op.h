/* tilia/op.h: what an operator is. For those who add one; tilia/graph.h is for those who use them.
 *
 * An operator is a row: a shape rule, a gradient rule, a cost rule and a scalar reference kernel in two precisions.
 * The built-in ones are the rows of src/op/ops.def; a program may bring its own (examples/own_operator.c). */
#ifndef TILIA_OP_H
#define TILIA_OP_H

#include "tilia/base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TL_DIMS = 4,     /* most dimensions of a tensor */
    TL_OP_INS = 12,  /* most inputs of an operator */
    TL_OP_OUTS = 8,  /* most outputs */
    TL_ATTR_MAX = 96 /* most bytes of an operator's attributes */
};

/* Shape and layout of a tensor; never owns memory. dim[0] is the slowest. Strides are in elements; the last
 * dimension of everything an operator sees is contiguous (stride 1), the others may be views of wider rows.
 * A quantized tensor's last dimension is a multiple of its block and its strides count elements all the same. */
typedef struct tl_desc {
    tl_dtype dtype; /* TL_NONE: the optional argument is absent */
    int32_t ndim;
    int64_t dim[TL_DIMS];
    int64_t stride[TL_DIMS];
} tl_desc;

/* Number of elements; product of all dimensions but the last (1 for ndim 0 and 1); the last dimension. */
TL_API int64_t tl_desc_count(const tl_desc *d);
TL_API int64_t tl_desc_rows(const tl_desc *d);
TL_API int64_t tl_desc_last(const tl_desc *d);
/* Element offset of row r, rows counted over all dimensions but the last. */
TL_API int64_t tl_desc_row(const tl_desc *d, int64_t r);
/* A contiguous descriptor. */
TL_API tl_desc tl_desc_make(tl_dtype dtype, int ndim, const int64_t *dim);
TL_API bool tl_desc_contiguous(const tl_desc *d);
TL_API bool tl_desc_same_shape(const tl_desc *a, const tl_desc *b);

/* ---- one call of an operator ------------------------------------------------------------------ */

/* Data of a run that is not a tensor: the keys of random numbers. */
typedef struct tl_run_info {
    uint64_t seed, step;
    int64_t row0; /* global index of the first row of this micro-batch: random numbers do not depend on splitting */
} tl_run_info;

typedef struct tl_arg {
    void *data; /* NULL for an absent optional input or an output nobody wants */
    tl_desc d;
} tl_arg;

typedef struct tl_op_call {
    const void *attr; /* the operator's attribute struct */
    tl_arg in[TL_OP_INS], out[TL_OP_OUTS];
    uint32_t acc; /* bit i: add into out[i], do not overwrite it */
    const tl_run_info *run;
} tl_op_call;

/* What a call must compute and move, by the definition of the reference kernel:
 * flops: additions, subtractions and multiplications; special: divisions, square roots, exp, log, tanh, erf, sin, cos;
 * comparisons, selections, conversions and integer work count nothing. Bytes: each argument once. */
typedef struct tl_cost {
    double flops, special, bytes_read, bytes_written;
} tl_cost;

/* ---- the row ---------------------------------------------------------------------------------- */

typedef struct tl_op_infer {
    void *attr;                /* may be completed (a zero that stands for a default) */
    const tl_desc *in[TL_OP_INS]; /* NULL: absent */
    tl_desc out[TL_OP_OUTS];   /* to be filled; leave dtype TL_NONE for an output that this call does not have. Comes
                                * with the descriptors of what is bound through acc, TL_NONE elsewhere: operators that
                                * work in place on the caller's memory (kv_write, adamw) have their shapes from there */
    tl_error *err;
} tl_op_infer;

typedef struct tl_grad tl_grad;     /* one step of the backward walk */
typedef struct tl_tensor tl_tensor; /* a tensor of a graph */
typedef struct tl_op_def tl_op_def;

enum {
    TL_OP_INPLACE = 1, /* out[0] may be in[0]'s memory */
    TL_OP_VIEW = 2,    /* no arithmetic: outputs are windows into in[0] (reshape, split) */
    TL_OP_NOGRAD = 4,  /* has no derivative; asking for one is an error with a reason */
    /* Where the arithmetic is; what recomputation runs again last (tl_recompute). */
    TL_OP_PRODUCT = 8, /* dense products */
    TL_OP_MIXER = 16   /* mixes tokens, or routes them */
};
#define TL_SAVE_IN(i) (1u << (i))
#define TL_SAVE_OUT(i) (1u << (16 + (i)))

struct tl_op_def {
    const char *name;
    int32_t id; /* row of ops.def; -1 for an operator of the user's own */
    int32_t n_in, n_out;
    uint32_t save;  /* which inputs and outputs the gradient's operators read again */
    uint32_t acc;   /* bit i: out[i] can be added into */
    uint32_t flags;
    size_t attr_size;
    tl_status (*shape)(tl_op_infer *s);                      /* checks, fills out[]; refuses with a reason */
    void (*grad)(tl_grad *g);                                /* appends operators; computes nothing */
    void (*cost)(const tl_op_call *c, tl_cost *cost);        /* from descriptors and attributes alone */
    void (*ref_f32)(const tl_op_call *c);                    /* scalar, f32 sums; any float dtype of storage */
    void (*ref_f64)(const tl_op_call *c);                    /* the oracle: the same code over double */
};

/* The built-in operator of that name, or NULL. */
TL_API const tl_op_def *tl_op_find(const char *name);

/* ---- for gradient rules ------------------------------------------------------------------------ */

TL_API const void *tl_grad_attr(const tl_grad *g);
TL_API tl_tensor *tl_grad_in(const tl_grad *g, int i);  /* input i of the forward operator, NULL if absent */
TL_API tl_tensor *tl_grad_out(const tl_grad *g, int i); /* output i of the forward operator */
TL_API tl_tensor *tl_grad_dy(const tl_grad *g, int i);  /* gradient of output i, NULL if it does not reach the loss */
TL_API bool tl_grad_needs(const tl_grad *g, int i);     /* is the gradient of input i wanted? */
TL_API bool tl_grad_dy_is_one(const tl_grad *g, int i); /* is output i the loss itself? */
TL_API const tl_desc *tl_tensor_desc(const tl_tensor *t);
/* Appends op(in...). to[k] is the forward input whose gradient output k is, or -1: unwanted outputs, and those
 * whose gradient nobody needs, are not computed. Where a gradient exists already the new one is added, in place
 * when op->acc allows. */
TL_API void tl_grad_emit(tl_grad *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in,
                         const int *to, int n_out);
/* Appends op(in...) for an intermediate value; returns output 0. */
TL_API tl_tensor *tl_grad_temp(tl_grad *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in);
/* The gradient of input i is t itself. */
TL_API void tl_grad_pass(tl_grad *g, int i, tl_tensor *t);
/* The forward operator computes gradients by itself when it is the loss: claims its output k as the gradient of
 * input i (the fused loss head). */
TL_API void tl_grad_claim(tl_grad *g, int i, int k);
/* There is no gradient, and why; the graph's sticky error. */
TL_API void tl_grad_refuse(tl_grad *g, const char *reason);

#ifdef __cplusplus
}
#endif
#endif
