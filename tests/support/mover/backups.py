"""Short calls for backups and restores: a store, keys, and tasks for the engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cinderblock.api.file_policies import Fidelity
from cinderblock.api.layout import manifest_key, pack_prefix
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverReport, MoverTask, StoreLocation, VolumeMode
from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.api.v1alpha1.store import ChangeDetection, Compression
from cinderblock.archiver.archiver import run_backup
from cinderblock.archiver.source import Source
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.repository.verify.backup import Verification, run_verify
from cinderblock.restorer.restorer import run_restore
from cinderblock.store.base import ObjectStore
from cinderblock.store.memory import MemoryStore

VOLUME = "0b8e0c1e-6f0c-4f0f-9d55-3f6f0a3a1c01"
PREFIX = "some/where"
KEYS = {"2024": b"a" * 32, "2025": b"b" * 32}
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
LATER = datetime(2200, 1, 1, tzinfo=UTC)
"""A time long after the timestamps of all real files."""


def key_ring(*ids: str) -> KeyRing:
    """Return a key ring of the given ids, by default of all; the last one is active."""
    chosen = ids or tuple(KEYS)
    return KeyRing({key_id: KEYS[key_id] for key_id in chosen}, chosen[-1])


class Backups:
    """The backups of one volume in one store.

    Attributes:
        store: where they are.
        keys: the key ring; None: backups are not sealed.
        pins: the pins that movers have reported, by backup.
    """

    def __init__(self, store: ObjectStore | None = None, keys: KeyRing | None = None) -> None:
        self.store: ObjectStore = store or MemoryStore()
        self.keys = keys
        self.pins: dict[str, Pins] = {}

    def task(
        self,
        operation: MoverOperation,
        backup: str,
        *,
        path: Path | str = "",
        mode: VolumeMode = VolumeMode.FILESYSTEM,
        parent: str | None = None,
        compression: Compression | None = None,
        change_detection: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE,
        data_timestamp: datetime = NOON,
        created_at: datetime = NOON,
        **more: Any,
    ) -> MoverTask:
        """Return a task like the operator's; ``more`` are fields of `api.mover.MoverTask`."""
        return MoverTask(
            operation=operation,
            store=StoreLocation(container="container", prefix=PREFIX),
            volume_mode=mode,
            path=str(path),
            expected=self.expected(backup) if operation is MoverOperation.RESTORE else None,
            expected_parent=None if parent is None else self.expected(parent),
            backup=BackupMetadata(
                backup_id=backup,
                volume_id=VOLUME,
                volume_mode=mode,
                created_at=created_at,
                data_timestamp=data_timestamp,
            ),
            parent_manifest=None if parent is None else self.manifest_key(parent),
            manifest=self.manifest_key(backup),
            change_detection=change_detection,
            compression=compression or Compression(),
            sealed=self.keys is not None,
            **({"data_instant": min(created_at, data_timestamp)} | more),
        )

    def back_up(
        self,
        volume: Source | Path,
        backup: str,
        parent: str | None = None,
        mode: VolumeMode = VolumeMode.FILESYSTEM,
        *,
        compression: Compression | None = None,
        change_detection: ChangeDetection = ChangeDetection.SIZE_MTIME_CTIME_INODE,
        data_timestamp: datetime = NOON,
        created_at: datetime = NOON,
        **more: Any,
    ) -> MoverReport:
        """Back up a directory, an image, or a volume in memory.

        Real files are younger than NOON, so the next incremental backup reuses none of them; pass LATER for that.
        ``more`` are fields of the task.
        """
        task = self.task(
            MoverOperation.BACKUP,
            backup,
            path=volume if isinstance(volume, Path) else "",
            mode=mode,
            parent=parent,
            compression=compression,
            change_detection=change_detection,
            data_timestamp=data_timestamp,
            created_at=created_at,
            **more,
        )
        if isinstance(volume, Path):
            report = run_backup(task, self.store, self.keys)
        else:
            report = run_backup(task, self.store, self.keys, opener=lambda mode, path: nullcontext(volume))
        if report.pins is not None:
            self.pins[backup] = report.pins
        return report

    def restore(
        self,
        backup: str,
        path: Path,
        mode: VolumeMode = VolumeMode.FILESYSTEM,
        *,
        fidelity: Fidelity = Fidelity.STRICT,
    ) -> MoverReport:
        """Restore a backup to a directory or an image."""
        task = self.task(MoverOperation.RESTORE, backup, path=path, mode=mode).model_copy(update={"fidelity": fidelity})
        return run_restore(task, self.store, self.keys)

    def verify(self, backup: str) -> Verification:
        """Read a backup back."""
        return run_verify(self.store, PREFIX, self.manifest_key(backup), self.expected(backup), self.keys)

    def open(self, backup: str) -> ManifestReader:
        """Return the manifest of a backup."""
        key = self.manifest_key(backup)
        read = partial(self.store.get, key)
        return ManifestReader(read, self.keys, ExpectedBackup(volume_id=VOLUME, backup_id=backup), key)

    def expected(self, backup: str) -> ExpectedBackup:
        """Return the expectation that a status records: the reported pins, or only the ids of a backup made
        elsewhere."""
        pins = self.pins.get(backup)
        sealed = pins is not None and pins.suite != 0
        return ExpectedBackup(volume_id=VOLUME, backup_id=backup, sealed=sealed, pins=pins)

    def manifest_key(self, backup: str) -> str:
        """Return the key of a backup's manifest."""
        return manifest_key(PREFIX, VOLUME, backup)

    def pack_keys(self, backup: str) -> list[str]:
        """Return the keys of all objects below a backup's prefix of packs."""
        return [info.key for info in self.store.list(pack_prefix(PREFIX, VOLUME, backup))]

    def keys_in_use(self, backup: str) -> set[str]:
        """Return the keys of the packs that a backup points into."""
        packs = self.open(backup).packs
        return {
            pack_prefix(PREFIX, VOLUME, packs.origin(pack).backup_id) + packs.name(pack) for pack in range(len(packs))
        }

    @contextmanager
    def changed(self, key: str, body: bytes | None) -> Iterator[None]:
        """Replace an object inside the block, or delete it with None."""
        before = self.store.get(key)
        if body is None:
            self.store.delete([key])
        else:
            self.store.put(key, body)
        try:
            yield
        finally:
            self.store.put(key, before)
