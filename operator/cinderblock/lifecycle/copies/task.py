"""The task of a mover that copies backups."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cinderblock.api import layout
from cinderblock.api.mover import (
    TREE_PATH,
    BackupMetadata,
    CopyTask,
    MoverOperation,
    MoverTask,
    VolumeMode,
)
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, StoreAccess
from cinderblock.lifecycle import children, expected_manifest
from cinderblock.lifecycle.observed import MoverSettings
from cinderblock.lifecycle.store import place
from cinderblock.lifecycle.store.locks import lock_task


def mover_task(
    store: BackupStore,
    target: BackupStore,
    backups: Sequence[VolumeBackup],
    settings: MoverSettings,
    now: datetime,
) -> MoverTask:
    """Return the task to copy backups, at least one, from one bucket of a store to another store.

    The mover may change nothing in the source, whatever its credentials permit. ``now`` is when the locks begin that
    the target asks for.
    """
    first, endpoints = backups[0], settings.allowed_endpoints
    container = place.container_of(store, first.status.container)
    source = children.location(store, container, endpoints)
    key = first.status.manifest_key or ""
    volume_id, backup_id = layout.recorded_ids(key)
    created = first.metadata.creation_timestamp
    if created is None:
        raise ValueError("the VolumeBackup has no creationTimestamp")
    return MoverTask(
        operation=MoverOperation.COPY,
        store=source.model_copy(update={"access": StoreAccess.READ_ONLY, "create_container": False}),
        volume_mode=VolumeMode.FILESYSTEM,
        path=TREE_PATH,
        backup=BackupMetadata(
            backup_id=backup_id,
            backup_name=first.name,
            namespace=first.namespace,
            volume_id=volume_id,
            volume_mode=VolumeMode.FILESYSTEM,
            created_at=created,
            data_timestamp=first.status.data_timestamp or created,
        ),
        manifest=key,
        copies=CopyTask(
            target=children.location(target, target.spec.container, endpoints),
            backups=[expected_manifest.expected_of_status(backup, store) for backup in backups],
            lock=lock_task(target, now),
        ),
    )
