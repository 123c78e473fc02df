# SPDX-License-Identifier: MIT
"""docs/mathematics.md itself: its code runs, its links and corrections are complete.

Each section runs by itself, after the page's first block.
"""

import doctest
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "mathematics.md").read_text(encoding="utf-8")
CORRECTIONS = "test_corrections_convolution.py", "test_corrections_network.py"


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def sections():
    """Return the page's first block, and {heading: blocks} for what comes after it."""
    parts = re.split(r"^(?=## )", PAGE, flags=re.MULTILINE)
    code = {part.splitlines()[0]: python_blocks(part) for part in parts}
    (start,) = code.pop("## Notation")
    return start, {heading: blocks for heading, blocks in code.items() if blocks}


START, SECTIONS = sections()


@pytest.mark.parametrize("heading", SECTIONS)
def test_page_code_gives_the_printed_results(heading):
    code = "\n".join([START, *SECTIONS[heading]])
    test = doctest.DocTestParser().get_doctest(code, {}, heading, "mathematics.md", 0)
    report = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.failed == 0, "".join(report)


def test_page_has_code_in_each_section():
    numbered = re.findall(r"^## \d+\. .*$", PAGE, re.MULTILINE)
    assert [*SECTIONS, "## 13. All corrections"] == numbered
    prompts = sum(block.count(">>> ") for block in python_blocks(PAGE))
    assert prompts == len(re.findall(r"^>>> ", PAGE, re.MULTILINE))


def test_page_corrections_are_listed_and_tested():
    code = "".join((TESTS / name).read_text(encoding="utf-8") for name in CORRECTIONS)
    tested = re.findall(r"^def test_correction_(\d+)_", code, re.MULTILINE)
    told = re.findall(r"^\*\*Correction (\d+)\*\*", PAGE, re.MULTILINE)
    listed = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert told == listed == list(dict.fromkeys(tested))
    assert told == [str(number) for number in range(1, len(told) + 1)]


def test_page_links_lead_to_headings():
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(#([^)]*)\)", PAGE)
    assert links
    assert set(links) <= anchors
