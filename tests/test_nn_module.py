# SPDX-License-Identifier: MIT
"""Modules as objects: parameters, modes, state dicts, copies and files."""

import copy
import io

import joblib
import numpy as np
import pytest

from convnet import nn


def network(rng=0):
    rng = np.random.default_rng(rng)
    return nn.Sequential(
        nn.Conv2d(3, 5, (3, 2), rng=rng),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Residual(nn.Conv2d(5, 5, 1, rng=rng), nn.Conv2d(5, 5, 1, rng=rng)),
        nn.Dropout(0.5, rng=rng),
        nn.Flatten(),
        nn.Linear(5 * 5 * 10, 2, rng=rng),
    )


@pytest.fixture
def net():
    return network()


@pytest.fixture
def x():
    rng = np.random.default_rng(5)
    return rng.standard_normal((2, 3, 7, 11)).astype(np.float32)


NAMES = [
    "0.weight",
    "0.bias",
    "1.weight",
    "1.bias",
    "3.body.weight",
    "3.body.bias",
    "3.shortcut.weight",
    "3.shortcut.bias",
    "6.weight",
    "6.bias",
]


def test_parameters_have_dotted_names(net):
    assert list(net.named_parameters()) == NAMES
    assert net.named_parameters()["0.weight"] is net[0].weight
    assert [p.name for p in net.parameters()] == 5 * ["weight", "bias"]


def test_a_shared_parameter_counts_once():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    net = nn.Sequential(first, second)
    assert len(net.named_parameters()) == 4
    assert len(net.parameters()) == 3


def test_an_array_does_not_take_the_place_of_a_parameter():
    layer = nn.Linear(5, 3, rng=0)
    weight, before = layer.weight, layer.weight.value.copy()
    for wrong in (np.zeros((3, 5)), [[0.0] * 5] * 3, 0.0):
        with pytest.raises(TypeError, match=r"weight of Linear .* \.weight\.value = "):
            layer.weight = wrong
    assert layer.weight is weight
    np.testing.assert_array_equal(weight.value, before)
    layer.weight = nn.Parameter(np.zeros((3, 5)))
    layer.bias = None
    assert len(layer.parameters()) == 1


def test_a_module_stands_in_one_place_only():
    relu = nn.ReLU()
    with pytest.raises(ValueError, match="ReLU"):
        nn.Sequential(relu, nn.Sequential(relu))
    with pytest.raises(ValueError, match="ReLU"):
        nn.Residual(relu, relu)


def test_train_and_eval_reach_all_modules_and_return_self(net):
    assert all(module.training for module in net.modules())
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert net.train() is net
    assert all(module.training for module in net.modules())


def test_state_dict_holds_copies_of_everything(net):
    state = net.state_dict()
    assert sorted(state) == sorted([*NAMES, "1.running_mean", "1.running_var"])
    for array in state.values():
        array += 7
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array + 7, state[name])


def test_load_state_dict_copies_into_the_arrays_that_are_there(net, x):
    arrays = [p.value for p in net.parameters()] + [net[1].running_mean]
    other = network(1)
    other(x)
    state = other.state_dict()
    net.load_state_dict({name: a.astype(np.float64) for name, a in state.items()})
    after = [p.value for p in net.parameters()] + [net[1].running_mean]
    assert all(new is old for new, old in zip(after, arrays, strict=True))
    assert all(array.dtype == np.float32 for array in after)
    np.testing.assert_array_equal(net.eval()(x), other.eval()(x))
    state["0.weight"][...] = 0
    assert np.any(net[0].weight.value)


def test_load_state_dict_may_swap_a_modules_own_arrays():
    net = nn.Sequential(nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1))
    before = net.state_dict()
    own = {name: p.value for name, p in net.named_parameters().items()}
    swapped = {f"{1 - int(name[0])}{name[1:]}": own[name] for name in own}
    net.load_state_dict(swapped)
    np.testing.assert_array_equal(net[0].weight.value, before["1.weight"])
    np.testing.assert_array_equal(net[1].weight.value, before["0.weight"])


def missing(state):
    del state["6.bias"]
    return ValueError, r"lacks \['6.bias'\]"


def unknown(state):
    state["7.bias"] = np.ones(2)
    return ValueError, r"unknown \['7.bias'\]"


def misshaped(state):
    state["6.bias"] = np.ones(3)
    return ValueError, r"6.bias has shape \(3,\), but needs \(2,\)"


def of_integers(state):
    state["6.bias"] = np.ones(2, int)
    return TypeError, "6.bias must be floats, got int64"


@pytest.mark.parametrize("spoil", [missing, unknown, misshaped, of_integers])
def test_load_state_dict_writes_all_or_nothing(net, spoil):
    state = network(1).state_dict()
    before = net.state_dict()
    error, message = spoil(state)
    with pytest.raises(error, match=message):
        net.load_state_dict(state)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_assigning_to_a_parameter_copies():
    parameter = nn.Parameter(np.arange(6.0).reshape(2, 3), "weight")
    value, grad = parameter.value, parameter.grad
    new = np.ones((2, 3))
    parameter.value = new
    parameter.value -= 0.5
    parameter.grad = 2 * new
    parameter.grad += new
    assert parameter.value is value
    assert parameter.grad is grad
    np.testing.assert_array_equal(value, 0.5)
    np.testing.assert_array_equal(grad, 3)
    np.testing.assert_array_equal(new, 1)
    with pytest.raises(ValueError, match=r"weight.value.*\(3,\).*\(2, 3\)"):
        parameter.value = np.ones(3)


