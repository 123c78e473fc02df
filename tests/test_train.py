# SPDX-License-Identifier: MIT
"""The training loop: repeatable to the bit, interruptible, honest in its numbers."""

import ast
import builtins
import io
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from tolerance import tolerance

import convnet
from convnet import get_num_threads, nn, optim, set_num_threads
from convnet.history import History, KeepBest
from convnet.train import evaluate, fit

rng = np.random.default_rng(1)
CLASSES = rng.integers(0, 3, 101)
# Each class is bright in a third of the columns.
IMAGES = rng.normal(0, 0.5, (101, 1, 11, 9)).astype(np.float32)
for image, label in zip(IMAGES, CLASSES, strict=True):
    image[..., 3 * label : 3 * label + 3] += 0.5
DATA = IMAGES[:71], CLASSES[:71]
HELD_BACK = IMAGES[71:], CLASSES[71:]


def network(seed=0):
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(1, 5, (3, 2), rng=rng),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d((3, 2)),
        nn.Dropout(0.2, rng=rng),
        nn.Flatten(),
        nn.Linear(5 * 3 * 4, 3, rng=rng),
    )


def train(model=None, data=DATA, epochs=5, batch_size=13, **options):
    """Train quietly; return the model and its history."""
    model = model or network()
    options = {"progress": False, "rng": 0, **options}
    adam = optim.Adam(model.parameters(), 0.01)
    loss = nn.CrossEntropyLoss()
    return model, fit(model, loss, adam, data, epochs, batch_size, **options)


def assert_same_state(model, state):
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_training_learns():
    model, history = train(epochs=15, validation=HELD_BACK)
    assert len(history) == 15
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert history.accuracy[-1] > 0.9
    assert history.val_accuracy[-1] > 0.8
    assert not history.interrupted
    assert not model.training


@pytest.mark.parametrize("seed", [0, 1])
def test_one_seed_one_result_on_any_number_of_threads(seed):
    before = get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            results.append(train(validation=HELD_BACK, rng=seed))
    finally:
        set_num_threads(before)
    (model, history), *others = results
    for other, other_history in others:
        assert_same_state(other, model.state_dict())
        assert other_history.loss == history.loss
        assert other_history.val_loss == history.val_loss


def test_another_seed_another_order():
    assert train(rng=0)[1].loss != train(rng=1)[1].loss


def test_watching_changes_nothing(capsys):
    model, quiet = train(validation=HELD_BACK)
    watched, loud = train(validation=HELD_BACK, progress=True)
    assert_same_state(watched, model.state_dict())
    assert loud.loss == quiet.loss
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[2] == (
        f"epoch 3/5   loss {loud.loss[2]:.4f}"
        f"   accuracy {100 * loud.accuracy[2]:6.2f} %"
        f"   validation loss {loud.val_loss[2]:.4f}"
        f"   validation accuracy {100 * loud.val_accuracy[2]:6.2f} %"
        f"   {loud.seconds[2]:.1f} s"
    )


def test_the_validation_data_can_be_called_otherwise(capsys):
    train(validation=HELD_BACK, progress="test", epochs=1)
    line = capsys.readouterr().out
    assert "test accuracy" in line
    assert "validation" not in line


