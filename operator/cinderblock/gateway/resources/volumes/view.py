"""Volumes in Cinder's form (cinder/api/v3/views/volumes.py, api/v2/views/volumes.py)."""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.labels import CREATED_BY_ANNOTATION
from cinderblock.gateway.resources.volumes.gather import Attachment, Volume
from cinderblock.gateway.rest.request import ApiRequest
from cinderblock.gateway.rest.timestamps import format_timestamp

ZONE: Final = "nova"
"""The only availability zone: Cinder's default."""

_GROUP, _SHARED_TARGETS, _TYPE_ID, _QUOTA = 13, 48, 63, 65
"""Microversions that added fields to a volume."""


def summary(volume: Volume, request: ApiRequest) -> dict[str, Any]:
    """Return the fields for lists without details."""
    return {"id": volume.id, "name": volume.name, "links": request.links.of("volumes", volume.id)}


def detail(volume: Volume, request: ApiRequest) -> dict[str, Any]:
    """Return all fields that the caller's version has."""
    fields = summary(volume, request) | {
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
        "os-vol-tenant-attr:tenant_id": request.project,
    }
    if request.at_least(_GROUP):
        fields["group_id"] = None
    if request.at_least(_SHARED_TARGETS):
        fields |= {"service_uuid": None, "shared_targets": True}
    if request.at_least(_TYPE_ID):
        fields["volume_type_id"] = volume.storage_class
    if request.at_least(_QUOTA):
        fields["consumes_quota"] = True
    return fields


def without_tenant(volume: Volume, request: ApiRequest) -> dict[str, Any]:
    """Return the fields for responses to create and update (cinder/api/v3/volumes.py ``create``)."""
    fields = detail(volume, request)
    del fields["os-vol-tenant-attr:tenant_id"]
    return fields


def _attachment(attachment: Attachment, volume: Volume) -> dict[str, Any]:
    """Return an attachment, with the pod as the server."""
    return {
        "id": volume.id,
        "volume_id": volume.id,
        "attachment_id": attachment.pod_uid,
        "server_id": attachment.pod_uid,
        "host_name": attachment.node,
        "device": "",
        "attached_at": format_timestamp(attachment.since),
    }
