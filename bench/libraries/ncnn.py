# SPDX-License-Identifier: MIT
"""ncnn on a network of one layer; it takes one image at a time."""

import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ncnn
import numpy as np

from bench.cases import Array, Case, Conv, Pool
from bench.libraries import Library, Run

MAGIC = 7767517  # first line of every .param file
FLOAT32 = struct.pack("<i", 0)  # says how the weights of a .bin file are stored


class Ncnn(Library):
    """float32 throughout; weights are transformed when the network is loaded."""

    version = ncnn.__version__

    def __init__(self, threads: int) -> None:
        ncnn.set_omp_num_threads(threads)
        self.threads = ncnn.get_omp_num_threads()

    def supports(self, case: Case) -> bool:
        """Return whether the case has one image."""
        return super().supports(case) and case.N == 1

    def load(self, array: Array) -> Any:
        """Return a matrix of ncnn's own; `clone` makes it independent of the array."""
        return ncnn.Mat(array[0]).clone()

    def store(self, result: Any) -> Array:
        """Return a matrix as a batch of one image."""
        return np.array(result)[None]

    def fwd(self, case: Conv, weight: Array, bias: Array) -> Run:
        """Add the bias to conv(x, weight)."""
        kind = "Convolution" if case.G == 1 else "ConvolutionDepthWise"
        (KH, KW), (PH, PW) = case.K, case.P
        settings = {0: case.OC, 1: KW, 11: KH, 2: case.D, 3: case.S, 4: PW, 14: PH}
        settings |= {5: 1, 6: weight.size}
        if case.G > 1:
            settings[7] = case.G
        return self._run(kind, settings, FLOAT32 + weight.tobytes() + bias.tobytes())

    def max(self, case: Pool) -> Run:
        """Largest of each window."""
        return self._run("Pooling", {0: 0, **_window(case)})

    def avg(self, case: Pool) -> Run:
        """Mean of each window."""
        return self._run("Pooling", {0: 1, **_window(case), 6: 1})

    def _run(self, kind: str, settings: dict[int, int], weights: bytes = b"") -> Run:
        """Return a call of the network with this layer alone."""
        fields = " ".join(f"{key}={value}" for key, value in settings.items())
        layers = f"Input x 0 1 x\n{kind} layer 1 1 x y {fields}\n"
        net = ncnn.Net()
        net.opt.num_threads = self.threads
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = False
        net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
        with TemporaryDirectory() as folder:
            param, model = Path(folder, "one.param"), Path(folder, "one.bin")
            param.write_text(f"{MAGIC}\n2 2\n{layers}")
            model.write_bytes(weights)
            if net.load_param(str(param)) or net.load_model(str(model)):
                raise RuntimeError(f"ncnn refuses the layer {kind} {fields}")

        def run(x: Any) -> Any:
            extractor = net.create_extractor()
            extractor.input("x", x)
            return extractor.extract("y")[1]

        return run


def _window(case: Pool) -> dict[int, int]:
    """Return the fields of a pooling window; 5=1 rounds output sizes down."""
    return {1: case.K, 2: case.S, 3: case.P, 5: 1}
