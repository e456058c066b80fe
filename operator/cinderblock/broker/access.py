"""From the pod of a mover to what it may do: pod, Job, operation, store, namespace, grant.

None of this comes from the mover itself. Its token names the pod. Marks that only the operator and the Job
controller may set (see Policies in docs/guide/security.md) name the operation. The status of the operation, which only
the operator writes, records the UID of the one Job that is its mover.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from cinderblock.api.labels import OWNER_KIND_LABEL, OWNER_NAME_ANNOTATION, OWNER_UID_LABEL, child_name
from cinderblock.api.meta import Model, Object
from cinderblock.api.pins import ExpectedBackup
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, SharedStore
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.broker.faults import NotYet, not_granted
from cinderblock.errors import AccessDenied, InvalidInput, KubeUnavailable, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import ENDED_POD_PHASES, Kind
from cinderblock.lifecycle import grant as grants
from cinderblock.lifecycle.backup_grants import readers
from cinderblock.lifecycle.expected_manifest import expected_of_status
from cinderblock.lifecycle.grant import Grant, Operation
from cinderblock.lifecycle.store import place, shared
from cinderblock.lifecycle.store.resolve import is_allowed
from cinderblock.reasons import Reason

M = TypeVar("M", bound=Model)

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""Name of an object (Kubernetes: Object Names and IDs, DNS subdomain names)."""

_OPERATIONS: Final[dict[str, tuple[Kind, type[VolumeBackup | VolumeRestore | BackupVerification]]]] = {
    "VolumeBackup": (kinds.VOLUME_BACKUP, VolumeBackup),
    "VolumeRestore": (kinds.VOLUME_RESTORE, VolumeRestore),
    "BackupVerification": (kinds.BACKUP_VERIFICATION, BackupVerification),
}


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The pod that a token is bound to.

    Attributes:
        namespace: of the pod and of its ServiceAccount.
        name: of the pod.
        uid: of the pod.
    """

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class GrantedManifest:
    """The manifest of a backup that a BackupGrant permits to restore.

    Attributes:
        key: its key.
        expected: its identity, as the VolumeBackup records it.
    """

    key: str
    expected: ExpectedBackup


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of a mover, as they were read at one moment.

    Attributes:
        pod: the pod of the mover.
        operation: kind and name of its operation.
        operation_uid: UID of its operation.
        store: the shared store with the prefix of the namespace.
        grant: what the mover may do there.
        manifest: of the backup of another namespace that the mover restores by a BackupGrant; None: it is of its own.
    """

    pod: PodIdentity
    operation: str
    operation_uid: str
    store: SharedStore
    grant: Grant
    manifest: GrantedManifest | None = None


async def find_access(kube: KubeClient, pod: PodIdentity, secrets_in: str) -> Access:
    """Return what the mover in a pod may do.

    Args:
        kube: reads the objects.
        pod: the pod.
        secrets_in: the namespace of the broker.

    Raises:
        AccessDenied: with reason NotGranted, the pod is not the mover of an operation that runs. With StoreNotAllowed,
            its namespace may not use the store, and its backup does not show an earlier permission. With
            FormerNamespaceRefused, the namespace has no place in the store.
        NotYet: the status of the operation does not record a mover so far, the BackupStore does not exist now, or the
            data of the backup is in another place than that of the store now.
        NotFound: the ClusterBackupStore does not exist.
        KubeUnavailable: the API server does not answer.
    """
    body = await kube.get(kinds.POD, pod.name, pod.namespace)
    job_uid, kind, name, uid = _marks(body or {}, pod)
    operation = await _operation(kube, pod.namespace, kind, name, uid)
    store_name = _store_of(operation, job_uid)
    if isinstance(operation, VolumeRestore) and operation.granted_from is not None:
        return await _granted_access(kube, pod, operation, secrets_in)
    store, may_use = await _shared_store(kube, pod.namespace, store_name, secrets_in)
    backup = await _backup_of(kube, operation)
    _check_place(backup, store, is_allowed=may_use)
    grant = (
        grants.of_backup(operation, store)
        if isinstance(operation, VolumeBackup)
        else grants.of_reader(operation, backup, store)
    )
    return Access(pod, f"{kind} {name}", uid, store, grant)


async def _granted_access(kube: KubeClient, pod: PodIdentity, restore: VolumeRestore, secrets_in: str) -> Access:
    """Return what the mover of a restore may do that reads a backup of another namespace by a BackupGrant.

    The VolumeBackup must record the restore before anything else of its namespace is read or told.
    """
    backup = await _backup_of(kube, restore)
    if not readers.is_recorded(restore, backup) or backup.status.store_name is None:
        raise _no_backup(restore)
    store, may_use = await _shared_store(kube, backup.namespace, backup.status.store_name, secrets_in)
    _check_place(backup, store, is_allowed=may_use)
    grant = grants.of_granted(restore, backup, store)
    manifest = GrantedManifest(backup.status.manifest_key or "", expected_of_status(backup, store))
    return Access(pod, f"{restore.kind} {restore.name}", restore.uid, store, grant, manifest)


