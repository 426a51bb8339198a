/* cpu/attention: exact attention in tiles, forward, backward and over a cache. Launchers (fwd.c, bwd.c, kv.c) check a
 * call, describe it in an attn_job and hand tiles to a leaf; the leaves (attn_avx2.c, attn_avx512.c,
 * attn_avx512bf16.c) compile the *_body.h files for their instruction set. Owns no memory: all of it is the step's
 * scratch. Refuses what it cannot index (bias tables shorter than the distances) and dtypes without a vector form.
 *
 * Order of work. The queries of all heads that share a kv head are one list of rows, row m = query m / r of head m % r.
 * Rows are cut into blocks, keys into blocks. Scores are kept with keys down and rows along the lanes: what a softmax
 * needs of a row (its maximum, sum, limits) is a lane, so nothing is ever summed across one, keys and values are read
 * as they lie, and a mask is a comparison of lanes with a key's number. Visible keys of a row are one interval [lo, hi)
 * that grows with m, so that all but steps of ATTN_STEP keys by one vector of rows is skipped. Tiles depend on
 * shapes only, each is computed by one worker in one order: results have the same bits for any number of workers.
 *
 * Numbers are kept in "units" of four bytes: one f32, or two neighbouring bf16 that one vdpbf16ps multiplies. */
#ifndef CPU_ATTENTION_H
#define CPU_ATTENTION_H

#include "cpu/kernel.h"
#include "op/attrs.h"

enum {
    ATTN_BR = 96,          /* rows of a tile: whole vectors */
    ATTN_BC = 192,         /* keys of a tile: whole steps */
    ATTN_STEP = 16,        /* keys that share one decision to skip: whole micro-kernels */
    ATTN_HEADS = 32,       /* from so many kv heads on, and */
    ATTN_SHORT = 1024,     /* up to so many keys, a tile is a whole head, packed by who uses it */
    ATTN_ROWS_BYTES = 6144 /* room for a block's lane_rows */
};

/* (b, t, h, 0) lies at p + (b sb + t st + h sh) elements */
typedef struct attn_tensor {
    char *p;
    int64_t sb, st, sh;
    tl_dtype dtype;
    int64_t size; /* bytes of an element */
} attn_tensor;

typedef struct attn_job {
    int64_t B, T, S, H, Hk, r, R, Dh, Dv; /* r = H/Hk, R = T r rows of a kv head */
    float scale, softcap;
    bool causal;
    int64_t window, q_offset, global;
    attn_tensor q, k, v, o, g, dq, dk, dv; /* g: the gradient of o */
    const int32_t *doc;
    int64_t doc_sb;
    const int32_t *span; /* (B,T,2): intervals that narrow those of the mask, or NULL */
    int64_t span_sb, span_st;
    const float *sinks, *slopes, *bias;
    int64_t bias_sh, P;
    float *lse; /* forward: may be NULL */
    int64_t lse_sb, lse_sh;
    float *dsinks, *dbias;
    int64_t dbias_sh;
    bool acc_dsinks, acc_dbias, want_dsinks, want_dbias;
    float drop;      /* 0: none */
    uint32_t key[2]; /* of its random numbers; counter (row0 + row, head, key) */
    int64_t row0;
    bool plain;       /* T = scale S and nothing else */
    int64_t segments; /* backward: parts that the keys are cut into */
    /* over a cache */
    const int32_t *slot, *pos, *ends; /* ends: of the keys of a row, or NULL: it sees up to pos */
    int64_t Q, C, splits;             /* slots, capacity, parts that the visible keys are cut into */
    char *scratch;
    int64_t workers;
} attn_job;

/* What a leaf's geometry depends on: lanes, elements in a unit. */
typedef struct attn_isa {
    int64_t lanes, unit;
} attn_isa;

typedef void (*attn_leaf_fn)(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);

static inline int64_t attn_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}
static inline int64_t attn_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t attn_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Position i of 0, n-1, 1, n-2, ...: neighbours in this order weigh the same under a causal mask, so contiguous shares
 * of tiles are balanced. */
static inline int64_t attn_balance(int64_t i, int64_t n) {
    return i % 2 ? n - 1 - i / 2 : i / 2;
}

/* Keys that query i of sequence b may see: [lo, hi). */
static inline void attn_interval(const attn_job *j, int64_t b, int64_t i, int64_t *lo, int64_t *hi) {
    const int64_t p = i + j->q_offset;
    *hi = j->causal ? p + 1 : j->window ? p + j->window : j->S;
    *lo = j->window ? p - j->window + 1 : 0;
    if (j->span) {
        const int32_t *s = j->span + b * j->span_sb + i * j->span_st;
        *hi = attn_min(*hi, s[1]);
        *lo = attn_max(*lo, s[0]);
    }
    *hi = attn_max(0, attn_min(*hi, j->S));
    *lo = attn_min(attn_max(*lo, 0), *hi);
}