def test_the_bar_counts_every_step(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    train(epochs=3, batch_size=13, progress=True)
    assert "0/18" in screen.getvalue()


def test_plain_lines_without_tqdm(capsys, monkeypatch):
    def no_tqdm(name, *args):
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real_import(name, *args)

    real_import = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", no_tqdm)
    train(progress=True)
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 5
    assert output.err == ""


def test_every_sample_comes_once_per_epoch():
    class Recorder(nn.Flatten):
        def forward(self, x):
            seen.append(x[:, 0].astype(int).tolist())
            return super().forward(x)

    seen = []
    x = np.arange(17.0)[:, None] * np.ones(3)
    model = nn.Sequential(Recorder(), nn.Linear(3, 2, rng=0))
    train(model, (x, np.arange(17) % 2), epochs=2, batch_size=5)
    assert [len(batch) for batch in seen] == 2 * [5, 5, 5, 2]
    first, second = [*chain(*seen[:4])], [*chain(*seen[4:])]
    assert sorted(first) == sorted(second) == list(range(17))
    assert first != second != list(range(17))


def test_history_has_the_means_over_samples():
    # With a learning rate of 0 all batches meet the same weights.
    model = nn.Sequential(nn.Flatten(), nn.Linear(99, 3, rng=0))
    loss = nn.CrossEntropyLoss()
    frozen = optim.SGD(model.parameters(), 0)
    history = fit(
        model, loss, frozen, DATA, 1, 13, validation=HELD_BACK, progress=False
    )
    atol = tolerance(np.float32, 99, 3)
    want_loss, want_accuracy = loss(model(DATA[0]), DATA[1]), None
    want_accuracy = np.mean(model(DATA[0]).argmax(axis=1) == DATA[1])
    assert history.loss == pytest.approx([want_loss], rel=0, abs=atol)
    assert history.accuracy == pytest.approx([want_accuracy], rel=0, abs=1e-12)
    want = loss(model(HELD_BACK[0]), HELD_BACK[1])
    assert history.val_loss == pytest.approx([want], rel=0, abs=atol)
    assert evaluate(model, loss, HELD_BACK, 7)[0] == pytest.approx(
        want, rel=0, abs=atol
    )


def test_losses_without_accuracy():
    model = nn.Sequential(nn.Flatten(), nn.Linear(99, 1, rng=0))
    data = DATA[0], DATA[1][:, None] * 1.0
    sgd = optim.SGD(model.parameters(), 0.001)
    history = fit(model, nn.MSELoss(), sgd, data, 2, validation=data, progress=False)
    assert len(history.loss) == len(history.val_loss) == 2
    assert history.accuracy == history.val_accuracy == []


def test_binary_targets_have_an_accuracy():
    model = nn.Sequential(nn.Flatten(), nn.Linear(99, 1, rng=0), nn.Sigmoid())
    data = DATA[0], (DATA[1] == 2)[:, None]
    sgd = optim.SGD(model.parameters(), 0.3)
    history = fit(model, nn.BCELoss(), sgd, data, 20, progress=False, rng=0)
    assert history.accuracy[-1] > 0.9


def test_evaluate_leaves_the_model_alone():
    model = network()
    state = model.state_dict()
    evaluate(model, nn.CrossEntropyLoss(), HELD_BACK)
    assert_same_state(model, state)
    assert all(module.training for module in model.modules())
    model[1].eval()
    evaluate(model, nn.CrossEntropyLoss(), HELD_BACK)
    assert [layer.training for layer in model] == [True, False] + 5 * [True]


def test_callbacks_see_every_epoch_and_may_stop():
    seen = []

    def stop(model, history):
        seen.append((model.training, len(history)))
        return len(history) == 3

    _, history = train(callbacks=[stop, lambda model, history: None])
    assert seen == [(True, 1), (True, 2), (True, 3)]
    assert len(history) == 3
    assert not history.interrupted


def test_ctrl_c_between_epochs_keeps_the_best_weights():
    states = []

    def interrupt(model, history):
        states.append(model.state_dict())
        if len(history) == 3:
            raise KeyboardInterrupt

    best = KeepBest("loss")
    model, history = train(callbacks=[best, interrupt])
    assert history.interrupted
    assert len(history) == 3
    assert not model.training
    best.restore(model)
    assert best.epoch == history.best_epoch("loss")
    assert_same_state(model, states[best.epoch - 1])


@pytest.mark.parametrize("when", [0, 9])
def test_ctrl_c_within_an_epoch_leaves_a_usable_model(when):
    class Interrupted(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, pred, target):
            self.calls += 1
            if self.calls > when:
                raise KeyboardInterrupt
            return super().forward(pred, target)

    model, best = network(), KeepBest()
    adam = optim.Adam(model.parameters())
    history = fit(
        model, Interrupted(), adam, DATA, 5, 13, callbacks=[best], progress=False
    )
    assert history.interrupted
    # 71 samples are 6 steps of 13.
    assert len(history) == len(history.accuracy) == when // 6
    assert (best.state is None) == (when == 0)
    best.restore(model)
    assert np.isfinite(model(HELD_BACK[0])).all()
    assert np.isfinite(train(model, epochs=1)[1].loss[0])


def test_a_real_ctrl_c(tmp_path):
    code = """
import os, signal, sys, threading
import numpy as np
from convnet import fit, nn, optim
model = nn.Sequential(nn.Flatten(), nn.Linear(15, 2))
data = np.ones((1009, 1, 5, 3), np.float32), np.arange(1009) % 2
def press(model, history):
    if len(history) == 2:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
sgd = optim.SGD(model.parameters(), 0.1)
history = fit(
    model, nn.CrossEntropyLoss(), sgd, data, 10**6, 7, progress=False, callbacks=[press]
)
print(history.interrupted, len(history) >= 2, np.isfinite(model(data[0])).all())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "True"]
    assert done.stderr == ""


def test_keep_best_keeps_the_best_of_all_epochs():
    states = []
    best = KeepBest()
    model, history = train(
        callbacks=[lambda model, _: states.append(model.state_dict()), best],
        validation=HELD_BACK,
        epochs=7,
    )
    assert best.epoch == int(np.argmin(history.val_loss)) + 1
    best.restore(model)
    assert_same_state(model, states[best.epoch - 1])


def test_best_epoch():
    history = History(
        loss=[0.5, float("nan"), 0.2, 0.3],
        accuracy=[0.7, 0.9, 0.9, 0.8],
        val_loss=[0.6, 0.4, 0.4, 0.5],
    )
    assert history.best_epoch() == 2
    assert history.best_epoch("loss") == 3
    assert history.best_epoch("accuracy") == 2
    with pytest.raises(ValueError, match="val_accuracy"):
        history.best_epoch("val_accuracy")
    with pytest.raises(ValueError, match="plot"):
        history.best_epoch("plot")


@pytest.mark.parametrize("name", ["curves.png", "curves.svg"])
def test_plot_saves_a_picture(tmp_path, monkeypatch, name):
    monkeypatch.setenv("MPLBACKEND", "agg")
    _, history = train(validation=HELD_BACK)
    figure = history.plot(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000
    losses, accuracies = figure.axes
    np.testing.assert_array_equal(losses.lines[0].get_ydata(), history.loss)
    np.testing.assert_array_equal(losses.lines[1].get_ydata(), history.val_loss)
    np.testing.assert_array_equal(accuracies.lines[0].get_ydata(), history.accuracy)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": (IMAGES[:7], CLASSES[:5])}, ValueError, r"\(7, .*\(5,\)"),
        ({"data": (IMAGES[:0], CLASSES[:0])}, ValueError, r"\(0, "),
        ({"validation": (IMAGES[:7], CLASSES[:5])}, ValueError, "validation"),
        ({"epochs": 0}, ValueError, "epochs .* 0"),
        ({"batch_size": 0}, ValueError, "batch_size .* 0"),
        ({"batch_size": 2.5}, TypeError, r"2\.5"),
        ({"callbacks": KeepBest()}, TypeError, "callbacks .*KeepBest"),
        ({"callbacks": ["stop"]}, TypeError, "callbacks .*'stop'"),
    ],
)
def test_wrong_arguments(change, error, message):
    model = network()
    state = model.state_dict()
    with pytest.raises(error, match=message):
        train(model, **change)
    assert_same_state(model, state)


@pytest.mark.parametrize("name", ["model", "loss", "optimizer"])
def test_a_class_in_place_of_its_object_is_named(name):
    model = network()
    adam = optim.Adam(model.parameters())
    right = {"model": model, "loss": nn.CrossEntropyLoss(), "optimizer": adam}
    with pytest.raises(TypeError, match=f"^{name} must be an instance of "):
        fit(**{**right, name: type(right[name])}, data=DATA)


def test_an_optimizer_of_another_model_is_refused():
    model, other = network(), network()
    adam = optim.Adam([*model[0].parameters(), *other[6].parameters()])
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"optimizer holds .*weight, shape=\(3, 60\)"):
        fit(model, nn.CrossEntropyLoss(), adam, DATA)
    assert_same_state(model, state)


def test_an_optimizer_may_hold_some_of_the_parameters():
    model = network()
    state = model.state_dict()
    sgd = optim.SGD(model[6].parameters(), 0.1)
    fit(model, nn.CrossEntropyLoss(), sgd, DATA, 1, progress=False)
    np.testing.assert_array_equal(model[0].weight.value, state["0.weight"])
    assert np.any(model[6].weight.value != state["6.weight"])


def test_nothing_that_trains_or_infers_calls_blas():
    # NumPy hands these to BLAS, whose threads and bits are not ours.
    blas = {"dot", "matmul", "einsum", "tensordot", "inner", "vdot", "outer", "linalg"}
    folder = Path(convnet.__file__).parent
    files = [*folder.glob("nn/*.py"), *(folder / f"{m}.py" for m in ("optim", "train"))]
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            assert not isinstance(node, ast.MatMult), file
            assert not (isinstance(node, ast.Attribute) and node.attr in blas), file


def test_importing_loads_no_extra():
    code = (
        "import sys, convnet; extras = {'tqdm', 'matplotlib', 'safetensors', 'scipy'};"
        "print(sorted(extras & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout.strip() == "[]"
