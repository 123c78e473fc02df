# SPDX-License-Identifier: MIT
"""The thread pool, and how many threads a call may use."""

import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from cases import DTYPES, LAYOUTS, shape_in, to_layout
from numpy.testing import assert_allclose, assert_array_equal
from tolerance import tolerance

import convnet
from convnet import _threads, reference


@pytest.fixture(autouse=True)
def restored_count(monkeypatch):
    """Leave the process with the number of threads that it had."""
    monkeypatch.setattr(_threads, "_chosen", _threads._chosen)


@pytest.fixture
def call():
    """Return a function of num_threads: a convolution large enough to be shared."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 19, 37, 41), dtype=np.float32)
    weight = rng.standard_normal((23, 19, 3, 5), dtype=np.float32)

    def conv(num_threads=None):
        return convnet.conv2d(x, weight, padding=(1, 2), num_threads=num_threads)

    return conv


def run_python(code, **environment):
    """Run code in a new interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_set_num_threads_is_what_get_returns():
    convnet.set_num_threads(3)
    assert convnet.get_num_threads() == 3
    assert _threads.resolve(None) == 3
    assert _threads.resolve(2) == 2


@pytest.mark.parametrize("n", [0, -1])
def test_set_num_threads_below_one(n):
    with pytest.raises(ValueError, match=f"at least 1, not {n}"):
        convnet.set_num_threads(n)


@pytest.mark.parametrize("n", [True, 1.0, "2", None])
def test_set_num_threads_not_an_integer(n):
    with pytest.raises(TypeError, match="integer"):
        convnet.set_num_threads(n)


def test_environment_sets_default():
    code = "import convnet; print(convnet.get_num_threads())"
    assert run_python(code, CONVNET_NUM_THREADS="5") == "5"


def test_environment_nonsense_is_an_error():
    code = (
        "import convnet\n"
        "try: convnet.get_num_threads()\n"
        "except ValueError as error: print(error)"
    )
    assert "'many'" in run_python(code, CONVNET_NUM_THREADS="many")


def test_default_follows_affinity():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import convnet; print(convnet.get_num_threads())"
    )
    assert run_python(code, CONVNET_NUM_THREADS="") == "1"


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
        ("0::/\n", {}, 1 << 30),
        ("0::/\n", {"cpu.max": "max 100000"}, 1 << 30),
        (
            "4:cpu,cpuacct:/c\n2:memory:/c\n",
            {"cpu/c/cpu.cfs_quota_us": "250000", "cpu/c/cpu.cfs_period_us": "100000"},
            3,
        ),
        (
            "4:cpu:/c\n",
            {"cpu/c/cpu.cfs_quota_us": "-1", "cpu/c/cpu.cfs_period_us": "100000"},
            1 << 30,
        ),
    ],
)
def test_cgroup_quota(tmp_path, membership, files, cpus):
    (tmp_path / "self").write_text(membership)
    root = tmp_path / "fs"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert _threads._cgroup_quota(root, str(tmp_path / "self")) == cpus


def test_cgroup_quota_without_cgroups(tmp_path):
    assert _threads._cgroup_quota(tmp_path, str(tmp_path / "nothing")) == 1 << 30


def test_same_bits_for_any_thread_count(call):
    expected = call(1)
    for num_threads in (2, 3, 5, 16):
        assert np.array_equal(call(num_threads), expected)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("IC", [281, 1217])
