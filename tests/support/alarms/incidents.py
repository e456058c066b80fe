"""Attacks and accidents, and how often the next backups of a volume raise an alarm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.support.alarms.backups import FULL_EVERY, Incident, Made, back_up
from tests.support.alarms.volumes import KINDS, Day, delete, encrypt, rename, truncate

DAYS: Final = 200
"""Days of a run without incidents."""
BEGIN: Final = 120
"""Day of an incident."""


@dataclass(frozen=True)
class Case:
    """An incident of the table.

    Attributes:
        text: its name in the table.
        incident: what changes a day.
        begin: its first day.
        days: how many days it lasts.
    """

    text: str
    incident: Incident
    begin: int = BEGIN
    days: int = 1

    def days_changed(self) -> dict[int, Incident]:
        """Return what changes each day."""
        return dict.fromkeys(range(self.begin, self.begin + self.days), self.incident)


def _twice(first: Incident, then: Incident) -> Incident:
    def both(day: Day) -> Day:
        return then(first(day))

    return both


CASES: Final = (
    Case("half of the data encrypted in place", partial(encrypt, share=0.5)),
    Case("the same, and the next backup is a full one", partial(encrypt, share=0.5), begin=FULL_EVERY),
    Case("all data replaced by noise", partial(encrypt, share=1.0)),
    Case("90 % of the files deleted", partial(delete, share=0.9)),
    Case("60 % of the files deleted", partial(delete, share=0.6)),
    Case("30 % deleted and 30 % encrypted", _twice(partial(delete, share=0.3), partial(encrypt, share=0.3))),
    Case("all files truncated to zero", truncate),
    Case("all files renamed", rename),
    Case("5 % of the data encrypted each day, for 20 days", partial(encrypt, share=0.05), days=20),
    Case("1 % of the data encrypted each day, for 80 days", partial(encrypt, share=0.01), days=80),
)


def first_alarm(case: Case, kind: str, seed: int) -> Made | None:
    """Return the first backup with an alarm since an incident began; None: there is none."""
    until = case.begin + case.days
    made = back_up(KINDS[kind], seed, until, case.days_changed())
    return next((each for each in made if each.day >= case.begin and each.alarms), None)


def found(case: Case, kind: str, seeds: range) -> int:
    """Return how many of some volumes raise an alarm."""
    return sum(first_alarm(case, kind, seed) is not None for seed in seeds)


def false_alarms(kind: str, seeds: range) -> int:
    """Return how many alarms some volumes raise without an incident."""
    return sum(bool(made.alarms) for seed in seeds for made in back_up(KINDS[kind], seed, DAYS))


def table(seeds: range, count: Callable[[Case, str, range], int] = found) -> Iterator[str]:
    """Yield the lines of the table in docs/guide/alarms.md."""
    yield f"| Incident | {' | '.join(KINDS)} |"
    yield f"|---|{'---|' * len(KINDS)}"
    for case in CASES:
        yield f"| {case.text} | {' | '.join(str(count(case, kind, seeds)) for kind in KINDS)} |"
    yield f"| none, for {DAYS} days: false alarms | {' | '.join(str(false_alarms(kind, seeds)) for kind in KINDS)} |"


if __name__ == "__main__":
    print("\n".join(table(range(int(sys.argv[1])))))
