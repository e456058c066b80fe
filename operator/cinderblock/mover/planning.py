"""What a backup is to read, in order: entries of the walk, compared with the parent's, become units of work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cinderblock.datapath.chunking import SOLID_FILES, ends_solid_chunk
from cinderblock.datapath.entries import Entry, EntryKind
from cinderblock.mover.parent import ParentEntry, ParentStream
from cinderblock.mover.reading import FileRequest

_REQUESTS_PER_UNIT = 1024
"""Entries in one unit at most, those that need no reading among them: about 1 MiB in memory."""


@dataclass(slots=True)
class SmallFiles:
    """A unit of entries in order; those to be read fit into one chunk."""

    requests: list[FileRequest] = field(default_factory=list)
    files: int = 0
    size: int = 0

    def add(self, request: FileRequest) -> None:
        """Add an entry."""
        self.requests.append(request)
        if request.is_read:
            self.files += 1
            self.size += request.entry.size


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A file or device that has chunks of its own, and what the parent has of it."""

    entry: Entry
    before: ParentEntry | None


def plan(entries: Iterable[Entry], parent: ParentStream, chunk_bytes: int) -> Iterator[SmallFiles | LargeFile]:
    """Units in order of path. What is unchanged since the parent comes with the parent's extents."""
    unit = SmallFiles()
    for entry in entries:
        before = parent.find(entry.path)
        if before is not None and parent.is_unchanged(entry, before.first):
            for part in before.parts():
                unit.add(FileRequest(entry._replace(extents=part.extents)))
        elif entry.kind is EntryKind.DEVICE or (entry.kind is EntryKind.FILE and entry.size >= chunk_bytes):
            if unit.requests:
                yield unit
                unit = SmallFiles()
            yield LargeFile(entry, before)
        else:
            is_read = entry.kind is EntryKind.FILE and entry.size > 0
            if is_read and unit.size + entry.size > chunk_bytes:
                yield unit
                unit = SmallFiles()
            hints = before.first.extents if is_read and before is not None else ()
            unit.add(FileRequest(entry, is_read, hints))
        if _is_complete(unit, entry, chunk_bytes):
            yield unit
            unit = SmallFiles()
    if unit.requests:
        yield unit


def _is_complete(unit: SmallFiles, last: Entry, chunk_bytes: int) -> bool:
    return (
        unit.files >= SOLID_FILES
        or len(unit.requests) >= _REQUESTS_PER_UNIT
        or ends_solid_chunk(last.path, unit.size, chunk_bytes)
    )
