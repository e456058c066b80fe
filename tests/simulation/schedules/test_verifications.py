"""Verifications of schedules: at their times, once, in turns, within limits, whatever happens to the operator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.controller.schedules import verify
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.errors import KubeUnavailable
from tests.support.schedules import cron_oracle
from tests.support.simulation.api import START, Object
from tests.support.simulation.schedules import NAMESPACE, ScheduleSimulation
from tests.support.store.faults import Crash

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FIRST = datetime.fromisoformat("2026-05-05T04:00:00Z")
"""The first time of the rules below: START is at noon, and backups are made at two o'clock in the night."""
STRUCTURE = {"structure": {"schedule": "0 4 * * *"}}
DATA = {"data": {"schedule": "0 4 * * *", "parts": 28, "maxBytes": 1000, "maxDuration": "2h"}}
RESTORE = {"restore": {"schedule": "0 4 * * *", "volumes": 1, "check": {"cronJobName": "check"}, "maxDataAge": "26h"}}


def cluster(simulation: ScheduleSimulation, volumes: int = 3, **rules: Any) -> Object:
    """Create some claims, and a schedule with verification."""
    for number in range(volumes):
        simulation.claim(f"data-{number}")
    return simulation.schedule(spread="0s", verification=rules)


def verified(simulation: ScheduleSimulation, level: str | None = None) -> list[str]:
    """Return the names of the BackupVerifications."""
    return [item["metadata"]["name"] for item in simulation.verifications(level)]


def volumes(simulation: ScheduleSimulation) -> list[str]:
    """Return the UIDs of the claims."""
    return [claim["metadata"]["uid"] for claim in simulation.objects.all("PersistentVolumeClaim")]


def forge(simulation: ScheduleSimulation, name: str, volume: str, namespace: str) -> Object:
    """Create a BackupVerification with the marks of the ClusterBackupSchedule."""
    marks = {"cinderblock.io/schedule": "all"}
    annotations = {"cinderblock.io/schedule-name": "ClusterBackupSchedule/all"}
    metadata = {"name": name, "namespace": namespace, "labels": marks, "annotations": annotations}
    body = {"metadata": metadata, "spec": {"level": "Structure", "volumeId": volume}}
    made = simulation.objects.create("BackupVerification", body)
    assert made is not None
    return made


def test_each_volume_is_verified_at_each_level_and_time() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 2, **STRUCTURE, **DATA)
        simulation.run_until(FIRST + HOUR)
        assert verified(simulation) == [
            "daily-data-0-data-202605050400",
            "daily-data-0-structure-202605050400",
            "daily-data-1-data-202605050400",
            "daily-data-1-structure-202605050400",
        ]
        made = simulation.verifications("Data")[0]
        assert made["spec"] == {
            "level": "Data",
            "volumeId": volumes(simulation)[0],
            "data": {"parts": 28, "maxBytes": 1000, "maxDuration": "2h"},
        }
        assert made["metadata"]["annotations"]["cinderblock.io/schedule-name"] == "BackupSchedule/daily"
        assert made["metadata"]["annotations"]["cinderblock.io/scheduled-for"] == "2026-05-05T04:00:00Z"


def test_restore_of_a_schedule_names_the_volume_and_no_backup() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 1, **RESTORE)
        simulation.run_until(FIRST + HOUR)
        [made] = simulation.verifications()
        assert made["spec"] == {
            "level": "Restore",
            "volumeId": volumes(simulation)[0],
            "restore": {"check": {"cronJobName": "check"}, "maxDataAge": "26h"},
        }


def test_volume_without_a_backup_is_not_verified() -> None:
    with ScheduleSimulation() as simulation:
        simulation.duration = None
        cluster(simulation, 2, **STRUCTURE, **RESTORE)
        simulation.run_until(FIRST + HOUR)
        assert verified(simulation) == []


def test_volumes_of_restores_take_turns() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 5, restore={"schedule": "0 4 * * *", "volumes": 2}, successfulHistoryLimit=100)
        simulation.run_until(FIRST + 4 * DAY + HOUR)
        times = Counter(item["spec"]["volumeId"] for item in simulation.verifications())
        assert sorted(times.values()) == [2] * 5
        days = Counter(name[-12:] for name in verified(simulation))
        assert set(days.values()) == {2}


