# SPDX-License-Identifier: MIT
"""The package as a whole: importing it, and what importing it must not do."""

import pydoc
import subprocess
import sys
from pathlib import Path

import convnet
from convnet import fit, functional, nn, save_weights, signal, testing


def run_python(code, folder, *options):
    """Run code in a new interpreter that starts in `folder`."""
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_uncompiled_tree_names_the_command(tmp_path):
    package = tmp_path / "convnet"
    package.mkdir()
    source = Path(convnet.__file__).read_text()
    (package / "__init__.py").write_text(source)
    # -S: without site-packages, where the compiled package is.
    done = run_python("import convnet", tmp_path, "-S")
    assert "ImportError: convnet is not compiled here" in done.stderr
    assert "pip install -e ." in done.stderr


def test_import_is_light_and_leaves_no_trace(tmp_path):
    code = """
import signal, sys, threading, warnings
import numpy
before = warnings.filters[:], signal.getsignal(signal.SIGINT), threading.active_count()
import convnet
after = warnings.filters[:], signal.getsignal(signal.SIGINT), threading.active_count()
assert before == after
heavy = {"scipy", "matplotlib", "onnx", "tqdm", "safetensors", "argparse", "torch"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_everything_public_is_there_and_documented():
    for name in convnet.__all__:
        value = getattr(convnet, name)
        assert name == "__version__" or value.__doc__


def test_help_shows_annotations_as_they_are_written():
    # Evaluated, ArrayLike alone would fill four lines.
    public = [getattr(part, name) for part in (functional, nn) for name in part.__all__]
    public += [fit, save_weights, signal.convolve2d, testing.gradcheck]
    for value in public:
        assert "numpy._typing" not in pydoc.render_doc(value), value


def test_calls_leave_the_floating_point_environment(tmp_path):
    code = """
import numpy as np
import convnet
tiny = np.float32(1e-40)
x = np.full((2, 31, 33, 37), tiny)
w = np.full((29, 31, 3, 5), tiny)
y = convnet.conv2d(x, w, num_threads=2)
convnet.conv2d_grad_weight(y, x, w.shape, num_threads=2)
convnet.max_pool2d(x, 3)
assert tiny * np.float32(0.5) != 0  # denormals are not flushed
assert np.float32(1) + np.float32(2**-24) == 1  # round to nearest, ties to even
assert np.float32(1) + np.float32(3 * 2**-24) == np.float32(1 + 2**-22)
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
