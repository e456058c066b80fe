"""The broker as the operator sees it: the certificate of its authority, and whether it answers."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from cinderblock.controller.cluster_stores import broker as broker_module
from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.context import Context
from cinderblock.controller.stores.pool import StorePool
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.observed import MoverSettings, OperatorAccount, OperatorPolicy
from tests.support.cluster.certificates import Authority
from tests.support.cluster.kube_clients import client_of
from tests.support.shared_stores import SYSTEM
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi
from tests.support.store.scripted_http import Reply

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
URL = "https://broker.example:8778"


def a_context(objects: ObjectsInMemory, url: str = URL) -> Context:
    policy = OperatorPolicy(MoverSettings("image", broker_url=url), account=OperatorAccount(SYSTEM))
    return Context(KubeClient(SimulatedApi(objects, lambda how, item: None)), cast("StorePool", None), policy)


def a_secret(objects: ObjectsInMemory, content: bytes) -> Any:
    data = {"ca.crt": base64.b64encode(content).decode()}
    return objects.create("Secret", {"metadata": {"name": "tls", "namespace": SYSTEM}, "data": data})


async def test_tasks_get_the_certificate_of_the_authority() -> None:
    objects = ObjectsInMemory(lambda: NOW)
    a_secret(objects, CERTIFICATE.encode())
    found = await Broker("tls").add_to(a_context(objects))
    assert found.policy.mover.broker_ca == CERTIFICATE
    assert found.policy.mover.broker_url == URL


async def test_nobody_goes_on_before_the_first_certificate_was_read() -> None:
    body = {"data": {"ca.crt": base64.b64encode(CERTIFICATE.encode()).decode()}}
    async with client_of([Reply(body=json.dumps(body))]) as (client, server):
        context, broker = replace(a_context(ObjectsInMemory(lambda: NOW)), kube=client), Broker("tls")
        found = await asyncio.gather(*(broker.add_to(context) for _ in range(16)))
    assert len(server.asked) == 1
    assert {context.policy.mover.broker_ca for context in found} == {CERTIFICATE}


async def test_policy_stays_the_same_object_while_nothing_changes() -> None:
    objects = ObjectsInMemory(lambda: NOW)
    a_secret(objects, CERTIFICATE.encode())
    context, broker = a_context(objects), Broker("tls")
    first = await broker.add_to(context)
    assert (await broker.add_to(context)).policy is first.policy


async def test_text_around_a_certificate_is_left_out() -> None:
    objects = ObjectsInMemory(lambda: NOW)
    a_secret(objects, "# Autorité de Genève\r\n".encode("latin-1") + CERTIFICATE.encode())
    assert (await Broker("tls").add_to(a_context(objects))).policy.mover.broker_ca == CERTIFICATE


async def test_missing_certificate_is_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "MISSING_SECONDS", 0.0)
    objects, broker = ObjectsInMemory(lambda: NOW), Broker("tls")
    context = a_context(objects)
    assert (await broker.add_to(context)).policy.mover.broker_ca == ""
    a_secret(objects, CERTIFICATE.encode())
    assert (await broker.add_to(context)).policy.mover.broker_ca == CERTIFICATE


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", CERTIFICATE.encode() * (broker_module.MAX_BYTES // 50)])
async def test_content_that_is_no_certificate_counts_as_none(content: bytes) -> None:
    objects = ObjectsInMemory(lambda: NOW)
    a_secret(objects, content)
    assert (await Broker("tls").add_to(a_context(objects))).policy.mover.broker_ca == ""


async def test_deleted_certificate_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "AUTHORITY_SECONDS", 0.0)
    objects, broker = ObjectsInMemory(lambda: NOW), Broker("tls")
    secret = a_secret(objects, CERTIFICATE.encode())
    await broker.add_to(a_context(objects))
    objects.delete(secret)
    assert (await broker.add_to(a_context(objects))).policy.mover.broker_ca == CERTIFICATE


async def test_operator_without_a_broker_reads_nothing() -> None:
    context = a_context(ObjectsInMemory(lambda: NOW), url="")
    assert await Broker("tls").add_to(context) is context


@asynccontextmanager
async def listening(authority: Authority, folder: Path, name: str = "localhost") -> AsyncIterator[str]:
    """Accept TLS connections for a host name, and return the URL."""
    identity = authority.sign(name)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(identity.certificate)
    key.write_bytes(identity.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "localhost", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


def settings(url: str, authority: Authority) -> MoverSettings:
    return MoverSettings("image", broker_url=url, broker_ca=authority.certificate.decode())


async def test_broker_with_a_certificate_of_its_authority_is_reachable(tmp_path: Path) -> None:
    authority = Authority("broker")
    async with listening(authority, tmp_path) as url:
        assert await Broker("tls").check(settings(url, authority)) is None


async def test_other_server_and_silence_are_unavailable(tmp_path: Path) -> None:
    authority = Authority("broker")
    async with listening(authority, tmp_path) as url:
        foreign = await Broker("tls").check(settings(url, Authority("other")))
    silent = await Broker("tls").check(settings(url, authority))
    early = await Broker("tls").check(MoverSettings("image", broker_url=url))
    broken = await Broker("tls").check(MoverSettings("image", broker_url=url, broker_ca="no certificate"))
    for error in (foreign, silent, early, broken):
        assert error is not None
        assert (error.reason, error.permanent) == ("BrokerUnavailable", False)


async def test_short_silence_of_a_broker_that_answered_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "CHECK_SECONDS", 0.0)
    authority, broker = Authority("broker"), Broker("tls")
    async with listening(authority, tmp_path) as url:
        policy = settings(url, authority)
        assert await broker.check(policy) is None
    assert await broker.check(policy, was_reachable=True) is None, "it restarts"
    assert await broker.check(policy) is not None, "a store that is not ready stays so"
    monkeypatch.setattr(broker_module, "TOLERATED_SECONDS", 0.0)
    assert await broker.check(policy, was_reachable=True) is not None
