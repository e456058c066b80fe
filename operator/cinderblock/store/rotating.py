"""Open a store again when its credentials were replaced while a run uses it, or are about to expire.

The kubelet updates a mounted Secret about a minute after its change (Kubernetes documentation, "Secrets": mounted
Secrets are updated automatically). A server that rejects the old credentials at once would end a copy of hours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Final, TypeVar

from cinderblock.errors import AccessDenied, CredentialsRejected, PermanentError, StoreReadOnly, TransientError
from cinderblock.format.range_reader import Buffer
from cinderblock.reasons import Reason
from cinderblock.store.base import DELETE_BATCH_KEYS, ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.retention import Retention
from cinderblock.store.retrying import RetryClock

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS: Final = 180.0
"""Longest wait for new credentials. The kubelet checks a Secret every minute, and may then read one a minute old."""
INTERVAL_SECONDS: Final = 5.0
"""Seconds between two reads of the mounted Secret."""
KEPT_STORES: Final = 4
"""Stores that stay open, because calls with their credentials may still run. Session credentials change every hour."""
_CLOCK: Final = RetryClock()


def _never() -> None:
    """Renew nothing."""


class RotatingStore:
    """A store that wraps another one, and opens it again with new credentials when the server denies access.

    It waits for new credentials only if the present ones have worked and the server does not accept them any more. A
    missing permission, and credentials that never worked, are reported at once.

    Args:
        read: returns the present credentials. A transient error means that it has tried for long enough.
        open_with: opens the store with credentials.
        clock: for waits.
        renew: returns new credentials if the present ones are about to expire; otherwise None.
    """

    def __init__(
        self,
        read: Callable[[], S3Credentials],
        open_with: Callable[[S3Credentials], ObjectStore],
        clock: RetryClock = _CLOCK,
        renew: Callable[[], S3Credentials | None] = _never,
    ) -> None:
        self._read = read
        self._renew_due = renew
        self._open_with = open_with
        self._clock = clock
        self._lock = threading.Lock()
        self._credentials = read()
        self._opened = [open_with(self._credentials)]
        self._present = (1, self._opened[0])
        """The store that calls use, and its number, counted from the first. Threads read both at once."""
        self._proven = 0
        """Number of stores, counted from the first, that have answered."""
        self._given_up = 0
        """Number of stores for which no new credentials came."""

    def check(self) -> None:
        """See ObjectStore."""
        self._call(lambda store: store.check())

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """See ObjectStore."""
        self._call(lambda store: store.put(key, body, lock))

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """See ObjectStore."""
        self._call(lambda store: store.set_lock(key, lock))

    def create(self, key: str, body: Buffer) -> bool:
        """See ObjectStore."""
        return self._call(lambda store: store.create(key, body))

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        return self._call(lambda store: store.get(key, start, length))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore. A listing that is denied restarts, and skips what the caller already has."""
        last_key = ""
        while True:
            self._renew_early()
            number, store = self._present
            try:
                for item in store.list(prefix):
                    self._proven = max(self._proven, number)
                    if item.key > last_key:
                        yield item
                        last_key = item.key
            except AccessDenied as error:
                self._renew(number, error)
            else:
                return

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore. Each batch is repeated alone, because ``keys`` can be read only once."""
        remaining = iter(keys)
        while batch := [*islice(remaining, DELETE_BATCH_KEYS)]:
            self._call(partial(_delete, batch))

    @property
    def retention(self) -> Retention:
        """See ObjectStore. These calls are not repeated: nothing depends on them."""
        return self._present[1].retention

    def close(self) -> None:
        """See ObjectStore. Calls with old credentials may have lasted until now."""
        for store in self._opened:
            store.close()

    def _call(self, call: Callable[[ObjectStore], T]) -> T:
        while True:
            self._renew_early()
            number, store = self._present
            try:
                result = call(store)
            except AccessDenied as error:
                self._renew(number, error)
            else:
                self._proven = max(self._proven, number)
                return result

    def _renew_early(self) -> None:
        """Open the store with new credentials if the present ones are about to expire. One thread does that."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            renewed = self._renew_due()
            if renewed is not None:
                self._open_again(renewed)
        except (PermanentError, TransientError) as error:
            log.warning("The credentials could not be renewed before they expire: %s", error.message)
        finally:
            self._lock.release()

    def _open_again(self, credentials: S3Credentials) -> None:
        """Open the store with other credentials. The caller holds the lock."""
        opened = self._open_with(credentials)
        self._opened.append(opened)
        self._present = (self._present[0] + 1, opened)
        self._credentials = credentials
        if len(self._opened) > KEPT_STORES:
            self._opened.pop(0).close()

    def _renew(self, number: int, error: AccessDenied) -> None:
        """Open the store with new credentials. Raises ``error`` if there are none, and what the broker raises.

        Args:
            number: the store that denied the access, counted from the first.
            error: what it said.
        """
        with self._lock:
            if self._present[0] > number:
                return
            self._open_again(self._new_credentials(number, error))
        log.info("The store was opened again with new credentials, after: %s", error.message)

    def _new_credentials(self, number: int, error: AccessDenied) -> S3Credentials:
        may_wait = isinstance(error, CredentialsRejected) and self._proven >= number > self._given_up
        deadline = self._clock.now() + (PATIENCE_SECONDS if may_wait else 0.0)
        while True:
            try:
                found = self._read()
                if found != self._credentials:
                    return found
            except PermanentError as failure:
                if isinstance(failure, AccessDenied | StoreReadOnly) and failure.reason != Reason.ACCESS_DENIED:
                    # The broker refuses, and says why.
                    raise
                # While the kubelet replaces the files, they may not be readable for a moment.
            if self._clock.now() >= deadline:
                self._given_up = number
                raise error
            self._clock.sleep(INTERVAL_SECONDS)


def _delete(batch: list[str], store: ObjectStore) -> None:
    store.delete(batch)
