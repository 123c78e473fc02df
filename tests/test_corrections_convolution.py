# SPDX-License-Identifier: MIT
"""Corrections 1 to 16 of docs/mathematics.md: convolution and its gradients.

A test computes what the source wrote and what the page puts in its place, and lets a
judge that uses neither decide: differences, SciPy, or plain loops over the indices.
"""

import ast

import numpy as np
import pytest
from exact import central_difference, whole
from numpy.testing import assert_array_equal
from scipy.signal import convolve2d, correlate2d

import convnet as cn

X = np.array([[1.0, 6.0, 2.0], [5.0, 3.0, 1.0], [7.0, 0.0, 4.0]])
K = np.array([[1.0, 2.0], [-1.0, 0.0]])
W = np.arange(1.0, 10.0).reshape(3, 3)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def correlate_by_index(image, kernel, shift, shape):
    """Return ``sum image[i + a - shift, j + b - shift] * kernel[a, b]``, 0 outside."""
    y = np.zeros(shape)
    for i, j, a, b in np.ndindex(*shape, *kernel.shape):
        row, column = i + a - shift[0], j + b - shift[1]
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            y[i, j] += image[row, column] * kernel[a, b]
    return y


def grad_to_input(forward, x, g):
    return central_difference(lambda x: (forward(x) * g).sum(), x)


def test_correction_1_numbers_of_the_first_window():
    only_y11 = np.array([[1.0, 0.0], [0.0, 0.0]])
    window = central_difference(
        lambda k: (correlate2d(X, k, mode="valid") * only_y11).sum(), K
    )
    assert_array_equal(window, [[1, 6], [5, 3]])
    grad_w = cn.conv2d_grad_weight(only_y11[None], X[None], (1, 1, 2, 2))
    assert_array_equal(grad_w[0, 0], window)


@pytest.mark.parametrize(("size", "kernel"), [(3, 2), (7, 4), (5, 5), (11, 1)])
def test_correction_2_output_size(size, kernel):
    y = cn.conv2d(np.ones((1, size, 13)), np.ones((1, 1, kernel, 3)))
    judge = correlate2d(np.ones((size, 13)), np.ones((kernel, 3)), mode="valid")
    assert y.shape[1:] == judge.shape == (size - kernel + 1, 13 - 3 + 1)
    assert judge.shape[0] != size - (kernel + 1)


def test_correction_3_upper_limits_are_not_counted_in(rng):
    x, weight = whole(rng, 2, 7, 5), whole(rng, 1, 2, 3, 4)
    limits = np.array(weight.shape[1:])

    def by_index(upper):
        terms = np.ndindex(*(upper + 1))  # sums from 0 to `upper`, counted in
        return sum(x[d, 1 + a, 1 + b] * weight[0, d, a, b] for d, a, b in terms)

    assert cn.conv2d(x, weight)[0, 1, 1] == by_index(limits - 1)
    for axis in np.eye(3, dtype=int):
        with pytest.raises(IndexError, match="out of bounds"):
            by_index(limits - 1 + axis)


@pytest.mark.parametrize("shape", [(3, 5), (4, 3), (3, 2), (2, 4)])
def test_correction_4_centre_of_each_axis(rng, shape):
    x, kernel = whole(rng, 7, 9), whole(rng, *shape)
    centre = shape[0] // 2, shape[1] // 2
    expected = correlate_by_index(x, kernel, centre, x.shape)
    y = cn.conv2d(x[None], kernel[None, None], padding="same_lower")[0]
    assert_array_equal(y, expected)
    one_for_both = correlate_by_index(x, kernel, (centre[0], centre[0]), x.shape)
    assert np.array_equal(y, one_for_both) == (centre[0] == centre[1])


def test_correction_4_no_single_padding_fits_an_even_kernel():
    x, weight = np.ones((1, 7, 5)), np.ones((1, 1, 4, 4))
    heights = [cn.conv2d(x, weight, padding=p).shape[1] for p in range(4)]
    assert heights == [4, 6, 8, 10]


@pytest.mark.parametrize("p", [1, 2])
def test_correction_5_the_shift_is_applied_once(rng, p):
    x, kernel = whole(rng, 11, 7), whole(rng, 2 * p + 1, 2 * p + 1)
    padded = np.pad(x, p)
    y = cn.conv2d(x[None], kernel[None, None], padding=p)[0]
    assert_array_equal(y, correlate_by_index(padded, kernel, (0, 0), x.shape))
    assert_array_equal(y, correlate_by_index(x, kernel, (p, p), x.shape))
    twice = correlate_by_index(padded, kernel, (p, p), x.shape)
    assert_array_equal(twice[p:, p:], y[:-p, :-p])
    assert not np.array_equal(twice, y)


