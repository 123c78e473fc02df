# SPDX-License-Identifier: MIT
"""The bench measures what it says: baselines are right, wrong results never count."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tolerance import tolerance

from bench import layers, selection, training, worker
from bench.cases import TITLES, Conv, Pool
from bench.libraries import load_class
from bench.libraries.convnet import Reference
from bench.plot import write_plot, write_roofline
from bench.report import scaling
from bench.results import Comparison, Record, Result, summary
from bench.timing import Runner, order
from convnet import explain, nn

ROOT = Path(__file__).parent.parent
SHORT = ["--rounds", "2", "--seconds-per-case", "0.02", "--threads", "1"]

# A library that is wrong at once, one that dies, one that brings a thread too many, and
# one that is right but slow.
STRANGERS = """
import os
import numpy as np
from bench.libraries import Library
from bench.libraries.convnet import Reference

class Wrong(Library):
    version = "0"
    def fwd(self, case, weight, bias):
        y = np.zeros(case.y_shape, np.float32)
        return lambda x: y

class Dying(Library):
    version = "0"
    def fwd(self, case, weight, bias):
        return lambda x: os._exit(1)

class Greedy(Wrong):
    def __init__(self, threads):
        self.threads = threads + 1

class Right(Reference):
    pass

class Careless(Reference):
    def step(self, case, *parameters):
        run = super().step(case, *parameters)
        def train(x, target):
            losses = run(x, target)
            losses[-1] += 1e-3
            return losses
        return train
