"""What of a namespace decides how its volumes look in Cinder's words.

A volume is a PersistentVolumeClaim, and its id is the claim's UID. A volume that is being restored has no claim of its
name before it is whole: until then the VolumeRestore stands for it, and its UID is the volume's id and remains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.labels import DESCRIPTION_ANNOTATION, DISPLAY_NAME_ANNOTATION, METADATA_ANNOTATION, OWNER_UID_LABEL
from cinderblock.api.meta import Object
from cinderblock.api.quantity import to_bytes, to_gib
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.errors import NotFound
from cinderblock.gateway.resources import object_annotations
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.parse import parse_all
from cinderblock.gateway.resources.volumes.ids import volume_id
from cinderblock.gateway.rest.request import ApiRequest
from cinderblock.kube.kinds import POD, PVC, VOLUME_BACKUP, VOLUME_RESTORE
from cinderblock.kube.queries import uses_claim

_NOT_AT_REST: Final = "status.phase!=available,status.phase!=error"
"""Of the backups only those that can be seen in a volume's status: they are few, whatever is kept."""

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A pod that uses a volume."""

    pod_uid: str
    node: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume in Cinder's words.

    Attributes:
        source: the claim, or the VolumeRestore that will make it.
        size: GiB.
        storage_class: of the claim; None: the cluster has not chosen one yet.
    """

    id: str
    source: Object
    name: str | None
    description: str | None
    metadata: dict[str, str]
    status: str
    size: int
    storage_class: str | None
    attachments: tuple[Attachment, ...] = ()
    is_shared: bool = False
    snapshot_id: str | None = None

    @property
    def created_at(self) -> datetime | None:
        """When the claim, or the VolumeRestore, was made."""
        return self.source.metadata.creation_timestamp


@dataclass(frozen=True, slots=True)
class NamespaceVolumes:
    """What was read."""

    claims: Sequence[PersistentVolumeClaim]
    pods: Sequence[JsonObject]
    backups: Sequence[VolumeBackup]
    restores: Sequence[VolumeRestore]

    def volumes(self) -> list[Volume]:
        """Every volume of the namespace."""
        coming = (self._coming(restore) for restore in self.restores)
        return [self._claimed(claim) for claim in self.claims] + [volume for volume in coming if volume is not None]

    def find(self, identifier: str) -> Volume | None:
        """The volume with this id; the UID of its claim finds it as well, which kubectl shows and backups name."""
        volumes = self.volumes()
        by_uid = {volume.source.uid: volume for volume in volumes}
        return by_uid.get(identifier) or {volume.id: volume for volume in volumes}.get(identifier)

    def _claimed(self, claim: PersistentVolumeClaim) -> Volume:
        users = [pod for pod in self.pods if uses_claim(pod, claim.name)]
        return Volume(
            id=volume_id(claim),
            source=claim,
            name=object_annotations.name_of(claim.metadata),
            description=object_annotations.description_of(claim.metadata),
            metadata=object_annotations.metadata_of(claim.metadata),
            status=self._status(claim, users),
            size=to_gib(claim.capacity_bytes),
            storage_class=claim.spec.storage_class_name,
            attachments=tuple(_attachment(pod) for pod in users),
            is_shared="ReadWriteMany" in claim.spec.access_modes,
            snapshot_id=claim.metadata.annotations.get(SNAPSHOT_ANNOTATION),
        )

    def _status(self, claim: PersistentVolumeClaim, users: Sequence[JsonObject]) -> str:
        if claim.metadata.is_being_deleted:
            return "deleting"
        if claim.status.phase == "Lost":
            return "error"
        written = _newest(restore for restore in self.restores if _writes(restore, claim))
        if written is not None and written.status.phase in (None, RestorePhase.RESTORING):
            return "restoring-backup"
        if any(_copies(backup, claim) for backup in self.backups):
            return "backing-up"
        if not claim.is_bound:
            return "creating"
        if written is not None and written.status.phase is RestorePhase.ERROR_RESTORING:
            return "error_restoring"
        return "in-use" if users else "available"

    def _coming(self, restore: VolumeRestore) -> Volume | None:
        """The volume that a VolumeRestore is about to make, or has failed to make; None: it makes none, or has."""
        if restore.status.volume_id or restore.spec.volume_id or restore.status.phase is RestorePhase.AVAILABLE:
            return None
        asked = restore.spec.annotations
        is_failed = restore.status.phase is RestorePhase.ERROR_RESTORING
        status = "error_restoring" if is_failed else "restoring-backup"
        return Volume(
            id=restore.uid,
            source=restore,
            name=asked.get(DISPLAY_NAME_ANNOTATION) or restore.spec.name or f"restore_backup_{restore.spec.backup_id}",
            description=asked.get(DESCRIPTION_ANNOTATION),
            metadata=object_annotations.parse_metadata(asked.get(METADATA_ANNOTATION, "")),
            status="deleting" if restore.metadata.is_being_deleted else status,
            size=self._size(restore),
            storage_class=restore.spec.storage_class_name,
        )

    def _size(self, restore: VolumeRestore) -> int:
        if restore.spec.size:
            return to_gib(to_bytes(restore.spec.size))
        wanted = (restore.spec.backup_id, restore.status.backup_id)
        found = (backup.status.size for backup in self.backups if {backup.backup_id, backup.name} & set(wanted))
        return next((size for size in found if size), 0)


