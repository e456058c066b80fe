"""Any schedule, any pause of the operator, any crash: what a volume gets is what an obvious oracle says.

- at most one first backup for each volume and time;
- none for a time before the schedule existed, was changed or resumed;
- at least one for each time at which the operator ran, unless the status or an Event reports it as missed or skipped.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.lifecycle.schedule import conclude
from tests.support.schedules import cron_oracle
from tests.support.simulation.api import START
from tests.support.simulation.schedules import ScheduleSimulation
from tests.support.store.faults import Crash

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LENGTH = 3 * DAY
SLACK = timedelta(minutes=2)
"""Delay after a time after which a running operator has acted on it."""


@dataclass(frozen=True)
class Case:
    """One history.

    Attributes:
        spec: the schedule.
        begin: when it is created.
        pauses: when the operator is away, from and to, after the beginning.
        crashes: numbers of the writes at which it dies, and whether after them.
        duration: how long a backup takes.
    """

    spec: dict[str, Any]
    begin: datetime
    pauses: tuple[tuple[timedelta, timedelta], ...]
    crashes: tuple[tuple[int, bool], ...]
    duration: timedelta


EXPRESSIONS = ("0 */6 * * *", "30 2 * * *", "15,45 1-4 * * *", "0 */4 * * mon-fri", "7 1,13 * * *", "30 2 * * 0")
ZONES = ("Etc/UTC", "Europe/Berlin", "America/New_York", "Africa/Casablanca", "America/Sao_Paulo")
BEGINS = tuple(datetime.fromisoformat(f"{day}T21:17:05Z") for day in ("2026-03-06", "2026-03-27", "2026-10-23"))


def hours(most: int) -> st.SearchStrategy[timedelta]:
    return st.integers(0, most * 60).map(lambda minutes: timedelta(minutes=minutes))


CASES = st.builds(
    Case,
    spec=st.fixed_dictionaries(
        {
            "schedule": st.sampled_from(EXPRESSIONS),
            "timeZone": st.sampled_from(ZONES),
            "spread": st.sampled_from(["0s", "5m", "20m"]),
            "missed": st.sampled_from(["Latest", "Skip"]),
            "overlap": st.sampled_from(["Skip", "Queue"]),
        }
    ),
    begin=st.sampled_from(BEGINS),
    pauses=st.lists(st.tuples(hours(60), hours(30)), max_size=2).map(tuple),
    crashes=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=3).map(tuple),
    duration=st.sampled_from([timedelta(seconds=20), 2 * HOUR]),
)


def play(case: Case) -> tuple[ScheduleSimulation, list[tuple[datetime, datetime]], set[str]]:
    """Play a history. Return the cluster after it, when the operator was away, and the runs that the status showed."""
    simulation = ScheduleSimulation(case.begin - DAY)
    simulation.claim("a")
    simulation.claim("b")
    simulation.now, simulation.duration = case.begin, case.duration
    simulation.schedule(**case.spec)
    crashes, away, shown = sorted(case.crashes), list[tuple[datetime, datetime]](), set[str]()
    for at, pause in sorted(case.pauses):
        _play_until(simulation, case.begin + at, crashes, shown)
        began = max(simulation.now, case.begin + at)
        simulation.now = began + pause
        away.append((began, simulation.now))
    # After the last pause, the operator gets a moment to report what it missed.
    _play_until(simulation, max(case.begin + LENGTH, simulation.now + HOUR), crashes, shown)
    return simulation, away, shown


def _play_until(
    simulation: ScheduleSimulation, end: datetime, crashes: list[tuple[int, bool]], shown: set[str]
) -> None:
    def plan() -> None:
        for schedule in simulation.objects.all("BackupSchedule"):
            shown.add((schedule.get("status", {}).get("lastRun") or {}).get("name", ""))
        if crashes and simulation.faults.at is None:
            at, done = crashes.pop(0)
            simulation.faults.plan(at, Crash("dies"), done=done)

    plan()
    if end > simulation.now:
        simulation.run_until(end, each=plan)


def check(case: Case) -> None:
    """Assert the invariants."""
    simulation, away, shown = play(case)
    with simulation:
        backups = simulation.backups()
        made = Counter(
            (item["spec"]["volumeId"], item["metadata"]["annotations"]["cinderblock.io/scheduled-for"])
            for item in backups
        )
        assert set(made.values()) <= {1}
        end = simulation.now
        times = cron_oracle.times(case.spec["schedule"], case.spec["timeZone"], case.begin, end)
        assert {time for _, time in made} <= {f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in times}
        spread = timedelta(minutes={"0s": 0, "5m": 5, "20m": 20}[case.spec["spread"]])
        settled = [at for at in times if at + spread + SLACK < end]
        for position, at in enumerate(settled):
            stamp = f"{at:%Y-%m-%dT%H:%M:%SZ}"
            number = sum(time == stamp for _, time in made)
            assert number <= 2
            following = times[position + 1] if position + 1 < len(times) else None
            is_undisturbed = all(stop + SLACK < at or begin > at + spread + SLACK for begin, stop in away)
            may_skip = case.spec["overlap"] == "Skip" and case.duration > HOUR
            if is_undisturbed and not may_skip:
                assert number == 2, (stamp, following)
        reported = sum(_number(note) for note in simulation.events("Missed"))
        runs = {time for _, time in made}
        # An operator that dies after it has written the status records no Event of it.
        names = _told(simulation) | shown - {""}
        told = {f"{datetime.strptime(name + 'Z', '%Y%m%d%H%M%z'):%Y-%m-%dT%H:%M:%SZ}" for name in names}
        silent = {f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in settled} - runs - told
        assert len(silent) <= reported, (silent, simulation.events())


def _told(simulation: ScheduleSimulation) -> set[str]:
    """Return the runs that an Event reports."""
    notes = [
        *simulation.events("RunInProgress"),
        *simulation.events("RunIncomplete"),
        *simulation.events("RunCompleted"),
    ]
    return {note.split()[2] for note in notes}


def _number(note: str) -> int:
    return int(note.partition(" for ")[2].removeprefix("at least ").split()[0])


@given(case=CASES)
@settings(max_examples=8, deadline=None)
def test_volumes_get_what_the_times_say(case: Case) -> None:
    check(case)


@pytest.mark.long
@given(case=CASES)
@settings(max_examples=1500, deadline=None)
def test_volumes_get_what_the_times_say_for_very_many_histories(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("expression", ["30 2 * * 0", pytest.param("30 2 * * *", marks=pytest.mark.long)])
def test_year_has_one_run_for_each_of_its_times(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its times, the schedule is reconciled every seven hours, so that each hour of the day has its turn."""
    monkeypatch.setattr(conclude, "IDLE_PACE", 7 * HOUR)
    with ScheduleSimulation(START) as simulation:
        simulation.claim("data")
        simulation.schedule(spread="0s", timeZone="Europe/Berlin", schedule=expression)
        simulation.run_until(START + 365 * DAY)
        times = cron_oracle.times(expression, "Europe/Berlin", START, START + 365 * DAY)
        assert simulation.names() == [f"daily-data-{at:%Y%m%d%H%M}" for at in times]
        assert simulation.faults.requests["list", "persistentvolumeclaims"] < 10 * len(times)
