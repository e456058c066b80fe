"""Runs a function in a child process with fewer powers: another user, or root with few capabilities.

The child is forked, so that it needs neither the package nor the test on a path that the user may read.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import pickle
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NOBODY = 65534
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def run_as_user(function: Callable[[], T], *, cwd: Path, uid: int = NOBODY, gid: int = NOBODY) -> T:
    """Call ``function`` as another user without any capability, and return its result or raise its error.

    It runs in ``cwd``, even if the user may not read the directories above.
    """

    def drop() -> None:
        os.chdir(cwd)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    return _run(function, drop)


def run_with_capabilities(function: Callable[[], T], capabilities: Iterable[int]) -> T:
    """Call ``function`` as root with these capabilities only, and return its result or raise its error."""
    return _run(function, lambda: _keep_only(capabilities))


codecs.lookup("ascii")
"""Loaded while we may still read Python's own files: who is nobody may not, where they belong to root alone."""


def _run(function: Callable[[], T], drop: Callable[[], None]) -> T:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(function, drop, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    succeeded, value = pickle.loads(answer)
    if not succeeded:
        raise AssertionError(f"in the child process:\n{value}")
    result: T = value
    return result


def _answer(function: Callable[[], T], drop: Callable[[], None], write_end: int) -> None:
    """In the child: answers through the pipe, and never returns to the test that forked it."""
    answer: tuple[bool, object] | None = None
    try:
        drop()
        answer = (True, function())
    finally:
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(pickle.dumps(answer or (False, traceback.format_exc())))
        os._exit(0)


def _keep_only(capabilities: Iterable[int]) -> None:
    """Set the effective and permitted capabilities. (capset(2))"""
    mask = sum(1 << number for number in set(capabilities))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if _libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
