"""The Controller service for snapshots, which are full copies of the image.

`consistency.py` describes their consistency.
"""

from typing import Any

from tests.cluster.csi import consistency, messages
from tests.cluster.csi.images import Image, ImageStore
from tests.cluster.csi.refusals import RefusalError, require


class Snapshots:
    """Create, delete and list snapshots. A snapshot's id is its name, and its source is the id of its volume."""

    def __init__(self, volumes: ImageStore, snapshots: ImageStore) -> None:
        self._volumes = volumes
        self._snapshots = snapshots

    def create_snapshot(self, request: Any) -> Any:
        require(request, "name", "source_volume_id")
        snapshot = self._snapshots.find(request.name) or self._make(request)
        if snapshot.source != request.source_volume_id:
            raise RefusalError("ALREADY_EXISTS", f"{request.name} is a snapshot of {snapshot.source}")
        return messages.CreateSnapshotResponse(snapshot=_message(snapshot))

    def delete_snapshot(self, request: Any) -> Any:
        require(request, "snapshot_id")
        self._snapshots.delete(request.snapshot_id)
        return messages.DeleteSnapshotResponse()

    def _make(self, request: Any) -> Image:
        volume = self._volumes.get(request.source_volume_id)
        is_frozen = volume.freezes and consistency.freezes(request.parameters)
        copy = consistency.copier(is_frozen=is_frozen)
        return self._snapshots.make_copy(request.name, volume, copy, source=volume.name, size=volume.size)


class SnapshotListing:
    """The call ListSnapshots. Without it, the snapshot controller accepts any handle, which is also tested."""

    def __init__(self, snapshots: ImageStore) -> None:
        self._snapshots = snapshots

    def list_snapshots(self, request: Any) -> Any:
        found = [
            image
            for image in self._snapshots.all()
            if request.snapshot_id in ("", image.name) and request.source_volume_id in ("", image.source)
        ]
        first = _position(request.starting_token, len(found))
        end = min(first + request.max_entries, len(found)) if request.max_entries else len(found)
        response = messages.ListSnapshotsResponse(next_token=str(end) if end < len(found) else "")
        for image in found[first:end]:
            response.entries.add().snapshot.CopyFrom(_message(image))
        return response


def _position(token: str, length: int) -> int:
    if not token:
        return 0
    if not token.isdecimal() or int(token) > length:
        raise RefusalError("ABORTED", f"{token!r} is not a token of this listing")
    return int(token)


def _message(snapshot: Image) -> Any:
    message = messages.Snapshot(
        snapshot_id=snapshot.name,
        source_volume_id=snapshot.source,
        size_bytes=snapshot.size,
        ready_to_use=True,
    )
    message.creation_time.FromNanoseconds(snapshot.created)
    return message
