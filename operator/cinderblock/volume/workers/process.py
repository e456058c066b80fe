"""Start and end of worker processes (`create_worker`, `walk_worker`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence

from cinderblock.errors import TransientError
from cinderblock.reasons import Reason


def spawn(module: str, descriptors: Sequence[int], arguments: Iterable[str] = ()) -> subprocess.Popen[bytes]:
    """Run a module; its arguments are the descriptors, which it inherits, and ``arguments``.

    Raises OSError if the process cannot be started.
    """
    # -P: never import modules from the current directory.
    command = [sys.executable, "-P", "-m", module, *map(str, descriptors), *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=descriptors)


def worker_died(child: subprocess.Popen[bytes], action: str) -> TransientError:
    """Return the error for a process that ended too early; ``action`` completes "Cannot"."""
    return TransientError(
        f"Cannot {action}: a process ended with {child.returncode}. If it ran out of memory (-9), raise the mover's"
        " memory limit. Otherwise try again.",
        reason=Reason.MOVER_FAILED,
    )
