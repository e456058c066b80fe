"""Read what a decision about a VolumeBackup needs, and no more: a finished one needs little."""

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
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore, ImportMode
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.grants.gather import ended_granted
from cinderblock.controller.imports.same_place import list_same_place
from cinderblock.controller.reconcile.alarms import find_keeper
from cinderblock.controller.reconcile.gather import (
    bound_volume,
    choose_store,
    find_claim,
    find_running_pods,
    list_attached_nodes,
    list_mover_pods,
    list_pods_during_copy,
    observe_mover,
    observe_own_mover,
    pods_restoring,
    pods_using,
    probe_locks,
    probe_store,
    read_manifest,
    store_of,
    with_permission,
)
from cinderblock.controller.reconcile.gather_expiry import with_expiry
from cinderblock.controller.reconcile.gather_store import refuse_moved, wait_for_owner
from cinderblock.controller.reconcile.related import list_by_id, related_to_backup, related_to_import
from cinderblock.controller.stores.circuit_breaker import LONG_CALL_SECONDS
from cinderblock.controller.stores.owners import DELETION_CACHE_SECONDS
from cinderblock.errors import CinderblockError, ForeignManifest, NotFound, PermanentError, TransientError
from cinderblock.kube import kinds, queries
from cinderblock.lifecycle import dependents, expected_manifest
from cinderblock.lifecycle.backup import expiry, snapshot_checks
from cinderblock.lifecycle.backup.checks import is_forgotten, is_unpinned, recorded_parent
from cinderblock.lifecycle.imports import releases
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.observed import ObservedBackup, ObservedManifest, StoreLookup
from cinderblock.lifecycle.store import owner, place
from cinderblock.reasons import Reason
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.remains import find_remains

MAX_NAMESAKES: Final = 8
"""Most manifests with the same backup id, of different volumes, that are read to find the right one."""


async def gather(context: Context, backup: VolumeBackup) -> ObservedBackup:
    """Return the observed state of a VolumeBackup, as far as it matters in its phase."""
    namespace = backup.namespace
    snapshot, snapshot_claim = await asyncio.gather(
        _own_snapshot(context, backup),
        context.get(PersistentVolumeClaim, kinds.PVC, labels.child_name(backup.uid), namespace),
    )
    observed = ObservedBackup(
        backup=backup,
        policy=context.policy,
        ended_granted=await ended_granted(context, backup),
        snapshot=snapshot,
        snapshot_claim=snapshot_claim,
    )
    if backup.metadata.is_being_deleted or backup.has_ended:
        observed = replace(observed, snapshot_volume=await bound_volume(context, snapshot_claim))
    if backup.metadata.is_being_deleted:
        return await _for_deletion(context, observed)
    if backup.has_ended and not is_forgotten(backup):
        observed = replace(await _with_related(context, observed), mover=await observe_own_mover(context, backup))
        observed = await _with_dependents(context, observed) if dependents.must_be_read(observed) else observed
        return await _with_own_manifest(context, observed) if is_unpinned(backup) else observed
    if backup.spec.import_:
        return await _for_import(context, observed)
    observed = replace(observed, claim=await _find_claim(context, backup))
    if _must_choose_parent(backup):
        observed = replace(observed, given_snapshot=await _given_snapshot(context, backup))
    return await _for_creation(context, await _with_related(context, observed))


