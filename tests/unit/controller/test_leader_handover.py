"""What comes first when a replica takes over, and how work ends when it stops."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.controller.request import ObjectKey, is_in_progress
from cinderblock.controller.worker import enqueue_all, run_worker
from cinderblock.controller.workqueue import WorkQueue
from tests.support.simulation.virtual_time import in_virtual_time, virtual_clock

OLD, YOUNG, OTHER = (ObjectKey("VolumeBackup", "ns", name) for name in ("old", "young", "other"))


@in_virtual_time
async def test_on_taking_over_what_is_under_way_comes_before_what_has_waited_for_hours() -> None:
    queue = WorkQueue()
    await queue.add(OLD)
    await asyncio.sleep(3600)
    await queue.add(YOUNG)

    async def listed() -> list[tuple[ObjectKey, bool]]:
        return [(OLD, False), (YOUNG, True), (OTHER, False)]

    await enqueue_all(queue, listed)
    assert [await queue.get() for _ in range(3)] == [YOUNG, OLD, OTHER]


@in_virtual_time
async def test_a_queue_that_is_drained_gives_nothing_out_and_waits_for_what_is_worked_on() -> None:
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
async def test_draining_does_not_wait_for_ever() -> None:
    queue = WorkQueue()
    await queue.add(OLD)
    await queue.get()
    assert queue.longest_running_seconds() == 0
    assert not await queue.drain(1)
    assert queue.longest_running_seconds() == pytest.approx(1)


@in_virtual_time
async def test_many_idle_workers_end_when_they_are_cancelled_after_a_drain() -> None:
    queue = WorkQueue()

    async def reconcile(key: ObjectKey) -> float | None:
        await asyncio.sleep(0.01)
        return 5.0

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
async def test_work_that_is_cancelled_is_in_the_queue_again() -> None:
    queue = WorkQueue()

    async def reconcile(key: ObjectKey) -> float | None:
        await asyncio.sleep(3600)
        return None

    worker = asyncio.create_task(run_worker(queue, reconcile))
    await queue.add(OLD)
    await asyncio.sleep(1)
    worker.cancel()
    await asyncio.wait({worker})
    assert await queue.get() == OLD


@pytest.mark.parametrize(
    ("kind", "phase", "going", "expected"),
    [
        ("VolumeBackup", None, False, True),
        ("VolumeBackup", "creating", False, True),
        ("VolumeBackup", "available", False, False),
        ("VolumeBackup", "available", True, True),
        ("VolumeRestore", "error_restoring", False, False),
        ("BackupStore", None, False, False),
    ],
)
def test_what_is_under_way(kind: str, phase: str | None, going: bool, expected: bool) -> None:
    metadata = {"name": "x"} | ({"deletionTimestamp": "2026-05-04T12:00:00Z"} if going else {})
    status = {"phase": phase} if phase else {}
    assert is_in_progress({"kind": kind, "metadata": metadata, "status": status}) is expected
