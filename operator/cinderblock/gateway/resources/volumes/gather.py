"""The volumes of a namespace in Cinder's form, from the objects that determine them.

A volume is a PersistentVolumeClaim, and its id is the claim's UID. A volume that is being restored has no claim until
it is complete. Until then the VolumeRestore represents it, and the VolumeRestore's UID is and remains the volume's id.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.labels import (
    DESCRIPTION_ANNOTATION,
    DISPLAY_NAME_ANNOTATION,
    METADATA_ANNOTATION,
    OWNER_UID_LABEL,
    SNAPSHOT_ANNOTATION,
)
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
from cinderblock.kube.queries import used_claims

_UNFINISHED: Final = "status.phase!=available,status.phase!=error"
"""Selects the backups that can affect the status of a volume. They are few, however many backups are kept."""

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A pod that uses a volume."""

    pod_uid: str
    node: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume in Cinder's form.

    Attributes:
        source: the claim, or the VolumeRestore that will create it.
        size: size in GiB.
        storage_class: StorageClass of the claim; None: the cluster has not chosen one yet.
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
        """Creation time of the claim or the VolumeRestore."""
        return self.source.metadata.creation_timestamp


@dataclass(frozen=True)
class NamespaceVolumes:
    """The objects of a namespace that determine its volumes."""

    claims: Sequence[PersistentVolumeClaim]
    pods: Sequence[JsonObject]
    backups: Sequence[VolumeBackup]
    restores: Sequence[VolumeRestore]

    def volumes(self) -> list[Volume]:
        """Return all volumes of the namespace."""
        existing = [self._from_claim(claim) for claim in self.claims]
        restored = (self._from_restore(restore) for restore in self.restores)
        return existing + [volume for volume in restored if volume is not None]

    def find(self, identifier: str) -> Volume | None:
        """Return the volume with this id, or with a claim of this UID, which kubectl and backups show."""
        volumes = self.volumes()
        by_uid = {volume.source.uid: volume for volume in volumes}
        return by_uid.get(identifier) or {volume.id: volume for volume in volumes}.get(identifier)

    def _from_claim(self, claim: PersistentVolumeClaim) -> Volume:
        users = self._users.get(claim.name, [])
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
        newest = _newest(
            restore
            for reference in {claim.uid, claim.name}
            for restore in self._restores_by_target.get(reference, ())
            if _overwrites(restore, claim)
        )
        if newest is not None and newest.status.phase in (None, RestorePhase.RESTORING):
            return "restoring-backup"
        if {claim.uid, claim.name} & self._copied:
            return "backing-up"
        if not claim.is_bound:
            return "creating"
        if newest is not None and newest.status.phase is RestorePhase.ERROR_RESTORING:
            return "error_restoring"
        return "in-use" if users else "available"

    def _from_restore(self, restore: VolumeRestore) -> Volume | None:
        """Return the volume that a VolumeRestore will create or failed to create; None: it exists, or is not new.

        A given claim is a volume itself, whatever becomes of its restore.
        """
        if restore.spec.claim is not None:
            return None
        if restore.status.volume_id or restore.spec.volume_id or restore.status.phase is RestorePhase.AVAILABLE:
            return None
        annotations = restore.spec.annotations
        is_failed = restore.status.phase is RestorePhase.ERROR_RESTORING
        status = "error_restoring" if is_failed else "restoring-backup"
        return Volume(
            id=restore.uid,
            source=restore,
            name=annotations.get(DISPLAY_NAME_ANNOTATION)
            or restore.spec.name
            or f"restore_backup_{restore.spec.backup_id}",
            description=annotations.get(DESCRIPTION_ANNOTATION),
            metadata=object_annotations.parse_metadata(annotations.get(METADATA_ANNOTATION, "")),
            status="deleting" if restore.metadata.is_being_deleted else status,
            size=self._size(restore),
            storage_class=restore.spec.storage_class_name,
        )

    def _size(self, restore: VolumeRestore) -> int:
        if restore.spec.size:
            return to_gib(to_bytes(restore.spec.size))
        references = (restore.spec.backup_id, restore.status.backup_id)
        return next((self._backup_sizes[name] for name in references if name in self._backup_sizes), 0)

    # The following indexes keep the cost of a request linear in the number of objects.

    @cached_property
    def _users(self) -> dict[str, list[JsonObject]]:
        """The pods that use each claim, by its name."""
        users: defaultdict[str, list[JsonObject]] = defaultdict(list)
        for pod in self.pods:
            for claim in used_claims(pod):
                users[claim].append(pod)
        return users

    @cached_property
    def _restores_by_target(self) -> dict[str, list[VolumeRestore]]:
        """The restores into existing volumes, by the reference to the volume."""
        found: defaultdict[str, list[VolumeRestore]] = defaultdict(list)
        for restore in self.restores:
            found[restore.status.volume_id or restore.spec.volume_id or ""].append(restore)
        return found

    @cached_property
    def _copied(self) -> set[str]:
        """References to the volumes of running backups. A backup of a snapshot does not use the volume."""
        copying = [
            backup
            for backup in self.backups
            if backup.status.phase in (None, BackupPhase.CREATING)
            and not (backup.spec.snapshot_id or backup.spec.import_)
        ]
        references = (reference for b in copying for reference in (b.status.volume_id, b.spec.volume_id))
        return {reference for reference in references if reference}

    @cached_property
    def _backup_sizes(self) -> dict[str, int]:
        """The known sizes of backups, by id and name."""
        return {
            reference: backup.status.size
            for backup in reversed(self.backups)
            if backup.status.size
            for reference in (backup.backup_id, backup.name)
        }