"""


def run_bench(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the bench as a user does, with the strangers within its reach."""
    (folder / "strangers.py").write_text(STRANGERS)
    return subprocess.run(
        [sys.executable, "-m", "bench", *SHORT, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


def test_bench_without_peers(tmp_path):
    file = tmp_path / "result.json"
    options = ["--batch", "3", "--peers", "", "--json", str(file)]
    done = run_bench(
        ["--layers", "seed28", "pool.64*", "train.lenet.1", *options], tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert all(done.stdout.count(name) == 1 for name in TITLES.values())
    content = json.loads(file.read_text())
    assert {"cpu", "isa", "numpy", "convnet"} <= content["machine"].keys()
    assert content["seed"] == 0
    assert content["runs"][0]["threads"] == 1
    assert [case["op"] for case in content["cases"]] == list(layers.PASSES)
    for case in content["cases"]:
        (result,) = case["results"]
        assert result["status"] == "ok"
        assert result["error"] <= result["tolerance"]
        assert len(result["seconds"]) == 2
        low, median, high = result["rate"].values()
        assert 0 < low <= median <= high
        work = case["work"] / (1 if case["op"] == "step" else 1e9)
        assert work / max(result["seconds"]) <= median <= work / min(result["seconds"])
        assert case["limit"] > 0
        assert case["ratio"] is None


def test_bench_flags_wrong_and_failing_libraries(tmp_path):
    file = tmp_path / "result.json"
    strangers = ("Wrong", "Dying", "Greedy", "Right")
    peers = ",".join(f"strangers:{name}" for name in strangers)
    options = ["--passes", "fwd", "--peers", peers, "--json", str(file)]
    done = run_bench(["--layers", "seed28", "lenet2", *options], tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    assert (
        "2 threads where 1 were set"
        in content["runs"][0]["failures"]["strangers:Greedy"]
    )
    for case in content["cases"]:
        ours, wrong, dying, right = case["results"]
        assert [ours["status"], right["status"]] == ["ok", "ok"]
        assert wrong["status"] == "wrong"
        assert wrong["error"] > wrong["tolerance"]
        assert wrong["seconds"] == []
        assert dying["status"] == "failed"
        assert case["fastest"] == "strangers:Right"
        assert case["ratio"]["median"] > 0
    row = next(line for line in done.stdout.splitlines() if line.startswith("lenet2 "))
    assert "WRONG" in row
    assert "FAIL" in row
    assert "WRONG: strangers:Wrong on lenet2: error" in done.stdout


def test_bench_refuses_what_it_does_not_know(tmp_path):
    for options in (
        ["--layers", "nonsense"],
        ["--passes", "fwd,sideways"],
        ["--peers", "nonsense"],
        ["--batch", "1,2,3", "--threads", "1,2"],
        ["--random", "-1"],
        ["--random", "2", "--list"],
    ):
        done = run_bench(options, tmp_path)
        assert done.returncode == 2
        assert "error:" in done.stderr


def test_other_networks_are_dense_and_a_section_of_their_own(tmp_path):
    assert len(set(layers.names())) == len(layers.names())
    others = list(layers.convolutions(layers.names(), "other networks", "fwd", 2))
    assert len({case.name.partition(".")[0] for case in others}) >= 6
    assert all(case.G == 1 and min(case.y_shape) > 0 for case in others)
    assert {(1, 7), (7, 1), (11, 11)} < {case.K for case in others}
    chosen = ["--layers", "inception.17.1x7", "lenet2", "--passes", "fwd"]
    listed = run_bench(["--list", "--batch", "1", *chosen], tmp_path).stdout
    assert [line.split()[0] for line in listed.splitlines()] == chosen[2:0:-1]
    assert "128 17x17 -> 128, 1x7 s1 p0x3 d1 g1" in listed
    done = run_bench(["--batch", "1", "--peers", "numpy", *chosen], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("convolution, forward, N=1") == 1
    assert done.stdout.count("convolution, forward, other networks, N=1") == 1
    assert done.stdout.count("geometric mean") == 2


def test_other_thin_layers_are_a_section_too():
    thin = list(layers.convolutions(layers.names(), "other thin layers", "gw", 1))
    assert len(thin) >= 20
    assert all(case.G > 1 or min(case.IC, case.OC) < 33 for case in thin)
    assert all(min(case.y_shape) > 0 for case in thin)
    assert any(case.G == 1 for case in thin)
    assert any(1 < case.G < case.IC for case in thin)
    assert {(1, 1), (5, 5), (9, 9), (11, 11)} < {case.K for case in thin}


def test_random_shapes_are_the_same_for_the_same_seed():
    shapes = selection.draw(40, seed=1)
    assert shapes == selection.draw(40, seed=1)
    assert shapes[:30] != selection.draw(30, seed=2)
    assert sum(case.K == (3, 3) for case in shapes) > 20
    assert {case.S for case in shapes} == {1, 2}
    for case in shapes:
        assert case.G == 1
        assert min(case.y_shape) > 0


def test_random_section_times_every_candidate(tmp_path):
    file = tmp_path / "result.json"
    options = ["--passes", "fwd,gx", "--seed", "3", "--json", str(file)]
    done = run_bench(["--random", "2", *options], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("within 10 % of the best") == 2
    shapes = [replace(s, op=op) for op in ("fwd", "gx") for s in selection.draw(2, 3)]
    documents = json.loads(file.read_text())["cases"]
    for case, document in zip(shapes, documents, strict=True):
        kind = selection.KINDS[case.op]
        plan = explain(case.x_shape, case.w_shape, *case.window, kind=kind)
        ours, *candidates = document["results"]
        assert (ours["library"], ours["note"]) == ("auto", plan.algorithm)
        names = {candidate["library"] for candidate in candidates}
        assert names == {candidate.algorithm for candidate in plan.candidates}
        assert all(len(result["seconds"]) == 2 for result in document["results"])
        assert document["ratio"]["median"] > 0
    # Nothing would be tested if there were never a choice.
    assert max(len(document["results"]) for document in documents) > 2


# N, channels, H, W, ... kernel, stride, padding (and dilation, groups).
POOL_SHAPES = [(2, 3, 11, 7, 3, 2, 1), (3, 2, 8, 13, 2, 3, 0)]
CONV_SHAPES = [
    (2, 6, 11, 7, 4, (3, 3), 2, (1, 1), 1, 2),
    (3, 5, 8, 13, 7, (2, 2), 3, (0, 0), 1, 1),
    (2, 4, 9, 17, 3, (1, 7), 1, (0, 3), 1, 1),
    (2, 3, 23, 14, 6, (5, 2), 2, (3, 1), 3, 1),
]


BASELINES = [
    *(("convnet", op) for op in (*layers.CONV_PASSES, *layers.POOL_PASSES)),
    *(("numpy", op) for op in (*layers.CONV_PASSES, "max", "avg")),
    *(("scipy", op) for op in layers.CONV_PASSES),
]


@pytest.mark.parametrize(("library", "op"), BASELINES)
def test_baseline_is_right(library, op):
    if op in layers.CONV_PASSES:
        cases = [Conv("", op, *shape) for shape in CONV_SHAPES]
    else:
        cases = [Pool("", op, *shape) for shape in POOL_SHAPES]
    stand = load_class(library)(1)
    for case in cases:
        operands = case.operands(np.random.default_rng(5))
        result = getattr(stand, op)(case, *operands.fixed)(*operands.rotating)
        right = getattr(Reference(1), op)(case, *operands.fixed)(*operands.rotating)
        assert result.shape == right.shape
        bound = tolerance(np.float32, case.terms, np.abs(right).max())
        np.testing.assert_allclose(result, right, rtol=0, atol=bound)


def test_case_counts_work_by_the_definition():
    N, IC, OC, KH, KW, G = 2, 6, 4, 3, 2, 2
    for op, terms in ("fwd", 3 * KH * KW), ("gx", 2 * KH * KW), ("gw", N * 5 * 3):
        case = Conv("", op, N, IC, 11, 7, OC, (KH, KW), 2, (1, 0), 2, G)
        assert case.y_shape == (N, OC, 5, 3)
        assert case.work == 2 * N * OC * IC // G * KH * KW * 5 * 3
        assert case.terms == terms
    pool = Pool("", "maxg", N, IC, 11, 7, 3, 2, 1)
    assert pool.work == 4 * N * IC * (11 * 7 + 3 * 6 * 4)


def comparison(ours, name="a", **peers):
    """Return a comparison of given times."""
    times = {"convnet": ours, **peers}
    results = [Result(name, seconds=seconds) for name, seconds in times.items()]
    return Comparison(Conv(name, "fwd", *CONV_SHAPES[0]), 1, 100.0, results)


def test_ratio_is_taken_round_by_round():
    # The machine slows down threefold for a round: no ratio may see that.
    measured = comparison([1.0, 3.0, 1.0], slow=[4.0, 12.0, 4.0], fast=[2.0, 6.0, 2.0])
    assert measured.fastest.library == "fast"
    assert measured.ratio == (2.0, 2.0, 2.0)


def test_wrong_result_never_counts():
    measured = comparison([1.0], fast=[0.1], right=[0.5])
    measured.results[1].status = "wrong"
    assert measured.fastest.library == "right"
    measured.ours.status = "wrong"
    assert measured.ratio is None
    assert not Record([measured]).all_right


def test_summary_counts_losses_as_plainly_as_wins():
    ratios = {"a": 4.0, "b": 1.01, "c": 0.25}
    group = [comparison([1.0], name, peer=[r]) for name, r in ratios.items()]
    found = summary(group)
    assert (found.cases, found.faster, found.slower) == (3, 1, 1)
    assert (found.worst, found.worst_case) == (0.25, "c")
    assert found.geometric_mean == pytest.approx(1.01 ** (1 / 3))


def test_order_lets_each_library_go_first_and_last():
    runners = [Runner(None, Result(name)) for name in "abc"]
    rounds = [order(runners, i) for i in range(6)]
    for place in 0, -1:
        assert {turns[place].result.library for turns in rounds} == set("abc")


def test_scaling_compares_the_same_library_on_more_threads():
    one, two = (comparison([t], peer=[3.0]) for t in (4.0, 2.5))
    assert scaling([one]) == []
    two.threads = 2
    *_, line = scaling([one, two])
    assert line.split()[:2] == ["a", "fwd"]
    assert line.endswith("1 -> 2  convnet 1.60x  peer 1.00x")


def test_roofline_draws_rates_below_the_roof(tmp_path):
    measured = [comparison([1.0], peer=[2.0]), comparison([], peer=[2.0])]
    write_roofline(tmp_path / "roof.svg", measured)
    assert "FLOPs per byte" in (tmp_path / "roof.svg").read_text()
    # Three multiplications and additions for each of six pixels of a filter, ...
    case = Conv("a", "fwd", 1, 3, 2, 3, 1, (1, 1))
    assert case.intensity == 2 * 18 / (4 * (18 + 3 + 6))


def test_overhead_counts_calls(tmp_path):
    file = tmp_path / "result.json"
    options = ["--batch", "1", "--passes", "gx", "--peers", "", "--json", str(file)]
    done = run_bench(["--layers", "tiny.*", *options], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gradient to the input, overhead, N=1, threads=1, calls/ms" in done.stdout
    for case in json.loads(file.read_text())["cases"]:
        (result,) = case["results"]
        rates = 1e-3 / np.array(result["seconds"])
        np.testing.assert_allclose(result["rate"]["median"], np.median(rates))


def test_trainings_are_judged_by_every_loss(tmp_path):
    file = tmp_path / "result.json"
    options = ["--layers", "train.lenet.1", "--json", str(file), "--peers"]
    done = run_bench([*options, "strangers:Right,strangers:Careless"], tmp_path)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(file.read_text())["cases"]
    ours, right, careless = case["results"]
    assert [r["status"] for r in (ours, right, careless)] == ["ok", "ok", "wrong"]
    assert case["unit"] == "steps/s"
    assert ours["error"] < 1e-4
    rates = 20 / np.array(ours["seconds"])
    np.testing.assert_allclose(ours["rate"]["median"], np.median(rates))


def test_trained_networks_are_what_their_words_say():
    for case in training.trainings(training.names()):
        parameters, (x, target) = case.operands(np.random.default_rng(0))
        assert x.shape == (case.N, case.C, case.H, case.W)
        assert target.shape == (case.N,)
        net = training.build(nn, nn.GlobalAvgPool2d, case.layers)
        assert net(x[:2]).shape == (len(x[:2]), training.CLASSES)
        shapes = [p.value.shape for p in net.parameters()]
        assert [p.shape for p in parameters] == shapes
    lenet = next(training.trainings(["train.lenet"]))
    flops = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25 + 400 * 120 + 120 * 84 + 84 * 10
    assert lenet.flops == training.STEPS * 3 * 2 * 64 * flops


def test_turn_ends_when_the_library_has_settled():
    def spin():
        while time.perf_counter() < end:
            np.dot(ones, ones)

    ones, end = np.ones(1000), time.perf_counter() + 0.2
    thread = threading.Thread(target=spin)
    thread.start()
    worker._settle(limit=30)
    assert not thread.is_alive()


@pytest.mark.parametrize("memory", ["hot", "cold", "fresh"])
def test_bench_meets_other_states_of_memory(tmp_path, memory):
    out = tmp_path / "out.json"
    arguments = ["--layers", "r50.l4.1x1", "--batch", "1", "--passes", "fwd"]
    arguments += ["--memory", memory, "--peers", "", "--json", str(out)]
    run_bench(arguments, tmp_path).check_returncode()
    found = json.loads(out.read_text())
    assert found["memory"] == memory
    assert [r["status"] for r in found["cases"][0]["results"]] == ["ok"]


def test_plot_draws_every_table(tmp_path):
    measured = [comparison([1.0], peer=[2.0]), comparison([], peer=[2.0])]
    write_plot(tmp_path / "bench.svg", measured)
    assert "convolution, forward, N=2" in (tmp_path / "bench.svg").read_text()
