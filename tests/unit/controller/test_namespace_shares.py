"""No namespace holds up another one: a share of the workers, a rate, and no head start by changing objects."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from cinderblock.controller.namespace_shares import KEYS_AT_ONCE, KEYS_PER_SECOND, NamespaceShares
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.workqueue import Priority, WorkQueue
from tests.support.simulation.virtual_time import in_virtual_time, virtual_clock

WORKERS = 16


def key(namespace: str, number: int) -> ObjectKey:
    return ObjectKey("VolumeBackup", namespace, f"b-{number}")


async def fill(queue: WorkQueue, namespace: str, count: int, priority: Priority = Priority.STARTED) -> None:
    for number in range(count):
        await queue.add(key(namespace, number), priority=priority)


async def take_all(queue: WorkQueue) -> Counter[str]:
    """Take keys until nothing more is handed out at this instant. Return how many each namespace got."""
    taken: Counter[str] = Counter()
    try:
        while True:
            async with asyncio.timeout(0):
                taken[(await queue.get()).namespace] += 1
    except TimeoutError:
        return taken


@in_virtual_time
async def test_lone_namespace_leaves_a_quarter_of_the_workers_free() -> None:
    queue = WorkQueue(WORKERS)
    await fill(queue, "evil", 100)
    assert await take_all(queue) == {"evil": 12}
    await queue.add(key("shop", 1))
    assert await take_all(queue) == {"shop": 1}, "a worker is free for it at once"


@in_virtual_time
async def test_namespace_gets_an_eighth_of_the_workers_while_others_wait() -> None:
    queue = WorkQueue(WORKERS)
    await fill(queue, "evil", 100)
    for namespace in ("a", "b", "c", "d"):
        await fill(queue, namespace, 3, Priority.NORMAL)
    assert await take_all(queue) == {"evil": 2, "a": 2, "b": 2, "c": 2, "d": 2}


@in_virtual_time
async def test_lone_worker_serves_all_namespaces() -> None:
    queue = WorkQueue(1)
    await fill(queue, "evil", 3)
    await fill(queue, "shop", 1, Priority.NORMAL)
    names = []
    for _ in range(4):
        found = await queue.get()
        names.append(found.namespace)
        await queue.done(found)
    assert sorted(names) == ["evil", "evil", "evil", "shop"]


class OneProcessor:
    """Workers of a queue that share one processor, and what they do: a reconciliation takes it ten times for 1.5 ms."""

    def __init__(self) -> None:
        self.queue = WorkQueue(WORKERS)
        self.waited: list[float] = []
        """Seconds from each need of namespace ``shop`` to the end of its reconciliation."""
        self._processor = asyncio.Lock()
        self._since: dict[ObjectKey, float] = {}

    async def work(self) -> None:
        while True:
            taken = await self.queue.get()
            for _ in range(10):
                async with self._processor:
                    await asyncio.sleep(0.0015)
            if taken in self._since:
                self.waited.append(virtual_clock() - self._since.pop(taken))
            await self.queue.done(taken)

    async def flood(self, keys: int) -> None:
        """Change objects of namespace ``evil`` a hundred times a second."""
        for number in range(1_000_000):
            await self.queue.add(key("evil", number % keys), priority=Priority.STARTED)
            await asyncio.sleep(0.01)

    async def use(self) -> None:
        """Need a reconciliation in namespace ``shop`` ten times a second."""
        for number in range(100):
            self._since[key("shop", number)] = virtual_clock()
            await self.queue.add(key("shop", number))
            await asyncio.sleep(0.1)

    async def run(self, keys: int) -> float:
        """Work for ten seconds, with a flood of changes of so many objects. Return the mean time of ``shop``."""
        flood = [asyncio.create_task(self.flood(keys))] if keys else []
        tasks = [*flood, *(asyncio.create_task(self.work()) for _ in range(WORKERS))]
        await self.use()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(self.waited) >= 98
        return sum(self.waited) / len(self.waited)


@pytest.mark.parametrize("keys", [1, 40, 2000])
def test_flood_of_changes_delays_no_other_namespace(keys: int) -> None:
    @in_virtual_time
    async def compare() -> None:
        calm = await OneProcessor().run(0)
        assert await OneProcessor().run(keys) < 2 * calm

    compare()


@in_virtual_time
async def test_namespace_that_works_alone_has_no_rate() -> None:
    queue = WorkQueue(WORKERS)
    for number in range(1000):
        await queue.add(key("shop", number))
        await queue.done(await queue.get())
    assert virtual_clock() == 1000.0


@in_virtual_time
async def test_rate_lets_a_waiting_namespace_continue_in_time() -> None:
    queue = WorkQueue(WORKERS)
    await queue.add(key("other", 1))
    held = await queue.get()
    for number in range(200):
        await queue.add(key("evil", number))
        await queue.done(await queue.get())
    assert virtual_clock() - 1000.0 == pytest.approx((200 - KEYS_AT_ONCE) / KEYS_PER_SECOND, abs=0.1)
    await queue.done(held)


def test_idle_namespaces_use_no_memory() -> None:
    shares = NamespaceShares(WORKERS)
    for number in range(1000):
        shares.take(f"n-{number}", 100.0)
        shares.release(f"n-{number}", 0.01)
    shares.take("shop", 200.0)
    assert len(shares._uses) == 1


def test_long_reconciliation_counts_as_several() -> None:
    shares = NamespaceShares(WORKERS)
    for _ in range(10):
        shares.take("evil", 100.0)
        shares.release("evil", 5.0)
    shares.take("shop", 100.0)
    assert shares.delay("evil", 100.0, others_due=True) == pytest.approx((1 + KEYS_AT_ONCE) / KEYS_PER_SECOND)
    assert shares.delay("shop", 100.0, others_due=True) == 0.0
