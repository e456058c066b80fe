"""The work queue: each key once, one worker at a time, delays without tasks, priorities that age, growing backoff."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import (
    AGEING_SECONDS,
    BASE_DELAY_SECONDS,
    MAX_DELAY_SECONDS,
    Priority,
    WorkQueue,
)
from tests.support.simulation.virtual_time import in_virtual_time, virtual_clock


def key(name: str) -> ObjectKey:
    return ObjectKey("VolumeBackup", "shop", name)


async def take(queue: WorkQueue) -> str:
    """Take the next key and release it at once. Return its name."""
    found = await queue.get()
    await queue.done(found)
    return found.name


async def is_empty_for(queue: WorkQueue, seconds: float) -> bool:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await queue.get()
    return True


@in_virtual_time
async def test_key_added_many_times_is_taken_once() -> None:
    queue = WorkQueue()
    for _ in range(100):
        await queue.add(key("a"))
    assert await take(queue) == "a"
    assert await is_empty_for(queue, 3600)


@in_virtual_time
async def test_keys_come_in_the_order_of_their_due_times() -> None:
    queue = WorkQueue()
    await queue.add(key("late"), 10)
    await queue.add(key("first"))
    await queue.add(key("second"))
    assert [await take(queue) for _ in range(3)] == ["first", "second", "late"]
    assert virtual_clock() == 1010


@in_virtual_time
async def test_higher_priority_comes_first() -> None:
    queue = WorkQueue()
    await queue.add(key("normal"))
    await queue.add(key("high"), priority=Priority.HIGH)
    await queue.add(key("started"), priority=Priority.STARTED)
    assert [await take(queue) for _ in range(3)] == ["started", "high", "normal"]


@in_virtual_time
async def test_waiting_key_ages_by_one_priority() -> None:
    queue = WorkQueue()
    await queue.add(key("old"))
    await asyncio.sleep(AGEING_SECONDS - 1)
    await queue.add(key("high"), priority=Priority.HIGH)
    await asyncio.sleep(2)
    await queue.add(key("too-late"), priority=Priority.HIGH)
    await queue.add(key("started"), priority=Priority.STARTED)
    assert [await take(queue) for _ in range(4)] == ["started", "high", "old", "too-late"]


@in_virtual_time
async def test_priority_does_not_shorten_a_delay() -> None:
    queue = WorkQueue()
    await queue.add(key("a"), 60, Priority.STARTED)
    assert queue.counts() == {"due": 0, "delayed": 1, "running": 0}
    assert await take(queue) == "a"
    assert virtual_clock() == 1060


@in_virtual_time
async def test_key_added_again_keeps_the_higher_priority() -> None:
    queue = WorkQueue()
    await queue.add(key("a"), 60, Priority.STARTED)
    await queue.add(key("b"), priority=Priority.HIGH)
    await queue.add(key("a"))
    assert [await take(queue) for _ in range(2)] == ["a", "b"]
    assert virtual_clock() == 1000


@in_virtual_time
async def test_key_added_again_keeps_the_earlier_due_time() -> None:
    queue = WorkQueue()
    await queue.add(key("a"), 60)
    await queue.add(key("a"), 5)
    await queue.add(key("a"), 600)
    assert await take(queue) == "a"
    assert virtual_clock() == 1005
    assert await is_empty_for(queue, 3600)


ADDS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([0.0, 1.0, 30.0, 700.0]), st.sampled_from(Priority)),
    min_size=1,
    max_size=20,
)


@given(adds=ADDS)
@in_virtual_time
async def test_keys_come_in_the_order_of_a_simple_model(adds: list[tuple[int, float, Priority]]) -> None:
    """The model sorts all due keys by their rank whenever one is taken."""
    queue, model = WorkQueue(), dict[str, tuple[float, float]]()
    for number, after, priority in adds:
        name, due = f"k{number}", virtual_clock() + after
        await queue.add(key(name), after, priority)
        earlier = model.get(name, (due, float("inf")))
        model[name] = min(due, earlier[0]), min(due - priority * AGEING_SECONDS, earlier[1])
        await asyncio.sleep(0.25)
    while model:
        name = await take(queue)
        ready = [(rank, other) for other, (due, rank) in model.items() if due <= virtual_clock()]
        assert name == min(ready)[1]
        del model[name]
    assert len(queue) == 0


@in_virtual_time
async def test_running_key_is_taken_again_only_after_it_is_done() -> None:
    queue = WorkQueue()
    await queue.add(key("a"))
    held = await queue.get()
    await queue.add(key("a"))
    assert await is_empty_for(queue, 60)
    await queue.done(held)
    assert await take(queue) == "a"


@in_virtual_time
async def test_running_key_does_not_block_other_keys() -> None:
    queue = WorkQueue()
    await queue.add(key("busy"))
    await queue.get()
    await queue.add(key("busy"))
    await queue.add(key("other"))
    assert await take(queue) == "other"


@in_virtual_time
async def test_key_added_again_at_once_comes_after_others() -> None:
    queue = WorkQueue()
    for name in ("hot", "a", "b", "c"):
        await queue.add(key(name))
        await asyncio.sleep(0.001)
    names = []
    for _ in range(6):
        name = await take(queue)
        names.append(name)
        if name == "hot":
            await queue.add(key("hot"))
    assert names[:4] == ["hot", "a", "b", "c"]


@in_virtual_time
async def test_backoff_grows_to_a_limit_and_ends_with_forget() -> None:
    queue = WorkQueue()
    delays = [queue.backoff(key("a")) for _ in range(14)]
    for number, delay in enumerate(delays):
        longest = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2**number)
        assert longest / 2 <= delay <= longest
    assert queue.backoff(key("b")) <= BASE_DELAY_SECONDS
    queue.forget(key("a"))
    assert queue.backoff(key("a")) <= BASE_DELAY_SECONDS


@in_virtual_time
async def test_delayed_keys_need_no_tasks() -> None:
    queue = WorkQueue()
    for number in range(10_000):
        await queue.add(key(f"k{number}"), 3600 + number)
    assert len(asyncio.all_tasks()) == 1
    assert queue.counts() == {"due": 0, "delayed": 10_000, "running": 0}


@in_virtual_time
async def test_workers_share_the_keys() -> None:
    queue = WorkQueue()
    done: list[str] = []

    async def worker() -> None:
        while True:
            found = await queue.get()
            await asyncio.sleep(1)
            done.append(found.name)
            await queue.done(found)

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for _ in range(4)]
        for number in range(8):
            await queue.add(key(f"k{number}"))
        await asyncio.sleep(2.5)
        for task in workers:
            task.cancel()
    assert sorted(done) == [f"k{number}" for number in range(8)]
