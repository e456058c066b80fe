"""Stores that namespaces share, as the operator opens and checks them: once for all namespaces."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from cinderblock.controller.stores import circuit_breaker
from cinderblock.controller.stores import pool as stores_pool
from cinderblock.controller.stores.circuit_breaker import LONG_CALL_SECONDS, SHARED_STORE_CALLS
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    InvalidInput,
    NotFound,
    PermanentError,
    StoreBusy,
    StoreTooSlow,
    StoreUnreachable,
)
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.store import shared
from cinderblock.store.memory import MemoryStore
from tests.support.shared_stores import SYSTEM, a_cluster_store, a_shared_store
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
KEY = base64.b64encode(b"key").decode()


class ServerInMemory(MemoryStore):
    """A store that counts checks, and raises an error in each if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.checks = 0
        self.error: CinderblockError | None = None

    def check(self) -> None:
        self.checks += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def objects() -> ObjectsInMemory:
    made = ObjectsInMemory(lambda: NOW)
    data = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY}
    made.create("Secret", {"metadata": {"name": "s3", "namespace": SYSTEM}, "data": data})
    return made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[ServerInMemory]:
    """Return the stores that were opened, each instead of a client of boto3."""
    made: list[ServerInMemory] = []

    def open_store(*_: object, **__: object) -> ServerInMemory:
        made.append(ServerInMemory())
        return made[-1]

    monkeypatch.setattr(stores_pool, "open_store", open_store)
    return made


@pytest.fixture
def pool(objects: ObjectsInMemory) -> Iterator[StorePool]:
    created = StorePool(
        KubeClient(SimulatedApi(objects, lambda how, item: None)), ignores_unsigned_headers=lambda *_: False
    )
    yield created
    created.close()


async def test_thousand_namespaces_share_a_client_and_a_check(pool: StorePool, opened: list[ServerInMemory]) -> None:
    stores = [a_shared_store(f"n-{number}") for number in range(1000)]
    await asyncio.gather(*(pool.check(store, "volumebackups", SecretReader()) for store in stores))
    assert len(opened) == 1
    assert opened[0].checks == 1


