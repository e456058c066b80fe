"""Reads that all gatherers share: stores, manifests, movers, and the pods and nodes that use a volume."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from pydantic import ValidationError

from cinderblock.api import labels as api_labels
from cinderblock.api.kubernetes import Job, PersistentVolume, PersistentVolumeClaim, Pod
from cinderblock.api.meta import Object
from cinderblock.api.mover import MOVER_CONTAINER, MoverProgress, VolumeMode
from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.reconcile.running_movers import load_movers
from cinderblock.errors import CinderblockError, ObjectNotFound
from cinderblock.format.manifest.reader import read_summary
from cinderblock.kube import kinds, queries
from cinderblock.kube.client import JsonObjects
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.children import JobOwner, Owner
from cinderblock.lifecycle.mover import state as mover_state
from cinderblock.lifecycle.mover.pod_security import runs_as_root
from cinderblock.lifecycle.observed import ObservedManifest, ObservedMover, StoreLookup
from cinderblock.lifecycle.store import place
from cinderblock.lifecycle.store.decide import default_store
from cinderblock.store.base import ObjectStore

OTHER_OPERATIONS_OF_A_VOLUME: Final = 8
"""Other operations that pods of one volume name as theirs and that are read. A volume has one mover at a time, besides
ending ones. The pods of one operation may be many: an evicted pod does not count as a failure of its Job."""
PODS_OF_A_VOLUME: Final = 200
"""Pods of one volume that are kept, of movers and of others each: the others only have to be more than none."""
PODS_OF_A_MOVER: Final = 200
"""Pods of one mover that are kept. Its Job makes four; evictions and preemptions add some."""
DEFAULT_STORES: Final = 20
"""Default BackupStores of one namespace that are read. More than one is an error, whose message names them."""


async def find_claim(context: Context, namespace: str, reference: str) -> PersistentVolumeClaim | None:
    """Return a PersistentVolumeClaim by UID or name. A UID wins, as Cinder's ``volume_id`` is an id."""
    body = await queries.find_claim(context.kube, namespace, reference)
    return PersistentVolumeClaim.model_validate(body) if body is not None else None


async def bound_volume(context: Context, claim: PersistentVolumeClaim | None) -> PersistentVolume | None:
    """Return the PersistentVolume of a claim, if the claim is bound and the reference of the volume confirms it.

    Anybody can create a claim that requests any PersistentVolume. Only the cluster writes the reference from the volume
    to its claim, so that reference decides.
    """
    if claim is None or not claim.is_bound:
        return None
    found = await context.get(PersistentVolume, kinds.PV, claim.spec.volume_name)
    reference = found.spec.claim_ref if found is not None else None
    return found if reference is not None and reference.uid == claim.uid else None


@dataclass(frozen=True, slots=True)
class RunningPods:
    """The pods of a namespace that have not ended and matter to a claim.

    Attributes:
        using: those that use it; of very many, some.
        stateful_sets: names of StatefulSets with a pod that mounts a claim of the same template; of very many, some.
    """

    using: list[Pod]
    stateful_sets: tuple[str, ...]


async def find_running_pods(context: Context, claim: PersistentVolumeClaim) -> RunningPods:
    """Return the pods that use a PersistentVolumeClaim and have not ended.

    The result also names StatefulSets that have claims of the same template.
    """
    sets: set[str] = set()

    def observe(page: JsonObjects) -> None:
        found = queries.stateful_sets_of(claim.name, page)
        sets.update(found[: PODS_OF_A_VOLUME - len(sets)])

    using = await _find_pods(context, claim, kinds.NOT_ENDED_SELECTOR, observe=observe)
    return RunningPods(using, tuple(sorted(sets)))


async def list_pods_using(context: Context, claim: PersistentVolumeClaim) -> list[Pod]:
    """Return the pods that use a PersistentVolumeClaim and have not ended; of very many, some."""
    return (await find_running_pods(context, claim)).using


async def _find_pods(
    context: Context,
    claim: PersistentVolumeClaim,
    fields: str = "",
    *,
    is_wanted: Callable[[Pod], bool] = lambda _: True,
    observe: Callable[[JsonObjects], None] = lambda _: None,
) -> list[Pod]:
    """Return the pods that name a claim, of movers and of others at most PODS_OF_A_VOLUME each.

    Anybody can create pods without number, so no more than a page of them is in memory.

    Args:
        context: what to read with.
        claim: the PersistentVolumeClaim.
        fields: field selector of the pods to read.
        is_wanted: which of the pods to return.
        observe: called with each page.
    """
    found: dict[bool, list[Pod]] = {True: [], False: []}
    async for page in context.kube.pages(kinds.POD, claim.namespace, fields=fields):
        if page is None:
            found = {True: [], False: []}
            continue
        observe(page)
        for pod in parse_all(Pod, [body for body in page if queries.names_claim(body, claim.name)]):
            kept = found[_is_like_a_mover(pod)]
            if len(kept) < PODS_OF_A_VOLUME and is_wanted(pod):
                kept.append(pod)
    return [*found[True], *found[False]]


