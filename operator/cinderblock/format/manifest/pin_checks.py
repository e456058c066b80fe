"""Whether a manifest is the one that its reader expects.

The expectation comes from a status, from the key of the object, or from a person. A manifest always agrees with what it
says of itself, whoever has put it there.
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
    """Make sure that a header belongs to the expected backup, as far as a header shows that.

    Args:
        header: the header that was read.
        expected: which backup it must be.
        label: what the object is called in messages, normally its key in the store.

    Raises ForeignManifest, SealBroken, ManifestReplaced.
    """
    wanted = (expected.volume_id, expected.backup_id)
    if header.owner != wanted:
        raise ForeignManifest(
            f"{label} is the manifest of backup {header.backup_id} of volume {header.volume_id}, but should be that of"
            f" backup {expected.backup_id} of volume {expected.volume_id}. Find out who writes to the container."
        )
    pins = expected.pins
    if not header.is_sealed and (expected.sealed or (pins is not None and pins.suite != Suite.NONE)):
        raise SealBroken(
            f"{label} is not encrypted, and the backup must be: do not trust it. Find out who writes to the container."
        )
    if pins is not None and (header.salt.hex(), header.suite) != (pins.salt, pins.suite):
        raise _replaced(label, "salt", header.salt.hex(), pins.salt)


def check_content(found: Pins, expected: ExpectedBackup, label: str) -> None:
    """Make sure that a manifest has the content digest that was recorded. Raises ManifestReplaced."""
    wanted = {expected.pins.content_digest if expected.pins else None, expected.content_digest} - {None}
    for digest in sorted(filter(None, wanted)):
        if found.content_digest != digest:
            raise _replaced(label, "content digest", found.content_digest, digest)


def _replaced(label: str, what: str, found: str, wanted: str) -> ManifestReplaced:
    return ManifestReplaced(
        f"{label} is not the manifest that was recorded: its {what} is {found}, and should be {wanted}. Somebody has"
        " put another one in its place, perhaps an older one of the same backup."
    )
