"""A volume in memory for the backup engine. It counts read bytes, and changes as scripted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from types import TracebackType
from typing import Self

from cinderblock.api.file_policies import Unreadable
from cinderblock.api.losses import Loss
from cinderblock.archiver.source import OpenedFile
from cinderblock.errors import SourceChanging
from cinderblock.format.entries import ByteRange, Entry, EntryKind, order_key
from cinderblock.volume.errors import VANISHED
from cinderblock.volume.omissions import Omissions
from cinderblock.volume.tree.reader import ParentRows
from cinderblock.volume.tree.rows import TYPES, Columns, Rows

Segments = list[tuple[int, bytes]]
"""Data sorted by offset, with holes between."""


@dataclass
class FileInMemory:
    """A file or device.

    Attributes:
        entry: the entry of the walk.
        segments: its data.
        on_open: called at each opening with the number of earlier openings; may change anything.
        on_read: called before each read, which returns the segments as it leaves them.
        unstable: number of openings during which the file changes.
        becomes_shorter: whether it loses its last byte during the first read.
        opened: number of openings.
        is_settled: whether its timestamps would show changes.
    """

    entry: Entry
    segments: Segments = field(default_factory=list)
    on_open: Callable[[int], object] | None = None
    on_read: Callable[[], object] | None = None
    unstable: int = 0
    becomes_shorter: bool = False
    opened: int = 0
    is_settled: bool = True


def _rows(entries: list[Entry]) -> Rows:
    """Return the rows of a walk."""
    kinds = [(0, *entry[3:9]) if entry.kind is EntryKind.HARDLINK else _fields(entry) for entry in entries]
    links = {row: entry.target for row, entry in enumerate(entries) if entry.kind is EntryKind.HARDLINK}
    return Rows([entry.path for entry in entries], Columns(*zip(*kinds, strict=True)), links)


def _fields(entry: Entry) -> tuple[int, ...]:
    size = entry.size if entry.kind is EntryKind.FILE else 0
    return (TYPES[entry.kind] | entry.mode, *entry[3:8], size)


class MemoryContent:
    """A `volume.content.SourceContent`."""

    def __init__(self, source: MemorySource, file: FileInMemory, *, is_stable: bool) -> None:
        self._source = source
        self._file = file
        self._segments = list(file.segments)
        self._is_stable = is_stable
        self._is_open = True
        self.size = file.entry.size
        self.is_settled = file.is_settled
        source.open_files += 1

    def data_ranges(self) -> Iterator[ByteRange]:
        return (ByteRange(offset, len(data)) for offset, data in self._segments)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self._become_shorter()
        if self._file.on_read is not None:
            self._file.on_read()
            self._segments = list(self._file.segments)
        end = self._segments[-1][0] + len(self._segments[-1][1]) if self._segments else 0
        count = max(0, min(len(buffer), max(end, self.size) - offset))
        buffer[:count] = bytes(count)
        for start, data in self._segments_from(offset):
            if start >= offset + count:
                break
            first, last = max(offset, start), min(offset + count, start + len(data))
            if first < last:
                buffer[first - offset : last - offset] = data[first - start : last - start]
        self._source.bytes_read += count
        return count

    def _segments_from(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Return the segments from the one that may contain an offset. A file can have thousands of them."""
        first = bisect_right(self._segments, offset, key=itemgetter(0)) - 1
        return islice(self._segments, max(0, first), None)

    def _become_shorter(self) -> None:
        file = self._file
        if file.becomes_shorter:
            file.becomes_shorter = False
            file.segments = [(offset, data[:-1]) for offset, data in file.segments]
            file.entry = file.entry._replace(size=file.entry.size - 1)
            self._segments = file.segments
            self.size = file.entry.size

    def has_changed(self) -> bool:
        return not self._is_stable

    def close(self) -> None:
        self._source.open_files -= self._is_open
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemorySource:
    """An `archiver.source.Source`.

    Attributes:
        files: by path.
        bytes_read: bytes that were read of all files.
        open_files: number of open files.
        is_synced: whether its timestamps show every change since it was opened.
    """

    is_synced = True

    def __init__(self, unreadable: Unreadable = Unreadable.FAIL) -> None:
        self.omissions = Omissions(unreadable)
        self.files: dict[bytes, FileInMemory] = {}
        self.bytes_read = 0
        self.open_files = 0
        self.add(b"", kind=EntryKind.DIRECTORY)

    def add(
        self,
        path: bytes,
        *segments: tuple[int, bytes],
        size: int | None = None,
        kind: EntryKind = EntryKind.FILE,
        stamp: int = 1,
        target: bytes = b"",
    ) -> FileInMemory:
        """Add or replace a name. ``stamp`` is the second of mtime and ctime; the inode comes from the path."""
        end = max((offset + len(data) for offset, data in segments), default=0)
        inode = int.from_bytes(path[-6:] or b"\1", "big")
        time = stamp * 1_000_000_000 + 1
        entry = Entry(
            path,
            kind,
            mode=0o644,
            mtime_ns=time,
            ctime_ns=time,
            inode=inode,
            size=end if size is None else size,
            target=target,
        )
        self.files[path] = FileInMemory(entry, list(segments))
        return self.files[path]

    def make_device(self, size: int, *segments: tuple[int, bytes]) -> FileInMemory:
        """Make the volume a device instead of a tree."""
        self.files = {}
        return self.add(b"", *segments, size=size, kind=EntryKind.DEVICE)

    @property
    def total_bytes(self) -> int:
        """See Source."""
        return sum(file.entry.size for file in self.files.values())

    def begin(self) -> None:
        """See Source."""

    def entries(self, before: ParentRows | None = None, *, opens_all: bool = False) -> Iterator[Entry | None]:
        """See Source."""
        entries = [self.files[path].entry for path in sorted(self.files, key=order_key)]
        if before is None or entries[0].kind is EntryKind.DEVICE:
            yield from entries
            return
        rows, row = _rows(entries), 0
        while row < len(rows):
            if taken := before.match_rows(rows, row):
                row += taken
                yield None
            else:
                yield entries[row]
                row += 1

    def open(self, entry: Entry) -> OpenedFile:
        """See Source."""
        file = self.files.get(entry.path)
        if file is not None and file.on_open is not None:
            file.on_open(file.opened)
            file = self.files.get(entry.path)
        if file is None:
            raise SourceChanging(f"{entry.path!r} is gone", reason=VANISHED)
        file.opened += 1
        return OpenedFile(file.entry, MemoryContent(self, file, is_stable=file.opened > file.unstable))

    def finish(self) -> None:
        """See Source."""

    def warnings(self) -> list[str]:
        """See Source."""
        return []

    def losses(self) -> list[Loss]:
        """See Source."""
        return []