/* Global tokens: row i of a document that begins at `begin` also sees [*g0, *g1), which lies before its interval; or
 * everything, which the interval then says. */
static inline void attn_globals(const attn_job *j, int64_t i, int64_t begin, int64_t *lo, int64_t *hi, int64_t *g0,
                                int64_t *g1) {
    *g0 = *g1 = begin;
    if (!j->causal && i - begin < j->global)
        *lo = 0, *hi = j->S; /* documents hide the rest */
    else
        *g1 = attn_max(begin, attn_min(begin + j->global, *lo));
}
/* Where the document of token i begins; the row before lies at token `last` of a document that begins at `begin`. */
static inline int64_t attn_begin(const int32_t *doc, int64_t i, int64_t last, int64_t begin) {
    if (!doc) return 0;
    if (last >= 0 && doc[last] == doc[i]) return begin;
    while (i > 0 && doc[i - 1] == doc[i]) i--;
    return i;
}

/* ---- scratch layouts, shared by launcher and leaf; offsets in bytes ------------------------------- */

typedef struct attn_fwd_layout {
    int64_t Dhu, Dhq, Dvp, Sp;              /* units of a query row, and padded; width of O; keys of a head, padded */
    bool whole;                             /* a tile is a head, whose keys the worker packs for itself */
    int64_t k, v, worker, total;            /* keys and values of all heads; -1: of the worker's */
    int64_t k_head, v_head, w_bytes;        /* bytes per head; per worker */
    int64_t w_k, w_v, w_q, w_s, w_o, w_row; /* within a worker's part */
    int64_t row_blocks, key_chunks;
} attn_fwd_layout;

typedef struct attn_bwd_layout {
    int64_t Dhu, Dvu, Dhq, Dvq, Dhp, Dvp, Rp, seg_keys;
    int64_t dq_part, dq_head, bias_part, bias_head, worker, w_bytes, total; /* dq_part: -1 with a single segment */
    /* packed rows of a head: every segment's, packed by a phase of their own, or the worker's (head -1) */
    int64_t head, head_bytes, h_qt, h_qb, h_gt, h_gb, h_rows, row_blocks;
    int64_t w_head, w_dq, w_rows, w_k, w_v, w_kb, w_dk, w_dv, w_s, w_p, w_f, w_a;
} attn_bwd_layout;

typedef struct attn_kv_layout {
    int64_t Dhq, Dvp, blocks; /* blocks of ATTN_BR rows of a kv head */
    int64_t part, part_row;   /* partial results, -1 with a single split; bytes of a row's */
    int64_t worker, w_bytes, total;
    int64_t w_q, w_s, w_o, w_row, w_k, w_v;
} attn_kv_layout;

void attn_fwd_lay(const attn_job *j, attn_isa isa, attn_fwd_layout *l);
void attn_bwd_lay(const attn_job *j, attn_isa isa, attn_bwd_layout *l);
void attn_kv_lay(const attn_job *j, attn_isa isa, attn_kv_layout *l);

/* ---- launchers -------------------------------------------------------------------------------------- */

/* avx512bf16 refuses where the processor multiplies pairs slower than it multiplies f32; pairs is the same kernel
 * without that question. */
#define ATTN_PREPARE(kind, isa)                                                                                        \
    const char *attn_##kind##_prepare_##isa(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,         \
                                            kernel_exec *x);
ATTN_PREPARE(fwd, avx2)
ATTN_PREPARE(fwd, avx512)
ATTN_PREPARE(fwd, avx512bf16)
ATTN_PREPARE(fwd, pairs)
ATTN_PREPARE(bwd, avx2)
ATTN_PREPARE(bwd, avx512)
ATTN_PREPARE(bwd, avx512bf16)
ATTN_PREPARE(bwd, pairs)
ATTN_PREPARE(kv, avx2)
ATTN_PREPARE(kv, avx512)
#undef ATTN_PREPARE
void attn_fwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker);
void attn_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker);
void attn_kv_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker);

/* Shared by the launchers: common.c */
extern const attn_isa attn_isa_avx2, attn_isa_avx512, attn_isa_pairs;
const char *attn_pairs_slow(void);
attn_tensor attn_take(const tl_arg *a);
const char *attn_dtypes(const tl_op_call *c, attn_isa isa, int first, int count);
const char *attn_job_forward(const tl_op_call *c, int first, const struct attention_attr *attr, attn_job *j);

/* ---- leaves: attn_leaf_fn, in the kernel table as plain function pointers ---------------------------- */

void attn_fwd__avx2(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);
void attn_fwd__avx512(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);
void attn_fwd__avx512bf16(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);
void attn_bwd__avx2(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);
void attn_bwd__avx512(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);
void attn_bwd__avx512bf16(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);
void attn_kv__avx2(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);
void attn_kv__avx512(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker);

#endif
