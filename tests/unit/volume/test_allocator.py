"""Tests of the allocator settings: the threads of movers and of the operator allocate from one heap."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

THREADS = """
import ctypes, threading
from cinderblock.volume.kernel.allocator import return_freed_memory, use_single_arena
{first}
together = threading.Barrier(8)
def work():
    held = [bytes(100_000) for _ in range(50)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="only glibc tells")
@pytest.mark.parametrize(
    ("first", "is_one"),
    [("use_single_arena()", True), ("return_freed_memory()", True), ("", False)],
    ids=["mover", "operator", "default"],
)
def test_all_threads_use_one_heap_on_request(first: str, is_one: bool) -> None:
    command = [sys.executable, "-c", THREADS.format(first=first)]
    environment = {**os.environ, "PYTHONPATH": "operator"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    assert ("Arena 0" in output, "Arena 1" in output) == (True, not is_one)


RESIDENT = """
import gc
from cinderblock.volume.kernel.allocator import return_freed_memory
{first}
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
large = bytearray(24 << 20)
del large
before = resident()
blocks = [bytearray(b"x" * (1 << 20)) for _ in range(64)]
kept = bytes(1000)
del blocks
print(resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_stats"), reason="only glibc tells")
def test_large_freed_blocks_go_back_to_the_kernel() -> None:
    command = [sys.executable, "-c", RESIDENT.format(first="return_freed_memory()")]
    environment = {**os.environ, "PYTHONPATH": "operator"}
    kept = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert int(kept) < 8 << 10
