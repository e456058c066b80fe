"""The queue: each key once, one worker at a time, delays without tasks, longer and longer waits after failures."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import BASE_DELAY_SECONDS, MAX_DELAY_SECONDS, URGENT, WorkQueue
from tests.support.simulation.virtual_time import in_virtual_time, virtual_clock


def key(name: str) -> ObjectKey:
    return ObjectKey("VolumeBackup", "shop", name)


async def taken(queue: WorkQueue) -> str:
    """Name of the next key; given back at once."""
    found = await queue.get()
    await queue.done(found)
    return found.name


async def nothing_comes(queue: WorkQueue, seconds: float) -> bool:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await queue.get()
    return True


@in_virtual_time
async def test_a_key_that_is_added_many_times_is_worked_on_once() -> None:
    queue = WorkQueue()
    for _ in range(100):
        await queue.add(key("a"))
    assert await taken(queue) == "a"
    assert await nothing_comes(queue, 3600)


@in_virtual_time
async def test_keys_come_in_the_order_in_which_they_are_due() -> None:
    queue = WorkQueue()
    await queue.add(key("late"), 10)
    await queue.add(key("first"))
    await queue.add(key("second"))
    await queue.add(key("urgent"), URGENT)
    assert [await taken(queue) for _ in range(4)] == ["urgent", "first", "second", "late"]
    assert virtual_clock() == 1010


@in_virtual_time
async def test_the_sooner_of_two_instants_counts() -> None:
    queue = WorkQueue()
    await queue.add(key("a"), 60)
    await queue.add(key("a"), 5)
    await queue.add(key("a"), 600)
    assert await taken(queue) == "a"
    assert virtual_clock() == 1005
    assert await nothing_comes(queue, 3600)


@in_virtual_time
async def test_a_key_that_is_worked_on_is_given_to_nobody_else_and_comes_back_afterwards() -> None:
    queue = WorkQueue()
    await queue.add(key("a"))
    mine = await queue.get()
    await queue.add(key("a"))
    assert await nothing_comes(queue, 60)
    await queue.done(mine)
    assert await taken(queue) == "a"


@in_virtual_time
async def test_a_busy_key_is_in_nobodys_way() -> None:
    queue = WorkQueue()
    await queue.add(key("busy"))
    await queue.get()
    await queue.add(key("busy"))
    await queue.add(key("other"))
    assert await taken(queue) == "other"


@in_virtual_time
async def test_a_key_that_comes_back_at_once_lets_the_others_go_first() -> None:
    queue = WorkQueue()
    for name in ("hot", "a", "b", "c"):
        await queue.add(key(name))
        await asyncio.sleep(0.001)
    seen = []
    for _ in range(6):
        name = await taken(queue)
        seen.append(name)
        if name == "hot":
            await queue.add(key("hot"))
    assert seen[:4] == ["hot", "a", "b", "c"]


@in_virtual_time
async def test_failures_wait_longer_and_longer_but_not_for_ever_and_a_success_ends_that() -> None:
    queue = WorkQueue()
    waits = [queue.backoff(key("a")) for _ in range(14)]
    for number, wait in enumerate(waits):
        longest = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2**number)
        assert longest / 2 <= wait <= longest
    assert queue.backoff(key("b")) <= BASE_DELAY_SECONDS
    queue.forget(key("a"))
    assert queue.backoff(key("a")) <= BASE_DELAY_SECONDS


@in_virtual_time
async def test_many_delays_cost_no_task() -> None:
    queue = WorkQueue()
    for number in range(10_000):
        await queue.add(key(f"k{number}"), 3600 + number)
    assert len(asyncio.all_tasks()) == 1
    assert queue.counts() == {"due": 0, "delayed": 10_000, "running": 0}


@in_virtual_time
async def test_several_workers_share_the_keys() -> None:
    queue = WorkQueue()
    got: list[str] = []

    async def worker() -> None:
        while True:
            found = await queue.get()
            await asyncio.sleep(1)
            got.append(found.name)
            await queue.done(found)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for _ in range(4)]
        for number in range(8):
            await queue.add(key(f"k{number}"))
        await asyncio.sleep(2.5)
        for task in workers:
            task.cancel()
    assert sorted(got) == [f"k{number}" for number in range(8)]