def test_threads_that_share_columns_compute_the_same_bits(rng, IC, dtype, layout):
    # Few pixels for many weights, whose columns are cut up as there are threads.
    weight = rng.standard_normal((521, IC, 1, 1)).astype(dtype)
    grad_y = to_layout(rng.standard_normal((1, 521, 7, 9)).astype(dtype), layout)
    shape = shape_in((1, IC, 7, 9), layout)
    wanted = reference.conv2d_grad_input(
        grad_y.astype(float), weight.astype(float), shape, layout=layout
    )
    expected = None
    for num_threads in 1, 2, 3, 16:
        result = convnet.conv2d_grad_input(
            grad_y, weight, shape, layout=layout, num_threads=num_threads
        )
        expected = result if expected is None else expected
        assert_array_equal(result, expected)
    assert_allclose(expected, wanted, rtol=0, atol=tolerance(dtype, 521, 23))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_blocks_are_of_equal_rows_and_as_many_for_each_thread(num_threads):
    convnet.set_num_threads(num_threads)
    plan = convnet.explain((1, 24, 63, 48), (40, 24, 3, 3), stride=2, padding=1)
    direct = next(c for c in plan.candidates if c.algorithm == "direct")
    sizes = re.search(r"(\d+) blocks of (\d+) x 24", direct.reason).groups()
    blocks, rows = map(int, sizes)
    assert blocks % num_threads == 0
    assert rows == -(-32 // blocks)


# One or two blocks of pixels, whose rows threads share because filters are few; the
# last ones' rows of taps have bands of their own.
@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kernel", [(3, 3), (5, 2), (1, 7)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 6)])
def test_threads_that_share_rows_compute_the_same_bits(rng, kernel, stride, dilation):
    x = rng.standard_normal((1, 130, 37, 43)).astype(np.float32)
    w = rng.standard_normal((24, 130, *kernel)).astype(np.float32)
    how = {"stride": stride, "dilation": dilation, "algorithm": "direct"}
    results = [convnet.conv2d(x, w, **how, num_threads=n) for n in (1, 2, 3, 5)]
    grads = [
        convnet.conv2d_grad_input(results[0], w, x.shape, **how, num_threads=n)
        for n in (1, 2, 3, 5)
    ]
    for same in results, grads:
        for result in same[1:]:
            np.testing.assert_array_equal(result, same[0])


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conv2d_grad_bias", {}),
        ("conv2d_grad_bias", {"untied": True}),
        ("global_avg_pool2d", {}),
    ],
)
def test_large_sums_have_the_same_bits_for_any_thread_count(
    rng, name, options, dtype, layout
):
    # Large enough to be shared; channels for four vectors at a time, one, and none.
    x = to_layout(rng.standard_normal((5, 109, 37, 41)).astype(dtype), layout)
    options = {**options, "layout": layout}
    expected = getattr(convnet, name)(x, **options, num_threads=1)
    for num_threads in 2, 3, 16:
        result = getattr(convnet, name)(x, **options, num_threads=num_threads)
        assert_array_equal(result, expected)
    wanted = getattr(reference, name)(x.astype(float), **options)
    atol = tolerance(dtype, 5 * 37 * 41, 10)
    assert_allclose(expected, wanted, rtol=0, atol=atol)


def test_concurrent_callers_get_their_own_results(call):
    expected = call(1)
    wrong = []

    def work():
        wrong.extend(i for i in range(20) if not np.array_equal(call(2), expected))

    callers = [threading.Thread(target=work) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


FORKING = """
import os, sys, warnings
import numpy as np
import convnet
warnings.simplefilter("ignore")  # CPython warns of any fork in a threaded process
x = np.ones((2, 17, 31, 37), np.float32)
w = np.ones((19, 17, 3, 5), np.float32)
if {before}:
    convnet.conv2d(x, w, num_threads=2)
child = os.fork()
y = convnet.conv2d(x, w, num_threads=2, algorithm="direct")  # exact
if child == 0:
    os._exit(0 if (y == 17 * 15).all() else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), (y == 17 * 15).all())
"""


@pytest.mark.parametrize("before", [False, True])
def test_fork_works_in_parent_and_child(before):
    assert run_python(FORKING.format(before=before)) == "0 True"


INTERRUPTED = """
import os, signal, threading
import numpy as np
import convnet
one = np.float32(1)
x, y = (np.broadcast_to(one, (999, C, 112, 112)) for C in (64, 128))
w, out = np.ones((128, 64, 3, 3), np.float32), np.empty(1, np.float32)
options = dict(padding=1, num_threads={threads})
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    {call}
    print("finished")
except KeyboardInterrupt:
    y = convnet.conv2d(x[0, :, :5, :7], w, num_threads=2)
    print("interrupted", (y == 64 * 9).all())
"""
# Each takes more than a second.
LONG_CALLS = [
    "convnet.conv2d(x[:, :, 50:60], np.ones((128, 64, 9, 99), np.float32), **options)",
    "convnet.conv2d_grad_input(y[:99], np.ones((128, 64, 7, 7), np.float32), "
    "(99, 64, 112, 112), **options | dict(padding=3), algorithm='direct')",
    "convnet.conv2d_grad_weight(y, x, w.shape, **options)",
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", LONG_CALLS)
def test_interrupt_ends_a_long_call_and_the_next_one_works(call, threads):
    code = INTERRUPTED.format(call=call, threads=threads)
    assert run_python(code) == "interrupted True"


INTERRUPTED_POOLING = """
import os, signal, threading
import numpy as np
import convnet
x, out = np.ones((1, 1, 2000, 2000), np.float32), np.zeros((1, 1, 1992, 501), "f4")
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    convnet.max_pool2d(x, (9, 1500), 1, out=out, num_threads={threads})
except KeyboardInterrupt:
    print("interrupted", out[0, 0, 0, 0], out[0, 0, -1, -1])
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupt_ends_a_long_pooling_of_one_plane(threads):
    code = INTERRUPTED_POOLING.format(threads=threads)
    assert run_python(code) == "interrupted 1.0 0.0"


def test_signals_are_not_delivered_to_workers():
    code = (
        "import signal, threading, os, convnet, numpy as np\n"
        "seen = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.get_ident()))\n"
        "x = np.ones((2, 17, 31, 37), np.float32)\n"
        "w = np.ones((19, 17, 3, 3), np.float32)\n"
        "for _ in range(20):\n"
        "    convnet.conv2d(x, w, num_threads=2)\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "assert seen and set(seen) == {threading.main_thread().ident}"
    )
    run_python(code)
