"""Lists of many callers: bounded responses, and a limit of memory that all requests share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from cinderblock.errors import InvalidInput, KubeUnavailable, ResponseTooLarge
from cinderblock.kube import list_memory
from cinderblock.kube.bounded_client import RESPONSE_BYTES, BoundedKubeClient
from cinderblock.kube.client import PAGE_LIMIT
from cinderblock.kube.kinds import POD, PVC, STORAGE_CLASS, Kind
from cinderblock.kube.list_memory import ListAccount, ListMemory
from cinderblock.kube.transport import Transport
from cinderblock.reasons import Reason
from tests.support.cluster.kube_clients import Anonymous, no_wait
from tests.support.store.scripted_http import Asked, Reply, ScriptedServer, scripted


def pages_of(count: int, size: int) -> Callable[[Asked], Reply]:
    """Serve a list of ``count`` objects with an annotation of ``size`` characters."""

    def answer(asked: Asked) -> Reply:
        start = int(asked.query.get("continue") or 0)
        end = min(count, start + int(asked.query["limit"]))
        annotations = {"big": "x" * size, "cinderblock.io/display-name": "n"}
        items = [{"metadata": {"name": str(n), "annotations": annotations}} for n in range(start, end)]
        return Reply(body=json.dumps({"items": items, "metadata": {"continue": str(end) if end < count else ""}}))

    return answer


@asynccontextmanager
async def bounded(
    script: Callable[[Asked], Reply], memory: ListMemory | None = None
) -> AsyncIterator[tuple[BoundedKubeClient, ScriptedServer]]:
    async with (
        scripted(script) as server,
        aclosing(Transport(Anonymous(server.url), sleep=no_wait)) as transport,
        (memory or ListMemory()).account() as account,
    ):
        yield BoundedKubeClient(transport, account), server


async def test_page_of_big_objects_is_read_again_with_fewer() -> None:
    async with bounded(pages_of(100, 250_000)) as (client, server):
        items = await client.list(PVC, "shop")
    assert [item["metadata"]["name"] for item in items] == [str(number) for number in range(100)]
    limits = [int(asked.query["limit"]) for asked in server.asked]
    assert limits[0] == PAGE_LIMIT
    assert sum(limit * 250_000 > RESPONSE_BYTES for limit in limits) <= len(limits) // 2
    assert len(limits) < 30


async def test_object_larger_than_a_response_is_an_error() -> None:
    async with bounded(pages_of(1, RESPONSE_BYTES)) as (client, _):
        with pytest.raises(ResponseTooLarge):
            await client.list(PVC, "shop")


async def test_only_parts_with_a_reader_are_kept() -> None:
    volumes: list[Any] = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {"x": "y" * 1000}}}},
        {"name": "c", "configMap": {"name": "big"}},
    ]
    pod = {
        "metadata": {"name": "p", "uid": "u", "labels": {"a": "b", "cinderblock.io/owner-uid": "o"}},
        "spec": {"nodeName": "n", "containers": [{"env": "x" * 1000}], "volumes": volumes},
        "status": {"phase": "Running", "startTime": "t", "conditions": ["x" * 1000]},
    }
    async with bounded(lambda _: Reply(body=json.dumps({"items": [pod]}))) as (client, _):
        (kept,) = await client.list(POD, "shop")
    assert kept["metadata"] == {"name": "p", "uid": "u", "labels": {"cinderblock.io/owner-uid": "o"}, "annotations": {}}
    assert [volume["name"] for volume in kept["spec"]["volumes"]] == ["a", "b"]
    assert len(json.dumps(kept)) < 500


async def test_objects_of_administrators_stay_whole() -> None:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true", "kubernetes.io/description": "fast"}
    item = {"metadata": {"name": "fast", "annotations": annotations}}
    async with bounded(lambda _: Reply(body=json.dumps({"items": [item]}))) as (client, _):
        (kept,) = await client.list(STORAGE_CLASS)
    assert kept["metadata"] == item["metadata"]


async def test_list_beyond_the_memory_of_a_request_is_an_error() -> None:
    memory = ListMemory(small=1 << 20, large=3 << 20)
    async with bounded(pages_of(1000, 10), memory) as (client, server):
        with pytest.raises(InvalidInput) as raised:
            await client.list(PVC, "shop")
    assert raised.value.reason == Reason.REQUEST_TOO_LARGE
    assert len(server.asked) == 2


async def test_expired_list_is_unavailable_instead_of_one_huge_page() -> None:
    async with bounded(lambda _: Reply(410)) as (client, _):
        with pytest.raises(KubeUnavailable):
            await client.list(PVC, "shop")


async def held_now(account: ListAccount, amount: int) -> bool:
    """Hold, and return whether that was possible at once. Otherwise it continues."""
    task = asyncio.create_task(account.hold(amount))
    TASKS.add(task)
    await asyncio.wait({task}, timeout=0.02)
    return task.done() and task.exception() is None


TASKS: set[asyncio.Task[None]] = set()


async def test_requests_share_slots_and_one_large_list_at_a_time() -> None:
    memory = ListMemory(slots=2, small=10, large=100)
    first, second, third, fourth = (ListAccount(memory, str(number)) for number in range(4))
    assert await held_now(first, 5)
    assert await held_now(second, 5)
    assert not await held_now(third, 0)
    assert await held_now(first, 50), "the large list gives its slot back"
    assert not await held_now(second, 50), "it waits, and gives its slot back as well"
    assert await held_now(fourth, 5)
    first.close()
    await asyncio.sleep(0)
    for account in (second, third, fourth):
        account.close()
        account.close()
    await asyncio.wait(TASKS)
    async with memory.account() as account:
        await account.hold(100)
    assert (memory.slots._value, memory.waiting) == (2, 0)


async def test_large_lists_of_one_caller_hold_up_no_small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_memory, "WAIT_WITH_SLOT_SECONDS", 0.05)
    memory = ListMemory(small=10, large=100)
    has_ended = asyncio.Event()

    async def read_large_list() -> None:
        async with memory.account("flood") as account:
            await account.hold(50)
            await has_ended.wait()

    flood = [asyncio.create_task(read_large_list()) for _ in range(8)]
    await asyncio.sleep(0.02)
    for _ in range(5):
        async with memory.account("other") as account, asyncio.timeout(0.02):
            await account.hold(5)
    await asyncio.sleep(0.3)
    refused = [task for task in flood if task.done() and task.exception() is not None]
    assert len(refused) == 6, "one is read, one waits, and the others are told to try again"
    assert "Try again" in str(refused[0].exception())
    has_ended.set()
    await asyncio.wait(flood)
    assert (memory.slots._value, memory.waiting) == (list_memory.SLOTS, 0)


async def test_list_that_outlives_its_request_keeps_nothing() -> None:
    """asyncio.gather leaves the other lists of a request running when one of them fails."""
    memory = ListMemory(slots=1)
    async with memory.account() as holder:
        await holder.hold(1)
        async with memory.account() as ended:
            left_behind = asyncio.create_task(ended.hold(1))
            await asyncio.sleep(0)
    with pytest.raises(KubeUnavailable):
        await left_behind
    async with memory.account() as account, asyncio.timeout(10):
        await account.hold(1)


@pytest.mark.parametrize("name", [".", ".."])
def test_names_that_clients_remove_from_a_path_are_refused(name: str) -> None:
    for kind in (PVC, Kind("", "v1", "namespaces", "Namespace", namespaced=False)):
        with pytest.raises(InvalidInput):
            kind.path("shop", name)
    with pytest.raises(InvalidInput):
        PVC.path(name, "data")
