"""The findings of a verification, and the second reading of the manifests that confirms damage.

Removals and backups work at the same time. A removal deletes manifests before the packs that only they list. So a pack
that is missing is needed only if a manifest that lists it is still there afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from cinderblock.api.layout import manifest_key
from cinderblock.api.pins import ExpectedBackup
from cinderblock.errors import IntegrityError, PermanentError
from cinderblock.format.pack import Origin, pack_name, parse_pack_name
from cinderblock.repository.objects import LISTING_SECONDS, list_packs_of_volume
from cinderblock.repository.verify.manifests import ManifestStates, VolumeManifests
from cinderblock.repository.verify.volume_packs import PackId, PackMarks, VolumePacks
from cinderblock.store.base import ObjectStore
from cinderblock.store.deadline import limit_seconds

NAMED: Final = 20
"""Damaged objects and affected backups that are named."""
SETTLE_SECONDS: Final = 10.0
"""Seconds before packs that seem to be missing are listed again. A backup whose parent was removed meanwhile has a
manifest for a moment, and withdraws it (see `archiver.commit`)."""
_NEWEST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a verification. Damage is a finding, not an error.

    Attributes:
        complete: whether everything was verified that was requested; false after a limit.
        packs: number of packs that the verified manifests list.
        packs_verified: number of packs that are sound at the requested level.
        bytes_read: bytes that were read from the store.
        damaged_count: number of objects that are damaged or missing.
        damaged: keys of some of them, without the prefix of the store. Those that the chosen backup needs come first.
        causes: what is wrong with them, in the same order.
        affected_count: number of backups that need a damaged object.
        affected: ids of some of them: the chosen one, and then the newest ones.
        unreadable_count: number of other manifests of the volume that say nothing, for example because their key is
            missing.
    """

    complete: bool
    packs: int
    packs_verified: int
    bytes_read: int
    damaged_count: int = 0
    damaged: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    affected_count: int = 0
    affected: tuple[str, ...] = ()
    unreadable_count: int = 0


@dataclass(slots=True)
class Suspects:
    """Packs that seem to be damaged or missing.

    Attributes:
        marks: all of them.
        missing: those that a listing lacks, or shows with another size.
        causes: what is wrong with some others.
    """

    marks: PackMarks = field(default_factory=PackMarks)
    missing: PackMarks = field(default_factory=PackMarks)
    causes: dict[PackId, str] = field(default_factory=dict)

    def add_missing(self, pack: PackId) -> None:
        """Add a pack that is missing, or has another size."""
        self.marks.add(pack)
        self.missing.add(pack)

    def add_damaged(self, pack: PackId, error: PermanentError) -> None:
        """Add a pack whose content is wrong."""
        self.marks.add(pack)
        if len(self.causes) < 10 * NAMED:
            self.causes[pack] = error.message


@dataclass(slots=True)
class Damage:
    """Confirmed damage: objects, and the backups that need them."""

    objects: int = 0
    of_chosen: dict[str, str] = field(default_factory=dict)
    of_others: dict[str, str] = field(default_factory=dict)
    affected: set[str] = field(default_factory=set)

    def add(self, key: str, cause: str, *, is_of_chosen: bool) -> None:
        """Name a damaged object, unless enough are named. This does not count it."""
        named = self.of_chosen if is_of_chosen else self.of_others
        if len(named) < NAMED:
            named[key] = cause

    def named(self) -> tuple[tuple[str, str], ...]:
        """Return some damaged objects with their causes."""
        both = {**self.of_chosen, **{key: cause for key, cause in self.of_others.items() if key not in self.of_chosen}}
        return tuple(both.items())[:NAMED]


def find_present(store: ObjectStore, prefix: str, volume_id: str, packs: VolumePacks) -> PackMarks:
    """List the packs of a volume once. Return those that exist with the size that manifests list."""
    present = PackMarks()
    with limit_seconds(LISTING_SECONDS):
        for found in list_packs_of_volume(store, prefix, volume_id):
            parsed = parse_pack_name(found.name)
            if parsed is not None and found.name == pack_name(*parsed):
                for pack in packs.find(Origin(found.backup_id, parsed[0]), parsed[1], found.size):
                    present.add(pack)
    return present


class SecondLook:
    """Confirm suspects: wait, list packs and read manifests again.

    Args:
        store, prefix: where the backups are.
        chosen: the backup that is verified.
        manifests: reads the manifests of the volume.
        packs: the packs that were verified.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        chosen: ExpectedBackup,
        *,
        manifests: VolumeManifests,
        packs: VolumePacks,
        sleep: Callable[[float], None],
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._chosen = chosen
        self._manifests = manifests
        self._packs = packs
        self._sleep = sleep

    def confirm(self, suspects: Suspects, damage: Damage, states: ManifestStates) -> None:
        """Add suspects to ``damage`` that are still wrong, and that a manifest lists now. Fill ``states``."""
        if suspects.missing.count:
            self._sleep(SETTLE_SECONDS)
            self._drop_present(suspects)
        confirmed = PackMarks()
        for found, packs in self._manifests.read(states):
            is_of_chosen = found.backup_id == self._chosen.backup_id
            for pack in self._packs.listed(packs, suspects.marks):
                confirmed.add(pack)
                damage.affected.add(found.backup_id)
                cause = suspects.causes.get(pack) or self._missing(pack)
                damage.add(self._packs.key(pack, with_prefix=False), cause, is_of_chosen=is_of_chosen)
        damage.objects += confirmed.count

    def _missing(self, pack: PackId) -> str:
        key, size = self._packs.key(pack), self._packs.size(pack)
        return f"{key} is missing, or does not have the {size} bytes that were written."

    def _drop_present(self, suspects: Suspects) -> None:
        """Remove the missing packs from the suspects that exist with the right size now."""
        present = find_present(self._store, self._prefix, self._chosen.volume_id, self._packs)
        left = PackMarks()
        for pack in suspects.marks.packs():
            if not (suspects.missing.has(pack) and present.has(pack)):
                left.add(pack)
        suspects.marks = left


def add_manifest(damage: Damage, chosen: ExpectedBackup, backup_id: str, error: IntegrityError) -> None:
    """Add a damaged manifest of a backup."""
    damage.objects += 1
    damage.affected.add(backup_id)
    key = manifest_key("", chosen.volume_id, backup_id)
    damage.add(key, error.message, is_of_chosen=backup_id == chosen.backup_id)


def sort_affected(affected: set[str], chosen: ExpectedBackup, states: ManifestStates) -> tuple[str, ...]:
    """Return some affected backups: the chosen one, and then the newest ones. Unknown times count as newest."""
    own = [chosen.backup_id] if chosen.backup_id in affected else []
    others = sorted(
        affected.difference(own), key=lambda backup: (states.timestamps.get(backup, _NEWEST), backup), reverse=True
    )
    return tuple(chain(own, others))[:NAMED]
