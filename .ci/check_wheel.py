# SPDX-License-Identifier: MIT
"""Check what a wheel holds: all that is needed, nothing that is not, under 2 MB."""

import sys
import zipfile
from pathlib import Path

LIMIT = 2_000_000
NEEDED = ("convnet/py.typed", "convnet/_conv.pyi", "convnet/data/digits.npz")
UNWANTED = (".c", ".h", ".inc", ".pyx", ".pxd")

wheel = Path(sys.argv[1])
names = zipfile.ZipFile(wheel).namelist()
size = wheel.stat().st_size
problems = [f"{name} is missing" for name in NEEDED if name not in names]
problems += [f"{name} does not belong" for name in names if name.endswith(UNWANTED)]
problems += [
    f"{name} does not belong"
    for name in names
    if not name.startswith(("convnet/", "convnet_cpu-"))
]
if size > LIMIT:
    problems.append(f"{size} bytes are more than {LIMIT}")
print(f"{wheel.name}: {size} bytes, {len(names)} files")
sys.exit("\n".join(problems) or 0)
