"""Users of one namespace cannot disturb the run of a ClusterBackupSchedule in other namespaces."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.controller.schedules import gather, volume_parts
from cinderblock.controller.schedules.record_limit import RecordLimit
from tests.support.simulation.api import Object
from tests.support.simulation.schedules import ScheduleSimulation

FIRST = datetime.fromisoformat("2026-05-05T02:00:00Z")
HOUR = timedelta(hours=1)
GOOD, EVIL = "good", "evil"


def both(simulation: ScheduleSimulation, volumes: int = 3) -> None:
    for namespace in (GOOD, EVIL):
        simulation.namespace(namespace)
        for number in range(volumes):
            simulation.claim(f"data-{number}", namespace)


def forge(simulation: ScheduleSimulation, name: str, claim: str, namespace: str = EVIL, **annotations: str) -> Object:
    """Create a VolumeBackup with the marks of the schedule, as its users may."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {labels.SCHEDULE_LABEL: "all"},
        "annotations": {labels.SCHEDULE_ANNOTATION: "ClusterBackupSchedule/all", **annotations},
    }
    made = simulation.objects.create("VolumeBackup", {"metadata": metadata, "spec": {"volumeId": claim}})
    assert made is not None
    return made


def uids(simulation: ScheduleSimulation, namespace: str) -> list[str]:
    return [c["metadata"]["uid"] for c in simulation.objects.all("PersistentVolumeClaim", namespace)]


def scheduled(simulation: ScheduleSimulation, namespace: str) -> list[Object]:
    found = [item for item in simulation.backups(namespace) if "202605050200" in item["metadata"]["name"]]
    return [item for item in found if labels.SCHEDULED_FOR_ANNOTATION in item["metadata"]["annotations"]]


def test_forged_backups_of_foreign_volumes_count_for_nothing() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        both(simulation)
        simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST - HOUR)
        for number, uid in enumerate(uids(simulation, GOOD)):
            made = forge(
                simulation, f"forged-{number}", uid, **{labels.SCHEDULED_FOR_ANNOTATION: "2026-05-05T02:00:00Z"}
            )
            simulation.finish(made)
        simulation.run_until(FIRST + HOUR)
        assert len(scheduled(simulation, GOOD)) == 3
        [schedule] = simulation.objects.all("ClusterBackupSchedule")
        assert simulation.status(schedule)["lastRun"]["succeeded"] == 6


def test_unfinished_forged_backups_use_up_only_their_own_share() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        both(simulation)
        simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST - HOUR)
        simulation.duration = None
        for number in range(110):
            forge(simulation, f"forged-{number}", f"nothing-{number}")
        simulation.run_until(FIRST + HOUR)
        assert len(scheduled(simulation, GOOD)) == 3


def test_failures_of_one_namespace_do_not_hide_those_of_others() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        simulation.namespace("a-noisy")
        simulation.namespace("quiet", with_store=False)
        for number in range(40):
            simulation.claim(f"data-{number}", "a-noisy")
        simulation.claim("precious", "quiet")
        schedule = simulation.cluster_schedule(spread="0s", retries={"count": 0})

        def fail() -> None:
            for item in simulation.backups("a-noisy"):
                if not (item.get("status") or {}).get("phase"):
                    simulation.finish(item, "error", "SourceError")

        simulation.run_until(FIRST + HOUR, each=fail)
        status = simulation.status(schedule)
        assert len(status["failing"]) == 20
        assert {"namespace": "quiet", "volume": "precious", "reason": "NoStore"} in status["failing"]
        assert status["failingVolumes"] == 41


@pytest.mark.parametrize("marked", [False, True])
def test_taken_name_concerns_one_volume(marked: bool) -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        both(simulation)
        schedule = simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST + HOUR)
        taken = scheduled(simulation, EVIL)[0]["metadata"]["name"].replace("20260505", "20260506")
        if marked:
            forge(simulation, taken, "another-volume")
        else:
            body: dict[str, Any] = {"metadata": {"name": taken, "namespace": EVIL}, "spec": {"volumeId": "x"}}
            simulation.objects.create("VolumeBackup", body)
        simulation.run_until(FIRST + timedelta(days=1) + HOUR)
        assert [entry["reason"] for entry in simulation.status(schedule)["failing"]] == ["NameTaken"]
        run = simulation.status(schedule)["lastRun"]
        assert (run["volumes"], run["succeeded"], run["skipped"]) == (6, 5, 1)
        [note] = simulation.events("NameTaken")
        assert "evil/data-" in note


