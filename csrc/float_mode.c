// SPDX-License-Identifier: MIT
/* The floating-point mode of a thread: rounding, exceptions, and whether denormals
 * count as zero.  An operation on a denormal takes over a hundred cycles on many CPUs.
 */
#include "convnet.h"

#if defined(__x86_64__)

enum { FLUSH_RESULTS = 0x8000, FLUSH_OPERANDS = 0x0040 }; /* MXCSR: FTZ, DAZ */

uint64_t cn_float_mode(void) { return __builtin_ia32_stmxcsr(); }
void cn_set_float_mode(uint64_t mode) { __builtin_ia32_ldmxcsr((unsigned)mode); }
uint64_t cn_flushing(uint64_t mode) { return mode | FLUSH_RESULTS | FLUSH_OPERANDS; }

#elif defined(__aarch64__)

uint64_t cn_float_mode(void) {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
void cn_set_float_mode(uint64_t mode) {
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}
uint64_t cn_flushing(uint64_t mode) { return mode | (uint64_t)1 << 24; } /* FPCR: FZ */

#else

uint64_t cn_float_mode(void) { return 0; }
void cn_set_float_mode(uint64_t mode) { (void)mode; }
uint64_t cn_flushing(uint64_t mode) { return mode; }

#endif
