# SPDX-License-Identifier: MIT
"""A library's process, as the bench sees it: start it, ask it, end it."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.worker import Hello, serve

# Read by the libraries, their OpenMP and their BLAS when they are loaded.
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "CONVNET_NUM_THREADS"),
)


class LibraryError(Exception):
    """A library failed, and its process may have died of it."""


class Process:
    """One library in a process of its own, with a fixed number of threads."""

    def __init__(self, name: str, threads: int, memory: str) -> None:
        self.name, self.threads = name, threads
        context = multiprocessing.get_context("spawn")
        self._line, far_end = context.Pipe()
        self._process = context.Process(
            target=serve, args=(far_end, name, threads, memory), name=name, daemon=True
        )
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(threads))):
            self._process.start()
        far_end.close()

    def greet(self, timeout: float) -> None:
        """Wait until the library is loaded, and check its number of threads."""
        self.hello: Hello = self._answer(timeout)
        if self.hello.threads > self.threads:
            raise LibraryError(
                f"runs {self.hello.threads} threads where {self.threads} were set"
            )

    def ask(self, timeout: float, verb: str, *arguments: Any) -> Any:
        """Return the library's answer to a request (see `worker.Stand`)."""
        try:
            self._line.send((verb, *arguments))
        except OSError:
            raise LibraryError("its process has died") from None
        return self._answer(timeout)

    def close(self) -> None:
        """Hang up, and end the process if it does not end by itself."""
        self._line.close()
        self._process.join(1)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self, timeout: float) -> Any:
        try:
            if not self._line.poll(timeout):
                self._process.kill()
                raise LibraryError(f"no answer within {timeout:.0f} seconds")
            done, answer = self._line.recv()
        except (EOFError, OSError):
            raise LibraryError("its process has died") from None
        if not done:
            raise LibraryError(answer)
        return answer


@contextmanager
def started(
    names: Sequence[str], threads: int, timeout: float, memory: str
) -> Iterator[tuple[list[Process], dict[str, str]]]:
    """Start all libraries together; yield those that run, and why others do not."""
    processes = [Process(name, threads, memory) for name in names]
    running, failures = [], {}
    try:
        for process in processes:
            try:
                process.greet(timeout)
                running.append(process)
            except LibraryError as error:
                failures[process.name] = str(error)
        yield running, failures
    finally:
        for process in processes:
            process.close()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while: a new process inherits them."""
    before = os.environ.copy()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
