/* Norms and softmax: a row is read from memory once and stays in L1 for the further passes. */

/* Two chains of additions, since one would wait for its own latency. */
typedef struct row_sum2 {
    vf s[2];
} row_sum2;
ALWAYS float row_total(row_sum2 t) {
    return vf_sum(vf_add(t.s[0], t.s[1]));
}

ALWAYS float row_sum_of(const row_job *j, int k, const int type) {
    row_sum2 t = {{vf_zero(), vf_zero()}};
    for (int64_t i = 0; i < j->d; i += 2 * SIMD_W) {
        t.s[0] = vf_add(t.s[0], row_get(type, j->in[k], i, j->d - i));
        if (i + SIMD_W < j->d) t.s[1] = vf_add(t.s[1], row_get(type, j->in[k], i + SIMD_W, j->d - i - SIMD_W));
    }
    return row_total(t);
}

/* Sum of (x - mean)^2. Lanes past the end must not count mean^2. */
ALWAYS float row_square(const row_job *j, int k, const int type, float mean) {
    row_sum2 t = {{vf_zero(), vf_zero()}};
    const vf m = vf_set(mean);
    int64_t i = 0;
    for (; i + 2 * SIMD_W <= j->d; i += 2 * SIMD_W) {
        const vf a = vf_sub(row_get(type, j->in[k], i, SIMD_W), m);
        const vf b = vf_sub(row_get(type, j->in[k], i + SIMD_W, SIMD_W), m);
        t.s[0] = vf_fma(a, a, t.s[0]), t.s[1] = vf_fma(b, b, t.s[1]);
    }
    for (; i < j->d; i += SIMD_W) {
        const vf a = vf_keep(vm_first(j->d - i), vf_sub(row_get(type, j->in[k], i, j->d - i), m));
        t.s[0] = vf_fma(a, a, t.s[0]);
    }
    return row_total(t);
}

/* 1 / sqrt, rounded as the reference does it: a root, then a division */
ALWAYS float row_rsqrt(float x) {
    return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
}

enum { NORM_LAYER, NORM_RMS, NORM_SCALE };

/* gain of element i: w, offset + w, or the one gain */
ALWAYS vf row_gain(const row_job *j, const int norm, int k, int64_t i) {
    if (norm == NORM_SCALE) return vf_set(*(const float *)j->in[k]);
    if (!j->in[k]) return vf_set(1.0f);
    const vf w = row_get(ROW_F32, j->in[k], i, j->d - i);
    return norm == NORM_RMS ? vf_add(vf_set(j->f[1]), w) : w;
}

/* in: x, w, b; f: eps, offset; out: y and statistics */
ALWAYS void row_norm(const row_job *j, const int norm, const int tx, const int ty) {
    const float n = (float)j->d, mean = norm == NORM_LAYER ? row_sum_of(j, 0, tx) / n : 0;
    const float rstd = row_rsqrt(row_square(j, 0, tx, mean) / n + j->f[0]);
    float *mean_out = norm == NORM_LAYER ? j->out[1] : 0, *rstd_out = norm == NORM_LAYER ? j->out[2] : j->out[1];
    if (mean_out) *mean_out = mean;
    if (rstd_out) *rstd_out = rstd;
    ROW_EACH(i, j->d) {
        vf y = row_get(tx, j->in[0], i, j->d - i);
        if (norm == NORM_LAYER) y = vf_sub(y, vf_set(mean));
        y = vf_mul(vf_mul(y, vf_set(rstd)), row_gain(j, norm, 1, i));
        if (norm == NORM_LAYER && j->in[2]) y = vf_add(y, row_get(ROW_F32, j->in[2], i, j->d - i));
        row_out(j, 0, ty, i, y);
    }
}

/* in: dy, x, w, [mean,] rstd; out: dx, and partial sums dw, db that the row adds to.
 * h = (x - mean) rstd, g = dy gain: dx = rstd (g - mean(g) - h mean(g h)). */
