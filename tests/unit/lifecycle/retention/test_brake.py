"""The brake: how many backups of a volume go in 24 hours."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.lifecycle.retention.verdict import Judgement, Step
from tests.support.retention.records import DAY, HOUR, NOW, Retaining, a_record, dailies, planned, rules

RULES: dict[str, Any] = {"keep_last": 1, "grace": "24h"}


def braked(retaining: Retaining, days: int) -> list[int]:
    """Apply the rules each half hour, and return the number of removals of each day."""
    counts = []
    for day in range(days):
        before = len(retaining.removed)
        for half in range(48):
            retaining.apply(NOW + day * DAY + half * HOUR / 2)
        counts.append(len(retaining.removed) - before)
    return counts


def test_mistaken_rule_removes_ten_a_day() -> None:
    assert braked(Retaining(rules(**RULES, max_per_day=None), dailies(40)), 6) == [0, 10, 10, 10, 9, 0]


def test_limit_is_that_of_the_rules() -> None:
    assert braked(Retaining(rules(**RULES, max_per_day=3), dailies(9)), 5) == [0, 3, 3, 2, 0]


def test_without_a_limit_all_go_at_once() -> None:
    assert braked(Retaining(rules(**RULES, max_per_day=0), dailies(40)), 2) == [0, 39]


def test_default_is_twice_what_was_made_in_a_day() -> None:
    backups = [a_record(f"b-{number}", NOW - number * HOUR) for number in range(200)]
    plan = planned(rules(**RULES, max_per_day=None), backups)
    assert plan.status.expiring == 48
    assert plan.status.braked == 151


def test_waiting_backups_count_as_braked_and_not_as_kept() -> None:
    plan = planned(rules(**RULES, max_per_day=4), dailies(20))
    assert (plan.status.kept, plan.status.expiring, plan.status.braked) == (1, 4, 15)
    waiting = [verdict for verdict in plan.verdicts if verdict.is_braked]
    assert {verdict.step for verdict in waiting} == {Step.KEEP}
    assert {verdict.judgement for verdict in waiting} == {Judgement.EXPIRED}


def test_oldest_backups_go_first() -> None:
    plan = planned(rules(**RULES, max_per_day=2), dailies(10))
    assert {verdict.backup.uid for verdict in plan.verdicts if verdict.step is Step.MARK} == {"b-9", "b-8"}


def test_each_volume_has_its_own_limit() -> None:
    other = [replace(backup, uid=f"o-{backup.uid}", volume_id="c-2") for backup in dailies(20)]
    assert planned(rules(**RULES, max_per_day=4), [*dailies(20), *other]).status.expiring == 8


def test_deletions_that_are_under_way_count() -> None:
    retaining = Retaining(rules(**RULES, max_per_day=3), dailies(20))
    retaining.apply(NOW)
    for hour in range(1, 25):
        retaining.apply(NOW + hour * HOUR)
    due = [replace(backup, is_being_deleted=backup.expires_at is not None) for backup in retaining.backups]
    now = NOW + 24 * HOUR + timedelta(minutes=2)
    plan = planned(retaining.retention, due, now, retaining.context)
    assert not any(verdict.step is Step.REMOVE for verdict in plan.verdicts)
    assert all(v.expires_at >= NOW + 2 * DAY for v in plan.verdicts if v.step is Step.MARK and v.expires_at)


@pytest.mark.parametrize("grace", ["0s", "1h"])
def test_short_grace_has_the_same_limit(grace: str) -> None:
    retaining = Retaining(rules(keep_last=1, grace=grace, max_per_day=5), dailies(21))
    assert braked(retaining, 5) == [5, 5, 5, 5, 0]


def test_lower_limit_spreads_what_was_announced() -> None:
    retaining = Retaining(rules(**RULES, max_per_day=0), dailies(13))
    retaining.apply(NOW)
    retaining.retention = rules(**RULES, max_per_day=4)
    assert braked(retaining, 5) == [0, 4, 4, 4, 0]


@given(st.integers(1, 12), st.sampled_from(["24h", "36h", "7d"]), st.data())
@settings(max_examples=15)
def test_no_day_removes_more_than_the_limit(limit: int, grace: str, data: st.DataObject) -> None:
    retaining = Retaining(rules(keep_last=2, grace=grace, max_per_day=limit), dailies(30))
    now: datetime = NOW
    for number in range(data.draw(st.integers(24, 200))):
        if data.draw(st.integers(0, 12)) == 0:
            retaining.retention = rules(keep_last=data.draw(st.integers(1, 3)), grace=grace, max_per_day=limit)
        if data.draw(st.integers(0, 3)) == 0:
            retaining.backups.append(a_record(f"n-{number}", now))
        retaining.apply(now)
        now += timedelta(minutes=data.draw(st.sampled_from([1, 30, 60, 60, 90])))
    times = [time for time, _ in retaining.removed]
    late = 2 * HOUR
    for position, time in enumerate(times):
        assert position + 1 - bisect_right(times, time - DAY + late) <= limit
