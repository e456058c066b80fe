"""A small file that a target does not have yet, while a restore has not made it."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from cinderblock.format.entries import Entry
from cinderblock.format.range_reader import Buffer
from cinderblock.volume.closeable import Closeable
from cinderblock.volume.tree.target_file import TargetFile


class DeferredFile(Closeable):
    """The content of a file that is still to be made (a `content.TargetContent`).

    It is made when it is written or finished, by the thread that puts entries; or by another process (`making`), whose
    caller then says so by `made_elsewhere`.

    Attributes:
        entry: what the file is to be.
    """

    def __init__(self, entry: Entry, make: Callable[[Entry], TargetFile], on_finish: Callable[[], None]) -> None:
        """``make`` makes the file here; ``on_finish`` is told if it was made elsewhere."""
        self.entry = entry
        self._make = make
        self._on_finish = on_finish
        self._file: TargetFile | None = None

    @property
    def size(self) -> int:
        """Bytes that the file is to have."""
        return self.entry.size

    @property
    def is_blank(self) -> bool:
        """There is nothing to compare with."""
        return True

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Nothing is there. Raises TargetError."""
        return self.made().read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:
        """Put ``data`` at ``offset``. Raises TargetError."""
        self.made().write(offset, data)

    def clear(self, offset: int, length: int) -> None:
        """All of it is a hole."""

    def finish(self) -> None:
        """Give the file its size and attributes, and close it. Raises TargetError."""
        self.made().finish()

    @property
    def is_made(self) -> bool:
        """Whether it was made here."""
        return self._file is not None

    def made(self) -> TargetFile:
        """The file, made now if it was not yet. Raises TargetError."""
        if self._file is None:
            self._file = self._make(self.entry)
        return self._file

    def made_elsewhere(self) -> None:
        """Another process has made, written and finished it."""
        self._on_finish()

    @override
    def close(self) -> None:
        """Give up the descriptor, if there is one, without finishing. May be repeated."""
        if self._file is not None:
            self._file.close()
