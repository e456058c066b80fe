"""Read what a decision about a claim needs that asks for its content."""

from __future__ import annotations

from dataclasses import replace

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.restore_source import RestoreSource
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import choose_store
from cinderblock.controller.reconcile.related import find_backup
from cinderblock.errors import InvalidInput
from cinderblock.kube import kinds
from cinderblock.lifecycle.imports.records import StoredManifest, record_of
from cinderblock.lifecycle.populate.choice import Chosen, Outcome
from cinderblock.lifecycle.populate.observed import ObservedClaim


async def gather(context: Context, claim: PersistentVolumeClaim) -> ObservedClaim:
    """Return the observed state of a claim, without a look into the store."""
    namespace, source = claim.namespace, claim.spec.data_source_ref
    observed = ObservedClaim(claim, restore=await _restore_of(context, claim))
    if source is None or claim.metadata.is_being_deleted:
        return observed
    if claim.spec.volume_name:
        return replace(observed, volume=await context.get(PersistentVolume, kinds.PV, claim.spec.volume_name))
    if observed.restore is not None:
        return observed
    classes = await context.list(StorageClass, kinds.STORAGE_CLASS)
    found = next((c for c in classes if c.name == claim.spec.storage_class_name), None)
    observed = replace(observed, storage_class=found)
    try:
        if source.kind == kinds.VOLUME_BACKUP.kind:
            backup = await context.get(VolumeBackup, kinds.VOLUME_BACKUP, source.name, namespace)
            return replace(observed, backup=backup)
        if source.kind == kinds.RESTORE_SOURCE.kind:
            return await _with_source(context, observed, source.name)
    except InvalidInput:
        # The name in a dataSourceRef may be invalid.
        return observed
    return observed


async def _restore_of(context: Context, claim: PersistentVolumeClaim) -> VolumeRestore | None:
    name = labels.populate_name(claim.uid)
    return await context.get(VolumeRestore, kinds.VOLUME_RESTORE, name, claim.namespace)


async def _with_source(context: Context, observed: ObservedClaim, name: str) -> ObservedClaim:
    """Add the RestoreSource that a claim names, and its store."""
    source = await context.get(RestoreSource, kinds.RESTORE_SOURCE, name, observed.claim.namespace)
    if source is None:
        return observed
    store = await choose_store(context, observed.claim.namespace, source.spec.store_name)
    return replace(observed, source=source, store=store)


async def with_outcome(
    context: Context, observed: ObservedClaim, store: BackupStore, outcome: Outcome
) -> ObservedClaim:
    """Add the result of a look, and the VolumeBackup of the chosen backup, if it has one."""
    if not isinstance(outcome, Chosen):
        return replace(observed, outcome=outcome)
    stored = outcome.manifest.stored
    backup = await find_backup(context, observed.claim.namespace, stored.import_id)
    has_other = backup is not None and not _is_of(backup, store, stored)
    return replace(observed, outcome=outcome, backup=backup, has_other_backup=has_other)


def _is_of(backup: VolumeBackup, store: BackupStore, stored: StoredManifest) -> bool:
    """Return whether a VolumeBackup has the data of a manifest."""
    record = record_of(backup, store)
    return stored.key == record.manifest or (not record.manifest and record.backup_id == stored.import_id)
