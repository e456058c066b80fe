"""The owner marker of a store: one small object that names the cluster which writes backups below a prefix.

It warns people who let two clusters write to one place by mistake. Nothing that protects data depends on it: anyone who
can write to the bucket can write the marker.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from cinderblock.api.meta import Model, Uid

MAX_MARKER_BYTES: Final = 4096
"""Bytes of a marker that are read. A real one has about 200."""

RELEASE_PATTERN: Final = re.compile(r"[A-Za-z0-9.-]{0,253}")
"""Names of releases that a marker may contain. Those of Helm are shorter."""

Epoch = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
"""Text that changes each time when a store gets another owner."""


def _in_utc(time: datetime) -> datetime:
    """Return a time as UTC, since messages show it so. Raises ValueError for one that no calendar has there."""
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error


class OwnerMarker(Model):
    """The content of the object ``meta/owner.json``."""

    format: Literal[1] = 1
    """Version of the format."""
    cluster: Annotated[Uid, Field(pattern=r"^[A-Za-z0-9-]+$")]
    """UID of the namespace kube-system, which identifies the cluster."""
    release: Annotated[str, Field(pattern=f"^{RELEASE_PATTERN.pattern}$")] = ""
    """Name of the Helm release of the operator; empty if Helm has not installed it."""
    epoch: Epoch
    """Text that changes with the owner."""
    since: Annotated[AwareDatetime, AfterValidator(_in_utc)]
    """Time since when the cluster owns the store."""
