"""`BackupGrant`: backups of one namespace that other namespaces of the cluster may restore."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions
from cinderblock.api.meta import Model, Object, Uid
from cinderblock.api.v1alpha1.schedule import LabelSelector
from cinderblock.api.v1alpha1.store import Name

MAX_GRANTED = 64
"""Names of backups, and names of namespaces, in one grant."""

_SET = {"x-kubernetes-list-type": "set"}


class GrantedBackups(Model):
    """VolumeBackups of the namespace of the grant. One that any of the fields selects is granted."""

    names: Annotated[list[Name], Field(max_length=MAX_GRANTED, json_schema_extra=_SET)] = []
    """Names of VolumeBackups. Defaults to none."""
    selector: LabelSelector | None = None
    """Labels of VolumeBackups. An empty selector is refused: set all instead. Defaults to none."""
    all: bool = False
    """Whether all VolumeBackups of the namespace are granted, later ones included. Defaults to false."""


class GrantTarget(Model):
    """Namespaces that may restore the backups."""

    namespaces: Annotated[list[Name], Field(max_length=MAX_GRANTED, json_schema_extra=_SET)] = []
    """Names of namespaces. A namespace that is created again with the same name is another one, and gets nothing until
    the grant is changed or created again. Defaults to none."""


class BackupGrantSpec(Model):
    """Granted backups, and who may restore them. Without a selected backup or a namespace, it grants nothing."""

    backups: GrantedBackups = GrantedBackups()
    """VolumeBackups that may be restored. Defaults to none."""
    to: GrantTarget = GrantTarget()
    """Namespaces whose VolumeRestores may name them, with spec.backupNamespace. Defaults to none."""


class GrantedNamespace(Model):
    """A namespace to which the grant applies."""

    name: Name
    """Name of the namespace."""
    uid: Uid
    """Value of metadata.uid of the namespace when the grant was accepted."""


class BackupGrantStatus(Model):
    """Observed state of the grant."""

    id: Uid | None = None
    """Value of metadata.uid, which shows that this status belongs to this object."""
    namespaces: Annotated[list[GrantedNamespace], Field(max_length=MAX_GRANTED)] = []
    """Namespaces to which the grant applies. Only these may restore."""
    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """Value of metadata.generation that this status was computed for, or -1 before the first status."""
    conditions: Conditions = []
    """Conditions of the grant. Ready is True if it grants something, and False if nothing is granted, or if a namespace
    was created again."""


class BackupGrant(Object):
    """A permission to restore VolumeBackups of its namespace into other namespaces."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["BackupGrant"] = "BackupGrant"
    spec: BackupGrantSpec
    status: BackupGrantStatus = BackupGrantStatus()

    @property
    def has_current_status(self) -> bool:
        """Whether the status was written for this object and its present spec."""
        return self.status.id == self.uid and self.status.observed_generation == self.metadata.generation
