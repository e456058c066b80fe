"""Report the outcome of every call of a store, for metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from cinderblock.errors import CinderblockError, ObjectNotFound
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.retention import Retention

OK: Final = "ok"

OnRequest = Callable[[str, str], None]
"""Called with the request (check, put, lock, get, list, delete) and its result: OK or the reason of the error.

Any thread may call it.
"""


class InstrumentedStore:
    """A store around a store that reports every call. An absent object counts as success."""

    def __init__(self, inner: ObjectStore, on_request: OnRequest) -> None:
        self._inner = inner
        self._on_request = on_request

    def check(self) -> None:
        """See ObjectStore."""
        with self._reporting("check"):
            self._inner.check()

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """See ObjectStore."""
        with self._reporting("put"):
            self._inner.put(key, body, lock)

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """See ObjectStore."""
        with self._reporting("lock"):
            self._inner.set_lock(key, lock)

    def create(self, key: str, body: Buffer) -> bool:
        """See ObjectStore. It counts as a put."""
        with self._reporting("put"):
            return self._inner.create(key, body)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        with self._reporting("get"):
            return self._inner.get(key, start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        with self._reporting("list"):
            yield from self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        with self._reporting("delete"):
            self._inner.delete(keys)

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return self._inner.retention

    def close(self) -> None:
        """See ObjectStore."""
        self._inner.close()

    @contextmanager
    def _reporting(self, request: str) -> Iterator[None]:
        result = OK
        try:
            yield
        except ObjectNotFound:
            raise
        except CinderblockError as error:
            result = error.reason
            raise
        finally:
            # A listing that its caller abandons ends here as well.
            self._on_request(request, result)
