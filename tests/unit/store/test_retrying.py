"""Transient errors are retried within limits; all other errors are raised at once."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    IntegrityError,
    NotFound,
    PermanentError,
    StoreUnreachable,
)
from cinderblock.store.base import ObjectInfo
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retrying import (
    CLI_RETRIES,
    MOVER_RETRIES,
    OPERATOR_RETRIES,
    RetryClock,
    RetryingStore,
    RetryPolicy,
)
from tests.support.store.faults import Crash, FaultyStore


class Time:
    """A clock that moves only during sleep, and a random function with a fixed result."""

    def __init__(self, share: float = 1.0) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self._share = share

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.sleeps.append(seconds)
        self.now += seconds

    def clock(self) -> RetryClock:
        """Return the clock for the store."""
        return RetryClock(lambda: self.now, self.sleep, lambda low, high: low + (high - low) * self._share)


class Bench:
    """A retrying store over a faulty one, with its clock and its calls."""

    def __init__(self, policy: RetryPolicy = MOVER_RETRIES, share: float = 1.0) -> None:
        self.inside = MemoryStore()
        self.faulty = FaultyStore(self.inside)
        self.counted = CountedStore(self.faulty)
        self.time = Time(share)
        self.store = RetryingStore(self.counted, policy, self.time.clock())


def away(retry_after: float | None = None) -> StoreUnreachable:
    """Return a transient error."""
    error = StoreUnreachable("the server is away")
    error.retry_after = retry_after
    return error


def test_put_succeeds_when_the_server_comes_back() -> None:
    bench = Bench()
    bench.faulty.on("put").raises(away()).times(3)
    bench.store.put("key", b"content")
    assert bench.inside.get("key") == b"content"
    assert bench.time.sleeps == [0.5, 1.0, 2.0]


def test_get_and_a_check_succeed_when_the_server_comes_back() -> None:
    bench = Bench()
    bench.inside.put("key", b"0123456789")
    bench.faulty.on("get").raises(away())
    bench.faulty.on("check").raises(away())
    bench.store.check()
    assert bench.store.get("key", -4, 2) == b"67"


def test_attempts_are_bounded_and_the_error_says_so() -> None:
    bench = Bench(RetryPolicy(attempts=4))
    bench.faulty.on("put").raises(away()).times(inf)
    with pytest.raises(StoreUnreachable, match=r"the server is away \(tried 4 times in 4 s\)"):
        bench.store.put("key", b"x")
    assert bench.counted.counts.puts == 4


def test_time_is_bounded() -> None:
    bench = Bench(RetryPolicy(attempts=1000, max_delay=30, total=100))
    bench.faulty.on("get").raises(away()).times(inf)
    with pytest.raises(StoreUnreachable):
        bench.store.get("key")
    assert sum(bench.time.sleeps) <= 100
    assert max(bench.time.sleeps) == 30


def test_check_fails_at_once_for_command_line_and_operator() -> None:
    for policy in (CLI_RETRIES, OPERATOR_RETRIES):
        bench = Bench(policy)
        bench.faulty.on("check").raises(away()).times(inf)
        with pytest.raises(StoreUnreachable):
            bench.store.check()
        assert bench.counted.counts.checks == 3
        assert sum(bench.time.sleeps) <= 2


def test_movers_check_survives_a_restart_but_no_longer_outage() -> None:
    bench = Bench(MOVER_RETRIES)
    bench.faulty.on("check").raises(away()).times(6)
    bench.store.check()
    assert sum(bench.time.sleeps) > 30
    bench = Bench(MOVER_RETRIES)
    bench.faulty.on("check").raises(away()).times(inf)
    with pytest.raises(StoreUnreachable):
        bench.store.check()
    assert sum(bench.time.sleeps) <= 60


@pytest.mark.parametrize(
    "error", [AccessDenied("no"), NotFound("no"), IntegrityError("no"), PermanentError("no"), CinderblockError("no")]
)
def test_permanent_errors_are_not_retried(error: CinderblockError) -> None:
    bench = Bench()
    bench.faulty.on("get").raises(error)
    with pytest.raises(type(error)) as caught:
        bench.store.get("key")
    assert caught.value is error
    assert bench.time.sleeps == []


def test_dying_process_is_left_alone() -> None:
    bench = Bench()
    bench.faulty.on("put").crashes()
    with pytest.raises(Crash):
        bench.store.put("key", b"x")
    assert bench.time.sleeps == []


def test_retry_waits_as_long_as_the_server_requests() -> None:
    bench = Bench(share=0.0)
    bench.faulty.on("put").raises(away(retry_after=17))
    bench.store.put("key", b"x")
    assert bench.time.sleeps == [17]


def test_wait_beyond_the_total_is_not_begun() -> None:
    bench = Bench(OPERATOR_RETRIES)
    bench.faulty.on("put").raises(away(retry_after=3600))
    with pytest.raises(StoreUnreachable, match="tried once"):
        bench.store.put("key", b"x")
    assert bench.time.sleeps == []


@given(st.integers(1, 60), st.floats(0.01, 5), st.floats(5, 60), st.floats(0, 1))
def test_waits_grow_and_stay_below_their_bound(attempts: int, first: float, longest: float, share: float) -> None:
    bench = Bench(RetryPolicy(attempts, first, longest, total=inf), share)
    bench.faulty.on("put").raises(away()).times(inf)
    with pytest.raises(StoreUnreachable):
        bench.store.put("key", b"x")
    assert len(bench.time.sleeps) == attempts - 1
    assert all(0 <= wait <= longest for wait in bench.time.sleeps)
    assert all(before <= after for before, after in pairwise(bench.time.sleeps))


def test_interrupted_listing_continues_at_its_last_page() -> None:
    bench = Bench()
    expected = [ObjectInfo(f"p/{number:02}", number) for number in range(20)]
    for item in expected:
        bench.inside.put(item.key, bytes(item.size))
    bench.faulty.on("list").raises(away(), partway=7)
    bench.faulty.on("list").raises(away(), partway=0)
    bench.faulty.on("list").raises(away(), partway=12)
    assert list(bench.store.list("p/")) == expected


def test_listing_that_gets_on_is_not_given_up() -> None:
    bench = Bench(RetryPolicy(attempts=2))
    for number in range(10):
        bench.inside.put(f"p/{number}", b"")
    for number in range(1, 10):
        bench.faulty.on("list").raises(away(), partway=number)
    assert len(list(bench.store.list("p/"))) == 10


def test_listing_that_does_not_get_on_is_given_up() -> None:
    bench = Bench(RetryPolicy(attempts=3))
    for number in range(10):
        bench.inside.put(f"p/{number}", b"")
    bench.faulty.on("list").raises(away(), partway=4).times(inf)
    given: list[ObjectInfo] = []
    with pytest.raises(StoreUnreachable):
        given.extend(bench.store.list("p/"))
    assert bench.counted.counts.lists == 3


def test_time_that_the_reader_of_a_listing_takes_does_not_count() -> None:
    bench = Bench(RetryPolicy(total=10))
    for number in range(3):
        bench.inside.put(f"p/{number}", b"")
    bench.faulty.on("list").raises(away(), partway=2)
    seen = 0
    for _ in bench.store.list("p/"):
        bench.time.now += 3600
        seen += 1
    assert seen == 3


def test_deletion_that_breaks_off_is_finished() -> None:
    bench = Bench()
    names = [f"p/{number:04}" for number in range(2500)]
    for name in names:
        bench.inside.put(name, b"")
    bench.faulty.on("delete").raises(away(), partway=400).after(1)
    bench.store.delete(iter(names))
    assert list(bench.inside.list("")) == []


def test_call_with_a_lost_response_is_repeated_without_harm() -> None:
    bench = Bench()
    bench.faulty.on("put").raises(away(), done=True)
    bench.faulty.on("delete").raises(away(), done=True)
    bench.store.put("key", b"x")
    bench.store.put("other", b"y")
    bench.store.delete(["key"])
    assert list(bench.inside.list("")) == [ObjectInfo("other", 1)]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A long outage must not log hundreds of warnings."""
    caplog.set_level("ERROR")
