# SPDX-License-Identifier: MIT
"""Which algorithm computes a convolution: a cost model, the same for every call.

The estimates are cycles of one core, from the sizes, the dtype, the instruction set
and the precision policy alone, never from timing or threads: one shape always takes
the same way. The constants were fitted on a Xeon with AVX-512: to measurements of 520
3x3 layers, half of them grouped, where the chosen algorithm took 0.8 % longer than the
best on average, and of 690 others of all kernels and strides: 1 % forward and 2 %
backward, more than a tenth in 3 and 6 of 100. Large and dilated kernels came later: 2
to 5 % in some hundred. Shorter vectors have constants of their own for gradients of
weights, from 420 shapes on an EPYC with AVX2: 2 % forward and backward, 1 % for them.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from convnet import _estimates, _kernels
from convnet._geometry import Window
from convnet._operands import Steps
from convnet._tiling import Tiling, find_tiling

ALGORITHMS = ("direct", "winograd2", "winograd4")
# What the policies allow: six points have three to five times the rounding errors of a
# direct sum, four have about the same.
ALLOWED = {"strict": ALGORITHMS[:2], "default": ALGORITHMS}

# The policy of calls that name none.
_policy = "default"

# A call of less work is direct: the choice would cost more than it brings. So are thin
# ones: transforms are for channels that are used many times.
_SMALL_WORK, _THIN = 1e6, 3
# Share of the FMA rate that the register tile reaches in Winograd's products, by the
# vectors of a panel of tiles, and cycles of a tile beside its products: with few
# channels these are most of them.
_WINOGRAD_RATE, _TILE = {1: 0.59, 2: 0.65, 3: 0.79}, 70
# Lanes and rows of the register tile that the constants are for.
_LANES, _ROWS = 16, 8
# Cycles to pack a weight, which few vectors of pixels hide less of; and what sums plane
# by plane and products by runs of pixels take of their estimates, which know nothing of
# blocks.
_PACKING, _UNHIDDEN, _PLANAR, _RUNS = 0.4, 2, 1.06, 1.2
# By points and taps: cycles per vector of tiles and channel of the two transforms, and
# per panel of filters and channel of the weights' one; and of that where they stay in
# the cache.
_TRANSFORMS = {
    (4, 3): (210, 115, 41, 53),
    (6, 2): (580, 325, 115, 140),
    (6, 3): (520, 355, 140, 103),
    (6, 4): (500, 195, 170, 235),
    (6, 5): (575, 175, 120, 400),
}
# Where tiles are few: cycles of a vector of 3x3 filters by a channel, if their taps
# have been turned before the call, and if not.
_FEW = 190, 230
# For a vector of pixels that lie apart, and what all takes of its estimate, the further
# the more; and so what phases of two taps and less do, which are many results for few
# products.
_SPREADING, _APART, _MOST_APART = 25, 0.06, 1.35
_PHASED = {"forward": 1.27, "grad_input": 1.2}
# Transformed weights: bytes a cycle that are written, by full vectors, while a cache
# holds them and where memory sets the pace; and read again for each run of tiles, if
# they leave L2.
_CACHE_BYTES, _WRITE_RATES, _L2_BYTES, _READ_RATE = 12e6, (8.0, 3.3), 1e6, 5.0
# How many tasks of gradients of weights have parts of the tiles.
_ENOUGH_TASKS = 8


class _Gradients(NamedTuple):
    """Gradients of weights: what a part of them takes, in cycles."""

    rates: tuple[float, float]  # of tiles: share of the FMA rate
    storing: float  # a sum
    turning: float  # a pixel, for a column
    block_sum: float  # passing over a Winograd sum, for each block of tiles
    back: float  # transforming it back
    transforms: dict[tuple[int, int], float]  # a vector of a tile, by points and taps


_LONG_VECTORS = _Gradients(
    (0.99, 0.94), 0.47, 0.29, 0.13, 0.45,
    {(4, 3): 125, (6, 3): 400, (6, 4): 400, (6, 5): 350},
)  # fmt: skip
_SHORT_VECTORS = _Gradients(
    (0.99, 0.86), 0.1, 1.08, 0.5, 1.1,
    {(4, 3): 31, (6, 3): 100, (6, 4): 100, (6, 5): 88},
)  # fmt: skip


class Product(NamedTuple):
    """The sizes that decide: of the whole batch, and of one group."""

    groups: int
    rows: int  # output channels of the product
    channels: int  # input channels of the product
    images: int
    height: int  # of the product's output
    width: int

    def work(self, taps: int) -> int:
        """Return the operations of the definition."""
        G, R, C, N, H, W = self
        return 2 * G * R * C * N * H * W * taps


def set_policy(name: str) -> None:
    """Let `name` be the policy of calls that name none."""
    global _policy
    _policy = name


def get_policy() -> str:
    """Return the policy of calls that name none."""
    return _policy


def choose(
    product: Product,
    window: Window,
    dtype: np.dtype[Any],
    algorithm: str,
    precision: str | None,
    prepared: bool = False,
    kind: str = "forward",
) -> str:
    """Return the algorithm of a call: the one asked for, or the fastest allowed.

    `prepared` weights are packed or transformed before the call; `kind` names the pass.
    """
    if algorithm != "auto":
        if algorithm != "direct" and not find_tiling(algorithm, window, kind):
            raise ValueError(
                f"algorithm {algorithm!r} has no tiles for {kind} of {window}: see the "
                "documentation of conv2d"
            )
        return algorithm
    thin = min(product.rows, product.channels) < _THIN
    if thin or product.work(math.prod(window.kernel)) < _SMALL_WORK:
        return "direct"
    if dtype.itemsize != 4 or not find_tiling("winograd4", window, kind):
        return "direct"
    call = product, window, precision or _policy, prepared, kind
    return _fastest(_kernels.get_isa(), *call)


@lru_cache(maxsize=256)
def _fastest(isa: str, *call: Any) -> str:
    """Return the algorithm with the least estimate: training asks again and again."""
    costs = estimates(*call)
    return min(costs, key=costs.__getitem__)


def estimates(
    product: Product,
    window: Window,
    precision: str | None = None,
    prepared: bool = False,
    kind: str = "forward",
) -> dict[str, float]:
    """Return the cycles that each algorithm takes which is possible and allowed."""
    gradient = kind == "grad_weight"
    if gradient:
        costs = {"direct": _direct_gradient_cycles(product, window)}
    else:
        costs = {"direct": _direct_cycles(product, window, prepared, kind)}
    for name in ALLOWED[precision or _policy][1:]:
        tiling = find_tiling(name, window, kind)
        if not tiling:
            continue
        if gradient:
            costs[name] = _winograd_gradient_cycles(product, tiling, window)
        else:
            tiled = by_tiles(product, tiling, window, kind)
            if _are_few(tiled, tiling, window):
                costs[name] = _few_cycles(tiled, tiling, prepared)
            else:
                costs[name] = _winograd_cycles(tiled, tiling, prepared)
            if window.stride[0] > 1 and tiling.taps == 2:
                costs[name] *= _PHASED[kind]
            if window.dilation[1] > 1:
                costs[name] += _dilation_cycles(tiled, tiling)
                costs[name] *= min(1 + _APART * (window.dilation[1] - 2), _MOST_APART)
    return costs


def by_tiles(product: Product, tiling: Tiling, window: Window, kind: str) -> Product:
    """Return the product of the tiles' channels, rows and images.

    Phases are channels, or backward rows, pieces of kernels channels either way; with
    dilation there are more images.
    """
    rows, channels = product.rows, product.channels * math.prod(tiling.pieces)
    step = window.stride[0]
    if kind == "grad_input":
        rows *= step**2
    else:
        channels *= step**2
    (DH, DW), (H, W) = window.dilation, product[-2:]
    images = product.images * min(DH, H) * min(DW, W)
    size = -(-H // DH), -(-W // DW)
    return Product(product.groups, rows, channels, images, *size)


def _direct_cycles(
    product: Product, window: Window, prepared: bool, kind: str
) -> float:
    G, R, C, N, H, W = product
    steps = Steps(*window[:4])
    mr, _, lanes = _kernels.tile_shape(4)
    taps = math.prod(window.kernel)
    packed = _estimates.packed_cycles(R, taps, mr)
    unpacked = _estimates.unpacked_cycles(R, C, W, taps, lanes)
    by_runs = _RUNS * _estimates.run_cycles(R, C, W, taps, lanes, mr)
    vectors = -(-N * H * W // lanes)
    cycles = vectors * min(packed, unpacked, by_runs)
    backward = kind == "grad_input"
    cycles *= _estimates.tap_by_tap_share(R, C, N, H, W, steps, backward)
    if not prepared:
        cycles += -(-R // mr) * mr * _PACKING * (1 + _UNHIDDEN / vectors)
    if _estimates.fits(C, W, steps):
        planar = _PLANAR * _estimates.planar_cycles(R, W, taps, lanes)
        cycles = min(cycles, N * H * W / lanes * planar)
    cycles *= C * taps
    if backward and G == 1:
        windows = _estimates.window_cycles(R, C, N, *window.output, steps, lanes)
        cycles = min(cycles, windows)
    return G * cycles


def _winograd_cycles(product: Product, tiling: Tiling, prepared: bool) -> float:
    G, R, C, N, H, W = product
    mr, _, lanes = _kernels.tile_shape(4)
    points, m = tiling.points**2, tiling.size
    tiles = N * -(-H // m) * -(-W // m)
    vectors = -(-tiles // lanes)
    panels = -(-R // mr)
    to_points, from_points, weights, kept_weights = _TRANSFORMS[tiling[:2]]
    # Vectors of a panel and of a run, as in _winograd_plan; each run reads all
    # weights again.
    vector_bytes = points * C * lanes * 4
    panel = max(1, min(3, vectors, 2**23 // vector_bytes))
    run = panel * (1 + (panel * vector_bytes > 2**20))
    # A single vector is multiplied tile by tile where tiles are few, or the weights are
    # in the cache.
    multiplied = float(vectors)
    if vectors == 1 and (tiles <= 4 or not prepared) and 2 * lanes < R:
        multiplied = min((tiles + 1.5) / lanes, 1)
    multiply = points * C * panels * mr * multiplied / 2 / _WINOGRAD_RATE[panel]
    # One vector of tiles is multiplied by three panels of filters at once.
    calls = -(-vectors // 3) * panels if vectors > 1 else -(-panels // 3)
    multiply += points * calls * _TILE
    transform = vectors * (C * to_points + R * from_points)
    # Inputs that leave L2 are written and read again, be it for a few filters.
    if panel * vector_bytes > _L2_BYTES:
        multiply = max(multiply, vectors * vector_bytes / _READ_RATE)
    size = points * C * panels * mr * 4
    runs = -(-vectors // run)
    reread = runs * size / _READ_RATE if size > _L2_BYTES else 0.0
    # Filters are transformed by whole vectors.
    filters = -(-R // lanes) * lanes / _ROWS * C
    before = filters * weights + size / _write_rate(G * size)
    if prepared:
        before = 0.0
    elif runs == 1:
        before, reread = filters * kept_weights, 0.0
    return G * (max(multiply, reread) + transform + before)


def _write_rate(size: float) -> float:
    lanes = _kernels.tile_shape(4)[2]
    return _WRITE_RATES[size >= _CACHE_BYTES] * lanes / _LANES


def _are_few(product: Product, tiling: Tiling, window: Window) -> bool:
    *_, N, H, W = product
    mr, *_ = _kernels.tile_shape(4)
    tiles = N * -(-H // tiling.size) * -(-W // tiling.size)
    step = math.prod(window.stride)
    return _estimates.are_few(tiles, tiling.points, *window.kernel, step, mr)


def _few_cycles(product: Product, tiling: Tiling, prepared: bool) -> float:
    G, R, C, *_ = product
    lanes = _kernels.tile_shape(4)[2]
    to_points, from_points, *_ = _TRANSFORMS[tiling[:2]]
    multiply = -(-R // lanes) * C * _FEW[not prepared]
    return G * (multiply + C * to_points + R * from_points)


def _dilation_cycles(product: Product, tiling: Tiling) -> float:
    """Return the cycles of copying inputs to planes and storing single results."""
    G, R, C, N, H, W = product
    lanes, m = _kernels.tile_shape(4)[2], tiling.size
    tiles = N * -(-H // m) * -(-W // m)
    pixels = C * tiling.points**2 + R * m**2
    return G * -(-tiles // lanes) * pixels * _SPREADING


def _direct_gradient_cycles(product: Product, window: Window) -> float:
    G, R, C, N, H, W = product
    mr, _, lanes = _kernels.tile_shape(4)
    steps, taps = Steps(*window[:4]), math.prod(window.kernel)
    costs = _gradient_costs(lanes)
    columns = -(-C * taps // lanes) * lanes
    rows, pixels = -(-R // mr) * mr, N * H * W
    sums = pixels / 2 / lanes / costs.rates[0] + costs.storing
    cycles = columns * (rows * sums + pixels * costs.turning)
    cycles *= _estimates.tap_by_tap_share(R, C, N, H, W, steps, False)
    joined = _estimates.joined_weight_cycles(R, C, steps, lanes, mr)
    cycles = min(cycles, pixels / lanes * joined)
    if _estimates.fits(C, W, steps):
        planar = _estimates.planar_weight_cycles(R, C, W, steps, lanes)
        cycles = min(cycles, pixels / lanes * planar)
    return G * cycles


def _gradient_costs(lanes: int) -> _Gradients:
    return _LONG_VECTORS if lanes >= _LANES else _SHORT_VECTORS


def _winograd_gradient_cycles(
    product: Product, tiling: Tiling, window: Window
) -> float:
    G, R, C, N, H, W = product
    _, _, lanes = _kernels.tile_shape(4)
    costs = _gradient_costs(lanes)
    points, m, pieces = tiling.points**2, tiling.size, math.prod(tiling.pieces)
    tiles = N * -(-H // m) * -(-W // m)
    # The pieces of a kernel are stored one after another, into the same lines.
    size = R * C * math.prod(window.kernel) * 4
    storing = size / _write_rate(G * size) if pieces > 1 else 0.0
    # Channels fill whole vectors, and the rows' transforms as well.
    C, R_vectors = -(-C // lanes) * lanes, -(-R // lanes) * lanes
    sums = points * R * C
    # Each block of 64 tiles reads the sums and writes them; parts have their own.
    blocks = -(-tiles // 64)
    tasks = G * -(-C // 128) * R_vectors // lanes
    parts = min(blocks, -(-_ENOUGH_TASKS // tasks))
    multiply = sums * (tiles / 2 / lanes / costs.rates[1])
    passes = sums * (blocks * costs.block_sum + parts * costs.back)
    # A task has 128 channels and 128 rows: others turn and transform the same tiles.
    vectors = (C * -(-R // 128) + R_vectors * -(-C // 128)) / lanes
    transforms = vectors * tiles * costs.transforms[tiling[:2]]
    turning = vectors * N * H * W * lanes * costs.turning
    return G * pieces * (multiply + passes + transforms + turning + storing)
