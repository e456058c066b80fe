"""The unbound claims whose dataSourceRef names one of our kinds: a change of a RestoreSource may let them continue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from cinderblock.controller.request import ObjectKey


class AskingClaims:
    """The waiting claims of each namespace. Only claims that ask for a backup are kept, and no others."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[ObjectKey]] = defaultdict(set)

    def observe(self, change: str | None, key: ObjectKey, body: Mapping[str, Any]) -> bool:
        """Take note of an event about a claim. Return whether the claim waits for its content."""
        is_waiting = change != "DELETED" and not (body.get("spec") or {}).get("volumeName")
        if is_waiting:
            self._waiting[key.namespace].add(key)
        elif key.namespace in self._waiting:
            self._waiting[key.namespace].discard(key)
            if not self._waiting[key.namespace]:
                del self._waiting[key.namespace]
        return is_waiting

    def waiting_in(self, namespace: str) -> Collection[ObjectKey]:
        """Return the waiting claims of a namespace."""
        return sorted(self._waiting.get(namespace, ()))
