"""Stores as the operator opens them: kept open while nothing changes, and opened again with a rotated Secret."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from cinderblock.api.labels import ACTIVE_KEY_ANNOTATION, READ_ONLY_KEYS_ANNOTATION
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.stores import circuit_breaker
from cinderblock.controller.stores import pool as stores_pool
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.secrets import Secret, SecretReader
from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    InvalidInput,
    KeyUnavailable,
    KubeUnavailable,
    NotFound,
    StoreUnreachable,
)
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.store.container_rules import Versioning
from cinderblock.store.factory import ignores_unsigned_headers
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retention import Retention
from tests.support.cluster.certificates import Authority
from tests.support.cluster.kube_clients import client_of
from tests.support.mover.backups import KEYS
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketRetention
from tests.support.store.scripted_http import Reply

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "the-secret"}


@pytest.fixture
def objects() -> ObjectsInMemory:
    return ObjectsInMemory(lambda: NOW)


@pytest.fixture
def pool(objects: ObjectsInMemory) -> Iterator[StorePool]:
    created = StorePool(
        KubeClient(SimulatedApi(objects, lambda how, item: None)), ignores_unsigned_headers=ignores_unsigned_headers
    )
    yield created
    created.close()


def secret(objects: ObjectsInMemory, name: str, /, **content: str) -> Any:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in content.items()}
    return objects.create("Secret", {"metadata": {"name": name, "namespace": "shop"}, "data": data})


def a_store(name: str = "default", **spec: Any) -> BackupStore:
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-of-{name}"}
    fields = {"credentialsSecretRef": {"name": "s3"}, "endpointUrl": "http://127.0.0.1:9"} | spec
    return BackupStore.model_validate({"metadata": metadata, "spec": fields})


async def test_unchanged_store_is_opened_once(objects: ObjectsInMemory, pool: StorePool) -> None:
    secret(objects, "s3", **CREDENTIALS)
    first = await pool.open(a_store(), "volumebackups", SecretReader())
    assert await pool.open(a_store(), "volumebackups", SecretReader()) is first


async def test_rotated_secret_changed_store_and_other_container_are_opened_again(
    objects: ObjectsInMemory, pool: StorePool
) -> None:
    found = secret(objects, "s3", **CREDENTIALS)
    first = await pool.open(a_store(), "volumebackups", SecretReader())
    assert await pool.open(a_store(), "another", SecretReader()) is not first
    assert await pool.open(a_store(region="eu-west-1"), "volumebackups", SecretReader()) is not first
    objects.update(found, data=found["data"] | {"AWS_SECRET_ACCESS_KEY": base64.b64encode(b"newer").decode()})
    assert await pool.open(a_store(), "volumebackups", SecretReader()) is not first


async def test_denied_secret_counts_as_an_api_outage() -> None:
    """An API server that has just started denies everything until it has loaded all roles."""
    async with client_of([Reply(403, "{}")] * 9) as (client, _):
        pool = StorePool(client, ignores_unsigned_headers=ignores_unsigned_headers)
        with pytest.raises(KubeUnavailable, match=r"Secret s3 of BackupStore default: .*Cannot get secrets"):
            await pool.open(a_store(), "volumebackups", SecretReader())


async def test_same_name_in_another_namespace_is_another_store(objects: ObjectsInMemory, pool: StorePool) -> None:
    secret(objects, "s3", **CREDENTIALS)
    await pool.open(a_store(), "volumebackups", SecretReader())
    other = a_store()
    namesake = other.model_copy(update={"metadata": other.metadata.model_copy(update={"namespace": "other"})})
    with pytest.raises(NotFound, match="Secret s3 of BackupStore default does not exist in namespace other"):
        await pool.open(namesake, "volumebackups", SecretReader())


async def test_deleted_secret_is_named_although_the_store_was_open(objects: ObjectsInMemory, pool: StorePool) -> None:
    found = secret(objects, "s3", **CREDENTIALS)
    await pool.open(a_store(), "volumebackups", SecretReader())
    objects.delete(found)
    with pytest.raises(NotFound) as raised:
        await pool.open(a_store(), "volumebackups", SecretReader())
    assert raised.value.reason == "SecretNotFound"
    secret(objects, "s3", **CREDENTIALS)
    await pool.open(a_store(), "volumebackups", SecretReader())


async def test_incomplete_secret_is_named_and_not_shown(objects: ObjectsInMemory, pool: StorePool) -> None:
    secret(objects, "s3", AWS_SECRET_ACCESS_KEY="the-secret")
    with pytest.raises(InvalidInput) as raised:
        await pool.open(a_store(), "volumebackups", SecretReader())
    assert "AWS_ACCESS_KEY_ID" in raised.value.message
    assert "the-secret" not in repr(raised.value)


async def test_many_versions_of_certificates_leave_few_files(
    objects: ObjectsInMemory, pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_pool, "MAX_OPEN_STORES", 3)
    secret(objects, "s3", **CREDENTIALS)
    found = secret(objects, "ca", **{"ca.crt": Authority("tests").certificate.decode()})
    store = a_store(caSecretRef={"name": "ca"})
    for version in range(8):
        objects.update(found, data=found["data"] | {"other": base64.b64encode(str(version).encode()).decode()})
        await pool.open(store, "volumebackups", SecretReader())
    assert len(files_of(pool)) == 3


async def test_malformed_certificates_leave_no_file(objects: ObjectsInMemory, pool: StorePool) -> None:
    secret(objects, "s3", **CREDENTIALS)
    secret(objects, "ca", **{"ca.crt": "no certificate"})
    with pytest.raises(InvalidInput, match="CA file"):
        await pool.open(a_store(caSecretRef={"name": "ca"}), "volumebackups", SecretReader())
    assert files_of(pool) == []


async def test_stores_of_a_namespace_share_their_slots(pool: StorePool) -> None:
    first, second = pool._breaker(a_store("one")), pool._breaker(a_store("two"))
    assert first._namespace is second._namespace


def files_of(pool: StorePool) -> list[str]:
    """Return the files of certificates."""
    return os.listdir(pool._certificates.name) if pool._certificates else []


async def test_ca_secret_without_certificates_is_named(objects: ObjectsInMemory, pool: StorePool) -> None:
    secret(objects, "s3", **CREDENTIALS)
    secret(objects, "ca", other="text")
    with pytest.raises(NotFound, match=r"has no key ca\.crt"):
        await pool.open(a_store(caSecretRef={"name": "ca"}), "volumebackups", SecretReader())


def test_certificate_file_is_not_changed_while_it_is_read(objects: ObjectsInMemory, pool: StorePool) -> None:
    found = secret(objects, "ca", **{"ca.crt": "certificates"})
    ca = Secret(found)
    path = pool._write_certificates(a_store(), ca)
    with open(path) as reading:
        before = os.fstat(reading.fileno()).st_mtime_ns
        assert pool._write_certificates(a_store("second"), ca) == path
        assert os.fstat(reading.fileno()).st_mtime_ns == before, "the file that is being read stays unchanged"
    assert Path(path).read_text() == "certificates"


async def test_number_of_open_stores_is_limited(
    objects: ObjectsInMemory, pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_pool, "MAX_OPEN_STORES", 2)
    secret(objects, "s3", **CREDENTIALS)
    first = await pool.open(a_store("first"), "volumebackups", SecretReader())
    await pool.open(a_store("second"), "volumebackups", SecretReader())
    assert await pool.open(a_store("first"), "volumebackups", SecretReader()) is first
    await pool.open(a_store("third"), "volumebackups", SecretReader())
    assert await pool.open(a_store("first"), "volumebackups", SecretReader()) is first, (
        "the most recently used one stays"
    )
    assert len(pool._open) == 2


async def test_active_key_is_the_one_that_the_secret_names(objects: ObjectsInMemory, pool: StorePool) -> None:
    found = secret(objects, "keys", **{"key-1": base64.b64encode(bytes(32)).decode()})
    sealed = a_store(encryptionSecretRef={"name": "keys"})
    assert await pool.active_key(sealed, SecretReader()) is None
    annotations = {ACTIVE_KEY_ANNOTATION: "key-1"}
    objects.update(found, metadata=found["metadata"] | {"annotations": annotations})
    assert await pool.active_key(sealed, SecretReader()) == "key-1"
    assert await pool.active_key(a_store(), SecretReader()) is None
    assert await pool.keys(a_store(), SecretReader()) is None


async def test_secret_reader_reads_each_secret_once(objects: ObjectsInMemory, pool: StorePool) -> None:
    found = secret(objects, "s3", **CREDENTIALS)
    reader = SecretReader()
    first = await pool.open(a_store(), "volumebackups", reader)
    assert await pool.open(a_store(), "volumebackups", reader) is first
    assert pool._kube.response_counts["get", "secrets", 200] == 1
    objects.delete(found)
    assert await pool.open(a_store(), "volumebackups", reader) is first
    with pytest.raises(NotFound, match="create it"):
        await pool.open(a_store(), "volumebackups", SecretReader())


async def test_nothing_is_kept_of_stores_that_no_longer_exist(pool: StorePool) -> None:
    for number in range(3):
        store = a_store(f"store-{number}", endpointUrl=f"http://127.0.0.{number}:9")
        await pool.call(store, lambda: None)
        await pool.call(store.model_copy(update={"spec": a_store().spec}), lambda: None)
    assert (len(pool._calls["shop"]), set(pool._endpoints)) == (3, {("shop", "http://127.0.0.1:9")})
    for number in range(3):
        pool.forget("shop", f"store-{number}")
    assert (len(pool._calls), len(pool._endpoints)) == (0, 0)


async def test_namespace_with_very_many_stores_keeps_few_breakers(
    pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_pool, "MAX_BREAKERS", 3)
    begun, answer = threading.Event(), threading.Event()

    def slow() -> bool:
        begun.set()
        return answer.wait(30)

    await pool.call(in_namespace("other"), lambda: None)
    running = asyncio.create_task(pool.call(a_store("in-use"), slow))
    await asyncio.to_thread(begun.wait)
    for number in range(10):
        await pool.call(a_store(f"store-{number}"), lambda: None)
    assert list(pool._calls["shop"]) == ["in-use", "store-8", "store-9"]
    assert list(pool._calls["other"]) == ["default"]
    answer.set()
    assert await running


async def test_stores_at_one_address_share_its_endpoint(pool: StorePool) -> None:
    await pool.call(a_store("first"), lambda: None)
    assert pool._breaker(a_store("second"))._endpoint.is_proven


def in_namespace(namespace: str, name: str = "default", **spec: Any) -> BackupStore:
    store = a_store(name, **spec)
    metadata = store.metadata.model_copy(update={"namespace": namespace, "uid": f"uid-of-{name}-in-{namespace}"})
    return store.model_copy(update={"metadata": metadata})


def unreachable() -> None:
    raise StoreUnreachable("the host of the bucket does not exist")


async def test_namespace_cannot_make_the_endpoint_of_another_unproven(pool: StorePool) -> None:
    await pool.call(in_namespace("shop"), lambda: None)
    for spec in ({}, {"addressing": "virtual", "container": "no-such-bucket"}):
        with pytest.raises(StoreUnreachable):
            await pool.call(in_namespace("hostile", f"store-{len(spec)}", **spec), unreachable)
    assert pool._breaker(in_namespace("shop"))._endpoint.is_proven
    assert not pool._breaker(in_namespace("hostile", "store-0"))._endpoint.is_proven


async def test_new_namespace_trusts_an_endpoint_that_answers_others(pool: StorePool) -> None:
    with pytest.raises(StoreUnreachable):
        await pool.call(in_namespace("hostile"), unreachable)
    await pool.call(in_namespace("shop"), lambda: None)
    assert pool._breaker(in_namespace("demo"))._endpoint.is_proven


async def test_namespace_holds_a_quarter_of_the_calls_to_unproven_endpoints(
    pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "SLOT_WAIT_SECONDS", 0.05)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
    answer = threading.Event()
    stores = [in_namespace("hostile", f"s-{number}", endpointUrl=f"http://127.0.0.1:{number}") for number in range(6)]
    asked = [asyncio.create_task(pool.call(store, lambda: answer.wait(30))) for store in stores]
    try:
        _, left = await asyncio.wait(asked, timeout=0.3)
        assert len(left) == circuit_breaker.UNPROVEN_CONCURRENT_CALLS // 4
        assert await pool.call(in_namespace("shop"), lambda: 1) == 1
    finally:
        answer.set()
    await asyncio.wait(asked)
    assert await asyncio.gather(*(pool.call(store, lambda: 2) for store in stores[:2])) == [2, 2]


async def test_namespace_with_many_stores_closes_only_its_own(
    objects: ObjectsInMemory, pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_pool, "MAX_OPEN_STORES", 4)
    secret(objects, "s3", **CREDENTIALS)
    data = {key: base64.b64encode(value.encode()).decode() for key, value in CREDENTIALS.items()}
    objects.create("Secret", {"metadata": {"name": "s3", "namespace": "flood"}, "data": data})
    first = await pool.open(a_store(), "volumebackups", SecretReader())
    for number in range(8):
        await pool.open(in_namespace("flood", f"store-{number}"), "volumebackups", SecretReader())
    assert await pool.open(a_store(), "volumebackups", SecretReader()) is first


async def test_certificates_stay_while_a_closed_store_is_still_used(
    objects: ObjectsInMemory, pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_pool, "MAX_OPEN_STORES", 1)
    secret(objects, "s3", **CREDENTIALS)
    secret(objects, "ca", **{"ca.crt": Authority("tests").certificate.decode()})
    used = await pool.open(a_store(caSecretRef={"name": "ca"}), "volumebackups", SecretReader())
    await pool.open(a_store("other"), "volumebackups", SecretReader())
    assert len(files_of(pool)) == 1
    del used
    await pool.open(a_store("third"), "volumebackups", SecretReader())
    assert files_of(pool) == []


async def test_very_many_certificates_are_refused(objects: ObjectsInMemory, pool: StorePool) -> None:
    secret(objects, "s3", **CREDENTIALS)
    secret(objects, "ca", **{"ca.crt": "x" * (stores_pool.CA_BYTES + 1)})
    with pytest.raises(InvalidInput, match="has more than 256 KiB"):
        await pool.open(a_store(caSecretRef={"name": "ca"}), "volumebackups", SecretReader())
    assert files_of(pool) == []


class CheckedStore(MemoryStore):
    """Counts its checks."""

    checks = 0

    @override
    def check(self) -> None:
        self.checks += 1


async def test_successful_check_counts_for_a_moment(
    objects: ObjectsInMemory, pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckedStore()
    monkeypatch.setattr(stores_pool, "open_store", lambda *_, **__: store)
    secret(objects, "s3", **CREDENTIALS)
    for _ in range(3):
        await pool.check(a_store(), "volumebackups", SecretReader())
    assert store.checks == 1
    monkeypatch.setattr(stores_pool, "CHECK_CACHE_SECONDS", 0.0)
    await pool.check(a_store(), "volumebackups", SecretReader())
    assert store.checks == 2


def encrypted(objects: ObjectsInMemory, annotations: dict[str, str]) -> BackupStore:
    """Return a store whose encryption Secret has two keys and these annotations."""
    secret(objects, "s3", **CREDENTIALS)
    keys = {key_id: base64.b64encode(key).decode() for key_id, key in KEYS.items()}
    found = secret(objects, "keys", **keys)
    objects.update(found, metadata=found["metadata"] | {"annotations": annotations})
    return a_store(encryptionSecretRef={"name": "keys"})


async def test_movers_get_a_key_that_may_seal(objects: ObjectsInMemory, pool: StorePool) -> None:
    store = encrypted(objects, {READ_ONLY_KEYS_ANNOTATION: "2025=2026-01-31T12:00:00Z"})
    assert await pool.active_key(store, SecretReader()) == "2024"
    ring = await pool.keys(store, SecretReader())
    assert ring is not None
    assert (ring.active, sorted(ring.key_ids)) == ("2024", ["2024", "2025"])


async def test_read_only_keys_can_read_backups_but_not_seal_new_ones(objects: ObjectsInMemory, pool: StorePool) -> None:
    store = encrypted(objects, {READ_ONLY_KEYS_ANNOTATION: "2024=2026-01-31T12:00:00Z,2025=2026-01-31T12:00:00Z"})
    assert await pool.keys(store, SecretReader()) is not None
    with pytest.raises(KeyUnavailable, match="Add a new one") as caught:
        await pool.active_key(store, SecretReader())
    assert caught.value.reason == "ReadOnlyKey"


@pytest.mark.parametrize(
    ("annotations", "error", "message"),
    [
        ({READ_ONLY_KEYS_ANNOTATION: "2025"}, InvalidInput, "annotation cinderblock.io/read-only-keys of Secret keys"),
        ({READ_ONLY_KEYS_ANNOTATION: "2042=2026-01-31T12:00:00Z"}, InvalidInput, "2042"),
        (
            {READ_ONLY_KEYS_ANNOTATION: "2025=2026-01-31T12:00:00Z", ACTIVE_KEY_ANNOTATION: "2025"},
            KeyUnavailable,
            "2025",
        ),
    ],
    ids=["malformed", "unknown", "contradicted"],
)
async def test_check_reports_a_wrong_annotation(
    objects: ObjectsInMemory,
    pool: StorePool,
    annotations: dict[str, str],
    error: type[CinderblockError],
    message: str,
) -> None:
    store = encrypted(objects, annotations)
    with pytest.raises(error, match=message):
        await pool.check(store, "volumebackups", SecretReader())


class KeptStore(MemoryStore):
    """A store that counts how often it is asked for its rules, and may be silent."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = BucketRetention(Bucket(lambda: NOW, versioning="Enabled"))
        self.looks = 0

    @property
    @override
    def retention(self) -> Retention:
        self.looks += 1
        return self.kept


