"""Writing a manifest: entries go in one by one, the whole object comes out."""

from __future__ import annotations

from array import array

from cinderblock.datapath.digest import digest_of
from cinderblock.datapath.entries import Entry
from cinderblock.datapath.footer import (
    Counts,
    Footer,
    OriginRecord,
    Section,
    Summary,
    compress_frame,
    content_digest,
    encode_data_keys,
    encode_footer,
)
from cinderblock.datapath.header import HEADER_BYTES, ManifestHeader
from cinderblock.datapath.keys import DataKey
from cinderblock.datapath.manifest import SectionContent
from cinderblock.datapath.packs import PackTable
from cinderblock.datapath.seal import Buffer, Sealer, Slot
from cinderblock.datapath.sections import encode_section, estimate, logical_bytes, renumbered
from cinderblock.model.task import BackupDescription

SECTION_BYTES = 1 << 20
"""A section is closed when it has about this many bytes: small enough that some of them in memory do not count, large
enough to be compressed well and to be fetched a few at a time."""
EXTENTS_PER_PART = 4096
"""An entry with more extents is divided into parts: a device of 1 TiB has a million of them."""
_UNUSED = 0xFFFFFFFF


class UsedPacks:
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
        self._used = UsedPacks(packs)
        self._body = bytearray(header.encode())
        self._sections: list[Section] = []
        self._open: list[Entry] = []
        self._size = 0
        self._last_path: bytes | None = None
        self._counts = Counts()
        self._newest_ctime_ns = 0

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

    def copy(self, section: SectionContent) -> None:
        """Add a section of the parent as it is: nothing of what it describes has changed.

        Only the numbers of its packs are others. ``packs`` must begin with the parent's table.
        """
        self._close_section()
        stamps = section.stamps()
        names = len(set(stamps.paths)) - (stamps.paths[0] == self._last_path)
        self._last_path = stamps.paths[-1]
        self._newest_ctime_ns = max(self._newest_ctime_ns, *stamps.ctimes_ns)
        counts = self._counts
        self._counts = counts.model_copy(
            update={
                "entries": counts.entries + names,
                "logical_bytes": counts.logical_bytes + logical_bytes(section.plaintext),
            }
        )
        plaintext = renumbered(section.plaintext, self._used.final)
        compressed = section.compressed if plaintext == section.plaintext else compress_frame(plaintext)
        self._append(plaintext, compressed, len(stamps.paths))

    def _close_section(self) -> None:
        if not self._open:
            return
        self._count(self._open)
        plaintext = encode_section(self._open, self._used.final)
        self._append(plaintext, compress_frame(plaintext), len(self._open))
        self._open = []
        self._size = 0

    def _append(self, plaintext: bytes, compressed: Buffer, entries: int) -> None:
        """Seal a section and put it behind the others."""
        number = len(self._sections)
        frame = self._sealer.seal(Slot.CONTENT, number, compressed)
        offset = len(self._body) - HEADER_BYTES
        digest = digest_of(plaintext)
        self._sections.append(Section(number, offset, len(frame), len(plaintext), entries, digest))
        self._body += frame

    def _count(self, entries: list[Entry]) -> None:
        """Add a section to the counts. Parts of one entry count once."""
        counts, mine = self._counts, self._is_mine
        names = logical = transferred = 0
        for entry in entries:
            names += entry.path != self._last_path
            self._last_path = entry.path
            for extent in entry.extents:
                logical += extent.length
                if mine(extent.chunk.pack):
                    transferred += extent.length
        self._newest_ctime_ns = max(self._newest_ctime_ns, *(entry.ctime_ns for entry in entries))
        self._counts = Counts(
            entries=counts.entries + names,
            logical_bytes=counts.logical_bytes + logical,
            transferred_bytes=counts.transferred_bytes + transferred,
        )

    def _is_mine(self, pack: int) -> bool:
        return self._candidates.origin(pack).backup_id == self._header.backup_id

    def finish_entries(self) -> PackTable:
        """All entries are added: the packs that they use, under their final numbers."""
        self._close_section()
        return self._used.table()

    def finish(
        self,
        description: BackupDescription,
        chunk_bytes: int,
        data_keys: dict[str, DataKey],
    ) -> bytearray:
        """The whole object.

        Args:
            description: volume and request.
            chunk_bytes: largest chunk of the backup.
            data_keys: of the ancestors, by backup id; those that are not used are left out.
        """
        packs = self.finish_entries()
        own = list(packs.sizes_of(self._header.backup_id))
        used = {origin.backup_id for origin in packs.origins} - {self._header.backup_id}
        summary = Summary(
            description=description,
            parent_id=self._header.parent_id,
            chunk_bytes=chunk_bytes,
            newest_ctime_ns=self._newest_ctime_ns,
            counts=self._counts.model_copy(update={"object_count": len(own), "pack_bytes": sum(own)}),
            content_digest=content_digest(self._sections),
            origins=[OriginRecord(backup_id=origin.backup_id, attempt=origin.attempt) for origin in packs.origins],
            data_keys=encode_data_keys({name: key for name, key in data_keys.items() if name in used}),
        )
        self._body += encode_footer(Footer(summary, packs, self._sections), self._sealer)
        return self._body
