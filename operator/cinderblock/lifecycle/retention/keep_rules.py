"""The keep rules, which are those of restic.

Each rule goes through all backups of a group from the newest to the oldest, independent of the other rules. It keeps
the newest backup of each period that has one, until it has kept as many as its count. If there are not that many, it
also keeps the oldest backup of all, so that a rule of years has something to keep before the first year is over.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final

from cinderblock.api.duration import parse_long_duration
from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.backup_times import data_time

Period = Callable[[datetime], Hashable]


def _hour(local: datetime) -> Hashable:
    """Return the hour. The offset separates the two hours of the same name on the day on which clocks go back."""
    return local.date(), local.hour, local.utcoffset()


def _day(local: datetime) -> Hashable:
    return local.date()


def _week(local: datetime) -> Hashable:
    return local.isocalendar()[:2]


def _month(local: datetime) -> Hashable:
    return local.year, local.month


def _year(local: datetime) -> Hashable:
    return local.year


_PERIODS: Final[tuple[tuple[str, Period], ...]] = (
    ("hourly", _hour),
    ("daily", _day),
    ("weekly", _week),
    ("monthly", _month),
    ("yearly", _year),
)


def exist(retention: Retention) -> bool:
    """Return whether there is a keep rule. Without one, everything is kept."""
    counts = (retention.keep_last, *(getattr(retention, f"keep_{name}") for name, _ in _PERIODS))
    return any(counts) or retention.keep_within is not None


def kept(retention: Retention, zone: tzinfo, backups: Sequence[BackupRecord]) -> list[tuple[str, ...]]:
    """Return for each backup the rules that keep it, such as ``daily 3`` for the third day from the newest.

    Args:
        retention: the rules.
        zone: the zone in which hours, days and so on begin.
        backups: the backups of one group, from new to old.
    """
    rules: list[list[str]] = [[] for _ in backups]
    for number, reasons in enumerate(rules[: retention.keep_last], start=1):
        reasons.append(f"last {number}")
    locals_ = [_local(data_time(backup), zone) for backup in backups]
    for name, period in _PERIODS:
        _add_periodic(rules, name, getattr(retention, f"keep_{name}"), [period(local) for local in locals_])
    if retention.keep_within is not None:
        _add_within(rules, retention.keep_within, backups)
    return [tuple(reasons) for reasons in rules]


def _add_periodic(rules: list[list[str]], name: str, count: int, periods: Sequence[Hashable]) -> None:
    """Add the reasons of one rule to the backups that it keeps."""
    seen: set[Hashable] = set()
    for reasons, period in zip(rules, periods, strict=True):
        if len(seen) >= count:
            return
        if period not in seen:
            seen.add(period)
            reasons.append(f"{name} {len(seen)}")
    if rules and count > len(seen) and not any(reason.startswith(f"{name} ") for reason in rules[-1]):
        rules[-1].append(f"oldest {name}")


def _add_within(rules: list[list[str]], within: str, backups: Sequence[BackupRecord]) -> None:
    limit = parse_long_duration(within)
    for reasons, backup in zip(rules, backups, strict=True):
        if data_time(backups[0]) - data_time(backup) <= limit:
            reasons.append(f"within {within}")


def _local(time: datetime, zone: tzinfo) -> datetime:
    """Return the time in the zone; the first and the last hours of the calendar stay in UTC."""
    try:
        return time.astimezone(zone)
    except OverflowError:
        return time.astimezone(UTC)
