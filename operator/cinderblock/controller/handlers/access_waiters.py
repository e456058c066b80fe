"""The deletions that wait until a read-only store may be changed again, as events report them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinderblock.api.conditions import is_waiting
from cinderblock.api.v1alpha1.store import OwnerState, StoreAccess
from cinderblock.controller.request import ObjectKey
from cinderblock.kube import kinds
from cinderblock.reasons import Reason


class AccessWaiters:
    """Keys of VolumeBackups by the BackupStore that they wait for; about 200 bytes for each."""

    def __init__(self) -> None:
        self._store_of: dict[ObjectKey, ObjectKey] = {}

    def observe(self, change: str | None, key: ObjectKey, status: Mapping[str, Any]) -> list[ObjectKey]:
        """Take note of an event about a custom resource. Return the VolumeBackups that need not wait any longer.

        Args:
            change: the type of the event.
            key: the object.
            status: its status.
        """
        if key.kind == kinds.VOLUME_BACKUP.kind:
            self._store_of.pop(key, None)
            reasons = Reason.STORE_READ_ONLY, Reason.FOREIGN_OWNER
            if change != "DELETED" and any(is_waiting(status, reason) for reason in reasons):
                self._store_of[key] = ObjectKey(kinds.BACKUP_STORE.kind, key.namespace, str(status.get("storeName")))
            return []
        if key.kind != kinds.BACKUP_STORE.kind or status.get("access") != StoreAccess.READ_WRITE:
            return []
        if (status.get("owner") or {}).get("state") == OwnerState.DISPUTED:
            return []
        return [backup for backup, store in self._store_of.items() if store == key]
