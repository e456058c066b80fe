"""Schedules whose BackupStore is read-only: no backups that could only fail, no marks, and a condition."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.simulation.api import Object
from tests.support.simulation.schedules import NAMESPACE, ScheduleSimulation

FIRST = datetime.fromisoformat("2026-05-05T02:00:00Z")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEEP_ONE = {"keepLast": 1, "minAge": "1h", "grace": "24h"}


def change_store(simulation: ScheduleSimulation, **change: Any) -> None:
    """Change the spec or the status of the default BackupStore."""
    store = simulation.objects.get("BackupStore", "default", NAMESPACE)
    assert store is not None
    simulation.objects.update(store, **{part: (store.get(part) or {}) | fields for part, fields in change.items()})


def marked(simulation: ScheduleSimulation) -> list[str]:
    return [item["metadata"]["name"] for item in simulation.backups() if (item.get("status") or {}).get("expiresAt")]


def scheduled(simulation: ScheduleSimulation, **spec: Any) -> Object:
    simulation.claim("data")
    return simulation.schedule(spread="0s", **spec)


SHARED = {"spec": {"clusterStoreRef": {"name": "default"}}, "status": {"access": "ReadOnly"}}


@pytest.mark.parametrize("change", [{"spec": {"access": "ReadOnly"}}, SHARED], ids=["own", "shared"])
def test_schedule_says_why_it_makes_no_backups(change: dict[str, Any]) -> None:
    with ScheduleSimulation() as simulation:
        schedule = scheduled(simulation)
        change_store(simulation, **change)
        simulation.run_until(FIRST + 3 * DAY + HOUR)
        assert simulation.backups() == []
        last = simulation.condition(schedule, "LastRunSucceeded")
        assert (last["status"], last["reason"]) == ("False", "StoreReadOnly")
        assert "read-only" in last["message"]
        [failing] = simulation.status(schedule)["failing"]
        assert (failing["volume"], failing["reason"]) == ("data", "StoreReadOnly")
        assert len(simulation.events("StoreReadOnly")) <= 4, "one for each run"


def test_backups_continue_when_the_access_changes() -> None:
    with ScheduleSimulation() as simulation:
        schedule = scheduled(simulation)
        change_store(simulation, spec={"access": "ReadOnly"})
        simulation.run_until(FIRST + HOUR)
        change_store(simulation, spec={"access": "ReadWrite"})
        simulation.run_until(FIRST + DAY + HOUR)
        assert simulation.names() == ["daily-data-202605060200"]
        assert simulation.condition(schedule, "LastRunSucceeded")["status"] == "True"
        assert not simulation.status(schedule).get("failing")


def test_failed_backup_is_not_repeated_in_a_read_only_store() -> None:
    with ScheduleSimulation() as simulation:
        scheduled(simulation, retries={"count": 3, "backoff": "1m"})
        simulation.duration = None
        simulation.run_until(FIRST + timedelta(seconds=10))
        change_store(simulation, spec={"access": "ReadOnly"})
        simulation.finish(simulation.backups()[0], "error", "StoreReadOnly")
        simulation.run_until(FIRST + 6 * HOUR)
        assert len(simulation.backups()) == 1


def test_retention_marks_and_removes_nothing_in_it() -> None:
    with ScheduleSimulation() as simulation:
        scheduled(simulation, retention=KEEP_ONE)
        simulation.run_until(FIRST + HOUR)
        change_store(simulation, spec={"access": "ReadOnly"})
        simulation.schedule("second", spread="0s", retention=KEEP_ONE)
        simulation.run_until(FIRST + 6 * DAY + HOUR)
        assert simulation.names() == ["daily-data-202605050200"]
        assert marked(simulation) == []


def test_mark_of_an_expiring_backup_goes_before_its_time() -> None:
    with ScheduleSimulation() as simulation:
        schedule = scheduled(simulation, retention=KEEP_ONE)
        simulation.run_until(FIRST + 2 * DAY + HOUR)
        names = simulation.names()
        assert marked(simulation)
        change_store(simulation, spec={"access": "ReadOnly"})
        simulation.run_until(FIRST + 6 * DAY + HOUR)
        assert simulation.names() == names
        assert marked(simulation) == []
        assert simulation.condition(schedule, "RetentionApplied")["status"] == "True"
