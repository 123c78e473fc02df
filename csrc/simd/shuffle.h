// SPDX-License-Identifier: MIT
/* Lanes of vectors in other orders: zips and what undoes them, shifts, transposes. */

/* zip_lo(a, b) = a0 b0 a1 b1 ... of the lower halves, zip_hi of the upper ones; even
 * and odd take every other lane of a, then of b: they undo a pair of zips. */
#if CN_VECTOR_BYTES / CN_T_BYTES == 2
#define CN_LO 0, 2
#define CN_HI 1, 3
#define CN_EVEN 0, 2
#define CN_ODD 1, 3
#define CN_NEXT 1, 2
#define CN_AFTER 2, 3
#elif CN_VECTOR_BYTES / CN_T_BYTES == 4
#define CN_LO 0, 4, 1, 5
#define CN_HI 2, 6, 3, 7
#define CN_EVEN 0, 2, 4, 6
#define CN_ODD 1, 3, 5, 7
#define CN_NEXT 1, 2, 3, 4
#define CN_AFTER 2, 3, 4, 5
#elif CN_VECTOR_BYTES / CN_T_BYTES == 8
#define CN_LO 0, 8, 1, 9, 2, 10, 3, 11
#define CN_HI 4, 12, 5, 13, 6, 14, 7, 15
#define CN_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define CN_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define CN_NEXT 1, 2, 3, 4, 5, 6, 7, 8
#define CN_AFTER 2, 3, 4, 5, 6, 7, 8, 9
#else
#define CN_LO 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define CN_HI 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define CN_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define CN_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define CN_NEXT 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
#define CN_AFTER 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17
#endif
CN_INLINE cn_vec cn_zip_lo(cn_vec a, cn_vec b) {
    return __builtin_shufflevector(a, b, CN_LO);
}
CN_INLINE cn_vec cn_zip_hi(cn_vec a, cn_vec b) {
    return __builtin_shufflevector(a, b, CN_HI);
}
#if defined(__AVX2__) && CN_VECTOR_BYTES == 32 && CN_T_BYTES == 4
/* By whole halves first: four instructions a pair, of which GCC 12 makes six slow ones.
 */
#define CN_EVERY_OTHER(a, b, lanes)                                                    \
    (cn_vec) _mm256_shuffle_ps(_mm256_permute2f128_ps((__m256)a, (__m256)b, 0x20),     \
                               _mm256_permute2f128_ps((__m256)a, (__m256)b, 0x31),     \
                               lanes)
CN_INLINE cn_vec cn_even(cn_vec a, cn_vec b) { return CN_EVERY_OTHER(a, b, 0x88); }
CN_INLINE cn_vec cn_odd(cn_vec a, cn_vec b) { return CN_EVERY_OTHER(a, b, 0xdd); }
#else
CN_INLINE cn_vec cn_even(cn_vec a, cn_vec b) {
    return __builtin_shufflevector(a, b, CN_EVEN);
}
CN_INLINE cn_vec cn_odd(cn_vec a, cn_vec b) {
    return __builtin_shufflevector(a, b, CN_ODD);
}
#endif

/* LANES elements from the n-th on of a, which b follows; n is a constant, at most 2. */
CN_INLINE cn_vec cn_shift(cn_vec a, cn_vec b, const ptrdiff_t n) {
    return n == 0   ? a
           : n == 1 ? __builtin_shufflevector(a, b, CN_NEXT)
                    : __builtin_shufflevector(a, b, CN_AFTER);
}

/* A perfect shuffle of all elements of n_rows vectors, in place: it rotates the bits of
 * their flat index by one.  n_rows is a constant power of two, at most 16. */
CN_INLINE void cn_zip(cn_vec *v, const ptrdiff_t n_rows) {
    cn_vec w[16];
#pragma GCC unroll 16
    for (ptrdiff_t i = 0; i < n_rows / 2; i++) {
        w[2 * i] = cn_zip_lo(v[i], v[i + n_rows / 2]);
        w[2 * i + 1] = cn_zip_hi(v[i], v[i + n_rows / 2]);
    }
#pragma GCC unroll 16
    for (ptrdiff_t i = 0; i < n_rows; i++)
        v[i] = w[i];
}

#if defined(__AVX2__) && CN_VECTOR_BYTES == 32
/* What crosses the halves of a vector takes two instructions more, so it is done once,
 * after CN_HALF rows have been transposed in each half. */
enum { CN_HALF = CN_LANES / 2 };
#if CN_T_BYTES == 4
#define CN_LO_HALVES 0, 8, 1, 9, 4, 12, 5, 13
#define CN_HI_HALVES 2, 10, 3, 11, 6, 14, 7, 15
#define CN_LOWER 0, 1, 2, 3, 8, 9, 10, 11
#define CN_UPPER 4, 5, 6, 7, 12, 13, 14, 15
#else
#define CN_LO_HALVES 0, 4, 2, 6
#define CN_HI_HALVES 1, 5, 3, 7
#define CN_LOWER 0, 1, 4, 5
#define CN_UPPER 2, 3, 6, 7
#endif

