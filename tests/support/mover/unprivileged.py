"""Run a function in a child process with fewer rights: as another user, with few capabilities, or with failing calls.

The child is forked, so that its user need not be able to read the package and the test.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import pickle
import platform
import struct
import traceback
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
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


class Call(Enum):
    """System calls that a file system may reject or ignore: numbers on x86_64 and on aarch64 (asm/unistd.h)."""

    CHOWN = ((92, 93, 94, 260), (54, 55))
    CHMOD = ((90, 91, 268, 452), (52, 53, 452))
    UTIME = ((280,), (88,))
    SETXATTR = ((188, 189, 190), (5, 6, 7))
    SYMLINK = ((266,), (36,))
    LINK = ((265,), (37,))
    MKNOD = ((259,), (33,))
    READLINK = ((267,), (78,))
    PREAD = ((17, 295, 327), (67, 69, 286))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the call on this machine."""
        return self.value[platform.machine() == "aarch64"]


IGNORED = 0
"""Result of a call that reports success but does nothing."""


def run_with_answers(function: Callable[[], T], answers: Mapping[Call, int], *, cwd: Path | None = None) -> T:
    """Call ``function`` while the kernel fails some system calls with an errno, or ignores them (IGNORED).

    NFS with root_squash and EFS access points fail chown with EPERM; SMB and blobfuse ignore it. Child processes of
    ``function`` are affected, too (seccomp(2), SECCOMP_RET_ERRNO). Returns its result or raises its error.
    """

    def drop() -> None:
        if cwd is not None:
            os.chdir(cwd)
        _answer_calls({number: errno for call, errno in answers.items() for number in call.numbers})

    return _run(function, drop)


codecs.lookup("ascii")
"""Loaded early, because user nobody may not be allowed to read Python's own files."""


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
    """Run in the child: send the result through the pipe, and never return to the test that forked it."""
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


_LOAD_NUMBER = struct.pack("HBBI", 0x20, 0, 0, 0)
"""BPF_LD | BPF_W | BPF_ABS of seccomp_data.nr (linux/bpf_common.h)."""
_ALLOW = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
"""BPF_RET of SECCOMP_RET_ALLOW (linux/seccomp.h)."""


def _answer_calls(answers: Mapping[int, int]) -> None:
    """Install a filter that returns the errno for each number. (prctl(2), PR_SET_SECCOMP)"""
    steps = [_LOAD_NUMBER]
    for number, answer in answers.items():
        steps.append(struct.pack("HBBI", 0x15, 0, 1, number))
        steps.append(struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | answer))
    steps.append(_ALLOW)
    code = ctypes.create_string_buffer(b"".join(steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    if _libc.prctl(38, 1, 0, 0, 0) != 0 or _libc.prctl(22, 2, program, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