def test_correction_6_the_article_correlates(rng):
    x = whole(rng, 2, 2)
    article = [[(W[i : i + 2, j : j + 2] * x).sum() for j in (0, 1)] for i in (0, 1)]
    assert_array_equal(cn.signal.correlate2d(W, x, mode="valid"), article)
    assert not np.array_equal(cn.signal.convolve2d(W, x, mode="valid"), article)
    # The integral for sequences: (f * g)[t] = sum of f[s] g[t - s].
    f, g = whole(rng, 7), whole(rng, 3)
    integral = [sum(f[s] * g[t - s] for s in range(t - 2, t + 1)) for t in range(2, 7)]
    convolved = cn.signal.convolve2d(f[None], g[None], mode="valid")[0]
    assert_array_equal(convolved, integral)


def test_correction_7_bias_and_filter_of_the_output_channel(rng):
    image, weight, bias = whole(rng, 3, 5, 2), whole(rng, 7, 2, 3, 3), whole(rng, 7)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    filters = weight.transpose(0, 2, 3, 1)  # W[k][x, y, d]

    def entry(i, j, which):
        return bias[which] + (filters[which] * padded[i : i + 3, j : j + 3]).sum()

    y = cn.conv2d(image, weight, bias, padding=1, layout="NHWC")
    places = list(np.ndindex(y.shape))
    assert all(y[i, j, k] == entry(i, j, k) for i, j, k in places)
    assert not all(y[i, j, k] == entry(i, j, i) for i, j, k in places)


def test_correction_8_only_the_second_factor_is_x():
    def y(k):
        return correlate2d(X, k, mode="valid").ravel()

    dy_dk11 = [central_difference(lambda k, i=i: y(k)[i], K)[0, 0] for i in range(4)]
    assert_array_equal(dy_dk11, [X[0, 0], X[0, 1], X[1, 0], X[1, 1]])
    products = np.array([1, 2, 3, 4]) * dy_dk11
    assert_array_equal(products, [1, 12, 15, 12])
    g = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    grad_w = cn.conv2d_grad_weight(g, X[None], (1, 1, 2, 2))
    assert grad_w[0, 0, 0, 0] == products.sum() == 40


def test_correction_9_full_convolution_not_correlation(rng):
    g = whole(rng, 2, 2)
    by_x = grad_to_input(lambda x: correlate2d(x, K, mode="valid"), X, g)
    assert_array_equal(cn.signal.convolve2d(g, K, mode="full"), by_x)
    turned = np.rot90(K, 2)
    assert_array_equal(cn.signal.correlate2d(g, turned, mode="full"), by_x)
    assert not np.array_equal(cn.signal.correlate2d(g, K, mode="full"), by_x)


def input_gradient_of_layer(rng, OC, IC):
    """Return grad_x by differences, by convnet, and as a sum over the outputs i < n."""
    x, weight, g = whole(rng, IC, 7, 5), whole(rng, OC, IC, 3, 2), whole(rng, OC, 5, 4)
    by_x = grad_to_input(lambda x: cn.conv2d(x, weight), x, g)

    def sum_to(n):
        pairs = [(g[i], weight[i]) for i in range(n)]
        return sum(np.stack([convolve2d(gi, k) for k in ki]) for gi, ki in pairs)

    return by_x, cn.conv2d_grad_input(g, weight, x.shape), sum_to


def test_correction_10_the_sum_runs_over_the_outputs(rng):
    d, n = 5, 3
    by_x, grad_x, sum_to = input_gradient_of_layer(rng, OC=d, IC=n)
    assert_array_equal(grad_x, by_x)
    assert_array_equal(sum_to(d), by_x)
    assert not np.array_equal(sum_to(n), by_x)


def test_correction_11_the_sum_over_outputs_stays(rng):
    by_x, grad_x, sum_to = input_gradient_of_layer(rng, OC=2, IC=3)
    assert_array_equal(grad_x, by_x)
    assert_array_equal(sum_to(2), by_x)
    assert not np.array_equal(sum_to(1), by_x)


