"""Read everything that a decision about a VolumeBackup needs, and not more: a finished one needs little."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Final

from cinderblock.api import labels, layout
from cinderblock.api.kubernetes import (
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    StorageClass,
    VolumeSnapshot,
    VolumeSnapshotClass,
)
from cinderblock.api.meta import Object
from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.v1alpha1.backup import ImportSource, VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.reconcile.gather import (
    attached_to,
    choose_store,
    find_claim,
    living_pods,
    observe_mover,
    own_mover,
    pods_during_copy,
    pods_of,
    pods_restoring,
    pods_using,
    probe_store,
    read_manifest,
    those_with,
)
from cinderblock.controller.reconcile.related import related_to_backup
from cinderblock.errors import CinderblockError, ForeignManifest, NotFound, PermanentError, TransientError
from cinderblock.kube import kinds, queries
from cinderblock.lifecycle import dependents, expected_manifest
from cinderblock.lifecycle.backup import snapshot_checks
from cinderblock.lifecycle.backup.checks import is_forgotten, is_unpinned, recorded_parent
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedBackup, ObservedManifest, ObservedMover, StoreLookup
from cinderblock.reasons import Reason
from cinderblock.repository.objects import list_pack_objects
from cinderblock.store.base import ObjectStore

MAX_NAMESAKES: Final = 8
"""Most manifests with one backup id, below several volumes, that are read to find the right one."""


async def gather(context: Context, backup: VolumeBackup) -> ObservedBackup:
    """The world of a VolumeBackup, as far as its phase makes it matter."""
    namespace = backup.namespace
    snapshot, snapshot_claim = await asyncio.gather(
        _own_snapshot(context, backup),
        context.get(PersistentVolumeClaim, kinds.PVC, labels.child_name(backup.uid), namespace),
    )
    observed = ObservedBackup(backup=backup, policy=context.policy, snapshot=snapshot, snapshot_claim=snapshot_claim)
    if backup.metadata.is_being_deleted:
        return await _for_deletion(context, await _with_neighbours(context, observed))
    if backup.has_ended and not is_forgotten(backup):
        observed = replace(await _with_neighbours(context, observed), mover=await _children_only(context, backup))
        observed = await _with_needs(context, observed) if dependents.must_be_read(observed) else observed
        return await _for_pins(context, observed) if is_unpinned(backup) else observed
    if backup.spec.import_:
        return await _for_adoption(context, observed)
    claim = await _claim(context, backup)
    return await _for_creation(context, await _with_neighbours(context, replace(observed, claim=claim)))


async def _for_pins(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add the manifest of a backup that an earlier release made without pins."""
    backup = observed.backup
    view = await choose_store(context, backup.namespace, _store_name(backup))
    if view.store is None:
        return replace(observed, manifest_error=TransientError(view.missing, reason=Reason.STORE_NOT_FOUND))
    manifest, trouble = await _read_whole(context, view.store, backup)
    return replace(observed, manifest=manifest, manifest_error=trouble)


async def _read_whole(
    context: Context, store: BackupStore, backup: VolumeBackup
) -> tuple[ObservedManifest | None, CinderblockError | None]:
    """Return the manifest of a backup that is whole, or why it cannot be read."""
    key, container = backup.status.manifest_key or "", backup.status.container or store.spec.container
    try:
        manifest = await read_manifest(
            context, store, container, key, expected_manifest.expected_of_status(backup, store)
        )
    except CinderblockError as error:
        return None, error
    if manifest is None:
        return None, NotFound(f"The store has no manifest of backup {backup.backup_id}", reason=Reason.MANIFEST_MISSING)
    return manifest, None


async def _with_neighbours(context: Context, observed: ObservedBackup) -> ObservedBackup:
    siblings, restores = await related_to_backup(context, observed.backup, observed.claim)
    return replace(observed, siblings=siblings, restores=restores)


async def _claim(context: Context, backup: VolumeBackup) -> PersistentVolumeClaim | None:
    """The volume; what has been accepted knows it by name and UID, and need not search for it."""
    status = backup.status
    if backup.own_phase and status.volume_id and status.volume_name:
        found = await context.get(PersistentVolumeClaim, kinds.PVC, status.volume_name, backup.namespace)
        if found is not None and found.uid == status.volume_id:
            return found
    return await find_claim(context, backup.namespace, _volume_name(backup))


