"""When a candidate may take the Lease: by what it has watched itself, never by an instant that stands in the Lease."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.controller.leaderelection.lease import LeaseTimings, ObservedLease, acquired, released

TIMING = LeaseTimings(lease_duration=15)
NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def held(version: int, holder: str = "other", uid: str = "u", seconds: int = 15, renewed: str = "") -> dict[str, Any]:
    """A Lease as the API server gives it."""
    spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed}
    return {"metadata": {"name": "x", "namespace": "y", "uid": uid, "resourceVersion": str(version)}, "spec": spec}


def test_no_lease_may_be_taken_at_once() -> None:
    sighting = ObservedLease("me", TIMING)
    sighting.observe(None, 0)
    assert sighting.may_acquire(0)


def test_a_lease_that_was_given_back_may_be_taken_at_once() -> None:
    sighting = ObservedLease("me", TIMING)
    sighting.observe(held(1), 0)
    sighting.observe(released(held(2)), 1)
    assert sighting.may_acquire(1)


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z", "nonsense"])
def test_a_held_lease_runs_out_after_its_length_without_a_change_whatever_its_renewal_says(renewed: str) -> None:
    sighting = ObservedLease("me", TIMING)
    sighting.observe(held(1, renewed=renewed), 100)
    for now in (100, 107, 114.9):
        sighting.observe(held(1, renewed=renewed), now)
        assert not sighting.may_acquire(now)
    sighting.observe(held(1, renewed=renewed), 115)
    assert sighting.may_acquire(115)


def test_every_renewal_begins_the_length_anew() -> None:
    sighting = ObservedLease("me", TIMING)
    for second in range(0, 60, 2):
        sighting.observe(held(second), second)
        assert not sighting.may_acquire(second)


def test_the_length_that_the_holder_has_promised_counts() -> None:
    sighting = ObservedLease("me", TIMING)
    sighting.observe(held(1, seconds=60), 0)
    assert not sighting.may_acquire(59)
    assert sighting.may_acquire(60)


def test_a_lease_that_somebody_removed_is_not_taken_before_it_would_have_run_out() -> None:
    sighting = ObservedLease("me", TIMING)
    sighting.observe(held(1), 0)
    sighting.observe(None, 5)
    assert not sighting.may_acquire(5)
    sighting.observe(None, 15)
    assert sighting.may_acquire(15)


def test_a_lease_that_was_removed_and_made_anew_is_another_one() -> None:
    sighting = ObservedLease("me", TIMING)
    sighting.observe(held(1), 0)
    sighting.observe(held(1, uid="v"), 14)
    assert not sighting.may_acquire(16)


def test_our_own_lease_is_ours() -> None:
    sighting = ObservedLease("me", TIMING)
    sighting.observe(held(1, holder="me"), 0)
    assert sighting.may_acquire(0)


def test_a_take_over_is_counted_and_a_renewal_is_not() -> None:
    mine = acquired(held(1, holder="me"), "me", TIMING, NOW)
    assert mine["spec"]["leaseTransitions"] == 0
    won = acquired(held(1), "me", TIMING, NOW)
    assert won["spec"]["leaseTransitions"] == 1
    assert won["spec"]["acquireTime"] == won["spec"]["renewTime"] == "2026-05-04T12:00:00.000000Z"
    assert won["metadata"] == held(1)["metadata"]


@given(
    lease=st.floats(3, 120),
    renewals=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    lag=st.floats(0, 10),
    offset=st.floats(-1e9, 1e9),
)
def test_whoever_looks_and_whenever_no_two_may_act_at_once(
    lease: float, renewals: list[float], lag: float, offset: float
) -> None:
    """A leader renews at irregular times and dies; a candidate sees each renewal some time later, by its own clock."""
    timing = LeaseTimings(lease_duration=lease)
    leader_stops, at = 0.0, 0.0
    sighting = ObservedLease("me", timing)
    for number, pause in enumerate(renewals):
        at += pause * timing.renew_deadline
        leader_stops = at + timing.renew_deadline
        landed = at + lag
        sighting.observe(held(number, seconds=0), offset + landed)
    taken_at = offset + at
    while not sighting.may_acquire(taken_at):
        taken_at += lease / 50
    assert taken_at - offset >= leader_stops - 1e-3 * max(1, abs(offset) * 1e-9)