SNAPSHOT_ANNOTATION: Final = "cinderblock.io/snapshot-id"
"""On a PersistentVolumeClaim that was made from a snapshot through the Cinder API: the snapshot's id."""


async def gather(call: ApiRequest) -> NamespaceVolumes:
    """Read the caller's namespace, with the caller's rights. For who may not see pods, nothing is in use."""
    claims, pods, backups, restores = await asyncio.gather(
        call.kube.list(PVC, call.project),
        if_permitted(call.kube.list(POD, call.project, fields="status.phase!=Succeeded,status.phase!=Failed")),
        call.kube.list(VOLUME_BACKUP, call.project, fields=_NOT_AT_REST),
        call.kube.list(VOLUME_RESTORE, call.project),
    )
    return NamespaceVolumes(
        parse_all(PersistentVolumeClaim, [item for item in claims if not _is_ours(item)]),
        [pod for pod in pods or () if not _is_ours(pod)],
        parse_all(VolumeBackup, backups),
        parse_all(VolumeRestore, restores),
    )


async def find(call: ApiRequest, identifier: str) -> tuple[Volume, NamespaceVolumes]:
    """The volume with this id, and what it was seen in. Raises NotFound in Cinder's words."""
    observed = await gather(call)
    volume = observed.find(identifier)
    if volume is None:
        raise NotFound(f"Volume {identifier} could not be found.")
    return volume, observed


def _is_ours(item: JsonObject) -> bool:
    """Whether an object is a temporary of an operation of ours: a hidden claim, a mover's pod."""
    return OWNER_UID_LABEL in (item["metadata"].get("labels") or {})


def _copies(backup: VolumeBackup, claim: PersistentVolumeClaim) -> bool:
    """Whether a backup is being made of the claim itself: one of a snapshot leaves the volume alone."""
    if backup.status.phase not in (None, BackupPhase.CREATING) or backup.spec.snapshot_id or backup.spec.import_:
        return False
    return claim.uid in (backup.status.volume_id, backup.spec.volume_id) or backup.spec.volume_id == claim.name


def _writes(restore: VolumeRestore, claim: PersistentVolumeClaim) -> bool:
    """Whether a VolumeRestore is to overwrite the claim."""
    if restore.status.volume_id:
        return restore.status.volume_id == claim.uid
    return restore.spec.volume_id in (claim.uid, claim.name)


def _newest(restores: Any) -> VolumeRestore | None:
    return max(restores, key=lambda restore: str(restore.metadata.creation_timestamp), default=None)


def _attachment(pod: JsonObject) -> Attachment:
    started = pod.get("status", {}).get("startTime")
    since = datetime.fromisoformat(started) if started else None
    return Attachment(pod["metadata"]["uid"], pod.get("spec", {}).get("nodeName"), since)
