/* RoPE, dropout, lookups, sums, the optimizer. */

#if SIMD_W == 16
/* p[0], p[0], p[1], p[1] ... of n/2 floats */
ALWAYS vf row_twice(const float *p, int64_t n) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                 vf_load_n(p, n / 2));
}
ALWAYS vf row_swap(vf v) {
    return _mm512_permute_ps(v, 0xb1);
}
ALWAYS vf row_alternate(vf v) { /* even lanes negated */
    return vi_as_float(_mm512_mask_xor_epi32(vf_bits(v), 0x5555, vf_bits(v), vi_set((int32_t)0x80000000u)));
}
#else
ALWAYS vf row_twice(const float *p, int64_t n) {
    return _mm256_permutevar8x32_ps(vf_load_n(p, n / 2), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
ALWAYS vf row_swap(vf v) {
    return _mm256_permute_ps(v, 0xb1);
}
ALWAYS vf row_alternate(vf v) {
    return _mm256_xor_ps(v, _mm256_setr_ps(-0.0f, 0, -0.0f, 0, -0.0f, 0, -0.0f, 0));
}
#endif

/* in: x (d), table: half cosines, half sines. kind: ROPE_HALF or interleaved; f[0]: half; f[1]: sign of the sine.
 * Fused products are off here so that a rotation and its inverse round alike. */
ALWAYS void row_rope(const row_job *j, const int tx, const int ty) {
    const int64_t half = (int64_t)j->f[0];
    const float *co = j->in[1], *si = co + half;
    const vf sign = vf_set(j->f[1]);
    if (j->kind == ROPE_HALF) {
        for (int64_t k = 0; k < half; k += SIMD_W) {
            const int64_t n = half - k;
            const vf x1 = row_get(tx, j->in[0], k, n), x2 = row_get(tx, j->in[0], k + half, n);
            const vf c = row_get(ROW_F32, co, k, n), s = vf_mul(sign, row_get(ROW_F32, si, k, n));
            row_put(ty, j->out[0], k, n, vf_fnma(x2, s, vf_mul(x1, c)));
            row_put(ty, j->out[0], k + half, n, vf_fma(x1, s, vf_mul(x2, c)));
        }
    } else {
        for (int64_t k = 0; k < 2 * half; k += SIMD_W) {
            const int64_t n = 2 * half - k < SIMD_W ? 2 * half - k : SIMD_W;
            const vf x = row_get(tx, j->in[0], k, n), c = row_twice(co + k / 2, n);
            const vf s = row_alternate(vf_mul(sign, row_twice(si + k / 2, n)));
            row_put(ty, j->out[0], k, n, vf_fma(row_swap(x), s, vf_mul(x, c)));
        }
    }
    for (int64_t i = 2 * half; i < j->d; i += SIMD_W)
        row_put(ty, j->out[0], i, j->d - i, row_get(tx, j->in[0], i, j->d - i));
}
void SIMD_NAME(row_rope)(const row_job *j) {
    if (j->tin[0] == ROW_F32 && j->tout[0] == ROW_F32)
        row_rope(j, ROW_F32, ROW_F32);
    else if (j->tin[0] == ROW_BF16 && j->tout[0] == ROW_BF16)
        row_rope(j, ROW_BF16, ROW_BF16);
    else
        row_rope(j, j->tin[0], j->tout[0]);
}

/* ---- dropout ---------------------------------------------------------------------------------------- */

/* f[0]: p, f[1]: 1/(1-p). A group's carry into its upper word would need rows of 2^34 elements. */
void SIMD_NAME(row_dropout)(const row_job *j) {
    uint32_t w[4 * SIMD_W];
    for (int64_t i = 0; i < j->d; i += 4 * SIMD_W) {
        philox_words(j->key, j->row, (uint64_t)i / 4, w);
        for (int64_t s = 0; s < 4 * SIMD_W && i + s < j->d; s += SIMD_W) {
            const vf u = vf_mul(vi_float(vi_shr(vi_load(w + s), 8)), vf_set(0x1p-24f));
            const vf x = vf_mul(row_get(j->tin[0], j->in[0], i + s, j->d - i - s), vf_set(j->f[1]));
            row_out(j, 0, j->tout[0], i + s, vf_keep(vf_ge(u, vf_set(j->f[0])), x));
        }
    }
}

/* ---- lookups --------------------------------------------------------------------------------------- */

/* in[0]: a row of the table, NULL for an id that has none; f[0]: scale */
void SIMD_NAME(row_embedding)(const row_job *j) {
    const vf by = vf_set(j->f[0]);
    if (!j->in[0]) {
        ROW_EACH(i, j->d) row_out(j, 0, j->tout[0], i, vf_zero());
    } else if (j->f[0] == 1.0f) {
        ROW_EACH(i, j->d) row_out(j, 0, j->tout[0], i, row_get(j->tin[0], j->in[0], i, j->d - i));
    } else {
        ROW_EACH(i, j->d) row_out(j, 0, j->tout[0], i, vf_mul(by, row_get(j->tin[0], j->in[0], i, j->d - i)));
    }
}

/* out[0] f32 += f[0] dy */
void SIMD_NAME(row_embedding_bwd)(const row_job *j) {
    const vf by = vf_set(j->f[0]);
    ROW_EACH(i, j->d) {
        const vf v = vf_mul(by, row_get(j->tin[0], j->in[0], i, j->d - i));
        row_put(ROW_F32, j->out[0], i, j->d - i, vf_add(row_get(ROW_F32, j->out[0], i, j->d - i), v));
    }
}

/* ---- sums ------------------------------------------------------------------------------------------ */

/* kind REDUCE_ROWS: out[0] f32 += x; else *(float *)out[0] = sum of the row */
void SIMD_NAME(row_reduce)(const row_job *j) {
    if (j->kind == REDUCE_ROWS) {
        ROW_EACH(i, j->d)
        row_put(ROW_F32, j->out[0], i, j->d - i,
                vf_add(row_get(ROW_F32, j->out[0], i, j->d - i), row_get(j->tin[0], j->in[0], i, j->d - i)));
        return;
    }
    vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (int64_t i = 0, k = 0; i < j->d; i += SIMD_W, k = (k + 1) & 3)
        s[k] = vf_add(s[k], row_get(j->tin[0], j->in[0], i, j->d - i));
    *(float *)j->out[0] = vf_sum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

/* in[0] NULL: f[0] everywhere; else in[0] / f[0] */
void SIMD_NAME(row_broadcast)(const row_job *j) {
    ROW_EACH(i, j->d)
    row_out(j, 0, j->tout[0], i,
            j->in[0] ? vf_div(row_get(j->tin[0], j->in[0], i, j->d - i), vf_set(j->f[0])) : vf_set(j->f[0]));
}

/* *(float *)out[0] = sum of squares */
void SIMD_NAME(row_global_norm)(const row_job *j) {
    vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    int64_t i = 0;
    for (; i + 4 * SIMD_W <= j->d; i += 4 * SIMD_W)
        for (int k = 0; k < 4; k++) {
            const vf x = vf_load((const float *)j->in[0] + i + k * SIMD_W);
            s[k] = vf_fma(x, x, s[k]);
        }
    for (; i < j->d; i += SIMD_W) {
        const vf x = row_get(ROW_F32, j->in[0], i, j->d - i);
        s[0] = vf_fma(x, x, s[0]);
    }
    *(float *)j->out[0] = vf_sum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

/* out: p, m, v, g f32, p16 bf16 or NULL; in[0]: hyper (16); f[0]: gradient scale; kind: decay */
void SIMD_NAME(row_adamw)(const row_job *j) {
    const float *h = j->in[0];
    float *p = j->out[0], *m = j->out[1], *v = j->out[2], *g = j->out[3];
    const vf lr = vf_set(h[HYPER_LR]), b1 = vf_set(h[HYPER_BETA1]), b2 = vf_set(h[HYPER_BETA2]);
    const vf a1 = vf_set(1.0f - h[HYPER_BETA1]), a2 = vf_set(1.0f - h[HYPER_BETA2]), eps = vf_set(h[HYPER_EPS]);
    /* by reciprocals: a division costs as much as half of the rest */
    const vf by1 = vf_set(1.0f / h[HYPER_BC1]), by2 = vf_set(1.0f / h[HYPER_BC2]), scale = vf_set(j->f[0]);
    const vf decay = vf_set(j->kind ? h[HYPER_DECAY] : 0.0f);
    ROW_EACH(i, j->d) {
        const int64_t n = j->d - i;
        const vf gi = vf_mul(row_get(ROW_F32, g, i, n), scale), pi = row_get(ROW_F32, p, i, n);
        const vf mi = vf_fma(b1, row_get(ROW_F32, m, i, n), vf_mul(a1, gi));
        const vf vi_ = vf_fma(b2, row_get(ROW_F32, v, i, n), vf_mul(vf_mul(a2, gi), gi));
        vf step = vf_div(vf_mul(mi, by1), vf_add(vf_sqrt(vf_mul(vi_, by2)), eps));
        if (j->kind) step = vf_fma(decay, pi, step);
        const vf next = vf_fnma(lr, step, pi);
        row_put(ROW_F32, p, i, n, next);
        row_put(ROW_F32, m, i, n, mi);
        row_put(ROW_F32, v, i, n, vi_);
        row_put(ROW_F32, g, i, n, vf_zero());
        if (j->out[4]) row_put(ROW_BF16, j->out[4], i, n, next);
    }
}

/* in: table of cosines and sines in f32, computed in double by the launcher; this stores it in the result's type */
ROW_MAP(rope_table, 1, a)

void SIMD_NAME(row_function)(int which, const float *x, float *y, int64_t n) {
    ROW_EACH(i, n) {
        const vf v = row_get(ROW_F32, x, i, n - i);
        const vf r = which == 0   ? vf_exp(v)
                     : which == 1 ? vf_exp_soft(v)
                     : which == 2 ? vf_tanh(v)
                     : which == 3 ? vf_erf(v)
                                  : vf_sigmoid(v);
        row_put(ROW_F32, y, i, n - i, r);
    }
}
