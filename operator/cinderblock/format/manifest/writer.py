"""The writer of manifests, which turns a stream of entries into one object."""

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
from cinderblock.format.manifest.pack_use import PackUse
from cinderblock.format.manifest.pin_checks import pins_of
from cinderblock.format.manifest.reader import SectionRun
from cinderblock.format.manifest.section_decoder import SectionTable, logical_bytes
from cinderblock.format.manifest.section_encoder import (
    SectionPart,
    encode_section,
    estimate_bytes,
    make_part,
    renumber_packs,
)
from cinderblock.format.pack import PackTable
from cinderblock.format.range_reader import Buffer

SECTION_BYTES = 1 << 20
"""A section is closed at about this size. It is small enough to keep several in memory, and large enough to compress
well and to be fetched a few at a time."""
EXTENTS_PER_PART = 4096
"""An entry with more extents is divided into parts; a device of 1 TiB has a million extents."""
_UNUSED = 0xFFFFFFFF


class Savepoint(NamedTuple):
    """A state of an unfinished manifest to which `ManifestWriter.roll_back` can return."""

    body: int
    sections: int
    packs: int
    names: int
    logical_bytes: int
    transferred_bytes: int
    newest_ctime_ns: int
    last_path: bytes | None
    use: PackUse


class PackRenumbering:
    """Assigns final numbers to packs on their first use, so that the table holds only packs in use."""

    def __init__(self, candidates: PackTable) -> None:
        self._candidates = candidates
        self._final = array("I")
        self.used: list[int] = []

    def final(self, pack: int) -> int:
        """Return the final number of a candidate."""
        while pack >= len(self._final):
            self._final.append(_UNUSED)
        if self._final[pack] == _UNUSED:
            self._final[pack] = len(self.used)
            self.used.append(pack)
        return self._final[pack]

    def forget_from(self, count: int) -> None:
        """Revoke the final numbers from ``count`` on."""
        for pack in self.used[count:]:
            self._final[pack] = _UNUSED
        del self.used[count:]

    def table(self) -> PackTable:
        """Return the table of the packs in use."""
        table = PackTable()
        for pack in self.used:
            candidates = self._candidates
            table.add(
                candidates.origin(pack),
                candidates.number(pack),
                candidates.size(pack),
                candidates.locked_until(pack),
            )
        return table


