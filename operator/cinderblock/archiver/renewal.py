"""Choose the packs of the parent that an incremental backup abandons: damaged ones, and those that are little used.

A pack is deleted as a whole, when no manifest lists it any more. While backups expire, the changed parts of old packs
stay in the store as long as an unchanged part is in use. So an incremental backup reads the unchanged part from the
volume and sends it again, and the pack falls out of its list. Nothing is read from the store, and no object changes.

A damaged pack is abandoned in the same way, with one difference. A file that cannot be read keeps its place in a little
used pack, but not in a damaged one: it is treated like a file that has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from cinderblock.api.layout import pack_prefix
from cinderblock.format.entries import Extent
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.pack import PACK_BYTES, PackTable
from cinderblock.repository.objects import LISTING_SECONDS, list_manifests
from cinderblock.store.base import ObjectStore
from cinderblock.store.deadline import limit_seconds

MOST_RENEWED: Final = 20
"""An incremental backup sends at most one part in this many of the volume's data again, 5 %."""


class DamagedPacks(NamedTuple):
    """The packs of the parent that are damaged.

    Attributes:
        packs: their numbers.
        divided: paths of files of which a further part has chunks in them. A large file has parts in several rows, and
            only its first row shows whether it has changed.
    """

    packs: frozenset[int] = frozenset()
    divided: frozenset[bytes] = frozenset()


NO_DAMAGE: Final = DamagedPacks()
"""No pack is damaged."""


def find_damaged(parent: ManifestReader, keys: Collection[str]) -> DamagedPacks:
    """Return the packs of the parent with these keys, which have no prefix of the store.

    If the parent lists any, this reads its manifest once.
    """
    wanted, packs, volume_id = frozenset(keys), parent.packs, parent.header.volume_id
    if not wanted:
        return NO_DAMAGE
    damaged = frozenset(
        pack
        for pack in range(len(packs))
        if pack_prefix("", volume_id, packs.origin(pack).backup_id) + packs.name(pack) in wanted
    )
    if not damaged:
        return NO_DAMAGE
    divided = set[bytes]()
    for section in parent.contents():
        if section.lies_in(damaged):
            paths = section.stats().paths
            rows = section.table.rows_in(damaged, 0, len(paths))
            # The first row of a section may continue a file of the section before.
            divided.update(paths[row] for row in rows if row == 0 or paths[row - 1] == paths[row])
    return DamagedPacks(damaged, frozenset(divided))


def little_used_packs(parent: ManifestReader, store: ObjectStore, prefix: str, below_percent: int) -> frozenset[int]:
    """Return the numbers of the parent's packs that a backup abandons because little of them is in use.

    This lists the manifests of the volume if any pack is little used, and raises what the store raises.

    Args:
        parent: the manifest of the parent.
        store: holds the manifests of the volume.
        prefix: of the store.
        below_percent: packs with less in use are renewed; 0: none.
    """
    packs = parent.packs
    candidates = underused(packs, parent.used, below_percent)
    if candidates:
        with limit_seconds(LISTING_SECONDS):
            owners = {found.backup_id for found in list_manifests(store, prefix, parent.header.volume_id)}
        candidates = [pack for pack in candidates if packs.origin(pack).backup_id not in owners]
    return frozenset(within_limit(candidates, parent.used))


def underused(packs: PackTable, used: Sequence[int], below_percent: int) -> list[int]:
    """Return the packs of which less than a percentage is in use, those with the least use first.

    Args:
        packs: the packs of a manifest.
        used: for each pack, how many of its bytes are in use; empty: not known.
        below_percent: 0 to 100.
    """
    found = [pack for pack, part in enumerate(used) if part * 100 < packs.size(pack) * below_percent]
    return sorted(found, key=lambda pack: (used[pack] / packs.size(pack), pack))


def within_limit(candidates: Sequence[int], used: Sequence[int]) -> list[int]:
    """Return the first candidates of which at most 1/MOST_RENEWED of all bytes in use is sent again.

    One whole pack is always allowed, so that a volume smaller than MOST_RENEWED packs is renewed, too.
    """
    left = max(sum(used) // MOST_RENEWED, PACK_BYTES)
    chosen: list[int] = []
    for pack in candidates:
        left -= used[pack]
        if left < 0:
            break
        chosen.append(pack)
    return chosen


def lie_in(extents: Sequence[Extent], packs: frozenset[int]) -> bool:
    """Return whether any of these extents lies in one of these packs."""
    return bool(packs) and any(extent.chunk.pack in packs for extent in extents)
