"""Repeat requests about versions that failed for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeVar

from cinderblock.errors import StoreReadOnly, TooLarge
from cinderblock.store.retrying import RetryClock, RetryPolicy, repeat
from cinderblock.store.versions.history import ObjectVersion, VersionPages

T = TypeVar("T")

_CLOCK: Final = RetryClock()
MAX_PAGES: Final = 200_000
"""Most pages of a listing of versions: ten million objects of which each was overwritten twenty times."""


class RetryingHistory:
    """A history that repeats requests that raise StoreUnreachable. It raises other errors at once.

    Args:
        inner: sends the requests.
        is_read_only: whether to refuse every call that changes something.
        policy: how often and how long to repeat each.
        close: closes all connections.
        clock: for waits.
    """

    def __init__(
        self,
        inner: VersionPages,
        policy: RetryPolicy,
        close: Callable[[], None],
        clock: RetryClock = _CLOCK,
        *,
        is_read_only: bool = False,
    ) -> None:
        self._inner = inner
        self._is_read_only = is_read_only
        self._policy = policy
        self._close = close
        self._clock = clock

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """See History. Raises TooLarge for a listing without end."""
        marker: tuple[str, str] | None = ("", "")
        for _ in range(MAX_PAGES):
            assert marker is not None
            found, marker = self._repeat(partial(self._inner.page, prefix, marker))
            yield from found
            if marker is None:
                return
        raise TooLarge(f"Cannot list the versions of {prefix}: there are more than {MAX_PAGES} pages of them.")

    def get(self, key: str, version_id: str, start: int = 0, length: int | None = None) -> bytes:
        """See History."""
        return self._repeat(partial(self._inner.get, key, version_id, start, length))

    def copy(self, version: ObjectVersion) -> None:
        """See History. Raises StoreReadOnly."""
        self._check_access(version.key)
        self._repeat(partial(self._inner.copy, version))

    def remove_marker(self, key: str, version_id: str) -> None:
        """See History. Raises StoreReadOnly."""
        self._check_access(key)
        self._repeat(partial(self._inner.remove_marker, key, version_id))

    def close(self) -> None:
        """See History."""
        self._close()

    def _check_access(self, key: str) -> None:
        if self._is_read_only:
            raise StoreReadOnly(f"Cannot bring back {key}: the container was opened only for reading.")

    def _repeat(self, call: Callable[[], T]) -> T:
        return repeat(call, self._policy, self._clock)
