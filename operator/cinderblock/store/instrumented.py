"""Tells how a store answers; for metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from cinderblock.errors import CinderblockError, NotFound
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectStore

OK: Final = "ok"

OnRequest = Callable[[str, str], None]
"""Told what was asked (check, put, get, list, delete) and OK or the reason of the error; from any thread."""


class InstrumentedStore:
    """A store around a store that tells of every call. An object that is not there is a good answer."""

    def __init__(self, inner: ObjectStore, tell: OnRequest) -> None:
        self._inner = inner
        self._tell = tell

    def check(self) -> None:
        """See ObjectStore."""
        with self._telling("check"):
            self._inner.check()

    def put(self, key: str, body: Buffer) -> None:
        """See ObjectStore."""
        with self._telling("put"):
            self._inner.put(key, body)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        with self._telling("get"):
            return self._inner.get(key, start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        with self._telling("list"):
            yield from self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        with self._telling("delete"):
            self._inner.delete(keys)

    def close(self) -> None:
        """See ObjectStore."""
        self._inner.close()

    @contextmanager
    def _telling(self, request: str) -> Iterator[None]:
        result = OK
        try:
            yield
        except CinderblockError as error:
            is_absent = isinstance(error, NotFound) and error.reason == NotFound.__name__
            result = OK if is_absent else error.reason
            raise
        finally:
            # A listing that its reader leaves early comes here too.
            self._tell(request, result)
