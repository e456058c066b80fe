"""Measure how much a year of daily incremental backups stores and sends, while a policy removes old backups.

python -m tests.retention [--days N] [--size BYTES] [--below PERCENT ...] [--monthly] [--all | --peers]

It prints one row for each scenario, and ends with 1 if more is stored than aimed at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Final

from tests.retention import peers
from tests.retention.year import Keeps, Scenario, live_through

DAYS: Final = 365
SIZE: Final = 64 << 20
TREE_SIZE: Final = 16 << 20
"""Bytes of a tree: 16,384 files."""
_MONTH: Final = 30
AIMS: Final = {7: 1.7, 30: 2.0}
"""The most stored bytes for each byte of the volume, by the number of dailies that are kept."""


def keep_daily(count: int) -> Keeps:
    """Return a policy that keeps the newest backups."""
    return lambda day, today: day > today - count


def keep_monthly(count: int, months: int) -> Keeps:
    """Return a policy that also keeps the first backup of each of the newest months of 30 days."""
    return lambda day, today: day > today - count or (day % _MONTH == 0 and day > today - months * _MONTH)


def scenarios(below: list[int], *, everything: bool) -> Iterator[Scenario]:
    """Yield the scenarios with an aim, or more of them."""
    for percent in below:
        for count in AIMS:
            for changes in ("uniform", "hot-cold"):
                aim = AIMS[count] if percent else None
                yield Scenario(f"keepDaily {count}", keep_daily(count), changes, below=percent, aim=aim)
        if everything:
            yield Scenario("keepDaily 7", keep_daily(7), "uniform", "tree", below=percent)
            yield from monthly_scenarios([percent])


def monthly_scenarios(below: list[int]) -> Iterator[Scenario]:
    """Yield the scenarios that also keep monthly backups, which refer to packs of all ages."""
    for percent in below:
        for changes in ("uniform", "hot-cold"):
            yield Scenario("keepDaily 7, keepMonthly 12", keep_monthly(7, 12), changes, below=percent)


def main(arguments: list[str]) -> int:
    """Measure, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.retention", description=__doc__)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--size", type=int, default=SIZE, help="bytes of the image")
    parser.add_argument("--below", type=int, nargs="+", default=[50], help="thresholds of renewal; 0: no renewal")
    parser.add_argument("--all", action="store_true", help="also a tree of small files, and monthly backups")
    parser.add_argument("--monthly", action="store_true", help="instead: daily and monthly backups")
    parser.add_argument("--peers", action="store_true", help="instead: 30 days of Cinderblock, restic and kopia")
    given = parser.parse_args(arguments)
    if given.peers:
        return peers.compare()
    print(
        "| policy | volume | changes | renew below | stored, last 90 days | stored, most | exact bound | sent a day |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    misses = 0
    chosen = monthly_scenarios(given.below) if given.monthly else scenarios(given.below, everything=given.all)
    for scenario in chosen:
        found = live_through(scenario, TREE_SIZE if scenario.kind == "tree" else given.size, given.days)
        is_missed = scenario.aim is not None and found.settled > scenario.aim
        misses += is_missed
        aim = f", aim {scenario.aim}{' missed' if is_missed else ''}" if scenario.aim is not None else ""
        cells = (
            *(scenario.policy, scenario.kind, scenario.changes, f"{scenario.below} %", f"{found.settled:.2f}{aim}"),
            *(f"{max(found.stored):.2f}", f"{found.bound:.2f}"),
            f"{found.sent:.2%} (renewed {found.renewed:.2%})",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
    return int(misses > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
