# SPDX-License-Identifier: MIT
"""Losses: values by the plain formula, gradients, extremes, accuracies."""

import math

import numpy as np
import pytest
from tolerance import tolerance

from convnet import nn
from convnet.testing import gradcheck

rng = np.random.default_rng(3)
LOGITS = rng.standard_normal((5, 3))
PROBABILITIES = rng.uniform(0.05, 0.95, (5, 3))
TARGETS = rng.uniform(0, 1, (5, 3))
CLASSES = np.array([2, 0, 1, 1, 2])

CASES = {
    "mse": (nn.MSELoss, LOGITS, TARGETS),
    "bce": (nn.BCELoss, PROBABILITIES, TARGETS),
    "bce_with_logits": (nn.BCEWithLogitsLoss, LOGITS, TARGETS),
    "cross_entropy": (nn.CrossEntropyLoss, LOGITS, CLASSES),
    "cross_entropy_one_sample": (nn.CrossEntropyLoss, LOGITS[0], CLASSES[0]),
}


@pytest.fixture(params=CASES)
def case(request):
    make, pred, target = CASES[request.param]
    return make(), pred, target


def test_gradients_match_differences(case):
    loss, pred, target = case
    report = gradcheck(
        lambda p: loss(p, target), pred, lambda grad_y: grad_y * loss.backward()
    )
    assert report.ok, str(report)


def test_losses_are_floats_and_gradients_keep_the_precision(case):
    loss, pred, target = case
    for dtype in (np.float32, np.float64):
        assert type(loss(pred.astype(dtype), target)) is float
        assert loss.backward().dtype == dtype
        assert loss.backward().shape == pred.shape


def test_backward_needs_a_forward(case):
    with pytest.raises(RuntimeError, match=f"{type(case[0]).__name__}.*forward"):
        case[0].backward()


def test_inputs_stay_as_they_are(case):
    loss, pred, target = case
    before = pred.copy(), target.copy()
    loss(pred, target)
    loss.backward()
    np.testing.assert_array_equal(pred, before[0])
    np.testing.assert_array_equal(target, before[1])


def test_values_by_the_formulas():
    softmax = [
        math.exp(row[right]) / sum(math.exp(z) for z in row)
        for row, right in zip(LOGITS, CLASSES, strict=True)
    ]
    pairs = list(zip(PROBABILITIES.flat, TARGETS.flat, strict=True))
    bce = -np.mean([t * math.log(p) + (1 - t) * math.log(1 - p) for p, t in pairs])
    logits = np.log(PROBABILITIES / (1 - PROBABILITIES))
    atol = tolerance(np.float64, 15)
    assert abs(nn.MSELoss()(LOGITS, TARGETS) - ((LOGITS - TARGETS) ** 2).mean()) < atol
    assert abs(nn.BCELoss()(PROBABILITIES, TARGETS) - bce) < atol
    assert abs(nn.BCEWithLogitsLoss()(logits, TARGETS) - bce) < atol
    want = -np.mean([math.log(p) for p in softmax])
    assert abs(nn.CrossEntropyLoss()(LOGITS, CLASSES) - want) < atol


def test_extremes_stay_finite():
    with np.errstate(all="raise", under="ignore"):
        cross_entropy = nn.CrossEntropyLoss()
        assert cross_entropy(np.array([[1e4, 0.0, -1e4]], np.float32), [2]) == 2e4
        np.testing.assert_array_equal(cross_entropy.backward(), [[1, 0, -1]])
        logits = nn.BCEWithLogitsLoss()
        assert logits(np.array([1e4, -1e4], np.float32), [0, 1]) == 1e4
        np.testing.assert_array_equal(logits.backward(), [0.5, -0.5])
        bce = nn.BCELoss()
        assert bce(np.array([0.0, 1.0, 1.0], np.float32), [1, 0, 1]) == 200 / 3
        assert np.isfinite(bce.backward()).all()


def test_accuracy():
    assert nn.CrossEntropyLoss().accuracy([[3, 1, 2], [0, 1, 5]], [0, 1]) == 0.5
    assert nn.CrossEntropyLoss().accuracy([3, 1, 2], 0) == 1
    assert nn.BCELoss().accuracy([[0.4], [0.6], [0.7]], [[0], [1], [0]]) == 2 / 3
    assert nn.BCEWithLogitsLoss().accuracy([0.4, -0.6, 0.7], [1, 0, 0]) == 2 / 3
    assert nn.BCELoss().accuracy([0.4, 0.6], [0.5, 1]) is None
    assert nn.MSELoss().accuracy([0.4, 0.6], [0, 1]) is None


@pytest.mark.parametrize(
    ("loss", "pred", "target", "error", "message"),
    [
        (nn.MSELoss(), np.ones((5, 1)), np.ones(5), ValueError, r"\(5, 1\).*\(5,\)"),
        (nn.MSELoss(), np.ones((0, 3)), np.ones((0, 3)), ValueError, r"\(0, 3\)"),
        (nn.MSELoss(), np.ones(3, complex), np.ones(3), TypeError, "complex128"),
        (nn.BCELoss(), [0.5, 1.5], [0, 1], ValueError, r"0\.5 to 1\.5"),
        (nn.BCELoss(), [0.5, np.nan], [0, 1], ValueError, "nan"),
        (nn.BCELoss(), [0.5, 0.5], [-1, 1], ValueError, "-1.* 1"),
        (nn.BCEWithLogitsLoss(), [0.5, 9], [0, 2], ValueError, "0.* 2"),
        (nn.CrossEntropyLoss(), LOGITS, CLASSES + 1, ValueError, "0 to 2.*1 to 3"),
        (nn.CrossEntropyLoss(), LOGITS, CLASSES - 1, ValueError, "-1 to 1"),
        (nn.CrossEntropyLoss(), LOGITS, CLASSES * 1.0, TypeError, "float64"),
        (nn.CrossEntropyLoss(), LOGITS, CLASSES[:4], ValueError, r"\(4,\)"),
        (nn.CrossEntropyLoss(), np.ones((0, 3)), CLASSES[:0], ValueError, r"\(0, 3\)"),
    ],
)
def test_wrong_arguments(loss, pred, target, error, message):
    with pytest.raises(error, match=message):
        loss(pred, target)
