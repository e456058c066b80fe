"""Stores as the operator opens them: kept while nothing changes, opened anew with a rotated Secret."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.stores import pool as stores_pool
from cinderblock.controller.stores import secrets
from cinderblock.controller.stores.pool import ACTIVE_KEY_ANNOTATION, StorePool
from cinderblock.errors import CinderblockError, InvalidInput, KeyUnavailable, KubeUnavailable, NotFound
from cinderblock.format.crypto.read_only_keys import READ_ONLY_KEYS_ANNOTATION
from cinderblock.kube.client import KubeClient
from cinderblock.store.memory import MemoryStore
from tests.support.cluster.kube_clients import client_of
from tests.support.mover.backups import KEYS
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi
from tests.support.store.scripted_http import Reply

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "the-secret"}


@pytest.fixture
def objects() -> ObjectsInMemory:
    return ObjectsInMemory(lambda: NOW)


@pytest.fixture
def opened(objects: ObjectsInMemory) -> Iterator[StorePool]:
    kept = StorePool(KubeClient(SimulatedApi(objects, lambda how, item: None)))
    yield kept
    kept.close()


def secret(objects: ObjectsInMemory, name: str, /, **content: str) -> Any:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in content.items()}
    return objects.create("Secret", {"metadata": {"name": name, "namespace": "shop"}, "data": data})


def a_store(name: str = "default", **spec: Any) -> BackupStore:
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-of-{name}"}
    fields = {"credentialsSecretRef": {"name": "s3"}, "endpointUrl": "http://127.0.0.1:9"} | spec
    return BackupStore.model_validate({"metadata": metadata, "spec": fields})


async def test_a_store_is_opened_once_while_nothing_changes(objects: ObjectsInMemory, opened: StorePool) -> None:
    secret(objects, "s3", **CREDENTIALS)
    first = await opened.open(a_store(), "volumebackups")
    assert await opened.open(a_store(), "volumebackups") is first


async def test_a_rotated_secret_a_changed_store_and_another_bucket_are_opened_anew(
    objects: ObjectsInMemory, opened: StorePool
) -> None:
    found = secret(objects, "s3", **CREDENTIALS)
    first = await opened.open(a_store(), "volumebackups")
    assert await opened.open(a_store(), "another") is not first
    assert await opened.open(a_store(region="eu-west-1"), "volumebackups") is not first
    objects.update(found, data=found["data"] | {"AWS_SECRET_ACCESS_KEY": base64.b64encode(b"newer").decode()})
    assert await opened.open(a_store(), "volumebackups") is not first


async def test_a_secret_that_may_not_be_read_for_now_is_no_answer_of_the_store() -> None:
    """An API server that has just started says so of everything, until it knows all roles."""
    async with client_of([Reply(403, "{}")] * 9) as (client, _):
        kept = StorePool(client)
        with pytest.raises(KubeUnavailable, match=r"Secret s3 of BackupStore default: .*Cannot get secrets"):
            await kept.open(a_store(), "volumebackups")


async def test_the_same_name_in_another_namespace_is_another_store(objects: ObjectsInMemory, opened: StorePool) -> None:
    secret(objects, "s3", **CREDENTIALS)
    await opened.open(a_store(), "volumebackups")
    other = a_store()
    theirs = other.model_copy(update={"metadata": other.metadata.model_copy(update={"namespace": "others"})})
    with pytest.raises(NotFound, match="Secret s3 of BackupStore default does not exist in namespace others"):
        await opened.open(theirs, "volumebackups")


async def test_a_secret_that_is_gone_is_named_although_the_store_was_open(
    objects: ObjectsInMemory, opened: StorePool
) -> None:
    found = secret(objects, "s3", **CREDENTIALS)
    await opened.open(a_store(), "volumebackups")
    objects.delete(found)
    with pytest.raises(NotFound) as raised:
        await opened.open(a_store(), "volumebackups")
    assert raised.value.reason == "SecretNotFound"
    secret(objects, "s3", **CREDENTIALS)
    await opened.open(a_store(), "volumebackups")


async def test_a_secret_without_its_keys_is_named_and_not_shown(objects: ObjectsInMemory, opened: StorePool) -> None:
    secret(objects, "s3", AWS_SECRET_ACCESS_KEY="the-secret")
    with pytest.raises(InvalidInput) as raised:
        await opened.open(a_store(), "volumebackups")
    assert "AWS_ACCESS_KEY_ID" in raised.value.message
    assert "the-secret" not in repr(raised.value)


async def test_a_ca_secret_without_certificates_is_named(objects: ObjectsInMemory, opened: StorePool) -> None:
    secret(objects, "s3", **CREDENTIALS)
    secret(objects, "ca", other="text")
    with pytest.raises(NotFound, match=r"has no key ca\.crt"):
        await opened.open(a_store(caSecretRef={"name": "ca"}), "volumebackups")


def test_certificates_that_one_store_reads_are_not_taken_away_by_another(
    objects: ObjectsInMemory, opened: StorePool
) -> None:
    found = secret(objects, "ca", **{"ca.crt": "certificates"})
    kept = secrets.Secret(found)
    path = opened._write_certificates(a_store(), kept)
    with open(path) as reading:
        before = os.fstat(reading.fileno()).st_mtime_ns
        assert opened._write_certificates(a_store("second"), kept) == path
        assert os.fstat(reading.fileno()).st_mtime_ns == before, "nobody writes into a file that is being read"
    assert Path(path).read_text() == "certificates"


async def test_no_more_stores_are_kept_open_than_may_be(
    objects: ObjectsInMemory, opened: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_pool, "MAX_OPEN_STORES", 2)
    secret(objects, "s3", **CREDENTIALS)
    first = await opened.open(a_store("first"), "volumebackups")
    await opened.open(a_store("second"), "volumebackups")
    assert await opened.open(a_store("first"), "volumebackups") is first
    await opened.open(a_store("third"), "volumebackups")
    assert await opened.open(a_store("first"), "volumebackups") is first, "the one used last stays"
    assert len(opened._open) == 2


async def test_the_active_key_is_what_the_encryption_secret_says(objects: ObjectsInMemory, opened: StorePool) -> None:
    found = secret(objects, "keys", **{"key-1": base64.b64encode(bytes(32)).decode()})
    sealed = a_store(encryptionSecretRef={"name": "keys"})
    assert await opened.active_key(sealed) is None
    annotations = {ACTIVE_KEY_ANNOTATION: "key-1"}
    objects.update(found, metadata=found["metadata"] | {"annotations": annotations})
    assert await opened.active_key(sealed) == "key-1"
    assert await opened.active_key(a_store()) is None
    assert await opened.keys(a_store()) is None


async def test_a_secret_is_read_once_in_a_look_and_again_in_the_next(
    objects: ObjectsInMemory, opened: StorePool
) -> None:
    secret(objects, "s3", **CREDENTIALS)
    secrets.begin_to_look()
    first = await opened.open(a_store(), "volumebackups")
    assert await opened.open(a_store(), "volumebackups") is first
    assert opened._kube.response_counts["get", "secrets", 200] == 1
    objects.delete(next(iter(objects.all("Secret"))))
    secrets.begin_to_look()
    with pytest.raises(NotFound, match="create it"):
        await opened.open(a_store(), "volumebackups")


class Asked(MemoryStore):
    """Counts how often it is asked whether it can be used."""

    checks = 0

    @override
    def check(self) -> None:
        self.checks += 1


async def test_a_store_that_has_just_answered_is_not_asked_again(
    objects: ObjectsInMemory, opened: StorePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Asked()
    monkeypatch.setattr(stores_pool, "open_store", lambda *_, **__: store)
    secret(objects, "s3", **CREDENTIALS)
    for _ in range(3):
        await opened.check(a_store(), "volumebackups")
    assert store.checks == 1
    monkeypatch.setattr(stores_pool, "CHECK_CACHE_SECONDS", 0.0)
    await opened.check(a_store(), "volumebackups")
    assert store.checks == 2


def encrypted(objects: ObjectsInMemory, annotations: dict[str, str]) -> BackupStore:
    """A store whose encryption Secret has two keys and these annotations."""
    secret(objects, "s3", **CREDENTIALS)
    keys = {key_id: base64.b64encode(key).decode() for key_id, key in KEYS.items()}
    found = secret(objects, "keys", **keys)
    objects.update(found, metadata=found["metadata"] | {"annotations": annotations})
    return a_store(encryptionSecretRef={"name": "keys"})


async def test_movers_are_told_a_key_that_may_seal_where_others_may_not(
    objects: ObjectsInMemory, opened: StorePool
) -> None:
    store = encrypted(objects, {READ_ONLY_KEYS_ANNOTATION: "2025=2026-01-31T12:00:00Z"})
    assert await opened.active_key(store) == "2024"
    ring = await opened.keys(store)
    assert ring is not None
    assert (ring.active, sorted(ring.key_ids)) == ("2024", ["2024", "2025"])


async def test_where_no_key_may_seal_what_is_stored_can_be_read_and_a_backup_says_why(
    objects: ObjectsInMemory, opened: StorePool
) -> None:
    store = encrypted(objects, {READ_ONLY_KEYS_ANNOTATION: "2024=2026-01-31T12:00:00Z,2025=2026-01-31T12:00:00Z"})
    assert await opened.keys(store) is not None
    with pytest.raises(KeyUnavailable, match="Add a new one") as caught:
        await opened.active_key(store)
    assert caught.value.reason == "ReadOnlyKey"


@pytest.mark.parametrize(
    ("annotations", "error", "words"),
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
async def test_a_wrong_annotation_is_told_by_a_check_of_the_store(
    objects: ObjectsInMemory,
    opened: StorePool,
    annotations: dict[str, str],
    error: type[CinderblockError],
    words: str,
) -> None:
    store = encrypted(objects, annotations)
    with pytest.raises(error, match=words):
        await opened.check(store, "volumebackups")
