"""Shared stores as the broker opens them: no S3 server that hangs costs more than one thread."""

from __future__ import annotations

import asyncio
import base64
import threading
from datetime import UTC, datetime

import pytest

from cinderblock.broker.stores import StoreSecrets
from cinderblock.errors import StoreUnreachable
from cinderblock.kube.client import KubeClient
from cinderblock.reasons import Reason
from tests.support.shared_stores import SYSTEM, a_shared_store
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
KEY = base64.b64encode(b"key").decode()


@pytest.fixture
def kube() -> KubeClient:
    objects = ObjectsInMemory(lambda: NOW)
    data = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY}
    objects.create("Secret", {"metadata": {"name": "s3", "namespace": SYSTEM}, "data": data})
    return KubeClient(SimulatedApi(objects, lambda how, item: None))


async def test_requests_that_end_early_leave_one_probe(kube: KubeClient) -> None:
    """Each request of a mover ends after half a minute, and the mover sends the next one. The server never answers."""
    began, answers = list[str](), threading.Event()

    def hang(*_: object) -> bool:
        began.append("probe")
        answers.wait(10)
        return False

    stores, store = StoreSecrets(kube, ignores_unsigned_headers=hang), a_shared_store("shop")
    try:
        for _ in range(20):
            request = asyncio.create_task(stores.open_to_sign(store))
            async with asyncio.timeout(10):
                while not began:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        others = [asyncio.create_task(stores.open_to_sign(a_shared_store(name))) for name in ("shop", "bank", "mail")]
        await asyncio.sleep(0)
        answers.set()
        assert {(await other).container_url for other in others} == {(await stores.open(store)).container_url}
        assert began == ["probe"]
    finally:
        answers.set()
        stores.close()


async def test_server_that_does_not_answer_is_asked_again(kube: KubeClient) -> None:
    answers: list[bool | StoreUnreachable] = [StoreUnreachable("It says why."), False]

    def ask(*_: object) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, StoreUnreachable):
            raise answer
        return answer

    stores = StoreSecrets(kube, ignores_unsigned_headers=ask)
    with pytest.raises(StoreUnreachable, match="cannot check the S3 server") as raised:
        await stores.open_to_sign(a_shared_store("shop"))
    assert (raised.value.reason, "says why" in raised.value.message) == (Reason.BROKER_UNAVAILABLE, False)
    await stores.open_to_sign(a_shared_store("shop"))
    assert answers == []