def test_refusals_of_one_namespace_stop_no_other_and_are_repeated() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        both(simulation)
        schedule = simulation.cluster_schedule(spread="0s", startingDeadline="2h")
        simulation.run_until(FIRST - HOUR)
        simulation.api.full_namespaces = {EVIL}
        simulation.run_until(FIRST + HOUR)
        assert (len(scheduled(simulation, GOOD)), len(scheduled(simulation, EVIL))) == (3, 0)
        status = simulation.status(schedule)
        assert {(entry["namespace"], entry["reason"]) for entry in status["failing"]} == {(EVIL, "QuotaExceeded")}
        assert "lastScheduleTime" not in status
        simulation.api.full_namespaces = set()
        simulation.run_until(FIRST + 90 * timedelta(minutes=1))
        assert len(scheduled(simulation, EVIL)) == 3
        assert simulation.status(schedule)["lastScheduleTime"] == "2026-05-05T02:00:00Z"


def test_refusals_until_the_deadline_are_misses() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        both(simulation)
        schedule = simulation.cluster_schedule(spread="0s", startingDeadline="1h")
        simulation.run_until(FIRST - HOUR)
        simulation.api.full_namespaces = {EVIL}
        simulation.run_until(FIRST + 2 * HOUR)
        run = simulation.status(schedule)["lastRun"]
        assert (run["succeeded"], run["missed"]) == (3, 3)
        assert simulation.condition(schedule, "LastRunSucceeded")["reason"] == "RunIncomplete"


def test_namespace_with_very_many_forged_backups_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "RecordLimit", partial(RecordLimit, 50))
    with ScheduleSimulation(namespaces=()) as simulation:
        both(simulation)
        schedule = simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST - HOUR)
        for number in range(60):
            simulation.finish(forge(simulation, f"forged-{number:03}", f"nothing-{number}"))
        simulation.run_until(FIRST + HOUR)
        assert len(scheduled(simulation, GOOD)) == 3
        assert not scheduled(simulation, EVIL)
        assert simulation.status(schedule)["lastRun"]["skipped"] == 3
        failing = simulation.status(schedule)["failing"]
        assert {(entry["namespace"], entry["reason"]) for entry in failing} == {(EVIL, "TooManyObjects")}


def test_very_many_honest_backups_do_not_end_those_of_the_largest_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "RecordLimit", partial(RecordLimit, 40))
    with ScheduleSimulation(namespaces=("small", "large")) as simulation:
        for namespace, volumes in (("small", 2), ("large", 4)):
            for number in range(volumes):
                simulation.claim(f"data-{number}", namespace)
        schedule = simulation.cluster_schedule(spread="0s", retention={"keepDaily": 30})
        simulation.run_until(FIRST + 12 * 24 * HOUR + HOUR)
        assert len(simulation.backups("large")) == 4 * 13
        assert [item["spec"].get("incremental", False) for item in simulation.backups("large")].count(False) < 10
        assert simulation.condition(schedule, "LastRunSucceeded")["status"] == "True"
        assert simulation.condition(schedule, "RetentionApplied")["status"] == "True"
        assert simulation.status(schedule)["retention"]["kept"] == (2 + 4) * 13


