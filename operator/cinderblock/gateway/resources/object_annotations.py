"""Cinder's name, description and metadata of objects of Kubernetes' own kinds, which have no fields for them.

They stand in annotations. An object without them, which somebody made with kubectl, is called in the Cinder API what it
is called in Kubernetes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from cinderblock.api.labels import (
    CREATED_BY_ANNOTATION,
    DESCRIPTION_ANNOTATION,
    DISPLAY_NAME_ANNOTATION,
    METADATA_ANNOTATION,
    VOLUME_METADATA_ANNOTATION,
)
from cinderblock.api.meta import ObjectMeta
from cinderblock.errors import AlreadyExists, InvalidInput
from cinderblock.gateway.auth import user_name
from cinderblock.gateway.resources.object_names import slug
from cinderblock.kube.client import JsonObject, KubeClient
from cinderblock.kube.kinds import Kind

LONGEST: Final = 255
"""Characters of a name or a description (cinder/api/openstack/wsgi.py ``Controller.validate_string_length``)."""

_ANNOTATION_LIMIT: Final = 4096
"""Characters of an annotation that a VolumeRestore takes."""
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def to_annotations(
    name: str | None, description: str | None = None, metadata: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Annotations of a new object; what is None or empty is left out, but for the name."""
    found = {DISPLAY_NAME_ANNOTATION: name or ""}
    if description:
        found[DESCRIPTION_ANNOTATION] = description
    if metadata:
        found[METADATA_ANNOTATION] = json.dumps(dict(metadata), sort_keys=True)
    return found


def name_of(meta: ObjectMeta) -> str | None:
    """Cinder's name of an object."""
    return meta.annotations.get(DISPLAY_NAME_ANNOTATION, meta.name) or None


def description_of(meta: ObjectMeta) -> str | None:
    """Cinder's description of an object."""
    return meta.annotations.get(DESCRIPTION_ANNOTATION) or None


def metadata_of(meta: ObjectMeta) -> dict[str, str]:
    """The user's own keys and values; none if somebody has written nonsense there."""
    return parse_metadata(meta.annotations.get(METADATA_ANNOTATION, ""))


def parse_metadata(text: str) -> dict[str, str]:
    """Keys and values in an annotation."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def metadata_to_keep(meta: ObjectMeta) -> dict[str, str]:
    """The annotation on a new VolumeBackup that keeps its volume's keys and values, if there are any."""
    kept = metadata_of(meta)
    return {VOLUME_METADATA_ANNOTATION: json.dumps(kept, sort_keys=True)} if kept else {}


def kept_metadata(meta: ObjectMeta) -> dict[str, str]:
    """What a VolumeBackup has kept, as far as it fits into the annotations of a VolumeRestore."""
    kept = meta.annotations.get(VOLUME_METADATA_ANNOTATION, "")
    return parse_metadata(kept) if len(kept) <= _ANNOTATION_LIMIT else {}


def changes(body: Mapping[str, Any]) -> dict[str, str | None]:
    """Annotations as a merge patch, of what a request to update names."""
    patch: dict[str, str | None] = {}
    if "name" in body:
        patch[DISPLAY_NAME_ANNOTATION] = body["name"] or ""
    if "description" in body:
        patch[DESCRIPTION_ANNOTATION] = body["description"] or None
    if "metadata" in body:
        patch[METADATA_ANNOTATION] = json.dumps(body["metadata"], sort_keys=True) if body["metadata"] else None
    return patch


def normalized(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request with v1's names for name and description replaced, and blanks around them removed.

    Raises InvalidInput if one of them is too long (cinder/api/openstack/wsgi.py ``clean_name_and_description``).
    """
    found = dict(body)
    for field in ("name", "description"):
        value = found.pop(f"display_{field}", None)
        value = found.get(field, value)
        if isinstance(value, str):
            found[field] = value.strip()
            if len(found[field]) > LONGEST:
                raise InvalidInput(
                    f"Invalid input received: {field} has {len(found[field])} characters, more than {LONGEST}."
                )
    return found


async def create(kube: KubeClient, kind: Kind, namespace: str, name: str | None, body: JsonObject) -> JsonObject:
    """Create an object that is called like ``name`` if that is a name for Kubernetes and free, else similarly."""
    told = body["metadata"]["annotations"] | {CREATED_BY_ANNOTATION: await user_name(kube)}
    meta = {"namespace": namespace, "annotations": told}
    otherwise = kind.kind.lower()
    if name and _LABEL.fullmatch(name):
        try:
            return await kube.create(kind, body | {"metadata": meta | {"name": name}})
        except AlreadyExists:
            pass
    return await kube.create(kind, body | {"metadata": meta | {"generateName": f"{slug(name, otherwise)}-"}})
