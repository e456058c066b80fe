"""One pass of retention of a schedule: the facts that it reads, and the marks that no schedule stands behind."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import pytest

from cinderblock.api.v1alpha1.retention import Retention
from cinderblock.api.v1alpha1.schedule import BackupSchedule
from cinderblock.controller.context import Context
from cinderblock.controller.schedules import retain as retain_module
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.controller.schedules.retain import Retained, retain
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.lifecycle.retention.uses import names_used_by
from tests.support.retention.cluster import MINUTE, RetentionLoop, make_backup, read
from tests.support.retention.records import DAY, NOW
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi, _refusal

POLICY = OperatorPolicy(MoverSettings(image="example/cinderblock:1"))
RULES = {"keepLast": 1, "minAge": "0s", "grace": "0s", "maxPerDay": 0}


class Api(SimulatedApi):
    """An API server that notes requests, and refuses to list types, or to write, in some namespaces."""

    def __init__(self) -> None:
        super().__init__(ObjectsInMemory(lambda: NOW - 90 * DAY), lambda *_: None)
        self.requests: list[str] = []
        self.refused: set[str] = set()
        self.refusing_writes = ""
        self.refusal = _refusal(403, "Forbidden", "denied")

    async def round_trip(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.path}")
        if request.method == "GET" and any(request.path.endswith(path) for path in self.refused):
            return _refusal(403, "Forbidden", f"cannot list {request.path}")
        if request.method != "GET" and self.refusing_writes and self.refusing_writes in request.path:
            return self.refusal
        return await super().round_trip(request)


class Scheduled:
    """A schedule with its backups."""

    def __init__(self) -> None:
        self.api = Api()
        self.context = Context(kube=KubeClient(self.api), stores=cast("Any", None), policy=POLICY)
        self.schedule = BackupSchedule.model_validate(
            {
                "metadata": {"name": "daily", "namespace": "shop", "uid": "s-1"},
                "spec": {"schedule": "@daily", "retention": RULES},
            }
        )

    async def look(self, now: datetime, **rules: Any) -> Retained:
        """Make one pass and record its status."""
        if rules:
            spec = self.schedule.spec.model_copy(update={"retention": Retention.model_validate(RULES | rules)})
            self.schedule = self.schedule.model_copy(update={"spec": spec})
        self.api.requests.clear()
        records = await RetentionLoop(self.context.kube, Retention()).records()
        result = await retain(self.context, self.schedule, UTC, records, now)
        assert result is not None
        status = self.schedule.status.model_copy(update={"retention": result.status})
        self.schedule = self.schedule.model_copy(update={"status": status})
        return result

    async def names(self) -> set[str]:
        """Return the names of the backups that exist."""
        return {record.name for record in await RetentionLoop(self.context.kube, Retention()).records()}

    async def make(self, count: int, namespace: str = "shop") -> None:
        """Make backups of consecutive days; ``b-0`` is the newest."""
        for number in range(count):
            await make_backup(self.context.kube, namespace, f"b-{number}", NOW - (number + 1) * DAY)

    def create(self, kind: str, name: str, spec: dict[str, Any], **status: Any) -> None:
        """Create another object of the namespace."""
        made = self.api.objects.create(kind, {"metadata": {"name": name, "namespace": "shop"}, "spec": spec})
        assert made is not None
        if status:
            self.api.objects.update(made, status={"id": made["metadata"]["uid"]} | status)


@pytest.fixture
def scheduled() -> Scheduled:
    return Scheduled()


async def test_schedule_without_retention_is_left_alone(scheduled: Scheduled) -> None:
    spec = scheduled.schedule.spec.model_copy(update={"retention": None})
    schedule = scheduled.schedule.model_copy(update={"spec": spec})
    assert await retain(scheduled.context, schedule, UTC, (), NOW) is None
    assert not scheduled.api.requests


async def test_expired_backups_go_and_the_status_says_when(scheduled: Scheduled) -> None:
    await scheduled.make(3)
    assert (await scheduled.look(NOW)).status.expiring == 2
    result = await scheduled.look(NOW + MINUTE)
    assert await scheduled.names() == {"b-0"}
    assert result.status.last_removal_time == NOW + MINUTE


async def test_nothing_is_read_while_nothing_expires(scheduled: Scheduled) -> None:
    await scheduled.make(2)
    await scheduled.look(NOW, keepLast=5)
    assert len(scheduled.api.requests) == 1


@pytest.mark.parametrize("status", [{}, {"phase": "restoring"}])
async def test_backup_that_a_restore_reads_stays(scheduled: Scheduled, status: dict[str, Any]) -> None:
    await scheduled.make(3)
    scheduled.create("VolumeRestore", "r", {"backupId": "b-1", "name": "again"}, **status)
    await scheduled.look(NOW)
    await scheduled.look(NOW + MINUTE)
    assert await scheduled.names() == {"b-0", "b-1"}


async def test_damaged_newest_backup_keeps_the_last_verified_one(scheduled: Scheduled) -> None:
    """b-0 is the newest. It is verified at first, so b-2 may go. When it is found damaged, b-2 has to stay."""
    await scheduled.make(4)
    verify(scheduled, "b-0", "Verified")
    verify(scheduled, "b-2", "Verified")
    assert (await scheduled.look(NOW)).status.expiring == 3
    verify(scheduled, "b-0", "Damaged")
    for number in range(1, 4):
        await scheduled.look(NOW + number * MINUTE)
    assert await scheduled.names() == {"b-0", "b-1", "b-2"}, "the newest, the newest sound one, the newest verified one"


async def test_copied_result_protects_nothing(scheduled: Scheduled) -> None:
    await scheduled.make(3)
    verify(scheduled, "b-2", "Verified", recordedFor="another")
    await scheduled.look(NOW)
    await scheduled.look(NOW + MINUTE)
    assert await scheduled.names() == {"b-0"}


def verify(scheduled: Scheduled, name: str, result: str, **fields: str) -> None:
    """Record the result of a verification, as its mover's findings do."""
    backup = scheduled.api.objects.get("VolumeBackup", name, "shop")
    assert backup is not None
    found = {"result": result, "recordedFor": backup["metadata"]["uid"], "lastVerifiedAt": "2026-05-01T00:00:00Z"}
    scheduled.api.objects.update(backup, status=backup["status"] | {"verification": found | fields})


