"""Read a container as it was at an earlier time. Nothing is written."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from cinderblock.errors import ObjectNotFound, StoreReadOnly
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectLock, check_key
from cinderblock.store.retention import NoRetention, Retention
from cinderblock.store.versions.history import History, states_at

KNOWN_VERSIONS: Final = 65_536
"""Keys whose version is remembered: the packs of 1.5 TiB, at some 300 bytes each."""


class AsOfStore:
    """A store that shows the objects of a container as readers saw them at an instant.

    Args:
        history: the versions of the container.
        prefix: of the store, for `check`.
        instant: the instant, with time zone.
    """

    def __init__(self, history: History, prefix: str, instant: datetime) -> None:
        self._history = history
        self._prefix = f"{prefix}/" if prefix else ""
        self._instant = instant
        self._known: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def check(self) -> None:
        """See ObjectStore. Versions must be listed, and nothing is created."""
        next(self._history.versions(self._prefix), None)

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """Raise StoreReadOnly."""
        del body, lock
        raise _refusal(f"store {key}")

    def create(self, key: str, body: Buffer) -> bool:
        """Raise StoreReadOnly."""
        del body
        raise _refusal(f"store {key}")

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """Raise StoreReadOnly."""
        del lock
        raise _refusal(f"lock {key}")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        return self._history.get(key, self._version_of(check_key(key)), start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        for state in states_at(self._history.versions(prefix), self._instant):
            found = state.wanted
            self._remember(found.key, found.version_id)
            yield ObjectInfo(found.key, found.size, found.modified)

    def delete(self, keys: Iterable[str]) -> None:
        """Raise StoreReadOnly."""
        del keys
        raise _refusal("delete objects")

    @property
    def retention(self) -> Retention:
        """See ObjectStore. Later events do not matter to readers."""
        return NoRetention()

    def close(self) -> None:
        """See ObjectStore."""
        self._history.close()

    def _version_of(self, key: str) -> str:
        """Return the id of the version of a key. Raises ObjectNotFound."""
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return known
        of_key = (version for version in self._history.versions(key) if version.key == key)
        state = next(states_at(of_key, self._instant), None)
        if state is None:
            raise ObjectNotFound(f"Cannot read {key}: the object did not exist at {self._instant:%Y-%m-%dT%H:%M:%SZ}.")
        self._remember(key, state.wanted.version_id)
        return state.wanted.version_id

    def _remember(self, key: str, version_id: str) -> None:
        with self._lock:
            self._known[key] = version_id
            if len(self._known) > KNOWN_VERSIONS:
                self._known.popitem(last=False)


def _refusal(what: str) -> StoreReadOnly:
    return StoreReadOnly(f"Cannot {what}: the store was opened as it was at an earlier time. Nothing was changed.")