ALWAYS void row_norm_bwd(const row_job *j, const int norm, const int td, const int tx) {
    const float n = (float)j->d;
    const vf mean = vf_set(norm == NORM_LAYER ? *(const float *)j->in[3] : 0);
    const vf rstd = vf_set(*(const float *)j->in[norm == NORM_LAYER ? 4 : 3]);
    float *dw = j->out[1], *db = norm == NORM_LAYER ? j->out[2] : 0;
    vf sum = vf_zero(), sum_h = vf_zero();
    ROW_EACH(i, j->d) {
        const vf dy = row_get(td, j->in[0], i, j->d - i);
        vf h = row_get(tx, j->in[1], i, j->d - i);
        if (norm == NORM_LAYER) h = vf_sub(h, mean);
        h = vf_mul(h, rstd);
        const vf g = vf_mul(dy, row_gain(j, norm, 2, i)); /* 0 past the end, as dy is */
        if (norm == NORM_LAYER) sum = vf_add(sum, g);
        sum_h = vf_fma(g, h, sum_h);
        if (dw) row_put(ROW_F32, dw, i, j->d - i, vf_fma(dy, h, row_get(ROW_F32, dw, i, j->d - i)));
        if (db) row_put(ROW_F32, db, i, j->d - i, vf_add(dy, row_get(ROW_F32, db, i, j->d - i)));
    }
    if (!j->out[0]) return;
    const vf mg = vf_set(vf_sum(sum) / n), mgh = vf_set(vf_sum(sum_h) / n);
    ROW_EACH(i, j->d) {
        const vf dy = row_get(td, j->in[0], i, j->d - i);
        vf h = row_get(tx, j->in[1], i, j->d - i);
        if (norm == NORM_LAYER) h = vf_sub(h, mean);
        h = vf_mul(h, rstd);
        vf dx = vf_mul(dy, row_gain(j, norm, 2, i));
        if (norm == NORM_LAYER) dx = vf_sub(dx, mg);
        row_out(j, 0, j->tout[0], i, vf_mul(rstd, vf_fnma(h, mgh, dx)));
    }
}

#define ROW_NORM(name, norm)                                                                                           \
    void SIMD_NAME(row_##name)(const row_job *j) {                                                                     \
        if (j->tin[0] == ROW_F32 && j->tout[0] == ROW_F32)                                                             \
            row_norm(j, norm, ROW_F32, ROW_F32);                                                                       \
        else if (j->tin[0] == ROW_BF16 && j->tout[0] == ROW_BF16)                                                      \
            row_norm(j, norm, ROW_BF16, ROW_BF16);                                                                     \
        else                                                                                                           \
            row_norm(j, norm, j->tin[0], j->tout[0]);                                                                  \
    }                                                                                                                  \
    void SIMD_NAME(row_##name##_bwd)(const row_job *j) {                                                               \
        if (j->tin[0] == ROW_F32 && j->tin[1] == ROW_F32)                                                              \
            row_norm_bwd(j, norm, ROW_F32, ROW_F32);                                                                   \
        else if (j->tin[0] == ROW_BF16 && j->tin[1] == ROW_BF16)                                                       \
            row_norm_bwd(j, norm, ROW_BF16, ROW_BF16);                                                                 \
        else                                                                                                           \
            row_norm_bwd(j, norm, j->tin[0], j->tin[1]);                                                               \
    }
ROW_NORM(layernorm, NORM_LAYER)
ROW_NORM(rmsnorm, NORM_RMS)
ROW_NORM(scalenorm, NORM_SCALE)

/* exp is taken a second time where the first result would have to be rounded in between. */
void SIMD_NAME(row_softmax)(const row_job *j) {
    const int tx = j->tin[0], ty = j->tout[0];
    const vf low = vf_set(-__builtin_inff());
    vf top = low, sum = vf_zero();
    ROW_EACH(i, j->d) {
        const vf x = row_get(tx, j->in[0], i, j->d - i);
        top = vf_max(j->d - i >= SIMD_W ? x : vf_select(vm_first(j->d - i), x, low), top);
    }
    const vf max = vf_set(vf_hmax(top));
    ROW_EACH(i, j->d) {
        const vf e = vf_keep(vm_first(j->d - i), vf_exp(vf_sub(row_get(tx, j->in[0], i, j->d - i), max)));
        sum = vf_add(sum, e);
        if (ty == ROW_F32) row_put(ROW_F32, j->out[0], i, j->d - i, e);
    }
    const vf total = vf_set(vf_sum(sum));
    ROW_EACH(i, j->d) {
        const vf e = ty == ROW_F32 ? row_get(ROW_F32, j->out[0], i, j->d - i)
                                   : vf_exp(vf_sub(row_get(tx, j->in[0], i, j->d - i), max));
        row_put(ty, j->out[0], i, j->d - i, vf_div(e, total));
    }
}