async def _for_adoption(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """The manifest that is asked for, where the store keeps it, and all others, whichever of them has its id."""
    backup = observed.backup
    siblings, restores = await asyncio.gather(
        context.list(VolumeBackup, kinds.VOLUME_BACKUP, backup.namespace),
        context.list(VolumeRestore, kinds.VOLUME_RESTORE, backup.namespace),
    )
    others = tuple(sibling for sibling in siblings if sibling.uid != backup.uid)
    observed = replace(observed, siblings=others, restores=tuple(restores))
    view = await choose_store(context, backup.namespace, _store_name(backup))
    if view.store is None:
        return replace(observed, store=view)
    container = backup.spec.container or view.store.spec.container
    observed = replace(observed, store=await probe_store(context, view, container))
    return await _with_manifest(context, observed) if observed.store.error is None else observed


async def _children_only(context: Context, backup: VolumeBackup) -> ObservedMover:
    return await own_mover(context, backup)


async def _own_snapshot(context: Context, backup: VolumeBackup) -> VolumeSnapshot | None:
    if not await context.kube.serves(kinds.VOLUME_SNAPSHOT):
        return None
    return await context.get(VolumeSnapshot, kinds.VOLUME_SNAPSHOT, labels.child_name(backup.uid), backup.namespace)


async def _for_creation(context: Context, observed: ObservedBackup) -> ObservedBackup:
    backup = observed.backup
    view, mover = await asyncio.gather(
        choose_store(context, backup.namespace, _store_name(backup)),
        observe_mover(context, backup, observed.snapshot_claim),
    )
    observed = replace(observed, store=view, mover=mover)
    observed = await (
        _gather_before_copy(context, observed) if mover.job is None else _with_intruders(context, observed)
    )
    return await _with_manifest(context, observed)


def _store_name(backup: VolumeBackup) -> str | None:
    """The store that was chosen when the backup was accepted; before that, the one that is asked for."""
    return (backup.status.store_name if backup.own_phase else None) or backup.spec.store_name


def _volume_name(backup: VolumeBackup) -> str:
    """The volume that was found when the backup was accepted; before that, the one that is asked for."""
    return (backup.status.volume_id if backup.own_phase else None) or backup.spec.volume_id or ""


async def _gather_before_copy(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """What the checks look at before the copy begins."""
    backup, claim = observed.backup, observed.claim
    if observed.store.store is not None and observed.snapshot is None and observed.snapshot_claim is None:
        container = backup.spec.container or observed.store.store.spec.container
        observed = replace(observed, store=await probe_store(context, observed.store, container))
    observed = await _with_parent(context, await _with_active_key(context, observed))
    if claim is None:
        return observed
    volume = await context.get(PersistentVolume, kinds.PV, claim.spec.volume_name) if claim.is_bound else None
    everybody = await living_pods(context, claim.namespace)
    pods = those_with(claim, everybody)
    observed = replace(
        observed, volume=volume, pods_using=pods_using(pods), pods_restoring=pods_restoring(pods, backup.uid)
    )
    sets = tuple(queries.stateful_sets_of(claim.name, everybody))
    observed = replace(observed, stateful_sets=sets, cluster_uid=await context.cluster.uid(context.kube))
    return await _with_attachments(context, await _with_snapshots(context, observed), pods)


async def _with_parent(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add the manifest of the recorded parent, if its status has no pins yet."""
    parent = recorded_parent(observed)
    if observed.store.store is None or parent is None or not is_unpinned(parent):
        return observed
    manifest, trouble = await _read_whole(context, observed.store.store, parent)
    return replace(observed, parent=manifest, parent_error=trouble)


async def _with_intruders(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Who had the volume while it was copied, if it is copied itself and no snapshot of it."""
    from_snapshot = (
        observed.snapshot is not None
        or observed.snapshot_claim is not None
        or observed.backup.spec.snapshot_id is not None
    )
    if observed.claim is None or from_snapshot:
        return observed
    return replace(observed, pods_during_copy=await pods_during_copy(context, observed.claim, observed.mover))


async def _with_snapshots(context: Context, observed: ObservedBackup) -> ObservedBackup:
    if not await context.kube.serves(kinds.VOLUME_SNAPSHOT):
        return observed
    backup, volume = observed.backup, observed.volume
    asked = backup.spec.snapshot_id
    given = await _given_snapshot(context, backup.namespace, asked) if asked else None
    classes = parse_all(VolumeSnapshotClass, await context.bodies(kinds.VOLUME_SNAPSHOT_CLASS))
    driver = volume.driver if volume else ""
    chosen, missing = snapshot_checks.choose_snapshot_class(observed.store.store, classes, driver)
    observed = replace(observed, given_snapshot=given, snapshot_class=chosen, snapshot_class_missing=missing)
    if chosen is None and given is None:
        return observed
    return replace(observed, classes=tuple(await context.list(StorageClass, kinds.STORAGE_CLASS)))


async def _with_attachments(context: Context, observed: ObservedBackup, pods: list[Pod]) -> ObservedBackup:
    """Where the volume is attached, unless a snapshot is taken or given that may be of a volume in use."""
    may_be_in_use = observed.backup.spec.force and observed.snapshot_class is not None
    has_begun = observed.snapshot is not None or observed.snapshot_claim is not None
    if observed.volume is None or observed.backup.spec.snapshot_id is not None or may_be_in_use or has_begun:
        return observed
    return replace(observed, attached_to=await attached_to(context, observed.volume.name, pods))


async def _with_active_key(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add the key that a mover must seal with. `probe_store` reports a Secret that cannot be read, not this function.

    Only this function reports that no key may seal. Stored backups can be read all the same.
    """
    if observed.store.store is None or observed.store.error is not None:
        return observed
    try:
        active = await context.stores.active_key(observed.store.store)
    except CinderblockError as error:
        return replace(observed, store=replace(observed.store, error=error))
    return replace(observed, store=replace(observed.store, active_key=active))


async def _given_snapshot(context: Context, namespace: str, asked: str) -> VolumeSnapshot | None:
    body = await queries.find_by_reference(context.kube, kinds.VOLUME_SNAPSHOT, namespace, asked)
    return VolumeSnapshot.model_validate(body) if body is not None else None


async def _with_manifest(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Read the manifest back once there can be one: a pod has ended, or a status was lost that had said so."""
    store, backup = observed.store.store, observed.backup
    asked, forgotten = backup.spec.import_, is_forgotten(backup)
    if store is None or not (mover_state.may_have_committed(observed.mover) or forgotten or asked):
        return observed
    container = (backup.status.container if backup.own_phase else None) or backup.spec.container
    container = container or store.spec.container
    key = _asked_manifest(asked, store.spec.prefix) if asked else backup.status.manifest_key
    try:
        is_lost = key is None or (forgotten and not asked)
        keys = await _find_manifests(context, store, container, observed) if is_lost or key is None else [key]
        return await _with_one_of(context, observed, store, container, keys)
    except CinderblockError as error:
        return replace(observed, manifest_error=error)


async def _with_one_of(
    context: Context, observed: ObservedBackup, store: BackupStore, container: str, keys: list[str]
) -> ObservedBackup:
    """The only sound manifest among ``keys``, or that of the known volume. Raises what the store raises."""
    sound: list[ObservedManifest] = []
    trouble: CinderblockError | None = None
    for key in keys[:MAX_NAMESAKES]:
        try:
            manifest = await read_manifest(context, store, container, key, _expected(observed, store, key))
        except PermanentError as error:
            # A namesake that cannot be read, be it for a key that nobody has, must not hide the true one.
            trouble = trouble or error
            continue
        if manifest is not None and (len(keys) == 1 or key == _known_key(observed, store)):
            return replace(observed, manifest=manifest)
        sound += [manifest] if manifest is not None else []
    if len(sound) > 1 or len(keys) > MAX_NAMESAKES:
        return replace(observed, manifest_error=_namesakes(observed, keys))
    return replace(observed, manifest=sound[0]) if sound else replace(observed, manifest_error=trouble)


def _namesakes(observed: ObservedBackup, keys: list[str]) -> ForeignManifest:
    """The error of a backup that may be any of several. What to do comes first, since a failReason is short."""
    remedy = (
        "Give the key of the right one as spec.import.manifest" if observed.backup.spec.import_ else "Remove others"
    )
    return ForeignManifest(
        f"Cannot tell which manifest is that of the backup: there are {len(keys)} of its name. {remedy}. Find out who"
        f" writes to the container. Among them: {', '.join(keys[:3])}"
    )


def _known_key(observed: ObservedBackup, store: BackupStore) -> str | None:
    """Where the manifest is if the backup is of the claim that is there now."""
    prefix, backup_id = store.spec.prefix, observed.backup.backup_id
    return layout.manifest_key(prefix, observed.claim.uid, backup_id) if observed.claim else None


def _expected(observed: ObservedBackup, store: BackupStore, key: str) -> ExpectedBackup:
    """Return which backup the manifest must be: what the mover has reported, or else what key and seal rule say.

    If the backup is being deleted, it may be unencrypted.
    """
    backup = observed.backup
    if not is_forgotten(backup) and not backup.spec.import_:
        return expected_manifest.expected_of_run(backup, store, key, mover_state.success(observed.mover))
    expected = expected_manifest.expected_at_key(backup, store, key)
    return expected.model_copy(update={"sealed": False}) if backup.metadata.is_being_deleted else expected


def _asked_manifest(asked: ImportSource, prefix: str) -> str | None:
    """The key that is asked for, if it is one that the store would use."""
    return asked.manifest if asked.manifest and layout.stored_ids(asked.manifest, prefix) else None


async def _find_manifests(context: Context, store: BackupStore, container: str, observed: ObservedBackup) -> list[str]:
    """Find keys of a backup's manifest if nothing else says which volume it belongs to: the volume may be gone by now.

    Somebody who can write to the container can put a manifest of the same name below another volume. So the key below
    the known volume comes first.
    """
    opened = await context.stores.open(store, container)
    prefix, backup_id = store.spec.prefix, observed.backup.backup_id
    known = _known_key(observed, store)

    def search() -> list[str]:
        listed = (item.key for item in opened.list(layout.backup_prefix(prefix)))
        found = (key for key in listed if (layout.stored_ids(key, prefix) or ("", ""))[1] == backup_id)
        return sorted(found, key=lambda key: (key != known, key))

    return await context.stores.call(store, search)


async def _for_deletion(context: Context, observed: ObservedBackup) -> ObservedBackup:
    backup, status = observed.backup, observed.backup.status
    view = await choose_store(context, backup.namespace, _store_name(backup))
    mover = await own_mover(context, backup)
    if mover.job is None:
        mover = replace(mover, pods=await pods_of(context, backup))
    observed = replace(observed, store=view, mover=mover, namespace_ending=await _is_ending(context, backup.namespace))
    if is_forgotten(backup):
        return await _for_recall(context, observed)
    recorded = backup.own_phase is not None and status.manifest_key is not None
    if not recorded or view.store is None or not status.volume_id or not status.container:
        return observed
    try:
        return await _stored(context, observed, view, status.volume_id, status.container)
    except CinderblockError as error:
        return replace(observed, store=StoreLookup(view.store, "", error))


async def _for_recall(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """What can still be found out about a backup that is being deleted and whose status was lost."""
    if observed.store.store is None:
        return replace(observed, manifest_error=TransientError(observed.store.missing, reason=Reason.STORE_NOT_FOUND))
    volume = _volume_name(observed.backup)
    claim = await find_claim(context, observed.backup.namespace, volume) if volume else None
    return await _with_manifest(context, replace(observed, claim=claim))


async def _stored(
    context: Context, observed: ObservedBackup, view: StoreLookup, volume_id: str, container: str
) -> ObservedBackup:
    """Add whether the store still holds objects of the backup, and which backups need them."""
    store, backup = view.store, observed.backup
    if store is None:
        return observed
    opened = await context.stores.open(store, container)
    look = partial(_find_stored, opened, store.spec.prefix, volume_id, backup.backup_id)
    left, stands = await context.stores.call(store, look)
    observed = replace(observed, data_present=left, manifest_present=stands)
    # The siblings were read before. So a backup that was not among them, and has a manifest now, has no VolumeBackup.
    return await _with_needs(context, observed) if left and not (backup.keeps_data and stands) else observed


def _find_stored(store: ObjectStore, prefix: str, volume_id: str, backup_id: str) -> tuple[bool, bool]:
    """Return whether the store holds anything of the backup, and whether it holds its manifest.

    Objects that are not ours do not count.
    """
    own = layout.manifest_key(prefix, volume_id, backup_id)
    stands = any(found.key == own for found in store.list(own))
    has_packs = next(list_pack_objects(store, prefix, volume_id, backup_id), None) is not None
    return stands or has_packs, stands


async def _with_needs(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add which backups need packs of this one, as the manifests in the store show."""
    status, store = observed.backup.status, observed.store.store
    if store is None:
        store = (await choose_store(context, observed.backup.namespace, _store_name(observed.backup))).store
    if store is None or status.volume_id is None or status.container is None:
        return observed
    try:
        needs = await context.references.needs(
            context.stores, store, status.container, status.volume_id, observed.backup.backup_id
        )
    except CinderblockError as error:
        return replace(observed, references_error=error)
    trouble = dependents.unknown(needs.unknown[0].message) if needs.unknown else None
    return replace(observed, needed_by=needs.by, references_error=trouble)


async def _is_ending(context: Context, namespace: str) -> bool:
    body = await context.kube.get(kinds.NAMESPACE, namespace)
    return body is None or Object.model_validate(body).metadata.is_being_deleted
