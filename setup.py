# SPDX-License-Identifier: MIT
"""Build the extension modules: one owner of the compiled C, and its drivers."""

import itertools
import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError

C_SOURCES = sorted(str(path) for path in Path("csrc").rglob("*.c"))
C_HEADERS = sorted(
    str(path) for pattern in ("*.h", "*.inc") for path in Path("csrc").rglob(pattern)
)
DRIVERS = sorted({path.stem for path in Path("convnet").glob("*.pyx")} - {"_kernels"})

# CONVNET_SANITIZE=1 builds for the address and undefined-behaviour sanitizers;
# CONVNET_WERROR=1 turns C warnings into errors (the project's own CI does).
SANITIZE = os.environ.get("CONVNET_SANITIZE") == "1"
C_FLAGS = ["-std=c11", "-ffp-contract=fast", "-fvisibility=hidden", "-pthread"]
# Optimizing sanitized code takes longer than running it does without.
C_FLAGS.append("-O1" if SANITIZE else "-O2")
C_FLAGS.append("-fno-math-errno")  # a square root is an instruction
C_FLAGS.append("-fwrapv")  # differences of indices in lanes, as in CPython's own flags
C_FLAGS.append("-g0")  # debug information would double the install
LINK_FLAGS = ["-pthread"]
# What is not looked for where the text is that of others, and would take minutes more:
# undefined behaviour is looked for in the shortest vectors of floats.
UNSANITIZED = {
    "scalar_f64.c": "undefined",
    "avx2_f32.c": "all",
    "avx2_f64.c": "all",
    "avx512_f64.c": "all",
    "avx512_f32.c": "undefined",
}
CPUINFO = Path("/proc/cpuinfo")
if CPUINFO.exists() and "avx512f" not in CPUINFO.read_text():
    UNSANITIZED["avx512_f32.c"] = "all"  # what this machine cannot run
# A third more code buys speed where speed is tuned: float by the larger vectors.
FAST_SOURCES = ("avx512_f32.c", "avx2_f32.c")
# And a third less saves a twentieth of the install where hardly any machine runs it, or
# where hardly any time is spent: in drivers that mostly call others.
X86 = platform.machine().lower() in ("x86_64", "amd64")
SMALL_SOURCES = (
    "_conv.c",
    "_conv_weight.c",
    "_estimates.c",
    "_matrix.c",
    "_tap_by_tap.c",
    "_winograd.c",
    "_winograd_few.c",
    "_winograd_weight.c",
)
if X86:
    SMALL_SOURCES += ("scalar_f32.c", "scalar_f64.c")
# Names and unwinding tables of what nobody calls by name, a tenth of the install; with
# CONVNET_SYMBOLS=1 profilers find them.
if sys.platform == "linux" and not SANITIZE:
    C_FLAGS.append("-fno-asynchronous-unwind-tables")
    if os.environ.get("CONVNET_SYMBOLS") != "1":
        LINK_FLAGS.append("-Wl,--strip-all")
if SANITIZE:
    sanitizers = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g1"]
    C_FLAGS += [*sanitizers, "-fno-sanitize-recover=undefined"]
    LINK_FLAGS += sanitizers
KERNEL_WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion"]
if os.environ.get("CONVNET_WERROR") == "1":
    KERNEL_WARNINGS.append("-Werror")


class BuildExt(build_ext):
    """Compile, with warnings for our own C alone, and say clearly what is missing."""

    def build_extensions(self) -> None:
        """Give each source its flags: generated C is not held to our warnings."""
        compile_one = self.compiler._compile

        def with_flags(obj, src, ext, cc_args, postargs, pp_opts):  # type: ignore
            own = src.startswith("csrc") or f"{os.sep}csrc{os.sep}" in src
            extra = [*postargs, *KERNEL_WARNINGS] if own else postargs
            if src.endswith(FAST_SOURCES) and not SANITIZE:
                extra = [*extra, "-O3"]
            if src.endswith(SMALL_SOURCES) and not SANITIZE:
                extra = [*extra, "-Os"]
            if SANITIZE and Path(src).name in UNSANITIZED:
                extra = [*extra, f"-fno-sanitize={UNSANITIZED[Path(src).name]}"]
            compile_one(obj, src, ext, cc_args, extra, pp_opts)

        self.compiler._compile = with_flags
        compile_all = self.compiler.compile

        def side_by_side(sources, **options):  # type: ignore
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda one: compile_all([one], **options), sources)
                return list(itertools.chain.from_iterable(objects))

        self.compiler.compile = side_by_side
        self.parallel = self.parallel or os.cpu_count()
        try:
            super().build_extensions()
        except (CompileError, PlatformError, OSError) as error:
            sys.exit(
                f"convnet could not be compiled: {error}\n"
                "It needs a C compiler (GCC 12 or newer, or Clang) and Python's "
                "headers; on Debian and Ubuntu: apt-get install gcc python3-dev"
            )


def extension(name: str, c_sources: list[str]) -> Extension:
    """Describe one extension module; only the owner brings C sources of its own."""
    return Extension(
        f"convnet.{name}",
        [f"convnet/{name}.pyx", *c_sources],
        include_dirs=["csrc", np.get_include()],
        depends=C_HEADERS,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=C_FLAGS,
        extra_link_args=LINK_FLAGS,
    )


setup(
    ext_modules=cythonize(
        [extension("_kernels", C_SOURCES), *(extension(name, []) for name in DRIVERS)],
        build_dir="build/cython",
        language_level=3,
        compiler_directives={
            "autotestdict": False,
            "boundscheck": SANITIZE,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": False,
        },
    ),
    cmdclass={"build_ext": BuildExt},
)
