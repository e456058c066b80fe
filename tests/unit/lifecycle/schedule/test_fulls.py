"""When a backup is full, and which backup it would otherwise be based on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.lifecycle.schedule.fulls import full_time, is_full_due, usable_parent
from tests.support.schedules.builders import START, claim, record

DAY = timedelta(days=1)
DATA = claim()


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": BackupPhase.ERROR},
        {"phase": BackupPhase.CREATING},
        {"phase": None},
        {"is_imported": True},
        {"is_being_deleted": True},
        {"volume_id": "another"},
        {"store_name": "another"},
        {"container": "another"},
        {"data_time": None},
    ],
)
def test_backups_that_are_no_parents(fields: dict[str, Any]) -> None:
    assert usable_parent([record("a", DATA)], DATA.uid, "default", "bucket") is not None
    assert usable_parent([record("a", DATA, **fields)], DATA.uid, "default", "bucket") is None


def test_parent_is_the_backup_with_the_newest_data() -> None:
    old, new = record("old", DATA), record("new", DATA, data_time=START + DAY)
    assert usable_parent([new, old], DATA.uid, "default", "") is new


def test_age_of_the_full_backup_survives_its_removal() -> None:
    parent = record("b", DATA, data_time=START + 9 * DAY, is_incremental=True, full_time=START)
    assert full_time(parent, [parent]) == START


def test_noted_time_is_not_later_than_the_parent() -> None:
    """A user who may create VolumeBackups must not postpone full backups forever."""
    parent = record("b", DATA, data_time=START + DAY, is_incremental=True, full_time=START + 9000 * DAY)
    assert full_time(parent, [parent]) == START + DAY


def test_oldest_backup_counts_if_the_note_is_lost() -> None:
    parent = record("b", DATA, data_time=START + 9 * DAY, is_incremental=True)
    other = record("a", DATA, data_time=START + 2 * DAY, is_incremental=True)
    assert full_time(parent, [parent, other]) == START + 2 * DAY


def test_driver_that_reports_1970_does_not_make_every_backup_a_full_one() -> None:
    created = START + 9 * DAY
    full = record("a", DATA, created=created, data_time=datetime(1970, 1, 1, tzinfo=UTC))
    assert full_time(full, [full]) == created
    assert not is_full_due(DATA.uid, full_time(full, [full]), created, 90 * DAY)


def test_parent_is_the_one_that_the_acceptance_chooses() -> None:
    """Compare what drivers report, as the acceptance does: a later creation does not count."""
    late = record("late", DATA, created=START + 9 * DAY, data_time=datetime(1970, 1, 1, tzinfo=UTC))
    early = record("early", DATA, created=START, data_time=START + DAY)
    assert usable_parent([late, early], DATA.uid, "default", "") is early


def test_no_full_backup_becomes_older_than_the_interval() -> None:
    for number in range(50):
        assert is_full_due(f"claim-{number}", START, START + 90 * DAY, 90 * DAY)
        assert not is_full_due(f"claim-{number}", START, START, 90 * DAY)


def test_full_backups_of_many_volumes_do_not_come_in_one_night() -> None:
    nights = [
        next(day for day in range(1, 91) if is_full_due(f"claim-{number}", START, START + day * DAY, 90 * DAY))
        for number in range(1000)
    ]
    assert max(nights.count(day) for day in range(1, 91)) < 30


def test_every_backup_is_full_without_an_interval() -> None:
    assert is_full_due("claim", START, START, timedelta())
