"""Retention of a schedule in a simulated cluster: what is marked, what goes, and what stays whichever write fails."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest

from cinderblock.controller.schedules import gather
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.errors import KubeUnavailable
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from tests.support.simulation.api import Object, _refusal, stamp
from tests.support.simulation.schedules import ScheduleSimulation
from tests.support.store.faults import Crash
from tests.support.variations import pairs_in_turn

FIRST = datetime.fromisoformat("2026-05-05T02:00:00Z")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEEP_THREE = {"keepLast": 3, "minAge": "1h", "grace": "24h"}


def marked(simulation: ScheduleSimulation) -> list[str]:
    """Return the names of the backups with status.expiresAt."""
    return [item["metadata"]["name"] for item in simulation.backups() if (item.get("status") or {}).get("expiresAt")]


def days(simulation: ScheduleSimulation) -> list[int]:
    """Return the days of May whose backups exist."""
    return [int(name[-6:-4]) for name in simulation.names()]


def protect(simulation: ScheduleSimulation, **retention: object) -> Object:
    """Create a claim, and a schedule with retention."""
    simulation.claim("data")
    return simulation.schedule(spread="0s", retention=KEEP_THREE | retention)


def test_old_backups_go_after_their_grace() -> None:
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation)
        simulation.run_until(FIRST + 9 * DAY + HOUR)
        assert days(simulation) == [11, 12, 13, 14]
        assert marked(simulation) == ["daily-data-202605110200"]
        status = simulation.status(schedule)["retention"]
        assert (status["kept"], status["expiring"]) == (3, 1)
        assert status["lastRemovalTime"].startswith("2026-05-14T02:")
        applied = simulation.condition(schedule, "RetentionApplied")
        assert (applied["status"], applied["reason"]) == ("True", "RulesApplied")


def test_held_backup_loses_its_mark_and_stays() -> None:
    with ScheduleSimulation() as simulation:
        protect(simulation)
        simulation.run_until(FIRST + 3 * DAY + HOUR)
        assert marked(simulation) == ["daily-data-202605050200"]
        simulation.change(simulation.backups()[0], hold=True)
        simulation.run_until(FIRST + 9 * DAY + HOUR)
        assert days(simulation) == [5, 11, 12, 13, 14]
        assert marked(simulation) == ["daily-data-202605110200"]


def test_suspended_schedule_still_removes_old_backups() -> None:
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation)
        simulation.run_until(FIRST + 4 * DAY + HOUR)
        simulation.change(schedule, suspend=True)
        simulation.run_until(FIRST + 8 * DAY)
        assert days(simulation) == [7, 8, 9]


def test_marks_go_with_the_schedule() -> None:
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation)
        simulation.run_until(FIRST + 3 * DAY + HOUR)
        assert marked(simulation)
        simulation.objects.delete(schedule)
        simulation.run_for(DAY)
        assert not marked(simulation)
        assert days(simulation) == [5, 6, 7, 8]


def test_marks_go_with_the_rules() -> None:
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation)
        simulation.run_until(FIRST + 3 * DAY + HOUR)
        simulation.objects.update(schedule, spec={k: v for k, v in schedule["spec"].items() if k != "retention"})
        simulation.run_for(5 * DAY)
        assert not marked(simulation)
        assert len(days(simulation)) == 9
        assert "retention" not in simulation.status(schedule)
        assert not simulation.condition(schedule, "RetentionApplied")


def test_same_schedule_without_rules_removes_marks_of_the_former_one() -> None:
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation)
        simulation.run_until(FIRST + 3 * DAY + HOUR)
        assert marked(simulation)
        simulation.objects.delete(schedule)
        simulation.schedule(spread="0s")
        simulation.run_for(HOUR)
        assert not marked(simulation)


@pytest.mark.parametrize("end", ["rules", "schedule"])
@pytest.mark.parametrize("limit", [2, 8])
def test_marks_go_also_where_too_many_backups_are(end: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit 8, the namespace is reduced to its newest backups, and with 2 it is left out."""
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation, keepLast=1, grace="2000h")
        simulation.run_until(FIRST + 9 * DAY + HOUR)
        assert len(marked(simulation)) == 9
        monkeypatch.setattr(gather, "RecordLimit", partial(RecordLimit, limit))
        if end == "rules":
            simulation.objects.update(schedule, spec={k: v for k, v in schedule["spec"].items() if k != "retention"})
        else:
            simulation.objects.delete(schedule)
        simulation.run_for(HOUR)
        assert not marked(simulation)