def test_deleted_verifications_do_not_change_whose_turn_it_is() -> None:
    """A tenant who deletes the verifications of a volume must not get all turns."""
    with ScheduleSimulation() as simulation:
        cluster(simulation, 4, restore={"schedule": "0 4 * * *"})
        seen: list[str] = []
        for day in range(4):
            simulation.run_until(FIRST + day * DAY + HOUR)
            [made] = simulation.verifications()
            seen.append(made["spec"]["volumeId"])
            simulation.objects.delete(made)
        assert len(set(seen)) == 4


def test_refused_volume_loses_its_turn_to_the_next_one() -> None:
    with ScheduleSimulation(namespaces=("a", "b")) as simulation:
        for namespace in ("a", "b"):
            simulation.claim("data", namespace)
        simulation.cluster_schedule(spread="0s", verification={"restore": {"schedule": "0 4 * * *"}})
        simulation.run_until(FIRST - HOUR)
        simulation.api.rejections = {"BackupVerification": (403, "exceeded quota: objects, requested: 1")}
        simulation.run_until(FIRST + 5 * MINUTE)
        [schedule] = simulation.objects.all("ClusterBackupSchedule")
        condition = simulation.condition(schedule, "VerificationsCreated")
        assert (condition["status"], condition["reason"]) == ("False", "VerificationsRefused")
        assert "quota" in condition["message"]
        assert simulation.condition(schedule, "Ready")["status"] == "True"
        simulation.api.rejections = {}
        simulation.run_until(FIRST + HOUR)
        assert len(simulation.verifications()) == 1
        assert simulation.condition(schedule, "VerificationsCreated")["status"] == "True"


def test_volume_has_one_unfinished_verification_of_a_level() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 1, structure={"schedule": "0 * * * *"})
        simulation.run_until(FIRST - HOUR + MINUTE)
        simulation.reading = None
        simulation.run_until(FIRST + 3 * HOUR)
        unfinished = [item for item in simulation.verifications() if not item.get("status")]
        assert len(unfinished) == 1
        simulation.reading = MINUTE
        simulation.run_until(FIRST + 5 * HOUR)
        assert len([item for item in simulation.verifications() if item.get("status")]) >= 2


def test_unfinished_verifications_are_bounded() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 230, **STRUCTURE)
        simulation.reading = None
        simulation.run_until(FIRST + HOUR)
        assert len(simulation.verifications()) == 200
        simulation.reading = MINUTE
        simulation.run_until(FIRST + 2 * HOUR)
        assert len(simulation.verifications()) == 230
        assert max(Counter(item["spec"]["volumeId"] for item in simulation.verifications()).values()) == 1


def test_level_that_is_behind_does_not_hold_up_another_one() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 60, **STRUCTURE, **DATA)
        simulation.reading = None
        simulation.run_until(FIRST + timedelta(seconds=1))
        assert len(simulation.verifications("Structure")) == 50
        assert len(simulation.verifications("Data")) == 50
        simulation.run_until(FIRST + HOUR)
        assert len(simulation.verifications()) == 120


def test_history_keeps_the_newest_of_each_volume_and_level() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 2, **STRUCTURE, **DATA, successfulHistoryLimit=2, failedHistoryLimit=1)
        simulation.run_until(FIRST + HOUR)
        for item in simulation.verifications():
            simulation.finish_verification(item, "damaged")
        simulation.run_until(FIRST + 6 * DAY + HOUR)
        groups = Counter((item["spec"]["volumeId"], item["spec"]["level"]) for item in simulation.verifications())
        # Two verified ones, the damaged one, and that of the last run, which ended after its creation.
        assert set(groups.values()) == {4}
        damaged = [item for item in simulation.verifications() if item["status"]["phase"] == "damaged"]
        assert len(damaged) == 4


def test_verifications_of_vanished_volumes_are_removed_after_a_week() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 2, **STRUCTURE)
        simulation.run_until(FIRST + HOUR)
        claim = simulation.objects.all("PersistentVolumeClaim")[0]
        simulation.objects.drop_finalizer(claim, "kubernetes.io/pvc-protection")
        simulation.objects.delete(claim)
        simulation.run_until(FIRST + 6 * DAY + HOUR)
        left = [name for name in verified(simulation) if name.startswith("daily-data-0-")]
        assert left == ["daily-data-0-structure-202605050400"]
        simulation.run_until(FIRST + 8 * DAY + HOUR)
        assert not [name for name in verified(simulation) if name.startswith("daily-data-0-")]


