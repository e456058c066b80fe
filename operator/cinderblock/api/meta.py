"""What all models share: camelCase on the wire, immutable in memory, tolerant of fields they do not know."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Uid = Annotated[str, Field(min_length=1, max_length=64)]
"""A UID of the API server: a UUID in 36 characters, with room for the ids of adopted backups."""

LabelKey = Annotated[
    str,
    Field(max_length=317, pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"),
]
"""Key of a label or an annotation (apimachinery ``validation.IsQualifiedName``): optional prefix, slash, name."""
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$")]
"""Value of a label (apimachinery ``validation.IsValidLabelValue``)."""

_RESERVED = {
    "rule": "self.all(key, !key.startsWith('cinderblock.io/') && key != 'app.kubernetes.io/managed-by')",
    "message": "labels of cinderblock.io and app.kubernetes.io/managed-by are our own: they say what may be removed",
}
Labels = Annotated[
    dict[LabelKey, LabelValue], Field(max_length=32, json_schema_extra={"x-kubernetes-validations": [_RESERVED]})
]
"""Labels that a user asks for. Those that we find our own objects by are not among them."""
Annotations = Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=32)]
"""Annotations that a user asks for."""


class Model(BaseModel):
    """Base of every model. Unknown fields are ignored when reading, so that older programs read newer objects."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    def to_wire(self) -> dict[str, Any]:
        """The object as JSON-ready data in lowerCamelCase, without fields that are unset (``None``)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(Model):
    """Who owns a child (Kubernetes: metav1.OwnerReference)."""

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
        """Whether somebody has asked for the object's deletion."""
        return self.deletion_timestamp is not None

    def is_owned_by(self, uid: str) -> bool:
        """Whether the object with this UID is among the owners."""
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
