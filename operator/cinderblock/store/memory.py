"""A store in memory, for tests and experiments."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from cinderblock.errors import ObjectNotFound, PermanentError
from cinderblock.format.range_reader import Buffer
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectInfo, ObjectLock, check_body, check_key, slice_body
from cinderblock.store.retention import NoRetention, Retention


class MemoryStore:
    """A container that exists as long as this object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, bytes] = {}

    def check(self) -> None:
        """Do nothing: the container always exists."""

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """See ObjectStore."""
        if lock is not None:
            raise _no_lock(key)
        content = bytes(check_body(check_key(key), body))
        with self._lock:
            self._objects[key] = content

    def create(self, key: str, body: Buffer) -> bool:
        """See ObjectStore."""
        content = bytes(check_body(check_key(key), body))
        with self._lock:
            return self._objects.setdefault(key, content) is content

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """Raise PermanentError: nothing in memory is ever locked."""
        raise _no_lock(f"{key} until {lock.until:%Y-%m-%d}")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        with self._lock:
            content = self._objects.get(check_key(key))
        if content is None:
            raise ObjectNotFound(f"Cannot read {key} in memory: the object does not exist.")
        return slice_body(content, start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore. The listing shows the moment of the call."""
        with self._lock:
            sizes = {key: len(content) for key, content in self._objects.items() if key.startswith(prefix)}
        return (ObjectInfo(key, sizes[key]) for key in sorted(sizes))

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        for key in keys:
            with self._lock:
                self._objects.pop(check_key(key), None)

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return NoRetention()

    def close(self) -> None:
        """Do nothing: the objects stay."""


def _no_lock(what: str) -> PermanentError:
    return PermanentError(f"Cannot lock {what}: a store in memory has no Object Lock.", reason=Reason.NOT_SUPPORTED)
