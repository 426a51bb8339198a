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

/* ---- dropout: Philox4x32-10 as in base/rng.h, SIMD_W counters at once ------------------------------ */

/* 32 x 32 -> high and low words */
ALWAYS void row_mul_wide(vi a, uint32_t m, vi *hi, vi *lo) {
#if SIMD_W == 16
    const vi k = _mm512_set1_epi64((long long)m), even = _mm512_mul_epu32(a, k);
    const vi odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), k);
    *hi = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *lo = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
#else
    const vi k = _mm256_set1_epi64x((long long)m), even = _mm256_mul_epu32(a, k);
    const vi odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), k);
    *hi = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *lo = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#endif
}

/* words of counters (row, group + 0 .. SIMD_W - 1), in the order of elements, into w[4 * SIMD_W] */
ALWAYS void row_philox(const uint32_t key[2], uint64_t row, uint64_t group, uint32_t *w) {
    vi c0 = vi_add(vi_set((int32_t)(uint32_t)group), vi_iota()), c1 = vi_set((int32_t)(uint32_t)(group >> 32));
    vi c2 = vi_set((int32_t)(uint32_t)row), c3 = vi_set((int32_t)(uint32_t)(row >> 32));
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        vi hi0, lo0, hi1, lo1;
        row_mul_wide(c0, 0xd2511f53u, &hi0, &lo0);
        row_mul_wide(c2, 0xcd9e8d57u, &hi1, &lo1);
        c0 = vi_xor(vi_xor(hi1, c1), vi_set((int32_t)k0)), c1 = lo1;
        c2 = vi_xor(vi_xor(hi0, c3), vi_set((int32_t)k1)), c3 = lo0;
        k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
    }
#if SIMD_W == 16 /* 4 x 16 transposed: pairs of words, then pairs of pairs */
    const vi near = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const vi far = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const vi near2 = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), far2 = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    const vi a = _mm512_permutex2var_epi32(c0, near, c1), b = _mm512_permutex2var_epi32(c2, near, c3);
    const vi c = _mm512_permutex2var_epi32(c0, far, c1), d = _mm512_permutex2var_epi32(c2, far, c3);
    vi_store(w, _mm512_permutex2var_epi64(a, near2, b));
    vi_store(w + SIMD_W, _mm512_permutex2var_epi64(a, far2, b));
    vi_store(w + 2 * SIMD_W, _mm512_permutex2var_epi64(c, near2, d));
    vi_store(w + 3 * SIMD_W, _mm512_permutex2var_epi64(c, far2, d));
#else
    uint32_t words[4][SIMD_W];
    vi_store(words[0], c0), vi_store(words[1], c1), vi_store(words[2], c2), vi_store(words[3], c3);
    for (int i = 0; i < SIMD_W; i++)
        for (int k = 0; k < 4; k++) w[4 * i + k] = words[k][i];
#endif
}

/* f[0]: p, f[1]: 1/(1-p). A group's carry into its upper word would need rows of 2^34 elements. */
void SIMD_NAME(row_dropout)(const row_job *j) {
    uint32_t w[4 * SIMD_W];
    for (int64_t i = 0; i < j->d; i += 4 * SIMD_W) {
        row_philox(j->key, j->row, (uint64_t)i / 4, w);
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
