"""The part of a status that describes a running mover."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cinderblock.api.meta import Model, Uid
from cinderblock.api.v1alpha1.store import Name


class Progress(Model):
    """Progress of a running mover."""

    bytes_done: Annotated[int, Field(ge=0)] = 0
    """Data of the volume that the mover has processed, in bytes."""
    bytes_total: Annotated[int, Field(ge=0)] = 0
    """Data of the volume that the mover has to process, in bytes."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share of bytesTotal that is in bytesDone, in percent and rounded down."""


class MoverReference(Model):
    """Identity of the mover of an operation. Only the operator writes it, so it decides which Job counts as a mover."""

    uid: Uid
    """UID of the mover Job."""
    store_name: Name | None = None
    """Name of the BackupStore that the mover uses. It is unset for restores that release 0.1.0 began."""
