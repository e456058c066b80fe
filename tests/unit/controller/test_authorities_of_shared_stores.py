"""The certificates that movers of a shared store trust: those of its CA Secret, never those of the system instead."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from cinderblock.controller.context import Context
from cinderblock.controller.stores.pool import StorePool
from cinderblock.errors import KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.mover import broker
from cinderblock.lifecycle.observed import MoverSettings, OperatorAccount, OperatorPolicy
from cinderblock.lifecycle.store import movers
from cinderblock.lifecycle.verdicts import Wait
from tests.support.shared_stores import SYSTEM, a_backup_store, a_cluster_store
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
SETTINGS = MoverSettings("image", broker_url="https://broker.example:8778", broker_ca=CERTIFICATE)
POLICY = OperatorPolicy(SETTINGS, account=OperatorAccount(SYSTEM))


@pytest.fixture
def objects() -> ObjectsInMemory:
    made = ObjectsInMemory(lambda: NOW)
    made.create("Namespace", {"metadata": {"name": "shop"}})
    store = a_cluster_store(caSecretRef={"name": "ca"}).model_dump(mode="json", by_alias=True, exclude_none=True)
    made.create("ClusterBackupStore", {"metadata": {"name": "shared"}, "spec": store["spec"]})
    return made


def a_context(objects: ObjectsInMemory) -> Context:
    kube = KubeClient(SimulatedApi(objects, lambda how, item: None))
    return Context(kube, cast("StorePool", None), POLICY, clock=lambda: NOW)


def keep(objects: ObjectsInMemory, content: bytes) -> None:
    data = {"ca.crt": base64.b64encode(content).decode()}
    objects.create("Secret", {"metadata": {"name": "ca", "namespace": SYSTEM}, "data": data})


async def test_comments_of_any_encoding_are_left_out(objects: ObjectsInMemory) -> None:
    keep(objects, "Autorité de Genève\n".encode("latin-1") + 2 * CERTIFICATE.encode())
    found = await a_context(objects).resolve(a_backup_store("shop"))
    assert movers.verdict(found, POLICY) is None
    assert found.store is not None
    location = broker.location(found.store, SETTINGS)
    assert location is not None
    assert location.ca_certificates == 2 * CERTIFICATE


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"no certificate"])
async def test_no_mover_starts_without_the_certificates(objects: ObjectsInMemory, content: bytes | None) -> None:
    if content is not None:
        keep(objects, content)
    found = await a_context(objects).resolve(a_backup_store("shop"))
    assert isinstance(movers.verdict(found, POLICY), Wait)
    assert found.store is not None
    location = broker.location(found.store, SETTINGS)
    assert location is not None
    assert location.ca_certificates == broker.NO_CERTIFICATES, "empty would mean the authorities of the system"


async def test_secret_that_cannot_be_read_now_is_read_again(objects: ObjectsInMemory) -> None:
    context = a_context(objects)

    class Down:
        async def read(self, *_: object) -> None:
            raise KubeUnavailable("the API server does not answer")

    with pytest.raises(KubeUnavailable):
        await replace(context, secrets=cast("object", Down())).resolve(a_backup_store("shop"))  # type: ignore[arg-type]
