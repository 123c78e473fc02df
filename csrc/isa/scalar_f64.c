// SPDX-License-Identifier: MIT
/* Kernels for double with the ABI's own vectors (SSE2 on x86-64, NEON on AArch64). */
#include "../convnet.h"

#define CN_ROW cn_kernels_f64_scalar
#define CN_ISA "scalar"
#define CN_T double
#define CN_INT int64_t
#define CN_T_BYTES 8
#define CN_VECTOR_BYTES 16
#define CN_MR 4
#include "../kernels/instantiate.inc"
