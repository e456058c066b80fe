"""Writing a manifest: entries go in one by one, the whole object comes out."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from cinderblock.api.losses import Loss
from cinderblock.api.mover import BackupMetadata
from cinderblock.api.pins import Pins
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.format.crypto.sealer import FrameKind, Sealer
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import (
    Counts,
    Footer,
    FooterSummary,
    OriginRecord,
    Section,
    UnreadableRecord,
    compress_frame,
    content_digest,
    encode_data_keys,
    encode_footer,
)
from cinderblock.format.manifest.header import HEADER_BYTES, ManifestHeader
from cinderblock.format.manifest.pin_checks import pins_of
from cinderblock.format.manifest.reader import SectionRun
from cinderblock.format.manifest.section_decoder import SectionTable, logical_bytes
from cinderblock.format.manifest.section_encoder import SectionPart, encode_section, estimate, part_of, renumbered
from cinderblock.format.pack import PackTable
from cinderblock.format.range_reader import Buffer

SECTION_BYTES = 1 << 20
"""A section is closed when it has about this many bytes: small enough that some of them in memory do not count, large
enough to be compressed well and to be fetched a few at a time."""
EXTENTS_PER_PART = 4096
"""An entry with more extents is divided into parts: a device of 1 TiB has a million of them."""
_UNUSED = 0xFFFFFFFF


class Mark(NamedTuple):
    """The state of a manifest at some moment, to which `ManifestWriter.roll_back` returns."""

    body: int
    sections: int
    packs: int
    names: int
    logical_bytes: int
    transferred_bytes: int
    newest_ctime_ns: int
    last_path: bytes | None


class PackRenumbering:
    """Gives packs their final numbers as extents come to use them, so that the table holds only packs in use."""

    def __init__(self, candidates: PackTable) -> None:
        self._candidates = candidates
        self._final = array("I")
        self.used: list[int] = []

    def final(self, pack: int) -> int:
        """The final number of a candidate."""
        while pack >= len(self._final):
            self._final.append(_UNUSED)
        if self._final[pack] == _UNUSED:
            self._final[pack] = len(self.used)
            self.used.append(pack)
        return self._final[pack]

    def forget_from(self, count: int) -> None:
        """Take away the final numbers from ``count`` on."""
        for pack in self.used[count:]:
            self._final[pack] = _UNUSED
        del self.used[count:]

    def table(self) -> PackTable:
        """The packs in use."""
        table = PackTable()
        for pack in self.used:
            candidates = self._candidates
            table.add(candidates.origin(pack), candidates.number(pack), candidates.size(pack))
        return table


class ManifestWriter:
    """A manifest in the making. In memory it takes what it takes in the store: about 60 bytes for a small file.

    Args:
        header: of this manifest, and of no other.
        sealer: ``header.sealer(...)``.
        packs: candidates that the chunks of entries name by number.
    """

    def __init__(self, header: ManifestHeader, sealer: Sealer, packs: PackTable) -> None:
        self._header = header
        self._sealer = sealer
        self._candidates = packs
        self._used = PackRenumbering(packs)
        self._body = bytearray(header.encode())
        self._sections: list[Section] = []
        self._open: list[Entry] = []
        self._pieces: list[SectionPart] = []
        self._rows = 0
        self._size = 0
        self._last_path: bytes | None = None
        self._names = self._logical_bytes = self._transferred_bytes = 0
        self._newest_ctime_ns = 0
        self._oldest_ctime_ns: int | None = None

    def add(self, entry: Entry) -> None:
        """Add the next entry, or the next part of the last one."""
        if len(entry.extents) <= EXTENTS_PER_PART:
            self._add_part(entry)
            return
        for start in range(0, len(entry.extents), EXTENTS_PER_PART):
            self._add_part(entry._replace(extents=entry.extents[start : start + EXTENTS_PER_PART]))

    def _add_part(self, entry: Entry) -> None:
        self._open.append(entry)
        self._size += estimate(entry)
        if self._size >= SECTION_BYTES:
            self._close_section()

    def mark(self) -> Mark:
        """Close the section, and return the present state of the manifest."""
        self._close_section()
        return Mark(
            len(self._body),
            len(self._sections),
            len(self._used.used),
            self._names,
            self._logical_bytes,
            self._transferred_bytes,
            self._newest_ctime_ns,
            self._last_path,
        )

    def roll_back(self, mark: Mark) -> None:
        """Take out everything that was added after ``mark``."""
        self._open, self._pieces = [], []
        self._rows = self._size = 0
        del self._body[mark.body :]
        del self._sections[mark.sections :]
        self._used.forget_from(mark.packs)
        self._names, self._last_path = mark.names, mark.last_path
        self._logical_bytes, self._transferred_bytes = mark.logical_bytes, mark.transferred_bytes
        self._newest_ctime_ns = mark.newest_ctime_ns

    def reuse(self, run: SectionRun) -> None:
        """Add entries of the parent as they are. ``packs`` must begin with the parent's table."""
        if run.is_copied:
            self._copy(run)
            return
        self._close_piece()
        self._count_run(run, run.section.table.logical_bytes(run.start, run.stop))
        start = run.start
        while start < run.stop:
            stop = self._fitting(run.section.table, start, run.stop)
            self._pieces.append(run.section.table.piece(start, stop))
            self._rows += stop - start
            self._size += run.section.table.estimate(start, stop)
            start = stop
            if self._size >= SECTION_BYTES:
                self._close_section()

    def _fitting(self, table: SectionTable, start: int, stop: int) -> int:
        """Where to end so that the section becomes about as large as others: from one backup to the next they would
        grow without end if rows of a section always stayed together."""
        room, size = SECTION_BYTES - self._size, table.estimate(start, stop)
        return stop if size <= room else start + max(1, (stop - start) * room // size)

    def _copy(self, run: SectionRun) -> None:
        """Add a section of the parent: only the numbers of its packs are others."""
        self._close_section()
        section = run.section
        self._count_run(run, logical_bytes(section.plaintext))
        plaintext = renumbered(section.plaintext, self._used.final)
        compressed = section.compressed if plaintext == section.plaintext else compress_frame(plaintext)
        self._append(plaintext, compressed, run.rows)

    def _count_run(self, run: SectionRun, logical: int) -> None:
        """Add to the counts; nothing that was taken over lies in packs of this backup."""
        self._names += run.names - (run.first_path == self._last_path)
        self._last_path = run.last_path
        self._newest_ctime_ns = max(self._newest_ctime_ns, run.newest_ctime_ns)
        if run.oldest_ctime_ns is not None:
            self._count_ctimes([run.oldest_ctime_ns])
        self._logical_bytes += logical

    def _close_piece(self) -> None:
        """What was added entry by entry becomes a piece."""
        if self._open:
            self._count(self._open)
            self._pieces.append(part_of(self._open))
            self._rows += len(self._open)
            self._open = []

    def _close_section(self) -> None:
        self._close_piece()
        if not self._pieces:
            return
        plaintext = encode_section(self._pieces, self._used.final)
        self._append(plaintext, compress_frame(plaintext), self._rows)
        self._pieces = []
        self._rows = self._size = 0

    def _append(self, plaintext: bytes, compressed: Buffer, entries: int) -> None:
        """Seal a section and put it behind the others."""
        number = len(self._sections)
        frame = self._sealer.seal(FrameKind.CONTENT, number, compressed)
        offset = len(self._body) - HEADER_BYTES
        digest = digest_of(plaintext)
        self._sections.append(Section(number, offset, len(frame), len(plaintext), entries, digest))
        self._body += frame

    def _count(self, entries: list[Entry]) -> None:
        """Add to the counts. Parts of one entry count once."""
        mine = self._is_mine
        for entry in entries:
            self._names += entry.path != self._last_path
            self._last_path = entry.path
            for extent in entry.extents:
                self._logical_bytes += extent.length
                if mine(extent.chunk.pack):
                    self._transferred_bytes += extent.length
        self._newest_ctime_ns = max(self._newest_ctime_ns, *(entry.ctime_ns for entry in entries))
        self._count_ctimes([entry.ctime_ns for entry in entries if entry.kind is not EntryKind.HARDLINK])

    def _count_ctimes(self, ctimes_ns: list[int]) -> None:
        """Update the oldest ctime."""
        known = [] if self._oldest_ctime_ns is None else [self._oldest_ctime_ns]
        self._oldest_ctime_ns = min(known + ctimes_ns, default=None)

    def _is_mine(self, pack: int) -> bool:
        return self._candidates.origin(pack).backup_id == self._header.backup_id

    @property
    def pins(self) -> Pins:
        """What identifies the manifest. All entries must have been added."""
        return pins_of(self._header, content_digest(self._sections))

    def finish_entries(self) -> PackTable:
        """All entries are added: the packs that they use, under their final numbers."""
        self._close_section()
        return self._used.table()

    @property
    def oldest_ctime_ns(self) -> int | None:
        """The oldest ctime of all added entries; None: none has a ctime. Call `finish_entries` before."""
        return self._oldest_ctime_ns

    def finish(
        self,
        description: BackupMetadata,
        chunk_bytes: int,
        data_keys: dict[str, DataKey],
        *,
        comparison: Comparison | None = None,
        unreadable: UnreadableRecord | None = None,
        losses: Sequence[Loss] = (),
    ) -> bytearray:
        """The whole object.

        Args:
            description: volume and request.
            chunk_bytes: largest chunk of the backup.
            data_keys: of the ancestors, by backup id; those that are not used are left out.
            comparison: of a file system, how the backup found changed files.
            unreadable: what is missing; None: nothing.
            losses: what the backup could not keep of the files, each kind once.
        """
        packs = self.finish_entries()
        own = list(packs.sizes_of(self._header.backup_id))
        used = {origin.backup_id for origin in packs.origins} - {self._header.backup_id}
        summary = FooterSummary(
            description=description,
            parent_id=self._header.parent_id,
            chunk_bytes=chunk_bytes,
            newest_ctime_ns=self._newest_ctime_ns,
            comparison=comparison,
            counts=Counts(
                entries=self._names,
                logical_bytes=self._logical_bytes,
                transferred_bytes=self._transferred_bytes,
                object_count=len(own),
                pack_bytes=sum(own),
            ),
            content_digest=self.pins.content_digest,
            unreadable=unreadable,
            losses=list(losses),
            origins=[OriginRecord(backup_id=origin.backup_id, attempt=origin.attempt) for origin in packs.origins],
            data_keys=encode_data_keys({name: key for name, key in data_keys.items() if name in used}),
        )
        self._body += encode_footer(Footer(summary, packs, self._sections), self._sealer)
        return self._body