async def pods_using(context: Context, pods: list[Pod], own: VolumeBackup | VolumeRestore) -> tuple[str, ...]:
    """Return the names of the pods that are not movers. ``own`` is the operation that is reconciled.

    Those of VolumeRestores that no longer exist are left to `pods_restoring`.
    """
    movers = await _movers_among(context, pods, own)
    return tuple(sorted(pod.name for pod in pods if pod.uid not in movers))


def pods_restoring(pods: list[Pod], owner_uid: str) -> tuple[str, ...]:
    """Return the names of the pods that are movers of other VolumeRestores than the owner.

    The labels suffice, because such a pod may be all that is left of a VolumeRestore that was removed by force.
    """
    movers = [pod for pod in pods if _is_like_a_mover(pod) and _restores(pod)]
    return tuple(sorted(pod.name for pod in movers if pod.metadata.labels.get(api_labels.OWNER_UID_LABEL) != owner_uid))


async def list_pods_during_copy(
    context: Context, claim: PersistentVolumeClaim, mover: ObservedMover, own: VolumeBackup | VolumeRestore
) -> tuple[str, ...]:
    """Return the names of the other pods that used a claim between the start and the end of its mover.

    The pods of the mover itself are left out even if the status records no mover: it was lost, or is of release 0.1.0.
    """
    job, began = mover.job, mover.job.metadata.creation_timestamp if mover.job is not None else None
    if job is None or began is None:
        return ()
    termination = mover.pods[-1].terminated if mover.pods else None
    end = termination.finished_at if termination is not None else None
    running = await _find_pods(context, claim, is_wanted=lambda pod: pod.ran_between(began, end))
    if own.own_phase is None or own.status.mover is None:
        running = [pod for pod in running if not pod.metadata.is_owned_by(job.uid)]
    return tuple(sorted({*await pods_using(context, running, own), *pods_restoring(running, own.uid)}))


@dataclass(frozen=True, slots=True)
class _NamedOwner:
    """The operation that the labels and annotations of a pod name."""

    kind: Kind
    uid: str
    name: str


async def _movers_among(context: Context, pods: list[Pod], own: VolumeBackup | VolumeRestore) -> frozenset[str]:
    """Return the UIDs of the pods that the statuses of their operations show to be movers, and of lost restores."""
    by_owner: dict[_NamedOwner, list[Pod]] = {}
    for pod in filter(_is_like_a_mover, pods):
        by_owner.setdefault(_owner_of(pod), []).append(pod)
    others = [owner for owner in by_owner if owner.uid != own.uid][:OTHER_OPERATIONS_OF_A_VOLUME]
    read = await asyncio.gather(*(_operation_of(context, owner, own.namespace) for owner in others))
    operations = dict(zip(others, read, strict=True)) | {owner: own for owner in by_owner if owner.uid == own.uid}
    return frozenset(
        pod.uid
        for owner, operation in operations.items()
        for pod in by_owner[owner]
        if (mover_state.is_pod_of(operation, pod) if operation is not None else _restores(pod))
    )


def _owner_of(pod: Pod) -> _NamedOwner:
    metadata = pod.metadata
    return _NamedOwner(
        kinds.VOLUME_RESTORE if _restores(pod) else kinds.VOLUME_BACKUP,
        metadata.labels.get(api_labels.OWNER_UID_LABEL, ""),
        metadata.annotations.get(api_labels.OWNER_NAME_ANNOTATION, ""),
    )


async def _operation_of(context: Context, owner: _NamedOwner, namespace: str) -> VolumeBackup | VolumeRestore | None:
    """Return the operation that a pod names as the one that it works for, if it exists."""
    model: type[VolumeBackup | VolumeRestore] = VolumeRestore if owner.kind is kinds.VOLUME_RESTORE else VolumeBackup
    body = await context.kube.get(owner.kind, owner.name, namespace) if owner.name else None
    found = parse_all(model, [body] if body is not None else [])
    return next((operation for operation in found if operation.uid == owner.uid), None)


def _restores(pod: Pod) -> bool:
    return pod.metadata.labels.get(api_labels.OWNER_KIND_LABEL) == kinds.VOLUME_RESTORE.kind