def test_unknown_zone_of_retention_is_told_and_removes_nothing() -> None:
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation, timeZone="Mars/Olympus")
        simulation.run_until(FIRST + 9 * DAY)
        ready = simulation.condition(schedule, "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "InvalidTimeZone")
        assert "spec.retention.timeZone" in ready["message"]
        assert not simulation.backups()


FAULTS: dict[str, tuple[BaseException, bool]] = {
    "dies before": (Crash("dies"), False),
    "dies after": (Crash("dies"), True),
    "does not reach": (KubeUnavailable("no answer"), False),
    "loses the answer to": (KubeUnavailable("no answer"), True),
}


@pytest.mark.parametrize(("at", "how"), pairs_in_turn(range(8), [*FAULTS]))
def test_same_backups_remain_whichever_write_fails(at: int, how: str) -> None:
    error, done = FAULTS[how]
    with ScheduleSimulation() as simulation:
        protect(simulation)
        simulation.run_until(FIRST + 4 * DAY - HOUR)
        simulation.faults.plan(at, error, done=done)
        simulation.run_until(FIRST + 9 * DAY + HOUR)
        assert days(simulation) == [11, 12, 13, 14]
        assert marked(simulation) == ["daily-data-202605110200"]


def test_operator_that_was_away_gives_the_whole_grace_again() -> None:
    with ScheduleSimulation() as simulation:
        protect(simulation)
        simulation.run_until(FIRST + 3 * DAY + HOUR)
        assert marked(simulation) == ["daily-data-202605050200"]
        simulation.now += 3 * DAY
        simulation.restart()
        simulation.run_for(23 * HOUR)
        assert 5 in days(simulation)
        simulation.run_for(2 * HOUR)
        assert 5 not in days(simulation)


def test_look_soon_after_a_plan_leads_to_another_plan() -> None:
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation)
        simulation.run_until(FIRST + 2 * DAY + HOUR)
        [first, *_] = simulation.backups()
        simulation.look(schedule)
        simulation.schedule("other", retention=KEEP_THREE)
        simulation.run_for(timedelta(minutes=1))
        simulation.change(schedule, retention=KEEP_THREE | {"keepLast": 2})
        simulation.run_for(timedelta(seconds=1))
        assert marked(simulation) == [first["metadata"]["name"]]
        simulation.change(first, hold=True)
        simulation.run_for(timedelta(seconds=30))
        simulation.look(schedule)
        simulation.run_for(timedelta(minutes=1))
        assert not marked(simulation)


def test_idle_schedule_plans_once_an_hour() -> None:
    with ScheduleSimulation() as simulation:
        protect(simulation)
        simulation.run_until(FIRST + HOUR)
        looks = simulation.looks
        simulation.run_for(20 * HOUR)
        assert 20 <= simulation.looks - looks <= 24


def raise_alarm(simulation: ScheduleSimulation, item: Object) -> None:
    """Let a backup be suspicious."""
    alarm = {
        "type": "Suspicious",
        "status": "True",
        "reason": "ManyChanges",
        "lastTransitionTime": stamp(simulation.now),
    }
    simulation.objects.update(item, status=item["status"] | {"conditions": [alarm]})


@pytest.mark.parametrize("maker", ["often", "person"])
def test_alarm_freezes_the_volume_whoever_made_the_backup(maker: str) -> None:
    with ScheduleSimulation() as simulation:
        claim = simulation.claim("data")
        simulation.schedule(spread="0s", retention=KEEP_THREE)
        if maker == "often":
            simulation.schedule("often", schedule="0 4 * * *", spread="0s")
        simulation.run_until(FIRST + 3 * DAY + 3 * HOUR)
        if maker == "person":
            body = {"metadata": {"name": "often", "namespace": "shop"}, "spec": {"volumeId": claim["metadata"]["uid"]}}
            simulation.objects.create("VolumeBackup", body)
            simulation.run_for(HOUR)
        raise_alarm(
            simulation, [item for item in simulation.backups() if item["metadata"]["name"].startswith("often")][-1]
        )
        simulation.run_until(FIRST + 8 * DAY)
        left = [name for name in simulation.names() if name.startswith("daily")]
        assert left[:4] == [f"daily-data-2026050{day}0200" for day in (5, 6, 7, 8)]


