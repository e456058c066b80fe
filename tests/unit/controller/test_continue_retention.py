"""Passes of retention that continue an earlier one: what they read, and what still keeps a backup."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from cinderblock.api import labels
from cinderblock.api.v1alpha1.schedule import BackupSchedule
from cinderblock.controller.context import Context
from cinderblock.controller.request import key_of
from cinderblock.controller.schedules import continue_retention
from cinderblock.controller.schedules.apply_retention import CONTINUE_SECONDS, MAX_REMOVALS
from cinderblock.controller.schedules.retention import RetentionReconciler
from cinderblock.kube import client
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.lifecycle.schedule import settings as schedule_settings
from cinderblock.lifecycle.schedule.retained import Retained
from tests.support.retention.records import DAY, NOW
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi, _refusal, stamp

POLICY = OperatorPolicy(MoverSettings(image="example/cinderblock:1"))
VOLUMES, EXPIRED = 6, 10
"""Each of the volumes has one backup to keep, and some that have expired."""
PAGE, HEAP = 5, 100
"""Backups of a page, and finished backups of another volume that all stay."""


class Api(SimulatedApi):
    """An API server that notes the pages of lists, and refuses the ones below some paths."""

    def __init__(self) -> None:
        super().__init__(ObjectsInMemory(lambda: NOW - 90 * DAY), lambda *_: None)
        self.pages: list[str] = []
        self.refused = ""
        self.before_deletion: Callable[[], object] = lambda: None

    async def round_trip(self, request: Request) -> Response:
        if request.method == "GET" and request.path.endswith("s"):
            self.pages.append(request.query.get("fieldSelector", "") or request.path.rpartition("/")[2])
            if self.refused and self.refused in request.query.get("fieldSelector", ""):
                return _refusal(403, "Forbidden", "denied")
        if request.method == "DELETE":
            self.before_deletion()
        return await super().round_trip(request)


class Shop:
    """A namespace with many backups of a schedule, the grace of some of which has ended."""

    def __init__(self) -> None:
        self.api, self.now = Api(), NOW
        kube = KubeClient(self.api)
        self.context = Context(kube, cast("Any", None), POLICY, clock=lambda: self.now)
        self.reconciler = RetentionReconciler()
        rules = {"keepLast": 1, "minAge": "0s", "grace": "0s", "maxPerDay": 0}
        self.body: dict[str, Any] = {
            "kind": "BackupSchedule",
            "metadata": {"name": "daily", "namespace": "shop", "uid": "s-1", "generation": 1},
            "spec": {"schedule": "@daily", "retention": rules},
            "status": {"observedGeneration": 1},
        }

    def change_rules(self, **rules: Any) -> None:
        self.body["spec"]["retention"] = self.body["spec"]["retention"] | rules
        self.body["metadata"]["generation"] += 1

    def make(
        self, volume: str, number: int, *, name: str = "", expires: datetime | None = None, age: timedelta = DAY
    ) -> None:
        """Make an available backup of the schedule. Number 0 is the newest one."""
        metadata = {
            "name": name or f"{volume}-{number}",
            "namespace": "shop",
            "labels": {labels.SCHEDULE_LABEL: "daily"},
            "annotations": {labels.SCHEDULE_ANNOTATION: "BackupSchedule/daily"},
        }
        made = self.api.objects.create("VolumeBackup", {"metadata": metadata, "spec": {"volumeId": volume}})
        assert made is not None
        time = NOW - age - number * timedelta(hours=1)
        status = {
            "id": made["metadata"]["uid"],
            "phase": "available",
            "volumeId": volume,
            "storeName": "default",
            "container": name or "backups",
        }
        marks = {"expiresAt": stamp(expires)} if expires is not None else {}
        self.api.objects.update(made, status=status | {"dataTimestamp": stamp(time)} | marks)

    def change(self, name: str, **status: Any) -> None:
        found = self.api.objects.get("VolumeBackup", name, "shop")
        assert found is not None
        self.api.objects.update(found, status=found["status"] | status)

    async def look(self) -> Retained:
        """Make one pass, and record its status."""
        schedule = BackupSchedule.model_validate(self.body)
        parsed = schedule_settings.parse(schedule)
        self.api.pages.clear()
        made = await self.reconciler.apply(self.context, key_of(self.body), schedule, parsed, None)
        if made.status is not None:
            self.body["status"]["retention"] = made.status.to_wire()
        return made

    async def expire(self) -> Retained:
        """Make backups whose grace has ended, under rules that have applied for longer, and a pass that begins."""
        self.now = NOW - timedelta(hours=1)
        await self.look()
        self.now = NOW
        for number in range(HEAP):
            self.make("heap", 0, name=f"heap-{number}", age=timedelta(minutes=number))
        for number in range(VOLUMES):
            for each in range(EXPIRED + 1):
                self.make(f"v-{number}", each, expires=NOW - timedelta(minutes=5) if each else None)
        return await self.look()

    async def continue_to_the_end(self) -> int:
        """Make the passes that continue this one. Return how many."""
        for number in range(100):
            self.now += timedelta(seconds=CONTINUE_SECONDS)
            made = await self.look()
            if made.requeue_after != CONTINUE_SECONDS:
                return number + 1
        raise AssertionError("The passes do not end.")

    def names(self) -> set[str]:
        return {item["metadata"]["name"] for item in self.api.objects.all("VolumeBackup", "shop")}

    def expired(self) -> int:
        """Return how many backups are left that no rule keeps."""
        return sum(not name.endswith("-0") and not name.startswith("heap") for name in self.names())


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(client, "PAGE_LIMIT", PAGE)
    monkeypatch.setattr(continue_retention, "MIN_RECORDS", HEAP)
    return Shop()


async def test_many_removals_read_everything_once(shop: Shop) -> None:
    """Before, each 20 removals read all backups twice. Here, 60 of 166 backups are removed."""
    await shop.expire()
    whole, pages = len(shop.api.pages), 0
    assert shop.expired() == VOLUMES * EXPIRED - MAX_REMOVALS
    while shop.expired():
        shop.now += timedelta(seconds=CONTINUE_SECONDS)
        await shop.look()
        assert "volumebackups" not in shop.api.pages, "a list of all backups"
        pages += len(shop.api.pages)
    assert whole > 2 * HEAP / PAGE
    assert pages < whole, pages
    assert {f"v-{number}-0" for number in range(VOLUMES)} < shop.names()


async def test_status_keeps_the_numbers_of_the_whole_pass(shop: Shop) -> None:
    first = await shop.expire()
    await shop.continue_to_the_end()
    status = shop.body["status"]["retention"]
    assert first.status is not None
    assert (
        (status["kept"], status.get("expiring", 0)) == (HEAP + VOLUMES, 0) == (first.status.kept, first.status.expiring)
    )
    assert status["lastRemovalTime"] > stamp(NOW)


async def test_whole_pass_follows_after_a_while(shop: Shop) -> None:
    """The last continuation waits for as long as the pace of whole passes demands."""
    await shop.expire()
    await shop.continue_to_the_end()
    shop.now += timedelta(minutes=1)
    await shop.look()
    assert "volumebackups" in shop.api.pages


@pytest.mark.parametrize("change", ["held", "restored", "unfinished", "damaged", "suspicious", "readonly", "newest"])
async def test_guard_that_applies_later_keeps_backups(shop: Shop, change: str) -> None:
    await shop.expire()
    [last] = sorted(shop.names() - {f"v-{VOLUMES - 1}-0"}, reverse=True)[:1]
    volume = f"v-{VOLUMES - 1}"
    kept = {last}
    match change:
        case "held":
            found = shop.api.objects.get("VolumeBackup", last, "shop")
            assert found is not None
            shop.api.objects.update(found, spec=found["spec"] | {"hold": True})
        case "restored":
            body = {"metadata": {"name": "r", "namespace": "shop"}, "spec": {"backupId": last, "name": "again"}}
            assert shop.api.objects.create("VolumeRestore", body)
        case "unfinished":
            parent = shop.api.objects.get("VolumeBackup", last, "shop")
            body = {"metadata": {"name": "mine", "namespace": "shop"}, "spec": {"volumeId": volume}}
            made = shop.api.objects.create("VolumeBackup", body)
            assert parent is not None
            assert made is not None
            own = {"id": made["metadata"]["uid"], "phase": "creating", "volumeId": volume}
            shop.api.objects.update(made, status=own | {"parentId": parent["metadata"]["uid"]})
        case "damaged":
            for name in shop.names():
                if name.startswith(volume) and name != last:
                    found = shop.api.objects.get("VolumeBackup", name, "shop")
                    assert found is not None
                    result = {"result": "Damaged", "recordedFor": found["metadata"]["uid"]}
                    shop.change(name, verification=result)
        case "suspicious":
            condition = {"type": "Suspicious", "status": "True", "reason": "VolumeEmpty", "message": "-"}
            shop.change(f"{volume}-0", conditions=[condition | {"lastTransitionTime": stamp(NOW)}])
            kept = {name for name in shop.names() if name.startswith(volume)}
        case "readonly":
            body = {"metadata": {"name": "default", "namespace": "shop"}, "spec": {"access": "ReadOnly"}}
            assert shop.api.objects.create("BackupStore", body | {"spec": body["spec"] | STORE})
            kept = {name for name in shop.names() if name.startswith(volume)}
        case "newest":
            shop.change(f"{volume}-0", phase="error")
            kept = {min(name for name in shop.names() if name.startswith(volume) and not name.endswith("-0"))}
    await shop.continue_to_the_end()
    assert kept <= shop.names()
    assert f"v-{VOLUMES - 2}-{EXPIRED}" not in shop.names() or change == "readonly"


STORE = {"endpoint": "http://s3", "container": "backups", "credentialsSecretName": "s"}


async def test_changed_rules_read_everything_again(shop: Shop) -> None:
    await shop.expire()
    count = shop.expired()
    shop.change_rules(keepLast=2)
    shop.now += timedelta(seconds=CONTINUE_SECONDS)
    await shop.look()
    assert "volumebackups" in shop.api.pages
    assert shop.expired() == count


async def test_operator_that_restarts_reads_everything_again(shop: Shop) -> None:
    await shop.expire()
    shop.reconciler = RetentionReconciler()
    await shop.continue_to_the_end()
    assert shop.expired() == 0


async def test_old_pass_is_not_continued(shop: Shop) -> None:
    await shop.expire()
    shop.now += continue_retention.CONTINUATION
    await shop.look()
    assert "volumebackups" in shop.api.pages


async def test_volume_that_may_not_be_read_leads_to_a_whole_pass(shop: Shop) -> None:
    await shop.expire()
    shop.api.refused = "status.volumeId"
    shop.now += timedelta(seconds=CONTINUE_SECONDS)
    await shop.look()
    assert "volumebackups" in shop.api.pages


async def test_volumes_that_are_gone_wait_for_a_whole_pass(shop: Shop) -> None:
    """Other backups of the namespace decide whether they are gone."""
    shop.change_rules(gone={"after": "1h"})
    await shop.expire()
    shop.now += timedelta(seconds=CONTINUE_SECONDS)
    await shop.look()
    assert "volumebackups" in shop.api.pages


async def test_few_backups_are_read_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continue_retention, "MIN_RECORDS", 10_000)
    await shop.expire()
    shop.now += timedelta(seconds=CONTINUE_SECONDS)
    await shop.look()
    assert "volumebackups" in shop.api.pages


def test_uid_with_the_syntax_of_a_selector_is_not_continued() -> None:
    """Such a UID would hide some backups of the volume."""
    assert not continue_retention._VOLUME_ID.fullmatch("a,status.phase=available")
