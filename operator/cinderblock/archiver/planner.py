"""Compare the entries of the walk with the parent's, and turn them into units of work, in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

from cinderblock.archiver.chunk_worker import FileRequest
from cinderblock.archiver.parent import ParentEntry, ParentStream
from cinderblock.format.chunker import SOLID_FILES, ends_solid_chunk
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.format.manifest.reader import SectionRun

_REQUESTS_PER_UNIT = 1024
"""Most entries in one unit, also those that need no reading: about 1 MiB in memory."""
_ROWS_PER_UNIT = 4096
"""Most entries that one unit reuses: they keep one or two sections in memory, of 1 MiB each."""


@dataclass(slots=True)
class SmallFiles:
    """A unit of entries in order. Those that must be read fit into one chunk."""

    requests: list[FileRequest | SectionRun] = field(default_factory=list)
    files: int = 0
    size: int = 0
    rows: int = 0

    def add(self, request: FileRequest) -> None:
        """Add an entry."""
        self.requests.append(request)
        if request.is_read:
            self.files += 1
            self.size += request.entry.size

    def reuse(self, run: SectionRun) -> None:
        """Add entries of the parent that are unchanged."""
        self.requests.append(run)
        self.rows += run.rows


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A file or device with chunks of its own.

    Attributes:
        entry: the entry.
        before: its entry in the parent.
        hides_changes: whether content that differs from the parent's would be a change that timestamps hide.
    """

    entry: Entry
    before: ParentEntry | None
    hides_changes: bool = False


@dataclass(frozen=True, slots=True)
class RenewedFile:
    """An unchanged large file, or a part of one, that has chunks in packs to avoid. Only these chunks are read.

    Attributes:
        entry: the entry, with the extents of the parent.
    """

    entry: Entry


Unit = SmallFiles | LargeFile | RenewedFile | SectionRun
"""Work that is done at once. A whole section that is reused is a unit of its own."""


def plan(entries: Iterable[Entry | None], parent: ParentStream, chunk_bytes: int) -> Iterator[Unit]:
    """Return units in order of path.

    Args:
        entries: of the walk; None for an object that ``parent`` reuses.
        parent: finds the entries of the parent; unchanged files get their extents.
        chunk_bytes: largest chunk.
    """
    unit = SmallFiles()
    for entry in entries:
        before = None if entry is None else parent.find(entry.path)
        if parent.ready:
            unit = yield from _flush_reused(parent, unit, chunk_bytes)
        if entry is not None:
            unit = yield from _add(entry, before, parent, unit, chunk_bytes)
    parent.finish()
    unit = yield from _flush_reused(parent, unit, chunk_bytes)
    if unit.requests:
        yield unit


def _add(
    entry: Entry, before: ParentEntry | None, parent: ParentStream, unit: SmallFiles, chunk_bytes: int
) -> Generator[Unit, None, SmallFiles]:
    """Add an entry that is not reused as a row."""
    if before is not None and parent.is_unchanged(entry, before.first):
        for part in before.parts():
            unchanged = entry._replace(extents=part.extents)
            if parent.avoids(part.extents):
                unit = yield from _renew(unchanged, unit, chunk_bytes)
            else:
                unit.add(FileRequest(unchanged))
    elif entry.kind is EntryKind.DEVICE or (entry.kind is EntryKind.FILE and entry.size >= chunk_bytes):
        if unit.requests:
            yield unit
            unit = SmallFiles()
        yield LargeFile(entry, before, before is not None and parent.hides_changes(entry, before.first))
    else:
        is_read = entry.kind is EntryKind.FILE and entry.size > 0
        request = FileRequest(entry, is_read)
        if is_read and before is not None:
            request.hints = before.first.extents
            request.avoids_hints = parent.avoids(request.hints)
            request.hides_changes = parent.hides_changes(entry, before.first)
        unit = yield from _add_request(request, unit, chunk_bytes)
    if _is_full(unit, entry, chunk_bytes):
        yield unit
        unit = SmallFiles()
    return unit


def _add_request(request: FileRequest, unit: SmallFiles, chunk_bytes: int) -> Generator[Unit, None, SmallFiles]:
    """Add an entry to the unit, or to the next one if its content does not fit into the chunk."""
    if request.is_read and unit.size + request.entry.size > chunk_bytes:
        yield unit
        unit = SmallFiles()
    unit.add(request)
    return unit


def _renew(entry: Entry, unit: SmallFiles, chunk_bytes: int) -> Generator[Unit, None, SmallFiles]:
    """Add an unchanged entry, or a part of one, whose content is stored again."""
    if entry.size < chunk_bytes:
        request = FileRequest(
            entry._replace(extents=()), True, entry.extents, hides_changes=True, avoids_hints=True, is_unchanged=True
        )
        return (yield from _add_request(request, unit, chunk_bytes))
    if unit.requests:
        yield unit
    yield RenewedFile(entry)
    return SmallFiles()


def _flush_reused(parent: ParentStream, unit: SmallFiles, chunk_bytes: int) -> Generator[Unit, None, SmallFiles]:
    """Add what is unchanged. Parts of sections join the unit, so its chunk continues; whole ones stand alone."""
    while parent.ready:
        item = parent.ready.popleft()
        if isinstance(item, Entry):
            unit = yield from _renew(item, unit, chunk_bytes)
            if _is_full(unit, item, chunk_bytes):
                yield unit
                unit = SmallFiles()
        elif item.is_copied:
            if unit.requests:
                yield unit
                unit = SmallFiles()
            yield item
        else:
            unit.reuse(item)
    return unit


def _is_full(unit: SmallFiles, last: Entry, chunk_bytes: int) -> bool:
    return (
        unit.files >= SOLID_FILES
        or len(unit.requests) >= _REQUESTS_PER_UNIT
        or unit.rows >= _ROWS_PER_UNIT
        or ends_solid_chunk(last.path, unit.size, chunk_bytes)
    )
