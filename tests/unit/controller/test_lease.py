"""When a candidate may acquire the Lease: by what it has observed itself, never by a time written into the Lease."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.controller.leaderelection.lease import LeaseTimings, ObservedLease, acquired, released

TIMINGS = LeaseTimings(lease_duration=15)
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def held(version: int, holder: str = "other", uid: str = "u", seconds: int = 15, renewed: str = "") -> dict[str, Any]:
    """Return a Lease as the API server gives it."""
    spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed}
    return {"metadata": {"name": "x", "namespace": "y", "uid": uid, "resourceVersion": str(version)}, "spec": spec}


def test_missing_lease_may_be_acquired_at_once() -> None:
    observed = ObservedLease("me", TIMINGS)
    observed.observe(None, 0)
    assert observed.may_acquire(0)


def test_released_lease_may_be_acquired_at_once() -> None:
    observed = ObservedLease("me", TIMINGS)
    observed.observe(held(1), 0)
    observed.observe(released(held(2)), 1)
    assert observed.may_acquire(1)


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z", "nonsense"])
def test_unchanged_lease_expires_whatever_renew_time_it_contains(renewed: str) -> None:
    observed = ObservedLease("me", TIMINGS)
    observed.observe(held(1, renewed=renewed), 100)
    for now in (100, 107, 114.9):
        observed.observe(held(1, renewed=renewed), now)
        assert not observed.may_acquire(now)
    observed.observe(held(1, renewed=renewed), 115)
    assert observed.may_acquire(115)


def test_every_renewal_restarts_the_duration() -> None:
    observed = ObservedLease("me", TIMINGS)
    for second in range(0, 60, 2):
        observed.observe(held(second), second)
        assert not observed.may_acquire(second)


def test_duration_written_by_the_holder_counts() -> None:
    observed = ObservedLease("me", TIMINGS)
    observed.observe(held(1, seconds=60), 0)
    assert not observed.may_acquire(59)
    assert observed.may_acquire(60)


def test_deleted_lease_is_not_acquired_before_it_would_have_expired() -> None:
    observed = ObservedLease("me", TIMINGS)
    observed.observe(held(1), 0)
    observed.observe(None, 5)
    assert not observed.may_acquire(5)
    observed.observe(None, 15)
    assert observed.may_acquire(15)


def test_recreated_lease_is_another_lease() -> None:
    observed = ObservedLease("me", TIMINGS)
    observed.observe(held(1), 0)
    observed.observe(held(1, uid="v"), 14)
    assert not observed.may_acquire(16)


def test_holder_may_acquire_its_own_lease() -> None:
    observed = ObservedLease("me", TIMINGS)
    observed.observe(held(1, holder="me"), 0)
    assert observed.may_acquire(0)


def test_acquiring_counts_a_transition_and_renewing_does_not() -> None:
    renewed = acquired(held(1, holder="me"), "me", TIMINGS, NOW)
    assert renewed["spec"]["leaseTransitions"] == 0
    won = acquired(held(1), "me", TIMINGS, NOW)
    assert won["spec"]["leaseTransitions"] == 1
    assert won["spec"]["acquireTime"] == won["spec"]["renewTime"] == "2026-05-04T12:00:00.000000Z"
    assert won["metadata"] == held(1)["metadata"]


@given(
    duration=st.floats(3, 120),
    renewals=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    lag=st.floats(0, 10),
    offset=st.floats(-1e9, 1e9),
)
def test_no_two_candidates_may_act_at_once(duration: float, renewals: list[float], lag: float, offset: float) -> None:
    """A leader renews at irregular times and dies. A candidate sees each renewal later, by its own clock."""
    timings = LeaseTimings(lease_duration=duration)
    leader_stops_at, now = 0.0, 0.0
    observed = ObservedLease("me", timings)
    for number, pause in enumerate(renewals):
        now += pause * timings.renew_deadline
        leader_stops_at = now + timings.renew_deadline
        seen_at = now + lag
        observed.observe(held(number, seconds=0), offset + seen_at)
    acquired_at = offset + now
    while not observed.may_acquire(acquired_at):
        acquired_at += duration / 50
    assert acquired_at - offset >= leader_stops_at - 1e-3 * max(1, abs(offset) * 1e-9)