async def test_restore_that_begins_during_the_grace_keeps_the_backup(scheduled: Scheduled) -> None:
    await scheduled.make(2)
    await scheduled.look(NOW)
    scheduled.create("VolumeRestore", "r", {"backupId": "b-1", "name": "again"})
    await scheduled.look(NOW + MINUTE)
    kept = await read(scheduled.context.kube, "shop", "b-1")
    assert kept is not None
    assert kept.status.expires_at is None


async def test_parent_of_a_backup_that_a_person_makes_stays(scheduled: Scheduled) -> None:
    await scheduled.make(3)
    parent = await read(scheduled.context.kube, "shop", "b-1")
    assert parent is not None
    scheduled.create("VolumeBackup", "mine", {"volumeId": "data"}, phase="creating", parentId=parent.uid)
    records = [r for r in await RetentionLoop(scheduled.context.kube, Retention()).records() if r.name != "mine"]
    for now in (NOW, NOW + MINUTE):
        result = await retain(scheduled.context, scheduled.schedule, UTC, records, now)
        assert result is not None
    marked = {r.name for r in await RetentionLoop(scheduled.context.kube, Retention()).records() if r.expires_at}
    assert marked == {"b-2"}


async def test_nothing_goes_where_too_many_backups_are(scheduled: Scheduled, monkeypatch: pytest.MonkeyPatch) -> None:
    await scheduled.make(3)
    for number in range(3):
        scheduled.create("VolumeBackup", f"mine-{number}", {"volumeId": "data"})
    monkeypatch.setattr("cinderblock.controller.schedules.retain.RecordLimit", partial(RecordLimit, 2))
    records = [r for r in await RetentionLoop(scheduled.context.kube, Retention()).records() if r.schedule]
    for now in (NOW, NOW + MINUTE):
        result = await retain(scheduled.context, scheduled.schedule, UTC, records, now)
        assert result is not None
        assert "too many VolumeBackups" in result.refused[0]
    assert not any(r.expires_at for r in await RetentionLoop(scheduled.context.kube, Retention()).records())


@pytest.mark.parametrize("plural", ["volumerestores", "persistentvolumeclaims"])
async def test_nothing_goes_where_the_facts_cannot_be_read(scheduled: Scheduled, plural: str) -> None:
    await scheduled.make(3)
    scheduled.api.refused = {f"/namespaces/shop/{plural}"}
    result = await scheduled.look(NOW, gone={"after": "100d"})
    assert len(result.refused) == 1
    assert (result.status.kept, result.status.expiring, result.status.left_out) == (1, 0, 2)
    assert not [request for request in scheduled.api.requests if not request.startswith("GET")]


