# SPDX-License-Identifier: MIT
"""Named calls that tests share, and the passes of one; shapes are never square."""

import numpy as np

import convnet
from convnet import reference

# name: (shape of x, shape of weight, options)
CONV = {
    "plain": ((2, 3, 11, 7), (5, 3, 3, 2), {}),
    "strides": ((2, 3, 13, 17), (5, 3, 3, 4), {"stride": (2, 3)}),
    "stride beyond kernel": ((2, 3, 13, 17), (5, 3, 1, 2), {"stride": (3, 5)}),
    "padding": ((2, 3, 7, 5), (4, 3, 3, 5), {"padding": (1, 2)}),
    "four paddings": ((2, 3, 7, 5), (4, 3, 3, 2), {"padding": ((1, 0), (2, 3))}),
    "padding beyond kernel": ((1, 2, 5, 3), (3, 2, 2, 3), {"padding": (7, 4)}),
    "kernel beyond image": ((2, 3, 3, 2), (5, 3, 5, 7), {"padding": (1, 3)}),
    "one pixel": ((3, 5, 7, 11), (2, 5, 1, 1), {}),
    "one pixel, one image": ((1, 131, 7, 11), (67, 131, 1, 1), {}),
    "one pixel, every other column": ((3, 19, 8, 5), (9, 19, 1, 1), {"stride": (1, 2)}),
    "one pixel, every other": ((2, 17, 13, 75), (11, 17, 1, 1), {"stride": (3, 2)}),
    # Planes by planes: tiles of all widths, more channels than are held at once.
    "one pixel, few channels": ((3, 11, 37, 41), (6, 11, 1, 1), {}),
    "one pixel, three channels": ((1, 3, 7, 11), (9, 3, 1, 1), {}),
    "one pixel, some channels": ((2, 29, 37, 41), (13, 29, 1, 1), {}),
    "one pixel, more channels": ((2, 23, 19, 23), (37, 23, 1, 1), {}),
    "one pixel, few a group": ((2, 21, 29, 31), (33, 7, 1, 1), {"groups": 3}),
    # Gradients for whose weights there are few pixels: chunk by chunk, in order.
    "one pixel, many weights": ((1, 281, 5, 7), (521, 281, 1, 1), {}),
    "one pixel, many channels": ((3, 86, 13, 11), (38, 43, 1, 1), {"groups": 2}),
    "one pixel, strided in padding": (
        (9, 40, 4, 6),
        (17, 40, 1, 1),
        {"stride": 2, "padding": (2, 3)},
    ),
    "one column, strided": ((2, 3, 8, 1), (5, 3, 2, 1), {"stride": 3}),
    "one output": ((3, 2, 7, 5), (4, 2, 7, 5), {}),
    "valid": ((2, 3, 11, 7), (5, 3, 4, 2), {"padding": "valid", "stride": (3, 2)}),
    "same": ((2, 3, 11, 7), (5, 3, 4, 2), {"padding": "same"}),
    "same strided": ((2, 3, 11, 8), (5, 3, 4, 3), {"padding": "same", "stride": 3}),
    "same_lower": ((2, 3, 11, 7), (5, 3, 4, 2), {"padding": "same_lower"}),
    "full": ((2, 3, 5, 7), (4, 3, 3, 2), {"padding": "full", "dilation": (1, 3)}),
    "dilations": ((2, 3, 13, 11), (5, 3, 3, 2), {"dilation": (2, 5)}),
    "far taps": ((2, 3, 13, 11), (5, 3, 3, 2), {"dilation": 9, "padding": (8, 3)}),
    "far taps, narrow": ((3, 2, 61, 3), (5, 2, 2, 3), {"dilation": (29, 1)}),
    "few channels, strided": ((2, 3, 21, 95), (7, 3, 5, 4), {"stride": (2, 3)}),
    "patches": ((1, 3, 11, 127), (5, 3, 4, 4), {"stride": 4}),
    "everything": (
        (3, 4, 17, 13),
        (6, 2, 3, 5),
        {
            "stride": (3, 2),
            "padding": ((2, 5), (4, 1)),
            "dilation": (3, 2),
            "groups": 2,
        },
    ),
    "groups": ((2, 6, 7, 11), (9, 2, 3, 2), {"groups": 3, "padding": 1}),
    "depthwise": ((2, 7, 11, 5), (7, 1, 3, 5), {"groups": 7, "padding": (1, 2)}),
    "depthwise, more out": ((2, 5, 11, 7), (10, 1, 3, 2), {"groups": 5}),
    # Beyond the sizes of register tiles and blocks in every direction.
    "many filters": ((1, 5, 11, 13), (103, 5, 3, 2), {}),
    "many channels": ((1, 211, 5, 7), (3, 211, 2, 3), {"padding": 1}),
    "many pixels": ((1, 2, 41, 67), (3, 2, 3, 5), {"padding": (1, 2)}),
    "many images": ((29, 2, 5, 3), (3, 2, 2, 3), {"padding": 1}),
    "many taps": ((1, 1, 37, 31), (2, 1, 29, 23), {}),
    # Chunks, slices and panels of what is packed: several of each, none of them full.
    "many channels, one tap": ((2, 421, 17, 5), (1, 421, 1, 1), {"stride": (2, 3)}),
    "many weights": ((1, 331, 7, 5), (227, 331, 3, 3), {"padding": 1}),
    "many columns": ((3, 37, 13, 3), (11, 37, 3, 5), {"padding": (1, 2)}),
    "narrow rows": ((3, 5, 11, 14), (41, 5, 4, 5), {}),
    "some filters": ((2, 7, 9, 93), (13, 7, 3, 3), {"padding": 1}),
    # By runs of pixels: of all lengths, rows that end one, chunks, two vectors of rows.
    "runs of five": ((3, 5, 11, 14), (13, 5, 4, 5), {}),
    "runs of six, groups": (
        (2, 22, 9, 12),
        (32, 11, 3, 3),
        {"groups": 2, "padding": 1},
    ),
    "runs of seven": ((2, 131, 5, 14), (15, 131, 3, 2), {"padding": (1, 0)}),
    "runs of eight, strided": ((2, 17, 13, 35), (27, 17, 3, 5), {"stride": 2}),
    "runs of four": ((2, 17, 13, 6), (16, 17, 3, 3), {}),
    "every other pixel": ((1, 11, 13, 89), (19, 11, 3, 3), {"stride": 2, "padding": 1}),
}

