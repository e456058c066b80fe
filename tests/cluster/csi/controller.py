"""The Controller service for volumes. `snapshots.py` contains the part for snapshots."""

from typing import Any

from tests.cluster.csi import capabilities, consistency, loops, messages, sizes
from tests.cluster.csi.images import Image, ImageStore
from tests.cluster.csi.refusals import RefusalError, require


class Controller:
    """Create and delete volumes. A volume's id is its name."""

    def __init__(self, volumes: ImageStore, snapshots: ImageStore | None, offers: list[str]) -> None:
        """Without `snapshots`, volumes cannot be created from any source. `offers` are names of capabilities."""
        self._volumes = volumes
        self._snapshots = snapshots
        self._offers = offers

    def controller_get_capabilities(self, _request: Any) -> Any:
        capability = messages.ControllerServiceCapability
        kinds = [capability.RPC.Type.Value(offer) for offer in self._offers]
        return messages.ControllerGetCapabilitiesResponse(
            capabilities=[capability(rpc=capability.RPC(type=kind)) for kind in kinds]
        )

    def validate_volume_capabilities(self, request: Any) -> Any:
        require(request, "volume_id", "volume_capabilities")
        self._volumes.get(request.volume_id)
        capabilities.check_all(request.volume_capabilities)
        response = messages.ValidateVolumeCapabilitiesResponse()
        response.confirmed.volume_capabilities.extend(request.volume_capabilities)
        return response

    def create_volume(self, request: Any) -> Any:
        require(request, "name", "volume_capabilities")
        capabilities.check_all(request.volume_capabilities)
        volume = self._volumes.find(request.name) or self._make(request)
        if not _is_what_was_asked(volume, request):
            raise RefusalError("ALREADY_EXISTS", f"{request.name} exists with another size, source or freeze")
        response = messages.CreateVolumeResponse()
        response.volume.volume_id = volume.name
        response.volume.capacity_bytes = volume.size
        if request.HasField("volume_content_source"):  # the provisioner deletes a volume that does not echo it
            response.volume.content_source.CopyFrom(request.volume_content_source)
        return response

    def delete_volume(self, request: Any) -> Any:
        require(request, "volume_id")
        if loops.attached(self._volumes.path(request.volume_id)):
            raise RefusalError("FAILED_PRECONDITION", f"{request.volume_id} is in use")
        self._volumes.delete(request.volume_id)
        return messages.DeleteVolumeResponse()

    def _make(self, request: Any) -> Image:
        freezes = consistency.freezes(request.parameters)
        if not request.HasField("volume_content_source"):
            size = sizes.choose(request.capacity_range, source_size=0)
            return self._volumes.make_blank(request.name, size, freezes=freezes)
        original = self._original(request.volume_content_source)
        size = sizes.choose(request.capacity_range, original.size)
        copy = consistency.copier(is_frozen=original.freezes)
        return self._volumes.make_copy(
            request.name, original, copy, source=_source(request), size=size, freezes=freezes
        )

    def _original(self, content_source: Any) -> Image:
        if self._snapshots is None:
            raise RefusalError("INVALID_ARGUMENT", "this driver makes only empty volumes")
        if content_source.HasField("snapshot"):
            return self._snapshots.get(content_source.snapshot.snapshot_id)
        return self._volumes.get(content_source.volume.volume_id)


def _is_what_was_asked(volume: Image, request: Any) -> bool:
    is_alike = volume.source == _source(request) and volume.freezes == consistency.freezes(request.parameters)
    return is_alike and sizes.fits(volume.size, request.capacity_range)


def _source(request: Any) -> str:
    """Return the content source as text: a repeated call must name the same one."""
    content_source = request.volume_content_source
    kind = content_source.WhichOneof("type")
    if kind is None:
        return ""
    return f"{kind} {content_source.snapshot.snapshot_id or content_source.volume.volume_id}"
