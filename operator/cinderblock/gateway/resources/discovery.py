"""Resources that clients read to discover the service: volume types, availability zones, extensions.

A volume type is a StorageClass.
"""

from __future__ import annotations

from typing import Any, Final

from cinderblock.api.kubernetes import DEFAULT_STORAGE_CLASS_ANNOTATION
from cinderblock.errors import NotFound
from cinderblock.gateway.resources import limits
from cinderblock.gateway.resources.backups.gather import if_permitted
from cinderblock.gateway.resources.volumes.view import ZONE
from cinderblock.gateway.rest.openapi_schemas import closed_object
from cinderblock.gateway.rest.operation import Operation
from cinderblock.gateway.rest.request import ApiRequest, ApiResponse
from cinderblock.gateway.rest.validation import Schema
from cinderblock.kube.kinds import STORAGE_CLASS

_DESCRIPTION: Final = "kubernetes.io/description"
"""Annotation that describes an object (Kubernetes: Well-Known Labels, Annotations and Taints)."""

JsonObject = dict[str, Any]


async def types(request: ApiRequest) -> ApiResponse:
    """List volume types; none if the caller may not list StorageClasses."""
    return ApiResponse(200, {"volume_types": [_type(item) | _IS_PUBLIC for item in await _classes(request)]})


async def volume_type(request: ApiRequest) -> ApiResponse:
    """Show a volume type. ``default`` is the one for volumes that name none."""
    identifier = request.path["type_id"]
    classes = await _classes(request)
    if identifier == "default":
        found = next((item for item in classes if _is_default(item)), None)
    else:
        found = next(
            (item for item in classes if identifier in (item["metadata"]["uid"], item["metadata"]["name"])), None
        )
    if found is None:
        raise NotFound(f"Volume type {identifier} could not be found.")
    return ApiResponse(200, {"volume_type": _type(found)})


async def zones(_: ApiRequest) -> ApiResponse:
    """List the only availability zone."""
    return ApiResponse(200, {"availabilityZoneInfo": [{"zoneName": ZONE, "zoneState": {"available": True}}]})


async def extensions(_: ApiRequest) -> ApiResponse:
    """List extensions, for old clients."""
    backups = {
        "name": "Backups",
        "alias": "backups",
        "description": "Backups support.",
        "updated": "2012-12-12T00:00:00+00:00",
        "links": [],
    }
    return ApiResponse(200, {"extensions": [backups]})


async def _classes(request: ApiRequest) -> list[JsonObject]:
    return await if_permitted(request.kube.list(STORAGE_CLASS)) or []


def _type(storage_class: JsonObject) -> JsonObject:
    meta = storage_class["metadata"]
    return {
        "id": meta["uid"],
        "name": meta["name"],
        "is_public": True,
        "description": (meta.get("annotations") or {}).get(_DESCRIPTION),
        "extra_specs": {},
    }


def _is_default(storage_class: JsonObject) -> bool:
    annotations = storage_class["metadata"].get("annotations") or {}
    return bool(annotations.get(DEFAULT_STORAGE_CLASS_ANNOTATION) == "true")


_IS_PUBLIC: Final = {"os-volume-type-access:is_public": True}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_TYPE: Final[dict[str, Schema]] = {
    "id": {"type": "string"},
    "name": {"type": "string"},
    "is_public": _BOOLEAN,
    "description": {"type": ["string", "null"]},
    "extra_specs": {"type": "object"},
}
_TYPES: Final = closed_object(
    {"volume_types": {"type": "array", "items": closed_object(_TYPE | dict.fromkeys(_IS_PUBLIC, _BOOLEAN))}}
)

OPERATIONS: Final = (
    Operation("GET", "/types", types, "List volume types", "volume_extension:type_get_all", {200: _TYPES}),
    Operation(
        "GET",
        "/types/{type_id}",
        volume_type,
        "Show a volume type",
        "volume_extension:type_get",
        {200: closed_object({"volume_type": closed_object(_TYPE)})},
    ),
    Operation(
        "GET",
        "/os-availability-zone",
        zones,
        "List availability zones",
        "volume:availability_zone_list",
        {200: closed_object({"availabilityZoneInfo": {"type": "array"}})},
    ),
    limits.OPERATION,
    Operation(
        "GET",
        "/extensions",
        extensions,
        "List extensions",
        "volume:extensions",
        {200: closed_object({"extensions": {"type": "array"}})},
    ),
)