def _marks(body: dict[str, Any], pod: PodIdentity) -> tuple[str, str, str, str]:
    """Return the UID of the Job, and kind, name and UID of the operation, from the marks of a pod."""
    metadata, phase = body.get("metadata") or {}, (body.get("status") or {}).get("phase")
    if metadata.get("uid") != pod.uid:
        raise not_granted(f"Pod {pod.name} of the token does not exist.")
    if phase in ENDED_POD_PHASES or metadata.get("deletionTimestamp"):
        raise not_granted(f"Pod {pod.name} has ended, or is being deleted.")
    labels = metadata.get("labels") or {}
    kind, uid = labels.get(OWNER_KIND_LABEL, ""), labels.get(OWNER_UID_LABEL, "")
    name = (metadata.get("annotations") or {}).get(OWNER_NAME_ANNOTATION, "")
    owners = [owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")]
    if kind not in _OPERATIONS or not uid or not _NAME.fullmatch(name) or len(owners) != 1:
        raise not_granted(f"Pod {pod.name} is not a mover.")
    [owner] = owners
    is_job = owner.get("apiVersion") == "batch/v1" and owner.get("kind") == "Job"
    if not is_job or owner.get("name") != child_name(uid):
        raise not_granted(f"Pod {pod.name} is not of the Job of a mover.")
    return str(owner.get("uid", "")), kind, name, uid


async def _operation(kube: KubeClient, namespace: str, kind: str, name: str, uid: str) -> Operation:
    """Return the operation. Raises AccessDenied unless it runs."""
    where, model = _OPERATIONS[kind]
    body = await kube.get(where, name, namespace)
    if body is None or body["metadata"]["uid"] != uid:
        raise not_granted(f"{kind} {name} of the mover does not exist.")
    operation = _parse(model, body, f"{kind} {name}")
    if operation.has_ended or operation.metadata.is_being_deleted:
        raise not_granted(f"{kind} {name} has ended, or is being deleted.")
    return operation


def _store_of(operation: Operation, job_uid: str) -> str:
    """Return the name of the BackupStore that the recorded mover uses. Raises AccessDenied for any other Job."""
    label = f"{operation.kind} {operation.name}"
    mover = operation.status.mover
    if not operation.has_own_status or mover is None:
        raise NotYet(f"The status of {label} does not record its mover yet. Try again.", reason=Reason.NOT_GRANTED)
    if mover.uid != job_uid:
        raise not_granted(f"The status of {label} records another Job as its mover.")
    if mover.store_name is None:
        raise not_granted(f"The status of {label} names no BackupStore.")
    return mover.store_name


async def _shared_store(kube: KubeClient, namespace: str, name: str, secrets_in: str) -> tuple[SharedStore, bool]:
    """Return the store with the settings of its ClusterBackupStore, and whether its namespace may use that now."""
    body, namespace_body = await asyncio.gather(
        kube.get(kinds.BACKUP_STORE, name, namespace), kube.get(kinds.NAMESPACE, namespace)
    )
    if namespace_body is None:
        raise not_granted(f"Namespace {namespace} does not exist.")
    if body is None:
        # The operator makes it again within half a minute.
        raise NotYet(f"BackupStore {name} does not exist now.", reason=Reason.NOT_GRANTED)
    store = _parse(BackupStore, body, f"BackupStore {name}")
    reference = store.spec.cluster_store_ref
    if reference is None:
        raise not_granted(f"BackupStore {name} is not a shared store.")
    found = await kube.get(kinds.CLUSTER_BACKUP_STORE, reference.name)
    if found is None:
        raise NotFound(f"ClusterBackupStore {reference.name} does not exist.", reason=Reason.CLUSTER_STORE_NOT_FOUND)
    cluster = _parse(ClusterBackupStore, found, f"ClusterBackupStore {reference.name}")
    owner = Object.model_validate(namespace_body)
    former_name = shared.former_name(cluster, owner)
    earlier = await kube.get(kinds.NAMESPACE, former_name) if former_name is not None else None
    former = Object.model_validate(earlier) if earlier is not None else None
    try:
        found_store = shared.share(cluster, store, owner, secrets_in, former)
    except InvalidInput as error:
        raise AccessDenied(error.message, reason=error.reason) from None
    return found_store, is_allowed(cluster, owner)


async def _backup_of(kube: KubeClient, operation: Operation) -> VolumeBackup:
    """Return the VolumeBackup that an operation makes or reads."""
    if isinstance(operation, VolumeBackup):
        return operation
    name, namespace = operation.status.backup_name, operation.namespace
    if isinstance(operation, VolumeRestore) and operation.granted_from is not None:
        namespace = operation.granted_from
    body = await kube.get(kinds.VOLUME_BACKUP, name, namespace) if name else None
    if body is None:
        raise _no_backup(operation)
    return _parse(VolumeBackup, body, f"VolumeBackup {name}")


def _no_backup(operation: Operation) -> AccessDenied:
    """Return the error of a backup that is gone, or of another namespace that does not know the operation."""
    return not_granted(f"The VolumeBackup of {operation.kind} {operation.name} does not exist.")


def _check_place(backup: VolumeBackup, store: SharedStore, *, is_allowed: bool) -> None:
    """Refuse a backup of another place, and one that was not accepted while its namespace was allowed.

    A running operation continues when the permission is withdrawn. The operator records the place of a shared store
    when it accepts a backup, and starts nothing in a namespace that is not allowed. So a recorded place shows that the
    namespace was allowed. Without it, a BackupStore that was replaced during a backup could name a ClusterBackupStore.
    """
    moved = place.misplaced(backup, store)
    if moved is not None:
        # It may move back in a moment, and the operator waits for that, too.
        raise NotYet(moved.message, reason=moved.reason)
    if not is_allowed and backup.status.store_place is None:
        raise AccessDenied(
            f"ClusterBackupStore {store.cluster_store} does not allow namespace {backup.namespace}.",
            reason=Reason.STORE_NOT_ALLOWED,
        )


def _parse(model: type[M], body: dict[str, Any], label: str) -> M:
    try:
        return model.model_validate(body)
    except ValidationError:
        raise KubeUnavailable(f"{label} cannot be read: it does not fit its CustomResourceDefinition") from None