CN_INLINE void cn_transpose_halves(cn_vec *v) {
#pragma GCC unroll 2
    for (ptrdiff_t round = 1; round < CN_HALF; round *= 2) {
        cn_vec w[CN_HALF];
#pragma GCC unroll 2
        for (ptrdiff_t i = 0; i < CN_HALF / 2; i++) {
            const cn_vec a = v[i], b = v[i + CN_HALF / 2];
            w[2 * i] = __builtin_shufflevector(a, b, CN_LO_HALVES);
            w[2 * i + 1] = __builtin_shufflevector(a, b, CN_HI_HALVES);
        }
#pragma GCC unroll 4
        for (ptrdiff_t i = 0; i < CN_HALF; i++)
            v[i] = w[i];
    }
}

/* Lower halves of two vectors side by side, and then the upper ones: of those that have
 * the same columns, or neighbours. */
CN_INLINE void cn_join_halves(cn_vec *v, const ptrdiff_t n_rows) {
    const ptrdiff_t n = n_rows / 2;
    cn_vec w[CN_LANES];
#pragma GCC unroll 4
    for (ptrdiff_t i = 0; i < n; i++) {
        const cn_vec a = n == CN_HALF ? v[i] : v[2 * i];
        const cn_vec b = n == CN_HALF ? v[i + n] : v[2 * i + 1];
        w[i] = __builtin_shufflevector(a, b, CN_LOWER);
        w[i + n] = __builtin_shufflevector(a, b, CN_UPPER);
    }
#pragma GCC unroll 8
    for (ptrdiff_t i = 0; i < n_rows; i++)
        v[i] = w[i];
}
#endif

/* Transpose n_rows vectors in place: element (r, l) of the (n_rows, LANES) matrix moves
 * to flat position l * n_rows + r.  log2(n_rows) shuffles swap r and l. */
CN_INLINE void cn_transpose(cn_vec *v, const ptrdiff_t n_rows) {
#if defined(__AVX2__) && CN_VECTOR_BYTES == 32
    if (n_rows == CN_LANES || n_rows == CN_HALF) {
#pragma GCC unroll 2
        for (ptrdiff_t i = 0; i < n_rows; i += CN_HALF)
            cn_transpose_halves(v + i);
        cn_join_halves(v, n_rows);
        return;
    }
#endif
#pragma GCC unroll 4
    for (ptrdiff_t round = 1; round < n_rows; round *= 2)
        cn_zip(v, n_rows);
}

/* The other way: element l * n_rows + r of a flat sequence moves to (r, l). */
CN_INLINE void cn_untranspose(cn_vec *v, const ptrdiff_t n_rows) {
    cn_vec w[16];
    if (n_rows == CN_LANES) {
        cn_transpose(v, n_rows);
        return;
    }
#pragma GCC unroll 4
    for (ptrdiff_t round = 1; round < n_rows; round *= 2) {
#pragma GCC unroll 8
        for (ptrdiff_t i = 0; i < n_rows / 2; i++) {
            w[i] = cn_even(v[2 * i], v[2 * i + 1]);
            w[i + n_rows / 2] = cn_odd(v[2 * i], v[2 * i + 1]);
        }
#pragma GCC unroll 16
        for (ptrdiff_t i = 0; i < n_rows; i++)
            v[i] = w[i];
    }
}

/* Lanes `from` of a and of b behind it, whatever their number modulo 2 * LANES. */
CN_INLINE cn_vec cn_shuffle(cn_vec a, cn_vec b, cn_mask from) {
#if defined(__clang__)
    cn_vec v = a;
    for (ptrdiff_t l = 0; l < CN_LANES; l++)
        v[l] = from[l] & CN_LANES ? b[from[l] % CN_LANES] : a[from[l] % CN_LANES];
    return v;
#else
    return __builtin_shuffle(a, b, from);
#endif
}

/* Lanes `from` of n vectors, one behind the other. */
CN_INLINE cn_vec cn_pick(const cn_vec *v, const ptrdiff_t n, cn_mask from) {
    cn_vec picked = cn_shuffle(v[0], v[1], from);
#pragma GCC unroll 16
    for (ptrdiff_t i = 2; i < n; i++) {
        const cn_mask lane = from - (CN_INT)(i * CN_LANES);
        const cn_mask inside = (lane >= 0) & (lane < CN_LANES);
        picked = cn_shuffle(picked, v[i],
                            (inside & (lane + CN_LANES)) | (~inside & cn_lane()));
    }
    return picked;
}

/* cn_transpose, or `back` again, of any constant n_rows: from row after row to element
 * after element. */
CN_INLINE void cn_join(cn_vec *v, const ptrdiff_t n_rows, const int back) {
    cn_vec w[16];
    if ((n_rows & (n_rows - 1)) == 0) {
        if (back)
            cn_untranspose(v, n_rows);
        else
            cn_transpose(v, n_rows);
        return;
    }
#pragma GCC unroll 16
    for (ptrdiff_t i = 0; i < n_rows; i++) {
        const cn_mask place = cn_lane() + (CN_INT)(i * CN_LANES);
        const cn_mask row = place % (CN_INT)n_rows, col = place / (CN_INT)n_rows;
        cn_mask from = row * (CN_INT)CN_LANES + col;
        if (back)
            from = cn_lane() * (CN_INT)n_rows + (CN_INT)i;
        w[i] = cn_pick(v, n_rows, from);
    }
#pragma GCC unroll 16
    for (ptrdiff_t i = 0; i < n_rows; i++)
        v[i] = w[i];
}
