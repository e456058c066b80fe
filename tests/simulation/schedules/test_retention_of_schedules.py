"""Schedules with retention: old backups go, while runs continue."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.support.simulation.schedules import ScheduleSimulation

FIRST = datetime.fromisoformat("2026-05-05T02:00:00Z")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_backups_that_no_rule_keeps_are_announced_and_removed() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", retention={"keepDaily": 3})
        simulation.run_until(FIRST + 8 * DAY + HOUR)
        names = simulation.names()
        assert names[-3:] == [f"daily-data-202605{day}0200" for day in (11, 12, 13)]
        assert len(names) <= 6
        retention = simulation.status(schedule)["retention"]
        assert retention["kept"] == 3
        assert retention["lastRemovalTime"]


def test_schedule_without_retention_keeps_all() -> None:
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s")
        simulation.run_until(FIRST + 5 * DAY + HOUR)
        assert len(simulation.backups()) == 6
        assert "retention" not in simulation.status(schedule)


def test_unknown_zone_of_retention_is_refused() -> None:
    with ScheduleSimulation() as simulation:
        schedule = simulation.schedule(retention={"keepDaily": 3, "timeZone": "Europe/Atlantis"})
        simulation.run_for(HOUR)
        ready = simulation.condition(schedule, "Ready")
        assert ready["reason"] == "InvalidTimeZone"
        assert "spec.retention.timeZone" in ready["message"]
