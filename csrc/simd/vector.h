// SPDX-License-Identifier: MIT
/* The vocabulary of vectors: a dozen verbs over GCC's vector extensions.
 *
 * A stub defines CN_T (float or double), CN_INT (the integer of its size),
 * CN_VECTOR_BYTES and CN_MR before it includes this file.  Plain C operators (+ - * on
 * cn_vec, also with a scalar) are verbs too: `acc + a * b` becomes one fused
 * multiply-add where the ISA has it
 * (-ffp-contract=fast), so one text serves every ISA.  Five verbs are intrinsics where
 * GCC 12 has no other name for one instruction: maxima, masked loads and stores,
 * additions where two vectors are equal, and whether any lane is set; a sixth, which
 * takes every other lane, is in shuffle.h. */

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define CN_LANES ((ptrdiff_t)(CN_VECTOR_BYTES / sizeof(CN_T)))
#define CN_LINE ((ptrdiff_t)(64 / sizeof(CN_T))) /* elements of a line of the cache */
#define CN_NRV 3 /* vectors in a row of the register tile */
#define CN_NR (CN_NRV * CN_LANES)
#define CN_INLINE static inline __attribute__((always_inline))

#define CN_INT_MAX ((CN_INT)(sizeof(CN_INT) == 4 ? INT32_MAX : INT64_MAX))

#define CN_SQRT(x)                                                                     \
    (sizeof(CN_T) == 4 ? (CN_T)__builtin_sqrtf((float)(x)) : (CN_T)__builtin_sqrt(x))

typedef CN_T cn_vec __attribute__((vector_size(CN_VECTOR_BYTES)));
typedef CN_T cn_vec_unaligned
        __attribute__((vector_size(CN_VECTOR_BYTES), aligned(sizeof(CN_T)), may_alias));

CN_INLINE cn_vec cn_loadu(const CN_T *p) { return *(const cn_vec_unaligned *)p; }
CN_INLINE void cn_storeu(CN_T *p, cn_vec v) { *(cn_vec_unaligned *)p = v; }

/* Loaded once, used by many: where registers are scarce, GCC 12 would read memory again
 * in each multiply-add. */
CN_INLINE cn_vec cn_loadu_once(const CN_T *p) {
    cn_vec v = cn_loadu(p);
#if defined(__x86_64__)
    __asm__("" : "+v"(v));
#endif
    return v;
}

/* One value for each of the MR rows of a register tile: one vector instruction or two.
 */
typedef CN_T cn_rows __attribute__((vector_size(CN_MR * sizeof(CN_T)),
                                    aligned(sizeof(CN_T)), may_alias));

typedef CN_INT cn_mask __attribute__((vector_size(CN_VECTOR_BYTES)));
typedef CN_INT cn_mask_unaligned
        __attribute__((vector_size(CN_VECTOR_BYTES), aligned(sizeof(CN_T)), may_alias));

CN_INLINE cn_mask cn_loadu_mask(const CN_INT *p) {
    return *(const cn_mask_unaligned *)p;
}
CN_INLINE void cn_storeu_mask(CN_INT *p, cn_mask v) { *(cn_mask_unaligned *)p = v; }

/* Lanes of b where the mask's bits are set, of a elsewhere. */
CN_INLINE cn_vec cn_select(cn_vec a, cn_vec b, cn_mask mask) {
    return (cn_vec)(((cn_mask)a & ~mask) | ((cn_mask)b & mask));
}

/* Lanes of b where they are larger, of a elsewhere: one instruction, of which GCC 12
 * makes three. */
CN_INLINE cn_vec cn_max(cn_vec a, cn_vec b) {
#if defined(__AVX512F__) && CN_VECTOR_BYTES == 64 && CN_T_BYTES == 4
    return (cn_vec)_mm512_max_ps((__m512)b, (__m512)a);
#elif defined(__AVX512F__) && CN_VECTOR_BYTES == 64
    return (cn_vec)_mm512_max_pd((__m512d)b, (__m512d)a);
#elif defined(__AVX2__) && CN_VECTOR_BYTES == 32 && CN_T_BYTES == 4
    return (cn_vec)_mm256_max_ps((__m256)b, (__m256)a);
#elif defined(__AVX2__) && CN_VECTOR_BYTES == 32
    return (cn_vec)_mm256_max_pd((__m256d)b, (__m256d)a);
#else
    return cn_select(a, b, b > a);
#endif
}

