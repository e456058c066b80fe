"""Tests of the allocator settings: a mover's threads allocate from one heap."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

THREADS = """
import ctypes, threading
from cinderblock.volume.kernel.allocator import use_single_arena
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
    ("first", "is_one"), [("use_single_arena()", True), ("", False)], ids=["single arena", "default"]
)
def test_all_threads_use_one_heap_on_request(first: str, is_one: bool) -> None:
    command = [sys.executable, "-c", THREADS.format(first=first)]
    environment = {**os.environ, "PYTHONPATH": "operator"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
    assert ("Arena 0" in output, "Arena 1" in output) == (True, not is_one)
