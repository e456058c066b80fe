"""Volumes in Cinder's words (cinder/api/v3/views/volumes.py, api/v2/views/volumes.py)."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.labels import CREATED_BY_ANNOTATION
from cinderblock.gateway.resources.volumes.gather import Attachment, Volume
from cinderblock.gateway.rest.request import ApiRequest
from cinderblock.gateway.rest.timestamps import format_timestamp

ZONE: Final = "nova"
"""The one availability zone that there is: Cinder's default."""

_GROUP, _SHARED_TARGETS, _TYPE_ID, _QUOTA = 13, 48, 63, 65
"""Microversions that have added something to a volume."""


def summary(volume: Volume, call: ApiRequest) -> dict[str, Any]:
    """A volume in a list without details."""
    return {"id": volume.id, "name": volume.name, "links": call.links.of("volumes", volume.id)}


def detail(volume: Volume, call: ApiRequest) -> dict[str, Any]:
    """Everything about a volume that the asked version tells."""
    found = summary(volume, call) | {
        "status": volume.status,
        "size": volume.size,
        "availability_zone": ZONE,
        "created_at": format_timestamp(volume.created_at),
        "updated_at": None,
        "description": volume.description,
        "volume_type": volume.storage_class,
        "snapshot_id": volume.snapshot_id,
        "source_volid": None,
        "metadata": volume.metadata,
        "user_id": volume.source.metadata.annotations.get(CREATED_BY_ANNOTATION, ""),
        "bootable": "false",
        "encrypted": False,
        "replication_status": None,
        "consistencygroup_id": None,
        "multiattach": volume.is_shared,
        "attachments": [_attachment(attachment, volume) for attachment in volume.attachments],
        "os-vol-tenant-attr:tenant_id": call.project,
    }
    if call.at_least(_GROUP):
        found["group_id"] = None
    if call.at_least(_SHARED_TARGETS):
        found |= {"service_uuid": None, "shared_targets": True}
    if call.at_least(_TYPE_ID):
        found["volume_type_id"] = volume.storage_class
    if call.at_least(_QUOTA):
        found["consumes_quota"] = True
    return found


def created(volume: Volume, call: ApiRequest) -> dict[str, Any]:
    """The answer to a request to create: all but what only a list knows (cinder/api/v3/volumes.py ``create``)."""
    found = detail(volume, call)
    del found["os-vol-tenant-attr:tenant_id"]
    return found


def _attachment(attachment: Attachment, volume: Volume) -> dict[str, Any]:
    """A pod as the server that a volume is attached to."""
    return {
        "id": volume.id,
        "volume_id": volume.id,
        "attachment_id": attachment.pod_uid,
        "server_id": attachment.pod_uid,
        "host_name": attachment.node,
        "device": "",
        "attached_at": format_timestamp(attachment.since),
    }
