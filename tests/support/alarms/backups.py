"""Daily backups of a synthetic volume, and the alarms that they raise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cinderblock.lifecycle.alarms.rules import Alarm, ComparedBackup, alarms_of
from cinderblock.lifecycle.alarms.stats import HISTORY, BackupStats, History
from tests.support.alarms.volumes import Day, Generator

START: Final = datetime(2026, 1, 5, 2, tzinfo=UTC)
FULL_EVERY: Final = 90
"""Days after which a backup is a full one."""

Incident = Callable[[Day], Day]


@dataclass(frozen=True)
class Made:
    """A backup, the number of its day, and the alarms that it raised."""

    day: int
    stats: BackupStats
    alarms: tuple[Alarm, ...]


def back_up(
    kind: Generator, seed: int, days: int, incidents: dict[int, Incident] | None = None, *, gaps: bool = True
) -> Iterator[Made]:
    """Yield the backups of a volume, with the alarms that each of them raises.

    Args:
        kind: what the volume holds.
        seed: of all that is random.
        days: number of days.
        incidents: what changes a day, by its number. The volume is as usual again afterwards.
        gaps: whether no backup is made on some days, up to a week.
    """
    rng = random.Random(f"{kind.__name__} {seed}")
    recent: list[BackupStats] = []
    full: BackupStats | None = None
    pending: list[Day] = []
    pause = 0
    for number, usual in zip(range(days), kind(rng), strict=False):
        incident = (incidents or {}).get(number)
        pending.append(incident(usual) if incident else usual)
        pause = pause - 1 if pause else (rng.randint(1, 7) if gaps and rng.random() < 0.01 else 0)
        if pause and not incident:
            continue
        is_full = number % FULL_EVERY == 0
        stats = _stats(number, pending, is_full=is_full)
        pending = []
        alarms = alarms_of(ComparedBackup(stats, History(tuple(recent[-HISTORY:]), full)))
        yield Made(number, stats, alarms)
        recent.append(stats)
        full = stats if is_full else full


def _stats(number: int, days: list[Day], *, is_full: bool) -> BackupStats:
    """Return the numbers of a backup after some days. Data that were added and removed meanwhile count as changes."""
    last = days[-1]
    new = sum(day.added + day.replaced for day in days)
    packs = sum((day.added + day.replaced) * day.ratio for day in days)
    if is_full:
        new, packs = last.logical, last.logical * last.usual_ratio
    return BackupStats(
        START + timedelta(days=number), is_full, int(last.logical), int(min(new, last.logical)),
        pack_bytes=int(packs * min(1.0, last.logical / new)) if new else 0, entries=last.entries,
    )  # fmt: skip
