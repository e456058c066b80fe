"""Refuse every call that would change a container.

`store.factory` puts this wrapper around each store whose access is ReadOnly, in every process. So a caller that forgets
to ask about the access gets an error, and sends no request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cinderblock.errors import StoreReadOnly
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.retention import Retention


class ReadOnlyStore:
    """A store around a store that may only be read.

    The inner store must not create its container: `check` is passed on.

    Args:
        inner: the store.
        container: name of its container in messages.
    """

    def __init__(self, inner: ObjectStore, container: str) -> None:
        self._inner = inner
        self._container = container

    def check(self) -> None:
        """See ObjectStore."""
        self._inner.check()

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """Raise StoreReadOnly."""
        del body, lock
        raise self._refusal(f"store {key}")

    def create(self, key: str, body: Buffer) -> bool:
        """Raise StoreReadOnly."""
        del body
        raise self._refusal(f"store {key}")

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """Raise StoreReadOnly."""
        del lock
        raise self._refusal(f"lock {key}")

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        return self._inner.get(key, start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        return self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        """Raise StoreReadOnly."""
        del keys
        raise self._refusal("delete objects")

    @property
    def retention(self) -> Retention:
        """See ObjectStore. These calls only read."""
        return self._inner.retention

    def close(self) -> None:
        """See ObjectStore."""
        self._inner.close()

    def _refusal(self, what: str) -> StoreReadOnly:
        return StoreReadOnly(
            f"Cannot {what} in container {self._container}: it was opened only for reading. Nothing was changed. To"
            " permit changes, set spec.access of the BackupStore to ReadWrite."
        )
