"""The start and the end of leadership: what a new leader does first, and how its work ends."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.controller.request import ObjectKey, is_in_progress
from cinderblock.controller.requeue import Result
from cinderblock.controller.worker import STORE_START_SECONDS, enqueue_all, run_worker
from cinderblock.controller.workqueue import WorkQueue
from tests.support.simulation.virtual_time import in_virtual_time, virtual_clock

OLD, YOUNG, OTHER = (ObjectKey("VolumeBackup", "ns", name) for name in ("old", "young", "other"))


@in_virtual_time
async def test_new_leader_puts_work_in_progress_before_keys_collected_earlier() -> None:
    queue = WorkQueue()
    await queue.add(OLD)
    await asyncio.sleep(3600)
    await queue.add(YOUNG)

    async def list_pending() -> list[tuple[ObjectKey, bool]]:
        return [(OLD, False), (YOUNG, True), (OTHER, False)]

    await enqueue_all(queue, list_pending)
    assert [await queue.get() for _ in range(3)] == [YOUNG, OLD, OTHER]


@in_virtual_time
async def test_first_checks_of_stores_leave_room_for_other_work() -> None:
    queue, began = WorkQueue(), virtual_clock()
    stores = [ObjectKey("BackupStore", f"ns-{number}", "default") for number in range(1000)]

    async def list_pending() -> list[tuple[ObjectKey, bool]]:
        return [*((store, False) for store in stores), (YOUNG, False)]

    await enqueue_all(queue, list_pending)
    assert {await queue.get() for _ in range(2)} == {stores[0], YOUNG}
    assert virtual_clock() == began
    assert [await queue.get() for _ in stores[1:]] == stores[1:]
    assert virtual_clock() - began == pytest.approx(999 * STORE_START_SECONDS)


@in_virtual_time
async def test_drain_hands_out_nothing_and_waits_for_running_keys() -> None:
    queue = WorkQueue()
    await queue.add(OLD)
    await queue.get()
    await queue.add(YOUNG)
    began = virtual_clock()
    draining = asyncio.create_task(queue.drain(10))
    await asyncio.sleep(3)
    await queue.done(OLD)
    assert await draining
    assert virtual_clock() - began == pytest.approx(3)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await queue.get()


@in_virtual_time
async def test_drain_ends_at_its_time_limit() -> None:
    queue = WorkQueue()
    await queue.add(OLD)
    await queue.get()
    assert queue.longest_running_seconds() == 0
    assert not await queue.drain(1)
    assert queue.longest_running_seconds() == pytest.approx(1)


@in_virtual_time
async def test_idle_workers_end_when_cancelled_after_a_drain() -> None:
    queue = WorkQueue()

    async def reconcile(key: ObjectKey) -> Result:
        await asyncio.sleep(0.01)
        return Result(5.0)

    workers = [asyncio.create_task(run_worker(queue, reconcile)) for _ in range(16)]
    await queue.add(OLD)
    await asyncio.sleep(1)
    assert await queue.drain(1)
    for worker in workers:
        worker.cancel()
    done, left = await asyncio.wait(workers, timeout=60)
    assert len(done) == 16
    assert not left


@in_virtual_time
async def test_cancelled_work_returns_to_the_queue() -> None:
    queue = WorkQueue()

    async def reconcile(key: ObjectKey) -> Result:
        await asyncio.sleep(3600)
        return Result()

    worker = asyncio.create_task(run_worker(queue, reconcile))
    await queue.add(OLD)
    await asyncio.sleep(1)
    worker.cancel()
    await asyncio.wait({worker})
    assert await queue.get() == OLD


@pytest.mark.parametrize(
    ("kind", "phase", "is_being_deleted", "expected"),
    [
        ("VolumeBackup", None, False, True),
        ("VolumeBackup", "creating", False, True),
        ("VolumeBackup", "available", False, False),
        ("VolumeBackup", "available", True, True),
        ("VolumeRestore", "error_restoring", False, False),
        ("BackupStore", None, False, False),
    ],
)
def test_objects_in_progress_are_recognized(
    kind: str, phase: str | None, is_being_deleted: bool, expected: bool
) -> None:
    metadata = {"name": "x"} | ({"deletionTimestamp": "2026-05-04T12:00:00Z"} if is_being_deleted else {})
    status = {"phase": phase} if phase else {}
    assert is_in_progress({"kind": kind, "metadata": metadata, "status": status}) is expected
