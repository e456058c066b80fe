"""VolumeBackups that import the backups of a store, as YAML for ``kubectl apply`` or a Git repository.

The names follow from the manifests alone, so the same store gives the same objects again.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from typing import Final

from cinderblock.api.labels import GROUP
from cinderblock.cli.output import printable
from cinderblock.errors import InvalidInput
from cinderblock.format.manifest.reader import ManifestSummary
from cinderblock.repository.objects import BackupRef

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
"""Name of an object (Kubernetes: Object Names and IDs, DNS subdomain names)."""
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Name of a namespace (Kubernetes: Object Names and IDs, DNS label names)."""
_NAME_CHARACTERS: Final = 253
_ILLEGAL: Final = re.compile(r"[^a-z0-9]+")
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
"""An id that spec.import takes. The command line accepts others, too."""
_ID_CHARACTERS: Final = 8
"""Characters of the id of a backup that make a name unique, as in git and restic."""
_DIGEST_CHARACTERS: Final = 16
_SHOWN_CHARACTERS: Final = 253
"""Characters of a volume's name in a comment, as many as a claim's name may have."""


class ImportNames:
    """Gives each backup a name that no earlier one has. It remembers 8 bytes of each name."""

    def __init__(self) -> None:
        self._taken: set[bytes] = set()

    def name(self, namespace: str, backup: BackupRef, backup_name: str) -> str:
        """Return the name of the VolumeBackup: its earlier name if that is legal and free, otherwise with its id."""
        is_legal = len(backup_name) <= _NAME_CHARACTERS and _NAME.fullmatch(backup_name) is not None
        plain = [backup_name] if is_legal else []
        for name in [*plain, *_with_id(backup, backup_name)]:
            if self._take(namespace, name):
                return name
        raise InvalidInput(f"Cannot name backup {backup.backup_id}: all its names are taken.")

    def _take(self, namespace: str, name: str) -> bool:
        mark = hashlib.blake2b(f"{namespace}/{name}".encode(), digest_size=8).digest()
        is_free = mark not in self._taken
        self._taken.add(mark)
        return is_free


def _with_id(backup: BackupRef, backup_name: str) -> Iterator[str]:
    """Yield names that contain the beginning of the id, and then one that only this manifest can have."""
    plain = backup_name if _NAME.fullmatch(backup_name) else _legal(backup_name) or "backup"
    digest = hashlib.sha256(backup.key.encode()).hexdigest()
    for suffix in (_legal(backup.backup_id[:_ID_CHARACTERS]), digest[:_DIGEST_CHARACTERS]):
        if suffix:
            yield f"{plain[: _NAME_CHARACTERS - len(suffix) - 1].rstrip('.-')}-{suffix}"


def _legal(text: str) -> str:
    """Return the part of a text that a name may contain."""
    return _ILLEGAL.sub("-", text.lower()).strip("-")


def namespace_of(summary: ManifestSummary, default: str | None) -> str:
    """Return the namespace of the VolumeBackup: that of the backup, or ``default`` for one without a namespace.

    Returns an empty text if there is neither. Raises InvalidInput for a text that names no namespace.
    """
    found = summary.description.namespace or default or ""
    if found and not _NAMESPACE.fullmatch(found):
        raise InvalidInput(
            f"Cannot write a VolumeBackup for backup {summary.header.backup_id}: no namespace can have the name in its"
            " manifest."
        )
    return found


def document(backup: BackupRef, summary: ManifestSummary, namespace: str, name: str, store_name: str | None) -> str:
    """Return a VolumeBackup that imports a backup, as a YAML document with its separator.

    Every text is quoted: an unencrypted manifest may come from anybody who can write to the bucket. Its data stays in
    the store when the VolumeBackup is deleted.

    Args:
        backup: the backup.
        summary: its manifest.
        namespace: of the VolumeBackup; empty: kubectl chooses it.
        name: of the VolumeBackup.
        store_name: name of the BackupStore; None: the default one of the namespace.
    """
    description = summary.description
    volume = printable(json.dumps(description.volume_name[:_SHOWN_CHARACTERS]))
    lines = [
        "---",
        f"# volume {volume}, data of {description.data_timestamp.isoformat()}",
        f"apiVersion: {GROUP}/v1alpha1",
        "kind: VolumeBackup",
        "metadata:",
        f"  name: {json.dumps(name)}",
        *([f"  namespace: {json.dumps(namespace)}"] if namespace else []),
        "spec:",
        *([f"  storeName: {json.dumps(store_name)}"] if store_name is not None else []),
        "  import:",
        f"    id: {json.dumps(import_id(backup))}",
        f"    manifest: {json.dumps(backup.key)}",
        "  deletionPolicy: Retain",
    ]
    return "\n".join(lines) + "\n"


def import_id(backup: BackupRef) -> str:
    """Return the id of the VolumeBackup. One that spec.import refuses is replaced by one made from the key."""
    return backup.backup_id if _ID.fullmatch(backup.backup_id) else str(uuid.uuid5(uuid.NAMESPACE_URL, backup.key))
