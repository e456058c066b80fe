"""Read what a decision about a VolumeRestore needs."""

from __future__ import annotations

from dataclasses import replace

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass
from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.controller.context import Context
from cinderblock.controller.grants.gather import GrantedBackup, read_granted, with_target
from cinderblock.controller.reconcile.gather import (
    bound_volume,
    find_claim,
    list_attached_nodes,
    list_mover_pods,
    list_pods_during_copy,
    list_pods_using,
    observe_mover,
    observe_own_mover,
    pods_restoring,
    pods_using,
    probe_store,
    read_manifest,
    store_of,
)
from cinderblock.controller.reconcile.related import related_to_restore
from cinderblock.errors import CinderblockError
from cinderblock.kube import kinds
from cinderblock.lifecycle import expected_manifest
from cinderblock.lifecycle.backup_grants.rules import GrantState
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.restore import checks as restore_checks
from cinderblock.lifecycle.restore import rebind
from cinderblock.lifecycle.store import place


async def gather(context: Context, restore: VolumeRestore) -> ObservedRestore:
    """Return the observed state of a VolumeRestore."""
    namespace = restore.namespace
    staging_claim = await context.get(PersistentVolumeClaim, kinds.PVC, labels.child_name(restore.uid), namespace)
    existing = restore.spec.volume_id
    target = await find_claim(context, namespace, existing) if existing is not None else None
    source = restore.granted_from
    granted = await read_granted(context, restore, source) if source is not None else GrantedBackup(GrantState.NONE)
    related = await related_to_restore(context, restore, target, granted.backup)
    observed = ObservedRestore(
        restore=restore,
        policy=context.policy,
        backup=related.backup,
        backups=related.backups,
        restores=related.restores,
        object_count=related.count,
        staging_claim=staging_claim,
        target=target,
        volume=await _volume(context, restore, staging_claim),
        grant=granted.state,
    )
    if restore.metadata.is_being_deleted or restore.has_ended:
        return await _for_cleanup(context, observed)
    if restore.own_phase is RestorePhase.RESTORING and rebind.has_begun(observed):
        return await _for_rebinding(context, observed)
    return await _for_restore(context, observed)


async def _volume(
    context: Context, restore: VolumeRestore, staging_claim: PersistentVolumeClaim | None
) -> PersistentVolume | None:
    """Return the PersistentVolume with the mark of the restore, else the one bound to the staging claim."""
    marked = await context.list(PersistentVolume, kinds.PV, labels=f"{RESTORE_LABEL}={restore.uid}")
    if marked:
        return marked[0]
    is_owned = staging_claim is not None and staging_claim.metadata.is_owned_by(restore.uid)
    return await bound_volume(context, staging_claim) if is_owned else None


async def _for_cleanup(context: Context, observed: ObservedRestore) -> ObservedRestore:
    mover = await observe_own_mover(context, observed.restore)
    name = _promised_name(observed)
    if name is not None:
        # The fate of the volume depends on whether it was promised to a claim.
        observed = replace(
            observed, target=await context.get(PersistentVolumeClaim, kinds.PVC, name, observed.restore.namespace)
        )
    return replace(observed, mover=replace(mover, pods=await list_mover_pods(context, observed.restore)))


def _promised_name(observed: ObservedRestore) -> str | None:
    """Return the name of the PersistentVolumeClaim that the restored volume is promised to, if any."""
    reference = observed.volume.spec.claim_ref if observed.volume is not None else None
    if reference is not None and reference.name != labels.child_name(observed.restore.uid):
        return reference.name
    if restore_checks.is_in_place(observed.restore):
        return None
    recorded = observed.restore.status.volume_name if observed.restore.own_phase else None
    return recorded or restore_checks.target_name(observed)


async def _for_rebinding(context: Context, observed: ObservedRestore) -> ObservedRestore:
    """Add what rebinding needs after the copy: the claim of the volume, and the manifest before that claim is created.

    Rebinding takes about seven reconciliations, one for each step, so each reads only this.
    """
    target = await context.get(
        PersistentVolumeClaim, kinds.PVC, restore_checks.target_name(observed), observed.restore.namespace
    )
    observed = replace(observed, target=target, mover=await observe_own_mover(context, observed.restore))
    is_reserved = observed.volume is not None and observed.volume.status.phase == "Available"
    return (
        await _with_store(context, observed, observed.backup)
        if is_reserved and observed.backup is not None
        else observed
    )


async def _for_restore(context: Context, observed: ObservedRestore) -> ObservedRestore:
    if not restore_checks.is_in_place(observed.restore):
        name = restore_checks.target_name(observed)
        observed = replace(
            observed, target=await context.get(PersistentVolumeClaim, kinds.PVC, name, observed.restore.namespace)
        )
    elif observed.target is not None:
        observed = await _with_target_users(context, observed, observed.target)
    classes = await context.list(StorageClass, kinds.STORAGE_CLASS)
    wait_for_consumer = tuple(c.name for c in classes if c.binds_late)
    observed = replace(observed, classes=tuple(c.name for c in classes), wait_for_consumer_classes=wait_for_consumer)
    if observed.backup is not None:
        observed = await _with_store(context, observed, observed.backup)
    claim = observed.target if restore_checks.is_in_place(observed.restore) else observed.staging_claim
    observed = replace(observed, mover=await observe_mover(context, observed.restore, claim))
    if observed.target is None or not restore_checks.is_in_place(observed.restore):
        return observed
    return replace(
        observed,
        pods_during_copy=await list_pods_during_copy(context, observed.target, observed.mover, observed.restore),
    )


async def _with_target_users(
    context: Context, observed: ObservedRestore, target: PersistentVolumeClaim
) -> ObservedRestore:
    """Add what may still write to an existing target."""
    pods = await list_pods_using(context, target)
    nodes = await list_attached_nodes(context, target.spec.volume_name, pods) if target.is_bound else ()
    restoring = pods_restoring(pods, observed.restore.uid)
    users = await pods_using(context, pods, observed.restore)
    return replace(observed, pods_using=users, pods_restoring=restoring, attached_to=nodes)


async def _with_store(context: Context, observed: ObservedRestore, backup: VolumeBackup) -> ObservedRestore:
    """Add the backup's store, and its manifest there, if it is still the one that the status records."""
    lookup = await store_of(context, backup, backup.status.store_name or backup.spec.store_name)
    if observed.restore.granted_from is not None:
        lookup = await with_target(context, lookup, observed.restore)
    if lookup.store is None or backup.status.manifest_key is None or lookup.error is not None:
        return replace(observed, store=lookup, manifest_error=lookup.error)
    container = place.container_of(lookup.store, backup.status.container)
    try:
        expected = expected_manifest.expected_of_status(backup, lookup.store)
        manifest = await read_manifest(context, lookup.store, container, backup.status.manifest_key, expected)
    except CinderblockError as error:
        return replace(observed, store=lookup, manifest_error=error)
    if manifest is None:
        lookup = await probe_store(context, lookup, container)
    return replace(observed, store=lookup, manifest=manifest)
