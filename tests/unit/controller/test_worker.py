"""Workers: an object that fails, hangs or is broken comes back later and stops no other."""

from __future__ import annotations

import asyncio
from collections import Counter

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.requeue import Result
from cinderblock.controller.worker import ReconcileFunc, enqueue_all, resync, run_worker
from cinderblock.controller.workqueue import Priority, WorkQueue
from cinderblock.errors import KubeUnavailable
from tests.support.simulation.virtual_time import in_virtual_time

KEYS = [ObjectKey("VolumeBackup", "shop", f"b{number}") for number in range(10)]
POISON = KEYS[3]


async def run(reconcile: ReconcileFunc, seconds: float, workers: int = 2) -> Counter[str]:
    """Reconcile KEYS for some time. Return how often each was reconciled, by name."""
    queue, counts = WorkQueue(), Counter[str]()

    async def counted(key: ObjectKey) -> Result:
        counts[key.name] += 1
        return await reconcile(key)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run_worker(queue, counted)) for _ in range(workers)]
        for key in KEYS:
            await queue.add(key)
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
    return counts


def raising(error: BaseException) -> ReconcileFunc:
    async def reconcile(key: ObjectKey) -> Result:
        if key == POISON:
            raise error
        return Result()

    return reconcile


@in_virtual_time
async def test_unexpected_exception_is_retried_ever_more_slowly() -> None:
    counts = await run(raising(ZeroDivisionError("a defect")), 3600)
    assert all(counts[key.name] == 1 for key in KEYS if key != POISON)
    assert 10 < counts[POISON.name] < 60


@in_virtual_time
async def test_unrequested_cancellation_does_not_end_the_worker() -> None:
    counts = await run(raising(asyncio.CancelledError()), 3600, workers=1)
    assert all(counts[key.name] == 1 for key in KEYS if key != POISON)
    assert 10 < counts[POISON.name] < 60


@in_virtual_time
async def test_expected_error_is_retried() -> None:
    counts = await run(raising(KubeUnavailable("no answer")), 60)
    assert all(counts[key.name] == 1 for key in KEYS if key != POISON)
    assert 5 <= counts[POISON.name] <= 8


@in_virtual_time
async def test_hanging_reconciliation_holds_one_worker_only() -> None:
    async def reconcile(key: ObjectKey) -> Result:
        if key == POISON:
            await asyncio.Event().wait()
        return Result()

    counts = await run(reconcile, 60)
    assert all(counts[key.name] == 1 for key in KEYS)


@in_virtual_time
async def test_requeue_after_brings_the_object_back() -> None:
    async def reconcile(key: ObjectKey) -> Result:
        return Result(10.0) if key == POISON else Result()

    counts = await run(reconcile, 95)
    assert counts[POISON.name] == 10
    assert all(counts[key.name] == 1 for key in KEYS if key != POISON)


@in_virtual_time
async def test_hot_object_does_not_starve_the_others() -> None:
    async def reconcile(key: ObjectKey) -> Result:
        await asyncio.sleep(0.01)
        return Result(0.0 if key == POISON else 1.0)

    counts = await run(reconcile, 60, workers=1)
    assert min(counts[key.name] for key in KEYS) >= 55


@in_virtual_time
async def test_result_priority_is_passed_to_the_queue() -> None:
    queue, order = WorkQueue(), list[str]()

    async def reconcile(key: ObjectKey) -> Result:
        order.append(key.name)
        await asyncio.sleep(1)
        return Result(0.0, Priority.STARTED) if order.count(key.name) == 1 else Result()

    for key in KEYS[:3]:
        await queue.add(key)
    task = asyncio.create_task(run_worker(queue, reconcile))
    await asyncio.sleep(60)
    task.cancel()
    await asyncio.wait({task})
    assert order == ["b0", "b0", "b1", "b1", "b2", "b2"]


@in_virtual_time
async def test_enqueue_all_retries_and_puts_work_in_progress_first() -> None:
    queue, failures = WorkQueue(), 2

    async def list_pending() -> list[tuple[ObjectKey, bool]]:
        nonlocal failures
        if failures:
            failures -= 1
            raise KubeUnavailable("no answer")
        return [(key, key == POISON) for key in KEYS]

    await enqueue_all(queue, list_pending)
    assert (await queue.get(), len(queue)) == (POISON, 9)


@in_virtual_time
async def test_resync_spreads_its_keys_and_survives_a_failure() -> None:
    queue, lists = WorkQueue(), 0

    async def list_pending() -> list[tuple[ObjectKey, bool]]:
        nonlocal lists
        lists += 1
        if lists == 1:
            raise KubeUnavailable("no answer")
        return [(key, False) for key in KEYS]

    async with asyncio.TaskGroup() as group:
        task = group.create_task(resync(queue, list_pending, 600))
        await asyncio.sleep(601)
        assert len(queue) == 0
        await asyncio.sleep(600)
        assert queue.counts() == {"due": 1, "delayed": 9, "running": 0}
        await asyncio.sleep(60)
        assert queue.counts()["due"] == 10
        task.cancel()
