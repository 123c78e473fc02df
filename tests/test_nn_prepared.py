# SPDX-License-Identifier: MIT
"""Prepared networks: the same numbers from a snapshot that nothing can change."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from tolerance import tolerance

from convnet import nn


def conv_norm_relu(layout, bias):
    rng = np.random.default_rng(0)
    size = {"input_size": (11, 7)} if bias == "untied" else {}
    conv = nn.Conv2d(3, 5, (3, 2), bias=bias, layout=layout, rng=rng, **size)
    norm = nn.BatchNorm2d(5, layout=layout)
    norm.weight.value = rng.standard_normal(5).astype(np.float32)
    norm.bias.value = rng.standard_normal(5).astype(np.float32)
    return nn.Sequential(conv, norm, nn.ReLU())


def residual_net():
    rng = np.random.default_rng(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 5, (3, 2), rng=rng), nn.Dropout(0.5)),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Residual(
            nn.Sequential(nn.Conv2d(5, 5, 1, rng=rng), nn.BatchNorm2d(5), nn.ReLU()),
            nn.Sequential(nn.BatchNorm2d(5)),
        ),
        nn.ReLU(),
        nn.MaxPool2d((2, 3)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 4 * 2, 13, rng=rng),
        nn.ReLU(),
        nn.Linear(13, 2, rng=rng),
        nn.Softmax(),
    )


NETS = {
    "residual": residual_net,
    "conv_norm_relu": lambda: conv_norm_relu("NCHW", True),
    "no_bias": lambda: conv_norm_relu("NCHW", False),
    "untied": lambda: conv_norm_relu("NCHW", "untied"),
    "nhwc": lambda: conv_norm_relu("NHWC", True),
    "nhwc_untied": lambda: conv_norm_relu("NHWC", "untied"),
    "separable": lambda: nn.Sequential(
        nn.SeparableConv2d(3, 5, (3, 2), rng=0), nn.BatchNorm2d(5)
    ),
    "activation_first": lambda: nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Tanh()),
    "nothing": lambda: nn.Sequential(nn.Dropout(0.5)),
    "one_layer": lambda: nn.Conv2d(3, 5, (3, 2), rng=0),
}


@pytest.fixture(params=NETS)
def net(request):
    """Return a network whose averages have seen two batches."""
    net = NETS[request.param]()
    for seed in (1, 2):
        net(images(request.param, seed))
    return net


@pytest.fixture
def x(request):
    name = request.node.callspec.params["net"]
    return images(name, 3)


def images(name, seed):
    shape = (4, 11, 7, 3) if name.startswith("nhwc") else (4, 3, 11, 7)
    x = np.random.default_rng(seed).standard_normal(shape) + 0.25
    return x.astype(np.float32)


# Each meets images whose plans want its weights in other orders: folds of transformed
# filters, chunks of channels that a slab holds, panels or turned taps.
@pytest.mark.parametrize(
    ("IC", "OC", "kernel", "stride"),
    [
        (16, 16, 3, 1),
        (64, 72, 3, 1),
        (256, 64, 3, 1),
        (4, 34, 7, 1),
        (24, 16, 5, 2),
        (64, 6, 7, 1),
        (40, 24, 3, 1),
        (96, 40, 1, 1),
    ],
)
def test_a_prepared_layer_takes_images_of_all_sizes(isa, IC, OC, kernel, stride):
    conv = nn.Conv2d(IC, OC, kernel, stride=stride, padding=kernel // 2, rng=0)
    predict = conv.prepare()
    rng = np.random.default_rng(0)
    for N, H, W in [(1, 28, 28), (1, 7, 5), (2, 8, 101), (1, 14, 14), (3, 57, 8)]:
        x = rng.standard_normal((N, IC, H, W), np.float32)
        # The same algorithm: the model knows whether weights are prepared.
        wanted = conv.prepare()(x)
        np.testing.assert_array_equal(predict(x), wanted)


def test_outputs_are_those_of_eval_mode(net, x):
    before = x.copy()
    prepared = net.prepare()
    want = net.eval()(x)
    atol = tolerance(np.float32, 40, float(np.abs(want).max()) + 1)
    np.testing.assert_allclose(prepared(x), want, rtol=0, atol=atol)
    np.testing.assert_allclose(prepared(x[0]), want[0], rtol=0, atol=atol)
    np.testing.assert_array_equal(x, before)


def test_preparing_changes_nothing_in_the_module(net, x):
    state, grads = net.state_dict(), [p.grad for p in net.parameters()]
    net.prepare()(x)
    assert net.training
    assert all(p.grad is g for p, g in zip(net.parameters(), grads, strict=True))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_a_snapshot_stays_as_it_is(net, x):
    prepared = net.prepare()
    before = prepared(x).copy()
    for array in net._state().values():
        array += 1
    np.testing.assert_array_equal(prepared(x), before)
    with pytest.raises(AttributeError):
        prepared.weight = 1
    with pytest.raises(AttributeError):
        prepared._network = net
    for array in prepared._network._state().values():
        assert not array.flags.writeable
    assert not hasattr(prepared, "backward")


def test_copies_give_the_same_bits(net, x):
    prepared = net.prepare()
    file = io.BytesIO()
    joblib.dump(prepared, file)
    file.seek(0)
    for twin in (copy.deepcopy(prepared), joblib.load(file)):
        np.testing.assert_array_equal(twin(x), prepared(x))
        for array in twin._network._state().values():
            assert not array.flags.writeable


def test_many_threads_may_call_it():
    prepared = residual_net().prepare()
    inputs = [images("residual", seed) for seed in range(12)]
    alone = [prepared(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for y, want in zip(pool.map(prepared, inputs), alone, strict=True):
                np.testing.assert_array_equal(y, want)


def test_batch_norm_and_relu_vanish_into_the_convolution():
    network = residual_net().prepare()._network
    kinds = [type(layer).__name__ for layer in network]
    assert kinds == [
        "PreparedConv2d",
        "Residual",
        "OverwritingReLU",
        "MaxPool2d",
        "ReLU",
        "Flatten",
        "PreparedLinear",
        "PreparedLinear",
        "Softmax",
    ]
    assert [type(m).__name__ for m in network[1].body] == ["PreparedConv2d"]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 2), (2, 3)])
@pytest.mark.parametrize("C", [37, 13])
def test_residual_and_relu_are_fused(isa, layout, dtype, kernel, C):
    # Wide enough for Winograd's algorithm, for runs of pixels, and for several chunks.
    rng = np.random.default_rng(0)
    how = {"padding": "same", "layout": layout, "dtype": dtype, "rng": rng}
    body = nn.Sequential(nn.Conv2d(C, 111, 1, **how), nn.Conv2d(111, C, kernel, **how))
    shape = (2, C, 19, 29) if layout == "NCHW" else (2, 19, 29, C)
    x = rng.standard_normal(shape).astype(dtype)
    for shortcut in None, nn.Conv2d(C, C, 1, **how):
        net = nn.Sequential(nn.Residual(body, shortcut), nn.ReLU())
        prepared = net.prepare()
        assert len(prepared._network) == 1
        want = net.eval()(x)
        assert (want == 0).any()
        atol = tolerance(dtype, 111 * 9, 20)
        for _ in range(2):
            np.testing.assert_allclose(prepared(x), want, rtol=0, atol=atol)


def test_nan_passes_a_fused_relu():
    x = np.zeros((1, 3, 7, 5), np.float32)
    x[0, 1, 2, 3] = np.nan
    y = nn.Sequential(nn.Conv2d(3, 4, 1, rng=0), nn.ReLU()).prepare()(x)
    assert np.isnan(y[0, :, 2, 3]).all()
    assert np.isnan(y).sum() == 4


def test_weights_are_packed_once():
    prepared = nn.Conv2d(16, 24, 3, rng=0).prepare()
    packings = prepared._network._extras.packings
    sizes = [(1, 30, 41), (3, 29, 40), (2, 30, 41), (5, 17, 9), (1, 61, 33)]
    for N, H, W in sizes:
        prepared(np.ones((N, 16, H, W), np.float32))
    kept = list(packings.values())
    assert len(kept) < len(sizes)
    for N, H, W in sizes:
        prepared(np.ones((N, 16, H, W), np.float32))
    assert list(packings.values()) == kept


def test_widths_may_want_other_packings(isa):
    layer = nn.Conv2d(5, 13, (2, 3), rng=0)
    prepared = layer.prepare()
    for width in (9, 101, 12, 9):
        x = np.random.default_rng(width).standard_normal((2, 5, 7, width), np.float32)
        np.testing.assert_array_equal(prepared(x), layer.infer(x))
    assert len(prepared._network._extras.packings) <= 2


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_linear_layers_keep_their_weights_packed(rows, isa):
    net = nn.Sequential(nn.Linear(37, 53, rng=0), nn.ReLU(), nn.Linear(53, 11, rng=1))
    prepared = net.prepare()
    x = np.random.default_rng(2).standard_normal((rows, 37)).astype(np.float32)
    atol = tolerance(np.float32, 53, 8)
    for _ in range(2):
        np.testing.assert_allclose(prepared(x), net.infer(x), rtol=0, atol=atol)
    for layer in prepared._network:
        assert len(layer._extras.packings) == 1
    np.testing.assert_array_equal(copy.deepcopy(prepared)(x), prepared(x))


def test_batch_norm_of_another_layout_stays():
    net = nn.Sequential(nn.Conv2d(3, 7, (3, 1)), nn.BatchNorm2d(7, layout="NHWC"))
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype(np.float32)
    prepared = net.prepare()
    assert len(list(prepared._network)) == 2
    np.testing.assert_array_equal(prepared(x), net.infer(x))


def test_memory_for_gradients_is_not_copied():
    net = nn.Linear(1009, 101)
    snapshot = net.prepare()._network
    assert snapshot.weight.grad.strides == (0, 0)
