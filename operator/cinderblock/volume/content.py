"""What the bytes of a file and the bytes of a device have in common."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from cinderblock.format.entries import ByteRange
from cinderblock.format.range_reader import Buffer


class SourceContent(Protocol):
    """Content that a backup reads. Reads may come from several threads at once."""

    @property
    def size(self) -> int:
        """Bytes, as of the opening."""

    def data_ranges(self) -> Iterator[ByteRange]:
        """Ranges that may hold something else than zeros, in order, not overlapping, within ``size``.

        Raises SourceError.
        """

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``; fewer bytes than fit come back only where the content ends.

        Returns the number of bytes read. Raises SourceError.
        """

    @property
    def is_settled(self) -> bool:
        """Whether `has_changed` tells of every change since the opening; if not, only reading twice does."""

    def has_changed(self) -> bool:
        """Whether the content has changed since the opening, as far as its stamps tell. Raises SourceError."""

    def close(self) -> None:
        """Give up the descriptor. May be repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


class TargetContent(Protocol):
    """Content that a restore writes. Reads and writes of ranges that do not overlap may come from several threads."""

    @property
    def size(self) -> int:
        """Bytes that the content is to have in the end."""

    @property
    def is_blank(self) -> bool:
        """Whether it is known to hold nothing but zeros, so that comparing before writing is of no use."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """What is there now, as of a source; for comparing before writing. Raises TargetError."""

    def write(self, offset: int, data: Buffer) -> None:
        """Put ``data`` at ``offset``. Raises TargetError."""

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros, taking no space if the target can do so. Raises TargetError."""

    def finish(self) -> None:
        """All is written: give the content its size and attributes, and close. Raises TargetError."""

    def close(self) -> None:
        """Give up the descriptor without finishing. May be repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