def test_correction_12_the_kernel_turns_by_180_degrees(rng):
    g, kernel = whole(rng, 7, 5), whole(rng, 3, 3)
    x = np.zeros_like(g)
    by_x = grad_to_input(lambda x: correlate2d(x, kernel, mode="same"), x, g)
    grad_x = cn.conv2d_grad_input(g[None], kernel[None, None], (1, 7, 5), padding=1)[0]
    assert_array_equal(grad_x, by_x)
    turns = [correlate2d(g, np.rot90(kernel, turn), mode="same") for turn in range(4)]
    right = [np.array_equal(turn, by_x) for turn in turns]
    assert right == [False, False, True, False]


@pytest.mark.parametrize("shape", [(3, 5), (4, 3), (2, 6)])
def test_correction_13_one_sign_three_operations(rng, shape):
    x, kernel, g = whole(rng, 7, 9), whole(rng, *shape), whole(rng, 7, 9)
    KH, KW = shape
    centre = KH // 2, KW // 2
    turned_centre = KH - 1 - centre[0], KW - 1 - centre[1]

    def forward(x, kernel):
        return correlate_by_index(x, kernel, centre, x.shape)

    by_x = grad_to_input(lambda x: forward(x, kernel), x, g)
    by_kernel = grad_to_input(lambda kernel: forward(x, kernel), kernel, g)
    turned = kernel[::-1, ::-1]
    assert_array_equal(correlate_by_index(g, turned, turned_centre, x.shape), by_x)
    assert_array_equal(correlate_by_index(x, g, centre, shape), by_kernel)
    same_centre = correlate_by_index(g, turned, centre, x.shape)
    assert np.array_equal(same_centre, by_x) == (KH % 2 == KW % 2 == 1)

    images, weight, grads = x[None], kernel[None, None], g[None]
    same = {"padding": "same_lower"}
    grad_x = cn.conv2d_grad_input(grads, weight, images.shape, **same)
    grad_w = cn.conv2d_grad_weight(grads, images, weight.shape, **same)
    assert_array_equal(grad_x[0], by_x)
    assert_array_equal(grad_w[0, 0], by_kernel)


def test_correction_14_sixteen_derivatives(rng):
    def y(x):
        return cn.signal.correlate2d(W, x, mode="valid").ravel()

    x = whole(rng, 2, 2)
    jacobian = [central_difference(lambda x, i=i: y(x)[i], x) for i in range(4)]
    w = np.pad(W, ((1, 0), (1, 0)))  # so that w[1, 1] is the first entry
    assert_array_equal(
        np.reshape(jacobian, (4, 4)).T,
        [
            [w[1, 1], w[1, 2], w[2, 1], w[2, 2]],  # to x11, of y11, y12, y21, y22
            [w[1, 2], w[1, 3], w[2, 2], w[2, 3]],  # to x12
            [w[2, 1], w[2, 2], w[3, 1], w[3, 2]],  # to x21
            [w[2, 2], w[2, 3], w[3, 2], w[3, 3]],  # to x22, which the article calls x12
        ],
    )


def test_correction_15_padding_is_the_window_less_one(rng):
    x, g = whole(rng, 2, 2), whole(rng, 2, 2)
    by_w = grad_to_input(lambda w: correlate2d(w, x, mode="valid"), W, g)
    flipped = x[::-1, ::-1]
    by_window = cn.signal.correlate2d(np.pad(g, len(x) - 1), flipped, mode="valid")
    by_matrix = cn.signal.correlate2d(np.pad(g, len(W) - 1), flipped, mode="valid")
    assert_array_equal(by_window, by_w)
    assert by_matrix.shape == (5, 5) != W.shape


def test_correction_16_mode_is_a_keyword(rng):
    with pytest.raises(SyntaxError):
        ast.parse('correlate2d(x, g, mode: "valid")')
    ast.parse('correlate2d(x, g, mode="valid")')
    x, weight, g = whole(rng, 2, 7, 5), whole(rng, 3, 2, 3, 2), whole(rng, 3, 5, 4)
    grad_w, grad_x = np.zeros(weight.shape), np.zeros(x.shape)
    for i, j in np.ndindex(3, 2):
        grad_w[i, j] = correlate2d(x[j], g[i], mode="valid")
        grad_x[j] += convolve2d(g[i], weight[i, j], mode="full")
    assert_array_equal(cn.conv2d_grad_weight(g, x, weight.shape), grad_w)
    assert_array_equal(cn.conv2d_grad_input(g, weight, x.shape), grad_x)