@pytest.mark.parametrize("refusal", [(403, "Forbidden", "denied"), (500, "InternalError", "no answer")])
@pytest.mark.parametrize("when", ["mark", "removal"])
async def test_backups_whose_writes_are_refused_are_left_out(
    scheduled: Scheduled, when: str, refusal: tuple[int, str, str]
) -> None:
    await scheduled.make(3, "shop")
    await scheduled.make(4, "demo")
    scheduled.api.refusal = _refusal(*refusal)
    if when == "removal":
        await scheduled.look(NOW)
    scheduled.api.refusing_writes = "/namespaces/shop/"
    result = await scheduled.look(NOW + MINUTE)
    numbers = result.status.kept, result.status.expiring, result.status.left_out
    assert numbers == {"mark": (2, 3, 2), "removal": (2, 2, 2)}[when]


async def test_only_what_was_not_written_is_left_out(scheduled: Scheduled) -> None:
    """The first of three marks arrives, and then the namespace refuses all others."""
    await scheduled.make(4)
    scheduled.api.refusing_writes = "/volumebackups/b-2/"
    result = await scheduled.look(NOW)
    marked = [r.name for r in await RetentionLoop(scheduled.context.kube, Retention()).records() if r.expires_at]
    assert result.status.expiring == len(marked) == 3 - result.status.left_out
    assert 0 < result.status.left_out < 3


async def test_claim_that_exists_is_not_gone(scheduled: Scheduled) -> None:
    await scheduled.make(1)
    claim = scheduled.api.objects.create("PersistentVolumeClaim", {"metadata": {"name": "data", "namespace": "shop"}})
    assert claim is not None
    uid = claim["metadata"]["uid"]
    found = scheduled.api.objects.get("VolumeBackup", "b-0", "shop")
    assert found is not None
    scheduled.api.objects.update(found, status=found["status"] | {"volumeId": uid})
    later = NOW + 200 * DAY
    for now in (later, later + MINUTE):
        await scheduled.look(now, gone={"after": "100d"})
    assert await scheduled.names() == {"b-0"}
    scheduled.api.objects.drop_finalizer(claim, "kubernetes.io/pvc-protection")
    scheduled.api.objects.delete(claim)
    for now in (later + 2 * MINUTE, later + 3 * MINUTE):
        await scheduled.look(now)
    assert await scheduled.names() == set()


async def test_large_plan_is_made_in_a_thread(scheduled: Scheduled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinderblock.controller.schedules.retain.RECORDS_PER_THREAD", 1)
    await scheduled.make(2)
    assert (await scheduled.look(NOW)).status.expiring == 1


def test_restore_that_has_ended_uses_nothing() -> None:
    restore = {
        "metadata": {"name": "r", "namespace": "shop", "uid": "r-1"},
        "spec": {"backupId": "b-1", "name": "again"},
        "status": {"id": "r-1", "phase": "available", "backupId": "u-1"},
    }
    assert names_used_by(restore) == set()
    copied = restore | {"metadata": {"name": "r", "namespace": "shop", "uid": "r-2"}}
    assert names_used_by(copied) == {("shop", "b-1"), ("shop", "u-1")}
    broken = {"metadata": {"namespace": "shop"}, "spec": {"backupId": "b-1", "size": []}, "status": "x"}
    assert names_used_by(broken) == {("shop", "b-1")}


async def test_namespaces_that_were_not_read_come_soon(scheduled: Scheduled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of three namespaces has one backup to mark, and one pass reads two of them."""
    monkeypatch.setattr(retain_module, "MAX_NAMESPACES", 2)
    for number in range(3):
        await scheduled.make(2, f"n-{number}")
    first = await scheduled.look(NOW, grace="24h")
    assert first.requeue_after == retain_module.NEXT_NAMESPACES_SECONDS
    assert (first.status.kept, first.status.expiring, first.status.left_out) == (3, 2, 1)
    for minute in range(1, 10):
        last = await scheduled.look(NOW + minute * MINUTE)
    marked = [
        record for record in await RetentionLoop(scheduled.context.kube, Retention()).records() if record.expires_at
    ]
    assert len(marked) == 3
    assert last.requeue_after == 3600
    assert (last.status.kept, last.status.expiring, last.status.left_out) == (3, 3, 0)
