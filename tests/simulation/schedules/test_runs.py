"""Runs of schedules in a simulated cluster: due times, overlap, retries, pauses, and what the status says."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.support.simulation.api import Object
from tests.support.simulation.schedules import NAMESPACE, ScheduleSimulation

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FIRST = datetime.fromisoformat("2026-05-05T02:00:00Z")
"""The first time of "0 2 * * *" after START."""


def counts(simulation: ScheduleSimulation, schedule: Object) -> dict[str, int]:
    run = simulation.status(schedule)["lastRun"]
    return {name: number for name, number in run.items() if name not in ("time", "name") and number}


def outcome(simulation: ScheduleSimulation, schedule: Object) -> tuple[str, str]:
    condition = simulation.condition(schedule, "LastRunSucceeded")
    return condition["status"], condition["reason"]


def test_nothing_runs_before_the_schedule_existed() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.run_for(3 * DAY)
        schedule = simulation.schedule()
        simulation.run_for(HOUR)
        assert not simulation.backups()
        assert simulation.status(schedule)["nextScheduleTime"] == "2026-05-08T02:00:00Z"


def test_each_volume_has_one_backup_in_each_run() -> None:
    with ScheduleSimulation() as simulation:
        for number in range(5):
            simulation.claim(f"data-{number}")
        schedule = simulation.schedule()
        simulation.run_until(FIRST + 2 * DAY + HOUR)
        assert len(simulation.names()) == len(set(simulation.names())) == 15
        assert counts(simulation, schedule) == {"volumes": 5, "created": 5, "succeeded": 5}
        status = simulation.status(schedule)
        assert status["lastScheduleTime"] == "2026-05-07T02:00:00Z"
        assert status["nextScheduleTime"] == "2026-05-08T02:00:00Z"
        assert status["lastCompletedTime"].startswith("2026-05-07T02:")
        assert outcome(simulation, schedule) == ("True", "RunCompleted")


def test_backups_begin_within_the_spread_at_fixed_places() -> None:
    with ScheduleSimulation() as simulation:
        for number in range(20):
            simulation.claim(f"data-{number}")
        simulation.schedule(spread="1h")
        simulation.run_until(FIRST + DAY + 2 * HOUR)
        begun: dict[str, list[float]] = {}
        for item in simulation.backups():
            at = datetime.fromisoformat(item["metadata"]["creationTimestamp"])
            begun.setdefault(item["spec"]["volumeId"], []).append(((at - FIRST) % DAY).total_seconds())
        assert all(0 <= seconds < 3610 for places in begun.values() for seconds in places)
        assert all(abs(first - second) < 10 for first, second in begun.values())
        assert max(places[0] for places in begun.values()) > 1800


def test_new_claim_is_in_the_next_run() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("old")
        simulation.schedule(spread="0s")
        simulation.run_until(FIRST + MINUTE)
        simulation.claim("new")
        simulation.run_until(FIRST + HOUR)
        assert simulation.names() == ["daily-old-202605050200"]
        simulation.run_until(FIRST + DAY + HOUR)
        assert "daily-new-202605060200" in simulation.names()


def test_first_backup_is_full_and_later_ones_are_incremental() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.schedule(spread="0s", full={"every": "10d"})
        simulation.run_until(FIRST + 30 * DAY + HOUR)
        is_full = [not item["spec"].get("incremental") for item in simulation.backups()]
        assert is_full[0]
        fulls = [number for number, full in enumerate(is_full) if full]
        assert len(fulls) in (4, 5)
        assert {b - a for a, b in pairwise(fulls[1:])} == {10}


def test_backups_carry_the_marks_and_the_template() -> None:
    with ScheduleSimulation() as simulation:
        claim = simulation.claim("data")
        template = {
            "metadata": {"labels": {"team": "db"}, "annotations": {"note": "x", "cinderblock.io/let-go": "leave-data"}},
            "spec": {
                "storeName": "default",
                "description": "nightly",
                "deletionPolicy": "Retain",
                "metadata": {"a": "b"},
            },
        }
        simulation.schedule(spread="0s", template=template)
        simulation.run_until(FIRST + MINUTE)
        [backup] = simulation.backups()
        assert backup["metadata"]["labels"] == {"team": "db", "cinderblock.io/schedule": "daily"}
        assert backup["metadata"]["annotations"] == {
            "note": "x",
            "cinderblock.io/schedule-name": "BackupSchedule/daily",
            "cinderblock.io/scheduled-for": "2026-05-05T02:00:00Z",
        }
        assert "ownerReferences" not in backup["metadata"]
        assert backup["spec"] == {
            "volumeId": claim["metadata"]["uid"],
            "storeName": "default",
            "description": "nightly",
            "deletionPolicy": "Retain",
            "force": True,
            "metadata": {"a": "b"},
        }


@pytest.mark.parametrize(("overlap", "number"), [("Skip", 1), ("Queue", 2)])
def test_volume_whose_backup_has_not_ended(overlap: str, number: int) -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.duration = None
        schedule = simulation.schedule(spread="0s", overlap=overlap)
        simulation.run_until(FIRST + DAY + HOUR)
        assert len(simulation.backups()) == number
        assert counts(simulation, schedule).get("skipped", 0) == (overlap == "Skip")
        assert simulation.status(schedule)["lastScheduleTime"] == "2026-05-06T02:00:00Z"


def fail_all(simulation: ScheduleSimulation, reason: str = "SourceError") -> Any:
    """Return what ends each unfinished backup as a failure."""

    def fail() -> None:
        for item in simulation.backups():
            if not (item.get("status") or {}).get("phase"):
                simulation.finish(item, "error", reason)

    return fail


def test_failed_backup_is_repeated_after_the_backoff() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", retries={"count": 2, "backoff": "20m"})
        simulation.run_until(FIRST + 3 * HOUR, each=fail_all(simulation))
        name = "daily-data-202605050200"
        assert simulation.names() == [name, f"{name}-r1", f"{name}-r2"]
        times = [datetime.fromisoformat(item["metadata"]["creationTimestamp"]) for item in simulation.backups()]
        assert all(b - a >= 20 * MINUTE for a, b in pairwise(times))
        assert counts(simulation, schedule) == {"volumes": 1, "created": 3, "failed": 1}
        failure = {"namespace": NAMESPACE, "volume": "data", "backup": f"{name}-r2", "reason": "SourceError"}
        assert simulation.status(schedule)["failing"] == [failure]
        assert simulation.status(schedule)["failingVolumes"] == 1
        assert outcome(simulation, schedule) == ("False", "RunIncomplete")
        assert [note for note in simulation.events("RunIncomplete") if "shop/data (SourceError)" in note]


def test_retries_end_with_the_starting_deadline() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.schedule(spread="0s", startingDeadline="30m", retries={"count": 10, "backoff": "10m"})
        simulation.run_until(FIRST + 3 * HOUR, each=fail_all(simulation))
        assert len(simulation.backups()) == 3


@pytest.mark.parametrize("reason", ["NoParent", "ParentGone", "KeyUnavailable", "IntegrityError"])
def test_failure_by_the_parent_is_repeated_once_as_full(reason: str) -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", retries={"count": 0})
        simulation.run_until(FIRST + DAY - HOUR)
        simulation.run_until(FIRST + DAY + MINUTE / 60)
        failed = simulation.backups()[-1]
        if not failed["spec"].get("incremental"):
            pytest.skip("its full backup is due on this day")
        simulation.finish(failed, "error", reason)
        simulation.run_until(FIRST + DAY + HOUR)
        repeated = simulation.backups()[-1]
        assert repeated["metadata"]["name"].endswith("-r1")
        assert not repeated["spec"].get("incremental")
        assert counts(simulation, schedule) == {"volumes": 1, "created": 2, "succeeded": 1}


def test_second_failure_by_the_parent_ends_the_run() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.schedule(spread="0s", retries={"count": 0})
        simulation.run_until(FIRST + HOUR, each=fail_all(simulation, "KeyUnavailable"))
        assert len(simulation.backups()) == 2


def test_pause_is_not_made_up_for() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", suspend=True)
        simulation.run_until(FIRST + DAY + HOUR)
        assert not simulation.backups()
        assert simulation.condition(schedule, "Ready")["reason"] == "Suspended"
        assert "nextScheduleTime" not in simulation.status(schedule)
        simulation.change(schedule, suspend=False)
        simulation.run_for(12 * HOUR)
        assert not simulation.backups()
        simulation.run_until(FIRST + 2 * DAY + HOUR)
        assert simulation.names() == ["daily-data-202605070200"]


def test_requested_run_waits_for_the_end_of_a_pause() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", suspend=True)
        simulation.run_for(HOUR)
        simulation.change(schedule, runNow="first")
        simulation.run_for(HOUR)
        assert not simulation.backups()
        simulation.change(schedule, suspend=False)
        simulation.run_for(HOUR)
        assert len(simulation.backups()) == 1


def test_changed_time_does_not_run_for_the_past() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(schedule="0 23 * * *", spread="0s")
        simulation.run_for(MINUTE)
        simulation.change(schedule, schedule="0 1 * * *")
        simulation.run_for(12 * HOUR)
        assert not simulation.backups()
        simulation.run_for(2 * HOUR)
        assert simulation.names() == ["daily-data-202605050100"]


@pytest.mark.parametrize(
    ("missed", "away", "expected"),
    [
        ("Latest", 5 * HOUR, ["daily-data-202605050200"]),
        ("Latest", 3 * DAY + 5 * HOUR, ["daily-data-202605080200"]),
        ("Latest", 21 * HOUR, []),
        ("Skip", 5 * HOUR, []),
    ],
)
def test_times_without_an_operator(missed: str, away: timedelta, expected: list[str]) -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", missed=missed, startingDeadline="20h")
        simulation.run_for(MINUTE)
        simulation.now = FIRST + away
        simulation.run_for(HOUR)
        assert simulation.names() == expected
        if not expected:
            assert counts(simulation, schedule) == {"volumes": 1, "missed": 1}
            assert outcome(simulation, schedule) == ("False", "RunIncomplete")
        if away > DAY:
            [note] = simulation.events("Missed")
            assert note.startswith("No backups were made for 3 scheduled times since 2026-05-05T02:00Z")
        simulation.run_for(2 * DAY)
        assert len(simulation.backups()) == len(expected) + 2
        assert len(simulation.events("Missed")) == (away > DAY)


def test_run_now_starts_at_once_and_once_for_each_token() -> None:
    with ScheduleSimulation() as simulation:
        for number in range(3):
            simulation.claim(f"data-{number}")
        schedule = simulation.schedule(spread="1h")
        simulation.run_for(MINUTE)
        simulation.change(schedule, runNow="2026-05-04")
        simulation.run_for(timedelta(seconds=2))
        assert len(simulation.backups()) == 3
        simulation.run_for(HOUR)
        assert simulation.status(schedule)["lastRunNow"] == "2026-05-04"
        assert counts(simulation, schedule) == {"volumes": 3, "created": 3, "succeeded": 3}
        simulation.change(schedule, runNow="again")
        simulation.run_for(HOUR)
        assert len(simulation.backups()) == 6


def test_run_at_the_creation_happens_once() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(runOnCreate=True)
        simulation.run_for(HOUR)
        [backup] = simulation.names()
        assert backup.startswith("daily-data-first-")
        simulation.change(schedule, minAge="0s")
        simulation.restart()
        simulation.run_for(HOUR)
        assert len(simulation.backups()) == 1


def test_scheduled_run_goes_on_beside_a_requested_one() -> None:
    with ScheduleSimulation() as simulation:
        for number in range(10):
            simulation.claim(f"data-{number}")
        schedule = simulation.schedule(spread="2h")
        simulation.run_until(FIRST + HOUR)
        simulation.change(schedule, runNow="x")
        simulation.run_until(FIRST + 4 * HOUR)
        scheduled = [name for name in simulation.names() if "202605050200" in name]
        requested = [name for name in simulation.names() if "-now-" in name]
        assert (len(scheduled), len(requested)) == (10, 10)
        assert simulation.status(schedule)["lastScheduleTime"] == "2026-05-05T02:00:00Z"


def test_schedule_that_is_made_again_takes_its_backups_up() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.objects.delete(simulation.schedule(spread="0s"))
        simulation.schedule(spread="0s")
        simulation.run_until(FIRST + HOUR)
        simulation.objects.delete(simulation.objects.all("BackupSchedule")[0])
        simulation.run_for(MINUTE)
        simulation.schedule(spread="0s", full={"every": "3650d"})
        simulation.run_until(FIRST + DAY + HOUR)
        [first, second] = simulation.backups()
        assert second["spec"].get("incremental") or "2026-05-06" in second["metadata"]["name"]
        assert first["metadata"]["name"] == "daily-data-202605050200"


def test_lost_status_doubles_nothing() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", runOnCreate=True, runNow="x")
        simulation.run_until(FIRST + HOUR)
        before = simulation.names()
        simulation.objects.update(schedule, status={})
        simulation.run_for(HOUR)
        assert simulation.names() == before
        assert simulation.status(schedule)["lastScheduleTime"] == "2026-05-05T02:00:00Z"


def test_clock_that_was_wrong_for_a_while_does_not_stop_the_schedule() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.schedule(spread="0s")
        simulation.run_until(FIRST + HOUR)
        simulation.now = FIRST + 365 * DAY + HOUR
        simulation.run_for(HOUR)
        assert len(simulation.backups()) == 2
        simulation.now = FIRST + 5 * HOUR
        simulation.restart()
        simulation.run_for(HOUR)
        simulation.run_until(FIRST + 2 * DAY + HOUR)
        assert {"daily-data-202605060200", "daily-data-202605070200"} <= set(simulation.names())


def test_clock_that_was_ahead_hides_no_later_failures() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", retries={"count": 2})
        simulation.run_until(FIRST + HOUR)
        simulation.now += 30 * DAY
        simulation.look(schedule)
        simulation.run_for(HOUR)
        assert simulation.status(schedule)["lastCompletedTime"] > "2026-06"
        simulation.now = FIRST + 3 * HOUR
        simulation.restart()
        simulation.duration = None

        def fail() -> None:
            for item in simulation.backups():
                if not (item.get("status") or {}).get("phase"):
                    simulation.finish(item, "error")

        simulation.run_until(FIRST + 4 * DAY + HOUR, each=fail)
        status = simulation.status(schedule)
        assert status["lastRun"]["time"] == "2026-05-09T02:00:00Z"
        assert "lastCompletedTime" not in status, "the alert about late schedules counts from the present"
        assert simulation.condition(schedule, "LastRunSucceeded")["status"] == "False"
        failed = [item for item in simulation.backups() if item["status"]["phase"] == "error"]
        assert len(failed) == 4 * 3, "each of four runs has two retries"


def test_volume_that_is_skipped_again_and_again_is_named() -> None:
    """A backup may wait without a time limit, for example for its key."""
    with ScheduleSimulation() as simulation:
        simulation.claim("stuck")
        schedule = simulation.schedule(spread="0s")
        simulation.duration = None
        simulation.run_until(FIRST + DAY + HOUR)
        assert simulation.status(schedule)["lastRun"]["skipped"] == 1
        assert not simulation.status(schedule)["failing"], "one backup may take longer than a day"
        simulation.run_until(FIRST + 2 * DAY + HOUR)
        [named] = simulation.status(schedule)["failing"]
        assert named == {
            "namespace": "shop",
            "volume": "stuck",
            "backup": "daily-stuck-202605050200",
            "reason": "VolumeBusy",
        }
        assert any("shop/stuck (VolumeBusy)" in note for note in simulation.events("RunIncomplete"))
        [waiting] = simulation.backups()
        simulation.finish(waiting)
        simulation.duration = timedelta(seconds=30)
        simulation.run_until(FIRST + 3 * DAY + HOUR)
        assert not simulation.status(schedule)["failing"]


def test_waiting_schedule_reads_neither_claims_nor_backups() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.schedule(spread="0s")
        simulation.run_until(FIRST + HOUR)
        before = simulation.faults.requests["list", "persistentvolumeclaims"]
        simulation.run_until(FIRST + 23 * HOUR)
        assert simulation.faults.requests["list", "persistentvolumeclaims"] == before


def test_end_of_a_run_is_told_although_another_one_was_requested() -> None:
    with ScheduleSimulation() as simulation:
        for number in range(8):
            simulation.claim(f"data-{number}")
        schedule = simulation.schedule(spread="30m")
        simulation.run_until(FIRST + 5 * MINUTE)
        simulation.change(schedule, runNow="again")
        simulation.run_until(FIRST + HOUR)
        ends = [*simulation.events("RunCompleted"), *simulation.events("RunIncomplete")]
        assert sum("202605050200" in note for note in ends) == 1
        assert sum("now-" in note for note in ends) == 1


def test_deadline_of_no_time_is_an_error() -> None:
    """Otherwise the schedule would make no backup at all, and call each of them missed."""
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(startingDeadline="0s")
        simulation.run_for(MINUTE)
        ready = simulation.condition(schedule, "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "InvalidSchedule")
        assert "spec.startingDeadline" in ready["message"]
