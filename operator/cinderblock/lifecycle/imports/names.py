"""Names and ids of the VolumeBackups that import the backups of a store.

They follow from the manifests alone, so the operator and the command line give the same ones, and give them again.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Final

from cinderblock.errors import InvalidInput

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
"""Name of an object (Kubernetes: Object Names and IDs, DNS subdomain names)."""
_NAME_CHARACTERS: Final = 253
_ILLEGAL: Final = re.compile(r"[^a-z0-9]+")
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
"""An id that spec.import takes. The command line accepts others, too."""
_ID_CHARACTERS: Final = 8
"""Characters of the id of a backup that make a name unique, as in git and restic."""
_DIGEST_CHARACTERS: Final = 16


class ImportNames:
    """Gives each backup a name that no earlier one has. It remembers 8 bytes of each name.

    Args:
        taken: names of existing objects, each with its namespace.
    """

    def __init__(self, taken: Iterable[tuple[str, str]] = ()) -> None:
        self._taken = {_mark(namespace, name) for namespace, name in taken}

    def name(self, namespace: str, key: str, backup_id: str, backup_name: str) -> str:
        """Return the name of the VolumeBackup: its earlier name if that is legal and free, otherwise with its id.

        Args:
            namespace: of the VolumeBackup.
            key: of the manifest.
            backup_id: the id in the key.
            backup_name: the name that the manifest records.

        Raises InvalidInput if all possible names are taken.
        """
        for name in candidates(key, backup_id, backup_name):
            mark = _mark(namespace, name)
            if mark not in self._taken:
                self._taken.add(mark)
                return name
        raise InvalidInput(f"Cannot name backup {backup_id}: all its names are taken.")


def candidates(key: str, backup_id: str, backup_name: str) -> Iterator[str]:
    """Yield the possible names of a VolumeBackup, the best first. Only this manifest can have the last one."""
    is_legal = len(backup_name) <= _NAME_CHARACTERS and NAME.fullmatch(backup_name) is not None
    if is_legal:
        yield backup_name
    plain = backup_name if NAME.fullmatch(backup_name) else _legal(backup_name) or "backup"
    digest = hashlib.sha256(key.encode()).hexdigest()
    for suffix in (_legal(backup_id[:_ID_CHARACTERS]), digest[:_DIGEST_CHARACTERS]):
        if suffix:
            yield f"{plain[: _NAME_CHARACTERS - len(suffix) - 1].rstrip('.-')}-{suffix}"


def import_id(key: str, backup_id: str) -> str:
    """Return the id of the VolumeBackup. One that spec.import refuses is replaced by one made from the key."""
    return backup_id if _ID.fullmatch(backup_id) else str(uuid.uuid5(uuid.NAMESPACE_URL, key))


def _mark(namespace: str, name: str) -> bytes:
    return hashlib.blake2b(f"{namespace}/{name}".encode(), digest_size=8).digest()


def _legal(text: str) -> str:
    """Return the part of a text that a name may contain."""
    return _ILLEGAL.sub("-", text.lower()).strip("-")