def test_unfinished_and_foreign_verifications_are_never_removed() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 1, **STRUCTURE, successfulHistoryLimit=1)
        own = {"metadata": {"name": "by-hand", "namespace": NAMESPACE}, "spec": {"level": "Structure", "volumeId": "x"}}
        made = simulation.objects.create("BackupVerification", own)
        assert made is not None
        simulation.finish_verification(made)
        simulation.run_until(FIRST + 20 * DAY)
        assert "by-hand" in verified(simulation)


def test_wrong_expression_stops_neither_backups_nor_retention() -> None:
    with ScheduleSimulation() as simulation:
        schedule = cluster(simulation, 1, structure={"schedule": "0 25 * * *"})
        simulation.run_until(FIRST)
        assert len(simulation.backups()) == 1
        assert simulation.condition(schedule, "Ready")["status"] == "True"
        condition = simulation.condition(schedule, "VerificationsCreated")
        assert (condition["status"], condition["reason"]) == ("False", "InvalidSchedule")
        assert condition["message"].startswith('spec.verification.structure.schedule "0 25 * * *"')
        assert len(simulation.events("InvalidSchedule")) == 1
        simulation.change(schedule, verification=STRUCTURE)
        simulation.run_until(FIRST + DAY + HOUR)
        assert simulation.condition(schedule, "VerificationsCreated")["reason"] == "VerificationsCreated"
        assert verified(simulation) == ["daily-data-0-structure-202605060400"]


def test_new_rule_of_an_old_schedule_counts_from_now_on() -> None:
    with ScheduleSimulation() as simulation:
        schedule = cluster(simulation, 1)
        simulation.run_until(FIRST + HOUR)
        simulation.change(schedule, verification=STRUCTURE)
        simulation.run_until(FIRST + DAY - HOUR)
        assert verified(simulation) == []
        simulation.run_until(FIRST + DAY + HOUR)
        assert verified(simulation) == ["daily-data-0-structure-202605060400"]


def test_suspended_schedule_verifies_nothing_and_makes_up_for_nothing() -> None:
    with ScheduleSimulation() as simulation:
        schedule = cluster(simulation, 1, **STRUCTURE)
        simulation.run_until(FIRST - HOUR)
        simulation.change(schedule, suspend=True)
        simulation.run_until(FIRST + HOUR)
        simulation.change(schedule, suspend=False)
        simulation.run_until(FIRST + DAY - HOUR)
        assert verified(simulation) == []
        simulation.run_until(FIRST + DAY + HOUR)
        assert verified(simulation) == ["daily-data-0-structure-202605060400"]


def test_schedule_without_verification_reads_no_verifications() -> None:
    with ScheduleSimulation() as simulation:
        schedule = simulation.schedule()
        simulation.claim("data")
        simulation.run_until(FIRST + 3 * DAY)
        assert not simulation.faults.requests["list", "backupverifications.cinderblock.io"]
        assert "verification" not in simulation.status(schedule)


def test_schedule_with_verification_reads_once_for_each_time() -> None:
    with ScheduleSimulation() as simulation:
        cluster(simulation, 3, **STRUCTURE)
        simulation.run_until(FIRST + 9 * DAY + HOUR)
        assert simulation.faults.requests["list", "backupverifications.cinderblock.io"] == 10


def test_schedule_that_waits_for_verifications_reads_at_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "RECORDS_PER_SECOND", 2.0)
    with ScheduleSimulation() as simulation:
        cluster(simulation, 230, **STRUCTURE)
        simulation.reading = None
        simulation.run_until(FIRST + 2 * HOUR)
        assert len(simulation.verifications()) == 200
        # 660 records at one in 2.5 seconds: a read takes the time of 27 minutes.
        assert simulation.faults.requests["list", "backupverifications.cinderblock.io"] <= 12
        simulation.reading = MINUTE
        simulation.run_until(FIRST + 4 * HOUR)
        assert len(simulation.verifications()) == 230


