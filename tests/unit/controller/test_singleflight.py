"""Concurrent callers share one read, and no result is older than its call."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.controller.singleflight import SingleFlight
from cinderblock.errors import KubeUnavailable


class Source:
    """A value that is read in two steps: the result is the value between them."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.concurrent = 0
        self.max_concurrent = 0
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def read(self) -> int:
        self.reads += 1
        self.concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self.concurrent)
        value = self.value
        self.has_begun.set()
        await self.may_end.wait()
        self.concurrent -= 1
        return value


@pytest.fixture
async def source() -> Source:
    return Source()


@pytest.fixture
async def single_flight() -> SingleFlight:
    return SingleFlight()


async def test_concurrent_callers_share_one_read(source: Source, single_flight: SingleFlight) -> None:
    results = await asyncio.gather(*(single_flight.do("jobs", source.read) for _ in range(16)))
    assert results == [0] * 16
    assert source.reads == 1


async def test_different_keys_are_read_separately(source: Source, single_flight: SingleFlight) -> None:
    await asyncio.gather(single_flight.do("jobs", source.read), single_flight.do("pods", source.read))
    assert source.reads == 2


async def test_later_call_reads_again(source: Source, single_flight: SingleFlight) -> None:
    assert await single_flight.do("jobs", source.read) == 0
    source.value = 1
    assert await single_flight.do("jobs", source.read) == 1


async def test_call_during_a_read_waits_for_the_next_read(source: Source, single_flight: SingleFlight) -> None:
    source.may_end.clear()
    first = asyncio.create_task(single_flight.do("jobs", source.read))
    await source.has_begun.wait()
    source.value = 1
    later = [asyncio.create_task(single_flight.do("jobs", source.read)) for _ in range(16)]
    await asyncio.sleep(0)
    source.may_end.set()
    assert await first == 0
    assert await asyncio.gather(*later) == [1] * 16
    assert (source.reads, source.max_concurrent) == (2, 1)


async def test_failure_reaches_all_concurrent_callers_and_no_later_one(
    source: Source, single_flight: SingleFlight
) -> None:
    async def fail() -> int:
        raise KubeUnavailable("no answer")

    results = await asyncio.gather(*(single_flight.do("jobs", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [KubeUnavailable] * 3
    assert await single_flight.do("jobs", source.read) == 0


async def test_cancelled_caller_does_not_cancel_the_read_of_others(source: Source, single_flight: SingleFlight) -> None:
    source.may_end.clear()
    first, second = (asyncio.create_task(single_flight.do("jobs", source.read)) for _ in range(2))
    await source.has_begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.may_end.set()
    assert await second == 0


async def test_failure_without_callers_is_not_reported_to_the_loop(single_flight: SingleFlight) -> None:
    has_begun, may_fail = asyncio.Event(), asyncio.Event()
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def fail() -> int:
        has_begun.set()
        await may_fail.wait()
        raise KubeUnavailable("no answer")

    alone = asyncio.create_task(single_flight.do("jobs", fail))
    await has_begun.wait()
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    may_fail.set()
    await asyncio.sleep(0.01)
    assert not reported
