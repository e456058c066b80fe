"""Conditions, which show a phase to Kubernetes tools. They follow kstatus, as Flux and Argo CD expect."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from cinderblock.api.meta import Model

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """Condition types of our kinds. ``Reconciling`` and ``Stalled`` exist only while they are true (kstatus)."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    COMPLETE = "Complete"
    """False if a backup lacks files that could not be read (spec.unreadable: Skip)."""
    PIN_REGAINED = "PinRegained"
    """True if the operator read the pins of a backup from the store again, because its status was lost."""
    PINNED = "Pinned"
    """False if an earlier release made the backup, and the operator could not record its pins yet."""
    SUSPICIOUS = "Suspicious"
    """True if the numbers of a backup differ from those of earlier backups in a way that a person should check."""
    VERIFIED = "Verified"
    """Whether verifications have read all stored data of a backup; False if some of it is damaged or missing."""
    LAST_RUN_SUCCEEDED = "LastRunSucceeded"
    """Whether the last run of a schedule made a backup of every volume."""
    SELECTING = "Selecting"
    """False if a schedule selects no volume."""
    RETENTION_APPLIED = "RetentionApplied"
    """Whether the retention of a schedule could mark and remove backups."""
    VERIFICATIONS_CREATED = "VerificationsCreated"
    """Whether a schedule could create its verifications and remove old ones."""
    STORES_CREATED = "StoresCreated"
    """Whether each namespace that may use a ClusterBackupStore has its BackupStore."""
    UNSEALED_BACKUPS = "UnsealedBackups"
    """True if a store with an encryption Secret holds backups that are not encrypted."""
    VERSIONED = "Versioned"
    """True if the container of a store keeps versions of deleted objects."""
    OBJECT_LOCK = "ObjectLock"
    """True if the container of a store has Object Lock."""
    HARMFUL_LIFECYCLE = "HarmfulLifecycle"
    """True if lifecycle rules of the container remove or archive objects of backups."""
    IMPORTED = "Imported"
    """Whether each backup that a store holds, and that spec.import selects, has a VolumeBackup."""
    COPIED = "Copied"
    """Whether each available backup of a store has a copy in all stores of spec.copies."""
    MANIFEST_MISSING = "ManifestMissing"
    """True if the store lacks the manifest of an imported backup."""
    FOREIGN_OWNER = "ForeignOwner"
    """True if another cluster owns a store that this one writes to; Unknown if the marker cannot be read."""
    NAMESPACES_ABSENT = "NamespacesAbsent"
    """True if a BackupGrant names namespaces that do not exist: anyone who creates one may restore."""


class Condition(Model):
    """Observed state of one aspect of the object (metav1.Condition)."""

    type: Annotated[str, Field(max_length=316)]
    """Type of the condition, in CamelCase."""
    status: ConditionStatus
    """Status of the condition: True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Reason for the status, as a stable CamelCase word that scripts may match."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Explanation of the status for people. Defaults to an empty text."""
    last_transition_time: datetime
    """Time when the status of the condition last changed."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Value of metadata.generation that the condition was set for."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
"""Conditions of an object, at most one of each type."""


def is_waiting(status: Mapping[str, Any], reason: str) -> bool:
    """Return whether the status of an object, as an event has it, shows that the object waits for this reason."""
    shown = status.get("conditions") or ()
    return any(c.get("type") == ConditionType.RECONCILING and c.get("reason") == reason for c in shown)
