"""What of a namespace speaks for or against a backup that does not exist yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.meta import ObjectMeta
from cinderblock.api.v1alpha1.backup import VolumeBackup, VolumeBackupSpec
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import AccessDenied, NotFound
from cinderblock.gateway.resources.backups.find import select_any
from cinderblock.gateway.resources.volumes.ids import find_claim
from cinderblock.gateway.rest import validation
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import BACKUP_STORE, POD, VOLUME_RESTORE, VOLUME_SNAPSHOT
from cinderblock.kube.queries import uses_claim
from cinderblock.lifecycle.observed import MoverSettings, ObservedBackup, OperatorPolicy, StoreLookup
from cinderblock.lifecycle.store.decide import default_store
from cinderblock.reasons import Reason

_POLICY: Final = OperatorPolicy(MoverSettings(image=""))
"""The rules that are asked here start no mover."""
_RUNNING: Final = "status.phase!=Succeeded,status.phase!=Failed"

T = TypeVar("T")


async def gather(kube: KubeClient, project: str, asked: dict[str, Any]) -> ObservedBackup:
    """Read what the request ``asked`` is about; what is not there is absent from the world."""
    backup = _imagined(project, asked)
    claim = await find_claim(kube, project, asked["volume_id"])
    if claim is None:
        return ObservedBackup(backup, _POLICY)
    siblings, restores, users, snapshot, store = await asyncio.gather(
        select_any(kube, project, {"status.volumeId": claim.uid}, *_asking_for(claim)),
        restores_into(kube, project, claim),
        if_permitted(pods_using(kube, claim)),
        _snapshot(kube, project, asked.get("snapshot_id")),
        if_permitted(_default_store(kube, project)),
    )
    return ObservedBackup(
        backup,
        _POLICY,
        siblings=tuple(siblings),
        restores=restores,
        store=store or StoreLookup(),
        claim=claim,
        pods_using=users or (),
        given_snapshot=snapshot,
    )


def _imagined(project: str, asked: dict[str, Any]) -> VolumeBackup:
    """The VolumeBackup that would be made; it is younger than every other one."""
    spec = VolumeBackupSpec.model_construct(
        volume_id=asked["volume_id"],
        container=asked.get("container") or None,
        incremental=validation.is_true(asked.get("incremental", False)),
        force=validation.is_true(asked.get("force", False)),
        snapshot_id=asked.get("snapshot_id"),
    )
    meta = ObjectMeta(namespace=project, uid="~", creation_timestamp=datetime.max.replace(tzinfo=UTC))
    return VolumeBackup.model_construct(metadata=meta, spec=spec)


def _asking_for(claim: PersistentVolumeClaim) -> Iterable[dict[str, str]]:
    return ({"spec.volumeId": claim.uid}, {"spec.volumeId": claim.name})


async def restores_into(kube: KubeClient, project: str, claim: PersistentVolumeClaim) -> tuple[VolumeRestore, ...]:
    """The VolumeRestores that write to an existing volume."""
    selectors = [f"spec.volumeId={reference}" for reference in (claim.uid, claim.name)]
    found = await asyncio.gather(*(kube.list(VOLUME_RESTORE, project, fields=selector) for selector in selectors))
    return tuple(VolumeRestore.model_validate(body) for bodies in found for body in bodies)


async def pods_using(kube: KubeClient, claim: PersistentVolumeClaim) -> tuple[str, ...]:
    """Names of the pods that use a claim and have not ended; movers of ours are not counted."""
    pods = await kube.list(
        POD, claim.namespace, fields=_RUNNING, labels=f"{labels.MANAGED_BY_LABEL}!={labels.MANAGED_BY}"
    )
    return tuple(sorted(str(pod["metadata"]["name"]) for pod in pods if uses_claim(pod, claim.name)))


async def _snapshot(kube: KubeClient, project: str, identifier: str | None) -> VolumeSnapshot | None:
    if identifier is None:
        return None
    try:
        bodies = await kube.list(VOLUME_SNAPSHOT, project)
    except NotFound:
        return None
    return next((VolumeSnapshot.model_validate(body) for body in bodies if body["metadata"]["uid"] == identifier), None)


async def _default_store(kube: KubeClient, project: str) -> StoreLookup:
    stores = [BackupStore.model_validate(body) for body in await kube.list(BACKUP_STORE, project)]
    return default_store(stores, project)


async def if_permitted(looking: Awaitable[T]) -> T | None:
    """What is seen; None if the caller may not look."""
    try:
        return await looking
    except AccessDenied as error:
        if error.reason == Reason.UNAUTHORIZED:
            raise
        return None
