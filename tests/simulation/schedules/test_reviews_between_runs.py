"""The status of a schedule between its runs, when the cause of a failure has ended."""

from __future__ import annotations

from datetime import datetime, timedelta

from cinderblock.api.v1alpha1.schedule import NAMED_FAILURES
from cinderblock.lifecycle.schedule.review import search_interval
from tests.support.simulation.api import Object
from tests.support.simulation.schedules import NAMESPACE, ScheduleSimulation

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FIRST = datetime.fromisoformat("2026-05-05T02:00:00Z")
"""The first time of "0 2 * * *" after START."""


def failed(simulation: ScheduleSimulation, *names: str) -> tuple[Object, list[Object]]:
    """Let the first backups of volumes fail, and return the schedule and the claims."""
    claims = [simulation.claim(name, labels={"tier": "gold"}) for name in names]
    volumes = {"selector": {"matchLabels": {"tier": "gold"}}}
    schedule = simulation.schedule(spread="0s", volumes=volumes, retries={"count": 0})
    simulation.duration = None
    simulation.run_until(FIRST + MINUTE, each=lambda: fail_all(simulation))
    simulation.run_until(FIRST + HOUR)
    assert simulation.status(schedule)["failingVolumes"] == len(names)
    return schedule, claims


def fail_all(simulation: ScheduleSimulation) -> None:
    for item in simulation.backups():
        if not (item.get("status") or {}).get("phase"):
            simulation.finish(item, "error")


def failing(simulation: ScheduleSimulation, schedule: Object) -> tuple[list[str], int]:
    status = simulation.status(schedule)
    return [volume["volume"] for volume in status.get("failing", [])], status["failingVolumes"]


def back_up(simulation: ScheduleSimulation, claim: Object, phase: str = "available") -> None:
    """Make a VolumeBackup as a person does."""
    metadata = {"name": f"by-hand-{claim['metadata']['name']}-{phase}", "namespace": NAMESPACE}
    spec = {"volumeId": claim["metadata"]["uid"]}
    made = simulation.objects.create("VolumeBackup", {"metadata": metadata, "spec": spec})
    assert made is not None
    simulation.finish(made, phase)


def test_backup_by_hand_ends_the_failure_of_its_volume() -> None:
    with ScheduleSimulation() as simulation:
        schedule, claims = failed(simulation, "data", "logs")
        back_up(simulation, claims[0], "error")
        simulation.run_for(10 * MINUTE)
        assert failing(simulation, schedule) == (["data", "logs"], 2)
        back_up(simulation, claims[0])
        simulation.run_for(6 * MINUTE)
        assert failing(simulation, schedule) == (["logs"], 1)


def test_older_backup_does_not_end_a_failure() -> None:
    with ScheduleSimulation() as simulation:
        claim = simulation.claim("data")
        back_up(simulation, claim)
        schedule = simulation.schedule(spread="0s", retries={"count": 0})
        simulation.duration = None
        simulation.run_until(FIRST + MINUTE, each=lambda: fail_all(simulation))
        simulation.run_until(FIRST + HOUR)
        assert failing(simulation, schedule) == (["data"], 1)


def test_deleted_volume_does_not_fail_any_more() -> None:
    with ScheduleSimulation() as simulation:
        schedule, claims = failed(simulation, "data")
        simulation.objects.delete(claims[0])
        simulation.run_for(6 * MINUTE)
        assert failing(simulation, schedule) == ([], 0)


def test_changed_spec_ends_failures_of_volumes_that_it_leaves_out() -> None:
    with ScheduleSimulation() as simulation:
        schedule, claims = failed(simulation, "data", "logs")
        labels = claims[0]["metadata"]["labels"] | {"tier": "silver"}
        simulation.objects.update(claims[0], metadata=claims[0]["metadata"] | {"labels": labels})
        simulation.change(schedule, overlap="Queue")
        simulation.run_for(MINUTE)
        assert failing(simulation, schedule) == (["logs"], 1)


def test_volume_that_matches_later_ends_the_empty_selection() -> None:
    with ScheduleSimulation() as simulation:
        schedule = simulation.schedule(spread="0s")
        simulation.run_until(FIRST + HOUR)
        assert simulation.condition(schedule, "Selecting")["status"] == "False"
        simulation.claim("data")
        simulation.run_for(6 * MINUTE)
        assert simulation.condition(schedule, "Selecting")["status"] == "True"


def test_number_of_failing_volumes_stays_while_the_next_run_begins() -> None:
    with ScheduleSimulation() as simulation:
        schedule, _ = failed(simulation, *(f"data-{number:02}" for number in range(NAMED_FAILURES + 5)))
        seen: set[int] = set()
        simulation.run_until(
            FIRST + DAY + 2 * MINUTE, each=lambda: seen.add(simulation.status(schedule)["failingVolumes"])
        )
        assert seen == {NAMED_FAILURES + 5}
        simulation.duration = MINUTE
        simulation.run_until(FIRST + DAY + HOUR)
        assert failing(simulation, schedule) == ([], 0)


MANY = [f"data-{number:02}" for number in range(NAMED_FAILURES + 5)]


def test_backups_of_volumes_without_a_name_in_the_status_count() -> None:
    with ScheduleSimulation() as simulation:
        schedule, claims = failed(simulation, *MANY)
        for claim in claims[NAMED_FAILURES : NAMED_FAILURES + 3]:
            back_up(simulation, claim)
        back_up(simulation, claims[-1], "error")
        simulation.run_for(6 * MINUTE)
        assert failing(simulation, schedule) == (MANY[:NAMED_FAILURES], NAMED_FAILURES + 2)


def test_alert_of_many_volumes_ends_between_runs() -> None:
    """First all named volumes get a backup, then the others: one is deleted."""
    with ScheduleSimulation() as simulation:
        schedule, claims = failed(simulation, *MANY)
        for claim in claims[:NAMED_FAILURES]:
            back_up(simulation, claim)
        simulation.run_for(6 * MINUTE)
        assert failing(simulation, schedule) == ([], 5)
        for claim in claims[NAMED_FAILURES:-1]:
            back_up(simulation, claim)
        simulation.objects.delete(claims[-1])
        simulation.run_for(6 * MINUTE)
        assert failing(simulation, schedule) == ([], 0)


def test_search_for_other_failing_volumes_has_a_pace() -> None:
    assert search_interval(12_000) == 5 * MINUTE
    assert search_interval(144_000) == HOUR
