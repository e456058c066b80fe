"""Which backup keeps the alarms of a deleted one."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

from cinderblock.api.v1alpha1.backup import MAX_DELETED_ALARMS, DeletedAlarm, VolumeBackup
from cinderblock.lifecycle.alarms.keepers import Keepers, keep_alarms, note
from tests.support.retention.records import HOUR, NOW

SUSPICIOUS = {"type": "Suspicious", "status": "True", "reason": "Empty", "lastTransitionTime": NOW}


def backup(name: str, hours: int, *, deleted: bool = False, volume: str = "c-1", **status: Any) -> VolumeBackup:
    """Return an available backup with data of some hours ago."""
    at = NOW - hours * HOUR
    metadata = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "7", "creationTimestamp": at}
    if deleted:
        metadata["deletionTimestamp"] = NOW
    own = {"id": name, "phase": "available", "volumeId": volume, "dataTimestamp": at, "completedAt": at}
    body = {"metadata": metadata, "spec": {"volumeId": volume}, "status": own | status}
    return VolumeBackup.model_validate(body)


ODD = backup("odd", 5, deleted=True, conditions=[SUSPICIOUS])


def keeper_of(deleted: VolumeBackup, *others: VolumeBackup) -> str | None:
    """Return the name of the keeper, which does not depend on the order."""
    found = set()
    for order in permutations(others):
        keepers = Keepers(deleted)
        for other in order:
            keepers.observe(other)
        found.add(keepers.best.name if keepers.best is not None else None)
    [name] = found
    return name


def test_newest_older_backup_keeps_the_alarm() -> None:
    assert keeper_of(ODD, backup("a", 9), backup("b", 7), backup("c", 3), backup("d", 1)) == "b"
    assert keeper_of(ODD, backup("c", 3), backup("d", 1)) == "c"


def test_backups_that_cannot_keep_an_alarm_do_not_get_it() -> None:
    others = [
        backup("deleted", 6, deleted=True),
        backup("failed", 6, phase="error"),
        backup("copied", 6, id="another"),
        backup("elsewhere", 6, volume="c-2"),
    ]
    assert keeper_of(ODD, *others) is None
    assert keep_alarms(ODD, None) is None
    assert note(ODD, None) == ""


def test_backup_that_keeps_the_alarm_already_is_not_written_again() -> None:
    first = keep_alarms(ODD, backup("c", 3))
    assert first is not None
    written = backup("c", 3, deletedAlarms=[alarm.to_wire() for alarm in first.alarms])
    assert keeper_of(ODD, backup("b", 7), written) == "c"
    assert keep_alarms(ODD, written) is None
    assert "VolumeBackup c keeps it" in note(ODD, written)


def test_calm_backup_hands_nothing_over() -> None:
    assert keep_alarms(backup("calm", 5, deleted=True), backup("b", 7)) is None


def test_backup_that_retention_removes_hands_nothing_over() -> None:
    gone = backup("odd", 5, deleted=True, conditions=[SUSPICIOUS], expiresAt=NOW - HOUR)
    assert keep_alarms(gone, backup("b", 7)) is None


def test_oldest_and_newest_alarms_are_kept() -> None:
    alarms = [
        DeletedAlarm(backup_id=f"x-{n}", backup_name=f"x-{n}", data_timestamp=at, raised_at=at).to_wire()
        for n in range(MAX_DELETED_ALARMS)
        for at in [NOW - timedelta(days=30 - n)]
    ]
    kept = keep_alarms(ODD, backup("b", 7, deletedAlarms=alarms))
    assert kept is not None
    assert [alarm.backup_id for alarm in kept.alarms] == [
        "x-0",
        *(f"x-{n}" for n in range(2, MAX_DELETED_ALARMS)),
        "odd",
    ]
    assert keeper_of(ODD, backup("b", 7, deletedAlarms=alarms), backup("a", 9)) == "a"