/* v between low and high; NaN stays NaN. */
CN_INLINE cn_vec cn_clip(cn_vec v, CN_T low, CN_T high) {
    v = cn_select(v, (cn_vec){0} + low, v < low);
    return cn_select(v, (cn_vec){0} + high, v > high);
}
CN_INLINE CN_T cn_clip_one(CN_T v, CN_T low, CN_T high) {
    return v < low ? low : v > high ? high : v;
}

/* Where a and b are equal, add lanes of v to the sum, and 1 to the count. */
CN_INLINE void cn_add_where(cn_vec *sum, cn_mask *count, cn_vec v, cn_mask a,
                            cn_mask b) {
#if defined(__AVX512F__) && CN_VECTOR_BYTES == 64 && CN_T_BYTES == 4
    const __mmask16 equal = _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
    *sum = (cn_vec)_mm512_mask_add_ps((__m512)*sum, equal, (__m512)*sum, (__m512)v);
    *count = (cn_mask)_mm512_mask_add_epi32((__m512i)*count, equal, (__m512i)*count,
                                            _mm512_set1_epi32(1));
#elif defined(__AVX512F__) && CN_VECTOR_BYTES == 64
    const __mmask8 equal = _mm512_cmpeq_epi64_mask((__m512i)a, (__m512i)b);
    *sum = (cn_vec)_mm512_mask_add_pd((__m512d)*sum, equal, (__m512d)*sum, (__m512d)v);
    *count = (cn_mask)_mm512_mask_add_epi64((__m512i)*count, equal, (__m512i)*count,
                                            _mm512_set1_epi64(1));
#else
    const cn_mask equal = a == b;
    *sum += (cn_vec)((cn_mask)v & equal);
    *count -= equal;
#endif
}

/* Whether a bit is set in any lane. */
CN_INLINE int cn_any(cn_mask mask) {
#if defined(__AVX512F__) && CN_VECTOR_BYTES == 64
    return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__) && CN_VECTOR_BYTES == 32
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
    CN_INT any = 0;
    for (ptrdiff_t l = 0; l < CN_LANES; l++)
        any |= mask[l];
    return any != 0;
#endif
}

/* 0, 1, 2, ... */
CN_INLINE cn_mask cn_lane(void) {
    cn_mask lane;
    for (int l = 0; l < CN_LANES; l++)
        lane[l] = l;
    return lane;
}

/* Lanes [lo, hi) of v, zero elsewhere; lo and hi may lie anywhere. */
CN_INLINE cn_vec cn_keep(cn_vec v, ptrdiff_t lo, ptrdiff_t hi) {
    const cn_mask lane = cn_lane();
    const CN_INT first = lo < 0 ? 0 : lo > CN_LANES ? CN_LANES : (CN_INT)lo;
    const CN_INT end = hi < 0 ? 0 : hi > CN_LANES ? CN_LANES : (CN_INT)hi;
    return (cn_vec)((cn_mask)v & (lane >= first) & (lane < end));
}

CN_INLINE ptrdiff_t cn_clamp(ptrdiff_t value, ptrdiff_t low, ptrdiff_t high) {
    return value < low ? low : value > high ? high : value;
}

/* n elements in whole vectors. */
CN_INLINE ptrdiff_t cn_pad_lanes(ptrdiff_t n) {
    return (n + CN_LANES - 1) / CN_LANES * CN_LANES;
}

/* Where the vector behind that at j begins, of n elements: the last one overlaps the
 * one before, or is the only one. */
CN_INLINE ptrdiff_t cn_next_vector(ptrdiff_t j, ptrdiff_t n, ptrdiff_t lanes) {
    return j + lanes >= n ? n : j + 2 * lanes <= n ? j + lanes : n - lanes;
}

/* dst[j] = src[j] for j < len, fewer than LANES: by halves of a vector, quarters, ...
 */
CN_INLINE void cn_copy_few(CN_T *dst, const CN_T *src, ptrdiff_t len) {
#pragma GCC unroll 4
    for (ptrdiff_t piece = CN_LANES / 2; piece > 0; piece /= 2)
        if (len & piece) {
            __builtin_memcpy(dst, src, (size_t)piece * sizeof(CN_T));
            dst += piece;
            src += piece;
        }
}