def _is_like_a_mover(pod: Pod) -> bool:
    return pod.metadata.labels.get(api_labels.MANAGED_BY_LABEL) == api_labels.MANAGED_BY


async def list_attached_nodes(context: Context, volume_name: str, pods: list[Pod]) -> tuple[str, ...]:
    """Return the nodes that a PersistentVolume is attached to. While pods use it, the API server is not asked."""
    if pods:
        return ()
    attachments = queries.attachments_of(volume_name, await context.bodies(kinds.VOLUME_ATTACHMENT))
    return tuple(sorted(str(attachment["spec"].get("nodeName", "")) for attachment in attachments))


async def observe_mover(context: Context, owner: Owner, claim: PersistentVolumeClaim | None) -> ObservedMover:
    """Return the mover Job of an operation with its pods. While there is none, `MoverAdmission` must know all others.

    Args:
        context: what to read with.
        owner: the operation.
        claim: the PersistentVolumeClaim that the mover mounts, if it exists.
    """
    lookup = await observe_own_mover(context, owner)
    if lookup.job is None or not lookup.is_recorded:
        await load_movers(context)
    if lookup.job is not None:
        progress = await mover_progress(context, owner, lookup.pods)
        return replace(await _with_warnings(context, lookup, lookup.job, claim), progress=progress)
    waits = claim is not None and not claim.is_bound
    warning = await queries.newest_warning(context.kube, owner.namespace, claim.uid) if claim and waits else ""
    return replace(lookup, claim_warning=warning)


async def observe_own_mover(context: Context, owner: Owner) -> ObservedMover:
    """Return the mover Job of an operation with its pods. An operation that only cleans up needs no more."""
    job = await context.get(Job, kinds.JOB, api_labels.child_name(owner.uid), owner.namespace)
    if job is None:
        return ObservedMover()
    is_recorded = owner.own_phase is not None and mover_state.is_recorded(owner.status, job)
    return ObservedMover(job=job, is_recorded=is_recorded, pods=await list_mover_pods(context, owner))


async def _with_warnings(
    context: Context, lookup: ObservedMover, job: Job, claim: PersistentVolumeClaim | None
) -> ObservedMover:
    """Add the newest warnings about a mover that does not start: a policy, a quota, an unavailable volume."""
    subject = lookup.pods[-1] if lookup.pods else job
    if lookup.pods and lookup.pods[-1].status.phase != "Pending":
        return lookup
    warning = await queries.newest_warning(context.kube, job.namespace, subject.uid)
    if claim is None or claim.is_bound:
        return replace(lookup, warning=warning)
    of_claim = await queries.newest_warning(context.kube, job.namespace, claim.uid)
    return replace(lookup, warning=warning, claim_warning=of_claim)


async def list_mover_pods(context: Context, owner: JobOwner) -> tuple[Pod, ...]:
    """Return the mover pods of an operation, oldest first, whether or not the Job still exists; of very many, some."""
    found: dict[str, Pod] = {}
    selector = f"{api_labels.OWNER_UID_LABEL}={owner.uid}"
    async for page in context.kube.pages(kinds.POD, owner.namespace, labels=selector):
        found |= {pod.uid: pod for pod in parse_all(Pod, page or [])}
        if len(found) >= PODS_OF_A_MOVER:
            break
    return tuple(sorted(found.values(), key=lambda pod: (pod.metadata.creation_timestamp, pod.name)))


async def mover_progress(context: Context, owner: JobOwner, pods: tuple[Pod, ...]) -> MoverProgress | None:
    """Return the last progress that the running mover printed. Return None if it cannot be read."""
    if not pods or pods[-1].status.phase != "Running":
        return None
    try:
        text = await context.kube.pod_log_tail(owner.namespace, pods[-1].name, MOVER_CONTAINER, lines=1)
        return MoverProgress.model_validate_json(text.strip() or "null")
    except (CinderblockError, ValidationError):
        return None


async def choose_store(context: Context, namespace: str, name: str | None) -> StoreLookup:
    """Return the BackupStore with this name, or the default one of the namespace, with its settings."""
    if name is not None:
        store = await context.get(BackupStore, kinds.BACKUP_STORE, name, namespace)
        if store is None:
            return StoreLookup(missing=f"BackupStore {name} could not be found in namespace {namespace}.")
        return await context.resolve(store)
    defaults = await context.singleflight.do((choose_store, namespace), lambda: _default_stores(context, namespace))
    lookup = default_store(defaults, namespace)
    if lookup.store is None:
        return lookup
    # A list has no spec.
    store = await context.get(BackupStore, kinds.BACKUP_STORE, lookup.store.name, namespace)
    chosen = default_store([store] if store is not None else [], namespace)
    return await context.resolve(chosen.store) if chosen.store is not None else chosen


