"""Checks that a manifest is the one that its reader expects.

The expectation comes from a status, from the key of the object, or from a person. It must not come from the manifest:
a forged manifest always agrees with itself.
"""

from __future__ import annotations

from cinderblock.api.pins import ExpectedBackup, Pins
from cinderblock.errors import ForeignManifest, ManifestReplaced, SealBroken
from cinderblock.format.crypto.sealer import Suite
from cinderblock.format.manifest.header import ManifestHeader


def pins_of(header: ManifestHeader, content_digest: str) -> Pins:
    """Return what identifies the stored content of a manifest."""
    return Pins(content_digest=content_digest, salt=header.salt.hex(), suite=header.suite)


def check_header(header: ManifestHeader, expected: ExpectedBackup, label: str) -> None:
    """Check that a header belongs to the expected backup, as far as a header shows that.

    Args:
        header: the header that was read.
        expected: the backup that it must belong to.
        label: name of the object in messages, normally its key in the store.

    Raises ForeignManifest, SealBroken, ManifestReplaced.
    """
    if header.owner != (expected.volume_id, expected.backup_id):
        raise ForeignManifest(
            f"{label} is the manifest of backup {header.backup_id} of volume {header.volume_id}, but should be that of"
            f" backup {expected.backup_id} of volume {expected.volume_id}. Find out who writes to the container."
        )
    pins = expected.pins
    if not header.is_sealed and (expected.sealed or (pins is not None and pins.suite != Suite.NONE)):
        raise SealBroken(
            f"{label} is not encrypted, but the backup must be. Do not trust it. Find out who writes to the container."
        )
    if pins is not None and (header.salt.hex(), header.suite) != (pins.salt, pins.suite):
        raise _replaced(label, "salt", header.salt.hex(), pins.salt)


def check_content(found: Pins, expected: ExpectedBackup, label: str) -> None:
    """Check that a manifest has the recorded content digest. Raises ManifestReplaced."""
    recorded = {expected.pins.content_digest if expected.pins else None, expected.content_digest}
    for digest in sorted(filter(None, recorded)):
        if found.content_digest != digest:
            raise _replaced(label, "content digest", found.content_digest, digest)


def _replaced(label: str, field: str, found: str, recorded: str) -> ManifestReplaced:
    return ManifestReplaced(
        f"{label} is not the recorded manifest: its {field} is {found}, but should be {recorded}. Somebody has replaced"
        " it, perhaps by an older manifest of the same backup."
    )
