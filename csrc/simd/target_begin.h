// SPDX-License-Identifier: MIT
/* Compiles everything up to target_end.h for the ISA that the string CN_TARGET names.
 * GCC and Clang want different pragmas; this pair of files is the only place to know.
 */
#define CN_PRAGMA_TEXT(text) _Pragma(#text)
#define CN_PRAGMA(text) CN_PRAGMA_TEXT(text)
#if defined(__clang__)
CN_PRAGMA(clang attribute push(__attribute__((target(CN_TARGET))), apply_to = function))
#else
CN_PRAGMA(GCC push_options)
CN_PRAGMA(GCC target(CN_TARGET))
#endif