/* Some neighbouring lanes, in the form that loads and stores want. */
#if defined(__AVX512F__) && CN_VECTOR_BYTES == 64
typedef __mmask16 cn_some;
#elif defined(__AVX2__) && CN_VECTOR_BYTES == 32
typedef struct {
    cn_mask lanes;
    ptrdiff_t end;
} cn_some;
#else
typedef struct {
    ptrdiff_t lo, hi;
} cn_some;
#endif

/* Those in [lo, hi), which may lie anywhere. */
CN_INLINE cn_some cn_find_some(ptrdiff_t lo, ptrdiff_t hi) {
    lo = cn_clamp(lo, 0, CN_LANES);
    hi = cn_clamp(hi, lo, CN_LANES);
#if defined(__AVX512F__) && CN_VECTOR_BYTES == 64
    return (__mmask16)((1u << hi) - (1u << lo));
#elif defined(__AVX2__) && CN_VECTOR_BYTES == 32
    return (cn_some){(cn_lane() >= (CN_INT)lo) & (cn_lane() < (CN_INT)hi), hi};
#else
    return (cn_some){lo, hi};
#endif
}

/* These lanes of what lies at src, zero elsewhere; the others are not read. */
CN_INLINE cn_vec cn_load_some(const CN_T *src, cn_some some) {
#if defined(__AVX512F__) && CN_VECTOR_BYTES == 64 && CN_T_BYTES == 4
    return (cn_vec)_mm512_maskz_loadu_ps(some, src);
#elif defined(__AVX512F__) && CN_VECTOR_BYTES == 64
    return (cn_vec)_mm512_maskz_loadu_pd((__mmask8)some, src);
#elif defined(__AVX2__) && CN_VECTOR_BYTES == 32 && CN_T_BYTES == 4
    return (cn_vec)_mm256_maskload_ps(src, (__m256i)some.lanes);
#elif defined(__AVX2__) && CN_VECTOR_BYTES == 32
    return (cn_vec)_mm256_maskload_pd(src, (__m256i)some.lanes);
#else
    CN_T lanes[CN_LANES] = {0};
    if (some.hi - some.lo == CN_LANES)
        return cn_loadu(src);
    for (ptrdiff_t l = some.lo; l < some.hi; l++)
        lanes[l] = src[l];
    return cn_loadu(lanes);
#endif
}

/* Write these lanes, which begin with the first one, and no others.  By pieces with
 * AVX2, whose masked stores take AMD's Zen 3 a dozen cycles. */
CN_INLINE void cn_store_some(CN_T *dst, cn_vec v, cn_some some) {
#if defined(__AVX512F__) && CN_VECTOR_BYTES == 64 && CN_T_BYTES == 4
    _mm512_mask_storeu_ps(dst, some, (__m512)v);
#elif defined(__AVX512F__) && CN_VECTOR_BYTES == 64
    _mm512_mask_storeu_pd(dst, (__mmask8)some, (__m512d)v);
#elif defined(__AVX2__) && CN_VECTOR_BYTES == 32
    const ptrdiff_t bytes = some.end * CN_T_BYTES;
    __m128 part = _mm256_castps256_ps128((__m256)v);
    float *to = (float *)dst;
    if (bytes == CN_VECTOR_BYTES) {
        cn_storeu(dst, v);
        return;
    }
    if (bytes & 16) {
        _mm_storeu_ps(to, part);
        part = _mm256_extractf128_ps((__m256)v, 1);
        to += 4;
    }
    if (bytes & 8) {
        _mm_storel_pi((__m64 *)to, part);
        part = _mm_movehl_ps(part, part);
        to += 2;
    }
    if (bytes & 4)
        _mm_store_ss(to, part);
#else
    CN_T lanes[CN_LANES];
    cn_storeu(lanes, v);
    for (ptrdiff_t l = 0; l < some.hi; l++)
        dst[l] = lanes[l];
#endif
}

/* dst[j] = src[j] for j < len; the last vector overlaps the one before. */
CN_INLINE void cn_copy_run(CN_T *dst, const CN_T *src, ptrdiff_t len) {
    ptrdiff_t j = 0;
    for (; j + CN_LANES <= len; j += CN_LANES)
        cn_storeu(dst + j, cn_loadu(src + j));
    if (j == len)
        return;
    if (len >= CN_LANES)
        cn_storeu(dst + len - CN_LANES, cn_loadu(src + len - CN_LANES));
    else
        cn_copy_few(dst, src, len);
}

CN_INLINE void cn_zero_run(CN_T *dst, ptrdiff_t len) {
    for (ptrdiff_t j = 0; j < len; j++)
        dst[j] = 0;
}
