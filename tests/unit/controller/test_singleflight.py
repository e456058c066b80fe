"""Reads that several ask for at the same time are done once, and no answer is older than its question."""

from __future__ import annotations

import asyncio

import pytest

from cinderblock.controller.reconcile.singleflight import SingleFlight
from cinderblock.errors import KubeUnavailable


class World:
    """Something that changes, and is read in two steps: what it was in the middle is the answer."""

    def __init__(self) -> None:
        self.state = 0
        self.reads = 0
        self.at_once = 0
        self.most_at_once = 0
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def read(self) -> int:
        self.reads += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        state = self.state
        self.begun.set()
        await self.may_end.wait()
        self.at_once -= 1
        return state


@pytest.fixture
async def observed() -> World:
    return World()


@pytest.fixture
async def shared() -> SingleFlight:
    return SingleFlight()


async def test_who_asks_at_the_same_time_gets_the_answer_of_one_read(observed: World, shared: SingleFlight) -> None:
    answers = await asyncio.gather(*(shared.do("jobs", observed.read) for _ in range(16)))
    assert answers == [0] * 16
    assert observed.reads == 1


async def test_different_questions_are_read_each_for_itself(observed: World, shared: SingleFlight) -> None:
    await asyncio.gather(shared.do("jobs", observed.read), shared.do("pods", observed.read))
    assert observed.reads == 2


async def test_who_asks_later_reads_anew(observed: World, shared: SingleFlight) -> None:
    assert await shared.do("jobs", observed.read) == 0
    observed.state = 1
    assert await shared.do("jobs", observed.read) == 1


async def test_who_asks_while_it_is_read_gets_an_answer_from_after_the_question(
    observed: World, shared: SingleFlight
) -> None:
    observed.may_end.clear()
    first = asyncio.create_task(shared.do("jobs", observed.read))
    await observed.begun.wait()
    observed.state = 1
    later = [asyncio.create_task(shared.do("jobs", observed.read)) for _ in range(16)]
    await asyncio.sleep(0)
    observed.may_end.set()
    assert await first == 0
    assert await asyncio.gather(*later) == [1] * 16
    assert (observed.reads, observed.most_at_once) == (2, 1)


async def test_a_failure_is_everybodys_who_asked_and_nobodys_who_asks_later(
    observed: World, shared: SingleFlight
) -> None:
    async def fail() -> int:
        raise KubeUnavailable("no answer")

    answers = await asyncio.gather(*(shared.do("jobs", fail) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [KubeUnavailable] * 3
    assert await shared.do("jobs", observed.read) == 0


async def test_one_who_gives_up_takes_the_answer_from_nobody(observed: World, shared: SingleFlight) -> None:
    observed.may_end.clear()
    one, other = (asyncio.create_task(shared.do("jobs", observed.read)) for _ in range(2))
    await observed.begun.wait()
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    observed.may_end.set()
    assert await other == 0


async def test_a_failure_that_nobody_waits_for_any_more_is_no_error_of_the_loop(shared: SingleFlight) -> None:
    begun, may_fail = asyncio.Event(), asyncio.Event()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def fail() -> int:
        begun.set()
        await may_fail.wait()
        raise KubeUnavailable("no answer")

    alone = asyncio.create_task(shared.do("jobs", fail))
    await begun.wait()
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    may_fail.set()
    await asyncio.sleep(0.01)
    assert not complaints
