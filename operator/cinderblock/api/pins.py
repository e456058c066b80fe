"""What a reader of a stored backup knows beforehand: which backup it must be, and which content."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from cinderblock.api.meta import Model

Digest = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
"""A BLAKE3 digest in hexadecimal."""


class Pins(Model):
    """Identity of the stored content of a backup (docs/reference/format.md). Re-wrapping its key changes none of it."""

    content_digest: Digest
    """BLAKE3 over the digests of all sections of the manifest, in hexadecimal."""
    salt: Annotated[str, Field(max_length=32, pattern=r"^[0-9a-f]{32}$")]
    """The salt that was drawn for the manifest, in hexadecimal."""
    suite: Annotated[int, Field(ge=0, le=255)]
    """How the manifest is sealed. 0: not at all. 1: AES-256-GCM."""


class ExpectedBackup(Model):
    """Which backup a manifest must be. This comes from a status or from a person, never from the manifest itself."""

    volume_id: str
    """UID of the PersistentVolumeClaim."""
    backup_id: str
    """Id of the backup."""
    sealed: bool = False
    """Whether the manifest must be sealed."""
    pins: Pins | None = None
    """What identifies the content that the manifest must have; None: not recorded."""
    content_digest: Digest | None = None
    """The digest that a person has noted; None: none was given."""
    created_at: datetime | None = None
    """When the backup was asked for. A read-only key must not have sealed it later than its mark. None: only the
    manifest knows."""
