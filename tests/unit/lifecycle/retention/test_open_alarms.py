"""The freeze after an alarm, and the backups that stay until a person has accepted it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.lifecycle.backup_record import BackupRecord, KeptAlarm
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.open_alarms import relevant_to_others
from cinderblock.lifecycle.retention.verdict import Judgement, RetentionPlan
from tests.support.retention.records import DAY, HOUR, NOW, Retaining, a_record, dailies, kept_ids, planned, rules

ATTACK = NOW - 2 * DAY
HOURLY = {"schedule": "BackupSchedule/hourly"}


def judgement(plan: RetentionPlan, uid: str) -> Judgement:
    """Return the judgement of one backup."""
    [verdict] = [verdict for verdict in plan.verdicts if verdict.backup.uid == uid]
    return verdict.judgement


def before_the_attack(count: int = 10) -> list[BackupRecord]:
    """Return backups of the hours before the attack, from new to old."""
    return [a_record(f"good-{number}", ATTACK - (number + 1) * HOUR) for number in range(count)]


def test_alarm_freezes_what_was_there_before_it() -> None:
    backups = dailies(20)
    backups[3] = replace(backups[3], is_suspicious=True)
    backups[2] = replace(backups[2], is_suspicious=True)
    plan = planned(rules(keep_last=1), backups)
    frozen = {v.backup.uid for v in plan.verdicts if v.judgement is Judgement.FROZEN}
    assert frozen == {f"b-{number}" for number in range(5, 20)}
    assert plan.status.frozen == 15
    assert judgement(plan, "b-1") is Judgement.EXPIRED
    accepted = [replace(backup, is_suspicious=False) for backup in backups]
    assert planned(rules(keep_last=1), accepted).status.frozen == 0


def test_freeze_ends_after_fourteen_days() -> None:
    backups = dailies(40)
    backups[14] = replace(backups[14], is_suspicious=True)
    assert planned(rules(keep_last=1), backups).status.frozen == 0
    assert planned(rules(keep_last=1), backups, NOW - 2 * HOUR + timedelta(minutes=58)).status.frozen == 24


def test_series_of_alarms_freezes_once() -> None:
    backups = [replace(backup, is_suspicious=number < 20) for number, backup in enumerate(dailies(40))]
    plan = planned(rules(keep_last=1), backups)
    assert plan.status.frozen == 0
    assert judgement(plan, "b-20") is Judgement.LAST_UNALARMED


def test_open_alarm_keeps_itself_and_the_backup_before_it() -> None:
    backups = dailies(60)
    backups[40] = replace(backups[40], is_suspicious=True)
    plan = planned(rules(keep_last=3), backups)
    kept = {verdict.backup.uid: verdict.judgement for verdict in plan.verdicts if verdict.judgement.keeps}
    assert kept["b-40"] is Judgement.OPEN_ALARM
    assert kept["b-41"] is Judgement.LAST_UNALARMED
    assert set(kept) == {"b-0", "b-1", "b-2", "b-40", "b-41"}


def test_second_alarm_freezes_although_an_older_one_is_open() -> None:
    """Hourly backups and keepLast 24: without its guard, the second suspicious backup would go after two days."""
    older = [a_record("early", NOW - 21 * DAY), a_record("false alarm", NOW - 20 * DAY, is_suspicious=True)]
    good = [a_record(f"good-{number}", NOW - (number + 1) * HOUR) for number in range(24)]
    attack = a_record("attack", NOW, is_suspicious=True)
    retaining = Retaining(Retention(keep_last=24, max_per_day=0), [*older, *good, attack])
    for hours in range(2, 13 * 24, 2):
        retaining.backups += [a_record(f"h-{hours - n}", NOW + (hours - n) * HOUR - HOUR / 2) for n in range(2)]
        retaining.apply(NOW + hours * HOUR)
    left = {backup.uid for backup in retaining.backups}
    assert {"early", "false alarm", "attack", *(backup.uid for backup in good)} <= left
    assert retaining.removed


def test_each_alarm_keeps_the_backup_before_it() -> None:
    backups = dailies(100)
    for number in (40, 41, 60, 80):
        backups[number] = replace(backups[number], is_suspicious=True)
    plan = planned(rules(keep_last=1), backups)
    assert kept_ids(plan) == {"b-0", "b-41", "b-42", "b-60", "b-61", "b-80", "b-81"}
    assert judgement(plan, "b-41") is Judgement.OPEN_ALARM


@pytest.mark.parametrize(
    "saved",
    [{"keeps_data": True}, {"is_being_deleted": True}, {"is_being_deleted": True, "phase": BackupPhase.DELETING}],
)
def test_suspicious_backup_that_is_saved_or_being_deleted_still_freezes(saved: dict[str, object]) -> None:
    good, later = before_the_attack(), [a_record("n-1", NOW - DAY), a_record("n-2", NOW - HOUR)]
    attack = a_record("attack", ATTACK, is_suspicious=True, **saved)
    plan = planned(rules(keep_last=1), [*good, attack, *later])
    assert {backup.uid for backup in good} <= kept_ids(plan)
    assert plan.status.frozen == 9
    assert judgement(plan, "good-0") is Judgement.LAST_UNALARMED


def test_series_goes_on_while_its_first_backup_is_being_deleted() -> None:
    first = a_record("first", NOW - 20 * DAY, is_suspicious=True, is_being_deleted=True)
    second = a_record("second", NOW - 10 * DAY, is_suspicious=True)
    good = a_record("good", NOW - 30 * DAY)
    frozen = a_record("also good", NOW - 31 * DAY)
    plan = planned(rules(keep_last=1), [frozen, good, first, second, a_record("newest", NOW - HOUR)])
    assert judgement(plan, "also good") is Judgement.FROZEN


@pytest.mark.parametrize("elsewhere", [{"store_name": "new"}, {"container": "new"}])
def test_alarm_in_another_store_freezes(elsewhere: dict[str, str]) -> None:
    good = before_the_attack()
    attack = a_record("attack", ATTACK, is_suspicious=True, **elsewhere)
    later = a_record("n-1", NOW - HOUR, **elsewhere)
    plan = planned(rules(keep_last=1), [*good, attack, later])
    assert {backup.uid for backup in good} <= kept_ids(plan)


@pytest.mark.parametrize("maker", ["", "BackupSchedule/hourly", "ClusterBackupSchedule/all"])
def test_alarm_of_another_maker_freezes(maker: str) -> None:
    good, later = before_the_attack(), [a_record(f"n-{number}", NOW - number * HOUR) for number in range(3)]
    attack = a_record("attack", ATTACK, is_suspicious=True, schedule=maker)
    context = RetentionContext(others=(attack,))
    plan = planned(rules(keep_last=1), [*good, *later], context=context)
    assert {backup.uid for backup in good} <= kept_ids(plan)
    assert "attack" not in {verdict.backup.uid for verdict in plan.verdicts}
    after = planned(rules(keep_last=1), [*good, *later], NOW + 20 * DAY, context)
    assert kept_ids(after) == {"n-0", "good-0"}
    accepted = replace(context, others=(replace(attack, is_suspicious=False),))
    assert kept_ids(planned(rules(keep_last=1), [*good, *later], context=accepted)) == {"n-0"}
    elsewhere = replace(context, others=(replace(attack, volume_id="c-2"),))
    assert kept_ids(planned(rules(keep_last=1), [*good, *later], context=elsewhere)) == {"n-0"}


def test_each_maker_has_its_own_series() -> None:
    """Another schedule makes backups between those of a series. The freeze ends 14 days after its beginning anyway."""
    own = [replace(backup, is_suspicious=number < 20) for number, backup in enumerate(dailies(40))]
    others = tuple(a_record(f"h-{n}", NOW - n * DAY - 2 * HOUR, **HOURLY) for n in range(40))
    plan = planned(rules(keep_last=1), own, context=RetentionContext(others=others))
    assert plan.status.frozen == 0


def test_backup_that_was_not_compared_yet_freezes_until_it_is() -> None:
    backups = dailies(60)
    backups[40] = replace(backups[40], has_unknown_alarm=True)
    plan = planned(rules(keep_last=1), backups)
    assert plan.status.frozen == 19
    assert judgement(plan, "b-40") is Judgement.EXPIRED
    assert planned(rules(keep_last=1), dailies(60)).status.frozen == 0


def test_only_alarms_and_children_matter_to_other_schedules() -> None:
    calm, waiting = dailies(3), a_record("waiting", phase=None, volume_id="")
    assert relevant_to_others([*calm, waiting]) == []
    child = a_record("child", phase=BackupPhase.CREATING, parent_id="b-1", volume_id="")
    elsewhere = a_record("elsewhere", volume_id="c-2")
    going = {"is_suspicious": True, "phase": BackupPhase.DELETING}
    for alarm in ({"is_suspicious": True}, {"has_unknown_alarm": True}, going):
        series = [replace(calm[0], **alarm), *calm[1:]]
        assert relevant_to_others([*series, waiting, child, elsewhere]) == [*series, child]


def test_freeze_lasts_fourteen_days_from_the_end_of_a_slow_backup() -> None:
    good = before_the_attack()
    attack = a_record("attack", ATTACK, is_suspicious=True, ended=ATTACK + 5 * DAY)
    fleet = [*good, attack, a_record("newest", ATTACK + 10 * DAY)]
    later = ATTACK + 19 * DAY
    assert planned(rules(keep_last=1), fleet, later).status.frozen == 9
    assert planned(rules(keep_last=1), fleet, later + timedelta(minutes=1)).status.frozen == 0


@pytest.mark.parametrize("keeper", ["good-0", "good-5", "n-1", "other"])
def test_alarm_of_a_deleted_backup_counts_until_it_is_accepted(keeper: str) -> None:
    """It freezes for 14 days. After that, the backup before it stays, and the one that keeps the alarm."""
    alarm = {"kept_alarms": (KeptAlarm("attack", ATTACK, ATTACK),)}
    fleet = [*before_the_attack(), a_record("n-1", NOW - DAY), a_record("n-2", NOW - HOUR)]
    fleet = [replace(backup, **alarm) if backup.uid == keeper else backup for backup in fleet]
    context = RetentionContext(
        others=(a_record("other", NOW - DAY, schedule="", **alarm),) if keeper == "other" else ()
    )
    plan = planned(rules(keep_last=1), fleet, context=context)
    assert {f"good-{number}" for number in range(10)} <= kept_ids(plan)
    later = planned(rules(keep_last=1), fleet, NOW + 20 * DAY, context)
    assert kept_ids(later) == {"n-2", "good-0", *({keeper} - {"other"})}
    accepted = [replace(backup, kept_alarms=()) for backup in fleet]
    assert kept_ids(planned(rules(keep_last=1), accepted)) == {"n-2"}


def test_alarm_of_a_deleted_backup_matters_to_other_schedules() -> None:
    keeper = a_record("keeper", kept_alarms=(KeptAlarm("attack", ATTACK, ATTACK),))
    assert relevant_to_others([keeper]) == [keeper]


def test_deleted_alarm_from_the_future_does_not_count_yet() -> None:
    fleet = [a_record("n-1", NOW - HOUR, kept_alarms=(KeptAlarm("x", NOW + DAY, NOW + DAY),)), *before_the_attack()]
    assert planned(rules(keep_last=1), fleet).status.frozen == 0
