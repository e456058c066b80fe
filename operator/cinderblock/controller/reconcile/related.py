"""The other operations of a namespace that a decision asks for: all of them if they are few, else those that matter.

A list of ten thousand backups takes more than a second to read, and every step of every backup needs its neighbours. So
where there are many, the API server is asked for those which name the same volume, build on the same backup, or restore
it. What the selectors cannot find (an object whose status was lost and that names nothing) is found by its own look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, TypeVar

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.kube import kinds
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.restore import checks as restore_checks

LIST_ALL_LIMIT: Final = 100
"""Objects of a namespace that are simply read, which takes 12 ms of processor time; up to eight selections take 10."""

T = TypeVar("T", VolumeBackup, VolumeRestore)


async def related_to_backup(
    context: Context, backup: VolumeBackup, claim: PersistentVolumeClaim | None
) -> tuple[tuple[VolumeBackup, ...], tuple[VolumeRestore, ...]]:
    """The other VolumeBackups and the VolumeRestores that matter to a backup of ``claim``."""
    known = backup.status.volume_id if backup.own_phase else None
    volumes = {claim.uid, claim.name} if claim else set()
    kept = {claim.uid} if claim else {known} if known else set()
    backups, restores = await asyncio.gather(
        _list_or_select(
            context,
            VolumeBackup,
            kinds.VOLUME_BACKUP,
            backup.namespace,
            [f"status.parentId={backup.backup_id}", *_each("spec.volumeId", volumes), *_each("status.volumeId", kept)],
        ),
        _list_or_select(
            context,
            VolumeRestore,
            kinds.VOLUME_RESTORE,
            backup.namespace,
            [f"status.backupId={backup.backup_id}", *_each("spec.volumeId", volumes)],
        ),
    )
    parent = backup.status.parent_id if backup.own_phase else None
    if parent is not None and all(other.backup_id != parent for other in backups):
        backups = await context.list(VolumeBackup, kinds.VOLUME_BACKUP, backup.namespace)
    return tuple(other for other in backups if other.uid != backup.uid), tuple(restores)


async def related_to_restore(
    context: Context, restore: VolumeRestore, target: PersistentVolumeClaim | None
) -> tuple[VolumeBackup | None, tuple[VolumeBackup, ...], tuple[VolumeRestore, ...]]:
    """The backup that is restored, and the VolumeBackups and the other VolumeRestores that matter to ``target``."""
    volumes = {target.uid, target.name} if target and restore_checks.is_in_place(restore) else set()
    asked = _asked_backup(restore)
    backups, restores = await asyncio.gather(
        _list_or_select(
            context,
            VolumeBackup,
            kinds.VOLUME_BACKUP,
            restore.namespace,
            [f"status.id={asked}", f"metadata.name={asked}", *_each("spec.volumeId", volumes)],
        ),
        _list_or_select(
            context,
            VolumeRestore,
            kinds.VOLUME_RESTORE,
            restore.namespace,
            ["status.phase=restoring", *_each("spec.volumeId", volumes)],
        ),
    )
    found = _find(backups, asked)
    if found is None:
        backups = await context.list(VolumeBackup, kinds.VOLUME_BACKUP, restore.namespace)
        found = _find(backups, asked)
    return found, tuple(backups), tuple(other for other in restores if other.uid != restore.uid)


async def users_of_store(context: Context, store: BackupStore) -> tuple[str, ...]:
    """Names of VolumeBackups that need a store: of very many, the first ones that are found."""
    fields = f"status.storeName={store.name}"
    bodies, is_all = await context.kube.list_first(kinds.VOLUME_BACKUP, store.namespace, LIST_ALL_LIMIT, fields=fields)
    users = _users(parse_all(VolumeBackup, bodies), store)
    if users or is_all:
        return users
    return _users(parse_all(VolumeBackup, await context.kube.list(kinds.VOLUME_BACKUP, store.namespace)), store)


async def unsealed_in(context: Context, store: BackupStore) -> tuple[tuple[str, ...], bool]:
    """Return names of VolumeBackups that are whole in a store and not encrypted, and whether these are all of them.

    If there are very many, the first ones are enough for a message.
    """
    fields = f"status.storeName={store.name},status.sealed=false"
    bodies, is_all = await context.kube.list_first(kinds.VOLUME_BACKUP, store.namespace, LIST_ALL_LIMIT, fields=fields)
    backups = parse_all(VolumeBackup, bodies)
    return tuple(backup.name for backup in backups if backup.is_complete), is_all


def _users(backups: Sequence[VolumeBackup], store: BackupStore) -> tuple[str, ...]:
    return tuple(backup.name for backup in backups if _needs(backup, store))


def _needs(backup: VolumeBackup, store: BackupStore) -> bool:
    """Whether something of the backup may be in the store: our finalizer says that it has not been dealt with."""
    recorded = backup.own_phase is not None and backup.status.store_name == store.name
    return recorded and labels.BACKUP_FINALIZER in backup.metadata.finalizers


def _asked_backup(restore: VolumeRestore) -> str:
    """The id that was recorded when the restore was accepted, else what is asked for."""
    recorded = restore.status.backup_id if restore.own_phase else None
    return recorded or restore.spec.backup_id


def _find(backups: list[VolumeBackup], asked: str) -> VolumeBackup | None:
    """By id or UID, else by name."""
    by_id = (b for b in backups if b.uid == asked or (b.has_own_status and b.status.id == asked))
    by_name = (b for b in backups if b.name == asked)
    return next(by_id, None) or next(by_name, None)


def _each(field: str, values: set[str]) -> list[str]:
    return [f"{field}={value}" for value in sorted(values)]


async def _list_or_select(
    context: Context, model: type[T], kind: Kind, namespace: str, selectors: list[str]
) -> list[T]:
    """All objects of the namespace, if they are few; else those that one of the selectors names."""
    bodies, is_all = await context.kube.list_first(kind, namespace, LIST_ALL_LIMIT)
    if not is_all:
        selected = await asyncio.gather(*(context.kube.list(kind, namespace, fields=fields) for fields in selectors))
        by_uid = {body["metadata"]["uid"]: body for found in selected for body in found}
        bodies = sorted(by_uid.values(), key=lambda body: str(body["metadata"]["name"]))
    return parse_all(model, bodies)
