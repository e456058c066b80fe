"""VolumeBackups that import the backups of a store, as YAML for ``kubectl apply`` or a Git repository."""

from __future__ import annotations

import json
import re
from typing import Final

from cinderblock.api.labels import GROUP
from cinderblock.cli.output import printable
from cinderblock.errors import InvalidInput
from cinderblock.format.manifest.reader import ManifestSummary
from cinderblock.lifecycle.imports.names import import_id
from cinderblock.repository.objects import BackupRef

_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Name of a namespace (Kubernetes: Object Names and IDs, DNS label names)."""
_SHOWN_CHARACTERS: Final = 253
"""Characters of a volume's name in a comment, as many as a claim's name may have."""


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
        f"    id: {json.dumps(import_id(backup.key, backup.backup_id))}",
        f"    manifest: {json.dumps(backup.key)}",
        "  deletionPolicy: Retain",
    ]
    return "\n".join(lines) + "\n"