async def _default_stores(context: Context, namespace: str) -> list[BackupStore]:
    """Return the default BackupStores of a namespace, without most of their specs; of very many, the first ones."""
    found: list[BackupStore] = []
    async for page in context.kube.pages(kinds.BACKUP_STORE, namespace):
        stores = parse_all(BackupStore, page) if page is not None else []
        defaults = [store for store in stores if store.is_default and not store.is_leaving]
        found = [*found, *defaults][:DEFAULT_STORES] if page is not None else []
    return found


async def probe_store(context: Context, lookup: StoreLookup, container: str) -> StoreLookup:
    """Add what is wrong with a store, if anything: Secrets, keys, endpoint, credentials, container.

    A store that may not be used is not asked.
    """
    store = lookup.store
    if store is None or lookup.refusal is not None:
        return lookup
    lookup = await with_permission(context, lookup)
    try:
        await context.stores.check(store, container, context.secrets)
    except CinderblockError as error:
        return replace(lookup, error=error)
    return lookup


async def probe_locks(context: Context, lookup: StoreLookup, container: str) -> StoreLookup:
    """Add that a store with spec.objectLock cannot lock objects. Restores and deletions work all the same."""
    store = lookup.store
    if store is None or lookup.refusal is not None or lookup.error is not None:
        return lookup
    guard = context.kube.write_guard
    try:
        await context.lock_probes.check(
            context.stores, store, container, context.secrets, now=context.clock(), guard=guard
        )
    except CinderblockError as error:
        return replace(lookup, error=error)
    return lookup


async def with_permission(context: Context, lookup: StoreLookup) -> StoreLookup:
    """Add whether movers of a store may run as root now."""
    if lookup.store is None:
        return lookup
    return replace(lookup, allows_root=await _allows_root(context, lookup.store))


async def _allows_root(context: Context, store: BackupStore) -> bool:
    """Return whether movers of a store may run as root. The namespace is read only if that depends on it."""
    if not context.policy.mover.root_requires_opt_in or not runs_as_root(store.spec.mover):
        return True
    namespace = await context.get(Object, kinds.NAMESPACE, store.namespace)
    return namespace is not None and namespace.metadata.annotations.get(api_labels.ROOT_MOVERS_ANNOTATION) == "true"


async def store_of(context: Context, backup: VolumeBackup, name: str | None) -> StoreLookup:
    """Return the store of a backup. Its error says if the recorded data is not in the present place of the store."""
    lookup = await choose_store(context, backup.namespace, name)
    error = place.misplaced(backup, lookup.store) if lookup.store is not None else None
    return replace(lookup, error=error) if error is not None else lookup


async def read_manifest(
    context: Context, store: BackupStore, container: str, key: str, expected: ExpectedBackup
) -> ObservedManifest | None:
    """Return a manifest, read back and verified; None if there is none.

    Args:
        context: what to read with.
        store: the BackupStore.
        container: the bucket.
        key: the key of the manifest.
        expected: the backup that it must belong to.

    Raises what the store and the format raise.
    """
    opened = await context.stores.open(store, container, context.secrets)
    ring = await context.stores.keys(store, context.secrets)
    try:
        summary = await context.stores.call(store, partial(read_summary, partial(opened.get, key), ring, expected, key))
    except ObjectNotFound:
        return None
    facts = summary.comparison
    return ObservedManifest(
        key=key,
        sealed=summary.header.is_sealed,
        description=summary.description,
        parent_id=summary.header.parent_id,
        object_count=summary.object_count,
        logical_bytes=summary.logical_bytes,
        transferred_bytes=summary.transferred_bytes,
        renewed_bytes=summary.renewed_bytes,
        stored_bytes=summary.stored_bytes,
        reread_files=None if facts is None else facts.reread_files,
        missed_changes=None if facts is None else facts.missed_changes,
        pins=summary.pins,
        unreadable_files=summary.unreadable_files,
        unreadable_examples=summary.unreadable_examples,
        losses=summary.losses,
        manifest_bytes=summary.manifest_bytes,
        entries=summary.entries if summary.description.volume_mode is VolumeMode.FILESYSTEM else None,
        locked_until=await _locked_until(context, store, opened, key),
    )


async def _locked_until(context: Context, store: BackupStore, opened: ObjectStore, key: str) -> datetime | None:
    """Return until when the store keeps a manifest, if it locks backups. The manifest itself could say anything."""
    if store.spec.object_lock is None:
        return None
    state = await context.stores.call(store, partial(opened.retention.inspect, key))
    return state.retained_until
