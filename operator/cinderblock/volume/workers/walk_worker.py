"""The program of a process that goes through a tree: ``python -m cinderblock.volume.workers.walk_worker``.

124,000 files and their 9,000 directories are half a second of system calls and of the interpreter. Meanwhile the first
process opens the store, reads the parent's manifest, and compares or reads what was found (`walker`). It ends when
nobody reads its pipe any more.
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

from cinderblock.api.losses import Unreadable
from cinderblock.errors import SourceChanging, SourceError
from cinderblock.volume.errors import source_error
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.tree.walk import SkippedObjects, TreeWalk

LENGTH: Final = struct.Struct("<I")
"""Before each message: its bytes. What marshal reads from a pipe by itself it reads number by number."""
LEFT_OUT: Final = "LeftOut"
Message = tuple[Any, ...]
"""The parts of `Rows` as plain values, several times; then LEFT_OUT and that, as `Skipped` and as `Gaps` say it; or the
refusal that ended the walk: the name of its class, its message and its reason."""


def messages(root: int, unreadable: Unreadable = Unreadable.FAIL) -> Iterator[Message]:
    """One walk, below an open directory."""
    skipped, gaps = SkippedObjects(), Omissions(unreadable)
    try:
        for rows in TreeWalk(root, skipped, gaps).rows():
            yield rows.plain()
    except (SourceError, SourceChanging) as error:
        yield type(error).__name__, error.message, str(error.reason)
    except OSError as error:
        refusal = source_error(error, "begin to walk through", b"")
        yield SourceError.__name__, refusal.message, str(refusal.reason)
    else:
        yield LEFT_OUT, skipped.plain(), gaps.plain()


def main(arguments: Sequence[str]) -> int:
    """Go through a tree.

    Args:
        arguments: descriptors of the root and of the pipe; bytes that may be kept while the pipe is full; what to do
            about what cannot be read.
    """
    # Ctrl-C reaches all processes of a terminal; the one that reads says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    root, pipe, may_keep = (int(argument) for argument in arguments[:3])
    os.set_blocking(pipe, False)
    kept = bytearray()
    try:
        for message in messages(root, Unreadable(arguments[3])):
            data = marshal.dumps(message)
            kept += LENGTH.pack(len(data)) + data
            send(pipe, kept, may_keep)
        send(pipe, kept, 0)
    except BrokenPipeError:
        return 0
    return 0


def send(pipe: int, kept: bytearray, may_keep: int) -> None:
    """Move what the pipe takes from ``kept`` into it, and wait until at most ``may_keep`` bytes are left.

    Raises BrokenPipeError if nobody reads any more.
    """
    room = select.poll()
    room.register(pipe, select.POLLOUT)
    while kept:
        try:
            with memoryview(kept) as view:
                sent = os.write(pipe, view)
        except BlockingIOError:
            if len(kept) <= may_keep:
                return
            room.poll()
        else:
            del kept[:sent]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
