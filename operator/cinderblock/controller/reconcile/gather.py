"""What all observers share: reading objects as models, and what surrounds a mover."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pydantic import ValidationError

from cinderblock.api import labels as api_labels
from cinderblock.api.kubernetes import Job, PersistentVolumeClaim, Pod
from cinderblock.api.mover import MoverProgress
from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.errors import CinderblockError, NotFound
from cinderblock.format.manifest.reader import read_summary
from cinderblock.kube import kinds, queries
from cinderblock.kube.client import JsonObjects
from cinderblock.lifecycle.mover.job import MOVER_CONTAINER, STORE_LABEL
from cinderblock.lifecycle.observed import ObservedManifest, ObservedMover, RunningMover, StoreLookup
from cinderblock.lifecycle.store.decide import default_store
from cinderblock.reasons import Reason


async def find_claim(context: Context, namespace: str, asked: str) -> PersistentVolumeClaim | None:
    """A claim by UID or name. A UID wins, as Cinder's ``volume_id`` is an id."""
    body = await queries.find_claim(context.kube, namespace, asked)
    return PersistentVolumeClaim.model_validate(body) if body is not None else None


async def living_pods(context: Context, namespace: str) -> JsonObjects:
    """Return the pods of a namespace that have not ended."""
    return await context.bodies(kinds.POD, namespace, fields=kinds.NOT_ENDED_SELECTOR)


def those_with(claim: PersistentVolumeClaim, pods: JsonObjects) -> list[Pod]:
    """Return those of ``pods`` that use a claim."""
    return parse_all(Pod, [pod for pod in pods if queries.uses_claim(pod, claim.name)])


async def pods_with(context: Context, claim: PersistentVolumeClaim) -> list[Pod]:
    """The pods that use a claim and have not ended."""
    return those_with(claim, await living_pods(context, claim.namespace))


def pods_using(pods: list[Pod]) -> tuple[str, ...]:
    """Names of those that are not our own movers."""
    return tuple(sorted(pod.name for pod in pods if not _is_mover(pod)))


def pods_restoring(pods: list[Pod], me: str) -> tuple[str, ...]:
    """Names of those that are movers of restores, but for the one with the UID ``me``."""
    movers = (pod for pod in pods if _is_mover(pod) and pod.metadata.labels.get(api_labels.OWNER_UID_LABEL) != me)
    wanted = VolumeRestore.model_fields["kind"].default
    return tuple(sorted(pod.name for pod in movers if pod.metadata.labels.get(api_labels.OWNER_KIND_LABEL) == wanted))


async def pods_during_copy(context: Context, claim: PersistentVolumeClaim, mover: ObservedMover) -> tuple[str, ...]:
    """Names of the pods, not our own, that had a claim while a mover worked on it, from its Job's birth to its end."""
    begin = mover.job.metadata.creation_timestamp if mover.job is not None else None
    if begin is None:
        return ()
    ended = mover.pods[-1].terminated if mover.pods else None
    end = ended.finished_at if ended is not None else None
    bodies = await context.bodies(kinds.POD, claim.namespace)
    pods = parse_all(Pod, [body for body in bodies if queries.names_claim(body, claim.name)])
    return tuple(sorted(pod.name for pod in pods if not _is_mover(pod) and pod.ran_between(begin, end)))


def _is_mover(pod: Pod) -> bool:
    return pod.metadata.labels.get(api_labels.MANAGED_BY_LABEL) == api_labels.MANAGED_BY


async def attached_to(context: Context, volume_name: str, pods: list[Pod]) -> tuple[str, ...]:
    """Nodes that a PersistentVolume is attached to; not asked for while ``pods``, movers or not, use it."""
    if pods:
        return ()
    attachments = queries.attachments_of(volume_name, await context.bodies(kinds.VOLUME_ATTACHMENT))
    return tuple(sorted(str(attachment["spec"].get("nodeName", "")) for attachment in attachments))


async def observe_mover(
    context: Context, owner: VolumeBackup | VolumeRestore, claim: PersistentVolumeClaim | None
) -> ObservedMover:
    """The mover Job of an operation with its pods; while there is none, which others run.

    ``claim`` is what the mover mounts, if it is there.
    """
    view = await own_mover(context, owner)
    if view.job is not None:
        progress = await _progress(context, owner, view.pods)
        return replace(await _with_warnings(context, view, view.job, claim), progress=progress)
    others = await context.list(Job, kinds.JOB, labels=f"{api_labels.MANAGED_BY_LABEL}={api_labels.MANAGED_BY}")
    return ObservedMover(others=frozenset(mover for other in others if (mover := _running(other)) is not None))


