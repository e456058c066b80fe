"""A walk through a tree in a process of its own (`walk_worker`), started before its results are needed."""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import struct
from collections.abc import Iterator
from typing import Final

from typing_extensions import override

from cinderblock.api.file_policies import Unreadable
from cinderblock.errors import SourceChanging, SourceError
from cinderblock.reasons import parse_reason
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.tree.rows import Rows
from cinderblock.volume.tree.walk import SkippedObjects
from cinderblock.volume.workers import process
from cinderblock.volume.workers.walk_worker import END, ERROR, LENGTH, ROWS, Message

PIPE_BYTES: Final = 1 << 20
"""Capacity of the pipe: about 8,000 objects. Only root may set more (pipe(7), pipe-max-size)."""
AHEAD_BYTES: Final = 8 << 20
"""Bytes that the process buffers while the pipe is full: about 65,000 objects. It starts 0.2 s before the first read
and finds 50,000 in this time. With the pipe alone, an unchanged tree of 124,000 files took 1.1 s instead of 0.9."""
_ERRORS: Final = {error.__name__: error for error in (SourceError, SourceChanging)}


def is_worthwhile() -> bool:
    """Return whether there is a second processor for the walk."""
    return len(os.sched_getaffinity(0)) > 1


class WalkProcess(Closeable):
    """One walk, whose rows can be read once.

    Args:
        root: descriptor of the tree's root.
        unreadable: policy for objects that cannot be read.

    Raises OSError if the process cannot be started.
    """

    def __init__(self, root: int, unreadable: Unreadable = Unreadable.FAIL) -> None:
        parent_end, child_end = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(child_end, "wb"):
            self._pipe = os.fdopen(parent_end, "rb")
            with contextlib.suppress(OSError):
                fcntl.fcntl(parent_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            try:
                self._child = process.spawn(
                    "cinderblock.volume.workers.walk_worker", (root, child_end), [str(AHEAD_BYTES), unreadable]
                )
            except OSError:
                self._pipe.close()
                raise

    def rows(self, skipped: SkippedObjects, omissions: Omissions) -> Iterator[Rows]:
        """Yield the rows of `TreeWalk.rows`, then add to ``skipped`` and ``omissions``.

        Raises the errors of the walk; TransientError if the process has ended too early.
        """
        while True:
            tag, content = self._receive()
            if tag == ROWS:
                yield Rows.from_plain(content)
            elif tag == END:
                skipped_counts, omission_count = content
                skipped.add(skipped_counts)
                omissions.add(omission_count)
                return
            else:
                assert tag == ERROR
                error, text, reason = content
                raise _ERRORS[error](text, reason=parse_reason(reason))

    def _receive(self) -> Message:
        try:
            (length,) = LENGTH.unpack(self._pipe.read(LENGTH.size))
            # Not pickle: marshal can create only plain values, whatever comes through this pipe.
            message: Message = marshal.loads(self._pipe.read(length))  # noqa: S302
        except (struct.error, EOFError) as error:
            self._child.wait()
            raise process.worker_died(self._child, "walk through the volume") from error
        return message

    @override
    def close(self) -> None:
        """Kill the process, and wait for it. May be repeated."""
        self._pipe.close()
        self._child.kill()
        self._child.wait()
