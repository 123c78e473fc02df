# SPDX-License-Identifier: MIT
"""The command line: predict, info, and what it says to mistakes."""

import io
import json
import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest

import convnet
from convnet import _threads
from convnet.cli import main
from convnet.cli.tasks import TASKS
from convnet.data import load_digits
from convnet.weights import load_weights, save_weights


@pytest.fixture(autouse=True)
def own_place(monkeypatch, tmp_path):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return the weights of a short training on all digits."""
    folder = tmp_path_factory.mktemp("digits")
    assert main(["train", "--epochs", "2", "--out", str(folder)]) == 0
    return folder / "weights.npz"


# Predicting -----------------------------------------------------------------------


def png(path, grey):
    """Save an image of inks from 0 to 1, dark on light."""
    from matplotlib.image import imsave

    imsave(path, 1 - grey, cmap="gray", vmin=0, vmax=1)


def pgm(path, grey, raw, brightest=255):
    pixels = (brightest * (1 - grey)).round().astype(">u2" if brightest > 255 else "u1")
    H, W = pixels.shape
    body = pixels.tobytes() if raw else " ".join(map(str, pixels.ravel())).encode()
    header = f"P{5 if raw else 2}\n# a comment\n{W} {H}\n{brightest}\n"
    path.write_bytes(header.encode() + body)


def idx(path, grey):
    pixels = (255 * grey).round().astype(np.uint8)[np.newaxis]
    sizes = struct.pack(">3I", *pixels.shape)
    path.write_bytes(bytes([0, 0, 8, 3]) + sizes + pixels.tobytes())


WRITERS = {
    "digit.npy": lambda path, grey: np.save(path, grey),
    "digit.npz": lambda path, grey: np.savez_compressed(path, a=grey),
    "digit.csv": lambda path, grey: np.savetxt(path, 16 * grey, delimiter=","),
    "digit.pgm": lambda path, grey: pgm(path, grey, raw=True),
    "deep.pgm": lambda path, grey: pgm(path, grey, raw=True, brightest=40_000),
    "plain.pgm": lambda path, grey: pgm(path, grey, raw=False),
    "digit-idx3-ubyte": idx,
    "digit.png": png,
}


@pytest.mark.parametrize("enlarge", [1, 5])
@pytest.mark.parametrize("name", WRITERS)
def test_predict_reads_every_format(name, enlarge, weights, tmp_path, capsys):
    images, labels = load_digits().test
    grey = np.kron(images[4, 0], np.ones((enlarge, enlarge)))
    if enlarge > 1:
        grey = np.pad(grey, ((3, 11), (7, 2)))
    WRITERS[name](tmp_path / name, grey)
    assert main(["predict", str(weights), str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / name}: {labels[4]}  (")


def test_predict_names_each_image_of_a_file(weights, tmp_path, capsys):
    images, labels = load_digits().test
    np.save("many.npy", images[:7])
    (tmp_path / "uci.csv").write_text(
        "\n".join(
            ",".join(f"{16 * v:.0f}" for v in x.ravel()) + ",0" for x in images[:7]
        )
    )
    assert main(["predict", str(weights), "many.npy", "uci.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for i in range(7):
        assert lines[i].startswith(f"many.npy[{i}]: {labels[i]}")
        assert lines[i].removeprefix("many.npy") == lines[7 + i].removeprefix("uci.csv")


def test_predict_agrees_with_training(weights, capsys):
    images, labels = load_digits().test
    np.save("test.npy", images)
    assert main(["predict", str(weights), "test.npy"]) == 0
    out = capsys.readouterr().out
    read = [int(number) for number in re.findall(r"\]: (\d)", out)]
    history = json.loads((weights.parent / "history.json").read_text())
    assert np.mean(read == labels) == history["test_accuracy"]


@pytest.mark.parametrize("task", TASKS)
def test_predict_without_images_shows_some(task, capsys):
    assert main(["train", "--task", task, "--epochs", "1", "--out", "."]) == 0
    capsys.readouterr()
    assert main(["predict", "weights.npz"]) == 0
    out = capsys.readouterr().out
    assert out.count("test images, read as") == 3
    assert "@@" in out
    assert "#" in out


# Info -----------------------------------------------------------------------------


def test_info_prints_the_configuration(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for text in (convnet.__version__, convnet.get_isa(), np.__version__):
        assert text in out


def test_info_lists_the_tensors_of_a_file(weights, capsys):
    assert main(["info", str(weights)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^task +digits$", out, re.MULTILINE)
    assert re.search(r"^0\.weight +\(16, 1, 3, 3\) +float32 ", out, re.MULTILINE)
    assert "20 tensors, 8666 numbers, 34664 bytes" in out


def test_python_m_convnet_is_the_command():
    command = [sys.executable, "-W", "error", "-m", "convnet", "--version"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == (f"convnet {convnet.__version__}\n", "")
    assert done.returncode == 0


def test_closed_pipe_is_no_error(weights):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "convnet", "predict", str(weights)]
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, timeout=120, check=False
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 0


# Mistakes -------------------------------------------------------------------------


def npz_bytes(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)  # of objects, a pickle: predict must refuse it
    return file.getvalue()


WRONG_IMAGES = {
    "missing.png": None,
    "empty.npy": b"",
    "text.npy": b"no array at all",
    "pickled.npy": npy_bytes(np.array([{}], dtype=object)),
    "complex.npy": npy_bytes(np.ones((8, 8), complex)),
    "one.npy": npy_bytes(np.ones(64)),
    "none.npy": npy_bytes(np.ones((0, 8, 8))),
    "nan.npy": npy_bytes(np.full((9, 7), np.nan)),
    "blank.npy": npy_bytes(np.ones((9, 7))),
    "huge.npy": npy_bytes(np.ones((9, 7))).replace(b"(9, 7)", b"(9, 7000000)")[:128],
    "two.npz": npz_bytes(a=np.ones((9, 7)), b=np.ones((9, 7))),
    "text.npz": b"no archive at all",
    "empty.csv": b"",
    "ragged.csv": b"1,2,3\n4,5\n",
    "words.csv": b"ink,paper\nink,ink\n",
    "text.pgm": b"P5 no numbers",
    "short.pgm": b"P5 5 3 255\n" + bytes(14),
    "words.pgm": b"P2 2 1 255\nink paper\n",
    "claims.pgm": b"P5 999999999 999999999 65535\n12",
    "text.png": b"no picture at all",
    "short-idx3-ubyte": bytes([0, 0, 8, 3, 255, 255, 255, 255]),
    "labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 5]),
}


@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_predict_explains_images_it_cannot_read(name, weights, tmp_path, capsys):
    if WRONG_IMAGES[name] is not None:
        (tmp_path / name).write_bytes(WRONG_IMAGES[name])
    assert main(["predict", str(weights), name]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"convnet predict: cannot read {name}: ")
    assert errors.count("\n") == 1


def test_predict_without_matplotlib_names_the_extra(weights, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.image", None)
    assert main(["predict", str(weights), "seven.png"]) == 2
    assert 'pip install "convnet-cpu[train]"' in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "info"])
def test_files_that_are_no_weights_are_refused(command, tmp_path, capsys):
    (tmp_path / "text.npz").write_text("no archive at all")
    for name in ("text.npz", "missing.npz", "weights.pickle"):
        assert main([command, name]) == 2
        assert f"convnet {command}: cannot read {name}: " in capsys.readouterr().err


def test_predict_refuses_weights_of_other_networks(weights, capsys):
    save_weights({"weight": np.ones((3, 5))}, "other.npz")
    assert main(["predict", "other.npz"]) == 2
    assert "does not say which network" in capsys.readouterr().err
    save_weights(load_weights(weights), "wrong.npz", metadata={"task": "binary"})
    assert main(["predict", "wrong.npz"]) == 2
    assert "no weights for the task binary: wrong.npz" in capsys.readouterr().err


def test_a_wrong_environment_variable_is_named(monkeypatch, capsys):
    monkeypatch.setattr(_threads, "_chosen", None)
    monkeypatch.setenv("CONVNET_NUM_THREADS", "many")
    with pytest.raises(SystemExit) as stop:
        main(["info"])
    assert stop.value.code == 2
    assert "CONVNET_NUM_THREADS" in capsys.readouterr().err


def test_no_command_shows_the_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "usage: convnet" in capsys.readouterr().err
