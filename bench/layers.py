# SPDX-License-Identifier: MIT
"""The tables: which layers and poolings are timed, and how to choose among them."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from bench import training
from bench.cases import Case, Conv, Pool, Tiny

CONV_PASSES = ("fwd", "gx", "gw")
POOL_PASSES = ("max", "avg", "maxg", "avgg")
PASSES = (*CONV_PASSES, *POOL_PASSES, "step")

# A row: name, IC IHxIW -> OC, KHxKW, and where they are not 1, 0, 1 and 1 the stride,
# the padding (one number, or rows x columns), the dilation and the groups.

# Layers of ResNet-50, VGG, MobileNet, ConvNeXt, ResNeXt and LeNet-5, and the one of a
# first program.
LAYERS = """
r50.conv1      3 224x224 ->   64  7x7 s2 p3 g1
r50.l1.1x1a   64   56x56 ->   64  1x1 s1 p0 g1
r50.l1.3x3    64   56x56 ->   64  3x3 s1 p1 g1
r50.l1.1x1b   64   56x56 ->  256  1x1 s1 p0 g1
r50.l1.1x1c  256   56x56 ->   64  1x1 s1 p0 g1
r50.l2.3x3s2 128   56x56 ->  128  3x3 s2 p1 g1
r50.l2.3x3   128   28x28 ->  128  3x3 s1 p1 g1
r50.l2.1x1   512   28x28 ->  128  1x1 s1 p0 g1
r50.l2.down  256   56x56 ->  512  1x1 s2 p0 g1
r50.l3.3x3   256   14x14 ->  256  3x3 s1 p1 g1
r50.l3.1x1  1024   14x14 ->  256  1x1 s1 p0 g1
r50.l4.3x3   512     7x7 ->  512  3x3 s1 p1 g1
r50.l4.1x1   512     7x7 -> 2048  1x1 s1 p0 g1
vgg.1_1        3 224x224 ->   64  3x3 s1 p1 g1
vgg.1_2       64 224x224 ->   64  3x3 s1 p1 g1
vgg.2_2      128 112x112 ->  128  3x3 s1 p1 g1
vgg.3_2      256   56x56 ->  256  3x3 s1 p1 g1
vgg.4_2      512   28x28 ->  512  3x3 s1 p1 g1
vgg.5        512   14x14 ->  512  3x3 s1 p1 g1
mb.dw3s1      32 112x112 ->   32  3x3 s1 p1 g32
mb.dw3s2      96 112x112 ->   96  3x3 s2 p1 g96
mb.dw3.14    384   14x14 ->  384  3x3 s1 p1 g384
mb.dw5.28    120   28x28 ->  120  5x5 s1 p2 g120
convnext.dw7  96   56x56 ->   96  7x7 s1 p3 g96
resnext.g32  128   56x56 ->  128  3x3 s1 p1 g32
lenet1         1   28x28 ->    6  5x5 s1 p2 g1
lenet2         6   14x14 ->   16  5x5 s1 p0 g1
seed28         1   28x28 ->    5  3x3 s1 p0 g1
"""

# Dense layers of networks that the first list leaves out: what was tuned for that list
# alone loses here. The plane is part of a name where a network repeats its kernels. The
# last rows belong to no network: no vector, tile or panel divides their sizes.
OTHERS = """
inception.149.3x3      32 149x149 ->   32   3x3
inception.73.3x3       80   73x73 ->  192   3x3
inception.35.1x1      192   35x35 ->   64   1x1
inception.35.3x3       96   35x35 ->   96   3x3 p1
inception.35.5x5       48   35x35 ->   64   5x5 p2
inception.35.3x3s2    288   35x35 ->  384   3x3 s2
inception.17.1x7      128   17x17 ->  128   1x7 p0x3
inception.17.7x1      192   17x17 ->  192   7x1 p3x0
inception.8.1x3       384     8x8 ->  384   1x3 p0x1
densenet.56.1x1       160   56x56 ->  128   1x1
densenet.56.3x3       128   56x56 ->   32   3x3 p1
densenet.14.1x1       672   14x14 ->  128   1x1
densenet.7.3x3        128     7x7 ->   32   3x3 p1
googlenet.28.5x5       16   28x28 ->   32   5x5 p2
googlenet.14.3x3       96   14x14 ->  208   3x3 p1
googlenet.7.5x5        48     7x7 ->  128   5x5 p2
squeezenet.conv1        3 224x224 ->   64   3x3 s2
squeezenet.55.1x1      64   55x55 ->   16   1x1
squeezenet.55.3x3      16   55x55 ->   64   3x3 p1
squeezenet.13.3x3      48   13x13 ->  192   3x3 p1
squeezenet.last       512   13x13 -> 1000   1x1
alexnet.conv1           3 224x224 ->   64 11x11 s4 p2
alexnet.conv2          64   27x27 ->  192   5x5 p2
alexnet.conv3         192   13x13 ->  384   3x3 p1
convnext.stem           3 224x224 ->   96   4x4 s4
convnext.down          96   56x56 ->  192   2x2 s2
efficientnet.112.1x1   16 112x112 ->   96   1x1
efficientnet.28.1x1    40   28x28 ->  240   1x1
efficientnet.7.1x1    192     7x7 -> 1152   1x1
mnv2.56.1x1            96   56x56 ->   24   1x1
resnet18.56.3x3s2      64   56x56 ->  128   3x3 s2 p1
dcgan.32.4x4s2         64   32x32 ->  128   4x4 s2 p1
yolo8.160.3x3s2        16 160x160 ->   32   3x3 s2 p1
yolo.76.3x3           128   76x76 ->  256   3x3 p1
yolo.19.3x3           512   19x19 -> 1024   3x3 p1
yolo.19.1x1          1024   19x19 ->  255   1x1
unet.first              1 572x572 ->   64   3x3
unet.last              64 388x388 ->    2   1x1
vit.b16                 3 224x224 ->  768 16x16 s16
vit.l14                 3 224x224 -> 1024 14x14 s14
cyclegan.first          3 256x256 ->   64   7x7 p3
cyclegan.last          64 256x256 ->    3   7x7 p3
gcn.28.7x7            128   28x28 ->  128   7x7 p3
deeplab.33.d2         256   33x33 ->  256   3x3 p2 d2
deeplab.28.d4         512   28x28 ->  512   3x3 p4 d4
aspp.d6               320   33x33 ->  256   3x3 p6 d6
aspp.d12              320   33x33 ->  256   3x3 p12 d12
prime.61.3x3           61   61x61 ->   97   3x3 p1
prime.29.3x3s2         97   29x43 ->  113   3x3 s2 p1
prime.31.1x1          113   31x41 ->   61   1x1
prime.17.5x5           23   17x59 ->   37   5x5 p2
prime.41.9x9           29   41x37 ->   23   9x9 p4
"""

# Depthwise, grouped and thin layers that the first list leaves out.
THIN = """
mnv3.dw3s2.112         16 112x112 ->   16   3x3 s2 p1 g16
mnv3.dw5s2.56          72   56x56 ->   72   5x5 s2 p2 g72
mnv2.dw3.7            960     7x7 ->  960   3x3 p1 g960
mnv2.dw3s2.14         576   14x14 ->  576   3x3 s2 p1 g576
efficientnet.dw5.14   672   14x14 ->  672   5x5 p2 g672
efficientnet.dw5s2.28 240   28x28 ->  240   5x5 s2 p2 g240
efficientnet.dw5.7   1152     7x7 -> 1152   5x5 p2 g1152
convnext.dw7.28       192   28x28 ->  192   7x7 p3 g192
convnext.dw7.7        768     7x7 ->  768   7x7 p3 g768
xception.dw3.19       728   19x19 ->  728   3x3 p1 g728
shufflenet.dw3s2      232   28x28 ->  232   3x3 s2 p1 g232
shufflenet.1x1.g3     240   28x28 ->  240   1x1 g3
resnext.14.g32        512   14x14 ->  512   3x3 p1 g32
resnext.28.g32s2      512   56x56 ->  512   3x3 s2 p1 g32
regnet.g16            336   28x28 ->  336   3x3 p1 g21
deeplab.dw3d2         256   33x33 ->  256   3x3 p2 d2 g256
replk.dw11             64   56x56 ->   64 11x11 p5 g64
wavelet.m2             24   75x91 ->   48   3x3 p1 g24
srcnn.first             1 200x200 ->   64   9x9 p4
srcnn.last             32 200x200 ->    1   5x5 p2
cifar.first             3   32x32 ->   16   3x3 p1
mnist.first             1   28x28 ->   16   3x3 p1
unet.rgb                3 128x160 ->   24   3x3 p1
prime.dw3.5            37     5x5 ->   37   3x3 p1 g37
prime.dw5.41           23   41x67 ->   23   5x5 p2 g23
prime.dw3s3            19   61x83 ->   19   3x3 s3 g19
prime.g7               77   29x31 ->  119   3x3 p1 g7
"""

# Each section is a table, and a geometric mean, of its own.
# What calls cost beside their arithmetic, of which there is nearly none.
OVERHEAD = """
tiny.1x1          1   28x28 ->    1  1x1
tiny.3x3          1   28x28 ->    1  3x3 p1
tiny.3x3s2        3   16x15 ->    8  3x3 s2 p1
tiny.8x8          4     8x8 ->    8  3x3 p1
tiny.depthwise    8     7x7 ->    8  3x3 p1 g8
tiny.pixel       16     1x1 ->   16  1x1
"""
SECTIONS = {
    "": LAYERS,
    "other networks": OTHERS,
    "other thin layers": THIN,
    "overhead": OVERHEAD,
}

# The first pooling of ResNet-50; VGG's, early and late; Inception's; a global average;
# LeNet's.
POOLINGS = """
pool.1x64x112x112.k3s2p1
pool.16x64x112x112.k2s2p0
pool.8x256x28x28.k2s2p0
pool.4x192x35x35.k3s1p1
pool.16x1024x7x7.k7s7p0
pool.64x6x28x28.k2s2p0
"""
# Windows that overlap more or less, or leave gaps; odd planes, narrow and wide; few
# channels.
OTHER_POOLINGS = """
pool.1x96x55x55.k3s2p0
pool.1x512x14x14.k2s2p0
pool.1x512x13x13.k5s1p2
pool.1x256x13x13.k13s1p6
pool.2x37x31x29.k3s3p0
pool.4x19x61x83.k2s1p0
pool.1x3x200x200.k5s5p2
pool.8x64x10x9.k3s2p1
pool.2x1280x7x7.k7s7p0
pool.1x128x56x56.k56s56p0
pool.3x17x45x47.k4s3p1
pool.1x5x1x2003.k1s2p0
"""
POOL_SECTIONS = {"": POOLINGS, "other poolings": OTHER_POOLINGS}

# One layer of each kind, none of them long.
QUICK = (
    *("r50.l1.1x1a", "r50.l1.3x3", "r50.l3.3x3", "mb.dw3.14", "lenet2"),
    "pool.1x64x112x112.k3s2p1",
)


def names() -> list[str]:
    """Return the names of all layers, poolings and trainings."""
    tables = [*SECTIONS.values(), *POOL_SECTIONS.values()]
    rows = [row.split()[0] for table in tables for row in table.split("\n") if row]
    return rows + training.names()


def matching(patterns: Sequence[str]) -> list[str]:
    """Return the names that match one of the shell patterns, or all without any."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names()):
            raise ValueError(f"no layer is called {pattern!r}; see --list")
    return [
        name
        for name in names()
        if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def convolutions(
    chosen: Sequence[str], section: str, op: str, N: int
) -> Iterator[Case]:
    """Yield one pass of each chosen layer of a section, with N images."""
    for row in SECTIONS[section].strip().split("\n"):
        name, IC, size, _, OC, kernel, *rest = row.split()
        if name in chosen:
            fields = {"p": "0", **{field[0]: field[1:] for field in rest}}
            S, D, G = (int(fields.get(key, 1)) for key in "sdg")
            K, P = _pair(kernel), _pair(fields["p"])
            sizes = N, int(IC), *_pair(size), int(OC)
            kind = Tiny if section == "overhead" else Conv
            yield kind(name, op, *sizes, K, S, P, D, G, section)


def poolings(chosen: Sequence[str], section: str, op: str) -> Iterator[Case]:
    """Yield one operation of each chosen pooling of a section."""
    for name in POOL_SECTIONS[section].split():
        if name in chosen:
            _, size, window = name.split(".")
            N, C, H, W = _numbers(size)
            K, S, P = _numbers(window[1:].replace("s", "x").replace("p", "x"))
            yield Pool(name, op, N, C, H, W, K, S, P, section)


def _pair(text: str) -> tuple[int, int]:
    """Return (rows, columns) from "1x7", or from one number for both."""
    rows, _, columns = text.partition("x")
    return int(rows), int(columns or rows)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split("x")]
