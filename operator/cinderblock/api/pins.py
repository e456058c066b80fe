"""Pins and expectations, against which a reader checks a stored backup."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from cinderblock.api.meta import Model

Digest = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
"""A BLAKE3 digest in hexadecimal."""


class Pins(Model):
    """Identity of the stored content of a backup (docs/reference/format.md). Rewrapping its key does not change it."""

    content_digest: Digest
    """BLAKE3 digest over the digests of all sections of the manifest, in hexadecimal."""
    salt: Annotated[str, Field(max_length=32, pattern=r"^[0-9a-f]{32}$")]
    """Random salt of the manifest, in hexadecimal."""
    suite: Annotated[int, Field(ge=0, le=255)]
    """Encryption of the manifest: 0 for none, 1 for AES-256-GCM."""


class ExpectedBackup(Model):
    """Expected identity of a manifest. It comes from a status or a user, never from the manifest itself."""

    volume_id: str
    """UID of the PersistentVolumeClaim."""
    backup_id: str
    """Id of the backup."""
    sealed: bool = False
    """Whether the manifest must be encrypted."""
    pins: Pins | None = None
    """Expected pins of the manifest. None if they were not recorded."""
    content_digest: Digest | None = None
    """Content digest that the user gave. None if the user gave no digest."""
    created_at: datetime | None = None
    """Time when the backup was requested, for the rule that a read-only key seals no newer backup. None if only the
    manifest contains the time."""
