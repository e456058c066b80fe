"""Workers: an object that fails, hangs or is broken comes back later and stops nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.worker import enqueue_all, resync, run_worker
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import KubeUnavailable
from tests.support.simulation.virtual_time import in_virtual_time

KEYS = [ObjectKey("VolumeBackup", "shop", f"b{number}") for number in range(10)]
POISON = KEYS[3]

Reconcile = Callable[[ObjectKey], Awaitable[float | None]]


async def run(reconcile: Reconcile, seconds: float, workers: int = 2) -> Counter[str]:
    """Work on KEYS for some time; how often each was looked at."""
    queue, looks = WorkQueue(), Counter[str]()

    async def counted(key: ObjectKey) -> float | None:
        looks[key.name] += 1
        return await reconcile(key)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run_worker(queue, counted)) for _ in range(workers)]
        for key in KEYS:
            await queue.add(key)
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
    return looks


def raising(error: Exception) -> Reconcile:
    async def reconcile(key: ObjectKey) -> None:
        if key == POISON:
            raise error

    return reconcile


@in_virtual_time
async def test_an_unexpected_exception_stops_nobody_and_is_tried_again_ever_more_slowly() -> None:
    looks = await run(raising(ZeroDivisionError("a defect")), 3600)
    assert all(looks[key.name] == 1 for key in KEYS if key != POISON)
    assert 10 < looks[POISON.name] < 60


@in_virtual_time
async def test_a_cancellation_that_nobody_asked_of_a_worker_costs_no_worker() -> None:
    async def reconcile(key: ObjectKey) -> None:
        if key == POISON:
            raise asyncio.CancelledError

    looks = await run(reconcile, 3600, workers=1)
    assert all(looks[key.name] == 1 for key in KEYS if key != POISON)
    assert 10 < looks[POISON.name] < 60


@in_virtual_time
async def test_an_error_of_ours_is_tried_again() -> None:
    looks = await run(raising(KubeUnavailable("no answer")), 60)
    assert all(looks[key.name] == 1 for key in KEYS if key != POISON)
    assert 5 <= looks[POISON.name] <= 8


@in_virtual_time
async def test_what_hangs_holds_one_worker_only() -> None:
    async def reconcile(key: ObjectKey) -> None:
        if key == POISON:
            await asyncio.Event().wait()

    looks = await run(reconcile, 60)
    assert all(looks[key.name] == 1 for key in KEYS)


@in_virtual_time
async def test_who_wants_to_be_looked_at_again_is() -> None:
    async def reconcile(key: ObjectKey) -> float | None:
        return 10.0 if key == POISON else None

    looks = await run(reconcile, 95)
    assert looks[POISON.name] == 10
    assert all(looks[key.name] == 1 for key in KEYS if key != POISON)


@in_virtual_time
async def test_a_hot_object_does_not_starve_the_others() -> None:
    async def reconcile(key: ObjectKey) -> float | None:
        await asyncio.sleep(0.01)
        return 0.0 if key == POISON else 1.0

    looks = await run(reconcile, 60, workers=1)
    assert min(looks[key.name] for key in KEYS) >= 55


@in_virtual_time
async def test_what_was_under_way_comes_first_when_another_one_begins_to_lead() -> None:
    queue, failures = WorkQueue(), 2

    async def listed() -> list[tuple[ObjectKey, bool]]:
        nonlocal failures
        if failures:
            failures -= 1
            raise KubeUnavailable("no answer")
        return [(key, key == POISON) for key in KEYS]

    await enqueue_all(queue, listed)
    assert (await queue.get(), len(queue)) == (POISON, 9)


@in_virtual_time
async def test_the_resync_spreads_its_keys_and_survives_a_failure() -> None:
    queue, lists = WorkQueue(), 0

    async def listed() -> list[tuple[ObjectKey, bool]]:
        nonlocal lists
        lists += 1
        if lists == 1:
            raise KubeUnavailable("no answer")
        return [(key, False) for key in KEYS]

    async with asyncio.TaskGroup() as group:
        task = group.create_task(resync(queue, listed, 600))
        await asyncio.sleep(601)
        assert len(queue) == 0
        await asyncio.sleep(600)
        assert queue.counts() == {"due": 1, "delayed": 9, "running": 0}
        await asyncio.sleep(60)
        assert queue.counts()["due"] == 10
        task.cancel()