class ManifestWriter:
    """An unfinished manifest. It takes as much memory as space in the store: about 60 bytes for a small file.

    Args:
        header: of this manifest only.
        sealer: ``header.sealer(...)``.
        packs: candidates, which the chunks of entries name by number.
    """

    def __init__(self, header: ManifestHeader, sealer: Sealer, packs: PackTable) -> None:
        self._header = header
        self._sealer = sealer
        self._candidates = packs
        self._used = PackRenumbering(packs)
        self._use = PackUse()
        self._body = bytearray(header.encode())
        self._sections: list[Section] = []
        self._open: list[Entry] = []
        self._parts: list[SectionPart] = []
        self._rows = 0
        self._size = 0
        self._last_path: bytes | None = None
        self._names = self._logical_bytes = self._transferred_bytes = 0
        self._newest_ctime_ns = 0
        self._oldest_ctime_ns: int | None = None
        self._packs_in_use: PackTable | None = None

    def add(self, entry: Entry) -> None:
        """Add the next entry, or the next part of the last one."""
        if len(entry.extents) <= EXTENTS_PER_PART:
            self._add_part(entry)
            return
        for start in range(0, len(entry.extents), EXTENTS_PER_PART):
            self._add_part(entry._replace(extents=entry.extents[start : start + EXTENTS_PER_PART]))

    def _add_part(self, entry: Entry) -> None:
        self._open.append(entry)
        self._size += estimate_bytes(entry)
        if self._size >= SECTION_BYTES:
            self._close_section()

    def savepoint(self) -> Savepoint:
        """Close the section, and return the current state of the manifest."""
        self._close_section()
        return Savepoint(
            len(self._body),
            len(self._sections),
            len(self._used.used),
            self._names,
            self._logical_bytes,
            self._transferred_bytes,
            self._newest_ctime_ns,
            self._last_path,
            self._use.copy(),
        )

    def roll_back(self, savepoint: Savepoint) -> None:
        """Remove everything that was added after ``savepoint``."""
        self._open, self._parts = [], []
        self._rows = self._size = 0
        self._packs_in_use = None
        del self._body[savepoint.body :]
        del self._sections[savepoint.sections :]
        self._used.forget_from(savepoint.packs)
        self._use = savepoint.use.copy()
        self._names, self._last_path = savepoint.names, savepoint.last_path
        self._logical_bytes, self._transferred_bytes = savepoint.logical_bytes, savepoint.transferred_bytes
        self._newest_ctime_ns = savepoint.newest_ctime_ns

    def reuse(self, run: SectionRun) -> None:
        """Add entries of the parent unchanged. ``packs`` must begin with the parent's table."""
        if run.is_copied:
            self._copy(run)
            return
        self._close_part()
        self._count_run(run, run.section.table.logical_bytes(run.start, run.stop))
        start = run.start
        while start < run.stop:
            stop = self._fitting_stop(run.section.table, start, run.stop)
            self._parts.append(run.section.table.part(start, stop))
            self._rows += stop - start
            self._size += run.section.table.estimate_bytes(start, stop)
            start = stop
            if self._size >= SECTION_BYTES:
                self._close_section()

    def _fitting_stop(self, table: SectionTable, start: int, stop: int) -> int:
        """Return where to end the section so that it gets the usual size.

        If the rows of a section always stayed together, sections would grow from backup to backup without limit.
        """
        room, size = SECTION_BYTES - self._size, table.estimate_bytes(start, stop)
        return stop if size <= room else start + max(1, (stop - start) * room // size)

    def _copy(self, run: SectionRun) -> None:
        """Add a section of the parent, changing only the numbers of its packs."""
        self._close_section()
        section = run.section
        self._count_run(run, logical_bytes(section.plaintext))
        plaintext = renumber_packs(section.plaintext, self._used.final)
        compressed = section.compressed if plaintext == section.plaintext else compress_frame(plaintext)
        self._append(plaintext, compressed, run.rows)

    def _count_run(self, run: SectionRun, logical: int) -> None:
        """Add rows to the counts. Reused rows never lie in packs of this backup."""
        self._names += run.names - (run.first_path == self._last_path)
        self._last_path = run.last_path
        self._newest_ctime_ns = max(self._newest_ctime_ns, run.newest_ctime_ns)
        if run.oldest_ctime_ns is not None:
            self._count_ctimes([run.oldest_ctime_ns])
        self._logical_bytes += logical

    def _close_part(self) -> None:
        """Make a part of the entries that were added one by one."""
        if self._open:
            self._count(self._open)
            self._parts.append(make_part(self._open))
            self._rows += len(self._open)
            self._open = []

    def _close_section(self) -> None:
        self._close_part()
        if not self._parts:
            return
        plaintext = encode_section(self._parts, self._used.final)
        self._append(plaintext, compress_frame(plaintext), self._rows)
        self._parts = []
        self._rows = self._size = 0

    def _append(self, plaintext: bytes, compressed: Buffer, entries: int) -> None:
        """Seal a section, and append it."""
        self._use.add_section(plaintext)
        self._packs_in_use = None
        number = len(self._sections)
        frame = self._sealer.seal(FrameKind.CONTENT, number, compressed)
        offset = len(self._body) - HEADER_BYTES
        digest = digest_of(plaintext)
        self._sections.append(Section(number, offset, len(frame), len(plaintext), entries, digest))
        self._body += frame

    def _count(self, entries: list[Entry]) -> None:
        """Add entries to the counts. The parts of an entry count once."""
        is_own = self.is_own
        for entry in entries:
            self._names += entry.path != self._last_path
            self._last_path = entry.path
            for extent in entry.extents:
                self._logical_bytes += extent.length
                if is_own(extent.chunk.pack):
                    self._transferred_bytes += extent.length
        self._newest_ctime_ns = max(self._newest_ctime_ns, *(entry.ctime_ns for entry in entries))
        self._count_ctimes([entry.ctime_ns for entry in entries if entry.kind is not EntryKind.HARDLINK])

    def _count_ctimes(self, ctimes_ns: list[int]) -> None:
        """Update the oldest ctime."""
        known = [] if self._oldest_ctime_ns is None else [self._oldest_ctime_ns]
        self._oldest_ctime_ns = min(known + ctimes_ns, default=None)

    def is_own(self, pack: int) -> bool:
        """Return whether a candidate belongs to this backup itself."""
        return self._candidates.origin(pack).backup_id == self._header.backup_id

    @property
    def pins(self) -> Pins:
        """Values that identify the manifest. Add all entries before."""
        return pins_of(self._header, content_digest(self._sections))

    def finish_entries(self) -> PackTable:
        """Close the last section, and return the packs in use under their final numbers.

        The manifest gets this table, with the locks that the caller has set in it.
        """
        self._close_section()
        if self._packs_in_use is None:
            self._packs_in_use = self._used.table()
        return self._packs_in_use

    @property
    def oldest_ctime_ns(self) -> int | None:
        """The oldest ctime of all added entries; None if no entry has a ctime. Call `finish_entries` before."""
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
        renewed_bytes: int = 0,
    ) -> bytearray:
        """Finish the manifest, and return the whole object.

        Args:
            description: volume and request.
            chunk_bytes: largest chunk of the backup.
            data_keys: of the ancestors, by backup id; unused keys are omitted.
            comparison: of a file system, how the backup found changed files.
            unreadable: missing objects; None if there are none.
            losses: metadata that the backup could not keep of its files, each kind once.
            renewed_bytes: unchanged bytes in packs of this backup.
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
                renewed_bytes=renewed_bytes,
                object_count=len(own),
                pack_bytes=sum(own),
            ),
            content_digest=self.pins.content_digest,
            unreadable=unreadable,
            losses=list(losses),
            origins=[OriginRecord(backup_id=origin.backup_id, attempt=origin.attempt) for origin in packs.origins],
            data_keys=encode_data_keys({name: key for name, key in data_keys.items() if name in used}),
        )
        in_use = self._use.counts(map(packs.size, range(len(packs))))
        self._body += encode_footer(Footer(summary, packs, self._sections, in_use), self._sealer)
        return self._body
