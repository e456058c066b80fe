"""Files on their way into the target, grouped into windows: what is compared, fetched and written together."""

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
"""Data in a window: about one ranged read."""
BATCH_EXTENTS = 4096
FINE_GRAINED_BYTES = 128 << 10
"""Data per file or extent below which system calls take longer than hashing and copying."""


class RestoringFile:
    """A content between ``put`` and ``finish``; the worker that is last with it finishes it.

    Attributes:
        is_ordered: whether another process makes it.
    """

    def __init__(self, entry: Entry, content: TargetContent) -> None:
        self.entry = entry
        self.is_ordered = False
        self.content = content
        self._new = content if isinstance(content, DeferredFile) else None
        self.position = 0
        self._size = entry.size
        self._lock = threading.Lock()
        self._waiting = 1

    def acquire(self) -> None:
        """One more window has work on it."""
        with self._lock:
            self._waiting += 1

    def release(self) -> None:
        """One window is done with it, or the stream of its extents has ended. The last one finishes it."""
        with self._lock:
            self._waiting -= 1
            is_last = not self._waiting
        if is_last:
            self.content.finish()

    @property
    def may_be_made_elsewhere(self) -> bool:
        """Whether it is new, nothing has been written of it, and one window has all of it."""
        return self._new is not None and not self._new.is_made and self._waiting == 1

    def made_elsewhere(self) -> None:
        """The window that has all of it had another process make it."""
        assert self._new is not None
        self._waiting = 0
        self._new.mark_made()

    def open(self) -> None:
        """Make it if it is new, so that any thread may write it. Raises TargetError."""
        if self._new is not None:
            self._new.make()

    @property
    def is_finished(self) -> bool:
        """Whether it is complete in the target."""
        return not self._waiting

    def rest(self) -> ByteRange:
        """What lies behind the last extent: a hole."""
        return ByteRange(self.position, self._size - self.position)


@dataclass(slots=True)
class _BatchItem:
    """What a window has to do on one file."""

    file: RestoringFile
    extents: list[Extent] = field(default_factory=list)
    holes: list[ByteRange] = field(default_factory=list)


class FileBatch:
    """Work on some files.

    Attributes:
        size: bytes of data.
        wanted: what the target does not hold yet, by chunk; known after `compare`.
        slot: where its chunks are in the shared memory, if they are there.
        starts: where each of them begins there.
        late: what is to be done when this window and those before it are done.
    """

    def __init__(self) -> None:
        self.wanted: dict[Chunk, list[tuple[RestoringFile, Extent]]] = {}
        self.slot: int | None = None
        self.starts: dict[Chunk, int] = {}
        self.late: list[Callable[[], None]] = []
        self._shares: list[_BatchItem] = []
        self._ordered: list[RestoringFile] = []
        self._last_chunk: Chunk | None = None
        self._extents = 0
        self.size = 0

    @property
    def files(self) -> int:
        """How many files it works on."""
        return len(self._shares)

    def finished(self) -> Iterator[RestoringFile]:
        """Those of its files that are complete in the target."""
        return (share.file for share in self._shares if share.file.is_finished)

    def is_complete(self, extent: Extent | None, file_limit: int) -> bool:
        """Whether it should be closed before this extent; not in the middle of a solid chunk, if that can be."""
        files = len(self._shares) + len(self.late)
        if files < file_limit and self._extents < BATCH_EXTENTS and self.size < BATCH_BYTES:
            return False
        if files >= 2 * file_limit or self._extents >= 2 * BATCH_EXTENTS:
            return True
        return extent is None or self._last_chunk is None or extent.chunk != self._last_chunk

    def add_extent(self, file: RestoringFile, extent: Extent) -> None:
        """Add a run of data, and the hole before it."""
        share = self._share(file)
        if extent.offset > file.position:
            share.holes += holes((extent,), file.position, file.position)
        share.extents.append(extent)
        file.position = extent.offset + extent.length
        self._last_chunk = extent.chunk
        self._extents += 1
        self.size += extent.length

    def add_end(self, file: RestoringFile) -> None:
        """Add the hole behind the last run of a file."""
        rest = file.rest()
        share = self._share(file)
        if rest.length > 0:
            share.holes.append(rest)

    @property
    def is_fine_grained(self) -> bool:
        """Whether it is made of small files: many system calls for little data."""
        return self._extents + self.files > 2 * (self.size // FINE_GRAINED_BYTES + 1)

    def compare(self, buffer: bytearray) -> None:
        """Clear holes, and find out what the target does not hold yet.

        Args:
            buffer: as long as a chunk.

        Raises TargetError.
        """
        view = memoryview(buffer)
        for share in self._shares:
            for start, length in share.holes:
                share.file.content.clear(start, length)
            for extent in _differing(share, view):
                self.wanted.setdefault(extent.chunk, []).append((share.file, extent))

    @property
    def wanted_bytes(self) -> int:
        """Bytes of plaintext of all chunks that are wanted."""
        return sum(chunk.size for chunk in self.wanted)

    def open_files(self) -> None:
        """Make new files now, so that any thread may write them. Raises TargetError."""
        for share in self._shares:
            share.file.open()

    def store(self, fetched: Iterable[Fetched]) -> None:
        """Write what is wanted, and let go of the files. Raises TargetError, and what fetching raises."""
        for chunk, plaintext in fetched:
            view = memoryview(plaintext)
            for file, extent in self.wanted[chunk]:
                if not file.is_ordered:
                    file.content.write(extent.offset, view[extent.chunk_offset : extent.chunk_offset + extent.length])
        for share in self._shares:
            if not share.file.is_ordered:
                share.file.release()

    def order_new_files(self) -> list[CreateOrder]:
        """Orders for those of its files that another process may make, with what is in the shared memory.

        From then on `store` leaves them out, and `made_elsewhere` finishes them.
        """
        self._ordered = [share.file for share in self._shares if share.file.may_be_made_elsewhere]
        for file in self._ordered:
            file.is_ordered = True
        return [make_order(share.file.entry, self._writes(share)) for share in self._shares if share.file.is_ordered]

    def _writes(self, share: _BatchItem) -> Writes:
        starts = self.starts
        return [(extent.offset, starts[extent.chunk] + extent.chunk_offset, extent.length) for extent in share.extents]

    def made_elsewhere(self) -> None:
        """Another process has made what was ordered."""
        for file in self._ordered:
            file.made_elsewhere()

    def _share(self, file: RestoringFile) -> _BatchItem:
        if not self._shares or self._shares[-1].file is not file:
            file.acquire()
            self._shares.append(_BatchItem(file))
        return self._shares[-1]


def _differing(share: _BatchItem, view: memoryview) -> Iterable[Extent]:
    """Extents that the target does not hold yet."""
    content = share.file.content
    return share.extents if content.is_blank else _compared(content, share.extents, view)


def _compared(content: TargetContent, extents: Iterable[Extent], view: memoryview) -> Iterator[Extent]:
    for extent in extents:
        part = view[: extent.length]
        if content.read_into(extent.offset, part) != extent.length or digest_of(part) != extent.digest:
            yield extent
