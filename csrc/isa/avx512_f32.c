// SPDX-License-Identifier: MIT
/* Kernels for float with AVX-512 (F, VL, DQ, BW): 32 vector registers hold 8 x 3
 * accumulators. */
#include "../convnet.h"

#if defined(__x86_64__)
#define CN_TARGET "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,tune=skylake-avx512"
#include "../simd/target_begin.h"
#define CN_ROW cn_kernels_f32_avx512
#define CN_ISA "avx512"
#define CN_T float
#define CN_INT int32_t
#define CN_T_BYTES 4
#define CN_VECTOR_BYTES 64
#define CN_MR 8
#include "../kernels/instantiate.inc"
#include "../simd/target_end.h"
#endif
