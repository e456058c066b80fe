"""The owner marker of a store: one small object that names the cluster which writes backups below a prefix.

It warns people who let two clusters write to one place by mistake. Nothing that protects data depends on it: anyone who
can write to the bucket can write the marker.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field

from cinderblock.api.meta import Model, Uid

MAX_MARKER_BYTES: Final = 4096
"""Bytes of a marker that are read. A real one has about 200."""

Epoch = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
"""Text that changes each time when a store gets another owner."""


class OwnerMarker(Model):
    """The content of the object ``meta/owner.json``."""

    format: Literal[1] = 1
    """Version of the format."""
    cluster: Annotated[Uid, Field(pattern=r"^[A-Za-z0-9-]+$")]
    """UID of the namespace kube-system, which identifies the cluster."""
    release: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9.-]*$")] = ""
    """Name of the Helm release of the operator; empty if Helm has not installed it."""
    epoch: Epoch
    """Text that changes with the owner."""
    since: AwareDatetime
    """Time since when the cluster owns the store."""
