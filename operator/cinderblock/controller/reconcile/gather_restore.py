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
from cinderblock.lifecycle.restore.decide import ENDED
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL


async def gather(eyes: Context, restore: VolumeRestore) -> ObservedRestore:
    """The world of a VolumeRestore."""
    namespace = restore.namespace
    hidden = await eyes.get(PersistentVolumeClaim, kinds.PVC, labels.child_name(restore.uid), namespace)
    existing = restore.spec.volume_id
    target = await find_claim(eyes, namespace, existing) if existing is not None else None
    backup, backups, restores = await related_to_restore(eyes, restore, target)
    world = ObservedRestore(
        restore=restore,
        policy=eyes.policy,
        backup=backup,
        backups=backups,
        restores=restores,
        hidden=hidden,
        target=target,
        volume=await _volume(eyes, restore, hidden),
    )
    phase = restore_checks.own_phase(restore)
    if restore.metadata.is_being_deleted or phase in ENDED:
        return await _children_only(eyes, world)
    if phase is RestorePhase.RESTORING and rebind.has_begun(world):
        return await _handing_over(eyes, world)
    return await _for_restore(eyes, world)


async def _volume(
    eyes: Context, restore: VolumeRestore, hidden: PersistentVolumeClaim | None
) -> PersistentVolume | None:
    """The volume that carries our mark, else the one that is bound to the hidden claim, and to no other.

    Anybody in the namespace can make a claim of that name which asks for whatever PersistentVolume; only the cluster
    writes a volume's own reference.
    """
    marked = await eyes.list(PersistentVolume, kinds.PV, labels=f"{RESTORE_LABEL}={restore.uid}")
    if marked:
        return marked[0]
    if hidden is None or not hidden.is_bound or not hidden.metadata.is_owned_by(restore.uid):
        return None
    found = await eyes.get(PersistentVolume, kinds.PV, hidden.spec.volume_name)
    reference = found.spec.claim_ref if found is not None else None
    return found if reference is not None and reference.uid == hidden.uid else None


async def _children_only(eyes: Context, world: ObservedRestore) -> ObservedRestore:
    mover = await own_mover(eyes, world.restore)
    name = _promised_name(world)
    if name is not None:
        # Whether the volume has been promised to a claim decides what becomes of it, and of the claim.
        world = replace(world, target=await eyes.get(PersistentVolumeClaim, kinds.PVC, name, world.restore.namespace))
    return replace(world, mover=replace(mover, pods=await pods_of(eyes, world.restore)))


def _promised_name(world: ObservedRestore) -> str | None:
    """Name of the claim that the filled volume is for, or was to be for."""
    reference = world.volume.spec.claim_ref if world.volume is not None else None
    if reference is not None and reference.name != labels.child_name(world.restore.uid):
        return reference.name
    if restore_checks.is_in_place(world.restore):
        return None
    told = world.restore.status.volume_name if restore_checks.own_phase(world.restore) else None
    return told or restore_checks.target_name(world)


async def _handing_over(eyes: Context, world: ObservedRestore) -> ObservedRestore:
    """The copy is whole: what matters is who has the volume, and the manifest when a claim is to be made from it.

    A hand-over takes seven looks or so, one for each of its steps.
    """
    target = await eyes.get(
        PersistentVolumeClaim, kinds.PVC, restore_checks.target_name(world), world.restore.namespace
    )
    world = replace(world, target=target, mover=await own_mover(eyes, world.restore))
    is_reserved = world.volume is not None and world.volume.status.phase == "Available"
    return await _with_store(eyes, world, world.backup) if is_reserved and world.backup is not None else world


async def _for_restore(eyes: Context, world: ObservedRestore) -> ObservedRestore:
    if not restore_checks.is_in_place(world.restore):
        name = restore_checks.target_name(world)
        world = replace(world, target=await eyes.get(PersistentVolumeClaim, kinds.PVC, name, world.restore.namespace))
    elif world.target is not None:
        world = await _with_users(eyes, world, world.target)
    classes = await eyes.list(StorageClass, kinds.STORAGE_CLASS)
    late = tuple(c.name for c in classes if c.volume_binding_mode == "WaitForFirstConsumer")
    world = replace(world, classes=tuple(c.name for c in classes), late_classes=late)
    if world.backup is not None:
        world = await _with_store(eyes, world, world.backup)
    filled = world.target if restore_checks.is_in_place(world.restore) else world.hidden
    world = replace(world, mover=await observe_mover(eyes, world.restore, filled))
    if world.target is None or not restore_checks.is_in_place(world.restore):
        return world
    return replace(world, intruders=await pods_during_copy(eyes, world.target, world.mover))


async def _with_users(eyes: Context, world: ObservedRestore, target: PersistentVolumeClaim) -> ObservedRestore:
    """Who may still write to an existing target."""
    pods = await pods_with(eyes, target)
    nodes = await attached_to(eyes, target.spec.volume_name, pods) if target.is_bound else ()
    writers = pods_restoring(pods, world.restore.uid)
    return replace(world, users=pods_using(pods), writers=writers, attached_to=nodes)


async def _with_store(eyes: Context, world: ObservedRestore, backup: VolumeBackup) -> ObservedRestore:
    """Add the backup's store, and the manifest that it holds now, if it is the one that the status records."""
    view = await choose_store(eyes, backup.namespace, backup.status.store_name or backup.spec.store_name)
    if view.store is None or backup.status.manifest_key is None:
        return replace(world, store=view)
    container = backup.status.container or view.store.spec.container
    try:
        expected = expected_manifest.expected_of_status(backup, view.store)
        manifest = await read_manifest(eyes, view.store, container, backup.status.manifest_key, expected)
    except CinderblockError as error:
        return replace(world, store=view, manifest_trouble=error)
    if manifest is None:
        view = await probe_store(eyes, view, container)
    return replace(world, store=view, manifest=manifest)
