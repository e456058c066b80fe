"""Backups of a namespace that retention judges in parts: whole volumes, and never too many at a time."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, cast

import pytest

from cinderblock.api import labels
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.volume_parts import (
    MAX_PARTS,
    PART_RECORDS,
    VolumePart,
    parts_for,
    volume_parts,
)
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.lifecycle.retention.verdict import Judgement
from cinderblock.lifecycle.schedule.retained import Retained, RetentionProblem, combined
from cinderblock.reasons import Reason
from tests.support.retention.records import NOW, planned, rules
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi, stamp

POLICY = OperatorPolicy(MoverSettings(image="example/cinderblock:1"))
DAILY = ObjectKey("BackupSchedule", "shop", "daily")
MARKS = {
    "labels": {labels.SCHEDULE_LABEL: "daily"},
    "annotations": {labels.SCHEDULE_ANNOTATION: "BackupSchedule/daily"},
}


class Namespace:
    """A namespace with backups of a schedule."""

    def __init__(self) -> None:
        self.objects = ObjectsInMemory(lambda: NOW)
        kube = KubeClient(SimulatedApi(self.objects, lambda *_: None))
        self.context = Context(kube, cast("Any", None), POLICY, clock=lambda: NOW)

    def make(self, volume: str, count: int) -> None:
        """Make available backups of a volume."""
        for number in range(count):
            metadata = {"name": f"daily-{volume}-{number:03}", "namespace": "shop", **MARKS}
            made = self.objects.create("VolumeBackup", {"metadata": metadata, "spec": {"volumeId": volume}})
            assert made is not None
            own = {"id": made["metadata"]["uid"], "phase": "available", "volumeId": volume, "volumeName": volume}
            self.objects.update(made, status=own | {"dataTimestamp": stamp(NOW)})

    async def parts(self, count: int, **limit: int) -> list[VolumePart]:
        """Return all parts."""
        return [part async for part in volume_parts(self.context, DAILY, "shop", count, **limit)]


@pytest.fixture
def namespace() -> Namespace:
    return Namespace()


async def test_each_volume_comes_once_and_whole(namespace: Namespace) -> None:
    for number in range(20):
        namespace.make(f"v-{number}", 3)
    found = [part.backups() for part in await namespace.parts(4)]
    assert len(found) == 4
    assert max(map(len, found)) < 60
    counts = [Counter(record.volume_id for record in part) for part in found]
    assert [count for each in counts for count in each.values()] == [3] * 20


async def test_part_never_holds_more_than_its_limit(namespace: Namespace) -> None:
    namespace.make("large", 12)
    namespace.make("small", 5)
    [part] = await namespace.parts(1, limit=10)
    assert {record.volume_id for record in part.backups()} == {"small"}
    assert part.overfull == {"large": "large"}


async def test_backup_from_the_future_stops_the_removals_of_all_parts(namespace: Namespace) -> None:
    for number in range(8):
        namespace.make(f"v-{number}", 3)
    later = namespace.objects.all("VolumeBackup")[0]
    created = {"creationTimestamp": stamp(NOW + timedelta(hours=1))}
    namespace.objects.update(later, metadata=later["metadata"] | created)
    for part in await namespace.parts(4):
        plan = planned(rules(keep_last=1), part.backups())
        assert {verdict.judgement for verdict in plan.verdicts} == {Judgement.CLOCK_BEHIND}


def test_very_large_namespaces_are_not_divided() -> None:
    assert parts_for(0) == parts_for(PART_RECORDS) == 1
    assert parts_for(PART_RECORDS + 1) == 2
    assert parts_for(MAX_PARTS * PART_RECORDS) == MAX_PARTS
    assert parts_for(MAX_PARTS * PART_RECORDS + 1) is None


def test_results_of_parts_add_up() -> None:
    one = planned(rules(keep_last=1), []).status.model_copy(update={"kept": 3, "frozen": 1, "last_removal_time": NOW})
    other = one.model_copy(update={"kept": 4, "braked": 2, "last_removal_time": None})
    result = combined([Retained(one, (), 60.0), Retained(other, ("refused",), 5.0), Retained(None, ("too many",))])
    assert result.status is not None
    numbers = result.status.kept, result.status.frozen, result.status.braked, result.status.last_removal_time
    assert numbers == (7, 2, 2, NOW)
    assert (result.refused, result.requeue_after) == (("refused", "too many"), 5.0)


def test_part_that_judged_nothing_stands_for_all() -> None:
    status = planned(rules(keep_last=1), []).status.model_copy(update={"kept": 3})
    problem = RetentionProblem(Reason.CLOCK_DIFFERS, "The clocks differ")
    unjudged = Retained(status, None, 60.0, problem)
    assert combined([Retained(status, (), 60.0), unjudged]) is unjudged
