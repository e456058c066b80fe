"""Shared parts of all models, which are camelCase on the wire, immutable, and tolerant of unknown fields."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Uid = Annotated[str, Field(min_length=1, max_length=64)]
"""A UID of the API server, which is a UUID of 36 characters, or the id of an imported backup."""

LabelKey = Annotated[
    str,
    Field(max_length=317, pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"),
]
"""Key of a label or annotation: an optional prefix and slash, and a name (apimachinery ``IsQualifiedName``)."""
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$")]
"""Value of a label (apimachinery ``validation.IsValidLabelValue``)."""

_RESERVED = {
    "rule": "self.all(key, !key.startsWith('cinderblock.io/') && key != 'app.kubernetes.io/managed-by')",
    "message": "labels of cinderblock.io and app.kubernetes.io/managed-by are our own: they say what may be removed",
}
Labels = Annotated[
    dict[LabelKey, LabelValue], Field(max_length=32, json_schema_extra={"x-kubernetes-validations": [_RESERVED]})
]
"""Labels that a user requests, except the labels by which the operator finds its own objects."""
Annotations = Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=32)]
"""Annotations that a user requests."""

_SYSTEM_PREFIXES = ("volume.kubernetes.io/", "volume.beta.kubernetes.io/", "pv.kubernetes.io/")
_NOT_OURS = {
    "rule": " && ".join(
        f"self.all(key, !key.startsWith('{prefix}'))" for prefix in ("cinderblock.io/", *_SYSTEM_PREFIXES)
    ),
    "message": "annotations of cinderblock.io and those by which Kubernetes binds volumes cannot be set",
}
MoverAnnotations = Annotated[
    dict[LabelKey, Annotated[str, Field(max_length=4096)]],
    Field(max_length=32, json_schema_extra={"x-kubernetes-validations": [_NOT_OURS]}),
]
"""Annotations that a store adds to temporary objects, except those by which the operator and Kubernetes work."""

CORE_TYPE = "x-core-type"
"""Keyword in ``json_schema_extra`` of a field: the type of ``core/v1`` or ``meta/v1`` that the field holds.

The CustomResourceDefinitions contain the schema of that type. The models do not validate such a field.
"""
REMEDY = "x-remedy"
"""The same for what to write instead of a text that the pattern of a field rejects. Without it, the API server quotes
only the pattern."""


class Model(BaseModel):
    """Base of every model. Reading ignores unknown fields, so that older programs can read newer objects."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the object as JSON-ready data in lowerCamelCase, without fields that are ``None``."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(Model):
    """Reference to the owner of a child (metav1.OwnerReference)."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ObjectMeta(Model):
    """The part of metav1.ObjectMeta that decisions need."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    @property
    def is_being_deleted(self) -> bool:
        """Return whether the object has a deletionTimestamp."""
        return self.deletion_timestamp is not None

    def is_owned_by(self, uid: str) -> bool:
        """Return whether the object with this UID is an owner."""
        return any(owner.uid == uid for owner in self.owner_references)


class Object(Model):
    """Any object of the API server."""

    metadata: ObjectMeta = ObjectMeta()

    @property
    def name(self) -> str:
        """metadata.name"""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace"""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """metadata.uid"""
        return self.metadata.uid