async def gather(request: ApiRequest) -> NamespaceVolumes:
    """Read the caller's namespace with the caller's rights. If they may not list pods, no volume is in use."""
    claims, pods, backups, restores = await asyncio.gather(
        request.kube.list(PVC, request.project),
        if_permitted(request.kube.list(POD, request.project, fields="status.phase!=Succeeded,status.phase!=Failed")),
        request.kube.list(VOLUME_BACKUP, request.project, fields=_UNFINISHED),
        request.kube.list(VOLUME_RESTORE, request.project),
    )
    return NamespaceVolumes(
        parse_all(PersistentVolumeClaim, [item for item in claims if not _is_temporary(item)]),
        [pod for pod in pods or () if not _is_temporary(pod)],
        parse_all(VolumeBackup, backups),
        parse_all(VolumeRestore, restores),
    )


async def find(request: ApiRequest, identifier: str) -> tuple[Volume, NamespaceVolumes]:
    """Return the volume with this id, and the namespace's volumes. Raises NotFound with Cinder's message."""
    observed = await gather(request)
    volume = observed.find(identifier)
    if volume is None:
        raise NotFound(f"Volume {identifier} could not be found.")
    return volume, observed


def _is_temporary(item: JsonObject) -> bool:
    """Return whether an operation created the object for its own use, such as a hidden claim or a mover's pod."""
    return OWNER_UID_LABEL in (item["metadata"].get("labels") or {})


def _overwrites(restore: VolumeRestore, claim: PersistentVolumeClaim) -> bool:
    """Return whether a VolumeRestore overwrites the claim."""
    if restore.status.volume_id:
        return restore.status.volume_id == claim.uid
    return restore.spec.volume_id in (claim.uid, claim.name)


def _newest(restores: Any) -> VolumeRestore | None:
    return max(restores, key=lambda restore: str(restore.metadata.creation_timestamp), default=None)


def _attachment(pod: JsonObject) -> Attachment:
    start_time = pod.get("status", {}).get("startTime")
    since = datetime.fromisoformat(start_time) if start_time else None
    return Attachment(pod["metadata"]["uid"], pod.get("spec", {}).get("nodeName"), since)
