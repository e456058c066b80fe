"""VolumeSnapshots as Cinder sees them."""

from __future__ import annotations

import asyncio
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
    """A snapshot in Cinder's words.

    Attributes:
        source: the VolumeSnapshot.
        volume_id: of the volume that it was taken of; empty if that is gone.
        size: GiB of that volume.
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


async def gather(call: ApiRequest) -> list[Snapshot]:
    """Every snapshot of the caller's namespace, but for temporaries of ours; none where snapshots are not served."""
    if not await call.kube.serves(VOLUME_SNAPSHOT):
        return []
    found, claims, running = await asyncio.gather(
        call.kube.list(VOLUME_SNAPSHOT, call.project),
        call.kube.list(PVC, call.project),
        call.kube.list(VOLUME_BACKUP, call.project, fields="status.phase!=available,status.phase!=error"),
    )
    by_name = {claim.name: claim for claim in parse_all(PersistentVolumeClaim, claims)}
    backups = parse_all(VolumeBackup, running)
    permanent = [item for item in found if OWNER_UID_LABEL not in (item["metadata"].get("labels") or {})]
    return [to_snapshot(snapshot, by_name, backups) for snapshot in parse_all(VolumeSnapshot, permanent)]


async def find(call: ApiRequest, identifier: str) -> Snapshot:
    """The snapshot with this id. Raises NotFound in Cinder's words."""
    snapshot = next((found for found in await gather(call) if found.id == identifier), None)
    if snapshot is None:
        raise NotFound(f"Snapshot {identifier} could not be found.")
    return snapshot


def to_snapshot(
    snapshot: VolumeSnapshot, claims: dict[str, PersistentVolumeClaim], backups: list[VolumeBackup]
) -> Snapshot:
    """A VolumeSnapshot as it looks among these claims and running backups."""
    claim = claims.get(snapshot.spec.source.persistent_volume_claim_name or "")
    told = snapshot.status.restore_size
    size = to_gib(to_bytes(told) if told else claim.capacity_bytes if claim else 0)
    return Snapshot(snapshot, _status(snapshot, backups), volume_id(claim) if claim else "", size)


def _status(snapshot: VolumeSnapshot, backups: list[VolumeBackup]) -> str:
    if snapshot.metadata.is_being_deleted:
        return "deleting"
    if snapshot.status.ready_to_use:
        return "backing-up" if any(_copies(backup, snapshot) for backup in backups) else "available"
    return "error" if snapshot.status.error else "creating"


def _copies(backup: VolumeBackup, snapshot: VolumeSnapshot) -> bool:
    """Whether a backup is being made of the snapshot."""
    is_running = backup.status.phase in (None, BackupPhase.CREATING)
    return is_running and backup.spec.snapshot_id in (snapshot.uid, snapshot.name)
