"""What a backup does with bytes before they are stored: read, find zeros, hash, look up, encode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cinderblock.archiver.hidden_changes import differs, has_same_stamps
from cinderblock.archiver.source import Opened, Source
from cinderblock.errors import SourceChanging, SourceError
from cinderblock.format.chunk_index import ChunkIndex
from cinderblock.format.compression import Encoder, Encoding
from cinderblock.format.entries import ByteRange, Entry, Extent
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.reader import SectionRun
from cinderblock.repository.pack_uploader import EncodedChunk
from cinderblock.volume.content import SourceContent
from cinderblock.volume.errors import VANISHED, format_path
from cinderblock.volume.ranges import nonzero_ranges
from cinderblock.volume.tree.source_file import SMALL_FILE_BYTES

ZERO_GRAIN = 64 << 10
"""Zeros are found in steps of this many bytes: an all-zero step becomes a hole. Small enough to keep thin volumes thin
(LVM's smallest thin chunk), large enough that looking costs 5 microseconds per MiB of data."""
FINE_GRAIN = 4 << 10
"""The same for files of ZERO_GRAIN bytes at most, whose holes nobody asks the file system for: one of its blocks. For
larger content it would be too fine: a device full of small gaps would get a manifest of many small extents."""
READ_ATTEMPTS = 3
"""How often a file that changes while it is read is begun anew."""


class PlacedExtent(NamedTuple):
    """A run of a file, and where it is in the plaintext of its chunk: an Extent whose chunk is not stored yet."""

    offset: int
    length: int
    chunk_offset: int
    digest: bytes


@dataclass(slots=True)
class BlockResult:
    """One cell of a large file: the runs that are not zero, and the chunk that holds them; no chunk for zeros.

    Attributes:
        is_other: whether it differs from the parent's; only known if that was asked.
    """

    runs: list[PlacedExtent]
    piece: EncodedChunk | None
    is_other: bool = False


@dataclass(slots=True)
class FileRequest:
    """One entry of a unit.

    Attributes:
        entry: the entry; complete unless it is to be read.
        is_read: whether its content is to be read.
        hints: extents that the parent has for it.
        hides_changes: whether content that differs from the parent's would be a change that stamps hide.
    """

    entry: Entry
    is_read: bool = False
    hints: tuple[Extent, ...] = ()
    hides_changes: bool = False


@dataclass(slots=True)
class FileResult:
    """One entry of a unit after reading.

    Attributes:
        entry: complete, unless ``runs`` says what is missing.
        runs: of a file that was read: its extents lie in the chunk ``piece`` of the unit.
        piece: number of the chunk among the unit's.
        has_vanished: the file is gone; the entry is to be left out.
        is_unreadable: it cannot be read, is left out, and is already counted.
        read_again: how often it was begun anew because it changed.
        was_hidden: whether its content has changed and its stamps hide that.
    """

    entry: Entry
    runs: list[PlacedExtent] = field(default_factory=list)
    piece: int = 0
    has_vanished: bool = False
    is_unreadable: bool = False
    read_again: int = 0
    was_hidden: bool = False


@dataclass(slots=True)
class UnitResult:
    """A unit of small files after reading.

    Attributes:
        files: its entries, in order; among them what is taken over from the parent.
        pieces: its chunks.
        rest: plaintext of one more chunk, in the buffer of the unit.
    """

    files: list[FileResult | SectionRun]
    pieces: list[EncodedChunk]
    rest: memoryview


class ChunkWorker:
    """Reads content into chunks.

    Args:
        encoder: compresses.
        known: what is stored already; asked here so that what is known is not compressed in vain.
    """

    def __init__(self, encoder: Encoder, known: ChunkIndex) -> None:
        self._encoder = encoder
        self._known = known

    def read_block(
        self,
        content: SourceContent,
        path: bytes,
        runs: Sequence[ByteRange],
        buffer: bytearray,
        hints: Sequence[Extent],
        *,
        compares: bool = False,
    ) -> BlockResult:
        """One cell of a large file or device.

        Args:
            content: where to read.
            path: of the entry, for messages.
            runs: ranges of data within one cell.
            buffer: as long as a chunk; the result may lie in it.
            hints: extents that the parent has in the cell.
            compares: whether to find out if the cell differs from the parent's.

        Raises SourceError; SourceChanging if the content has become shorter.
        """
        view = memoryview(buffer)
        placed, size = read_runs(content, path, runs, view)
        is_other = False
        if compares and not _are_alike(hints, placed):
            start = runs[0].offset - runs[0].offset % len(buffer)
            is_other = differs(content, hints, start, min(start + len(buffer), content.size))
        if not size:
            return BlockResult([], None, is_other)
        digest = placed[0].digest if len(placed) == 1 else digest_of(view[:size])
        for hint in hints:
            if hint.chunk.digest == digest:
                return BlockResult(placed, EncodedChunk(digest, size, hint.chunk), is_other)
        return BlockResult(placed, self._piece(view[:size], digest), is_other)

    def gather(self, source: Source, requests: Sequence[FileRequest | SectionRun], buffer: bytearray) -> UnitResult:
        """Read a unit of small files, one behind the other, into ``buffer``.

        To be called by one thread only, and to be followed by `complete`. A small file is six short system calls, and
        threads that make such calls side by side spend their time waiting for the interpreter's lock: 100,000 files
        took 2.6 s with one thread and 7.2 s with four. What a slow disk would gain from several threads, opening
        (and so prefetching) all files of a unit before the first is read gives as well.

        A file that grew, so that the buffer is too small for all, goes into a chunk of its own. Raises SourceError,
        SourceChanging.
        """
        view = memoryview(buffer)
        result = UnitResult([], [], view[:0])
        opened = _open_all(source, requests)
        try:
            for request, first in zip(requests, opened, strict=True):
                if isinstance(request, SectionRun):
                    result.files.append(request)
                    continue
                if not request.is_read:
                    result.files.append(FileResult(request.entry))
                    continue
                file = _read_or_leave_out(source, request, first, view, len(result.rest))
                if file is None:
                    result.pieces.append(self._detached(result.rest))
                    result.rest = view[:0]
                    file = _read_or_leave_out(source, request, None, view, 0)
                if file is None:
                    raise SourceChanging(
                        f"{format_path(request.entry.path)} grows while it is read: back up a snapshot"
                    )
                file.piece = len(result.pieces)
                result.rest = view[: len(result.rest) + sum([run.length for run in file.runs])]
                result.files.append(file)
        finally:
            for first in opened:
                if first is not None:
                    first.content.close()
        return result

    def complete(self, result: UnitResult) -> UnitResult:
        """Hash and encode what a unit has in its buffer."""
        if result.rest:
            result.pieces.append(self._piece(result.rest, digest_of(result.rest)))
        return result

    def _piece(self, plaintext: memoryview, digest: bytes) -> EncodedChunk:
        known = self._known.find(digest)
        if known is not None:
            return EncodedChunk(digest, len(plaintext), known)
        encoded = self._encoder.encode(plaintext)
        if encoded is None:
            return EncodedChunk(digest, len(plaintext), None, Encoding.RAW, plaintext)
        return EncodedChunk(digest, len(plaintext), None, Encoding.ZSTD, encoded)

    def _detached(self, plaintext: memoryview) -> EncodedChunk:
        """A chunk that no longer lies in the buffer."""
        piece = self._piece(plaintext, digest_of(plaintext))
        if piece.known is None:
            piece.encoded = bytes(piece.encoded)
        return piece


def read_runs(
    content: SourceContent, path: bytes, runs: Iterable[tuple[int, int]], view: memoryview, start: int = 0
) -> tuple[list[PlacedExtent], int]:
    """Read runs one behind the other into ``view`` from ``start``, leaving out zeros.

    Returns the runs that are not zero, and where the data ends in ``view``. Raises SourceError; SourceChanging if the
    content has become shorter.
    """
    placed: list[PlacedExtent] = []
    end = start
    grain = FINE_GRAIN if content.size <= ZERO_GRAIN else ZERO_GRAIN
    for offset, length in runs:
        base = end
        part = view[base : base + length]
        if content.read_into(offset, part) != length:
            raise SourceChanging(f"{format_path(path)} became shorter while it was read: back up a snapshot")
        for first, count in nonzero_ranges(part, offset, grain):
            if base + first != end:
                view[end : end + count] = part[first : first + count]
            placed.append(PlacedExtent(offset + first, count, end, digest_of(view[end : end + count])))
            end += count
    return placed, end


def _open_all(source: Source, requests: Iterable[FileRequest | SectionRun]) -> list[Opened | None]:
    """Open the files of a unit that must be read; None for the rest, and for files that are gone or unreadable."""
    opened: list[Opened | None] = []
    try:
        opened.extend(
            _open_ahead(source, request.entry) if isinstance(request, FileRequest) and request.is_read else None
            for request in requests
        )
    except BaseException:
        for file in opened:
            if file is not None:
                file.content.close()
        raise
    return opened


def _open(source: Source, entry: Entry) -> Opened | None:
    """A file, or None if it is gone."""
    try:
        return source.open(entry)
    except SourceChanging as error:
        if error.reason != VANISHED:
            raise
        return None


def _open_ahead(source: Source, entry: Entry) -> Opened | None:
    """Open a file. Return None if it is gone, or if `_read_or_leave_out` must decide about it."""
    try:
        return _open(source, entry)
    except SourceError as error:
        if not source.gaps.may_omit(error):
            raise
        return None


def _read_or_leave_out(
    source: Source, request: FileRequest, opened: Opened | None, view: memoryview, filled: int
) -> FileResult | None:
    """Do what `_read_small_file` does, but leave out a file that cannot be read, if that is allowed."""
    try:
        return _read_small_file(source, request, opened, view, filled)
    except SourceError as error:
        source.gaps.omit(error, request.entry.path)
        return FileResult(request.entry, is_unreadable=True)


def _read_small_file(
    source: Source, request: FileRequest, opened: Opened | None, view: memoryview, filled: int
) -> FileResult | None:
    """A small file into ``view`` behind what is there; None if it does not fit.

    Raises SourceError; SourceChanging if the file changed again each time.
    """
    for again in range(READ_ATTEMPTS):
        opened = opened or _open(source, request.entry)
        if opened is None:
            return FileResult(request.entry, has_vanished=True)
        entry, content = opened
        opened = None
        try:
            if entry.size > len(view) - filled:
                return None
            placed, _ = read_runs(content, entry.path, _ranges(entry, content), view, filled)
            if not content.has_changed() and (content.is_settled or _reads_the_same(entry, content, placed)):
                return _result(request, opened_as=entry, content=content, placed=placed, again=again)
        except SourceChanging:
            continue
        finally:
            content.close()
    raise SourceChanging(f"{format_path(request.entry.path)} changes faster than it can be read: back up a snapshot")


def _ranges(entry: Entry, content: SourceContent) -> Iterable[tuple[int, int]]:
    return ((0, entry.size),) if 0 < entry.size <= SMALL_FILE_BYTES else content.data_ranges()


def _reads_the_same(entry: Entry, content: SourceContent, placed: list[PlacedExtent]) -> bool:
    """Whether the file reads a second time as it did the first: then it was like that in between, and is not torn."""
    again, _ = read_runs(content, entry.path, _ranges(entry, content), memoryview(bytearray(entry.size)))
    return [(run.offset, run.digest) for run in again] == [(run.offset, run.digest) for run in placed]


def _result(
    request: FileRequest, *, opened_as: Entry, content: SourceContent, placed: list[PlacedExtent], again: int
) -> FileResult:
    """Return what was read, or the parent's extents if they are the same. Raises SourceError."""
    if _are_alike(request.hints, placed):
        return FileResult(opened_as._replace(extents=request.hints), read_again=again)
    was_hidden = (
        request.hides_changes
        and has_same_stamps(opened_as, request.entry)
        and differs(content, request.hints, 0, opened_as.size)
    )
    return FileResult(opened_as, placed, read_again=again, was_hidden=was_hidden)


def _are_alike(hints: Sequence[Extent], placed: Sequence[PlacedExtent]) -> bool:
    """Return whether the parent's extents are the runs that were read."""
    return len(hints) == len(placed) and all(
        (hint.offset, hint.length, hint.digest) == (run.offset, run.length, run.digest)
        for hint, run in zip(hints, placed, strict=True)
    )
