"""Run a program and measure its resources."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tests.bench.other_load import busy_seconds
from tests.bench.processes import Together

_OWN_MEMORY: Final = 64 << 20
"""Bytes that this process may ever have had: far below what it measures."""

_ROOT: Final = Path(__file__).parents[2]
OWN_PATH: Final = {"PYTHONPATH": f"{_ROOT / 'operator'}{os.pathsep}{_ROOT}"}
"""Environment in which our own modules are found."""


class BenchError(Exception):
    """The conditions of a measurement do not hold, so there is no result."""


@dataclass(frozen=True)
class Processors:
    """The processors for the measured program and for everything else.

    Attributes:
        measured: processors of what is measured.
        rest: processors of this process and of the S3 server.
        wait_seconds: seconds to wait at most for others to leave the measured processors alone.
    """

    measured: tuple[int, ...]
    rest: tuple[int, ...]
    wait_seconds: int

    @classmethod
    def divide(cls, count: int, wait_seconds: int) -> Processors:
        """Reserve the last ``count`` processors for the measured program. The rest, if any, are for everything else."""
        present = sorted(os.sched_getaffinity(0))
        measured = tuple(present[-count:])
        return cls(measured, tuple(present[:-count]) or measured, wait_seconds)

    @property
    def are_shared(self) -> bool:
        """Return whether the measured program shares its processors with the S3 server."""
        return self.measured == self.rest


@dataclass(frozen=True)
class Usage:
    """The resources that one run of a program used.

    Attributes:
        wall: seconds.
        cpu: seconds of user and system time.
        memory: bytes of the largest resident set (``ru_maxrss`` of the child), or of all its processes together.
        others: seconds that others used the measured processors meanwhile, including the kernel's work for the program
            (network, writeback).
        output: the standard output.
    """

    wall: float
    cpu: float
    memory: int
    others: float
    output: str


def run(command: Sequence[str], environment: Mapping[str, str], processors: Processors) -> Usage:
    """Run a program on the processors for what is measured. Raises BenchError if it fails.

    A child's ``ru_maxrss`` begins with that of the process that forked it (Linux keeps it across execve), so
    all that takes memory happens in children. Raises BenchError if this process was ever too large to measure.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if own > _OWN_MEMORY:
        raise BenchError(f"this process had {own >> 20} MiB: it would be taken for memory of {command[0]}")
    pinned = ["taskset", "--cpu-list", ",".join(map(str, processors.measured)), *command]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        busy, begin = busy_seconds(processors.measured), time.perf_counter()
        child = subprocess.Popen(
            pinned, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        with Together(child.pid) as together:
            try:
                _, status, used = os.wait4(child.pid, 0)
            except BaseException:
                child.kill()
                child.wait()
                raise
            wall = time.perf_counter() - begin
            busy = busy_seconds(processors.measured) - busy
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise BenchError(f"{command[0]} ended with {child.returncode}: {_text(errors)[-2000:]}")
        cpu = used.ru_utime + used.ru_stime
        return Usage(wall, cpu, max(used.ru_maxrss << 10, together.peak), max(0.0, busy - cpu), _text(output))


def aside(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run one of our own modules in a child that is not measured, and return what it prints. Raises BenchError."""
    done = subprocess.run(
        own_module(module, *arguments),
        env={**os.environ, **OWN_PATH, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"{module} {' '.join(arguments)} failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def own_module(module: str, *arguments: str) -> list[str]:
    """Return the command line of one of our own modules. It needs OWN_PATH in its environment."""
    return [sys.executable, "-m", module, *arguments]


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
