# SPDX-License-Identifier: MIT
"""`convnet train`: train one of the networks on the handwritten digits.

Protocol: the settings were fixed without the test images; the weights that are saved
are those of the epoch with the lowest *training* loss; the test accuracy after each
epoch is shown, and chooses nothing.
"""

import argparse
import hashlib
import importlib.util
import json
import math
import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import convnet
from convnet._threads import MOST as MOST_THREADS
from convnet.cli.errors import blame_user
from convnet.cli.tasks import TASKS, Outcome, Task
from convnet.data import load_digits
from convnet.history import History, KeepBest
from convnet.nn import Module
from convnet.train import fit
from convnet.weights import replacing, save_weights

__all__ = ["add_parser", "run", "weights_hash"]

WEIGHTS = "weights.npz"
EXTRAS = {"tqdm": "a progress bar", "matplotlib": "a picture of all this"}
MOST = 1_000_000  # of epochs, images in a batch
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@dataclass(frozen=True)
class Settings:
    """All that a run depends on: equal settings give equal weights."""

    task: str
    epochs: int
    batch_size: int
    lr: float
    seed: int


def run(args: argparse.Namespace) -> int:
    """Train, save and report; return the exit code."""
    task = TASKS[args.task]
    settings = Settings(
        task.name,
        args.epochs or task.epochs,
        args.batch_size or task.batch_size,
        args.lr or task.lr,
        args.seed,
    )
    folder = args.out or Path(f"convnet-{task.name}")
    if args.threads:
        convnet.set_num_threads(args.threads)
    with blame_user("cannot use", folder):
        folder.mkdir(parents=True, exist_ok=True)
    outcome = _train(task, settings)
    if outcome.epoch is None and (folder / WEIGHTS).exists():
        print(f"interrupted in epoch 1: {folder} keeps the weights of the run before")
        return INTERRUPTED
    with blame_user("cannot write to", folder):
        _save(outcome, settings, folder)
    if outcome.history.interrupted:
        _report_interruption(outcome, folder)
        return INTERRUPTED
    _report(outcome, folder)
    _draw(task, outcome, folder / "picture.png")
    print(f"next     convnet predict {shlex.quote(str(folder / WEIGHTS))}")
    return 0