def test_parameter_copies_what_it_is_made_of():
    start = np.asfortranarray(np.ones((2, 3), ">f4"))
    parameter = nn.Parameter(start)
    start[...] = 5
    np.testing.assert_array_equal(parameter.value, 1)
    assert parameter.value.flags.c_contiguous
    assert parameter.value.dtype == np.float32
    assert parameter.value.dtype.isnative


def deep_copied(module):
    return copy.deepcopy(module)


def through_joblib(module):
    file = io.BytesIO()
    joblib.dump(module, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("copied", [deep_copied, through_joblib])
def test_copies_are_independent_and_complete(net, x, copied):
    net.backward(net(x))
    twin = copied(net)
    assert twin.state_dict().keys() == net.state_dict().keys()
    for own, other in zip(net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(own.grad, other.grad)
        assert not np.shares_memory(own.value, other.value)
        assert not np.shares_memory(own.grad, other.grad)
    with pytest.raises(RuntimeError, match="forward"):
        twin.backward(np.ones((2, 2)))
    # The generator of the dropout has been copied as well.
    np.testing.assert_array_equal(twin(x), net(x))
    twin[0].weight.value[...] = 0
    assert np.any(net[0].weight.value)


@pytest.mark.parametrize("copied", [deep_copied, through_joblib])
@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss()]
)
def test_losses_survive_copies(loss, copied):
    target = np.array([0, 1]) if type(loss) is nn.CrossEntropyLoss else np.eye(2, 3)
    pred = np.arange(6.0).reshape(2, 3)
    assert copied(loss)(pred, target) == loss(pred, target)


def test_a_module_from_a_memory_map_can_be_trained(tmp_path, x, net):
    joblib.dump(net, tmp_path / "net.joblib")
    mapped = joblib.load(tmp_path / "net.joblib", mmap_mode="r")
    mapped.backward(mapped(x))
    mapped[0].weight.value -= mapped[0].weight.grad
    assert not np.array_equal(mapped[0].weight.value, net[0].weight.value)


class Shift(nn.Module):
    """A layer as a user would write it: no infer, no accumulate."""

    def __init__(self):
        self.inner = nn.Linear(3, 3, rng=0)
        self.shift = nn.Parameter(np.zeros(3, np.float32), "shift")

    def forward(self, x):
        """Return the shifted output."""
        return self.inner(x) + self.shift.value

    def backward(self, grad_y):
        """Return grad_x."""
        self.shift.grad += grad_y.sum(axis=0)
        return self.inner.backward(grad_y)


def test_a_module_of_ones_own():
    layer = Shift()
    x = np.ones((2, 3), np.float32)
    assert sorted(layer.state_dict()) == ["inner.bias", "inner.weight", "shift"]
    np.testing.assert_array_equal(layer.infer(x), layer(x))
    layer.accumulate(np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(layer.shift.grad, 2)
    assert np.any(layer.inner.weight.grad)


class Doubled(nn.Conv2d):
    """A layer that changes what its parent computes, and leaves the rest alone."""

    def forward(self, x):
        """Return twice the parent's output."""
        return 2 * super().forward(x)

    def backward(self, grad_y):
        """Return grad_x."""
        return super().backward(2 * grad_y)


def test_shortcuts_follow_a_subclass(x):
    layer, plain = Doubled(3, 5, (3, 2), rng=0), nn.Conv2d(3, 5, (3, 2), rng=0)
    net = nn.Sequential(layer, nn.BatchNorm2d(5)).eval()
    np.testing.assert_array_equal(layer.infer(x), 2 * plain(x))
    np.testing.assert_array_equal(net.prepare()(x), net.infer(x))
    grad_y = plain(x)
    layer(x)
    layer.accumulate(grad_y)
    plain.accumulate(2 * grad_y)
    np.testing.assert_array_equal(layer.weight.grad, plain.weight.grad)


def test_a_module_must_say_how_it_maps():
    class Half(nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(TypeError, match="backward"):
        Half()


def test_slices_share_their_modules(net, x):
    head = net[:3]
    assert [type(m) for m in head] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert head[0] is net[0]
    assert len(net) == 7
    assert head(x).shape == (2, 5, 5, 10)


def test_repr_shows_the_tree(net):
    lines = repr(net).splitlines()
    assert lines[0] == "Sequential("
    assert lines[1] == "  (0): Conv2d(3, 5, (3, 2))"
    assert "    (shortcut): Conv2d(5, 5, (1, 1))" in lines
    assert lines[-1] == ")"


def test_first_layer_needs_no_gradient_of_its_input(net, x, monkeypatch):
    net(x)
    whole = {name: p.grad.copy() for name, p in net.named_parameters().items()}
    monkeypatch.setattr(nn.conv, "conv2d_grad_input", forbidden)
    only_first = nn.Sequential(nn.ReLU(), net[0])
    y = only_first(x)
    only_first.accumulate(y)
    assert np.any(net[0].weight.grad != whole["0.weight"])
    with pytest.raises(AssertionError, match="grad_input"):
        only_first.backward(y)


def forbidden(*args, **kwargs):
    raise AssertionError("grad_input was computed")