async def test_rules_of_a_container_are_asked_once_an_hour(
    objects: ObjectsInMemory, pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeptStore()
    monkeypatch.setattr(stores_pool, "open_store", lambda *_, **__: store)
    secret(objects, "s3", **CREDENTIALS)
    for _ in range(3):
        rules = await pool.container_rules(a_store(), "volumebackups", SecretReader())
        assert rules is not None
        assert rules.versioning is Versioning.ENABLED
    assert store.looks == 1
    loop = asyncio.get_running_loop()
    later = loop.time() + stores_pool.RULES_CACHE_SECONDS + 1
    monkeypatch.setattr(loop, "time", lambda: later)
    await pool.container_rules(a_store(), "volumebackups", SecretReader())
    assert store.looks == 2


async def test_store_that_tells_no_rules_is_used_all_the_same(
    objects: ObjectsInMemory, pool: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = KeptStore()
    store.kept.errors["lifecycle"] = StoreUnreachable("no answer")
    monkeypatch.setattr(stores_pool, "open_store", lambda *_, **__: store)
    secret(objects, "s3", **CREDENTIALS)
    for _ in range(2):
        assert await pool.container_rules(a_store(), "volumebackups", SecretReader()) is None
    assert store.looks == 1
    await pool.check(a_store(), "volumebackups", SecretReader())
    assert await pool.call(a_store(), lambda: "answered") == "answered"


@pytest.mark.parametrize("method", ["versioning", "object_lock", "lifecycle"])
async def test_unknown_rule_is_asked_again_soon(
    objects: ObjectsInMemory, pool: StorePool, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A permission that somebody grants shows within minutes."""
    store = KeptStore()
    store.kept.errors[method] = AccessDenied("no")
    monkeypatch.setattr(stores_pool, "open_store", lambda *_, **__: store)
    secret(objects, "s3", **CREDENTIALS)
    rules = await pool.container_rules(a_store(), "volumebackups", SecretReader())
    assert rules is not None
    assert not rules.are_known
    store.kept.errors.clear()
    loop = asyncio.get_running_loop()
    later = loop.time() + stores_pool.RULES_RETRY_SECONDS + 1
    monkeypatch.setattr(loop, "time", lambda: later)
    rules = await pool.container_rules(a_store(), "volumebackups", SecretReader())
    assert rules is not None
    assert rules.are_known


async def test_check_reports_an_endpoint_that_is_not_allowed(objects: ObjectsInMemory) -> None:
    secret(objects, "s3", **CREDENTIALS)
    kube = KubeClient(SimulatedApi(objects, lambda how, item: None))
    pool = StorePool(kube, ignores_unsigned_headers=ignores_unsigned_headers, allowed_endpoints=["s3.example.com"])
    with pytest.raises(InvalidInput) as raised:
        await pool.check(a_store(), "volumebackups", SecretReader())
    assert raised.value.reason == "EndpointNotAllowed"
    pool.close()
