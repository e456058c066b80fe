"""Chains of incremental backups of one volume in memory, each of which lists packs of all earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.repository.deletion import delete_backup
from cinderblock.repository.expiry import Expiry
from cinderblock.repository.reference_cache import VolumeReferences
from cinderblock.repository.references import Dependents, References
from cinderblock.store.base import ObjectStore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import KEYS, PREFIX, VOLUME, Backups
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.format_reader import FormatReader


@dataclass
class ParentChain:
    """A volume, the chain of its backups, and their content.

    Attributes:
        backups: makes and reads backups.
        volume: the volume; each backup changes one of its files.
        held: the content of every file, by backup id.
    """

    backups: Backups = field(default_factory=lambda: Backups(MemoryStore()))
    volume: MemorySource = field(default_factory=MemorySource)
    held: dict[str, dict[bytes, bytes]] = field(default_factory=dict)

    def add(self, backup_id: str, parent: str | None, path: bytes | None = None, **more: Any) -> None:
        """Write a file, by default one for this backup alone, and make a backup; ``more`` are fields of the task."""
        content = (b"%s of %s " % (path or b"file", backup_id.encode())) * 50
        self.volume.add(path or backup_id.encode(), (0, content), stamp=len(self.held) + 1)
        self.backups.back_up(self.volume, backup_id, parent, **more)
        self.held[backup_id] = {
            name: b"".join(data for _, data in file.segments) for name, file in self.volume.files.items()
        }

    def read_back(self, backup_id: str) -> dict[bytes, bytes]:
        """Return the content of every file, read by the independent reader of docs/reference/format.md."""
        reader = FormatReader(self.backups.store.get, f"{PREFIX}/", KEYS)
        return {entry.path: bytes(entry.content) for entry in reader.entries(self.key(backup_id))}

    def key(self, backup_id: str) -> str:
        """Return the key of a manifest."""
        return self.backups.manifest_key(backup_id)

    def references(
        self,
        store: ObjectStore | None = None,
        known: VolumeReferences | None = None,
        expected: Collection[str] = (),
    ) -> References:
        """Begin a look-up of the manifests, through ``store``."""
        chosen, cache = store or self.backups.store, known or VolumeReferences()
        return References(chosen, PREFIX, VOLUME, self.backups.keys, cache, expected=expected)

    def needs(self, backup_id: str, keys: KeyRing | None = None) -> Dependents:
        """Return which backups need a backup, without a cache; ``keys`` replace those of the backups."""
        references = References(self.backups.store, PREFIX, VOLUME, keys or self.backups.keys, VolumeReferences())
        references.read_all()
        return references.needs(backup_id)

    def remove(
        self,
        backup_id: str,
        store: ObjectStore | None = None,
        known: VolumeReferences | None = None,
        now: datetime | None = None,
        *,
        expected: Collection[str] = (),
    ) -> int:
        """Delete a backup, through ``store``; ``expected`` are complete backups that stay."""
        chosen = store or self.backups.store
        references = self.references(chosen, known, expected)
        return delete_backup(chosen, PREFIX, VOLUME, backup_id, references, now=now or datetime.now(UTC))

    def expiry(
        self,
        backup_ids: Collection[str],
        store: ObjectStore | None = None,
        known: VolumeReferences | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = lambda: 0.0,
        *,
        expected: Collection[str] = (),
    ) -> Expiry:
        """Begin to remove expired backups, through ``store``; ``expected`` are complete backups that stay."""
        chosen, cache = store or self.backups.store, known or VolumeReferences()

        def begin() -> References:
            return self.references(chosen, cache, expected)

        return Expiry(chosen, PREFIX, VOLUME, backup_ids, begin, clock=clock, monotonic=monotonic)

    def expire(
        self, backup_ids: Collection[str], store: ObjectStore | None = None, known: VolumeReferences | None = None
    ) -> dict[str, int]:
        """Remove expired backups. Return those that are gone, and how many of their packs stay."""
        run = self.expiry(backup_ids, store, known)
        for _ in run.steps():
            pass
        for error in run.errors.values():
            raise error
        return run.removed

    def there(self) -> list[str]:
        """Return the backups that have a manifest, in the order in which they were made."""
        keys = {found.key for found in self.backups.store.list("")}
        return [backup for backup in self.held if self.key(backup) in keys]

    def check(self) -> None:
        """Check that every backup with a manifest restores byte for byte, and that all packs that it lists exist."""
        stored = {found.key for found in self.backups.store.list("")}
        for backup in self.there():
            assert self.backups.keys_in_use(backup) <= stored, backup
            assert self.read_back(backup) == self.held[backup], backup


def a_line(count: int, keys: KeyRing | None = None) -> ParentChain:
    """Return a chain of so many backups: b-000, and so on."""
    line = ParentChain(Backups(MemoryStore(), keys))
    for number in range(count):
        line.add(name(number), name(number - 1) if number else None)
    return line


def name(number: int) -> str:
    """Return the id of a backup."""
    return f"b-{number:03d}"
