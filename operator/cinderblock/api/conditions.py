"""Conditions: how Kubernetes tools see a phase. They follow kstatus, which Flux and Argo CD understand."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from cinderblock.api.meta import Model

ConditionStatus = Literal["True", "False", "Unknown"]


class ConditionType(StrEnum):
    """The conditions of our kinds; ``Reconciling`` and ``Stalled`` are there only while they are true (kstatus)."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    COMPLETE = "Complete"
    """False: a backup lacks files that could not be read (spec.unreadable: Skip)."""
    PIN_REGAINED = "PinRegained"
    """True: the status of a backup was lost, and the operator read from the store again what identifies its content."""
    PINNED = "Pinned"
    """False: an earlier release made the backup, and the operator could not yet record what identifies its content."""
    UNSEALED_BACKUPS = "UnsealedBackups"
    """True: a store with an encryption Secret holds backups from before it had one."""


class Condition(Model):
    """One condition (metav1.Condition)."""

    type: Annotated[str, Field(max_length=316)]
    """Name of the condition."""
    status: ConditionStatus
    """Whether the condition holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Stable CamelCase word for why."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """The same for a person."""
    last_transition_time: datetime
    """When the status last changed."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The metadata.generation that the condition speaks of."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
"""Conditions of an object, one of each type."""
