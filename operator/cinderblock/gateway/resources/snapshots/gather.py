"""The snapshots of a namespace in Cinder's form."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from cinderblock.api.kubernetes import PersistentVolumeClaim, VolumeSnapshot
from cinderblock.api.labels import OWNER_UID_LABEL
from cinderblock.api.quantity import to_bytes, to_gib
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.errors import NotFound
from cinderblock.gateway.resources import object_annotations
from cinderblock.gateway.resources.parse import parse_all
from cinderblock.gateway.resources.volumes.ids import volume_id
from cinderblock.gateway.rest.request import ApiRequest
from cinderblock.kube.kinds import PVC, VOLUME_BACKUP, VOLUME_SNAPSHOT


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot in Cinder's form.

    Attributes:
        source: the VolumeSnapshot.
        volume_id: id of the volume; empty if the volume no longer exists.
        size: size of the volume in GiB.
    """

    source: VolumeSnapshot
    status: str
    volume_id: str
    size: int

    @property
    def id(self) -> str:
        """Cinder's id."""
        return self.source.uid

    @property
    def name(self) -> str | None:
        """Cinder's name."""
        return object_annotations.name_of(self.source.metadata)


async def gather(request: ApiRequest) -> list[Snapshot]:
    """Return the snapshots of the caller's namespace, except temporary ones; none if the API lacks snapshots."""
    if not await request.kube.serves(VOLUME_SNAPSHOT):
        return []
    snapshots, claims, running = await asyncio.gather(
        request.kube.list(VOLUME_SNAPSHOT, request.project),
        request.kube.list(PVC, request.project),
        request.kube.list(VOLUME_BACKUP, request.project, fields="status.phase!=available,status.phase!=error"),
    )
    by_name = {claim.name: claim for claim in parse_all(PersistentVolumeClaim, claims)}
    copied = snapshots_being_copied(parse_all(VolumeBackup, running))
    permanent = [item for item in snapshots if OWNER_UID_LABEL not in (item["metadata"].get("labels") or {})]
    return [to_snapshot(snapshot, by_name, copied) for snapshot in parse_all(VolumeSnapshot, permanent)]


async def find(request: ApiRequest, identifier: str) -> Snapshot:
    """Return the snapshot with this id. Raises NotFound with Cinder's message."""
    snapshot = next((item for item in await gather(request) if item.id == identifier), None)
    if snapshot is None:
        raise NotFound(f"Snapshot {identifier} could not be found.")
    return snapshot


def to_snapshot(
    snapshot: VolumeSnapshot, claims: Mapping[str, PersistentVolumeClaim], copied: Collection[str]
) -> Snapshot:
    """Convert a VolumeSnapshot, given the claims by name and the `snapshots_being_copied`."""
    claim = claims.get(snapshot.spec.source.persistent_volume_claim_name or "")
    restore_size = snapshot.status.restore_size
    size = to_gib(to_bytes(restore_size) if restore_size else claim.capacity_bytes if claim else 0)
    return Snapshot(snapshot, _status(snapshot, copied), volume_id(claim) if claim else "", size)


def snapshots_being_copied(backups: Iterable[VolumeBackup]) -> frozenset[str]:
    """Return references to the snapshots that backups are being made of."""
    running = (backup for backup in backups if backup.status.phase in (None, BackupPhase.CREATING))
    return frozenset(backup.spec.snapshot_id for backup in running if backup.spec.snapshot_id)


def _status(snapshot: VolumeSnapshot, copied: Collection[str]) -> str:
    if snapshot.metadata.is_being_deleted:
        return "deleting"
    if snapshot.status.ready_to_use:
        return "backing-up" if snapshot.uid in copied or snapshot.name in copied else "available"
    return "error" if snapshot.status.error else "creating"
