"""Count the calls and bytes of a store."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.retention import Retention


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls and bytes of a store.

    Attributes:
        checks, puts, locks, gets, lists, deletes: calls that have begun. A listing is one call, whatever its pages.
        bytes_put: bytes of bodies that were stored.
        bytes_got: bytes that were read.
        keys_listed: objects that listings returned.
        keys_deleted: keys that were deleted.
    """

    checks: int = 0
    puts: int = 0
    locks: int = 0
    gets: int = 0
    lists: int = 0
    deletes: int = 0
    bytes_put: int = 0
    bytes_got: int = 0
    keys_listed: int = 0
    keys_deleted: int = 0

    @property
    def requests(self) -> int:
        """The number of all calls."""
        return self.checks + self.puts + self.locks + self.gets + self.lists + self.deletes


class CountedStore:
    """A store around a store that counts calls and bytes."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._counts = Counts()

    @property
    def counts(self) -> Counts:
        """Calls and bytes so far."""
        with self._lock:
            return self._counts

    def check(self) -> None:
        """See ObjectStore."""
        self._add(checks=1)
        self._inner.check()

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """See ObjectStore."""
        self._add(puts=1)
        self._inner.put(key, body, lock)
        self._add(bytes_put=memoryview(body).nbytes)

    def create(self, key: str, body: Buffer) -> bool:
        """See ObjectStore. It counts as a put."""
        self._add(puts=1)
        is_stored = self._inner.create(key, body)
        self._add(bytes_put=memoryview(body).nbytes)
        return is_stored

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """See ObjectStore."""
        self._add(locks=1)
        self._inner.set_lock(key, lock)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        self._add(gets=1)
        content = self._inner.get(key, start, length)
        self._add(bytes_got=len(content))
        return content

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        self._add(lists=1)
        count = 0
        try:
            for item in self._inner.list(prefix):
                count += 1
                yield item
        finally:
            self._add(keys_listed=count)

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        self._add(deletes=1)
        given = list(keys)
        self._inner.delete(given)
        self._add(keys_deleted=len(given))

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return self._inner.retention

    def close(self) -> None:
        """See ObjectStore."""
        self._inner.close()

    def _add(self, **more: int) -> None:
        with self._lock:
            self._counts = replace(
                self._counts, **{name: getattr(self._counts, name) + count for name, count in more.items()}
            )
