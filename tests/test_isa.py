# SPDX-License-Identifier: MIT
"""Choosing the instruction set: the table of kernels and the ways to force a row."""

import os
import subprocess
import sys

import pytest

import convnet
from convnet import _kernels


@pytest.fixture(autouse=True)
def restored_isa():
    """Leave the process with the kernels that it had."""
    before = convnet.get_isa()
    yield
    convnet.set_isa(before)


def in_new_process(code, isa):
    """Run code under CONVNET_ISA and return (exit code, output, errors)."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CONVNET_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip(), done.stderr


def test_every_machine_runs_scalar():
    assert _kernels.available_isas()[0] == "scalar"


def test_set_isa_chooses_each_level_and_auto_the_last():
    for name in _kernels.available_isas():
        convnet.set_isa(name)
        assert convnet.get_isa() == name
    convnet.set_isa("scalar")
    convnet.set_isa("auto")
    assert convnet.get_isa() == _kernels.available_isas()[-1]


def test_set_isa_unknown_name_changes_nothing():
    convnet.set_isa("scalar")
    with pytest.raises(ValueError, match=r"'sse9' is not one of .* scalar"):
        convnet.set_isa("sse9")
    assert convnet.get_isa() == "scalar"


def test_environment_forces_level():
    for name in _kernels.available_isas():
        code = "import convnet; print(convnet.get_isa())"
        assert in_new_process(code, name)[:2] == (0, name)


def test_environment_nonsense_is_an_error():
    status, _, errors = in_new_process("import convnet", "sse9")
    assert status != 0
    assert "'sse9'" in errors
    last = errors.splitlines()[-1]
    for text in ("CONVNET_ISA", *_kernels.available_isas()):
        assert text in last


def test_empty_environment_is_as_good_as_none():
    code = "import convnet; print(convnet.get_isa())"
    assert in_new_process(code, "")[:2] == (0, _kernels.available_isas()[-1])


@pytest.mark.parametrize("itemsize", [4, 8])
def test_tile_shape_is_whole_vectors(itemsize):
    for name in _kernels.available_isas():
        convnet.set_isa(name)
        rows, columns, lanes = _kernels.tile_shape(itemsize)
        assert rows in (4, 8)
        assert columns == 3 * lanes
        assert lanes * itemsize in (16, 32, 64)


@pytest.mark.parametrize("itemsize", [4, 8])
def test_fma_peak_is_a_rate(itemsize):
    assert 0.1 < _kernels.fma_peak(0.002, itemsize) < 1e5


def test_show_config_tells_what_a_report_needs(capsys):
    convnet.set_isa("scalar")
    convnet.show_config()
    printed = capsys.readouterr().out
    for text in (convnet.__version__, "scalar of scalar", _kernels.compiler()):
        assert text in printed
