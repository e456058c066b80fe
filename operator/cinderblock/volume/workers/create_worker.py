"""The program of a process that makes small files of a restore: ``python -m cinderblock.volume.workers.create_worker``.

A new file is five system calls and as much work of the interpreter, and one process makes them one after the other:
124,000 files took 7.4 s, while the second processor had little to do. `makers` starts such processes and tells them
what to make: bytes come by shared memory, everything else by a socket. It ends when the socket does.
"""

from __future__ import annotations

import mmap
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from cinderblock.errors import TargetError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.errors import target_error
from cinderblock.volume.metadata_support import Feature, LossCount, MetadataLosses, MetadataSupport
from cinderblock.volume.tree.dirfd import DirectoryStack, parts_of
from cinderblock.volume.tree.target_file import TargetFile, make_file

STRICT: Final = "Strict"
"""Means that a loss which was not known beforehand ends the work."""
Writes = list[tuple[int, int, int]]
"""For each run of data where it begins in the file and in the shared memory, and its length."""
CreateOrder = tuple[tuple[Any, ...], Writes]
"""A file to be made: the fields of its Entry but for kind and extents, as plain values, since those are sent several
times as fast as named tuples."""
CreateResult = tuple[str | None, LossCount]
"""What was refused, as a sentence, and what could not be kept."""


def make_order(entry: Entry, writes: Writes) -> CreateOrder:
    """How a file is ordered."""
    return (entry.path, *entry[2:-1]), writes


class FileCreator:
    """Makes files below a directory.

    Args:
        root: descriptor of the volume's root.
        memory: where the bytes of the files are.
        fidelity: what cannot be kept.
        is_strict: whether any other loss is a refusal.
    """

    def __init__(self, root: int, memory: memoryview, support: MetadataSupport, *, is_strict: bool) -> None:
        self._stack = DirectoryStack(root)
        self._memory = memory
        self._support = support
        self._is_strict = is_strict

    def make(self, orders: Sequence[CreateOrder]) -> CreateResult:
        """Make, write and finish files, until one is refused. Their directories must be there."""
        losses = MetadataLosses(self._support, is_strict=self._is_strict)
        refusal = None
        try:
            for fields, writes in orders:
                path, *rest = fields
                self._make(Entry(path, EntryKind.FILE, *rest), writes, losses)
        except TargetError as error:
            refusal = error.message
        return refusal, losses.to_plain()

    def _make(self, entry: Entry, writes: Writes, losses: MetadataLosses) -> None:
        parent, _, name = entry.path.rpartition(b"/")
        try:
            fd = make_file(self._stack.go_to(parts_of(parent)), name)
        except OSError as error:
            raise target_error(error, "create", entry.path) from error
        with TargetFile(fd, entry, is_new=True, losses=losses, on_finish=_ignore) as file:
            for offset, start, length in writes:
                file.write(offset, self._memory[start : start + length])
            file.finish()


def _ignore() -> None:
    """Whoever ordered the file is told of it by the answer."""


def main(arguments: Sequence[str]) -> int:
    """Make what comes, until nothing comes any more.

    Args:
        arguments: descriptors of the socket, the root and the shared memory; STRICT or another word; names of Features
            that cannot be kept.
    """
    # Ctrl-C reaches all processes of a terminal; the one that gives the orders says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    socket, root, shared = (int(argument) for argument in arguments[:3])
    fidelity = MetadataSupport({Feature[name]: "" for name in arguments[4:]})
    maker = FileCreator(root, memoryview(mmap.mmap(shared, 0)), fidelity, is_strict=arguments[3] == STRICT)
    with Connection(socket) as connection:
        while True:
            try:
                connection.send(maker.make(connection.recv()))
            except (EOFError, ConnectionError):
                return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
