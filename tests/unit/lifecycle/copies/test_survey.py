"""Which backups lack a copy, in which order they are copied, and what the results mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cinderblock.api.mover import COPIES_OF_A_RUN, CopyResult
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.store import BackupStore, CopyMover, CopyRule, CopyStatus, LockMode, LockSettings
from cinderblock.lifecycle.copies import decide, outcome
from cinderblock.lifecycle.copies.record import with_result
from cinderblock.lifecycle.copies.survey import RETRY_FAILED, Survey

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
PLACE = "0123456789abcdef"
STORE = BackupStore.model_validate(
    {"metadata": {"name": "default", "namespace": "shop", "uid": "s"}, "spec": {"credentialsSecretRef": {"name": "s3"}}}
)
LOCKS = LockSettings(mode=LockMode.COMPLIANCE, period="10d", generation="5d")
MOVER = CopyMover(uid="job", store_name="offsite", place=PLACE)


def backup(name: str, hours: float = 1, copies: list[dict[str, Any]] | None = None, **status: Any) -> VolumeBackup:
    at = (NOW - timedelta(hours=hours)).isoformat()
    recorded = {
        "id": name,
        "phase": "available",
        "storeName": "default",
        "volumeId": "v",
        "manifestKey": f"backups/v/{name}.manifest",
        "dataTimestamp": at,
        "completedAt": at,
        "copies": copies or [],
    }
    metadata = {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": at}
    body = {"metadata": metadata, "spec": {"volumeId": "data"}, "status": recorded | status}
    return VolumeBackup.model_validate(body)


def entry(place: str = PLACE, store: str = "offsite", **more: Any) -> dict[str, Any]:
    return {"storeName": store, "place": place, **more}


def survey(*backups: VolumeBackup, locks: LockSettings | None = None) -> Survey:
    found = Survey(STORE, CopyRule(store_name="offsite", check_every="30d"), PLACE, NOW, locks)
    for item in backups:
        found.add(item)
    return found


def batch(*backups: VolumeBackup) -> list[str]:
    return [item.name for item in survey(*backups).next_batch()]


def status(*backups: VolumeBackup) -> CopyStatus:
    return survey(*backups).status(CopyStatus(store_name="offsite"))


def test_older_data_is_copied_before_newer() -> None:
    assert batch(backup("child", 1), backup("full", 5), backup("middle", 3)) == ["full", "middle", "child"]


def test_failed_backup_comes_last_and_only_after_an_hour() -> None:
    lately = entry(failedAt=(NOW - RETRY_FAILED + timedelta(minutes=1)).isoformat())
    before = entry(failedAt=(NOW - RETRY_FAILED).isoformat())
    backups = backup("lately", 9, [lately]), backup("before", 8, [before]), backup("new", 1)
    assert batch(*backups) == ["new", "before"]
    found = status(*backups)
    assert (found.copied, found.pending, found.failed) == (0, 3, 2)
    assert found.oldest_pending == NOW - timedelta(hours=9)


def test_copy_counts_only_in_the_present_place() -> None:
    made = NOW.isoformat()
    here, elsewhere = entry(time=made), entry("other", time=made)
    other_store = entry(store="third", time=made)
    backups = backup("here", 3, [here]), backup("there", 2, [elsewhere]), backup("third", 1, [other_store])
    assert batch(*backups) == ["there", "third"]
    assert (status(*backups).copied, status(*backups).last_copied_at) == (1, NOW)


@pytest.mark.parametrize(
    "recorded",
    [
        {"phase": "creating"},
        {"phase": "error"},
        {"phase": "deleting"},
        {"storeName": "other"},
        {"manifestKey": None},
        {"manifestKey": "elsewhere/backups/v/b.manifest"},
        {"id": "another"},
    ],
)
def test_only_available_backups_of_the_store_are_copied(recorded: dict[str, Any]) -> None:
    assert not batch(backup("b", **recorded))
    assert status(backup("b", **recorded)).pending == 0


def test_old_copies_are_compared_again_after_all_others() -> None:
    old, older, new = (entry(time=(NOW - timedelta(days=days)).isoformat()) for days in (30, 31, 29))
    backups = backup("old", 900, [old]), backup("older", 901, [older]), backup("new", 902, [new]), backup("first", 1)
    assert batch(*backups) == ["first", "older", "old"]
    found = status(*backups)
    assert (found.copied, found.pending, found.oldest_pending) == (3, 1, NOW - timedelta(hours=1))


def test_copy_that_cannot_be_compared_is_pending_from_when_it_was_due() -> None:
    made, failed = NOW - timedelta(days=32), NOW - timedelta(hours=2)
    kept = entry(time=made.isoformat(), failedAt=failed.isoformat())
    item = backup("b", 900, [kept])
    found = status(item)
    assert (found.copied, found.pending, found.failed) == (0, 1, 1)
    assert found.oldest_pending == made + timedelta(days=30)
    assert batch(item) == ["b"]
    [again] = with_result(item, CopyResult(backup_id="b", reason="ManifestMissing"), MOVER, NOW, ["offsite"]) or []
    assert (again.time, again.failed_at) == (made, NOW)
    [whole] = with_result(item, CopyResult(backup_id="b"), MOVER, NOW, ["offsite"]) or []
    assert (whole.time, whole.failed_at) == (NOW, None)


@pytest.mark.parametrize(
    ("made", "locked", "is_due"), [(4, 11, False), (4, 10, True), (4, 9, True), (31, 300, True), (0.01, 3, False)]
)
def test_copy_is_compared_before_its_lock_falls_short(made: float, locked: float, is_due: bool) -> None:
    times = {"time": NOW - timedelta(days=made), "lockedUntil": NOW + timedelta(days=locked)}
    item = backup("b", 900, [entry(**{name: at.isoformat() for name, at in times.items()})])
    found = survey(item, locks=LOCKS)
    assert [due.name for due in found.next_batch()] == (["b"] if is_due else [])
    assert found.status(CopyStatus(store_name="offsite")).copied == 1
    assert bool(batch(item)) is (made > 30)


@pytest.mark.parametrize("ended", [None, NOW - timedelta(hours=3), NOW])
def test_copy_without_its_lock_is_pending_and_compared_soon(ended: datetime | None) -> None:
    locked = {"lockedUntil": ended.isoformat()} if ended is not None else {}
    item = backup("b", 900, [entry(time=(NOW - timedelta(days=20)).isoformat(), **locked)])
    found = survey(item, locks=LOCKS)
    shown = found.status(CopyStatus(store_name="offsite"))
    assert (shown.copied, shown.pending, shown.failed, shown.unlocked) == (0, 1, 0, 1)
    assert shown.oldest_pending == (ended or NOW)
    told = outcome.condition_of([CopyRule(store_name="offsite")], [shown], {}, NOW)
    assert (told.status, told.reason) == ("False", "Copying")
    assert "not locked 1 more" in told.message
    assert [due.name for due in found.next_batch()] == ["b"]
    assert status(item).copied == 1


def test_mover_that_sets_no_lock_is_not_asked_again_at_once() -> None:
    item = backup("b", 900, [entry(time=(NOW - timedelta(minutes=10)).isoformat())])
    assert not survey(item, locks=LOCKS).next_batch()


def test_copy_that_waits_for_a_lock_has_not_failed() -> None:
    waiting = entry(failedAt=(NOW - timedelta(hours=2)).isoformat(), failReason="Locked: Cannot replace a pack.")
    found = status(backup("b", 9, [waiting]))
    assert (found.pending, found.failed) == (1, 0)
    assert batch(backup("b", 9, [waiting])) == ["b"]


def test_failed_comparison_keeps_what_is_known_about_the_lock() -> None:
    until = NOW + timedelta(days=15)
    [made] = with_result(backup("b"), CopyResult(backup_id="b", locked_until=until), MOVER, NOW, ["offsite"]) or []
    assert made.locked_until == until
    item = backup("b", copies=[made.to_wire()])
    later = NOW + timedelta(days=1)
    [failed] = with_result(item, CopyResult(backup_id="b", reason="Locked"), MOVER, later, ["offsite"]) or []
    assert (failed.time, failed.locked_until, failed.failed_at) == (NOW, until, later)
    moved = CopyMover(uid="job", store_name="offsite", place="elsewhere")
    [other] = with_result(item, CopyResult(backup_id="b", reason="Locked"), moved, later, ["offsite"]) or []
    assert (other.time, other.locked_until) == (None, None)


def test_copied_status_of_another_object_counts_for_nothing() -> None:
    copied = backup("b", copies=[entry(time=NOW.isoformat())], id="original")
    assert copied.own_copies == []


def test_batch_is_bounded_and_in_one_bucket() -> None:
    many = [backup(f"b{number:04d}", number + 2) for number in range(600)]
    found = batch(*many, backup("first", 5000, container="second-bucket"))
    assert found == ["first"]
    oldest_first = [f"b{number:04d}" for number in range(599, 599 - COPIES_OF_A_RUN, -1)]
    assert batch(*many) == oldest_first
    assert status(*many).pending == 600


def test_results_replace_only_their_own_store() -> None:
    third = entry(store="third", time=NOW.isoformat())
    item = backup("b", copies=[third, entry(store="withdrawn", time=NOW.isoformat())])
    after = with_result(item, CopyResult(backup_id="b"), MOVER, NOW, ["offsite", "third"])
    assert after is not None
    assert [(copy.store_name, copy.time) for copy in after] == [("offsite", NOW), ("third", NOW)]
    again = backup("b", copies=[copy.to_wire() for copy in after])
    assert with_result(again, CopyResult(backup_id="b"), MOVER, NOW, ["offsite", "third"]) is None


def test_failure_names_its_reason_and_is_no_copy() -> None:
    result = CopyResult(backup_id="b", reason="KeyUnavailable", message="the key is missing " * 40)
    [failed] = with_result(backup("b"), result, MOVER, NOW, ["offsite"]) or []
    assert (failed.time, failed.failed_at) == (None, NOW)
    assert failed.fail_reason is not None
    assert failed.fail_reason.startswith("KeyUnavailable: the key")
    assert len(failed.fail_reason) <= 255


def test_attempts_become_rarer_up_to_an_hour() -> None:
    known, delays = CopyStatus(store_name="offsite"), []
    for _ in range(9):
        known = decide.after_failure(known, "StoreUnreachable", "away", NOW)
        assert known.retry_at is not None
        delays.append((known.retry_at - NOW).total_seconds() / 60)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert decide.after_success(known) == CopyStatus(store_name="offsite")


def test_store_that_waits_after_a_failure_holds_up_no_other() -> None:
    waiting = CopyStatus(store_name="a", oldest_pending=NOW - timedelta(days=2), retry_at=NOW + timedelta(minutes=1))
    other = CopyStatus(store_name="b", oldest_pending=NOW)
    batches = {"a": [backup("b")], "b": [backup("b")]}
    assert decide.choose({"a": waiting, "b": other}, batches, NOW) == "b"
    assert decide.choose({"a": waiting, "b": other}, batches, NOW + timedelta(minutes=1)) == "a"
    assert decide.choose({"a": waiting}, {"a": []}, NOW + timedelta(days=1)) is None


def test_copies_are_late_after_their_limit() -> None:
    rule = CopyRule(store_name="offsite", late_after="1d")
    for hours, reason in ((23, "Copying"), (25, "CopiesLate")):
        known = CopyStatus(store_name="offsite", pending=1, oldest_pending=NOW - timedelta(hours=hours))
        assert outcome.condition_of([rule], [known], {}, NOW).reason == reason
