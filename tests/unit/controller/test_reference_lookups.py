"""Look-ups read each manifest once, let other calls run in between, and wait only a moment for each other."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import TypeVar, cast

import pytest

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.stores.circuit_breaker import (
    CALL_SECONDS,
    CONCURRENT_CALLS,
    Endpoint,
    SharedSlots,
    StoreBreaker,
)
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups, key_ring, place_of
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import InvalidInput, KubeUnavailable, NotFound, TransientError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.repository import references
from cinderblock.repository.references import Dependents
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore
from tests.support.mover.backups import PREFIX, VOLUME
from tests.support.mover.parent_chains import a_line, name

T = TypeVar("T")

METADATA = {"name": "default", "namespace": "shop", "uid": "s-1"}
STORE = BackupStore.model_validate(
    {"metadata": METADATA, "spec": {"credentialsSecretRef": {"name": "s3"}, "prefix": PREFIX}}
)


class Stores:
    """A `StorePool` of one store, with a real breaker."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._breaker = StoreBreaker(Endpoint(is_proven=True), SharedSlots().of_namespace())
        self.calls = 0

    async def open(self, store: BackupStore, container: str, secrets: SecretReader) -> ObjectStore:
        return self._store

    async def keys(self, store: BackupStore, secrets: SecretReader) -> None:
        return None

    async def call(self, store: BackupStore, call: Callable[[], T], seconds: float = CALL_SECONDS) -> T:
        self.calls += 1
        return await self._breaker.call(call, seconds)


async def find_dependents(
    lookups: ReferenceLookups,
    stores: Stores,
    backup_id: str,
    *,
    store: BackupStore = STORE,
    container: str = "container",
) -> Dependents:
    return await lookups.find_dependents(
        cast("StorePool", stores), store, container, VOLUME, backup_id, secrets=SecretReader()
    )


def test_place_takes_little_memory_and_differs_with_each_setting() -> None:
    """A hundred thousand of them are remembered, and users choose the URL and the prefix."""
    long = STORE.model_copy(update={"spec": STORE.spec.model_copy(update={"endpoint_url": f"http://s3/{'x' * 2000}"})})
    places = {
        place_of(store, container, volume)
        for store in (STORE, long)
        for container, volume in (("a", "b"), ("b", "a"), ("a, b", ""))
    }
    assert len(places) == 6
    assert max(map(sys.getsizeof, places)) < 100


async def test_concurrent_lookups_read_each_manifest_once() -> None:
    parents = a_line(10)
    store = CountedStore(parents.backups.store)
    lookups, stores = ReferenceLookups(), Stores(store)
    results = await asyncio.gather(
        *(find_dependents(lookups, stores, name(number)) for number in range(CONCURRENT_CALLS))
    )
    assert [len(result.by) for result in results] == [9, 8, 7, 6]
    assert store.counts.gets <= 3 * 10
    assert store.counts.lists == CONCURRENT_CALLS


async def test_manifests_are_read_in_batches_of_separate_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(references, "BATCH_MANIFESTS", 3)
    stores = Stores(a_line(10).backups.store)
    await find_dependents(ReferenceLookups(), stores, name(0))
    assert stores.calls == 1 + 4


async def test_lookup_waits_only_a_moment_for_another_one() -> None:
    parents = a_line(3)
    has_begun, may_go_on = threading.Event(), threading.Event()

    class Slow(CountedStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            has_begun.set()
            assert may_go_on.wait(30)
            return super().get(key, start, length)

    lookups, stores = ReferenceLookups(lock_wait_seconds=0.05), Stores(Slow(parents.backups.store))
    first = asyncio.create_task(find_dependents(lookups, stores, name(0)))
    await asyncio.to_thread(has_begun.wait)
    with pytest.raises(TransientError) as raised:
        await find_dependents(lookups, stores, name(1))
    assert raised.value.reason == "ReadingReferences"
    may_go_on.set()
    assert (await first).by == (name(1), name(2))
    assert (await find_dependents(lookups, stores, name(1))).by == (name(2),)


async def test_other_containers_and_stores_are_cached_separately() -> None:
    parents = a_line(2)
    store = CountedStore(parents.backups.store)
    lookups, stores = ReferenceLookups(), Stores(store)
    other = BackupStore.model_validate(
        {"metadata": METADATA | {"uid": "s-2"}, "spec": {"credentialsSecretRef": {"name": "s3"}, "prefix": PREFIX}}
    )
    await find_dependents(lookups, stores, name(0))
    once = store.counts.gets
    await find_dependents(lookups, stores, name(0), container="another")
    await find_dependents(lookups, stores, name(0), store=other)
    assert store.counts.gets == 3 * once


@pytest.mark.parametrize("error", [NotFound("no Secret"), InvalidInput("no key")], ids=str)
async def test_deletion_does_not_depend_on_the_encryption_secret(error: Exception) -> None:
    class Without:
        async def keys(self, store: BackupStore, secrets: SecretReader) -> KeyRing:
            raise error

    assert await key_ring(cast("StorePool", Without()), STORE, SecretReader()) is None


async def test_api_outage_is_not_a_missing_secret() -> None:
    class Unavailable:
        async def keys(self, store: BackupStore, secrets: SecretReader) -> KeyRing:
            raise KubeUnavailable("no answer")

    with pytest.raises(KubeUnavailable):
        await key_ring(cast("StorePool", Unavailable()), STORE, SecretReader())
