"""Read everything that a decision about a VolumeRestore needs."""

from __future__ import annotations

from dataclasses import replace

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim, StorageClass
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import (
    attached_to,
    choose_store,
    find_claim,
    observe_mover,
    own_mover,
    pods_during_copy,
    pods_of,
    pods_restoring,
    pods_using,
    pods_with,
    probe_store,
    read_manifest,
)
from cinderblock.controller.reconcile.related import related_to_restore
from cinderblock.errors import CinderblockError
from cinderblock.kube import kinds
from cinderblock.lifecycle import expected_manifest
from cinderblock.lifecycle.observed import ObservedRestore
from cinderblock.lifecycle.restore import checks as restore_checks
from cinderblock.lifecycle.restore import rebind
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL


async def gather(context: Context, restore: VolumeRestore) -> ObservedRestore:
    """The world of a VolumeRestore."""
    namespace = restore.namespace
    hidden = await context.get(PersistentVolumeClaim, kinds.PVC, labels.child_name(restore.uid), namespace)
    existing = restore.spec.volume_id
    target = await find_claim(context, namespace, existing) if existing is not None else None
    backup, backups, restores = await related_to_restore(context, restore, target)
    observed = ObservedRestore(
        restore=restore,
        policy=context.policy,
        backup=backup,
        backups=backups,
        restores=restores,
        staging_claim=hidden,
        target=target,
        volume=await _volume(context, restore, hidden),
    )
    if restore.metadata.is_being_deleted or restore.has_ended:
        return await _children_only(context, observed)
    if restore.own_phase is RestorePhase.RESTORING and rebind.has_begun(observed):
        return await _handing_over(context, observed)
    return await _for_restore(context, observed)


async def _volume(
    context: Context, restore: VolumeRestore, hidden: PersistentVolumeClaim | None
) -> PersistentVolume | None:
    """The volume that carries our mark, else the one that is bound to the hidden claim, and to no other.

    Anybody in the namespace can make a claim of that name which asks for whatever PersistentVolume; only the cluster
    writes a volume's own reference.
    """
    marked = await context.list(PersistentVolume, kinds.PV, labels=f"{RESTORE_LABEL}={restore.uid}")
    if marked:
        return marked[0]
    if hidden is None or not hidden.is_bound or not hidden.metadata.is_owned_by(restore.uid):
        return None
    found = await context.get(PersistentVolume, kinds.PV, hidden.spec.volume_name)
    reference = found.spec.claim_ref if found is not None else None
    return found if reference is not None and reference.uid == hidden.uid else None


async def _children_only(context: Context, observed: ObservedRestore) -> ObservedRestore:
    mover = await own_mover(context, observed.restore)
    name = _promised_name(observed)
    if name is not None:
        # Whether the volume has been promised to a claim decides what becomes of it, and of the claim.
        observed = replace(
            observed, target=await context.get(PersistentVolumeClaim, kinds.PVC, name, observed.restore.namespace)
        )
    return replace(observed, mover=replace(mover, pods=await pods_of(context, observed.restore)))


def _promised_name(observed: ObservedRestore) -> str | None:
    """Name of the claim that the filled volume is for, or was to be for."""
    reference = observed.volume.spec.claim_ref if observed.volume is not None else None
    if reference is not None and reference.name != labels.child_name(observed.restore.uid):
        return reference.name
    if restore_checks.is_in_place(observed.restore):
        return None
    told = observed.restore.status.volume_name if observed.restore.own_phase else None
    return told or restore_checks.target_name(observed)


async def _handing_over(context: Context, observed: ObservedRestore) -> ObservedRestore:
    """The copy is whole: what matters is who has the volume, and the manifest when a claim is to be made from it.

    A hand-over takes seven looks or so, one for each of its steps.
    """
    target = await context.get(
        PersistentVolumeClaim, kinds.PVC, restore_checks.target_name(observed), observed.restore.namespace
    )
    observed = replace(observed, target=target, mover=await own_mover(context, observed.restore))
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
        observed = await _with_users(context, observed, observed.target)
    classes = await context.list(StorageClass, kinds.STORAGE_CLASS)
    late = tuple(c.name for c in classes if c.volume_binding_mode == "WaitForFirstConsumer")
    observed = replace(observed, classes=tuple(c.name for c in classes), wait_for_consumer_classes=late)
    if observed.backup is not None:
        observed = await _with_store(context, observed, observed.backup)
    filled = observed.target if restore_checks.is_in_place(observed.restore) else observed.staging_claim
    observed = replace(observed, mover=await observe_mover(context, observed.restore, filled))
    if observed.target is None or not restore_checks.is_in_place(observed.restore):
        return observed
    return replace(observed, pods_during_copy=await pods_during_copy(context, observed.target, observed.mover))


async def _with_users(context: Context, observed: ObservedRestore, target: PersistentVolumeClaim) -> ObservedRestore:
    """Who may still write to an existing target."""
    pods = await pods_with(context, target)
    nodes = await attached_to(context, target.spec.volume_name, pods) if target.is_bound else ()
    writers = pods_restoring(pods, observed.restore.uid)
    return replace(observed, pods_using=pods_using(pods), pods_restoring=writers, attached_to=nodes)


async def _with_store(context: Context, observed: ObservedRestore, backup: VolumeBackup) -> ObservedRestore:
    """Add the backup's store, and the manifest that it holds now, if it is the one that the status records."""
    view = await choose_store(context, backup.namespace, backup.status.store_name or backup.spec.store_name)
    if view.store is None or backup.status.manifest_key is None:
        return replace(observed, store=view)
    container = backup.status.container or view.store.spec.container
    try:
        expected = expected_manifest.expected_of_status(backup, view.store)
        manifest = await read_manifest(context, view.store, container, backup.status.manifest_key, expected)
    except CinderblockError as error:
        return replace(observed, store=view, manifest_error=error)
    if manifest is None:
        view = await probe_store(context, view, container)
    return replace(observed, store=view, manifest=manifest)