# name: (shape of x, kernel_size, options of max and average pooling)
POOL = {
    "plain": ((2, 3, 11, 7), (3, 2), {}),
    "overlapping": ((2, 3, 11, 7), (3, 5), {"stride": (2, 1)}),
    "gaps": ((2, 3, 11, 17), (2, 3), {"stride": (3, 5)}),
    "padding": ((2, 3, 7, 5), (3, 4), {"stride": 2, "padding": (1, 2)}),
    "widest padding": ((2, 3, 5, 7), (4, 3), {"stride": (1, 2), "padding": "full"}),
    "four paddings": ((2, 3, 7, 5), (3, 4), {"padding": ((2, 0), (1, 3))}),
    "same": ((2, 3, 11, 8), (4, 3), {"stride": (3, 2), "padding": "same"}),
    "same_lower": ((2, 3, 11, 8), (4, 3), {"stride": 1, "padding": "same_lower"}),
    "ceil": ((2, 3, 11, 8), (3, 2), {"stride": (4, 3), "ceil_mode": True}),
    "ceil beyond padding": (
        (2, 3, 6, 7),
        (3, 4),
        {"stride": (2, 3), "padding": (1, 2), "ceil_mode": True},
    ),
    "ceil, smaller than kernel": (
        (1, 2, 2, 3),
        (3, 5),
        {"stride": (2, 3), "ceil_mode": True},
    ),
    "one pixel": ((2, 3, 5, 7), 1, {"stride": (2, 3)}),
    "whole image": ((2, 3, 5, 7), (5, 7), {}),
    "many pixels": ((1, 2, 61, 67), (3, 2), {"stride": (2, 1), "padding": (1, 0)}),
}
LAYOUTS = "NCHW", "NHWC"
DTYPES = np.float32, np.float64


def to_layout(images, layout):
    """Return NCHW images, one or a batch, as a contiguous array in a layout."""
    if layout == "NHWC":
        images = np.moveaxis(images, -3, -1)
    return np.ascontiguousarray(images)


def from_layout(images, layout):
    """Undo `to_layout`."""
    return np.moveaxis(images, -1, -3) if layout == "NHWC" else images


def shape_in(shape, layout):
    """Return the shape in a layout of images with a shape in NCHW."""
    *N, C, H, W = shape
    return (*N, H, W, C) if layout == "NHWC" else tuple(shape)


def operands(rng, x_shape, w_shape, options, dtype=np.float32):
    """Return x, weight and grad_y of a convolution: standard normal numbers."""
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape))
    y = reference.conv2d(x, w, **options)
    return x, w, rng.standard_normal(y.shape).astype(dtype)


def direct_passes(x, w, grad_y, options, layout="NCHW", **how):
    """Return all three passes of the same convolution by direct sums, in NCHW."""
    how = {**options, **how, "layout": layout, "algorithm": "direct"}
    x, grad_y = to_layout(x, layout), to_layout(grad_y, layout)
    return (
        from_layout(convnet.conv2d(x, w, **how), layout),
        from_layout(convnet.conv2d_grad_input(grad_y, w, x.shape, **how), layout),
        convnet.conv2d_grad_weight(grad_y, x, w.shape, **how),
    )


def exact_passes(x, w, grad_y, options):
    """Return what `direct_passes` should, in doubles."""
    x, w, grad_y = (array.astype(np.float64) for array in (x, w, grad_y))
    return (
        reference.conv2d(x, w, **options),
        reference.conv2d_grad_input(grad_y, w, x.shape, **options),
        reference.conv2d_grad_weight(grad_y, x, w.shape, **options),
    )
