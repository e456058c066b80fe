"""Which records a schedule keeps if there are too many for its memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cinderblock.controller.schedules.record_limit import RecordLimit, fewest_backups, newest_backups
from cinderblock.lifecycle.backup_record import BackupRecord
from tests.support.retention.records import NOW, a_record

EXAMPLE = a_record()


def fill(limit: RecordLimit[BackupRecord], namespaces: int, volumes: int, backups: int, *, prefix: str = "n") -> None:
    """Add backups of some volumes in each of some namespaces, newest first."""
    for number in range(backups):
        for place in range(namespaces):
            for volume in range(volumes):
                uid = f"{prefix}{place}-{volume}-{number}"
                created = NOW - timedelta(hours=number)
                where = {"namespace": f"{prefix}{place}", "volume_id": f"v-{volume}", "uid": uid}
                limit.add(replace(EXAMPLE, created=created, **where))


def backup_limit(limit: int) -> RecordLimit[BackupRecord]:
    """Return a limit for VolumeBackups, as schedules use it."""
    return RecordLimit(limit, reductions=(newest_backups, fewest_backups))


def newest_are_kept(limit: RecordLimit[BackupRecord], namespaces: int, volumes: int) -> bool:
    """Return whether the newest backup of each volume was kept."""
    kept = {record.uid for record in limit.records()}
    return all(f"n{place}-{volume}-0" in kept for place in range(namespaces) for volume in range(volumes))


def test_small_namespaces_are_reduced_and_not_left_out() -> None:
    """The same shape as 520 volumes with 78 backups in 104 namespaces, at a tenth of the limit."""
    limit = backup_limit(4_000)
    fill(limit, 52, 1, 78)
    assert not limit.overfull
    assert limit.reduced
    assert len(limit.records()) <= 4_000
    assert newest_are_kept(limit, 52, 1)


def test_each_volume_keeps_one_backup_if_three_are_too_many() -> None:
    limit = backup_limit(1_000)
    fill(limit, 30, 30, 4)
    assert not limit.overfull
    assert newest_are_kept(limit, 30, 30)


def test_large_honest_namespace_stays_while_others_can_be_reduced() -> None:
    limit = backup_limit(1_000)
    fill(limit, 1, 200, 1)
    fill(limit, 40, 1, 30, prefix="small")
    assert not limit.overfull
    assert "n0" not in limit.reduced
    assert newest_are_kept(limit, 1, 200)


def test_namespace_of_very_many_volumes_is_left_out_first() -> None:
    limit = backup_limit(1_000)
    fill(limit, 20, 1, 30)
    fill(limit, 1, 2_000, 1, prefix="forged")
    assert limit.overfull == {"forged0"}
    assert not limit.reduced


def test_largest_namespaces_go_if_nothing_can_be_reduced() -> None:
    limit = backup_limit(1_000)
    fill(limit, 4, 200, 1)
    fill(limit, 1, 220, 1, prefix="larger")
    assert limit.overfull == {"larger0"}
    assert newest_are_kept(limit, 4, 200)


def test_backup_that_is_being_deleted_takes_the_place_of_no_other() -> None:
    going = [
        replace(EXAMPLE, uid=f"g-{number}", created=NOW + timedelta(hours=number), is_being_deleted=True)
        for number in range(9)
    ]
    stays = replace(EXAMPLE, uid="stays", created=NOW)
    assert stays in fewest_backups([*going, stays])