def test_retention_goes_on_in_a_namespace_with_very_many_backups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has one or two of the volumes, and every volume keeps its three newest backups."""
    monkeypatch.setattr(gather, "RecordLimit", partial(RecordLimit, 25))
    monkeypatch.setattr(volume_parts, "PART_RECORDS", 7)
    with ScheduleSimulation(namespaces=("large",)) as simulation:
        for number in range(6):
            simulation.claim(f"data-{number}", "large")
        rules = {"keepLast": 3, "minAge": "1h", "grace": "24h"}
        schedule = simulation.cluster_schedule(spread="0s", retention=rules)
        simulation.run_until(FIRST + 9 * 24 * HOUR + HOUR)
        assert Counter(item["spec"]["volumeId"] for item in simulation.backups("large")).most_common(1)[0][1] == 4
        status = simulation.status(schedule)["retention"]
        assert (status["kept"], status["expiring"]) == (18, 6)
        assert simulation.condition(schedule, "RetentionApplied")["reason"] == "RulesApplied"


def test_names_of_future_runs_cannot_be_taken_unnoticed() -> None:
    with ScheduleSimulation(namespaces=(GOOD,)) as simulation:
        claim = simulation.claim("data", GOOD)["metadata"]["uid"]
        schedule = simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST + HOUR)
        [made] = simulation.names()
        marks = {labels.SCHEDULED_FOR_ANNOTATION: "2026-05-06T02:00:00Z"}
        simulation.finish(forge(simulation, made.replace("0505", "0506"), claim, GOOD, **marks))
        simulation.finish(forge(simulation, made.replace("0505", "0507"), claim, GOOD))
        for day in (1, 2):
            simulation.run_until(FIRST + (24 * day + 1) * HOUR)
            [named] = simulation.status(schedule)["failing"]
            assert (named["volume"], named["reason"]) == ("data", "NameTaken")
            assert simulation.condition(schedule, "LastRunSucceeded")["status"] == "False"
        simulation.run_until(FIRST + 73 * HOUR)
        assert not simulation.status(schedule)["failing"]


def test_schedule_selects_namespaces_and_claims_by_their_labels() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        simulation.namespace("prod", tier="prod")
        simulation.namespace("test", tier="test")
        for namespace in ("prod", "test"):
            simulation.claim("data", namespace, labels={"app": "db"})
            simulation.claim("cache", namespace, labels={"app": "cache"})
            simulation.claim("wanted", namespace, annotations={labels.BACKUP_ANNOTATION: "true"}, labels={"app": "db"})
        selectors = {
            "namespaceSelector": {"matchLabels": {"tier": "prod"}},
            "volumes": {"selector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["cache"]}]}},
        }
        simulation.cluster_schedule("all", spread="0s", **selectors)
        simulation.cluster_schedule("asked", spread="0s", optIn=True, namespaceSelector={})
        simulation.run_until(FIRST + HOUR)
        made = {
            (item["metadata"]["namespace"], item["metadata"]["name"].rsplit("-", 2)[0]) for item in simulation.backups()
        }
        assert made == {
            ("prod", "all-data"),
            ("prod", "all-wanted"),
            ("prod", "asked-wanted"),
            ("test", "asked-wanted"),
        }


def test_run_is_complete_if_owners_may_opt_in_and_nobody_has() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        simulation.namespace("prod")
        simulation.claim("data", "prod")
        asked = simulation.cluster_schedule("asked", spread="0s", optIn=True, namespaceSelector={})
        nothing = simulation.cluster_schedule("nothing", spread="0s", namespaceSelector={"matchLabels": {"a": "b"}})
        simulation.run_until(FIRST + HOUR)
        assert not simulation.backups()
        assert simulation.condition(asked, "LastRunSucceeded")["status"] == "True"
        assert simulation.status(asked)["lastCompletedTime"].startswith("2026-05-05T02:")
        assert "no claim has the annotation" in simulation.condition(asked, "Selecting")["message"]
        assert simulation.condition(nothing, "LastRunSucceeded")["reason"] == "NoVolumes"
        assert "lastCompletedTime" not in simulation.status(nothing)
        found = [event for event in simulation.objects.all("Event") if event["reason"] == "NoVolumes"]
        assert {event["regarding"]["name"]: event["type"] for event in found} == {
            "asked": "Normal",
            "nothing": "Warning",
        }


def test_operator_of_some_namespaces_selects_only_among_them() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        both(simulation)
        simulation.kube.namespaces = (GOOD,)
        simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST + HOUR)
        assert not simulation.backups(EVIL)
        assert len(simulation.backups(GOOD)) == 3
        assert not simulation.faults.requests["list", "namespaces"]


@pytest.mark.parametrize("count", [2, 22])
def test_unreadable_namespace_holds_up_no_other_and_is_named(count: int) -> None:
    """Its administrator may delete the RoleBinding of an operator that works in some namespaces."""
    watched = (EVIL, *(f"{GOOD}-{number}" for number in range(count - 1)))
    with ScheduleSimulation(namespaces=watched) as simulation:
        simulation.kube.namespaces, simulation.kube.skips_unreadable = watched, True
        for namespace in watched:
            simulation.claim("data", namespace)
        schedule = simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST - HOUR)
        simulation.api.unreadable_namespaces = {EVIL}
        simulation.run_until(FIRST + 10 * timedelta(minutes=1))
        assert simulation.condition(schedule, "LastRunSucceeded")["status"] == "Unknown"
        simulation.run_until(FIRST + HOUR)
        assert [len(simulation.backups(namespace)) for namespace in watched] == [0, *[1] * (count - 1)]
        status = simulation.status(schedule)
        assert status["failing"] == [{"namespace": EVIL, "reason": "AccessDenied"}]
        assert (status["lastRun"]["volumes"], status["lastRun"]["skipped"]) == (count, 1)
        assert simulation.condition(schedule, "LastRunSucceeded")["reason"] == "RunIncomplete"
        assert "lastCompletedTime" not in status
        [note] = simulation.events("AccessDenied")
        assert f"may not read them: {EVIL}. Create its RoleBinding" in note
        simulation.api.unreadable_namespaces = set()
        simulation.run_until(FIRST + 25 * HOUR)
        assert [len(simulation.backups(namespace)) for namespace in watched] == [1, *[2] * (count - 1)]
        assert not simulation.status(schedule)["failingVolumes"]


def test_namespace_that_can_be_read_again_soon_is_part_of_the_run() -> None:
    with ScheduleSimulation(namespaces=(GOOD, EVIL)) as simulation:
        simulation.kube.namespaces, simulation.kube.skips_unreadable = (GOOD, EVIL), True
        for namespace in (GOOD, EVIL):
            simulation.claim("data", namespace)
        schedule = simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST - HOUR)
        simulation.api.unreadable_namespaces = {EVIL}
        simulation.run_until(FIRST + 10 * timedelta(minutes=1))
        simulation.api.unreadable_namespaces = set()
        simulation.run_until(FIRST + HOUR)
        assert [len(simulation.backups(namespace)) for namespace in (GOOD, EVIL)] == [1, 1]
        assert simulation.condition(schedule, "LastRunSucceeded")["status"] == "True"


def test_ten_thousand_volumes_do_not_become_as_many_objects_at_once() -> None:
    with ScheduleSimulation(namespaces=()) as simulation:
        for namespace in ("a", "b", "c"):
            simulation.namespace(namespace)
            for number in range(200):
                simulation.claim(f"data-{number}", namespace)
        simulation.duration = None
        simulation.cluster_schedule(spread="0s")
        simulation.run_until(FIRST + timedelta(seconds=1))
        assert len(simulation.backups()) == 50
        assert {len(simulation.backups(namespace)) for namespace in "abc"} == {16, 17}
        simulation.run_until(FIRST + timedelta(minutes=5))
        assert {len(simulation.backups(namespace)) for namespace in "abc"} == {66}


def test_tenant_with_very_many_claims_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that are not bound take no memory. The namespaces with the most bound ones give way."""
    monkeypatch.setattr(gather, "MAX_CLAIMS", 12)
    with ScheduleSimulation(namespaces=("honest", "tenant", "pending")) as simulation:
        for number in range(2):
            simulation.claim(f"data-{number}", "honest")
        for number in range(20):
            simulation.claim(f"data-{number:02}", "tenant")
            simulation.claim(f"data-{number:02}", "pending", phase="Pending")
        simulation.claim("data", "pending")
        schedule = simulation.cluster_schedule()
        simulation.run_for(timedelta(hours=30))
        found = simulation.status(simulation.objects.all(schedule["kind"])[0])
    assert len(simulation.backups("honest")) == 2
    assert len(simulation.backups("pending")) == 1
    assert not simulation.backups("tenant")
    assert found["failing"] == [{"namespace": "tenant", "reason": "TooManyObjects"}]
    assert (found["lastRun"]["volumes"], found["lastRun"]["succeeded"], found["lastRun"]["skipped"]) == (4, 3, 1)
