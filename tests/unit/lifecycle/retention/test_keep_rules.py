"""The keep rules, with the results of restic, and the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention import keep_rules
from cinderblock.lifecycle.retention.plan import zone_name
from tests.support.retention.records import NOW, a_record, dailies, rules

HOUR = timedelta(hours=1)


def reasons(backups: list[BackupRecord], zone: str = "Etc/UTC", **given: Any) -> dict[str, str]:
    """Return the rules that keep each backup, by UID, without those that none keeps."""
    kept = keep_rules.kept(rules(**given), ZoneInfo(zone), backups)
    return {backup.uid: ", ".join(found) for backup, found in zip(backups, kept, strict=True) if found}


def hourlies(first: datetime, count: int) -> list[BackupRecord]:
    """Return backups of consecutive hours, from new to old; their UIDs count hours from ``first``."""
    return [a_record(f"h-{number}", first + number * HOUR) for number in range(count)][::-1]


def test_rules_are_independent_and_one_backup_can_fulfill_several() -> None:
    kept = reasons(dailies(30), keep_last=1, keep_daily=3, keep_weekly=2)
    assert kept == {"b-0": "last 1, daily 1, weekly 1", "b-1": "daily 2, weekly 2", "b-2": "daily 3"}


def test_four_hundred_dailies_are_kept_by_day_week_and_month() -> None:
    newest = datetime(2026, 11, 20, 2, tzinfo=UTC)
    backups = dailies(400, newest)
    kept = reasons(backups, keep_daily=7, keep_weekly=4, keep_monthly=6)
    days = [f"{backup.created:%m-%d}" for backup in backups if backup.uid in kept]
    week = [f"11-{day}" for day in range(20, 13, -1)]
    assert days == [*week, "11-08", "11-01", "10-31", "09-30", "08-31", "07-31", "06-30"]


def test_periods_without_a_backup_do_not_count() -> None:
    backups = [
        a_record("new", NOW),
        a_record("old", NOW - timedelta(days=400)),
        a_record("older", NOW - 500 * 24 * HOUR),
    ]
    assert reasons(backups, keep_daily=2) == {"new": "daily 1", "old": "daily 2"}


def test_newest_backup_of_a_period_is_kept() -> None:
    backups = hourlies(datetime(2026, 5, 4, tzinfo=UTC), 48)
    assert reasons(backups, keep_daily=2) == {"h-47": "daily 1", "h-23": "daily 2"}


def test_rule_that_is_not_filled_keeps_the_oldest_backup() -> None:
    assert reasons(dailies(3), keep_yearly=2) == {"b-0": "yearly 1", "b-2": "oldest yearly"}
    assert reasons(dailies(3), keep_yearly=1) == {"b-0": "yearly 1"}
    assert reasons(dailies(3), keep_last=5) == {"b-0": "last 1", "b-1": "last 2", "b-2": "last 3"}


def test_time_within_is_measured_from_the_newest_backup() -> None:
    backups = dailies(10, NOW - timedelta(days=300))
    assert reasons(backups, keep_within="2d") == dict.fromkeys(("b-0", "b-1", "b-2"), "within 2d")


@pytest.mark.parametrize(
    ("zone", "begin", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 10, 24, 22, tzinfo=UTC), 25),
        ("Europe/Berlin", datetime(2026, 3, 28, 23, tzinfo=UTC), 23),
        ("America/New_York", datetime(2026, 11, 1, 4, tzinfo=UTC), 25),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 13, tzinfo=UTC), 25),
        ("Etc/UTC", datetime(2026, 10, 25, tzinfo=UTC), 24),
    ],
)
def test_day_on_which_clocks_change_has_all_its_hours(zone: str, begin: datetime, hours: int) -> None:
    backups = hourlies(begin - 3 * HOUR, hours + 6)
    of_the_day = [
        b for b in backups if b.created.astimezone(ZoneInfo(zone)).date() == begin.astimezone(ZoneInfo(zone)).date()
    ]
    assert len(of_the_day) == hours
    assert len(reasons(of_the_day, zone, keep_hourly=100)) == hours
    assert len(reasons(of_the_day, zone, keep_daily=1)) == 1
    assert list(reasons(backups, zone, keep_daily=2))[1] == of_the_day[0].uid


def test_days_begin_in_the_zone_of_the_rules() -> None:
    backups = [
        a_record("late", datetime(2026, 5, 4, 22, 30, tzinfo=UTC)),
        a_record("early", datetime(2026, 5, 4, 20, tzinfo=UTC)),
    ]
    assert reasons(backups, "Etc/UTC", keep_daily=1) == {"late": "daily 1"}
    assert reasons(backups, "Europe/Berlin", keep_daily=2) == {"late": "daily 1", "early": "daily 2"}
    assert zone_name(rules(), "Europe/Berlin") == "Europe/Berlin"
    assert zone_name(rules(time_zone="Etc/UTC"), "Europe/Berlin") == "Etc/UTC"


@pytest.mark.parametrize(("sunday", "year"), [((2020, 12, 27), 2020), ((2021, 1, 3), 2020), ((2026, 1, 4), 2026)])
def test_weeks_are_those_of_iso(sunday: tuple[int, int, int], year: int) -> None:
    """The week of 28 December 2020 is the 53rd of 2020 and ends in 2021."""
    day = datetime(*sunday, 12, tzinfo=UTC)
    backups = [
        a_record("monday", day + timedelta(days=1)),
        a_record("sunday", day),
        a_record("before", day - 6 * 24 * HOUR),
    ]
    assert reasons(backups, keep_weekly=2) == {"monday": "weekly 1", "sunday": "weekly 2"}
    assert day.isocalendar().year == year


def test_zone_without_a_day_counts_the_days_that_it_has() -> None:
    """Samoa left out 30 December 2011."""
    backups = hourlies(datetime(2011, 12, 29, 10, tzinfo=UTC), 48)
    assert len(reasons(backups, "Pacific/Apia", keep_daily=10)) == 3
