"""Read what decides about restores of backups of other namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import GrantedRestore, VolumeBackup
from cinderblock.api.v1alpha1.backup_grant import BackupGrant
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, SharedStore
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.reconcile.related import find_backup
from cinderblock.controller.request import ObjectKey
from cinderblock.kube import kinds
from cinderblock.lifecycle.backup_grants import rules
from cinderblock.lifecycle.backup_grants.rules import GrantState
from cinderblock.lifecycle.observed import StoreLookup
from cinderblock.lifecycle.store.resolve import target_refusal


@dataclass(frozen=True, slots=True)
class GrantedBackup:
    """The knowledge that a restore of a backup of another namespace may have.

    Attributes:
        state: whether it is permitted now.
        backup: the backup; None: no grant has permitted the restore, or the backup that it was accepted for is gone.
    """

    state: GrantState
    backup: VolumeBackup | None = None


async def read_granted(context: Context, restore: VolumeRestore, source: str) -> GrantedBackup:
    """Return what BackupGrants of the namespace ``source`` permit a restore to read.

    The backup is looked for only if a grant counts for the namespace of the restore. A grant that may count once the
    operator has recorded which namespace it names is reconciled soon.
    """
    if not context.policy.cluster_stores or not await context.kube.serves(kinds.BACKUP_GRANT):
        return GrantedBackup(GrantState.NONE)
    target = await context.get(Object, kinds.NAMESPACE, restore.namespace)
    if target is None:
        return GrantedBackup(GrantState.NONE)
    named = [grant async for grant in _grants_naming(context, source, target)]
    for grant in named:
        if not rules.applies_to(grant, target):
            await context.enqueue(ObjectKey(grant.kind, source, grant.name))
    if restore.own_phase is not None and restore.status.backup_namespace == source:
        backup = await _accepted_backup(context, restore, source)
        return GrantedBackup(rules.state_of(named, target, backup), backup)
    backup = None
    if any(rules.applies_to(grant, target) for grant in named):
        backup = await _named_backup(context, source, restore.spec.backup_id or "")
    state = rules.state_of(named, target, backup)
    return GrantedBackup(state, backup if state is GrantState.GRANTED else None)


async def _grants_naming(context: Context, source: str, target: Object) -> AsyncIterator[BackupGrant]:
    """Yield the grants of a namespace that name another one, page by page."""
    seen: set[str] = set()
    async for page in context.kube.pages(kinds.BACKUP_GRANT, source):
        for grant in parse_all(BackupGrant, page or []):
            if grant.uid not in seen and rules.names_namespace(grant, target):
                seen.add(grant.uid)
                yield grant


async def _accepted_backup(context: Context, restore: VolumeRestore, source: str) -> VolumeBackup | None:
    """Return the backup that the restore was accepted for. Another one with the same name is not that."""
    name = restore.status.backup_name
    found = await context.get(VolumeBackup, kinds.VOLUME_BACKUP, name, source) if name is not None else None
    return found if found is not None and found.backup_id == restore.status.backup_id else None


async def _named_backup(context: Context, source: str, reference: str) -> VolumeBackup | None:
    """Return the backup with this id, UID or name, with all its labels, which a list leaves out."""
    listed = await find_backup(context, source, reference)
    if listed is None:
        return None
    found = await context.get(VolumeBackup, kinds.VOLUME_BACKUP, listed.name, source)
    return found if found is not None and found.uid == listed.uid else None


async def with_target(context: Context, lookup: StoreLookup, restore: VolumeRestore) -> StoreLookup:
    """Add that the ClusterBackupStore does not allow the namespace of a restore, if it allows that of the backup."""
    if not isinstance(lookup.store, SharedStore) or lookup.refusal is not None:
        return lookup
    cluster = await context.get(ClusterBackupStore, kinds.CLUSTER_BACKUP_STORE, lookup.store.cluster_store)
    target = await context.get(Object, kinds.NAMESPACE, restore.namespace)
    return replace(lookup, refusal=target_refusal(cluster, lookup.store, target))


async def ended_granted(context: Context, backup: VolumeBackup) -> frozenset[str]:
    """Return the UIDs of the restores that a backup records and that no longer read it.

    One that is being deleted reads nothing: the broker refuses its mover. It may stay without end, because anybody in
    its namespace can give it a finalizer. An operator of some namespaces has no broker, and may not read others.
    """
    entries = backup.own_granted_restores
    if not context.policy.cluster_stores:
        return frozenset(entry.uid for entry in entries)
    return frozenset([entry.uid for entry in entries if not await _may_read(context, entry)])


async def _may_read(context: Context, entry: GrantedRestore) -> bool:
    """Return whether a restore that a backup records may still read it."""
    found = await context.kube.get(kinds.VOLUME_RESTORE, entry.name, entry.namespace)
    if found is None or found["metadata"]["uid"] != entry.uid or "deletionTimestamp" in found["metadata"]:
        return False
    return not any(restore.has_ended for restore in parse_all(VolumeRestore, [found]))
