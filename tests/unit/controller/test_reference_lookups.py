"""The operator reads each manifest once, holds up nobody with it, and waits only a moment for another look."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar, cast

import pytest

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.stores.circuit_breaker import (
    CONCURRENT_CALLS,
    UNPROVEN_CONCURRENT_CALLS,
    Endpoint,
    StoreBreaker,
)
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups, key_ring
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


class Opened:
    """Stands for `Stores`, with the real patience."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._patience = StoreBreaker(Endpoint(is_proven=True), asyncio.Semaphore(UNPROVEN_CONCURRENT_CALLS))
        self.calls = 0

    async def open(self, store: BackupStore, container: str) -> ObjectStore:
        return self._store

    async def keys(self, store: BackupStore) -> None:
        return None

    async def call(self, store: BackupStore, call: Callable[[], T]) -> T:
        self.calls += 1
        return await self._patience.call(call)


async def needs(looks: ReferenceLookups, stores: Opened, backup_id: str) -> Dependents:
    return await looks.needs(cast("StorePool", stores), STORE, "container", VOLUME, backup_id)


async def test_looks_that_come_together_read_each_manifest_once() -> None:
    line = a_line(10)
    store = CountedStore(line.backups.store)
    looks, stores = ReferenceLookups(), Opened(store)
    answers = await asyncio.gather(*(needs(looks, stores, name(number)) for number in range(CONCURRENT_CALLS)))
    assert [len(answer.by) for answer in answers] == [9, 8, 7, 6]
    assert store.counts.gets <= 3 * 10
    assert store.counts.lists == CONCURRENT_CALLS


async def test_manifests_are_read_in_batches_between_which_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(references, "BATCH_MANIFESTS", 3)
    stores = Opened(a_line(10).backups.store)
    await needs(ReferenceLookups(), stores, name(0))
    assert stores.calls == 1 + 4


async def test_a_look_waits_for_another_one_only_for_a_moment_and_says_why() -> None:
    line = a_line(3)
    inside, go_on = threading.Event(), threading.Event()

    class Slow(CountedStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            inside.set()
            assert go_on.wait(30)
            return super().get(key, start, length)

    looks, stores = ReferenceLookups(turn_seconds=0.05), Opened(Slow(line.backups.store))
    first = asyncio.create_task(needs(looks, stores, name(0)))
    await asyncio.to_thread(inside.wait)
    with pytest.raises(TransientError) as waits:
        await needs(looks, stores, name(1))
    assert waits.value.reason == "ReadingReferences"
    go_on.set()
    assert (await first).by == (name(1), name(2))
    assert (await needs(looks, stores, name(1))).by == (name(2),)


async def test_another_container_or_store_is_another_place() -> None:
    line = a_line(2)
    store = CountedStore(line.backups.store)
    looks, stores = ReferenceLookups(), Opened(store)
    other = BackupStore.model_validate(
        {"metadata": METADATA | {"uid": "s-2"}, "spec": {"credentialsSecretRef": {"name": "s3"}, "prefix": PREFIX}}
    )
    await looks.needs(cast("StorePool", stores), STORE, "container", VOLUME, name(0))
    once = store.counts.gets
    await looks.needs(cast("StorePool", stores), STORE, "another", VOLUME, name(0))
    await looks.needs(cast("StorePool", stores), other, "container", VOLUME, name(0))
    assert store.counts.gets == 3 * once


@pytest.mark.parametrize("error", [NotFound("no Secret"), InvalidInput("no key")], ids=str)
async def test_a_deletion_does_not_hang_on_the_encryption_secret(error: Exception) -> None:
    class Without:
        async def keys(self, store: BackupStore) -> KeyRing:
            raise error

    assert await key_ring(cast("StorePool", Without()), STORE) is None


async def test_an_api_server_that_does_not_answer_is_no_missing_secret() -> None:
    class Silent:
        async def keys(self, store: BackupStore) -> KeyRing:
            raise KubeUnavailable("no answer")

    with pytest.raises(KubeUnavailable):
        await key_ring(cast("StorePool", Silent()), STORE)
