"""Processes of our own that do a part of the work on a tree: `making` and `walking`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence

from cinderblock.errors import TransientError
from cinderblock.reasons import Reason


def spawn(module: str, descriptors: Sequence[int], more: Iterable[str] = ()) -> subprocess.Popen[bytes]:
    """Run a module of ours; its arguments are the descriptors, which it inherits, and ``more``.

    Raises OSError if the kernel starts no process.
    """
    # -P: what lies about in the current directory is not ours to import.
    command = [sys.executable, "-P", "-m", module, *map(str, descriptors), *more]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=descriptors)


def worker_died(child: subprocess.Popen[bytes], does: str) -> TransientError:
    """What to say of a process that has ended too early; ``does``: what it was there for."""
    return TransientError(
        f"a process that {does} ended with {child.returncode}: it may have run out of memory (-9); raise the mover's "
        "memory limit, or try again",
        reason=Reason.MOVER_FAILED,
    )
