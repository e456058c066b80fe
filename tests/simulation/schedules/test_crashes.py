"""The operator dies before and after each write of a run: nothing is doubled and nothing is lost."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest

from cinderblock.errors import CinderblockError, KubeUnavailable
from tests.support.simulation.schedules import ScheduleSimulation
from tests.support.store.faults import Crash

FIRST = datetime.fromisoformat("2026-05-05T02:00:00Z")
CLAIMS = 3
WRITES = 12
"""More writes than a run of three volumes needs: creations, statuses and Events."""


def run(simulation: ScheduleSimulation, error: BaseException | None, at: int, *, done: bool) -> None:
    """Run a schedule once, and fail one of its writes."""
    for number in range(CLAIMS):
        simulation.claim(f"data-{number}")
    simulation.schedule(spread="30s", retries={"count": 0})
    simulation.run_for(timedelta(minutes=1))
    if error is not None:
        simulation.faults.plan(at, error, done=done)
    simulation.run_until(FIRST + timedelta(hours=1))


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(WRITES))
@pytest.mark.parametrize("error", [Crash("dies"), KubeUnavailable("no answer")], ids=["crash", "no-answer"])
def test_each_volume_has_one_backup_whichever_write_fails(error: BaseException, at: int, done: bool) -> None:
    with ScheduleSimulation() as simulation:
        run(simulation, error, at, done=done)
        volumes = Counter(item["spec"]["volumeId"] for item in simulation.backups())
        assert list(volumes.values()) == [1] * CLAIMS
        [schedule] = simulation.objects.all("BackupSchedule")
        status = simulation.status(schedule)
        assert status["lastScheduleTime"] == "2026-05-05T02:00:00Z"
        assert (status["lastRun"]["volumes"], status["lastRun"]["succeeded"]) == (CLAIMS, CLAIMS)
        assert not status["failing"]


def test_run_without_faults_makes_fewer_writes_than_are_tried() -> None:
    with ScheduleSimulation() as simulation:
        run(simulation, None, 0, done=False)
        assert CLAIMS < simulation.faults.writes < WRITES


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(WRITES))
def test_no_event_is_lost_whichever_write_fails(at: int, done: bool) -> None:
    def notes(error: BaseException | None) -> set[str]:
        with ScheduleSimulation() as simulation:
            run(simulation, error, at, done=done)
            return set(simulation.events())

    usual = notes(None)
    assert usual
    assert usual <= notes(Crash("dies"))


def test_silent_webhook_for_events_stops_no_run() -> None:
    with ScheduleSimulation() as simulation:
        simulation.api.rejections = {"Event": (500, 'failed calling webhook "audit": no answer')}
        run(simulation, None, 0, done=False)
        [schedule] = simulation.objects.all("BackupSchedule")
        assert simulation.status(schedule)["lastRun"]["succeeded"] == CLAIMS
        assert not simulation.events()


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_requested_run_is_made_once_whichever_write_fails(at: int, done: bool) -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("a")
        simulation.claim("b")
        schedule = simulation.schedule(runNow="x")
        simulation.faults.plan(at, Crash("dies"), done=done)
        simulation.run_for(timedelta(minutes=5))
        assert len(simulation.backups()) == 2
        assert simulation.status(schedule)["lastRunNow"] == "x"


def test_operator_that_dies_at_each_write_still_gets_on() -> None:
    with ScheduleSimulation() as simulation:
        for number in range(8):
            simulation.claim(f"data-{number}")
        simulation.schedule(spread="0s")
        simulation.run_until(FIRST)
        for _ in range(40):
            simulation.faults.plan(0, Crash("dies"), done=True)
            simulation.run_for(timedelta(seconds=10))
        assert len(simulation.backups()) == 8


def test_write_that_fails_is_an_error_of_ours() -> None:
    assert issubclass(KubeUnavailable, CinderblockError)
