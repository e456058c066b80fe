"""A small new file whose creation a restore defers."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from cinderblock.format.entries import Entry
from cinderblock.format.range_reader import Buffer
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.tree.target_file import TargetFile


class DeferredFile(Closeable):
    """The content of a file that does not exist yet (a `content.TargetContent`).

    The thread that puts entries creates the file when it first writes or finishes it. Alternatively another process
    creates and finishes it (`workers.create_worker`), and the caller then calls `mark_made`.

    Attributes:
        entry: the entry of the file.
    """

    def __init__(self, entry: Entry, make: Callable[[Entry], TargetFile], on_finish: Callable[[], None]) -> None:
        """``make`` creates the file in this process; ``on_finish`` is called if another process has made it."""
        self.entry = entry
        self._make_file = make
        self._on_finish = on_finish
        self._file: TargetFile | None = None

    @property
    def size(self) -> int:
        """Final size of the file in bytes."""
        return self.entry.size

    @property
    def is_blank(self) -> bool:
        """Always true: there is no content to compare with."""
        return True

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Create the file, and read nothing from it. Raises TargetError."""
        return self.make().read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``. Raises TargetError."""
        self.make().write(offset, data)

    def clear(self, offset: int, length: int) -> None:
        """Do nothing: a new file is one hole."""

    def finish(self) -> None:
        """Set size and attributes of the file, and close it. Raises TargetError."""
        self.make().finish()

    @property
    def is_made(self) -> bool:
        """Whether this process has created the file."""
        return self._file is not None

    def make(self) -> TargetFile:
        """Return the file, and create it on the first call. Raises TargetError."""
        if self._file is None:
            self._file = self._make_file(self.entry)
        return self._file

    def mark_made(self) -> None:
        """Record that another process has created, written and finished the file."""
        self._on_finish()

    @override
    def close(self) -> None:
        """Close the descriptor, if there is one, without finishing. May be repeated."""
        if self._file is not None:
            self._file.close()