def _running(job: Job) -> RunningMover | None:
    """The mover that a Job is, if it has not ended. A label makes no mover: its owner must have given it its name."""
    owner = next((owner.uid for owner in job.metadata.owner_references if owner.controller), "")
    if job.name != api_labels.child_name(owner) or job.is_complete or job.failure is not None:
        return None
    return RunningMover(owner, job.metadata.labels.get(STORE_LABEL, ""))


async def own_mover(context: Context, owner: VolumeBackup | VolumeRestore) -> ObservedMover:
    """The mover Job of an operation with its pods; all that one needs which only cleans up."""
    job = await context.get(Job, kinds.JOB, api_labels.child_name(owner.uid), owner.namespace)
    return ObservedMover(job=job, pods=await pods_of(context, owner) if job is not None else ())


async def _with_warnings(
    context: Context, view: ObservedMover, job: Job, claim: PersistentVolumeClaim | None
) -> ObservedMover:
    """What the cluster says against a mover that does not start: a policy, a quota, a volume that cannot be had."""
    subject = view.pods[-1] if view.pods else job
    if view.pods and view.pods[-1].status.phase != "Pending":
        return view
    warning = await queries.newest_warning(context.kube, job.namespace, subject.uid)
    if claim is None or claim.is_bound:
        return replace(view, warning=warning)
    of_claim = await queries.newest_warning(context.kube, job.namespace, claim.uid)
    return replace(view, warning=warning, claim_warning=of_claim)


async def pods_of(context: Context, owner: VolumeBackup | VolumeRestore) -> tuple[Pod, ...]:
    """The mover pods of an operation, oldest first, whether or not the Job is still there."""
    pods = await context.list(Pod, kinds.POD, owner.namespace, labels=f"{api_labels.OWNER_UID_LABEL}={owner.uid}")
    return tuple(sorted(pods, key=lambda pod: (pod.metadata.creation_timestamp, pod.name)))


async def _progress(
    context: Context, owner: VolumeBackup | VolumeRestore, pods: tuple[Pod, ...]
) -> MoverProgress | None:
    """The last line that the running mover printed. No answer is no progress, and no error."""
    if not pods or pods[-1].status.phase != "Running":
        return None
    try:
        text = await context.kube.pod_log_tail(owner.namespace, pods[-1].name, MOVER_CONTAINER, lines=1)
        return MoverProgress.model_validate_json(text.strip() or "null")
    except (CinderblockError, ValidationError):
        return None


async def choose_store(context: Context, namespace: str, asked: str | None) -> StoreLookup:
    """The store that is named, or the namespace's default one."""
    if asked is not None:
        store = await context.get(BackupStore, kinds.BACKUP_STORE, asked, namespace)
        missing = "" if store else f"BackupStore {asked} could not be found in namespace {namespace}."
        return StoreLookup(store, missing)
    return default_store(await context.list(BackupStore, kinds.BACKUP_STORE, namespace), namespace)


async def probe_store(context: Context, view: StoreLookup, container: str) -> StoreLookup:
    """Ask the store whether it can be used: Secrets, keys, endpoint, credentials, container."""
    if view.store is None:
        return view
    try:
        await context.stores.check(view.store, container)
    except CinderblockError as error:
        return replace(view, error=error)
    return view


async def read_manifest(
    context: Context, store: BackupStore, container: str, key: str, expected: ExpectedBackup
) -> ObservedManifest | None:
    """Return a manifest, read back and verified; None if there is none.

    Args:
        eyes: what to look with.
        store: where it is.
        container: the bucket.
        key: of the manifest.
        expected: which backup it must be.

    Raises what the store and the format raise.
    """
    opened = await context.stores.open(store, container)
    ring = await context.stores.keys(store)
    try:
        summary = await context.stores.call(store, partial(read_summary, partial(opened.get, key), ring, expected, key))
    except NotFound as error:
        if error.reason == Reason.CONTAINER_NOT_FOUND:
            raise
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
        stored_bytes=summary.stored_bytes,
        reread_files=None if facts is None else facts.reread_files,
        missed_changes=None if facts is None else facts.missed_changes,
        pins=summary.pins,
        unreadable_files=summary.unreadable_files,
        unreadable_examples=summary.unreadable_examples,
        losses=summary.losses,
    )