void SIMD_NAME(row_softmax_bwd)(const row_job *j) {
    vf sum = vf_zero();
    ROW_EACH(i, j->d)
    sum = vf_fma(row_get(j->tin[0], j->in[0], i, j->d - i), row_get(j->tin[1], j->in[1], i, j->d - i), sum);
    const vf s = vf_set(vf_sum(sum));
    ROW_EACH(i, j->d) {
        const vf dy = row_get(j->tin[0], j->in[0], i, j->d - i), y = row_get(j->tin[1], j->in[1], i, j->d - i);
        row_out(j, 0, j->tout[0], i, vf_mul(y, vf_sub(dy, s)));
    }
}

/* ---- norms of columns ------------------------------------------------------------------------------------------- */

enum { COLUMN_VECTORS = ROW_COLUMNS / SIMD_W, COLUMN_BLOCK = 64 };

/* One row's columns; v: which vector of the group, n: columns left. */
#define COLUMNS_EACH(v, n) for (int64_t v = 0, n = hi - lo; v < COLUMN_VECTORS && n > 0; v++, n -= SIMD_W)

ALWAYS vf column_get(const row_columns *j, int k, const int type, int64_t r, int64_t at, int64_t n) {
    return row_get(type, j->in[k] + r * j->stride_in[k], at, n);
}
ALWAYS vf column_vector(const row_columns *j, int k, int64_t at, int64_t n, float none) {
    return j->in[k] ? row_get(ROW_F32, j->in[k], at, n) : vf_set(none);
}
ALWAYS void column_put(const row_columns *j, int k, int64_t at, int64_t n, vf v) {
    if (!j->out[k]) return;
    if (j->acc >> k & 1) v = vf_add(row_get(ROW_F32, j->out[k], at, n), v);
    row_put(ROW_F32, j->out[k], at, n, v);
}
/* Sums of COLUMN_BLOCK rows are added up by themselves, or small ones would get lost behind many rows. */
ALWAYS void column_fold(vf *sum, vf *block, int64_t count) {
    for (int64_t v = 0; v < count; v++) sum[v] = vf_add(sum[v], block[v]), block[v] = vf_zero();
}

ALWAYS void row_batchnorm_as(const row_columns *j, int64_t lo, int64_t hi, const int tx, const int ty) {
    vf mean[COLUMN_VECTORS], rstd[COLUMN_VECTORS], block[COLUMN_VECTORS], w[COLUMN_VECTORS], b[COLUMN_VECTORS];
    const vf rows = vf_set((float)j->rows), one = vf_set(1.0f);
    for (int v = 0; v < COLUMN_VECTORS; v++) mean[v] = rstd[v] = block[v] = vf_zero();
    for (int64_t r = 0; r < j->rows; r++) {
        COLUMNS_EACH(v, n) block[v] = vf_add(block[v], column_get(j, 0, tx, r, lo + v * SIMD_W, n));
        if (r % COLUMN_BLOCK == COLUMN_BLOCK - 1 || r + 1 == j->rows) column_fold(mean, block, COLUMN_VECTORS);
    }
    COLUMNS_EACH(v, n) mean[v] = vf_div(mean[v], rows);
    for (int64_t r = 0; r < j->rows; r++) {
        COLUMNS_EACH(v, n) {
            const vf z = vf_sub(column_get(j, 0, tx, r, lo + v * SIMD_W, n), mean[v]);
            block[v] = vf_fma(z, z, block[v]);
        }
        if (r % COLUMN_BLOCK == COLUMN_BLOCK - 1 || r + 1 == j->rows) column_fold(rstd, block, COLUMN_VECTORS);
    }
    COLUMNS_EACH(v, n) {
        const int64_t at = lo + v * SIMD_W;
        rstd[v] = vf_div(one, vf_sqrt(vf_add(vf_div(rstd[v], rows), vf_set(j->eps))));
        column_put(j, 1, at, n, mean[v]);
        column_put(j, 2, at, n, rstd[v]);
        w[v] = column_vector(j, 1, at, n, 1.0f), b[v] = column_vector(j, 2, at, n, 0.0f);
    }
    for (int64_t r = 0; r < j->rows; r++) COLUMNS_EACH(v, n) {
            const int64_t at = lo + v * SIMD_W;
            const vf y = vf_mul(vf_sub(column_get(j, 0, tx, r, at, n), mean[v]), rstd[v]);
            row_put(ty, j->out[0] + r * j->stride_out, at, n, vf_add(vf_mul(y, w[v]), b[v]));
        }
}

