"""The common interface of the bytes of a file and the bytes of a device."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from cinderblock.format.entries import ByteRange
from cinderblock.format.range_reader import Buffer


class SourceContent(Protocol):
    """Content that a backup reads. Several threads may read at once."""

    @property
    def size(self) -> int:
        """Bytes at the time of opening."""

    def data_ranges(self) -> Iterator[ByteRange]:
        """Yield the ranges that may contain something other than zeros: in order, not overlapping, within ``size``.

        Raises SourceError.
        """

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset``, and return the number of bytes read.

        It is less than the size of the buffer only at the end of the content. Raises SourceError.
        """

    @property
    def is_settled(self) -> bool:
        """Whether `has_changed` detects every change since the opening. If not, only a second reading does."""

    def has_changed(self) -> bool:
        """Return whether the timestamps show a change since the opening. Raises SourceError."""

    def close(self) -> None:
        """Close the descriptor. May be repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


class TargetContent(Protocol):
    """Content that a restore writes. Several threads may read and write ranges that do not overlap."""

    @property
    def size(self) -> int:
        """Final size of the content in bytes."""

    @property
    def is_blank(self) -> bool:
        """Whether it is known to contain only zeros, so that comparing before writing is useless."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Read the current content like a source, to compare it before writing. Raises TargetError."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``. Raises TargetError."""

    def clear(self, offset: int, length: int) -> None:
        """Make a range read as zeros, as a hole if the target supports that. Raises TargetError."""

    def finish(self) -> None:
        """Set size and attributes after all writes, and close the descriptor. Raises TargetError."""

    def close(self) -> None:
        """Close the descriptor without finishing. May be repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