def test_forged_verifications_disturb_only_their_own_namespace() -> None:
    with ScheduleSimulation(namespaces=("good", "evil")) as simulation:
        for namespace in ("good", "evil"):
            simulation.claim("data", namespace)
        simulation.cluster_schedule(spread="0s", verification=STRUCTURE)
        simulation.run_until(FIRST - HOUR)
        for number in range(300):
            forge(simulation, f"forged-{number}", f"volume-{number}", "evil")
        simulation.reading = None
        simulation.run_until(FIRST + HOUR)
        assert len(simulation.verifications(namespace="good")) == 1
        assert len(simulation.verifications(namespace="evil")) == 300


def test_very_many_verifications_do_not_end_those_of_their_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "RecordLimit", partial(RecordLimit, 12))
    with ScheduleSimulation() as simulation:
        schedule = cluster(simulation, 3, **STRUCTURE, successfulHistoryLimit=100)
        for day in range(12):
            simulation.run_until(FIRST + day * DAY + HOUR)
            today = f"{FIRST + day * DAY:%Y%m%d%H%M}"
            assert len([name for name in verified(simulation) if name.endswith(today)]) == 3
        assert len(verified(simulation)) <= 12 + 3
        assert simulation.condition(schedule, "VerificationsCreated")["status"] == "True"


def test_namespace_with_very_many_forged_verifications_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "RecordLimit", partial(RecordLimit, 12))
    with ScheduleSimulation(namespaces=("good", "evil")) as simulation:
        for namespace in ("good", "evil"):
            simulation.claim("data", namespace)
        schedule = simulation.cluster_schedule(spread="0s", verification=STRUCTURE)
        simulation.run_until(FIRST - HOUR)
        for number in range(20):
            forge(simulation, f"forged-{number}", f"volume-{number}", "evil")
        simulation.run_until(FIRST + HOUR)
        assert len(simulation.verifications(namespace="good")) == 1
        assert len(simulation.verifications(namespace="evil")) == 20
        condition = simulation.condition(schedule, "VerificationsCreated")
        assert (condition["status"], condition["reason"]) == ("False", "VerificationsRefused")
        assert "No verification is created in namespace evil:" in condition["message"]


WRITES = 16


def run(simulation: ScheduleSimulation, error: BaseException | None, at: int, *, done: bool) -> None:
    """Run all levels once, and fail one of the writes after the backups."""
    cluster(simulation, 3, **STRUCTURE, **DATA, restore={"schedule": "0 4 * * *", "volumes": 2})
    simulation.run_until(FIRST - MINUTE)
    if error is not None:
        simulation.faults.plan(at, error, done=done)
    simulation.run_until(FIRST + HOUR)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(WRITES))
@pytest.mark.parametrize("error", [Crash("dies"), KubeUnavailable("no answer")], ids=["crash", "no-answer"])
def test_each_volume_is_verified_once_whichever_write_fails(error: BaseException, at: int, done: bool) -> None:
    with ScheduleSimulation() as simulation:
        run(simulation, error, at, done=done)
        made = Counter((item["spec"]["volumeId"], item["spec"]["level"]) for item in simulation.verifications())
        assert set(made.values()) == {1}
        assert Counter(level for _, level in made) == {"Structure": 3, "Data": 3, "Restore": 2}
        [schedule] = simulation.objects.all("BackupSchedule")
        shown = simulation.status(schedule)["verification"]
        assert {shown[level]["lastScheduleTime"] for level in shown} == {"2026-05-05T04:00:00Z"}


def test_run_without_faults_makes_fewer_writes_than_are_tried() -> None:
    with ScheduleSimulation() as simulation:
        run(simulation, None, 0, done=False)
        before = 2 * 3 + 2
        assert before < WRITES


@dataclass(frozen=True)
class Case:
    """One history.

    Attributes:
        expression, zone, spread: the rule.
        pauses: when the operator is away, from and to, after the beginning.
        crashes: numbers of the writes at which it dies, and whether after them.
        level: the level.
        loses: whether the status of the schedule is lost once.
    """

    expression: str
    zone: str
    spread: str
    pauses: tuple[tuple[timedelta, timedelta], ...]
    crashes: tuple[tuple[int, bool], ...]
    level: str


def _times(most: int) -> st.SearchStrategy[timedelta]:
    return st.integers(0, most * 60).map(lambda minutes: timedelta(minutes=minutes))


