"""The restores that wait for a BackupGrant in another namespace, as events report them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cinderblock.api.conditions import is_waiting
from cinderblock.controller.request import ObjectKey
from cinderblock.kube import kinds
from cinderblock.reasons import Reason

WAITERS_OF_NAMESPACE: Final = 16
"""Restores of one namespace that an event about another namespace adds to the queue. Further ones read the grants once
a minute, so a tenant with thousands of them makes the events of others no slower."""


class GrantWaiters:
    """Keys of VolumeRestores by the namespace whose grant they wait for; about 200 bytes for each."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, set[ObjectKey]]] = {}
        """By the namespace of the backup, and by that of the restore."""
        self._source_of: dict[ObjectKey, str] = {}

    def observe(self, change: str | None, key: ObjectKey, body: Mapping[str, Any]) -> None:
        """Take note of an event about a VolumeRestore; other objects do not matter."""
        if key.kind != kinds.VOLUME_RESTORE.kind:
            return
        self._forget(key)
        source, status = (body.get("spec") or {}).get("backupNamespace"), body.get("status") or {}
        if change == "DELETED" or not isinstance(source, str) or not is_waiting(status, Reason.NOT_GRANTED):
            return
        of_namespace = self._waiting.setdefault(source, {}).setdefault(key.namespace, set())
        if len(of_namespace) < WAITERS_OF_NAMESPACE:
            of_namespace.add(key)
            self._source_of[key] = source

    def _forget(self, key: ObjectKey) -> None:
        source = self._source_of.pop(key, None)
        if source is None:
            return
        namespaces = self._waiting[source]
        namespaces[key.namespace].discard(key)
        if not namespaces[key.namespace]:
            del namespaces[key.namespace]
        if not namespaces:
            del self._waiting[source]

    def waiting_for(self, namespace: str) -> list[ObjectKey]:
        """Return the restores that a grant or a backup of this namespace may let begin."""
        return sorted(key for keys in self._waiting.get(namespace, {}).values() for key in keys)
