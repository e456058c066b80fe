"""Restores in other namespaces that read a backup: status.grantedRestores of the VolumeBackup records them.

A restore is recorded there before its mover exists, and the deletion of the backup waits while it is. So both sides
see each other in whatever order they act, and after any restart: each writes before it reads what the other wrote.

Nobody in the other namespace can hold up the owner without end: see `DELETION_WAITS`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import MAX_GRANTED_RESTORES, GrantedRestore, VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.lifecycle.actions import RecordGrantedRestores
from cinderblock.lifecycle.observed import ObservedBackup
from cinderblock.lifecycle.verdicts import Wait
from cinderblock.reasons import Reason

FULL_RETRY_SECONDS = 30.0
"""Seconds until a restore checks whether another one has ended."""
KEPT_FOR_OTHERS: Final = 4
"""Entries of a backup that a namespace with entries leaves to others. A restore whose mover is held back uses no slot,
so the limits on movers do not keep one namespace from taking all entries."""
DELETION_WAITS: Final = timedelta(hours=24)
"""How long the deletion of a backup waits for restores of other namespaces. Anyone who may change the Jobs of a
namespace can suspend the mover there, or slow it down, without an end."""


def is_recorded(restore: VolumeRestore, backup: VolumeBackup) -> bool:
    """Return whether a backup records that a restore of another namespace reads it."""
    reader = restore.namespace, restore.uid
    return reader in {(entry.namespace, entry.uid) for entry in backup.own_granted_restores}


def record(restore: VolumeRestore, backup: VolumeBackup) -> RecordGrantedRestores | Wait:
    """Return the action that records a restore, or the wait if too many others read the backup."""
    present = backup.own_granted_restores
    is_first = all(entry.namespace != restore.namespace for entry in present)
    if len(present) >= MAX_GRANTED_RESTORES - (0 if is_first else KEPT_FOR_OTHERS):
        message = f"{len(present)} restores of other namespaces read the backup already"
        return Wait(Reason.QUEUED, message, requeue_after=FULL_RETRY_SECONDS)
    mine = GrantedRestore(namespace=restore.namespace, name=restore.name, uid=restore.uid)
    note = f"VolumeRestore {restore.namespace}/{restore.name} begins to restore this backup, as a BackupGrant permits"
    return _write(backup, (*present, mine), note)


def running(observed: ObservedBackup) -> list[GrantedRestore]:
    """Return the restores of other namespaces that read the backup and have not ended."""
    return [entry for entry in observed.backup.own_granted_restores if entry.uid not in observed.ended_granted]


def release(observed: ObservedBackup) -> tuple[RecordGrantedRestores, ...]:
    """Return the action that removes restores which have ended from the status of the backup."""
    left = running(observed)
    is_changed = len(left) != len(observed.backup.own_granted_restores)
    return (_write(observed.backup, tuple(left)),) if is_changed else ()


def in_use(observed: ObservedBackup, now: datetime) -> Wait | None:
    """Wait with the deletion of a backup that restores of other namespaces read, for a day at most.

    The owner need not wait if the data may stay in the store. Without the VolumeBackup, the broker serves no mover.
    """
    backup, names = observed.backup, sorted(f"{entry.namespace}/{entry.name}" for entry in running(observed))
    until = (backup.metadata.deletion_timestamp or now) + DELETION_WAITS
    if not names or backup.is_let_go or now >= until:
        return None
    message = (
        f"VolumeRestore {', '.join(names[:10])} of another namespace reads this backup. The deletion waits until"
        f" {until:%Y-%m-%dT%H:%M:%SZ} at most. To wait no longer and leave the data in the store, annotate the"
        f" VolumeBackup with {labels.RELEASED_ANNOTATION}=leave-data."
    )
    return Wait(Reason.BACKUP_IN_USE, message, requeue_after=10.0)


def _write(backup: VolumeBackup, entries: tuple[GrantedRestore, ...], note: str = "") -> RecordGrantedRestores:
    version = backup.metadata.resource_version
    return RecordGrantedRestores(backup.namespace, backup.name, backup.uid, version, entries, note)
