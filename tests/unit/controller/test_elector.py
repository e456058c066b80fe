"""Candidates for one Lease on a simulated API server: which one acts, when it stops, and when the next one starts."""

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

TIMINGS = LeaseTimings()


class Connection(SimulatedApi):
    """A candidate's connection to the API server. It can be cut before or after the server handles a request.

    A cut that is "slow" delays all responses: the server has handled the requests.
    """

    def __init__(self, objects: ObjectsInMemory) -> None:
        super().__init__(objects, lambda how, item: None)
        self.cut = ""

    @override
    async def round_trip(self, request: Request) -> Response:
        if self.cut == "before":
            raise KubeUnavailable("cut")
        response = await super().round_trip(request)
        if self.cut == "after":
            raise KubeUnavailable("cut")
        if self.cut == "slow":
            await asyncio.sleep(TIMINGS.lease_duration)
        return response


@dataclass
class Candidate:
    """One replica, and when it acts."""

    elector: LeaderElector
    connection: Connection
    client: KubeClient
    acting: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def lead(self) -> None:
        """Act until cancelled."""
        self.acting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


Make = Callable[[str], Candidate]


@pytest.fixture
def objects() -> ObjectsInMemory:
    """The objects of the API server."""
    return ObjectsInMemory(lambda: START)


@pytest.fixture
def make(objects: ObjectsInMemory) -> Make:
    """Make candidates for one Lease."""

    def candidate(name: str) -> Candidate:
        connection = Connection(objects)
        client = KubeClient(connection)
        return Candidate(LeaderElector(client, "ns", "lease", identity=name, clock=virtual_clock), connection, client)

    return candidate


@asynccontextmanager
async def running(candidate: Candidate) -> AsyncIterator[asyncio.Task[None]]:
    """Run the candidate inside the block."""
    task = asyncio.create_task(candidate.elector.run(candidate.lead))
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
            await asyncio.sleep(3 * TIMINGS.lease_duration)
            assert first.elector.is_leading
            assert not second.acting.is_set()
            assert second.elector.holder == "first"
            with pytest.raises(NotLeading):
                second.elector.check()


@in_virtual_time
async def test_released_lease_is_acquired_at_the_next_attempt(make: Make) -> None:
    first, second = make("first"), make("second")
    async with AsyncExitStack() as stack:
        async with running(first):
            await first.acting.wait()
            await stack.enter_async_context(running(second))
            await asyncio.sleep(30.3)
        stopped = virtual_clock()
        await second.acting.wait()
        assert virtual_clock() - stopped <= TIMINGS.retry_period


@in_virtual_time
async def test_lease_is_released_although_its_renewal_was_under_way(make: Make) -> None:
    first, second = make("first"), make("second")
    async with AsyncExitStack() as stack:
        async with running(first):
            await first.acting.wait()
            await stack.enter_async_context(running(second))
            first.connection.cut = "slow"
            await asyncio.sleep(TIMINGS.renew_period + 0.1)
            first.connection.cut = ""
        stopped = virtual_clock()
        await second.acting.wait()
        assert virtual_clock() - stopped <= TIMINGS.retry_period


@in_virtual_time
async def test_disconnected_leader_stops_before_the_next_one_starts(make: Make) -> None:
    first, second = make("first"), make("second")
    async with running(first):
        await first.acting.wait()
        async with running(second):
            await asyncio.sleep(30.3)
            first.connection.cut, cut_at = "before", virtual_clock()
            await first.stopped.wait()
            assert not second.acting.is_set()
            assert virtual_clock() - cut_at <= TIMINGS.renew_deadline
            await second.acting.wait()
            assert virtual_clock() - cut_at <= TIMINGS.lease_duration + 2 * TIMINGS.retry_period


@in_virtual_time
async def test_leader_whose_responses_are_lost_stops(make: Make) -> None:
    first, second = make("first"), make("second")
    async with running(first):
        await first.acting.wait()
        async with running(second):
            first.connection.cut = "after"
            await first.stopped.wait()
            assert not first.elector.is_leading
            await second.acting.wait()
            assert not first.elector.is_leading


@in_virtual_time
async def test_one_lost_response_does_not_end_the_leadership(make: Make) -> None:
    only = make("only")
    async with running(only):
        await only.acting.wait()
        only.connection.cut = "after"
        await asyncio.sleep(TIMINGS.renew_period * 1.5)
        only.connection.cut = ""
        await asyncio.sleep(2 * TIMINGS.lease_duration)
        assert only.elector.is_leading
        assert not only.stopped.is_set()


@in_virtual_time
async def test_leading_task_that_does_not_end_stops_requests_for_the_lease(make: Make) -> None:
    """The liveness probe sees that by `last_attempt`."""
    stubborn, ended = make("stubborn"), asyncio.Event()

    async def lead() -> None:
        while not ended.is_set():
            with suppress(asyncio.CancelledError):
                await ended.wait()

    task = asyncio.create_task(stubborn.elector.run(lead))
    await asyncio.sleep(1)
    stubborn.connection.cut = "before"
    await asyncio.sleep(TIMINGS.lease_duration)
    before = stubborn.elector.last_attempt
    stubborn.connection.cut = ""
    await asyncio.sleep(3600)
    assert stubborn.elector.last_attempt == before
    assert not stubborn.elector.is_leading
    ended.set()
    await asyncio.sleep(1)
    assert stubborn.elector.last_attempt > before
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_deleted_lease_is_recreated_by_its_holder(make: Make, objects: ObjectsInMemory) -> None:
    only = make("only")
    async with running(only):
        await only.acting.wait()
        await only.client.delete(LEASE, "lease", "ns")
        await asyncio.sleep(2 * TIMINGS.lease_duration)
        assert only.elector.is_leading
        assert objects.get("Lease", "lease", "ns") is not None


@in_virtual_time
async def test_leader_stops_when_somebody_overwrites_its_lease(make: Make) -> None:
    only = make("only")
    async with running(only):
        await only.acting.wait()
        await only.client.merge_patch(LEASE, "lease", "ns", {"spec": {"holderIdentity": "somebody"}})
        await only.stopped.wait()
        assert not only.elector.is_leading


@in_virtual_time
async def test_paused_process_may_not_act_when_it_wakes_up(objects: ObjectsInMemory) -> None:
    now = 0.0
    client = KubeClient(Connection(objects))
    elector = LeaderElector(client, "ns", "lease", identity="me", clock=lambda: now)
    assert await elector._try_acquire_or_renew()
    elector.check()
    now = TIMINGS.renew_deadline
    with pytest.raises(NotLeading):
        elector.check()


@in_virtual_time
async def test_guarded_client_sends_reads_and_no_writes(make: Make, objects: ObjectsInMemory) -> None:
    only = make("only")
    guarded = KubeClient(Connection(objects))
    guarded.write_guard = only.elector.check
    assert await guarded.get(LEASE, "lease", "ns") is None
    with pytest.raises(NotLeading):
        await guarded.create(LEASE, {"metadata": {"name": "other", "namespace": "ns"}})
    assert objects.get("Lease", "other", "ns") is None


@in_virtual_time
async def test_error_of_the_leading_task_ends_the_process(make: Make, objects: ObjectsInMemory) -> None:
    only = make("only")

    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await only.elector.run(broken)
    lease = objects.get("Lease", "lease", "ns")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""
