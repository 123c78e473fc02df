# SPDX-License-Identifier: MIT
"""The command ``convnet``: train, predict, info."""

import argparse
import os
import sys
from collections.abc import Sequence

from convnet._threads import get_num_threads
from convnet._version import __version__
from convnet.cli import info, predict, train
from convnet.cli.errors import UserError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments without the program's name; by default those of the process.
        Wrong ones end in SystemExit, as argparse has it.

    Returns
    -------
    int
        0 if all went well, 2 after a mistake of the user's, 130 after Ctrl-C.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        get_num_threads()
    except ValueError as error:  # from CONVNET_NUM_THREADS
        parser.error(str(error))
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except UserError as error:
        print(f"convnet {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return train.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has enough; the interpreter will flush once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnet",
        description="Convolutional networks on the CPU: train one, read digits with "
        "it, or see how this installation computes.",
    )
    parser.add_argument("--version", action="version", version=f"convnet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, predict, info):
        command.add_parser(commands)
    return parser
