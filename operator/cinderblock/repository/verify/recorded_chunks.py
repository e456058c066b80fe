"""The chunks that the manifest of the chosen backup records in unencrypted packs, as one number for each.

Anyone who can write to the container can replace an unencrypted pack by another one that agrees with itself. Only the
manifest, whose digest is recorded elsewhere, shows that. An encrypted pack cannot be forged.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from cinderblock.format.entries import Chunk
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.repository.verify.volume_packs import PackId, PackMarks, VolumePacks

MAX_RECORDED: Final = 1 << 24
"""Most chunks that are kept, in 128 MiB: those of 64 TiB in chunks of 4 MiB. Further ones are not compared."""


def fingerprint(chunk: Chunk) -> int:
    """Return a number for the place, the size and the digest of a chunk. It is only valid in this process."""
    return hash(chunk[1:])


class RecordedChunks:
    """The fingerprints of chunks, by pack."""

    def __init__(self) -> None:
        self._count = 0
        self._fingerprints: dict[PackId, array[int]] = {}

    def read(self, manifest: ManifestReader, packs: VolumePacks, wanted: PackMarks) -> None:
        """Add the chunks of a manifest that lie in some packs. Raises what the manifest raises."""
        table = manifest.packs
        places: dict[int, PackId | None] = {}
        for chunk in manifest.chunks():
            if chunk.pack not in places:
                found = packs.find(table.origin(chunk.pack), table.number(chunk.pack), table.size(chunk.pack))
                places[chunk.pack] = _first(found, wanted)
            place = places[chunk.pack]
            if place is not None and self._count < MAX_RECORDED:
                self._fingerprints.setdefault(place, array("q")).append(fingerprint(chunk))
                self._count += 1

    def of(self, pack: PackId) -> frozenset[int]:
        """Return the fingerprints of the chunks that lie in a pack."""
        return frozenset(self._fingerprints.get(pack, ()))


def _first(packs: Iterator[PackId], wanted: PackMarks) -> PackId | None:
    return next((pack for pack in packs if wanted.has(pack)), None)
