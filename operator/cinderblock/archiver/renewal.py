"""Choose the packs of the parent that an incremental backup abandons, because little of them is still in use.

A pack is deleted as a whole, when no manifest lists it any more. While backups expire, the changed parts of old packs
stay in the store as long as an unchanged part is in use. So an incremental backup reads the unchanged part from the
volume and sends it again, and the pack falls out of its list. Nothing is read from the store, and no object changes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from cinderblock.format.entries import Extent
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.pack import PACK_BYTES, PackTable
from cinderblock.repository.objects import LISTING_SECONDS, list_manifests
from cinderblock.store.base import ObjectStore
from cinderblock.store.deadline import limit_seconds

MOST_RENEWED: Final = 20
"""An incremental backup sends at most one part in this many of the volume's data again, 5 %."""


class PackKey(NamedTuple):
    """The parts of a pack's key that differ between the packs of a volume.

    Attributes:
        backup_id: the backup that made it.
        name: the last part of the key, ``<attempt>-<n>``.
    """

    backup_id: str
    name: str


def packs_to_avoid(
    parent: ManifestReader, store: ObjectStore, prefix: str, below_percent: int, avoid: Collection[PackKey] = ()
) -> frozenset[int]:
    """Return the numbers of the parent's packs that a backup must not point into.

    This lists the manifests of the volume if any pack is little used, and raises what the store raises.

    Args:
        parent: the manifest of the parent.
        store: holds the manifests of the volume.
        prefix: of the store.
        below_percent: packs with less in use are renewed; 0: none.
        avoid: more packs to avoid, without a limit, for example damaged ones.
    """
    packs = parent.packs
    avoided = frozenset(pack for pack in range(len(packs)) if _key(packs, pack) in avoid) if avoid else frozenset()
    candidates = underused(packs, parent.used, below_percent)
    if candidates:
        with limit_seconds(LISTING_SECONDS):
            owners = {found.backup_id for found in list_manifests(store, prefix, parent.header.volume_id)}
        candidates = [pack for pack in candidates if packs.origin(pack).backup_id not in owners]
    return avoided.union(within_limit(candidates, parent.used))


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


def _key(packs: PackTable, pack: int) -> PackKey:
    return PackKey(packs.origin(pack).backup_id, packs.name(pack))
