"""Candidates for one Lease on a simulated API server: who acts, when it stops, and when the next one begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from typing_extensions import override

from cinderblock.controller.leaderelection.elector import LeaderElector
from cinderblock.controller.leaderelection.lease import LeaseTimings
from cinderblock.errors import KubeUnavailable, NotLeading
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import LEASE
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from tests.support.simulation.api import START, ObjectsInMemory, SimulatedApi
from tests.support.simulation.virtual_time import in_virtual_time, virtual_clock

TIMING = LeaseTimings()


class Line(SimulatedApi):
    """One candidate's way to the API server: it can be cut, before or after the server has done what it was asked."""

    def __init__(self, objects: ObjectsInMemory) -> None:
        super().__init__(objects, lambda how, item: None)
        self.cut = ""

    @override
    async def round_trip(self, request: Request) -> Response:
        if self.cut == "before":
            raise KubeUnavailable("cut")
        answer = await super().round_trip(request)
        if self.cut == "after":
            raise KubeUnavailable("cut")
        return answer


@dataclass
class Candidate:
    """One replica, and when it acted."""

    leading: LeaderElector
    line: Line
    client: KubeClient
    acting: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def term(self) -> None:
        """Act until it is over."""
        self.acting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


Make = Callable[[str], Candidate]


@pytest.fixture
def objects() -> ObjectsInMemory:
    """What the API server holds."""
    return ObjectsInMemory(lambda: START)


@pytest.fixture
def make(objects: ObjectsInMemory) -> Make:
    """Makes candidates for one Lease."""

    def candidate(name: str) -> Candidate:
        line = Line(objects)
        client = KubeClient(line)
        return Candidate(LeaderElector(client, "ns", "lease", identity=name, clock=virtual_clock), line, client)

    return candidate


@asynccontextmanager
async def running(candidate: Candidate) -> AsyncIterator[asyncio.Task[None]]:
    """Have it be a candidate inside the block."""
    task = asyncio.create_task(candidate.leading.run(candidate.term))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


@in_virtual_time
async def test_one_of_two_leads_and_the_other_may_not_write(make: Make) -> None:
    first, second = make("first"), make("second")
    async with running(first):
        await first.acting.wait()
        async with running(second):
            await asyncio.sleep(3 * TIMING.lease_duration)
            assert first.leading.is_leading
            assert not second.acting.is_set()
            assert second.leading.holder == "first"
            with pytest.raises(NotLeading):
                second.leading.check()


@in_virtual_time
async def test_a_lease_that_is_given_back_is_taken_at_the_next_look(make: Make) -> None:
    first, second = make("first"), make("second")
    async with AsyncExitStack() as stack:
        async with running(first):
            await first.acting.wait()
            await stack.enter_async_context(running(second))
            await asyncio.sleep(30.3)
        stopped = virtual_clock()
        await second.acting.wait()
        assert virtual_clock() - stopped <= TIMING.look


@in_virtual_time
async def test_a_leader_that_is_cut_off_stops_before_another_one_begins(make: Make) -> None:
    first, second = make("first"), make("second")
    async with running(first):
        await first.acting.wait()
        async with running(second):
            await asyncio.sleep(30.3)
            first.line.cut, cut_at = "before", virtual_clock()
            await first.stopped.wait()
            assert not second.acting.is_set()
            assert virtual_clock() - cut_at <= TIMING.renew_deadline
            await second.acting.wait()
            assert virtual_clock() - cut_at <= TIMING.lease_duration + 2 * TIMING.look


@in_virtual_time
async def test_a_leader_whose_answers_are_lost_stops_too_and_nobody_takes_what_it_renews(make: Make) -> None:
    first, second = make("first"), make("second")
    async with running(first):
        await first.acting.wait()
        async with running(second):
            first.line.cut = "after"
            await first.stopped.wait()
            assert not first.leading.is_leading
            await second.acting.wait()
            assert not first.leading.is_leading


@in_virtual_time
async def test_a_renewal_whose_answer_was_lost_costs_nothing(make: Make) -> None:
    only = make("only")
    async with running(only):
        await only.acting.wait()
        only.line.cut = "after"
        await asyncio.sleep(TIMING.renew_period * 1.5)
        only.line.cut = ""
        await asyncio.sleep(2 * TIMING.lease_duration)
        assert only.leading.is_leading
        assert not only.stopped.is_set()


@in_virtual_time
async def test_a_term_that_does_not_end_with_the_lease_is_seen_by_the_lease_not_being_asked_for(make: Make) -> None:
    stubborn, ended = make("stubborn"), asyncio.Event()

    async def term() -> None:
        while not ended.is_set():
            with suppress(asyncio.CancelledError):
                await ended.wait()

    task = asyncio.create_task(stubborn.leading.run(term))
    await asyncio.sleep(1)
    stubborn.line.cut = "before"
    await asyncio.sleep(TIMING.lease_duration)
    before = stubborn.leading.looked_at
    stubborn.line.cut = ""
    await asyncio.sleep(3600)
    assert stubborn.leading.looked_at == before
    assert not stubborn.leading.is_leading
    ended.set()
    await asyncio.sleep(1)
    assert stubborn.leading.looked_at > before
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_a_lease_that_was_removed_is_made_again_by_its_holder(make: Make, objects: ObjectsInMemory) -> None:
    only = make("only")
    async with running(only):
        await only.acting.wait()
        await only.client.delete(LEASE, "lease", "ns")
        await asyncio.sleep(2 * TIMING.lease_duration)
        assert only.leading.is_leading
        assert objects.get("Lease", "lease", "ns") is not None


@in_virtual_time
async def test_a_leader_whose_lease_was_taken_by_force_stops(make: Make) -> None:
    only = make("only")
    async with running(only):
        await only.acting.wait()
        await only.client.merge_patch(LEASE, "lease", "ns", {"spec": {"holderIdentity": "somebody"}})
        await only.stopped.wait()
        assert not only.leading.is_leading


@in_virtual_time
async def test_a_process_that_was_paused_may_not_act_when_it_wakes_up(objects: ObjectsInMemory) -> None:
    now = 0.0
    client = KubeClient(Line(objects))
    leading = LeaderElector(client, "ns", "lease", identity="me", clock=lambda: now)
    assert await leading._try_acquire_or_renew()
    leading.check()
    now = TIMING.renew_deadline
    with pytest.raises(NotLeading):
        leading.check()


@in_virtual_time
async def test_a_client_with_a_guard_sends_reads_and_no_writes(make: Make, objects: ObjectsInMemory) -> None:
    only = make("only")
    guarded = KubeClient(Line(objects))
    guarded.write_guard = only.leading.check
    assert await guarded.get(LEASE, "lease", "ns") is None
    with pytest.raises(NotLeading):
        await guarded.create(LEASE, {"metadata": {"name": "other", "namespace": "ns"}})
    assert objects.get("Lease", "other", "ns") is None


@in_virtual_time
async def test_what_a_term_raises_ends_the_process(make: Make, objects: ObjectsInMemory) -> None:
    only = make("only")

    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await only.leading.run(broken)
    lease = objects.get("Lease", "lease", "ns")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""
