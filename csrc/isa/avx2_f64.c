// SPDX-License-Identifier: MIT
/* Kernels for double with AVX2 and FMA: 16 vector registers hold 4 x 3 accumulators. */
#include "../convnet.h"

#if defined(__x86_64__)
#define CN_TARGET "avx2,fma"
#include "../simd/target_begin.h"
#define CN_ROW cn_kernels_f64_avx2
#define CN_ISA "avx2"
#define CN_T double
#define CN_INT int64_t
#define CN_T_BYTES 8
#define CN_VECTOR_BYTES 32
#define CN_MR 4
#include "../kernels/instantiate.inc"
#include "../simd/target_end.h"
#endif