async def _with_own_manifest(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add the manifest of a backup that an earlier release made without pins."""
    backup = observed.backup
    lookup = await store_of(context, backup, _store_name(backup))
    if lookup.store is None or lookup.error is not None:
        missing = TransientError(lookup.missing, reason=lookup.missing_reason)
        return replace(observed, manifest_error=lookup.error or missing)
    manifest, error = await _read_own_manifest(context, lookup.store, backup)
    return replace(observed, manifest=manifest, manifest_error=error)


async def _read_own_manifest(
    context: Context, store: BackupStore, backup: VolumeBackup
) -> tuple[ObservedManifest | None, CinderblockError | None]:
    """Return the manifest of a complete backup, or the error why it cannot be read."""
    key, container = backup.status.manifest_key or "", place.container_of(store, backup.status.container)
    try:
        manifest = await read_manifest(
            context, store, container, key, expected_manifest.expected_of_status(backup, store)
        )
    except CinderblockError as error:
        return None, error
    if manifest is None:
        return None, NotFound(f"The store has no manifest of backup {backup.backup_id}", reason=Reason.MANIFEST_MISSING)
    return manifest, None


async def _with_related(context: Context, observed: ObservedBackup) -> ObservedBackup:
    backup, given = observed.backup, observed.given_snapshot
    before = given.status.creation_time if given is not None else None
    has_children = observed.snapshot is not None or observed.snapshot_claim is not None
    related = await related_to_backup(context, backup, observed.claim, before, has_children=has_children)
    return replace(
        observed,
        siblings=related.backups,
        restores=related.restores,
        object_count=related.count,
        present_parents=related.present_parents,
    )


async def _find_claim(context: Context, backup: VolumeBackup) -> PersistentVolumeClaim | None:
    """Return the PersistentVolumeClaim. An accepted backup knows its name and UID, and need not search for it."""
    status = backup.status
    if backup.own_phase and status.volume_id and status.volume_name:
        found = await context.get(PersistentVolumeClaim, kinds.PVC, status.volume_name, backup.namespace)
        if found is not None and found.uid == status.volume_id:
            return found
    return await find_claim(context, backup.namespace, _volume_name(backup))


async def _for_import(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add the manifest to import, and the other operations that have its id or depend on it."""
    backup = observed.backup
    related = await related_to_import(context, backup)
    observed = replace(observed, siblings=related.backups, restores=related.restores)
    lookup = await choose_store(context, backup.namespace, _store_name(backup))
    if lookup.store is None:
        return replace(observed, store=lookup)
    container = place.container_of(lookup.store, backup.spec.container)
    lookup = await refuse_moved(context, lookup, observed.siblings) if backup.own_phase is None else lookup
    observed = replace(observed, store=await probe_store(context, lookup, container))
    is_usable = observed.store.error is None and observed.store.refusal is None
    return await _with_manifest(context, observed) if is_usable else observed


async def _own_snapshot(context: Context, backup: VolumeBackup) -> VolumeSnapshot | None:
    if not await context.kube.serves(kinds.VOLUME_SNAPSHOT):
        return None
    return await context.get(VolumeSnapshot, kinds.VOLUME_SNAPSHOT, labels.child_name(backup.uid), backup.namespace)


async def _for_creation(context: Context, observed: ObservedBackup) -> ObservedBackup:
    backup = observed.backup
    lookup, mover = await asyncio.gather(
        store_of(context, backup, _store_name(backup)),
        observe_mover(context, backup, observed.snapshot_claim),
    )
    observed = replace(observed, store=lookup, mover=mover)
    observed = await (
        _gather_before_copy(context, observed) if mover.job is None else _with_pods_during_copy(context, observed)
    )
    return await _with_manifest(context, observed)


def _store_name(backup: VolumeBackup) -> str | None:
    """Return the name of the store chosen when the backup was accepted; before that, the requested one."""
    return (backup.status.store_name if backup.own_phase else None) or backup.spec.store_name


def _volume_name(backup: VolumeBackup) -> str:
    """Return the id of the volume found when the backup was accepted; before that, the requested one."""
    return (backup.status.volume_id if backup.own_phase else None) or backup.spec.volume_id or ""


async def _gather_before_copy(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add what is checked before the copy starts."""
    backup, claim = observed.backup, observed.claim
    observed = replace(observed, snapshot_volume=await bound_volume(context, observed.snapshot_claim))
    is_open = observed.store.store is not None and observed.store.error is None
    if is_open and observed.store.store and observed.snapshot is None and observed.snapshot_claim is None:
        container = place.container_of(observed.store.store, backup.spec.container)
        is_new = backup.own_phase is None or backup.status.manifest_key is None
        lookup = await refuse_moved(context, observed.store, observed.siblings) if is_new else observed.store
        lookup = await probe_store(context, lookup, container)
        lookup = await wait_for_owner(context, lookup) if is_new else lookup
        observed = replace(observed, store=await probe_locks(context, lookup, container))
    elif is_open:
        observed = replace(observed, store=await with_permission(context, observed.store))
    observed = await _with_parent(context, await _with_active_key(context, observed))
    if claim is None:
        return observed
    volume = await context.get(PersistentVolume, kinds.PV, claim.spec.volume_name) if claim.is_bound else None
    running = await find_running_pods(context, claim)
    pods = running.using
    users = await pods_using(context, pods, backup)
    observed = replace(observed, volume=volume, pods_using=users, pods_restoring=pods_restoring(pods, backup.uid))
    cluster_uid = await context.cluster.uid(context.kube)
    observed = replace(observed, stateful_sets=running.stateful_sets, cluster_uid=cluster_uid)
    return await _with_attachments(context, await _with_snapshots(context, observed), pods)


async def _with_parent(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add the manifest of the recorded parent, if its status has no pins yet."""
    parent = recorded_parent(observed)
    if observed.store.store is None or parent is None or not is_unpinned(parent):
        return observed
    moved = place.misplaced(parent, observed.store.store)
    if moved is not None:
        return replace(observed, parent_error=moved)
    manifest, error = await _read_own_manifest(context, observed.store.store, parent)
    return replace(observed, parent=manifest, parent_error=error)


async def _with_pods_during_copy(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add the pods that used the volume while it was copied, if it was copied without a snapshot."""
    from_snapshot = (
        observed.snapshot is not None
        or observed.snapshot_claim is not None
        or observed.backup.spec.snapshot_id is not None
    )
    if observed.claim is None or observed.claim.is_read_only or from_snapshot:
        return observed
    return replace(
        observed, pods_during_copy=await list_pods_during_copy(context, observed.claim, observed.mover, observed.backup)
    )


async def _with_snapshots(context: Context, observed: ObservedBackup) -> ObservedBackup:
    if not await context.kube.serves(kinds.VOLUME_SNAPSHOT):
        return observed
    backup, volume = observed.backup, observed.volume
    # The siblings were chosen with the time of the snapshot as it was read before, which may have changed since.
    is_read = _must_choose_parent(backup)
    given = observed.given_snapshot if is_read else await _given_snapshot(context, backup)
    classes = parse_all(VolumeSnapshotClass, await context.bodies(kinds.VOLUME_SNAPSHOT_CLASS))
    driver = volume.driver if volume else ""
    chosen, missing = snapshot_checks.choose_snapshot_class(observed.store.store, classes, driver)
    observed = replace(observed, given_snapshot=given, snapshot_class=chosen, snapshot_class_missing=missing)
    if chosen is None and given is None and observed.snapshot_claim is None:
        return observed
    return replace(observed, classes=tuple(await context.list(StorageClass, kinds.STORAGE_CLASS)))


async def _with_attachments(context: Context, observed: ObservedBackup, pods: list[Pod]) -> ObservedBackup:
    """Add the nodes that the volume is attached to, unless a snapshot is copied, during which it may be in use."""
    may_be_in_use = observed.backup.spec.force and observed.snapshot_class is not None
    has_begun = observed.snapshot is not None or observed.snapshot_claim is not None
    if observed.volume is None or observed.backup.spec.snapshot_id is not None or may_be_in_use or has_begun:
        return observed
    return replace(observed, attached_to=await list_attached_nodes(context, observed.volume.name, pods))


async def _with_active_key(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add the key that a mover must seal with. `probe_store` reports a Secret that cannot be read, not this function.

    Only this function reports that no key may seal. Stored backups can be read all the same.
    """
    if observed.store.store is None or observed.store.error is not None:
        return observed
    try:
        active = await context.stores.active_key(observed.store.store, context.secrets)
    except CinderblockError as error:
        return replace(observed, store=replace(observed.store, error=error))
    return replace(observed, store=replace(observed.store, active_key=active))


def _must_choose_parent(backup: VolumeBackup) -> bool:
    """Return whether the parent of an incremental backup depends on the time of the snapshot that it names."""
    is_chosen = backup.own_phase is not None and backup.status.parent_id is not None
    return backup.spec.incremental and backup.spec.snapshot_id is not None and not is_chosen


async def _given_snapshot(context: Context, backup: VolumeBackup) -> VolumeSnapshot | None:
    asked = backup.spec.snapshot_id
    if asked is None or not await context.kube.serves(kinds.VOLUME_SNAPSHOT):
        return None
    body = await queries.find_by_reference(context.kube, kinds.VOLUME_SNAPSHOT, backup.namespace, asked)
    return VolumeSnapshot.model_validate(body) if body is not None else None


async def _with_manifest(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Read the manifest back once it can exist: after a mover pod ended, or when the status was lost."""
    store, backup = observed.store.store, observed.backup
    source, forgotten = backup.spec.import_, is_forgotten(backup)
    if store is None or not (mover_state.may_have_committed(observed.mover) or forgotten or source):
        return observed
    moved = place.misplaced(backup, store)
    if moved is not None:
        return replace(observed, manifest_error=moved)
    asked = (backup.status.container if backup.own_phase else None) or backup.spec.container
    container = place.container_of(store, asked)
    key = _import_key(source, store.spec.prefix) if source else backup.status.manifest_key
    try:
        is_lost = key is None or (forgotten and not source)
        keys = await _find_manifests(context, store, container, observed) if is_lost or key is None else [key]
        found = await _with_valid_manifest(context, observed, store, container, keys)
        is_unknown = forgotten and not source and found.manifest is None and found.manifest_error is None
        return await _with_own_place(context, found, store, container) if is_unknown else found
    except CinderblockError as error:
        return replace(observed, manifest_error=error)


async def _with_own_place(
    context: Context, observed: ObservedBackup, store: BackupStore, container: str
) -> ObservedBackup:
    """Add that a backup whose status was lost may be in the own place of a namespace that continues an earlier one.

    A status that was lost does not say in which of the two places the backup was made. A deletion waits in any case: an
    unfinished backup has packs without a manifest. Raises what the store raises.
    """
    if not isinstance(store, SharedStore) or store.own_prefix == store.spec.prefix:
        return observed
    spec = store.spec.model_copy(update={"prefix": store.own_prefix})
    own = store.model_copy(update={"spec": spec})
    is_there = bool(await _find_manifests(context, own, container, observed))
    if not is_there and not observed.backup.metadata.is_being_deleted:
        return observed
    return replace(observed, manifest_error=place.unknown(observed.backup, store))


async def _with_valid_manifest(
    context: Context, observed: ObservedBackup, store: BackupStore, container: str, keys: list[str]
) -> ObservedBackup:
    """Add the only valid manifest among ``keys``, or that of the known volume. Raises what the store raises."""
    valid: list[ObservedManifest] = []
    first_error: CinderblockError | None = None
    for key in keys[:MAX_NAMESAKES]:
        try:
            manifest = await read_manifest(context, store, container, key, _expected_backup(observed, store, key))
        except PermanentError as error:
            # A namesake that cannot be read, for example without its key, must not hide the right one.
            first_error = first_error or error
            continue
        if manifest is not None and (len(keys) == 1 or key == _known_key(observed, store)):
            return replace(observed, manifest=manifest)
        valid += [manifest] if manifest is not None else []
    if len(valid) > 1 or len(keys) > MAX_NAMESAKES:
        return replace(observed, manifest_error=_ambiguous_manifest(observed, keys))
    return replace(observed, manifest=valid[0]) if valid else replace(observed, manifest_error=first_error)


def _ambiguous_manifest(observed: ObservedBackup, keys: list[str]) -> ForeignManifest:
    """Return the error of a backup with several possible manifests. The remedy comes first: a failReason is short."""
    remedy = (
        "Give the key of the right one as spec.import.manifest" if observed.backup.spec.import_ else "Remove the others"
    )
    return ForeignManifest(
        f"Cannot tell which manifest belongs to the backup: {len(keys)} have its name. {remedy}. Find out who writes to"
        f" the container. Among them: {', '.join(keys[:3])}"
    )


def _known_key(observed: ObservedBackup, store: BackupStore) -> str | None:
    """Return the key of the manifest if the backup belongs to the PersistentVolumeClaim that exists now."""
    prefix, backup_id = store.spec.prefix, observed.backup.backup_id
    return layout.manifest_key(prefix, observed.claim.uid, backup_id) if observed.claim else None


def _expected_backup(observed: ObservedBackup, store: BackupStore, key: str) -> ExpectedBackup:
    """Return which backup the manifest must belong to, from the mover's report, or else from its key and the store.

    If a person deletes the backup, it may be unencrypted. An expiry is no such decision: only rules are behind it.
    """
    backup = observed.backup
    if not is_forgotten(backup) and not backup.spec.import_:
        return expected_manifest.expected_of_run(backup, store, key, mover_state.success(observed.mover))
    expected = expected_manifest.expected_at_key(backup, store, key)
    is_decided = backup.metadata.is_being_deleted and not expiry.is_expired(backup)
    return expected.model_copy(update={"sealed": False}) if is_decided else expected


def _import_key(source: ImportSource, prefix: str) -> str | None:
    """Return the requested manifest key, if it is one that the store would use."""
    return source.manifest if source.manifest and layout.stored_ids(source.manifest, prefix) else None


async def _find_manifests(context: Context, store: BackupStore, container: str, observed: ObservedBackup) -> list[str]:
    """Return the possible keys of a backup's manifest when its volume is unknown, because it may be gone by now.

    Anybody who can write to the container can put a manifest with the same name below another volume. So the key below
    the known volume comes first.
    """
    catalog = Catalog(await context.stores.open(store, container, context.secrets), store.spec.prefix)
    namesakes = partial(catalog.namesakes, observed.backup.backup_id)
    found = await context.stores.call(store, namesakes, LONG_CALL_SECONDS)
    known = _known_key(observed, store)
    return sorted((backup.key for backup in found), key=lambda key: (key != known, key))


async def _for_deletion(context: Context, observed: ObservedBackup) -> ObservedBackup:
    backup, status = observed.backup, observed.backup.status
    is_expired = expiry.removes_data(backup)
    observed = observed if is_expired else await _with_related(context, observed)
    lookup = await store_of(context, backup, _store_name(backup))
    mover = await observe_own_mover(context, backup)
    if mover.job is None:
        mover = replace(mover, pods=await list_mover_pods(context, backup))
    observed = replace(
        observed,
        store=lookup,
        mover=mover,
        namespace_ending=await _is_ending(context, backup.namespace),
        alarm_keeper=await find_keeper(context, backup),
    )
    if is_forgotten(backup):
        return await _for_lost_status(context, observed)
    if lookup.error is not None:
        return observed
    if is_expired:
        return await with_expiry(context, observed)
    recorded = backup.own_phase is not None and status.manifest_key is not None
    if not recorded or lookup.store is None or not status.volume_id or not status.container:
        return observed
    try:
        observed = await _with_stored_data(context, observed, lookup, status.volume_id, status.container)
        held = await _owner_refusal(context, backup, lookup.store) if observed.data_present else None
        if held is not None:
            observed = replace(observed, store=replace(lookup, error=held))
    except CinderblockError as error:
        observed = replace(observed, store=StoreLookup(lookup.store, "", error))
    return await _with_same_place(context, observed, lookup.store, status.container)


async def _owner_refusal(context: Context, backup: VolumeBackup, store: BackupStore | None) -> CinderblockError | None:
    """Return why the data of an imported backup stays: another cluster owns the store now, and has made the backup.

    If nobody can read the marker, the owner that the BackupStore shows counts. Raises TransientError.
    """
    is_taken = backup.spec.import_ is not None and not backup.keeps_data and not backup.is_let_go
    cluster = await context.cluster.uid(context.kube) if is_taken and store is not None else ""
    if not cluster or store is None or store.is_shared:
        return None
    try:
        found = await context.owners.read(context.stores, store, context.secrets, seconds=DELETION_CACHE_SECONDS)
    except PermanentError:
        known = store.status.owner
        return owner.held_deletion(store, known) if known is not None and known.cluster != cluster else None
    return owner.held_deletion(store, found) if found is not None and found.cluster != cluster else None


async def _with_same_place(
    context: Context, observed: ObservedBackup, store: BackupStore, container: str
) -> ObservedBackup:
    """Add the other BackupStores that lead to data which stays, if its own BackupStore imports nothing from there."""
    stays = observed.backup.keeps_data or observed.backup.is_let_go or observed.needed_by
    is_marked = store.spec.import_.mode is not ImportMode.NEVER and releases.is_own_place(observed.backup, store)
    if not stays or is_marked or observed.namespace_ending:
        return observed
    return replace(observed, same_place=await list_same_place(context, store, container))


async def _for_lost_status(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add what can still be found out about a backup in deletion whose status was lost."""
    if observed.store.store is None:
        missing = TransientError(observed.store.missing, reason=observed.store.missing_reason)
        return replace(observed, manifest_error=missing)
    volume = _volume_name(observed.backup)
    claim = await find_claim(context, observed.backup.namespace, volume) if volume else None
    return await _with_manifest(context, replace(observed, claim=claim))


async def _with_stored_data(
    context: Context, observed: ObservedBackup, lookup: StoreLookup, volume_id: str, container: str
) -> ObservedBackup:
    """Add whether the store still holds objects of the backup, and which other backups need them.

    Without objects, this adds whether the container keeps versions of them.
    """
    store, backup = lookup.store, observed.backup
    if store is None:
        return observed
    opened = await context.stores.open(store, container, context.secrets)
    catalog = Catalog(opened, store.spec.prefix)
    presence = await context.stores.call(store, partial(catalog.presence, volume_id, backup.backup_id))
    observed = replace(observed, data_present=presence.has_data, manifest_present=presence.has_manifest)
    if not presence.has_data:
        find = partial(find_remains, opened, store.spec.prefix, volume_id, backup.backup_id)
        return replace(observed, remains=await context.stores.call(store, find))
    # The siblings were read before. So a backup that has a manifest now and was not among them has no VolumeBackup.
    is_kept = (backup.keeps_data and presence.has_manifest) or store.is_read_only
    return observed if is_kept else await _with_dependents(context, observed)


async def _with_dependents(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add which backups need packs of this one, as the manifests in the store show."""
    status, store = observed.backup.status, observed.store.store
    if store is None:
        store = (await choose_store(context, observed.backup.namespace, _store_name(observed.backup))).store
    moved = place.misplaced(observed.backup, store) if store is not None else None
    if moved is not None:
        return replace(observed, references_error=moved)
    if store is None or status.volume_id is None or status.container is None:
        return observed
    try:
        found = await context.references.find_dependents(
            context.stores,
            store,
            status.container,
            status.volume_id,
            observed.backup.backup_id,
            secrets=context.secrets,
        )
    except CinderblockError as error:
        return replace(observed, references_error=error)
    unknown = dependents.unknown(found.unknown[0].message) if found.unknown else None
    known = {sibling.uid: sibling for sibling in observed.siblings}
    # Only some of very many siblings were read.
    if found.by and not any(sibling.backup_id in found.by for sibling in observed.siblings):
        listed = await list_by_id(context, observed.backup, found.by)
        known |= {sibling.uid: sibling for sibling in listed}
    return replace(observed, siblings=tuple(known.values()), needed_by=found.by, references_error=unknown)


async def _is_ending(context: Context, namespace: str) -> bool:
    body = await context.kube.get(kinds.NAMESPACE, namespace)
    return body is None or Object.model_validate(body).metadata.is_being_deleted