CASES = st.builds(
    Case,
    expression=st.sampled_from(("0 */6 * * *", "30 2 * * *", "15,45 1-4 * * *", "7 1,13 * * *")),
    zone=st.sampled_from(("Etc/UTC", "Europe/Berlin", "America/New_York", "Africa/Casablanca")),
    spread=st.sampled_from(("0s", "5m", "20m")),
    pauses=st.lists(st.tuples(_times(60), _times(30)), max_size=2).map(tuple),
    crashes=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=4).map(tuple),
    level=st.sampled_from(("structure", "restore")),
)
BEGIN = datetime.fromisoformat("2026-03-27T21:17:05Z")
LENGTH, SLACK = 3 * DAY, timedelta(minutes=2)


def play(case: Case) -> tuple[ScheduleSimulation, list[tuple[datetime, datetime]]]:
    """Play a history. Return the cluster after it, and when the operator was away."""
    simulation = ScheduleSimulation(BEGIN - DAY)
    for name in ("a", "b"):
        claim = simulation.claim(name)
        metadata = {
            "name": f"made-{name}",
            "namespace": NAMESPACE,
            "labels": {"cinderblock.io/schedule": "daily"},
            "annotations": {"cinderblock.io/schedule-name": "BackupSchedule/daily"},
        }
        body = {"metadata": metadata, "spec": {"volumeId": claim["metadata"]["uid"]}}
        made = simulation.objects.create("VolumeBackup", body)
        assert made is not None
        simulation.finish(made)
    simulation.now = BEGIN
    rules = {case.level: {"schedule": case.expression}, "successfulHistoryLimit": 100}
    # The schedule itself makes no backups in this time.
    simulation.schedule(schedule="0 0 1 1 *", timeZone=case.zone, spread=case.spread, verification=rules)
    crashes, away = sorted(case.crashes), list[tuple[datetime, datetime]]()

    def plan() -> None:
        if crashes and simulation.faults.at is None:
            at, done = crashes.pop(0)
            simulation.faults.plan(at, Crash("dies"), done=done)

    for at, pause in sorted(case.pauses):
        plan()
        if BEGIN + at > simulation.now:
            simulation.run_until(BEGIN + at, each=plan)
        began = max(simulation.now, BEGIN + at)
        simulation.now = began + pause
        away.append((began, simulation.now))
    simulation.run_until(max(simulation.now, BEGIN + LENGTH), each=plan)
    return simulation, away


def check(case: Case) -> None:
    """Each time at most once, at each time at which the operator ran, and of a pause only the newest time."""
    simulation, away = play(case)
    with simulation:
        made = Counter(
            (item["spec"]["volumeId"], item["metadata"]["annotations"]["cinderblock.io/scheduled-for"])
            for item in simulation.verifications()
        )
        assert set(made.values()) <= {1}
        each = 2 if case.level == "structure" else 1
        times = cron_oracle.times(case.expression, case.zone, BEGIN, simulation.now)
        stamps = [f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in times]
        numbers = Counter(stamp for _, stamp in made)
        assert set(numbers) <= set(stamps)
        assert all(number <= each for number in numbers.values())
        spread = timedelta(minutes={"0s": 0, "5m": 5, "20m": 20}[case.spread])
        for at, stamp in zip(times, stamps, strict=True):
            is_settled = at + spread + SLACK < simulation.now
            is_undisturbed = all(stop + SLACK < at or begin > at + spread + SLACK for begin, stop in away)
            if is_settled and is_undisturbed:
                assert numbers[stamp] == each, stamp
        for begin, end in away:
            during = [stamp for at, stamp in zip(times, stamps, strict=True) if begin < at <= end - SLACK]
            assert all(not numbers[stamp] for stamp in during[:-1]), (during, numbers)


@given(case=CASES)
@settings(max_examples=10, deadline=None)
def test_verifications_come_at_the_times_of_their_rule(case: Case) -> None:
    check(case)


@pytest.mark.long
@given(case=CASES)
@settings(max_examples=1000, deadline=None)
def test_verifications_come_at_the_times_of_their_rule_in_very_many_histories(case: Case) -> None:
    check(case)


def test_lost_status_verifies_no_time_twice() -> None:
    with ScheduleSimulation(START) as simulation:
        schedule = cluster(simulation, 2, **STRUCTURE, **RESTORE, successfulHistoryLimit=1)
        simulation.run_until(FIRST + HOUR)
        before = verified(simulation)
        simulation.objects.update(schedule, status=None)
        simulation.restart()
        simulation.run_until(FIRST + 2 * HOUR)
        assert verified(simulation) == before
