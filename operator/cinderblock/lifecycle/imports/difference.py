"""Compare the manifests of a store with the VolumeBackups of a namespace, by id."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cinderblock.lifecycle.imports.records import KnownBackup, StoredManifest, UnreadManifest
from cinderblock.reasons import Reason

MAX_BACKUPS: Final = 50_000
"""Manifests of a store from which on nothing is imported: their records take 30 MiB. Anybody who can write to the
bucket can put any number there."""


@dataclass(slots=True)
class Difference:
    """The comparison, fed with one manifest at a time, in order of key.

    Attributes:
        backups: number of manifests.
        volumes: number of volumes.
        stored_bytes: bytes of the backups with a VolumeBackup, as far as it knows them.
        new: manifests without a VolumeBackup, at most MAX_BACKUPS.
        refused: manifests whose id belongs to another VolumeBackup.
        newest: time of the newest data by volume, of the backups with a VolumeBackup.
        unfinished: volumes with a VolumeBackup that does not show the time of its data yet.
        present: UIDs of the VolumeBackups whose manifest is there.
        released_present: released backups whose manifest is there.
    """

    known: Iterable[KnownBackup]
    released: Collection[str] = ()
    backups: int = 0
    volumes: int = 0
    stored_bytes: int = 0
    new: list[StoredManifest] = field(default_factory=list)
    refused: list[UnreadManifest] = field(default_factory=list)
    newest: dict[str, datetime] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    present: set[str] = field(default_factory=set)
    released_present: set[str] = field(default_factory=set)
    _by_key: dict[str, list[KnownBackup]] = field(default_factory=dict)
    _by_id: dict[str, KnownBackup] = field(default_factory=dict)
    _released: frozenset[str] = frozenset()
    _volume: str = ""

    def __post_init__(self) -> None:
        self._released = frozenset(self.released)
        for backup in self.known:
            self._by_id.setdefault(backup.backup_id, backup)
            if backup.manifest:
                self._by_key.setdefault(backup.manifest, []).append(backup)

    @property
    def is_too_large(self) -> bool:
        """Return whether the store holds more backups than are imported."""
        return self.backups > MAX_BACKUPS

    @property
    def released_gone(self) -> frozenset[str]:
        """Return the released backups whose manifest the listing lacked. Later marks are not among them."""
        return self._released - self.released_present

    def add(self, stored: StoredManifest) -> None:
        """Add a manifest of the store."""
        self.backups += 1
        self.volumes += stored.volume_id != self._volume
        self._volume = stored.volume_id
        same_id = self._by_id.get(stored.import_id)
        if same_id is not None and stored.import_id in self._released:
            self.released_present.add(stored.import_id)
        owners = self._by_key.get(stored.key) or ([same_id] if same_id is not None and not same_id.manifest else [])
        if owners:
            self._add_known(stored, owners)
        elif stored.import_id in self._released:
            self.released_present.add(stored.import_id)
        elif self.is_too_large:
            pass
        elif same_id is not None:
            message = f"VolumeBackup {same_id.name} has its id, and another manifest. Find out who wrote this one."
            self.refused.append(UnreadManifest(stored, Reason.ID_TAKEN, message))
        else:
            self.new.append(stored)

    def leave_out(self, created: Iterable[KnownBackup]) -> None:
        """Leave out the manifests of VolumeBackups that were created meanwhile."""
        ids, keys = set[str](), set[str]()
        for backup in created:
            ids.add(backup.backup_id)
            keys.add(backup.manifest)
        if ids:
            self.new = [stored for stored in self.new if stored.key not in keys and stored.import_id not in ids]

    def leave_out_released(self, released: Iterable[str]) -> None:
        """Leave out the manifests of backups that were released in other BackupStores of the same place."""
        marks = frozenset(released)
        if marks:
            self.new = [stored for stored in self.new if stored.import_id not in marks]

    def _add_known(self, stored: StoredManifest, owners: Iterable[KnownBackup]) -> None:
        counted = 0
        for backup in owners:
            self.present.add(backup.uid)
            counted = max(counted, backup.stored_bytes)
            if backup.data_time is not None:
                before = self.newest.get(stored.volume_id, backup.data_time)
                self.newest[stored.volume_id] = max(before, backup.data_time)
            elif not backup.has_ended:
                self.unfinished.add(stored.volume_id)
        self.stored_bytes += counted
