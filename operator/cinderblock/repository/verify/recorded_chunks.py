"""The chunks that the manifest of the chosen backup records in unencrypted packs, as one number for each.

Anyone who can write to the container can replace an unencrypted pack by another one that agrees with itself. Only the
manifest, whose digest is recorded elsewhere, shows that. An encrypted pack cannot be forged.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Final

from cinderblock.format.entries import Chunk
from cinderblock.format.pack import PackTable
from cinderblock.repository.verify.volume_packs import PackId, PackMarks, VolumePacks

MAX_RECORDED: Final = 1 << 24
"""Most chunks that are kept, in 128 MiB: those of 64 TiB in chunks of 4 MiB. Further ones are not compared."""


def fingerprint(chunk: Chunk) -> int:
    """Return a number for the place, the size and the digest of a chunk. It is only valid in this process."""
    return hash(chunk[1:])


class RecordedChunks:
    """The fingerprints of the chunks of one manifest that lie in some packs, by pack.

    Args:
        manifest: the packs that its chunks name by number.
        packs: the packs of the volume.
        wanted: those whose chunks are kept.
    """

    def __init__(self, manifest: PackTable, packs: VolumePacks, wanted: PackMarks) -> None:
        self._count = 0
        self._fingerprints: dict[PackId, array[int]] = {}
        self._places: dict[int, PackId | None] = {}
        self._table = manifest
        self._packs = packs
        self._wanted = wanted

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Add the chunks of a section."""
        if not self._wanted.count:
            return
        for chunk in chunks:
            place = self._place(chunk.pack)
            if place is not None and self._count < MAX_RECORDED:
                self._fingerprints.setdefault(place, array("q")).append(fingerprint(chunk))
                self._count += 1

    def _place(self, pack: int) -> PackId | None:
        if pack not in self._places:
            table = self._table
            found = self._packs.find(table.origin(pack), table.number(pack), table.size(pack))
            self._places[pack] = _first(found, self._wanted)
        return self._places[pack]

    def of(self, pack: PackId) -> frozenset[int]:
        """Return the fingerprints of the chunks that lie in a pack."""
        return frozenset(self._fingerprints.get(pack, ()))


def _first(packs: Iterator[PackId], wanted: PackMarks) -> PackId | None:
    return next((pack for pack in packs if wanted.has(pack)), None)
