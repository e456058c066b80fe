"""The wrapper of stores that may only be read: every method of the protocols is either a reading one or refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import pytest

from cinderblock.api.mover import StoreLocation
from cinderblock.api.v1alpha1.store import LockMode, StoreAccess
from cinderblock.errors import StoreReadOnly
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectLock, ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_history, open_store
from cinderblock.store.memory import MemoryStore
from cinderblock.store.read_only import ReadOnlyStore
from cinderblock.store.retention import Retention
from cinderblock.store.retrying import RetryPolicy
from cinderblock.store.versions.history import ObjectVersion

READING: Final[dict[str, Callable[[ObjectStore], object]]] = {
    "check": lambda store: store.check(),
    "get": lambda store: store.get("backups/a"),
    "list": lambda store: list(store.list("")),
    "retention": lambda store: store.retention,
    "close": lambda store: store.close(),
}
CHANGING: Final[dict[str, Callable[[ObjectStore], object]]] = {
    "put": lambda store: store.put("backups/a", b"other"),
    "create": lambda store: store.create("backups/b", b"other"),
    "set_lock": lambda store: store.set_lock(
        "backups/a", ObjectLock(LockMode.GOVERNANCE, datetime(2030, 1, 1, tzinfo=UTC))
    ),
    "delete": lambda store: store.delete(["backups/a"]),
}
READING_OF_RETENTION: Final = {"versioning", "object_lock", "lifecycle", "versions", "inspect"}
"""Calls of `Retention`. All of them only read."""


def members(protocol: type) -> set[str]:
    """Return the public names that a protocol defines."""
    return {name for name in vars(protocol) if not name.startswith("_")}


@pytest.fixture
def inner() -> CountedStore:
    memory = MemoryStore()
    memory.put("backups/a", b"content")
    return CountedStore(memory)


@pytest.fixture
def store(inner: CountedStore) -> ReadOnlyStore:
    return ReadOnlyStore(inner, "bucket")


def test_every_method_of_a_store_is_known_to_read_or_to_change() -> None:
    assert members(ObjectStore) == READING.keys() | CHANGING.keys()
    assert members(ReadOnlyStore) == members(ObjectStore)


def test_no_call_about_retention_changes_anything() -> None:
    assert members(Retention) == READING_OF_RETENTION


@pytest.mark.parametrize("name", READING)
def test_reading_is_passed_on(store: ReadOnlyStore, inner: CountedStore, name: str) -> None:
    READING[name](store)
    assert inner.counts.puts == inner.counts.deletes == 0


@pytest.mark.parametrize("name", CHANGING)
def test_change_is_refused_and_never_passed_on(store: ReadOnlyStore, inner: CountedStore, name: str) -> None:
    with pytest.raises(StoreReadOnly) as caught:
        CHANGING[name](store)
    assert caught.value.reason is Reason.STORE_READ_ONLY
    assert caught.value.permanent
    assert "container bucket" in caught.value.message
    assert inner.counts.requests == 0


def test_refused_deletion_takes_no_keys(store: ReadOnlyStore) -> None:
    taken: list[str] = []

    def keys() -> str:
        taken.append("backups/a")
        return taken[-1]

    with pytest.raises(StoreReadOnly):
        store.delete(iter(keys, ""))
    assert taken == []


@pytest.mark.parametrize(("access", "kind"), [(StoreAccess.READ_ONLY, True), (StoreAccess.READ_WRITE, False)])
def test_access_of_the_location_decides_about_the_wrapper(access: StoreAccess, kind: bool) -> None:
    location = StoreLocation(endpoint_url="http://127.0.0.1:1", container="bucket", access=access)
    store = open_store(location, S3Credentials("id", "secret"))
    assert isinstance(store, ReadOnlyStore) is kind
    store.close()


def test_versions_of_a_read_only_store_are_never_brought_back() -> None:
    location = StoreLocation(endpoint_url="http://127.0.0.1:1", container="bucket", access=StoreAccess.READ_ONLY)
    history = open_history(location, S3Credentials("id", "secret"), None, RetryPolicy(attempts=1))
    with pytest.raises(StoreReadOnly):
        history.copy(ObjectVersion("backups/a", "v1", datetime(2026, 1, 1, tzinfo=UTC)))
    with pytest.raises(StoreReadOnly):
        history.remove_marker("backups/a", "v1")
    history.close()


def test_old_task_without_an_access_may_write() -> None:
    assert StoreLocation.model_validate_json('{"container": "bucket"}').access is StoreAccess.READ_WRITE
