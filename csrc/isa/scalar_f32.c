// SPDX-License-Identifier: MIT
/* Kernels for float with the ABI's own vectors (SSE2 on x86-64, NEON on AArch64). */
#include "../convnet.h"

#define CN_ROW cn_kernels_f32_scalar
#define CN_ISA "scalar"
#define CN_T float
#define CN_INT int32_t
#define CN_T_BYTES 4
#define CN_VECTOR_BYTES 16
#define CN_MR 4
#include "../kernels/instantiate.inc"
