# SPDX-License-Identifier: MIT
"""Settings, and what a bug report needs to know about an installation."""

import platform

import numpy as np

from convnet import _algorithm, _check, _kernels, _results, _threads
from convnet._geometry import as_int
from convnet._version import __version__


def set_result_cache(n_bytes: int) -> None:
    """Limit the memory that waits for the results of later calls.

    Large results take the memory of arrays that nobody holds any more, which saves the
    system the work of clearing it. At most so much waits, 256 MB by default; what an
    array in use occupies does not count.

    Parameters
    ----------
    n_bytes : int
        The limit. 0 releases all that waits and keeps nothing from now on.

    Raises
    ------
    TypeError
        If `n_bytes` is not an integer.
    ValueError
        If `n_bytes` is negative or above 2**31 - 1.
    """
    _results.set_limit(as_int(n_bytes, "n_bytes", least=0))


def set_precision(name: str) -> None:
    """Choose how float32 convolutions may round that do not say it themselves.

    Parameters
    ----------
    name : {"default", "strict"}
        ``"strict"`` leaves out the algorithms that round worse than direct sums:
        F(4, 3). A call's own `precision`, or an algorithm that it asks for, comes
        first.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If it is another one.

    Examples
    --------
    >>> import convnet
    >>> convnet.set_precision("strict")
    >>> convnet.set_precision("default")
    """
    _algorithm.set_policy(_check.choice(name, "name", tuple(_algorithm.ALLOWED)))


def show_config() -> None:
    """Print versions, instruction sets, threads and compiler.

    Examples
    --------
    >>> import convnet
    >>> convnet.show_config()  # doctest: +ELLIPSIS
    convnet   ...
    """
    rows, columns, _ = _kernels.tile_shape(4)
    print(f"convnet   {__version__}")
    print(f"isa       {_kernels.get_isa()} of {', '.join(_kernels.available_isas())}")
    print(f"tile      {rows} x {columns} float32")
    print(f"precision {_algorithm.get_policy()}")
    print(f"threads   {_threads.get_num_threads()}")
    print(f"compiler  {_kernels.compiler()}")
    print(f"numpy     {np.__version__}")
    print(f"python    {platform.python_version()} on {platform.platform()}")
