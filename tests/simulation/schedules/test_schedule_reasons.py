"""Each reason of schedules is reached: in a condition, in status.failing, or in an Event."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from typing_extensions import override

from cinderblock.errors import AccessDenied, CinderblockError, KubeUnavailable
from cinderblock.kube.client import RequestInfo
from cinderblock.kube.kinds import VOLUME_BACKUP
from cinderblock.reasons import Reason
from tests.support.documented_reasons import SCHEDULE_REASONS
from tests.support.simulation.schedules import ScheduleSimulation
from tests.support.simulation.simulation import Faults

FIRST = datetime.fromisoformat("2026-05-05T02:00:00Z")
HOUR = timedelta(hours=1)

Scenario = Callable[[ScheduleSimulation], object]


def a_run(simulation: ScheduleSimulation) -> None:
    simulation.claim("data")
    simulation.schedule(spread="0s")
    simulation.run_until(FIRST + HOUR)


def misses(simulation: ScheduleSimulation) -> None:
    simulation.claim("data")
    simulation.schedule(spread="0s", startingDeadline="10m")
    simulation.run_for(HOUR)
    simulation.now = FIRST + HOUR
    simulation.run_for(HOUR)


def lacks_a_store(simulation: ScheduleSimulation) -> None:
    simulation.namespace("bare", with_store=False)
    simulation.claim("data", "bare")
    simulation.schedule(namespace="bare", spread="0s")
    simulation.run_until(FIRST + HOUR)


def retains(simulation: ScheduleSimulation) -> None:
    simulation.claim("data")
    simulation.schedule(spread="0s", retention={"keepLast": 1, "minAge": "0s"})
    simulation.run_until(FIRST + 25 * HOUR)


class NoMarks(Faults):
    """Answers every change of a VolumeBackup with an error."""

    def __init__(self, error: CinderblockError) -> None:
        super().__init__()
        self._error = error

    @override
    async def before(self, call: RequestInfo) -> None:
        if call.is_write and call.kind is VOLUME_BACKUP and call.verb == "patch":
            raise self._error


def cannot_mark(simulation: ScheduleSimulation, error: CinderblockError) -> None:
    simulation.faults = NoMarks(error)
    simulation.restart()
    retains(simulation)


def verifies(simulation: ScheduleSimulation) -> None:
    simulation.claim("data")
    simulation.schedule(spread="0s", verification={"structure": {"schedule": "0 3 * * *"}})
    simulation.run_until(FIRST + 2 * HOUR)


def may_not_verify(simulation: ScheduleSimulation) -> None:
    simulation.api.rejections = {"BackupVerification": (403, "exceeded quota: objects, requested: 1")}
    verifies(simulation)


def has_a_wrong_clock(simulation: ScheduleSimulation) -> None:
    retains(simulation)
    simulation.objects.clock = lambda: simulation.now + HOUR
    simulation.run_for(2 * HOUR)


SCENARIOS: dict[str, Scenario] = {
    Reason.SCHEDULED: a_run,
    Reason.SUSPENDED: lambda simulation: simulation.schedule(suspend=True),
    Reason.INVALID_SCHEDULE: lambda simulation: simulation.schedule(spread="24h"),
    Reason.INVALID_TIME_ZONE: lambda simulation: simulation.schedule(timeZone="Europe/Atlantis"),
    Reason.INVALID_SELECTOR: lambda simulation: simulation.schedule(volumes={"selector": {"labels": {}}}),
    Reason.VOLUMES_SELECTED: a_run,
    Reason.NO_VOLUMES: lambda simulation: simulation.schedule(),
    Reason.NO_STORE: lacks_a_store,
    Reason.RUN_IN_PROGRESS: a_run,
    Reason.RUN_COMPLETED: a_run,
    Reason.RUN_INCOMPLETE: misses,
    Reason.MISSED: misses,
    Reason.RULES_APPLIED: retains,
    Reason.RULES_REFUSED: lambda simulation: cannot_mark(simulation, AccessDenied("A policy refuses the change")),
    Reason.RULES_NOT_APPLIED: lambda simulation: cannot_mark(simulation, KubeUnavailable("etcd does not answer")),
    Reason.CLOCK_DIFFERS: has_a_wrong_clock,
    Reason.VERIFICATIONS_CREATED: verifies,
    Reason.VERIFICATIONS_REFUSED: may_not_verify,
}


def reached(simulation: ScheduleSimulation) -> set[str]:
    found = {event["reason"] for event in simulation.objects.all("Event")}
    for schedule in simulation.objects.all("BackupSchedule"):
        status = simulation.status(schedule)
        found |= {condition["reason"] for condition in status["conditions"]}
        found |= {volume["reason"] for volume in status["failing"]}
    return found


@pytest.mark.parametrize("reason", SCENARIOS)
def test_reason_is_reached(reason: str) -> None:
    with ScheduleSimulation() as simulation:
        SCENARIOS[reason](simulation)
        simulation.run_for(timedelta(minutes=1))
        assert reason in reached(simulation)


def test_every_reason_of_schedules_has_a_scenario() -> None:
    assert set(SCENARIOS) == set(SCHEDULE_REASONS)


def test_spread_that_is_too_long_names_the_interval() -> None:
    with ScheduleSimulation() as simulation:
        schedule = simulation.schedule(schedule="*/10 * * * *", spread="10m")
        simulation.run_for(timedelta(minutes=1))
        assert "which is 10m. Choose a shorter spread" in simulation.condition(schedule, "Ready")["message"]
        assert simulation.condition(schedule, "Stalled")["status"] == "True"
        [note] = simulation.events("InvalidSchedule")
        assert note.startswith("spec.spread 10m")


def test_corrected_schedule_is_no_longer_stalled() -> None:
    with ScheduleSimulation() as simulation:
        schedule = simulation.schedule(timeZone="Europe/Atlantis")
        simulation.run_for(timedelta(minutes=1))
        simulation.change(schedule, timeZone="Europe/Berlin")
        simulation.run_for(timedelta(minutes=1))
        assert simulation.condition(schedule, "Ready")["status"] == "True"
        assert not simulation.condition(schedule, "Stalled")
