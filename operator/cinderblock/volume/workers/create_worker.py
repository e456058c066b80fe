"""The program that creates small files for a restore: ``python -m cinderblock.volume.workers.create_worker``.

A new file takes five system calls and as much work of the interpreter. One process, which makes them one after the
other, needed 7.4 s for 124,000 files while the second processor was mostly idle. `create_pool` starts such processes
and sends them orders: bytes in shared memory, everything else through a socket. The process ends when the socket is
closed.
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
"""Argument for a restore that unexpected losses end."""
Writes = list[tuple[int, int, int]]
"""For each run of data its start in the file, its start in the shared memory, and its length."""
CreateOrder = tuple[tuple[Any, ...], Writes]
"""A file to create: the fields of its Entry except kind and extents. Plain values are sent several times as fast as
named tuples."""
CreateResult = tuple[str | None, LossCount]
"""The message of the error that ended the orders, or None; and the losses."""


def make_order(entry: Entry, writes: Writes) -> CreateOrder:
    """Return the order for a file."""
    return (entry.path, *entry[2:-1]), writes


class FileCreator:
    """Creates files below a directory.

    Args:
        root: descriptor of the volume's root.
        memory: contains the bytes of the files.
        support: metadata that cannot be kept.
        is_strict: whether any other loss is an error.
    """

    def __init__(self, root: int, memory: memoryview, support: MetadataSupport, *, is_strict: bool) -> None:
        self._stack = DirectoryStack(root)
        self._memory = memory
        self._support = support
        self._is_strict = is_strict

    def make(self, orders: Sequence[CreateOrder]) -> CreateResult:
        """Create, write and finish files until the first error. Their directories must exist."""
        losses = MetadataLosses(self._support, is_strict=self._is_strict)
        message = None
        try:
            for fields, writes in orders:
                path, *rest = fields
                self._make(Entry(path, EntryKind.FILE, *rest), writes, losses)
        except TargetError as error:
            message = error.message
        return message, losses.to_plain()

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
    """Do nothing: the result reports the file."""


def main(arguments: Sequence[str]) -> int:
    """Execute orders until the socket is closed.

    Args:
        arguments: descriptors of the socket, the root and the shared memory; STRICT or another word; names of Features
            that cannot be kept.
    """
    # Ctrl-C reaches all processes of a terminal, but the process that sends the orders must end this one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    socket, root, shared = (int(argument) for argument in arguments[:3])
    support = MetadataSupport({Feature[name]: "" for name in arguments[4:]})
    creator = FileCreator(root, memoryview(mmap.mmap(shared, 0)), support, is_strict=arguments[3] == STRICT)
    with Connection(socket) as connection:
        while True:
            try:
                connection.send(creator.make(connection.recv()))
            except (EOFError, ConnectionError):
                return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
