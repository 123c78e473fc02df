// SPDX-License-Identifier: MIT
/* Which kernels this machine can run.  The compiler's own CPU detection is used: it
 * also checks that the operating system saves the wide registers. */
#include "convnet.h"

extern const cn_kernels_t cn_kernels_f32_scalar, cn_kernels_f64_scalar;
#if defined(__x86_64__)
extern const cn_kernels_t cn_kernels_f32_avx2, cn_kernels_f64_avx2;
extern const cn_kernels_t cn_kernels_f32_avx512, cn_kernels_f64_avx512;
#endif

static const struct {
    const cn_kernels_t *f32, *f64;
} rows[] = {
        {&cn_kernels_f32_scalar, &cn_kernels_f64_scalar},
#if defined(__x86_64__)
        {&cn_kernels_f32_avx2, &cn_kernels_f64_avx2},
        {&cn_kernels_f32_avx512, &cn_kernels_f64_avx512},
#endif
};

int cn_isa_count(void) { return (int)(sizeof rows / sizeof rows[0]); }

const char *cn_isa_name(int level) { return rows[level].f32->isa; }

int cn_isa_supported(int level) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (level == 1)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (level == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
               && __builtin_cpu_supports("avx512dq")
               && __builtin_cpu_supports("avx512bw");
#endif
    return level == 0;
}

const cn_kernels_t *cn_kernels(int level, int itemsize) {
    return itemsize == 4 ? rows[level].f32 : rows[level].f64;
}
