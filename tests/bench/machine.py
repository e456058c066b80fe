"""Describe the machine of a measurement, without its name."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from typing import Final

from cinderblock import __version__
from tests.bench.running import Processors
from tests.cluster import golang

_MODEL: Final = r"model name\s*: (.+)"
_MEMORY: Final = r"MemTotal:\s+(\d+)"
_KERNEL: Final = r"([0-9]+(?:\.[0-9]+)*)"


def describe(directory: str, processors: Processors) -> Iterator[str]:
    """Return lines about the machine and the versions. ``directory`` contains the volumes and the store."""
    yield f"Processor: {_find('/proc/cpuinfo', _MODEL)}, {os.cpu_count()} cores"
    yield f"Memory: {int(_find('/proc/meminfo', _MEMORY)) / 2**20:.0f} GiB"
    yield f"Disk of volumes and store: {_file_system(directory)} on a virtual disk"
    yield f"Kernel: Linux {_find('/proc/sys/kernel/osrelease', _KERNEL)}"
    yield f"Python {platform.python_version()}, cinderblock {__version__}"
    yield f"S3 server: versitygw {golang.pinned('versitygw', 'github.com/versity/versitygw')} on the loopback interface"
    yield _division(processors)


def _division(processors: Processors) -> str:
    measured = f"Measured programs are pinned to {len(processors.measured)} processors"
    if not processors.are_shared:
        return f"{measured}, the S3 server to the other {len(processors.rest)}"
    shared = "Its work for a program, or for a limit, is part of that one's wall time"
    return f"{measured}, which the S3 server shares. {shared}"


def _find(path: str, pattern: str) -> str:
    with open(path) as file:
        found = re.search(pattern, file.read())
    return found[1].strip() if found else "unknown"


def _file_system(directory: str) -> str:
    """Return the type of the file system that contains a directory (proc(5), mountinfo)."""
    device = os.stat(directory).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as file:
        kinds = [line.partition(" - ")[2].split()[0] for line in file if line.split()[2] == number]
    return kinds[0] if kinds else "unknown"
