"""A store that stops before one of its requests, so that a test decides what happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from cinderblock.errors import CinderblockError
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.retention import Retention

SECONDS = 20.0
"""Seconds after which a side that should have stopped, or ended, counts as stuck."""

Side = Callable[[ObjectStore], object]
"""A user of the store."""


class PausedStore:
    """A store that stops before one of its requests, until `go`.

    Attributes:
        count: number of requests so far.
        has_stopped: set when it stops, and at the end of the thread that uses it.
        go: lets it continue.
    """

    def __init__(self, inner: ObjectStore, at: int | None) -> None:
        self._inner = inner
        self._at = at
        self._lock = threading.Lock()
        self.count = 0
        self.has_stopped = threading.Event()
        self.go = threading.Event()

    def _request(self) -> None:
        with self._lock:
            number, self.count = self.count, self.count + 1
        if number == self._at:
            self.has_stopped.set()
            assert self.go.wait(SECONDS)

    def check(self) -> None:
        """See ObjectStore."""
        self._inner.check()

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """See ObjectStore."""
        self._request()
        self._inner.put(key, body, lock)

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """See ObjectStore."""
        self._request()
        self._inner.set_lock(key, lock)

    def create(self, key: str, body: Buffer) -> bool:
        """See ObjectStore."""
        self._request()
        return self._inner.create(key, body)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        self._request()
        return self._inner.get(key, start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        self._request()
        return self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        self._request()
        self._inner.delete(keys)

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return self._inner.retention

    def close(self) -> None:
        """See ObjectStore."""
        self._inner.close()


class Ended:
    """A side in a thread of its own: see `PausedStore`."""

    def __init__(self, side: Side, store: ObjectStore, at: int | None) -> None:
        self.store = PausedStore(store, at)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(side,), daemon=True)
        self._thread.start()
        assert self.store.has_stopped.wait(SECONDS)

    def _run(self, side: Side) -> None:
        try:
            side(self.store)
        except CinderblockError as error:
            self.error = error
        finally:
            self.store.has_stopped.set()

    def finish(self) -> None:
        """Let the side end."""
        self.store.go.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
