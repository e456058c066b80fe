"""The grace: nothing goes that was not announced for long enough by the present rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api.v1alpha1.retention import Retention, RetentionStatus
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.plan import MAX_REQUEUE_SECONDS
from cinderblock.lifecycle.retention.verdict import Step
from tests.support.retention.records import DAY, HOUR, NOW, Retaining, a_record, dailies, planned, rules

MINUTE = timedelta(minutes=1)
RULES: dict[str, Any] = {"keep_last": 1, "grace": "24h"}


def steps(retaining: Retaining, now: datetime) -> list[Step]:
    """Apply the rules, and return the steps of all backups except the newest."""
    return [verdict.step for verdict in retaining.apply(now).verdicts[1:]]


def run(retaining: Retaining, now: datetime, hours: int) -> datetime:
    """Apply the rules each hour, and return the time after that."""
    for _ in range(hours):
        retaining.apply(now)
        now += HOUR
    return now


def test_backup_goes_only_after_the_grace() -> None:
    retaining = Retaining(rules(**RULES), dailies(2))
    assert steps(retaining, NOW) == [Step.MARK]
    assert retaining.backups[1].expires_at == NOW + DAY
    now = run(retaining, NOW + HOUR, 23)
    assert steps(retaining, now) == [Step.EXPIRING]
    assert steps(retaining, now + MINUTE) == [Step.REMOVE]


def test_backup_that_a_rule_keeps_again_loses_its_mark() -> None:
    retaining = Retaining(rules(**RULES), dailies(2))
    retaining.apply(NOW)
    retaining.retention = rules(**RULES | {"keep_last": 2})
    assert steps(retaining, NOW + HOUR) == [Step.UNMARK]
    assert steps(retaining, NOW + 2 * HOUR) == [Step.KEEP]


def test_hold_removes_the_mark() -> None:
    retaining = Retaining(rules(**RULES), dailies(2))
    retaining.apply(NOW)
    retaining.backups[1] = replace(retaining.backups[1], is_held=True)
    assert steps(retaining, NOW + HOUR) == [Step.UNMARK]


def test_changed_rules_begin_the_grace_again() -> None:
    retaining = Retaining(rules(**RULES | {"keep_last": 2}), dailies(4))
    now = run(retaining, NOW, 23)
    retaining.retention = rules(**RULES)
    assert steps(retaining, now) == [Step.MARK] * 3
    assert {backup.expires_at for backup in retaining.backups[1:]} == {now + DAY}
    run(retaining, now + HOUR, 23)
    assert not retaining.removed


@pytest.mark.parametrize("hours", [5, 100, 24 * 400])
def test_pause_of_the_operator_begins_the_grace_again(hours: int) -> None:
    retaining = Retaining(rules(**RULES), dailies(2))
    now = run(retaining, NOW, 23) + hours * HOUR
    assert steps(retaining, now) == [Step.MARK]
    assert retaining.backups[1].expires_at == now + DAY
    run(retaining, now, 24)
    assert not retaining.removed


def test_short_pause_does_not_begin_the_grace_again() -> None:
    retaining = Retaining(rules(**RULES), dailies(2))
    now = run(retaining, NOW, 23) + HOUR
    assert steps(retaining, now) == [Step.EXPIRING]


@pytest.mark.parametrize("previous", [None, RetentionStatus(), RetentionStatus(rules="other")])
def test_mark_without_a_record_of_its_rules_gets_the_whole_grace(previous: RetentionStatus | None) -> None:
    backups = [a_record("new", NOW), a_record("b-1", NOW - DAY, expires_at=NOW - 9 * DAY)]
    plan = planned(rules(**RULES), backups, context=RetentionContext(previous=previous))
    assert plan.verdicts[1].step is Step.MARK
    assert plan.verdicts[1].expires_at == NOW + DAY


def test_mark_of_a_wrong_clock_in_the_future_is_replaced() -> None:
    retaining = Retaining(rules(**RULES), [a_record("new", NOW), a_record("b-1", NOW - DAY)])
    retaining.apply(NOW)
    retaining.backups[1] = replace(retaining.backups[1], expires_at=NOW + 4000 * DAY)
    assert steps(retaining, NOW + HOUR) == [Step.MARK]
    assert retaining.backups[1].expires_at == NOW + HOUR + DAY


def test_clock_that_goes_back_removes_nothing_earlier() -> None:
    retaining = Retaining(rules(**RULES), dailies(2, NOW - 300 * DAY))
    now = run(retaining, NOW, 20)
    now = run(retaining, now - 90 * DAY, 24)
    assert not retaining.removed
    assert retaining.apply(now + MINUTE).verdicts[1].step is Step.REMOVE


def test_even_without_grace_a_backup_is_announced_first() -> None:
    retaining = Retaining(rules(keep_last=1), dailies(2))
    assert steps(retaining, NOW) == [Step.MARK]
    assert steps(retaining, NOW) == [Step.EXPIRING]
    assert steps(retaining, NOW + MINUTE) == [Step.REMOVE]


def test_next_plan_is_made_when_the_first_backup_is_due() -> None:
    retaining = Retaining(rules(**RULES), dailies(2))
    assert retaining.apply(NOW).requeue_after == MAX_REQUEUE_SECONDS
    now = run(retaining, NOW + HOUR, 22)
    assert retaining.apply(now + timedelta(minutes=41)).requeue_after == 20 * 60
    assert retaining.apply(now + timedelta(minutes=60, seconds=59)).requeue_after == 5


def test_status_is_rewritten_once_an_hour() -> None:
    retaining, statuses = Retaining(rules(**RULES), dailies(1)), set()
    for minute in range(0, 24 * 60, 10):
        statuses.add(retaining.apply(NOW + minute * MINUTE).status.model_dump_json())
    assert len(statuses) == 24


class Watching(Retaining):
    """Notes since when each backup has been announced without a pause, by rules that did not change."""

    def __init__(self, retention: Retention) -> None:
        super().__init__(retention)
        self.announced: dict[str, datetime] = {}
        self.last: tuple[datetime, Retention] | None = None

    def check(self, now: datetime) -> None:
        """Apply the rules. Raise AssertionError if a backup goes that was not announced for a whole day."""
        before = self.last
        if before is None or before[1] != self.retention or now - before[0] > 4 * HOUR or now < before[0]:
            self.announced = {}
        made = self.apply(now)
        for verdict in made.verdicts:
            if verdict.step is Step.REMOVE:
                assert now - self.announced[verdict.backup.uid] >= DAY
            elif verdict.expires_at is None:
                self.announced.pop(verdict.backup.uid, None)
            else:
                self.announced.setdefault(verdict.backup.uid, now)
        self.last = now, self.retention


@given(st.data())
@settings(max_examples=30)
def test_every_removal_was_announced_for_a_whole_day(data: st.DataObject) -> None:
    watching, now = Watching(rules(**RULES)), NOW - 60 * DAY
    for number in range(data.draw(st.integers(10, 80))):
        match data.draw(st.sampled_from(["hour", "hour", "hour", "back up", "policy", "pause", "status"])):
            case "back up":
                watching.backups.append(a_record(f"b-{number}", now))
            case "policy":
                watching.retention = rules(**RULES | {"keep_last": data.draw(st.integers(1, 4))})
            case "pause":
                now += timedelta(hours=data.draw(st.integers(4, 200)))
            case "status":
                watching.context, watching.last = RetentionContext(), None
            case _:
                for _ in range(data.draw(st.integers(1, 30))):
                    watching.check(now)
                    now += HOUR
        watching.check(now)
        now += MINUTE