async def test_failed_check_is_shared_and_repeated_later(
    pool: StorePool, opened: list[ServerInMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.check(a_shared_store("first"), "volumebackups", SecretReader())
    opened[0].error = AccessDenied("the key is refused")
    monkeypatch.setattr("cinderblock.controller.stores.shared_checks.CHECK_SECONDS", 0.0)
    other = StorePool(
        pool._kube, ignores_unsigned_headers=lambda *_: False
    )  # a process that has not checked the store yet
    monkeypatch.setattr(stores_pool, "open_store", lambda *_, **__: opened[0])
    for namespace in ("first", "second"):
        with pytest.raises(AccessDenied):
            await other.check(a_shared_store(namespace), "volumebackups", SecretReader())
    assert opened[0].checks == 2


def fail() -> None:
    raise StoreUnreachable("no answer")


def be_slow() -> None:
    raise StoreTooSlow("the time is up")


async def test_outage_that_two_namespaces_see_spares_the_others(pool: StorePool, opened: list[ServerInMemory]) -> None:
    for namespace in ("first", "second"):
        with pytest.raises(StoreUnreachable):
            await pool.call(a_shared_store(namespace), fail)
    calls: list[str] = []
    with pytest.raises(StoreUnreachable, match="no answer"):
        await pool.call(a_shared_store("third"), lambda: calls.append("asked"))
    assert calls == []


async def test_failed_check_of_a_shared_store_spares_all_calls(pool: StorePool, opened: list[ServerInMemory]) -> None:
    await pool.open(a_shared_store("first"), "volumebackups", SecretReader())
    opened[0].error = StoreUnreachable("no answer")
    with pytest.raises(StoreUnreachable):
        await pool.check(a_shared_store("first"), "volumebackups", SecretReader())
    with pytest.raises(StoreUnreachable, match="no answer"):
        await pool.call(a_shared_store("second"), lambda: 1)


async def test_namespace_that_fails_alone_stops_only_itself(pool: StorePool) -> None:
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await pool.call(a_shared_store("first"), fail)
    assert await pool.call(a_shared_store("second"), lambda: 1) == 1


async def test_slow_calls_of_namespaces_never_stop_others(pool: StorePool) -> None:
    for namespace in ("first", "second", "third"):
        with pytest.raises(StoreTooSlow):
            await pool.call(a_shared_store(namespace), be_slow)
        with pytest.raises(StoreTooSlow):
            await pool.call(a_shared_store(namespace), lambda: 1)
    assert await pool.call(a_shared_store("fourth"), lambda: 1) == 1


async def test_long_calls_leave_slots_of_a_shared_store_to_others(
    pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    ends = threading.Event()
    asked = [
        asyncio.create_task(pool.call(a_shared_store(f"n-{number}"), lambda: ends.wait(30), LONG_CALL_SECONDS))
        for number in range(8)
        for _ in range(2)
    ]
    try:
        _, left = await asyncio.wait(asked, timeout=2)
        assert len(left) == SHARED_STORE_CALLS // 2
        assert await pool.call(a_shared_store("victim"), lambda: 1) == 1
    finally:
        ends.set()
    await asyncio.wait(asked)


async def test_check_that_found_no_slot_is_not_remembered(
    pool: StorePool, opened: list[ServerInMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    ends, store = threading.Event(), a_shared_store("first")
    callers = [a_shared_store(f"n-{number}") for number in range(SHARED_STORE_CALLS // 4)]
    for caller in callers:
        await pool.call(caller, lambda: 1)
    asked = [asyncio.create_task(pool.call(caller, lambda: ends.wait(30))) for caller in callers for _ in range(4)]
    await asyncio.wait(asked, timeout=0.2)
    try:
        with pytest.raises(StoreBusy):
            await pool.check(store, "volumebackups", SecretReader())
    finally:
        ends.set()
    await asyncio.wait(asked)
    await pool.check(store, "volumebackups", SecretReader())


async def test_shared_stores_that_hang_take_no_slots_of_another(
    pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    ends, hanging = threading.Event(), [shared.whole(a_cluster_store(f"c-{n}"), SYSTEM) for n in range(3)]
    asked = [asyncio.create_task(pool.call(store, lambda: ends.wait(30))) for store in hanging for _ in range(2)]
    try:
        await asyncio.wait(asked, timeout=0.2)
        good = shared.whole(a_cluster_store("good"), SYSTEM)
        assert await pool.call(good, lambda: 1) == 1
    finally:
        ends.set()
    await asyncio.wait(asked)


async def test_secret_is_read_where_the_operator_is(
    pool: StorePool, opened: list[ServerInMemory], objects: ObjectsInMemory
) -> None:
    await pool.open(a_shared_store("shop"), "volumebackups", SecretReader())
    found = objects.get("Secret", "s3", SYSTEM)
    assert found is not None
    objects.delete(found)
    whole = shared.whole(a_cluster_store(), SYSTEM)
    with pytest.raises(NotFound, match=f"Secret s3 of ClusterBackupStore shared does not exist in namespace {SYSTEM}"):
        await pool.open(whole, "volumebackups", SecretReader())


@pytest.mark.parametrize("annotation", ["", "k-secret-name"])
async def test_tenants_read_nothing_about_secrets(
    pool: StorePool, objects: ObjectsInMemory, annotation: str, opened: list[ServerInMemory]
) -> None:
    store = a_shared_store("shop", encryptionSecretRef={"name": "hidden-keys"})
    whole = shared.whole(a_cluster_store(encryptionSecretRef={"name": "hidden-keys"}), SYSTEM)
    if annotation:
        metadata = {
            "name": "hidden-keys",
            "namespace": SYSTEM,
            "annotations": {"cinderblock.io/read-only-keys": annotation},
        }
        objects.create("Secret", {"metadata": metadata, "data": {}})
    with pytest.raises(CinderblockError) as of_tenant:
        await pool.keys(store, SecretReader())
    with pytest.raises(CinderblockError) as of_operator:
        await pool.keys(whole, SecretReader())
    assert type(of_tenant.value) is type(of_operator.value)
    assert of_tenant.value.reason == of_operator.value.reason
    assert "hidden-keys" in of_operator.value.message
    shown = of_tenant.value.message
    assert not [word for word in ("hidden-keys", SYSTEM, "k-secret-name") if word in shown]
    assert "Ask an administrator" in shown


async def test_tenants_read_no_path_of_the_operator(pool: StorePool, objects: ObjectsInMemory) -> None:
    data = {"ca.crt": base64.b64encode(b"no certificate").decode()}
    objects.create("Secret", {"metadata": {"name": "ca", "namespace": SYSTEM}, "data": data})
    spec: dict[str, Any] = {"endpointUrl": "https://s3.example.org", "caSecretRef": {"name": "ca"}}
    with pytest.raises(InvalidInput, match="PEM certificates"):
        await pool.open(shared.whole(a_cluster_store(**spec), SYSTEM), "volumebackups", SecretReader())
    with pytest.raises(InvalidInput) as of_tenant:
        await pool.open(a_shared_store("shop", **spec), "volumebackups", SecretReader())
    assert "/tmp" not in of_tenant.value.message
    assert "Ask an administrator" in of_tenant.value.message


async def test_shared_store_opens_no_other_bucket(pool: StorePool, opened: list[ServerInMemory]) -> None:
    with pytest.raises(InvalidInput, match="has only container volumebackups, not others"):
        await pool.open(a_shared_store("shop"), "others", SecretReader())
    assert opened == []


async def test_server_that_ignores_unsigned_headers_is_refused(
    objects: ObjectsInMemory, opened: list[ServerInMemory]
) -> None:
    asked: list[str] = []

    def ignores(location: object, credentials: object, ca_file: str | None) -> bool:
        asked.append("signing")
        return True

    pool = StorePool(KubeClient(SimulatedApi(objects, lambda how, item: None)), ignores_unsigned_headers=ignores)
    with pytest.raises(PermanentError) as raised:
        await pool.check(a_shared_store("shop"), "volumebackups", SecretReader())
    assert raised.value.reason == "UnsignedHeadersAccepted"
    session = {"mode": "SessionCredentials", "sessionCredentials": {"roleArn": "arn:aws:iam::1:role/x"}}
    other = shared.whole(a_cluster_store("other", moverAccess=session), SYSTEM)
    await pool.check(other, "volumebackups", SecretReader())
    assert asked == ["signing"]


async def test_strict_server_is_asked_about_headers_once(
    objects: ObjectsInMemory, opened: list[ServerInMemory]
) -> None:
    asked: list[str] = []

    def ignores(location: object, credentials: object, ca_file: str | None) -> bool:
        asked.append("signing")
        return False

    pool = StorePool(KubeClient(SimulatedApi(objects, lambda how, item: None)), ignores_unsigned_headers=ignores)
    for namespace in ("first", "second"):
        await pool.check(a_shared_store(namespace), "volumebackups", SecretReader())
    assert asked == ["signing"]
