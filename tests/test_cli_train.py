# SPDX-License-Identifier: MIT
"""`convnet train`: what it leaves behind, the protocol, equal bits, and Ctrl-C."""

import json
import re
import shlex
import signal
import struct
import subprocess
import sys

import pytest

import convnet
from convnet import _threads
from convnet.cli import main, train
from convnet.cli.tasks import TASKS, BinaryTask
from convnet.data import load_digits
from convnet.progress import Progress
from convnet.weights import load_metadata, load_weights


@pytest.fixture(autouse=True)
def own_place(monkeypatch, tmp_path):
    """Work in an empty folder, and leave the number of threads as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_threads, "_chosen", _threads._chosen)


def record(folder):
    return json.loads((folder / "history.json").read_text())


@pytest.mark.parametrize("task", TASKS)
def test_train_leaves_weights_history_and_picture(task, tmp_path, capsys):
    assert main(["train", "--task", task, "--epochs", "2"]) == 0
    folder = tmp_path / f"convnet-{task}"
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.json",
        "picture.png",
        "weights.npz",
    ]
    lines = capsys.readouterr().out.splitlines()
    for epoch, line in zip((1, 2), lines[1:3], strict=True):
        assert re.match(
            rf"epoch {epoch}/2   loss .+ accuracy .+ % .+ test accuracy .+ %", line
        )
    found = record(folder)
    assert f"test accuracy {100 * found['test_accuracy']:.2f} %" in lines[3]
    assert found["weights_hash"] in lines[4]
    assert all(len(found["history"][name]) == 2 for name in ("loss", "val_accuracy"))


@pytest.mark.parametrize("seed", range(5))
def test_binary_task_reads_99_percent(seed, tmp_path):
    assert main(["train", "--task", "binary", "--seed", str(seed)]) == 0
    assert record(tmp_path / "convnet-binary")["test_accuracy"] >= 0.99


def test_digits_task_is_good_after_two_epochs(tmp_path):
    assert main(["train", "--epochs", "2"]) == 0
    assert record(tmp_path / "convnet-digits")["test_accuracy"] >= 0.97


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_gives_the_same_bits_on_any_number_of_threads(task, tmp_path):
    for n in (1, 2):
        options = ["--task", task, "--epochs", "1", "--threads", str(n)]
        assert main(["train", *options, "--seed", "3", "--out", f"threads{n}"]) == 0
        assert convnet.get_num_threads() == n
    assert main(["train", *options, "--seed", "4", "--out", "other"]) == 0
    one, two, other = (tmp_path / name for name in ("threads1", "threads2", "other"))
    assert record(one)["weights_hash"] == record(two)["weights_hash"]
    assert record(one)["weights_hash"] != record(other)["weights_hash"]
    assert (one / "weights.npz").read_bytes() == (two / "weights.npz").read_bytes()


def test_saved_weights_are_those_of_the_lowest_training_loss(tmp_path, monkeypatch):
    # A rate that explodes half way makes the first epochs the best.
    monkeypatch.setattr(BinaryTask, "lr_factor", lambda _, at: 1 if at < 0.5 else 1e4)
    assert main(["train", "--task", "binary", "--epochs", "7", "--out", "wild"]) == 0
    wild = record(tmp_path / "wild")
    losses = wild["history"]["loss"]
    assert wild["epoch"] == losses.index(min(losses)) + 1 < 7
    monkeypatch.setattr(BinaryTask, "lr_factor", lambda *_: 1)
    epochs = str(wild["epoch"])
    assert main(["train", "--task", "binary", "--epochs", epochs, "--out", "tame"]) == 0
    assert wild["weights_hash"] == record(tmp_path / "tame")["weights_hash"]


def test_test_images_choose_nothing(tmp_path, monkeypatch):
    command = ["train", "--task", "binary", "--epochs", "3", "--out"]
    assert main([*command, "true"]) == 0
    (images, labels), (test_images, test_labels) = load_digits((0, 1))
    lies = (images, labels), (test_images, 1 - test_labels)
    monkeypatch.setattr(train, "load_digits", lambda _: convnet.data.DigitsSplit(*lies))
    assert main([*command, "false"]) == 0
    true, false = record(tmp_path / "true"), record(tmp_path / "false")
    assert true["weights_hash"] == false["weights_hash"]
    assert true["test_accuracy"] == pytest.approx(1 - false["test_accuracy"])


def test_picture_is_a_png_of_decent_size(tmp_path):
    assert main(["train", "--task", "binary", "--epochs", "2"]) == 0
    content = (tmp_path / "convnet-binary" / "picture.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert struct.unpack(">II", content[16:24]) == (1800, 1125)
    assert len(content) > 30_000


def test_train_without_extras_says_what_is_missing(monkeypatch, tmp_path, capsys):
    for name in ("tqdm", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["train", "--task", "binary", "--epochs", "2"]) == 0
    assert not (tmp_path / "convnet-binary" / "picture.png").exists()
    printed = capsys.readouterr()
    assert re.search(r"^epoch 2/2 ", printed.out, re.MULTILINE)
    assert 'pip install "convnet-cpu[train]"' in printed.out
    assert not printed.err


# Ctrl-C ---------------------------------------------------------------------------


def test_interrupt_saves_the_best_weights(monkeypatch, tmp_path, capsys):
    def interrupt(task, progress):
        if progress > 0.5:
            raise KeyboardInterrupt
        return 1.0

    command = ["train", "--task", "binary", "--out"]
    assert main([*command, "whole", "--epochs", "3"]) == 0
    monkeypatch.setattr(BinaryTask, "lr_factor", interrupt)
    capsys.readouterr()
    assert main([*command, "cut", "--epochs", "5"]) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("interrupted in epoch 4: saved the weights of epoch 3")
    whole, cut = record(tmp_path / "whole"), record(tmp_path / "cut")
    assert cut["weights_hash"] == whole["weights_hash"]
    assert cut["history"]["interrupted"]


def test_interrupt_of_the_first_epoch_saves_what_there_is(
    monkeypatch, tmp_path, capsys
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(convnet.nn.BCELoss, "forward", interrupt)
    assert main(["train", "--task", "binary"]) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("interrupted in epoch 1: saved the unfinished weights")
    assert load_metadata(tmp_path / "convnet-binary" / "weights.npz")["epoch"] == "None"


def test_interrupt_of_the_first_epoch_keeps_the_run_before(
    monkeypatch, tmp_path, capsys
):
    def interrupt(*_):
        raise KeyboardInterrupt

    assert main(["train", "--task", "binary", "--epochs", "1"]) == 0
    folder = tmp_path / "convnet-binary"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 3
    monkeypatch.setattr(convnet.nn.BCELoss, "forward", interrupt)
    assert main(["train", "--task", "binary"]) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.endswith("keeps the weights of the run before")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_interrupt_right_after_the_first_epoch_saves_it(monkeypatch, tmp_path, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    command = ["train", "--task", "binary", "--out"]
    assert main([*command, "whole", "--epochs", "1"]) == 0
    monkeypatch.setattr(Progress, "print", interrupt)
    assert main([*command, "cut"]) == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("interrupted in epoch 2: saved the weights of epoch 1")
    whole, cut = record(tmp_path / "whole"), record(tmp_path / "cut")
    assert cut["weights_hash"] == whole["weights_hash"]


def test_train_names_the_next_command(tmp_path, capsys):
    assert main(["train", "--task", "binary", "--epochs", "1", "--out", "a b"]) == 0
    last = capsys.readouterr().out.splitlines()[-1].split(maxsplit=1)[1]
    program, *arguments = shlex.split(last)
    assert program == "convnet"
    assert main(arguments) == 0


def test_real_ctrl_c_ends_with_130(tmp_path):
    arguments = ["-m", "convnet", "train", "--epochs", "5000", "--out", str(tmp_path)]
    command = [sys.executable, "-W", "error", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Where the tests run in the background, SIGINT may be ignored; children inherit it.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, **pipes)
    finally:
        signal.signal(signal.SIGINT, handler)
    with process:
        while not process.stdout.readline().startswith("epoch"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors == ""
    assert "interrupted in epoch" in rest.splitlines()[-1]
    assert load_weights(tmp_path / "weights.npz")


# Mistakes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--epochs", "0"],
        ["--epochs", "many"],
        ["--batch-size", "-3"],
        ["--lr", "0"],
        ["--lr", "nan"],
        ["--lr", "inf"],
        ["--seed", "-1"],
        ["--threads", "0"],
        ["--threads", "257"],
        ["--task", "letters"],
    ],
    ids=" ".join,
)
def test_train_refuses_nonsense(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *options])
    assert stop.value.code == 2
    assert repr(options[1]) in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_train_names_the_most_threads(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--threads", "9999"])
    assert f"from 1 to {_threads.MOST}, got '9999'" in capsys.readouterr().err


def test_train_names_a_folder_it_cannot_use(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["train", "--out", "file"]) == 2
    assert "convnet train: cannot use file:" in capsys.readouterr().err
