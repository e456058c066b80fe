"""Properties of plans, against an oracle that compares each backup with all others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.plan import plan
from cinderblock.lifecycle.retention.verdict import Judgement, Step
from tests.support.retention import oracle
from tests.support.retention.records import DAY, NOW, Retaining, a_record, dailies, kept_ids, planned, rules
from tests.support.retention.strategies import COUNTS, contexts, counts, fleets, retentions

ZONES = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Etc/UTC"])
EXAMPLES, MANY = 60, 1500
SECONDS = timedelta(minutes=2)


def _agrees(retention: Retention, zone: str, fleet: list[BackupRecord], context: RetentionContext) -> None:
    made = plan(retention, ZoneInfo(zone), fleet, context, NOW)
    assert kept_ids(made) == oracle.kept(retention, ZoneInfo(zone), fleet, context, NOW)
    assert {v.backup.uid for v in made.verdicts} == {b.uid for b in fleet}


@given(retentions(), ZONES, fleets(), contexts())
@settings(max_examples=EXAMPLES)
def test_plan_keeps_what_the_oracle_keeps(
    retention: Retention, zone: str, fleet: list[BackupRecord], context: RetentionContext
) -> None:
    _agrees(retention, zone, fleet, context)


@pytest.mark.long
@given(retentions(), ZONES, fleets(), contexts())
@settings(max_examples=MANY)
def test_plan_keeps_what_the_oracle_keeps_in_many_cases(
    retention: Retention, zone: str, fleet: list[BackupRecord], context: RetentionContext
) -> None:
    _agrees(retention, zone, fleet, context)


@given(retentions(), fleets(), contexts(), st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES)
def test_plan_does_not_depend_on_the_order_of_backups(
    retention: Retention, fleet: list[BackupRecord], context: RetentionContext, random: Any
) -> None:
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert planned(retention, fleet, context=context) == planned(retention, shuffled, context=context)


@given(retentions(), fleets(), contexts())
@settings(max_examples=EXAMPLES)
def test_plan_made_again_removes_nothing_more(
    retention: Retention, fleet: list[BackupRecord], context: RetentionContext
) -> None:
    fleet = [backup for backup in fleet if not backup.is_being_deleted]
    retaining = Retaining(retention, fleet)
    retaining.context = context
    expected = oracle.kept(retention, UTC, fleet, context, NOW)
    retaining.apply(NOW)
    later = NOW + timedelta(minutes=2)
    retaining.apply(later)
    removed = len(retaining.removed)
    assert expected <= {backup.uid for backup in retaining.backups}
    again = retaining.apply(later)
    assert len(retaining.removed) == removed
    assert not any(verdict.step in (Step.REMOVE, Step.UNMARK) for verdict in again.verdicts)


@given(counts(), fleets(), st.sampled_from([*COUNTS, "keep_within"]), st.integers(1, 4))
@settings(max_examples=EXAMPLES)
def test_rule_that_is_added_or_raised_removes_no_more(
    given_: dict[str, Any], fleet: list[BackupRecord], rule: str, more: int
) -> None:
    raised = given_ | ({rule: f"{more}d"} if rule == "keep_within" else {rule: given_[rule] + more})
    assert kept_ids(planned(rules(**given_), fleet)) <= kept_ids(planned(rules(**raised), fleet))


@given(counts(), fleets(is_plain=True))
@settings(max_examples=EXAMPLES)
def test_newer_backup_brings_no_older_one_back(given_: dict[str, Any], fleet: list[BackupRecord]) -> None:
    before = kept_ids(planned(rules(**given_), fleet))
    after = kept_ids(planned(rules(**given_), [*fleet, a_record("new", NOW)]))
    assert after <= before | {"new"}
    assert len(after) <= sum(given_.values()) + 1


@given(counts(), st.sampled_from([1, 7, 31]), st.sampled_from(["Europe/Berlin", "Etc/UTC"]))
@settings(max_examples=4)
def test_daily_application_ends_as_one_application(given_: dict[str, Any], period: int, zone: str) -> None:
    _ends_alike(given_, 200, period, zone)


@pytest.mark.long
@given(counts(), st.integers(1, 40), ZONES)
@settings(max_examples=15)
def test_two_years_of_application_end_as_one_application(given_: dict[str, Any], period: int, zone: str) -> None:
    _ends_alike(given_, 730, period, zone)


def _ends_alike(given_: dict[str, Any], days: int, period: int, zone: str) -> None:
    """Apply rules after every ``period`` days, and once to all backups, with the same result."""
    retention, made = rules(**given_), dailies(days)[::-1]
    retaining = Retaining(retention, zone=ZoneInfo(zone))
    for number, backup in enumerate(made):
        retaining.backups.append(backup)
        if number % period == 0:
            retaining.apply(backup.created)
            retaining.apply(backup.created + timedelta(minutes=2))
    for now in (NOW, NOW + timedelta(minutes=2)):
        retaining.apply(now)
    assert {backup.uid for backup in retaining.backups} == kept_ids(planned(retention, made, zone=ZoneInfo(zone)))


@given(counts(), st.data())
@settings(max_examples=EXAMPLES)
def test_last_complete_backup_survives_any_order_of_events(given_: dict[str, Any], data: st.DataObject) -> None:
    retaining, now, clock = Retaining(rules(**given_)), NOW, timedelta(0)
    for number in range(data.draw(st.integers(5, 40))):
        match data.draw(st.sampled_from(["back up", "back up", "fail", "jump", "policy", "person", "hold", "alarm"])):
            case "back up":
                retaining.backups.append(a_record(f"b-{number}", now))
            case "fail":
                retaining.backups.append(a_record(f"b-{number}", now, phase=BackupPhase.ERROR))
            case "jump":
                clock = timedelta(days=data.draw(st.integers(-800, 800)))
            case "policy":
                retaining.retention = rules(**data.draw(counts()), max_age=data.draw(st.sampled_from([None, "1h"])))
            case "person" if retaining.backups:
                retaining.backups.remove(data.draw(st.sampled_from(retaining.backups)))
            case "hold" if retaining.backups:
                retaining.backups[0] = replace(retaining.backups[0], is_held=not retaining.backups[0].is_held)
            case "alarm" if retaining.backups:
                retaining.backups[-1] = replace(retaining.backups[-1], is_suspicious=True)
        whole = [backup for backup in retaining.backups if backup.is_complete]
        for step in range(2):
            retaining.apply(now + clock + step * SECONDS)
        left = {backup.uid for backup in retaining.backups}
        assert not whole or max(whole, key=lambda b: (b.created, b.uid)).uid in left
        now += timedelta(hours=data.draw(st.integers(1, 60)))


@given(fleets(is_plain=True), counts())
@settings(max_examples=EXAMPLES)
def test_each_removal_names_a_newer_backup_that_stays(fleet: list[BackupRecord], given_: dict[str, Any]) -> None:
    verdicts = planned(rules(**given_), fleet).verdicts
    kept = {verdict.backup.uid for verdict in verdicts if verdict.judgement.keeps}
    for verdict in verdicts:
        if not verdict.judgement.keeps:
            assert verdict.witness is not None
            assert verdict.witness.uid in kept
            assert verdict.witness.created >= verdict.backup.created


def test_thousands_of_backups_are_planned_in_one_pass() -> None:
    fleet = [a_record(f"b-{number}", NOW - timedelta(hours=number)) for number in range(8760)]
    made = planned(rules(keep_last=3, keep_hourly=24, keep_daily=7, keep_weekly=4, keep_monthly=12), fleet)
    assert made.status.kept == 41
    assert made.status.expiring == 8760 - 41


@pytest.mark.parametrize("odd", [None, NOW.replace(year=1), NOW.replace(year=9999), NOW.replace(tzinfo=None)])
def test_odd_times_of_data_are_judged_like_others(odd: Any) -> None:
    fleet = [*dailies(3), a_record("odd", NOW - 40 * DAY, data_time=odd)]
    verdicts = {v.backup.uid: v for v in planned(rules(keep_last=1), fleet).verdicts}
    is_future = odd is not None and odd.year == 9999
    assert (verdicts["odd"].judgement is Judgement.FUTURE) == is_future
