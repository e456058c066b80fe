"""The VolumeBackups that findings still change, so that the next reconciliation need not look for them again.

Without this memory, each reconciliation would read all backups of the volume to find the next ones that it may write.
It only saves work: after a crash, or if there is no room, the backups are read again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

MAX_NAMES: Final = 100_000
"""Names that are kept, of all verifications together. Each takes about 100 bytes."""


@dataclass(slots=True)
class PendingRecords:
    """The names of VolumeBackups to change, by UID of the BackupVerification."""

    _names: OrderedDict[str, list[str]] = field(default_factory=OrderedDict)

    def keep(self, uid: str, names: list[str]) -> None:
        """Keep the names for the next reconciliations, in place of earlier ones. The oldest others make room."""
        self._names.pop(uid, None)
        if names:
            self._names[uid] = names[:MAX_NAMES]
        while sum(map(len, self._names.values())) > MAX_NAMES:
            self._names.popitem(last=False)

    def take(self, uid: str, count: int) -> list[str]:
        """Return the next names, and forget them. A last pass over all backups finds those that were not written."""
        names = self._names.get(uid, [])
        taken, names[:count] = names[:count], []
        if not names:
            self._names.pop(uid, None)
        return taken
