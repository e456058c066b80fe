"""The settings of an import: which backups it selects, and when it is due."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from cinderblock.api.duration import parse_long_duration, to_timedelta
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import (
    ALL_NAMESPACES,
    SHORTEST_IMPORT_INTERVAL,
    BackupStore,
    ImportMode,
    Inventory,
)
from cinderblock.lifecycle.imports.records import ReadManifest


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of an import.

    Attributes:
        mode: when backups are imported.
        interval: time between two imports.
        latest_only: whether only the newest backup of each volume is imported.
        newer_than: age of the oldest data; None: no limit.
        namespaces: in which the backups were made; None: all.
        volumes: UIDs and names of volumes; empty: all.
        digest: identifies these settings.
        mode_field: where a person sets the mode.
    """

    mode: ImportMode
    interval: timedelta
    latest_only: bool
    newer_than: timedelta | None
    namespaces: frozenset[str] | None
    volumes: frozenset[str]
    digest: str
    mode_field: str = "spec.import.mode"

    @property
    def is_on(self) -> bool:
        """Return whether backups are imported at all."""
        return self.mode is not ImportMode.NEVER

    def due(self, inventory: Inventory | None, now: datetime) -> datetime | None:
        """Return when the next import is due, given the result of the last complete one; None: never.

        An import with other settings counts for nothing, and neither does one from the future.
        """
        if not self.is_on:
            return None
        if inventory is None or inventory.time > now or inventory.loss_accepted:
            return now
        if inventory.settings not in (None, self.digest):
            return now
        if self.mode is ImportMode.ONCE and inventory.settings is not None:
            return None
        return inventory.time + self.interval

    def selects(self, manifest: ReadManifest, now: datetime) -> bool:
        """Return whether a backup is imported, apart from ``latest_only``."""
        namespaces, volumes = self.namespaces, self.volumes
        return (
            (namespaces is None or not manifest.namespace or manifest.namespace in namespaces)
            and (not volumes or manifest.stored.volume_id in volumes or manifest.volume_name in volumes)
            and (self.newer_than is None or now - manifest.data_time <= self.newer_than)
        )


def settings_of(store: BackupStore) -> Settings:
    """Return the settings of a store, with all fields of its ClusterBackupStore if it has one."""
    spec = store.spec.import_
    # A prefix of a ClusterBackupStore belongs to one namespace, which may have had another name.
    namespaces = frozenset(spec.namespaces) or (None if isinstance(store, SharedStore) else {store.namespace})
    shared_by = f" of ClusterBackupStore {store.cluster_store}" if isinstance(store, SharedStore) else ""
    return Settings(
        mode=spec.mode,
        interval=max(to_timedelta(spec.interval), SHORTEST_IMPORT_INTERVAL),
        latest_only=spec.latest_only,
        newer_than=parse_long_duration(spec.newer_than) if spec.newer_than is not None else None,
        namespaces=None if namespaces is None or ALL_NAMESPACES in namespaces else frozenset(namespaces),
        volumes=frozenset(spec.volumes),
        digest=hashlib.sha256(f"{spec.model_dump_json()} {store.spec.prefix}".encode()).hexdigest()[:16],
        mode_field=f"spec.import.mode{shared_by}",
    )
