/* Windows of a grid of rows x cols tokens: high x wide of them, window by window, line by line both. Windows at the
 * right and lower edge hold what is there, so that no cell stands for none. Shared by rules, references and kernels. */
#ifndef OP_GRID_H
#define OP_GRID_H

#include <stdint.h>

typedef struct grid_window {
    int64_t first, cells; /* place of its first token in the order of windows */
    int64_t row, col;     /* of the grid, of its first token */
    int64_t lines, wide;  /* its own */
} grid_window;

/* The window that place i in the order of windows lies in. */
static inline grid_window grid_window_at(int64_t rows, int64_t cols, int64_t high, int64_t wide, int64_t i) {
    grid_window w;
    const int64_t band = i / (high * cols), in = i % (high * cols);
    w.row = band * high;
    w.lines = rows - w.row < high ? rows - w.row : high;
    w.col = in / (w.lines * wide) * wide;
    w.wide = cols - w.col < wide ? cols - w.col : wide;
    w.first = band * high * cols + w.col * w.lines;
    w.cells = w.lines * w.wide;
    return w;
}

/* Windows of a grid have tables of relative positions of two dimensions, 2 high - 1 lines of 2 wide - 1 numbers: the
 * place of a key's number, counted from the middle one, which is a token's own. */
static inline int64_t grid_ahead(int64_t rows, int64_t cols, int64_t high, int64_t wide, int64_t query, int64_t key) {
    const grid_window w = grid_window_at(rows, cols, high, wide, query);
    const int64_t i = query - w.first, j = key - w.first;
    return (j / w.wide - i / w.wide) * (2 * wide - 1) + j % w.wide - i % w.wide;
}

/* Of place i in the order of windows, the place line by line. */
static inline int64_t grid_place(int64_t rows, int64_t cols, int64_t high, int64_t wide, int64_t i) {
    const grid_window w = grid_window_at(rows, cols, high, wide, i);
    const int64_t in = i - w.first;
    return (w.row + in / w.wide) * cols + w.col + in % w.wide;
}

#endif
