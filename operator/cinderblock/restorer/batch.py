"""Batches of files that are compared, fetched and written together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cinderblock.format.entries import ByteRange, Chunk, Entry, Extent
from cinderblock.format.hashing import digest_of
from cinderblock.repository.chunk_reader import Fetched
from cinderblock.volume.content import TargetContent
from cinderblock.volume.ranges import holes
from cinderblock.volume.tree.deferred_file import DeferredFile
from cinderblock.volume.workers.create_worker import CreateOrder, Writes, make_order

BATCH_BYTES = 8 << 20
"""Data in a batch: about one ranged read."""
BATCH_EXTENTS = 4096
"""Extents in a batch."""
FINE_GRAINED_BYTES = 128 << 10
"""Data for each file or extent below which system calls take longer than hashes and copies."""


class RestoringFile:
    """A file between ``put`` and ``finish``. The last worker that uses it finishes it.

    Attributes:
        is_delegated: whether another process creates it.
    """

    def __init__(self, entry: Entry, content: TargetContent) -> None:
        self.entry = entry
        self.is_delegated = False
        self.content = content
        self._new = content if isinstance(content, DeferredFile) else None
        self.position = 0
        self._size = entry.size
        self._lock = threading.Lock()
        self._waiting = 1

    def acquire(self) -> None:
        """Count one more batch that works on the file."""
        with self._lock:
            self._waiting += 1

    def release(self) -> None:
        """Count a batch that is done with the file, or the end of its extents. The last one finishes the file."""
        with self._lock:
            self._waiting -= 1
            is_last = not self._waiting
        if is_last:
            self.content.finish()

    @property
    def may_be_delegated(self) -> bool:
        """Whether it is new, not created yet, and completely in one batch."""
        return self._new is not None and not self._new.is_made and self._waiting == 1

    def finish_delegated(self) -> None:
        """Note that another process has created the whole file."""
        assert self._new is not None
        self._waiting = 0
        self._new.mark_made()

    def open(self) -> None:
        """Create a new file, so that any thread may write it. Raises TargetError."""
        if self._new is not None:
            self._new.make()

    @property
    def is_finished(self) -> bool:
        """Whether it is complete in the target."""
        return not self._waiting

    def rest(self) -> ByteRange:
        """Return the hole after the last extent."""
        return ByteRange(self.position, self._size - self.position)


@dataclass(slots=True)
class _BatchItem:
    """The work of a batch on one file."""

    file: RestoringFile
    extents: list[Extent] = field(default_factory=list)
    holes: list[ByteRange] = field(default_factory=list)


class FileBatch:
    """Work on some files.

    Attributes:
        size: bytes of data.
        missing: extents that the target does not hold yet, by chunk; known after `compare`.
        slot: the slot of its chunks in the shared memory, if they are there.
        chunk_starts: where each chunk begins there.
        deferred: actions to perform after this batch and all earlier ones.
    """

    def __init__(self) -> None:
        self.missing: dict[Chunk, list[tuple[RestoringFile, Extent]]] = {}
        self.slot: int | None = None
        self.chunk_starts: dict[Chunk, int] = {}
        self.deferred: list[Callable[[], None]] = []
        self._items: list[_BatchItem] = []
        self._delegated: list[RestoringFile] = []
        self._last_chunk: Chunk | None = None
        self._extents = 0
        self.size = 0

    @property
    def files(self) -> int:
        """Number of files that it works on."""
        return len(self._items)

    def finished_files(self) -> Iterator[RestoringFile]:
        """Return its files that are complete in the target."""
        return (item.file for item in self._items if item.file.is_finished)

    def is_complete(self, extent: Extent | None, file_limit: int) -> bool:
        """Return whether the batch should end before this extent, if possible not within a solid chunk."""
        files = len(self._items) + len(self.deferred)
        if files < file_limit and self._extents < BATCH_EXTENTS and self.size < BATCH_BYTES:
            return False
        if files >= 2 * file_limit or self._extents >= 2 * BATCH_EXTENTS:
            return True
        return extent is None or self._last_chunk is None or extent.chunk != self._last_chunk

    def add_extent(self, file: RestoringFile, extent: Extent) -> None:
        """Add an extent, and the hole before it."""
        item = self._item_for(file)
        if extent.offset > file.position:
            item.holes += holes((extent,), file.position, file.position)
        item.extents.append(extent)
        file.position = extent.offset + extent.length
        self._last_chunk = extent.chunk
        self._extents += 1
        self.size += extent.length

    def add_end(self, file: RestoringFile) -> None:
        """Add the hole after the last extent of a file."""
        rest = file.rest()
        item = self._item_for(file)
        if rest.length > 0:
            item.holes.append(rest)

    @property
    def is_fine_grained(self) -> bool:
        """Whether it consists of small files: many system calls for little data."""
        return self._extents + self.files > 2 * (self.size // FINE_GRAINED_BYTES + 1)

    def compare(self, buffer: bytearray) -> None:
        """Clear holes, and find the extents that the target does not hold yet.

        Args:
            buffer: as long as a chunk.

        Raises TargetError.
        """
        view = memoryview(buffer)
        for item in self._items:
            for start, length in item.holes:
                item.file.content.clear(start, length)
            for extent in _find_missing(item, view):
                self.missing.setdefault(extent.chunk, []).append((item.file, extent))

    @property
    def missing_bytes(self) -> int:
        """Bytes of plaintext of all missing chunks."""
        return sum(chunk.size for chunk in self.missing)

    def open_files(self) -> None:
        """Create new files, so that any thread may write them. Raises TargetError."""
        for item in self._items:
            item.file.open()

    def store(self, fetched: Iterable[Fetched]) -> None:
        """Write the missing extents, and release the files. Raises TargetError, and what ``fetched`` raises."""
        for chunk, plaintext in fetched:
            view = memoryview(plaintext)
            for file, extent in self.missing[chunk]:
                if not file.is_delegated:
                    file.content.write(extent.offset, view[extent.chunk_offset : extent.chunk_offset + extent.length])
        for item in self._items:
            if not item.file.is_delegated:
                item.file.release()

    def order_new_files(self) -> list[CreateOrder]:
        """Return orders for the files that another process may create from the shared memory.

        After this, `store` leaves these files out, and `finish_delegated` finishes them.
        """
        self._delegated = [item.file for item in self._items if item.file.may_be_delegated]
        for file in self._delegated:
            file.is_delegated = True
        return [make_order(item.file.entry, self._writes(item)) for item in self._items if item.file.is_delegated]

    def _writes(self, item: _BatchItem) -> Writes:
        starts = self.chunk_starts
        return [(extent.offset, starts[extent.chunk] + extent.chunk_offset, extent.length) for extent in item.extents]

    def finish_delegated(self) -> None:
        """Note that another process has created the ordered files."""
        for file in self._delegated:
            file.finish_delegated()

    def _item_for(self, file: RestoringFile) -> _BatchItem:
        if not self._items or self._items[-1].file is not file:
            file.acquire()
            self._items.append(_BatchItem(file))
        return self._items[-1]


def _find_missing(item: _BatchItem, view: memoryview) -> Iterable[Extent]:
    """Return the extents that the target does not hold yet."""
    content = item.file.content
    return item.extents if content.is_blank else _find_differing(content, item.extents, view)


def _find_differing(content: TargetContent, extents: Iterable[Extent], view: memoryview) -> Iterator[Extent]:
    for extent in extents:
        part = view[: extent.length]
        if content.read_into(extent.offset, part) != extent.length or digest_of(part) != extent.digest:
            yield extent
