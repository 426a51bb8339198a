/* Mixed chunks: what both passes share.
 *
 * Order of work. The tokens of a sequence are cut into windows of a fixed number of chunks; the task's repeats go
 * through them in order (and, backward, once more in reverse). In each: the pieces (chunks, cut by documents) that
 * begin in the window are listed; slices of columns carry M over them and leave a copy where a piece needs one; then
 * the pieces are worked on independently. So the memory is that of one window, whatever the length. */
#ifndef CPU_GATED_CHUNK_H
#define CPU_GATED_CHUNK_H

#include "cpu/gated/launch.h"

enum { CHUNK_ROWS = 128, CHUNK_KEYS = 256, CHUNK_TOKENS = 512, CHUNK_SLICE = GEMM_NC, CHUNK_WINDOW = 64 };

typedef struct chunk_piece {
    int32_t lo, hi, first, last; /* itself; its run of one document (and period) */
    int32_t keys;                /* the first one that its rows see exactly */
    int32_t copy;                /* which copy of the state it uses, -1: none */
    float norm;                  /* 1 / Nl */
} chunk_piece;

typedef struct chunk_list {
    int64_t n;
    chunk_piece *p;
} chunk_list;

typedef struct chunk_job {
    gated_mat in[5], out[5], o, dy;                 /* qq kq ql kl v and their gradients */
    const tl_arg *doc, *state, *seen, *dstate, *to; /* to: state or its gradient, written */
    gated_gate gate;
    const struct mixed_chunk_attr *a;
    int64_t reach, period, back; /* back: tokens before a chunk that it sees exactly */
    int64_t B, H, T, s, e, c, group, window, windows, slices, copies; /* B: sequences times heads; group:
                                                                                chunks of a window */
    bool causal, backward, near, far; /* near, far: scores inside chunks, the linear part */
    int64_t pieces, piece_room, run, copy, bias_part, bias_n, sums; /* scratch, in floats */
    int64_t worker, per_worker, total, most, pack, deepest;
    int64_t w_s, w_p, w_o, w_q, w_dq, w_dk, w_dv, w_bias, w_space;
} chunk_job;

const char *chunk_open(const tl_op_call *c, bool backward, int workers, chunk_job *j);
gated_space chunk_space(const chunk_job *j, float *worker);
chunk_list chunk_pieces(const chunk_job *j, float *scratch, int64_t b);
/* Lists the pieces that begin in a window; reverse: copies for those that have something behind them. */
void chunk_list_window(const chunk_job *j, float *scratch, int64_t b, int64_t window, bool reverse);
/* The piece that begins at lo in the run around it, without norm and copy. */
chunk_piece chunk_piece_at(const chunk_job *j, int64_t b, int64_t lo, int64_t first, int64_t last);
float chunk_norm(const chunk_job *j, const chunk_piece *p, int64_t b);
/* Row i's constants for keys from k0 on, as gated_row_of. In a grid, whose biases do not follow one another, they are
 * laid out in the worker's scratch, and so is their gradient's share, which chunk_unlay adds to `dbias` (at its
 * middle). */
gated_row chunk_row(const chunk_job *j, float *worker, int64_t i, int64_t k0, int64_t n, float *dbias);
void chunk_unlay(const chunk_job *j, const gated_row *r, int64_t i, int64_t k0, int64_t n, float *dbias);
/* Behind the last token of a sequence that is not padding. */
int64_t chunk_end(const chunk_job *j, int64_t b);
bool chunk_carried(const chunk_job *j, const chunk_piece *p);
float *chunk_run(const chunk_job *j, float *scratch, int64_t b);
float *chunk_copy(const chunk_job *j, float *scratch, int64_t b, int64_t copy);
/* to (s, n) f32, rows e apart, [+]= x[lo, hi)^T y[lo, hi) columns [d0, d0 + n), x times by (1: as it is) */
void chunk_gather(const chunk_job *j, const gated_leaf *f, float *worker, const gated_mat *x, const gated_mat *y,
                  int64_t b, int64_t lo, int64_t hi, int64_t d0, int64_t n, float by, float *to, bool add);
/* Slice of M carried over the window's pieces, copies left behind. */
void chunk_sweep(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile, bool first);
/* Rows of padding among tokens [lo, hi) become zeros in m. */
void chunk_zero(const chunk_job *j, const gated_mat *m, int64_t b, int64_t lo, int64_t hi);

#endif
