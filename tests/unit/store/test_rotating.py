"""A store whose credentials are replaced in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from cinderblock.errors import AccessDenied, CredentialsRejected, InvalidInput
from cinderblock.format.range_reader import Buffer
from cinderblock.store.base import ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retrying import RetryClock
from cinderblock.store.rotating import PATIENCE_SECONDS, RotatingStore


@dataclass
class Account:
    """A server with one account, and the Secret that is mounted.

    Attributes:
        valid: the key that the server accepts.
        mounted: the key in the mounted Secret.
        arrives: the key that the kubelet mounts, and after how many seconds of waiting.
        waited: seconds of all waits.
    """

    valid: str = "old"
    mounted: str = "old"
    arrives: tuple[str, float] | None = None
    waited: float = 0.0
    refuses: type[AccessDenied] = CredentialsRejected
    objects: MemoryStore = field(default_factory=MemoryStore)
    opened: list[str] = field(default_factory=list)

    def read(self) -> S3Credentials:
        if self.arrives is not None and self.waited >= self.arrives[1]:
            self.mounted = self.arrives[0]
        if not self.mounted:
            raise InvalidInput("the files are being replaced")
        return S3Credentials("id", self.mounted)

    def open(self, credentials: S3Credentials) -> ObjectStore:
        self.opened.append(credentials.secret_key)
        return Guarded(self, credentials.secret_key)

    def sleep(self, seconds: float) -> None:
        self.waited += seconds

    def store(self) -> RotatingStore:
        return RotatingStore(self.read, self.open, RetryClock(now=lambda: self.waited, sleep=self.sleep))


class Guarded:
    """The objects of an account, for anyone who has the key that is valid at the moment."""

    def __init__(self, account: Account, key: str) -> None:
        self._account = account
        self._key = key

    def _objects(self) -> MemoryStore:
        if self._key != self._account.valid:
            raise self._account.refuses("no")
        return self._account.objects

    def check(self) -> None:
        self._objects().check()

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        self._objects().put(key, body, lock)

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        self._objects().set_lock(key, lock)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._objects().get(key, start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for item in self._objects().list(prefix):
            self._objects()
            yield item

    def delete(self, keys: Iterable[str]) -> None:
        self._objects().delete(keys)

    def close(self) -> None:
        """Do nothing."""


CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "check": lambda s: s.check(),
    "put": lambda s: s.put("a/2", b"two"),
    "get": lambda s: s.get("a/1"),
    "list": lambda s: [found.key for found in s.list("a/")],
    "delete": lambda s: s.delete(["a/1"]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_call_continues_with_the_new_key(call: Callable[[ObjectStore], object]) -> None:
    account = Account(arrives=("new", 90.0))
    with closing(account.store()) as store:
        store.put("a/1", b"one")
        account.valid = "new"
        call(store)
    assert account.opened == ["old", "new"]
    assert 90 <= account.waited <= 100


def test_listing_continues_where_it_was_denied() -> None:
    account = Account(arrives=("new", 30.0))
    with closing(account.store()) as store:
        for key in ("a/1", "a/2", "a/3"):
            store.put(key, b"x")
        listing = store.list("a/")
        assert next(listing).key == "a/1"
        account.valid = "new"
        assert [found.key for found in listing] == ["a/2", "a/3"]
    assert account.opened == ["old", "new"]


def test_wait_for_a_new_key_is_bounded_and_happens_once() -> None:
    account = Account()
    with closing(account.store()) as store:
        store.check()
        account.valid = "new"
        for _ in range(3):
            with pytest.raises(CredentialsRejected):
                store.check()
    assert PATIENCE_SECONDS <= account.waited < PATIENCE_SECONDS + 10


@pytest.mark.parametrize("refuses", [CredentialsRejected, AccessDenied])
def test_key_that_never_worked_is_reported_at_once(refuses: type[AccessDenied]) -> None:
    account = Account(valid="another", refuses=refuses)
    with closing(account.store()) as store, pytest.raises(refuses):
        store.check()
    assert (account.waited, account.opened) == (0.0, ["old"])


def test_missing_permission_is_not_waited_for() -> None:
    account = Account(refuses=AccessDenied)
    with closing(account.store()) as store:
        store.check()
        account.valid = "another"
        with pytest.raises(AccessDenied):
            store.put("a/1", b"one")
    assert account.waited == 0.0


def test_files_that_are_being_replaced_are_read_again() -> None:
    account = Account()
    with closing(account.store()) as store:
        store.check()
        account.valid, account.mounted, account.arrives = "new", "", ("new", 20.0)
        store.check()
    assert account.opened == ["old", "new"]
