"""The program that reads a tree: ``python -m cinderblock.volume.workers.walk_worker``.

124,000 files in 9,000 directories take half a second of system calls and of the interpreter. Meanwhile the first
process opens the store, reads the parent's manifest, and compares or reads the rows (`walk_process`). This process ends
when the reader closes the pipe.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cinderblock.api.file_policies import Unreadable
from cinderblock.errors import SourceChanging, SourceError
from cinderblock.volume.errors import source_error
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.tree.walk import SkippedObjects, TreeWalk

LENGTH: Final = struct.Struct("<I")
"""The length before each message. Without it, marshal would read the pipe number by number."""
ROWS: Final = "rows"
ERROR: Final = "error"
END: Final = "end"
Message = tuple[str, tuple[Any, ...]]
"""A tag and plain values. ROWS carries the result of `Rows.to_plain`, any number of times. The last message is END with
the counts of `SkippedObjects` and `Omissions`, or ERROR with the class, message and reason of the error that ended the
walk."""


def messages(root: int, unreadable: Unreadable = Unreadable.FAIL) -> Iterator[Message]:
    """Walk below an open directory, and yield the messages about it."""
    skipped, omissions = SkippedObjects(), Omissions(unreadable)
    try:
        for rows in TreeWalk(root, skipped, omissions).rows():
            yield ROWS, rows.to_plain()
    except (SourceError, SourceChanging) as error:
        yield ERROR, (type(error).__name__, error.message, str(error.reason))
    except OSError as cause:
        root_error = source_error(cause, "begin to walk through", b"")
        yield ERROR, (SourceError.__name__, root_error.message, str(root_error.reason))
    else:
        yield END, (skipped.to_plain(), omissions.to_plain())


def main(arguments: Sequence[str]) -> int:
    """Walk through a tree.

    Args:
        arguments: descriptors of the root and of the pipe; bytes that may be buffered while the pipe is full; the
            policy for objects that cannot be read.
    """
    # Ctrl-C reaches all processes of a terminal, but the process that reads the pipe must end this one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    root, pipe, max_buffered = (int(argument) for argument in arguments[:3])
    os.set_blocking(pipe, False)
    buffer = bytearray()
    try:
        for message in messages(root, Unreadable(arguments[3])):
            data = marshal.dumps(message)
            buffer += LENGTH.pack(len(data)) + data
            send(pipe, buffer, max_buffered)
        send(pipe, buffer, 0)
    except BrokenPipeError:
        return 0
    return 0


def send(pipe: int, buffer: bytearray, max_buffered: int) -> None:
    """Write ``buffer`` to the pipe until at most ``max_buffered`` bytes are left in it.

    Raises BrokenPipeError if the reader has closed the pipe.
    """
    poller = select.poll()
    poller.register(pipe, select.POLLOUT)
    while buffer:
        try:
            with memoryview(buffer) as view:
                sent = os.write(pipe, view)
        except BlockingIOError:
            if len(buffer) <= max_buffered:
                return
            poller.poll()
        else:
            del buffer[:sent]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
