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


Unit = SmallFiles | LargeFile | SectionRun
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
            unit = yield from _flush_reused(parent, unit)
        if entry is not None:
            unit = yield from _add(entry, before, parent, unit, chunk_bytes)
    parent.finish()
    unit = yield from _flush_reused(parent, unit)
    if unit.requests:
        yield unit


def _add(
    entry: Entry, before: ParentEntry | None, parent: ParentStream, unit: SmallFiles, chunk_bytes: int
) -> Generator[Unit, None, SmallFiles]:
    """Add an entry that is not reused as a row."""
    if before is not None and parent.is_unchanged(entry, before.first):
        for part in before.parts():
            unit.add(FileRequest(entry._replace(extents=part.extents)))
    elif entry.kind is EntryKind.DEVICE or (entry.kind is EntryKind.FILE and entry.size >= chunk_bytes):
        if unit.requests:
            yield unit
            unit = SmallFiles()
        yield LargeFile(entry, before, before is not None and parent.hides_changes(entry, before.first))
    else:
        is_read = entry.kind is EntryKind.FILE and entry.size > 0
        if is_read and unit.size + entry.size > chunk_bytes:
            yield unit
            unit = SmallFiles()
        if is_read and before is not None:
            unit.add(FileRequest(entry, True, before.first.extents, parent.hides_changes(entry, before.first)))
        else:
            unit.add(FileRequest(entry, is_read))
    if _is_full(unit, entry, chunk_bytes):
        yield unit
        unit = SmallFiles()
    return unit


def _flush_reused(parent: ParentStream, unit: SmallFiles) -> Generator[Unit, None, SmallFiles]:
    """Add what the parent reuses. Parts of sections join the unit, so its chunk continues; whole ones stand alone."""
    while parent.ready:
        run = parent.ready.popleft()
        if run.is_copied:
            if unit.requests:
                yield unit
                unit = SmallFiles()
            yield run
        else:
            unit.reuse(run)
    return unit


def _is_full(unit: SmallFiles, last: Entry, chunk_bytes: int) -> bool:
    return (
        unit.files >= SOLID_FILES
        or len(unit.requests) >= _REQUESTS_PER_UNIT
        or unit.rows >= _ROWS_PER_UNIT
        or ends_solid_chunk(last.path, unit.size, chunk_bytes)
    )