void SIMD_NAME(row_batchnorm)(const row_columns *j, int64_t lo, int64_t hi) {
    if (j->tin[0] == ROW_F32 && j->tout == ROW_F32)
        row_batchnorm_as(j, lo, hi, ROW_F32, ROW_F32);
    else if (j->tin[0] == ROW_BF16 && j->tout == ROW_BF16)
        row_batchnorm_as(j, lo, hi, ROW_BF16, ROW_BF16);
    else
        row_batchnorm_as(j, lo, hi, j->tin[0], j->tout);
}

ALWAYS void row_batchnorm_bwd_as(const row_columns *j, int64_t lo, int64_t hi, const int td, const int tx) {
    vf sum[COLUMN_VECTORS], sum_h[COLUMN_VECTORS], block[2 * COLUMN_VECTORS], mean[COLUMN_VECTORS];
    vf rstd[COLUMN_VECTORS], by[COLUMN_VECTORS];
    const vf rows = vf_set((float)j->rows);
    for (int v = 0; v < COLUMN_VECTORS; v++)
        sum[v] = sum_h[v] = block[v] = block[COLUMN_VECTORS + v] = mean[v] = rstd[v] = vf_zero();
    COLUMNS_EACH(v, n) {
        mean[v] = column_vector(j, 3, lo + v * SIMD_W, n, 0), rstd[v] = column_vector(j, 4, lo + v * SIMD_W, n, 0);
        by[v] = vf_mul(rstd[v], column_vector(j, 2, lo + v * SIMD_W, n, 1.0f));
    }
    for (int64_t r = 0; r < j->rows; r++) {
        COLUMNS_EACH(v, n) {
            const vf dy = column_get(j, 0, td, r, lo + v * SIMD_W, n);
            const vf h = vf_mul(vf_sub(column_get(j, 1, tx, r, lo + v * SIMD_W, n), mean[v]), rstd[v]);
            block[v] = vf_add(block[v], dy);
            block[COLUMN_VECTORS + v] = vf_fma(dy, h, block[COLUMN_VECTORS + v]);
        }
        if (r % COLUMN_BLOCK == COLUMN_BLOCK - 1 || r + 1 == j->rows) {
            column_fold(sum, block, COLUMN_VECTORS);
            column_fold(sum_h, block + COLUMN_VECTORS, COLUMN_VECTORS);
        }
    }
    COLUMNS_EACH(v, n) {
        column_put(j, 1, lo + v * SIMD_W, n, sum_h[v]);
        column_put(j, 2, lo + v * SIMD_W, n, sum[v]);
        sum[v] = vf_div(sum[v], rows), sum_h[v] = vf_div(sum_h[v], rows);
    }
    for (int64_t r = 0; r < j->rows && j->out[0]; r++) COLUMNS_EACH(v, n) {
            const int64_t at = lo + v * SIMD_W;
            const vf h = vf_mul(vf_sub(column_get(j, 1, tx, r, at, n), mean[v]), rstd[v]);
            const vf dx = vf_mul(by[v], vf_fnma(h, sum_h[v], vf_sub(column_get(j, 0, td, r, at, n), sum[v])));
            char *to = j->out[0] + r * j->stride_out;
            row_put(j->tout, to, at, n, j->acc & 1 ? vf_add(row_get(j->tout, to, at, n), dx) : dx);
        }
}

void SIMD_NAME(row_batchnorm_bwd)(const row_columns *j, int64_t lo, int64_t hi) {
    if (j->tin[0] == ROW_F32 && j->tin[1] == ROW_F32)
        row_batchnorm_bwd_as(j, lo, hi, ROW_F32, ROW_F32);
    else if (j->tin[0] == ROW_BF16 && j->tin[1] == ROW_BF16)
        row_batchnorm_bwd_as(j, lo, hi, ROW_BF16, ROW_BF16);
    else
        row_batchnorm_bwd_as(j, lo, hi, j->tin[0], j->tin[1]);
}