def weights_hash(model: Module) -> str:
    """Return 12 hexadecimal digits that differ if any bit of the weights does."""
    digest = hashlib.sha256()
    for name, array in sorted(model.state_dict().items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()[:12]


def _train(task: Task, settings: Settings) -> Outcome:
    start = time.perf_counter()
    rng = np.random.default_rng(settings.seed)
    train, test = load_digits(task.classes)
    model = task.network(rng)
    x, labels = task.training_data(*train, rng)
    _announce(settings, model, len(train[0]), len(x), len(test[0]))
    optimizer = task.optimizer(model.parameters(), settings.lr)

    def decay(_: Module, history: History) -> None:
        optimizer.lr = settings.lr * task.lr_factor(len(history) / settings.epochs)

    best = KeepBest("loss")
    history = fit(
        model,
        task.loss(),
        optimizer,
        (x, task.targets(labels)),
        settings.epochs,
        settings.batch_size,
        validation=(test[0], task.targets(test[1])),
        progress="test",
        callbacks=(best, decay),
        rng=rng,
    )
    if best.epoch is None and len(history):
        best(model, history)  # Ctrl-C came between the first epoch and its callbacks.
    best.restore(model)
    readings = task.read(model.infer(test[0]))
    seconds = time.perf_counter() - start
    return Outcome(model, history, best.epoch, *test, *readings, seconds)


def _announce(
    settings: Settings, model: Module, n: int, steps: int, n_test: int
) -> None:
    size = sum(parameter.value.size for parameter in model.parameters())
    copies = f" in {steps // n} variations each" if steps > n else ""
    threads = convnet.get_num_threads()
    print(
        f"{settings.task}: {n} training images{copies}, {n_test} test images; "
        f"{size} parameters; seed {settings.seed}; "
        f"{threads} thread{'s' * (threads > 1)}, {convnet.get_isa()}",
        flush=True,
    )


def _save(outcome: Outcome, settings: Settings, folder: Path) -> None:
    """Write the weights and the history; what cannot be finished leaves no trace."""
    notes = asdict(settings) | {
        "epoch": outcome.epoch,
        "test_accuracy": outcome.accuracy,
        "convnet": convnet.__version__,
    }
    metadata = {name: str(value) for name, value in notes.items()}
    save_weights(outcome.model, folder / WEIGHTS, metadata=metadata)
    record = notes | {
        "weights_hash": weights_hash(outcome.model),
        "history": asdict(outcome.history),
    }
    with replacing(folder / "history.json") as file:
        file.write(json.dumps(record, indent=1).encode() + b"\n")


def _report(outcome: Outcome, folder: Path) -> None:
    right, count = int((outcome.read == outcome.labels).sum()), len(outcome.labels)
    print(
        f"test accuracy {100 * outcome.accuracy:.2f} % ({right} of {count} read right) "
        f"after {outcome.seconds:.1f} s, with the weights of epoch {outcome.epoch} "
        "(lowest training loss)"
    )
    print(f"weights  {folder / WEIGHTS}  (hash {weights_hash(outcome.model)})")
    print(f"history  {folder / 'history.json'}")


def _report_interruption(outcome: Outcome, folder: Path) -> None:
    which = (
        f"the weights of epoch {outcome.epoch}, the best so far,"
        if outcome.epoch
        else "the unfinished weights"
    )
    print(
        f"interrupted in epoch {len(outcome.history) + 1}: saved {which} in "
        f"{folder / WEIGHTS} (test accuracy {100 * outcome.accuracy:.2f} %)"
    )


def _draw(task: Task, outcome: Outcome, path: Path) -> None:
    """Save the picture, or say what is needed for it."""
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if "matplotlib" not in missing:
        from convnet.cli.picture import draw

        with blame_user("cannot write", path), replacing(path) as file:
            draw(task, outcome).savefig(file, format="png")
        print(f"picture  {path}")
    if missing:
        wish = " and ".join(EXTRAS[name] for name in missing)
        print(f'for {wish}: pip install "convnet-cpu[train]"')


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "train",
        help="train a network on the handwritten digits",
        description="Train a convolutional network on handwritten digits and test it "
        "on digits it has not seen. Saves the weights of the epoch with the lowest "
        "training loss; the test images choose nothing. Ctrl-C stops and saves.",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        default="digits",
        help="all ten digits, or 0 and 1 with a minimal network (default: digits)",
    )
    _add_numbers(parser)
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="equal seeds give equal weights on any number of threads (default: 0)",
    )
    parser.add_argument(
        "--threads", type=_threads, metavar="N", help="(default: all CPUs granted)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for weights, history and picture; those of an earlier run are replaced "
        "(default: convnet-TASK)",
    )
    parser.set_defaults(run=run)


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    """Add the options whose defaults depend on the task."""
    for option, kind, meaning in (
        ("epochs", _count, "how often to go through the images"),
        ("batch-size", _count, "images per step"),
        ("lr", _rate, "learning rate at the start"),
    ):
        defaults = ", ".join(
            f"{name} {getattr(task, option.replace('-', '_')):g}"
            for name, task in TASKS.items()
        )
        parser.add_argument(
            f"--{option}",
            type=kind,
            metavar="N",
            help=f"{meaning} (default: {defaults})",
        )


def _count(text: str, most: int = MOST) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(
            f"expected an integer from 1 to {most}, got {text!r}"
        )
    return int(text)


def _threads(text: str) -> int:
    return _count(text, MOST_THREADS)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer from 0, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= 100:
        raise argparse.ArgumentTypeError(
            f"expected a number above 0, at most 100, got {text!r}"
        )
    return rate
