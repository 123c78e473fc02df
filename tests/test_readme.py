# SPDX-License-Identifier: MIT
"""The README's code must run as it stands."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block, capsys):
    names = {}
    exec(block, names)
    if "predict" in names:
        assert float(capsys.readouterr().out.split()[-1]) > 0.95
    if "testing" in names:
        assert "gradcheck passed" in capsys.readouterr().out


def test_blocks_were_found():
    assert len(BLOCKS) == 4