@pytest.mark.parametrize("hours", [60 * 24, -1], ids=["ahead", "behind"])
def test_nothing_goes_by_a_clock_that_differs(hours: int) -> None:
    """The operator's clock is wrong. By the API server's, no backup is as old as maxAge."""
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        schedule = simulation.schedule(spread="0s", retention={"keepDaily": 60, "maxAge": "30d"})
        simulation.run_until(FIRST + 3 * DAY + HOUR)
        good, difference = simulation.names(), hours * HOUR
        simulation.change(schedule, suspend=True)
        simulation.run_for(HOUR)
        simulation.now += difference
        simulation.objects.clock = lambda: simulation.now - difference
        simulation.look(schedule)
        simulation.run_for(2 * HOUR)
        assert not marked(simulation)
        applied = simulation.condition(schedule, "RetentionApplied")
        assert (applied["status"], applied["reason"]) == ("False", "ClockDiffers")
        assert ("60 days ahead of" if hours > 0 else "60 minutes behind") in applied["message"]
        assert len(simulation.events("ClockDiffers")) == 1
        simulation.now -= difference
        simulation.objects.clock = lambda: simulation.now
        simulation.look(schedule)
        simulation.run_for(HOUR)
        assert simulation.condition(schedule, "RetentionApplied")["status"] == "True"
        assert simulation.names() == good


def test_backup_that_was_created_in_the_future_is_named() -> None:
    with ScheduleSimulation() as simulation:
        schedule = protect(simulation)
        simulation.run_until(FIRST - HOUR)
        simulation.objects.clock = lambda: simulation.now + 200 * DAY
        simulation.run_until(FIRST + timedelta(seconds=10))
        simulation.objects.clock = lambda: simulation.now
        simulation.finish(simulation.backups()[0])
        simulation.run_for(2 * HOUR)
        applied = simulation.condition(schedule, "RetentionApplied")
        assert (applied["status"], applied["reason"]) == ("False", "ClockDiffers")
        assert "VolumeBackup shop/daily-data-202605050200 was created at" in applied["message"]


def test_failure_in_one_namespace_is_told_and_stops_no_other() -> None:
    """The API server cannot delete objects of one namespace, for example because one is damaged in etcd."""
    with ScheduleSimulation(namespaces=("shop", "demo")) as simulation:
        for namespace in ("shop", "demo"):
            simulation.claim("data", namespace)
        schedule = simulation.cluster_schedule(spread="0s", retention={"keepLast": 1, "minAge": "1h", "grace": "1h"})
        answer = simulation.api.round_trip

        async def fail(request: Request) -> Response:
            if request.method == "DELETE" and "/shop/volumebackups" in request.path:
                return _refusal(500, "InternalError", "etcd is damaged")
            return await answer(request)

        simulation.api.round_trip = fail  # type: ignore[method-assign]
        simulation.run_until(FIRST + 2 * DAY + 5 * HOUR)
        assert [len(simulation.names(namespace)) for namespace in ("shop", "demo")] == [3, 1]
        applied = simulation.condition(schedule, "RetentionApplied")
        assert (applied["status"], applied["reason"]) == ("False", "RulesNotApplied")
        assert "etcd is damaged" in applied["message"]
        assert len(simulation.events("RulesNotApplied")) == 1


def test_copies_push_no_backup_out_and_stay() -> None:
    """Anybody who may create VolumeBackups can give them the marks of a schedule, for example by copying one."""
    with ScheduleSimulation() as simulation:
        claim = simulation.claim("data")
        simulation.schedule(spread="0s", retention=KEEP_THREE)
        simulation.run_until(FIRST + 2 * DAY + HOUR)
        original = simulation.backups()[0]
        marks = {key: original["metadata"][key] for key in ("labels", "annotations")}
        for number in range(8):
            metadata = {"name": f"copy-{number}", "namespace": "shop"} | marks
            body = {"metadata": metadata, "spec": {"volumeId": claim["metadata"]["uid"]}}
            simulation.objects.create("VolumeBackup", body)
        simulation.run_for(4 * DAY)
        names = simulation.names()
        assert [name for name in names if name.startswith("copy")] == [f"copy-{number}" for number in range(8)]
        assert [name[-6:-4] for name in names if name.startswith("daily")] == ["08", "09", "10", "11"]
