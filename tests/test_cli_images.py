# SPDX-License-Identifier: MIT
"""Images of users take the form of the training images, and those are varied."""

import numpy as np
import pytest
from scipy import ndimage
from tolerance import tolerance

from convnet.cli import augment
from convnet.cli.images import read_digits
from convnet.data import load_digits


@pytest.fixture
def read(tmp_path):
    """Return a function of an array: what `convnet predict` makes of its file."""

    def save_and_read(array):
        np.save(tmp_path / "image.npy", array)
        return read_digits(tmp_path / "image.npy")

    return save_and_read


@pytest.fixture
def seven():
    """Return a 7 of 23 by 17 pixels, ink 1 on paper 0."""
    image = np.zeros((23, 17))
    image[:3] = 1
    for row in range(23):
        image[row, 14 - row // 2 : 17 - row // 2] = 1
    return image


def test_images_differ_neither_by_margin_nor_size_nor_colour(read, seven):
    expected = read(np.pad(seven, 1))
    assert expected.shape == (1, 1, 8, 8)
    assert expected.max() == 1
    assert expected[0, 0, 0].min() < 0.5 < expected[0, 0, 0].max()
    wide = np.pad(seven, ((2, 5), (13, 3)))
    colours = np.stack([wide, wide, wide], axis=-1)
    alpha = np.stack([0 * wide, 0 * wide, 0 * wide, wide], axis=-1)
    for same in (
        wide,
        1 - wide,
        200 - 130 * wide,
        np.kron(wide, np.ones((3, 3))),
        (255 * (1 - wide)).astype(np.uint8)[np.newaxis, np.newaxis],
        colours,
        (255 * (1 - colours)).astype(np.uint8),
        alpha,
    ):
        np.testing.assert_allclose(read(same), expected, rtol=0, atol=1e-6)


def test_small_images_keep_every_pixel(read):
    ink = load_digits().test[0][5]
    same = (ink, ink * 16, (ink * 255).astype(np.float32), 1 - ink, 16 * (1 - ink[0]))
    for image in same:
        np.testing.assert_allclose(read(image)[0], ink, rtol=0, atol=1e-6)


def test_variations_are_repeatable_and_keep_the_originals(rng):
    x = rng.random((13, 1, 7, 11)).astype(np.float32)
    before = x.copy()
    varied, labels = augment.with_variations(
        x, np.arange(13), 2, np.random.default_rng(5)
    )
    again, _ = augment.with_variations(x, np.arange(13), 2, np.random.default_rng(5))
    assert np.array_equal(x, before)
    assert np.array_equal(varied, again)
    assert np.array_equal(varied[:13], x)
    assert np.array_equal(labels, np.tile(np.arange(13), 3))
    assert varied.dtype == x.dtype
    assert 0 <= varied.min() <= varied.max() <= 1
    assert not np.array_equal(varied[13:26], varied[26:])


@pytest.mark.parametrize(("angle", "shift"), [(0, 0), (15, 0), (-9, 0.25), (90, 3)])
def test_variation_is_what_scipy_interpolates(rng, monkeypatch, angle, shift):
    class Fixed:
        def uniform(self, low, high, size):
            return np.full(size, high)

    monkeypatch.setattr(augment, "ANGLE", angle)
    monkeypatch.setattr(augment, "SHIFT", shift)
    x = rng.random((3, 1, 7, 11))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])
    centre = np.array([3.0, 5.0])
    expected = [
        ndimage.affine_transform(
            image, turn, centre + shift - turn @ centre, order=1, mode="grid-constant"
        )
        for image in x[:, 0]
    ]
    atol = tolerance(x.dtype, 4)
    np.testing.assert_allclose(
        augment.vary(x, Fixed())[:, 0], expected, rtol=0, atol=atol
    )
