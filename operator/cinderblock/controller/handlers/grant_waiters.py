"""The restores that wait for a BackupGrant in another namespace, as events report them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinderblock.api.conditions import ConditionType
from cinderblock.controller.request import ObjectKey
from cinderblock.kube import kinds
from cinderblock.reasons import Reason


class GrantWaiters:
    """Keys of VolumeRestores by the namespace whose grant they wait for; about 200 bytes for each."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[ObjectKey]] = {}
        self._source_of: dict[ObjectKey, str] = {}

    def observe(self, change: str | None, key: ObjectKey, body: Mapping[str, Any]) -> None:
        """Take note of an event about a VolumeRestore; other objects do not matter."""
        if key.kind != kinds.VOLUME_RESTORE.kind:
            return
        previous = self._source_of.pop(key, None)
        if previous is not None:
            self._waiting[previous].discard(key)
            if not self._waiting[previous]:
                del self._waiting[previous]
        source = (body.get("spec") or {}).get("backupNamespace")
        if change != "DELETED" and isinstance(source, str) and _waits(body.get("status") or {}):
            self._source_of[key] = source
            self._waiting.setdefault(source, set()).add(key)

    def waiting_for(self, namespace: str) -> list[ObjectKey]:
        """Return the restores that a grant or a backup of this namespace may let begin."""
        return sorted(self._waiting.get(namespace, ()))


def _waits(status: Mapping[str, Any]) -> bool:
    shown = status.get("conditions") or ()
    return any(c.get("type") == ConditionType.RECONCILING and c.get("reason") == Reason.NOT_GRANTED for c in shown)
