"""The order of judgement: which answer wins for a backup that several could keep or remove."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.retention import FailedRetention, GoneRetention
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.context import RetentionContext
from cinderblock.lifecycle.retention.uses import verified_at
from cinderblock.lifecycle.retention.verdict import Judgement, RetentionPlan, Step
from tests.support.retention.records import DAY, HOUR, NOW, a_record, dailies, kept_ids, planned, rules

OLD = NOW - 30 * DAY
NEWER = a_record("newer", NOW - DAY)


def judgement(plan: RetentionPlan, uid: str = "b-1") -> Judgement:
    """Return the judgement of one backup."""
    [verdict] = [verdict for verdict in plan.verdicts if verdict.backup.uid == uid]
    return verdict.judgement


EVERYTHING = {"phase": BackupPhase.RESTORING, "is_held": True}
CONTEXT = RetentionContext(used_ids=frozenset({"b-1"}), verified_at={"b-1": OLD})
SUSPICIOUS = replace(NEWER, is_suspicious=True)

ORDER: list[tuple[Judgement, dict[str, Any], RetentionContext, list[BackupRecord], dict[str, Any]]] = [
    (Judgement.DELETING, EVERYTHING | {"is_being_deleted": True}, CONTEXT, [NEWER], {}),
    (Judgement.LOCKED, EVERYTHING | {"is_being_deleted": True, "is_locked": True}, CONTEXT, [NEWER], {}),
    (Judgement.IMPORTED, EVERYTHING | {"is_imported": True}, CONTEXT, [NEWER], {}),
    (Judgement.RETAINED, EVERYTHING | {"keeps_data": True}, CONTEXT, [NEWER], {}),
    (Judgement.READ_ONLY, EVERYTHING, replace(CONTEXT, read_only=frozenset({("shop", "default")})), [NEWER], {}),
    (Judgement.UNFINISHED, {"phase": BackupPhase.CREATING, "is_held": True}, CONTEXT, [NEWER], {}),
    (Judgement.FORGOTTEN, {"phase": BackupPhase.ERROR, "is_forgotten": True, "is_held": True}, CONTEXT, [NEWER], {}),
    (Judgement.HELD, EVERYTHING, CONTEXT, [], {}),
    (Judgement.OBJECT_LOCK, {"phase": BackupPhase.RESTORING, "locked_until": NOW + HOUR}, CONTEXT, [], {}),
    (Judgement.OBJECT_LOCK, {"locked_until": NOW + HOUR}, RetentionContext(), [NEWER], {"max_age": "1h"}),
    (Judgement.MAX_AGE, {"locked_until": NOW}, RetentionContext(), [NEWER], {"max_age": "1h"}),
    (Judgement.IN_USE, {"phase": BackupPhase.RESTORING}, CONTEXT, [], {}),
    (Judgement.LAST_WHOLE, {}, RetentionContext(verified_at={"b-1": OLD}), [], {}),
    (
        Judgement.LAST_INTACT,
        {},
        RetentionContext(verified_at={"b-1": OLD}),
        [replace(SUSPICIOUS, lacks_files=True)],
        {},
    ),
    (Judgement.LAST_INTACT, {}, RetentionContext(), [replace(NEWER, is_damaged=True)], {"max_age": "1h"}),
    (Judgement.LAST_UNALARMED, {}, RetentionContext(verified_at={"b-1": OLD}), [SUSPICIOUS], {}),
    (Judgement.LAST_VERIFIED, {}, RetentionContext(verified_at={"b-1": OLD}), [NEWER], {"max_age": "1h"}),
    (Judgement.FUTURE, {"data_time": NOW + HOUR}, RetentionContext(), [NEWER], {"max_age": "1h"}),
    (Judgement.MIN_AGE, {}, RetentionContext(), [NEWER], {"min_age": "60d", "max_age": "1h"}),
    (Judgement.MIN_AGE, {"created": NOW - HOUR}, RetentionContext(), [a_record("later", NOW)], {"min_age": "24h"}),
    (Judgement.FROZEN, {}, RetentionContext(), [SUSPICIOUS, a_record("before", OLD + HOUR)], {"max_age": "1h"}),
    (Judgement.MAX_AGE, {}, RetentionContext(), [NEWER], {"max_age": "1h", "keep_last": 9}),
    (Judgement.RULES, {}, RetentionContext(), [NEWER], {"keep_last": 9}),
    (Judgement.NO_RULES, {}, RetentionContext(), [NEWER], {"keep_last": 0}),
    (Judgement.EXPIRED, {}, RetentionContext(), [NEWER], {}),
]


@pytest.mark.parametrize(
    ("expected", "fields", "context", "others", "given"), ORDER, ids=[str(number) for number in range(len(ORDER))]
)
def test_first_answer_wins(
    expected: Judgement,
    fields: dict[str, Any],
    context: RetentionContext,
    others: list[BackupRecord],
    given: dict[str, Any],
) -> None:
    plan = planned(rules(**({"keep_last": 1} | given)), [a_record("b-1", OLD, **fields), *others], context=context)
    assert judgement(plan) is expected


def test_damage_of_the_newest_backup_keeps_the_older_verified_one() -> None:
    """Without the damage, the newest verified backup is the newest one, and the older one may go."""
    newest, older, old = replace(NEWER, verified_at=NOW), a_record("older", OLD, verified_at=OLD), a_record("b-1", OLD)
    at = RetentionContext(verified_at=verified_at([newest, older]))
    sound = planned(rules(keep_last=1, max_age="1h"), [newest, older], context=at)
    assert judgement(sound, "older") is Judgement.MAX_AGE
    damaged = replace(newest, is_damaged=True, verified_at=None)
    at = RetentionContext(verified_at=verified_at([damaged, older]))
    found = planned(rules(keep_last=1, max_age="1h"), [damaged, replace(old, data_time=OLD + HOUR), older], context=at)
    assert judgement(found, "older") is Judgement.LAST_VERIFIED
    assert judgement(found) is Judgement.LAST_INTACT, "it is the newest that is not damaged"


def test_last_backup_stays_although_all_are_damaged() -> None:
    both = [replace(record, is_damaged=True) for record in (NEWER, a_record("b-1", OLD))]
    assert judgement(planned(rules(keep_last=1, max_age="1h"), both), NEWER.uid) is Judgement.LAST_WHOLE
    assert judgement(planned(rules(keep_last=1, max_age="1h"), both)) is Judgement.MAX_AGE


@pytest.mark.parametrize("given", [{"keep_last": 7}, {"keep_daily": 7}, {"keep_within": "6d"}])
def test_damaged_backups_push_out_no_sound_one(given: dict[str, Any]) -> None:
    backups = [replace(record, is_damaged=number < 7) for number, record in enumerate(dailies(20))]
    assert kept_ids(planned(rules(**given), backups)) == {f"b-{number}" for number in range(14)}


def test_parent_of_an_unfinished_backup_is_in_use() -> None:
    child = a_record("child", NOW, phase=BackupPhase.CREATING, parent_id="b-1")
    assert judgement(planned(rules(keep_last=1), [a_record("b-1", OLD), NEWER, child])) is Judgement.IN_USE
    gone = replace(child, is_being_deleted=True)
    assert judgement(planned(rules(keep_last=1), [a_record("b-1", OLD), NEWER, gone])) is Judgement.EXPIRED


def test_claim_made_again_does_not_push_out_its_predecessors_backups() -> None:
    again = [replace(backup, uid=f"new-{backup.uid}", volume_id="c-2") for backup in dailies(20)]
    plan = planned(rules(keep_last=3), [*again, *(a_record(f"b-{n}", OLD - n * DAY) for n in range(3))])
    assert {v.backup.uid for v in plan.verdicts if v.judgement.keeps} >= {"b-0", "b-1", "b-2"}


@pytest.mark.parametrize("field", ["store_name", "container"])
def test_volume_that_changes_its_store_keeps_its_last_backup_in_each(field: str) -> None:
    elsewhere = [replace(backup, uid=f"new-{backup.uid}", **{field: "other"}) for backup in dailies(3)]
    plan = planned(rules(keep_last=1, max_age="1h"), [a_record("b-1", OLD), *elsewhere])
    assert judgement(plan) is Judgement.LAST_WHOLE
    assert judgement(plan, "new-b-0") is Judgement.LAST_WHOLE


@pytest.mark.parametrize("phase", [BackupPhase.CREATING, BackupPhase.ERROR, None])
def test_backup_that_is_not_complete_replaces_no_complete_one(phase: BackupPhase | None) -> None:
    others = [a_record(f"new-{number}", NOW - number * HOUR, phase=phase) for number in range(5)]
    assert judgement(planned(rules(keep_last=1, max_age="1h"), [a_record("b-1", OLD), *others])) is Judgement.LAST_WHOLE


GAPS: dict[str, Any] = {"lacks_files": True}
UNRESTORABLE: dict[str, Any] = {"phase": BackupPhase.ERROR_RESTORING}


@pytest.mark.parametrize("fault", [GAPS, UNRESTORABLE, GAPS | UNRESTORABLE])
def test_backup_with_a_fault_replaces_no_intact_one(fault: dict[str, Any]) -> None:
    faulty = [replace(backup, **fault) for backup in dailies(5)]
    plan = planned(rules(keep_last=1, max_age="1h"), [a_record("b-9", OLD), a_record("b-8", OLD + DAY), *faulty])
    assert kept_ids(plan) == {"b-0", "b-8"}
    assert judgement(plan, "b-8") is Judgement.LAST_INTACT


def test_each_fault_has_its_own_last_backup() -> None:
    backups = dailies(5)
    backups[0] = replace(backups[0], **GAPS, **UNRESTORABLE)
    backups[1] = replace(backups[1], **UNRESTORABLE)
    backups[2:] = [replace(backup, **GAPS) for backup in backups[2:]]
    assert kept_ids(planned(rules(keep_last=1, max_age="1h"), backups)) == {"b-0", "b-1", "b-2"}


def test_backup_that_is_being_deleted_replaces_no_other() -> None:
    going = replace(NEWER, is_being_deleted=True)
    assert judgement(planned(rules(keep_last=1), [a_record("b-1", OLD), going])) is Judgement.LAST_WHOLE


def test_backup_from_the_future_counts_for_no_rule() -> None:
    backups = [a_record("future", NOW - HOUR, data_time=NOW + DAY), NEWER, a_record("b-1", OLD)]
    plan = planned(rules(keep_last=1), backups)
    assert judgement(plan, "newer") is Judgement.LAST_WHOLE
    assert judgement(plan, "future") is Judgement.FUTURE
    close = replace(backups[0], data_time=NOW + timedelta(minutes=4))
    assert judgement(planned(rules(keep_last=1), [close, NEWER]), "newer") is Judgement.EXPIRED


def test_clock_that_is_behind_changes_nothing() -> None:
    marked = replace(NEWER, expires_at=NOW - DAY)
    plan = planned(rules(keep_last=1), [a_record("b-1", OLD), marked, a_record("new", NOW + HOUR)])
    assert {verdict.judgement for verdict in plan.verdicts} == {Judgement.CLOCK_BEHIND}
    assert {verdict.step for verdict in plan.verdicts} == {Step.KEEP, Step.EXPIRING}


def test_storage_clock_that_was_set_back_removes_no_new_backup() -> None:
    old = [a_record(f"old-{n}", NOW - (10 + n) * DAY) for n in range(20)]
    new = [a_record(f"new-{n}", NOW - n * DAY - HOUR) for n in range(10)]
    wrong = [replace(backup, data_time=NOW - (2200 + n) * DAY) for n, backup in enumerate(new)]
    plan = planned(rules(keep_daily=7), [*old, *wrong])
    assert {v.backup.uid for v in plan.verdicts if v.judgement.keeps} == {f"new-{n}" for n in range(7)}


def test_failed_backups_are_kept_by_number() -> None:
    failures = [a_record(f"f-{n}", NOW - n * DAY, phase=BackupPhase.ERROR, volume_id=f"c-{n % 2}") for n in range(8)]
    plan = planned(rules(keep_last=1, failed=FailedRetention(last=2)), failures)
    assert {v.backup.uid for v in plan.verdicts if v.judgement is Judgement.FAILED_LAST} == {"f-0", "f-1", "f-2", "f-3"}
    assert {v.backup.uid for v in plan.verdicts if v.judgement is Judgement.FAILED} == {"f-4", "f-5", "f-6", "f-7"}
    assert all(verdict.witness is None for verdict in plan.verdicts)


def test_failures_of_a_run_that_still_retries_stay() -> None:
    failures = [a_record(f"f-{n}", NOW - n * HOUR, phase=BackupPhase.ERROR, scheduled_for=OLD) for n in range(3)]
    context = RetentionContext(unfinished_runs=frozenset({OLD}))
    plan = planned(rules(keep_last=1, failed=FailedRetention(last=0)), failures, context=context)
    assert {verdict.judgement for verdict in plan.verdicts} == {Judgement.RETRYING}


GONE = rules(keep_last=1, gone=GoneRetention(after="10d"))


@pytest.mark.parametrize(
    ("volumes", "after", "expected"),
    [
        (frozenset(), "10d", Judgement.GONE),
        (frozenset(), "40d", Judgement.LAST_WHOLE),
        (frozenset(), None, Judgement.LAST_WHOLE),
        (None, "10d", Judgement.LAST_WHOLE),
        (frozenset({("shop", "c-1")}), "10d", Judgement.LAST_WHOLE),
        (frozenset({("other", "c-1")}), "10d", Judgement.GONE),
    ],
)
def test_volume_is_gone_only_if_that_is_known(
    volumes: frozenset[tuple[str, str]] | None, after: str | None, expected: Judgement
) -> None:
    retention = rules(keep_last=1, gone=GoneRetention(after=after))
    plan = planned(retention, [a_record("b-1", OLD)], context=RetentionContext(volumes=volumes))
    assert judgement(plan) is expected


@pytest.mark.parametrize(("volume", "expected"), [("", Judgement.LAST_WHOLE), ("c-2", Judgement.GONE)])
def test_no_volume_is_gone_while_a_status_is_lost(volume: str, expected: Judgement) -> None:
    lost = a_record("lost", NOW - DAY, phase=BackupPhase.ERROR, is_forgotten=True, volume_id=volume)
    plan = planned(GONE, [a_record("b-1", OLD), lost], context=RetentionContext(volumes=frozenset()))
    assert judgement(plan) is expected
    assert judgement(plan, "lost") is Judgement.FORGOTTEN


def test_hold_keeps_a_backup_of_a_volume_that_is_gone() -> None:
    backups = [a_record("b-1", OLD, is_held=True), a_record("b-2", OLD - DAY)]
    plan = planned(GONE, backups, context=RetentionContext(volumes=frozenset()))
    assert judgement(plan) is Judgement.HELD
    assert judgement(plan, "b-2") is Judgement.GONE


def test_failures_of_a_volume_that_is_gone_go_with_it() -> None:
    backups = [a_record("b-1", OLD, phase=BackupPhase.ERROR)]
    assert judgement(planned(GONE, backups, context=RetentionContext(volumes=frozenset()))) is Judgement.GONE


def test_backup_that_is_given_twice_counts_once() -> None:
    plan = planned(rules(keep_last=3), [*dailies(5), *dailies(2)])
    assert [verdict.judgement.keeps for verdict in plan.verdicts] == [True, True, True, False, False]


def test_hold_changes_no_other_verdict() -> None:
    backups = dailies(10)
    before = planned(rules(keep_last=3), backups)
    backups[1] = replace(backups[1], is_held=True)
    after = planned(rules(keep_last=3), backups)
    assert [v.judgement.keeps for v in before.verdicts] == [v.judgement.keeps for v in after.verdicts]


def test_locked_backup_in_deletion_counts_as_going() -> None:
    going = a_record("b-1", OLD, is_being_deleted=True, is_locked=True, phase=BackupPhase.DELETING, expires_at=OLD)
    plan = planned(rules(keep_last=1), [going, NEWER])
    assert (plan.status.kept, plan.status.expiring) == (1, 0)
    [verdict] = [verdict for verdict in plan.verdicts if verdict.backup.uid == "b-1"]
    assert (verdict.step, verdict.expires_at) == (Step.EXPIRING, OLD)


def test_store_of_the_same_name_elsewhere_is_another_one() -> None:
    context = RetentionContext(read_only=frozenset({("other", "default"), ("shop", "archive")}))
    assert judgement(planned(rules(keep_last=1), [a_record("b-1", OLD), NEWER], context=context)) is Judgement.EXPIRED


def test_mark_of_a_backup_in_a_read_only_store_is_removed() -> None:
    context = RetentionContext(read_only=frozenset({("shop", "default")}))
    plan = planned(rules(keep_last=1), [a_record("b-1", OLD, expires_at=NOW - HOUR), NEWER], context=context)
    assert [verdict.step for verdict in plan.verdicts] == [Step.KEEP, Step.UNMARK]
