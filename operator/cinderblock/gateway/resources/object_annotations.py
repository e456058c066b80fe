"""Annotations with Cinder's name, description and metadata, for Kubernetes kinds that have no fields for them.

An object without them, for example from kubectl, has the same name in the Cinder API as in Kubernetes.
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

MAX_CHARACTERS: Final = 255
"""Limit of a name or a description (cinder/api/openstack/wsgi.py ``Controller.validate_string_length``)."""

_MAX_ANNOTATION_CHARACTERS: Final = 4096
"""Limit of an annotation in the spec of a VolumeRestore."""
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def to_annotations(
    name: str | None, description: str | None = None, metadata: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the annotations of a new object. Empty values are omitted, except the name."""
    annotations = {DISPLAY_NAME_ANNOTATION: name or ""}
    if description:
        annotations[DESCRIPTION_ANNOTATION] = description
    if metadata:
        annotations[METADATA_ANNOTATION] = json.dumps(dict(metadata), sort_keys=True)
    return annotations


def name_of(meta: ObjectMeta) -> str | None:
    """Return Cinder's name of an object."""
    return meta.annotations.get(DISPLAY_NAME_ANNOTATION, meta.name) or None


def description_of(meta: ObjectMeta) -> str | None:
    """Return Cinder's description of an object."""
    return meta.annotations.get(DESCRIPTION_ANNOTATION) or None


def metadata_of(meta: ObjectMeta) -> dict[str, str]:
    """Return the user's own keys and values; none if the annotation is malformed."""
    return parse_metadata(meta.annotations.get(METADATA_ANNOTATION, ""))


def parse_metadata(text: str) -> dict[str, str]:
    """Parse the keys and values in an annotation."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def metadata_to_save(meta: ObjectMeta) -> dict[str, str]:
    """Return the annotation on a new VolumeBackup that saves the metadata of its volume, if there is any."""
    metadata = metadata_of(meta)
    return {VOLUME_METADATA_ANNOTATION: json.dumps(metadata, sort_keys=True)} if metadata else {}


def saved_metadata(meta: ObjectMeta) -> dict[str, str]:
    """Return the metadata that a VolumeBackup saved; none if it is too long for a VolumeRestore."""
    saved = meta.annotations.get(VOLUME_METADATA_ANNOTATION, "")
    return parse_metadata(saved) if len(saved) <= _MAX_ANNOTATION_CHARACTERS else {}


def changes(body: Mapping[str, Any]) -> dict[str, str | None]:
    """Return a merge patch of the annotations for a request to update an object."""
    patch: dict[str, str | None] = {}
    if "name" in body:
        patch[DISPLAY_NAME_ANNOTATION] = body["name"] or ""
    if "description" in body:
        patch[DESCRIPTION_ANNOTATION] = body["description"] or None
    if "metadata" in body:
        patch[METADATA_ANNOTATION] = json.dumps(body["metadata"], sort_keys=True) if body["metadata"] else None
    return patch


def normalize(body: Mapping[str, Any]) -> dict[str, Any]:
    """Replace v1's ``display_name`` and ``display_description`` in a request, and strip blanks.

    Raises InvalidInput if one of them is too long (cinder/api/openstack/wsgi.py ``clean_name_and_description``).
    """
    found = dict(body)
    for field in ("name", "description"):
        value = found.pop(f"display_{field}", None)
        value = found.get(field, value)
        if isinstance(value, str):
            found[field] = value.strip()
            if len(found[field]) > MAX_CHARACTERS:
                raise InvalidInput(
                    f"Invalid input received: {field} has {len(found[field])} characters, more than {MAX_CHARACTERS}."
                )
    return found


async def create(kube: KubeClient, kind: Kind, namespace: str, name: str | None, body: JsonObject) -> JsonObject:
    """Create an object called ``name`` if Kubernetes accepts that name and it is free, or a similar name."""
    annotations = body["metadata"]["annotations"] | {CREATED_BY_ANNOTATION: await user_name(kube)}
    meta = {"namespace": namespace, "annotations": annotations}
    if name and _LABEL.fullmatch(name):
        try:
            return await kube.create(kind, body | {"metadata": meta | {"name": name}})
        except AlreadyExists:
            pass
    return await kube.create(kind, body | {"metadata": meta | {"generateName": f"{slug(name, kind.kind.lower())}-"}})
