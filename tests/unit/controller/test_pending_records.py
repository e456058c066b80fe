"""The results of a verification reach all backups of a volume, and their number does not multiply the reads."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any, cast

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationLevel
from cinderblock.controller.context import Context
from cinderblock.controller.verifications import findings
from cinderblock.controller.verifications.pending import MAX_NAMES, PendingRecords
from cinderblock.controller.verifications.record import record_summary
from cinderblock.errors import Conflict
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.lifecycle.observed import MoverSettings, ObservedMover, OperatorPolicy
from cinderblock.lifecycle.verification.findings import Finding
from tests.support.retention.records import NOW
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi, stamp

POLICY = OperatorPolicy(MoverSettings(image="example/cinderblock:1"))
FINDING = Finding(VerificationLevel.DATA, NOW, NOW - timedelta(hours=1), "b-000")
PROOF = BackupVerification.model_validate(
    {
        "metadata": {"name": "proof", "namespace": "shop", "uid": "p-1"},
        "spec": {"level": "Data", "volumeId": "data"},
        "status": {"id": "p-1", "volumeId": "c-1", "backupName": "b-000", "backupId": "b-000"},
    }
)


class CountingApi(SimulatedApi):
    """An API server that counts the VolumeBackups that it sends and changes."""

    def __init__(self) -> None:
        super().__init__(ObjectsInMemory(lambda: NOW - timedelta(days=1)), lambda *_: None)
        self.counts: Counter[str] = Counter()

    async def round_trip(self, request: Request) -> Response:
        response = await super().round_trip(request)
        body = json.loads(response.body) if response.body else {}
        how = "read" if request.method == "GET" else "written"
        self.counts[how] += len(body["items"]) if "items" in body else 1
        return response


class Recording:
    """A volume with backups, and the loop of reconciliations that records a finding in all of them."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = CountingApi()
        self.context = Context(KubeClient(self.api), cast("Any", None), POLICY, clock=lambda: NOW)

        async def finding(*_: object) -> Finding:
            return FINDING

        monkeypatch.setattr(findings, "_finding", finding)
        monkeypatch.setattr(findings, "MAX_CHANGES", 10)
        for number in range(count):
            self.make(f"b-{number:03}")

    def make(self, name: str) -> None:
        made = self.api.objects.create("VolumeBackup", {"metadata": {"name": name, "namespace": "shop"}, "spec": {}})
        assert made is not None
        status = {"id": made["metadata"]["uid"], "phase": "available", "volumeId": "c-1", "storeName": "default"}
        at = stamp(NOW - timedelta(days=1))
        key = f"backups/c-1/{name}.manifest"
        self.api.objects.update(
            made, status=status | {"container": "bucket", "manifestKey": key, "completedAt": at, "dataTimestamp": at}
        )

    def change(self, name: str) -> None:
        """Change something else about a backup."""
        item = self.api.objects.get("VolumeBackup", name, "shop")
        assert item is not None
        self.api.objects.update(item, metadata=item["metadata"] | {"annotations": {"by": "somebody"}})

    async def step(self) -> bool:
        """Make one reconciliation. Return whether it is the last one."""
        chosen = await self.context.get(VolumeBackup, kinds.VOLUME_BACKUP, "b-000", "shop")
        recording = await findings.read_findings(self.context, PROOF, ObservedMover(), chosen)
        for change in recording.changes:
            await record_summary(self.context.kube, "shop", change)
        return recording.is_last

    async def run(self) -> int:
        """Reconcile to the end. Return how often."""
        steps = 1
        while not await self.step():
            steps += 1
        return steps

    def recorded(self) -> int:
        """Return how many backups show the result."""
        return sum("verification" in item["status"] for item in self.api.objects.all("VolumeBackup"))


async def counts_of(count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    recording = Recording(count, monkeypatch)
    await recording.run()
    assert recording.recorded() == count
    return recording.api.counts


async def test_reads_and_writes_grow_with_the_number_of_backups(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = await counts_of(100, monkeypatch), await counts_of(400, monkeypatch)
    assert (few["written"], many["written"]) == (100, 400)
    assert few["read"] <= 4 * 100
    assert many["read"] <= 5 * few["read"]


async def test_backup_that_changes_meanwhile_gets_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(35, monkeypatch)
    assert not await recording.step()
    original, failures = KubeClient.merge_patch, 0

    async def refuse_once(self: KubeClient, kind: Any, name: str, *args: Any, **more: Any) -> Any:
        nonlocal failures
        if name == "b-015" and not failures:
            failures += 1
            recording.change(name)
        return await original(self, kind, name, *args, **more)

    monkeypatch.setattr(KubeClient, "merge_patch", refuse_once)
    with pytest.raises(Conflict):
        await recording.step()
    await recording.run()
    assert failures == 1
    assert recording.recorded() == 35


async def test_operator_that_starts_again_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(35, monkeypatch)
    for _ in range(2):
        await recording.step()
    object.__setattr__(recording.context, "pending_records", PendingRecords())
    await recording.run()
    assert recording.recorded() == 35


async def test_backup_that_is_gone_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(35, monkeypatch)
    await recording.step()
    for number in range(10, 30):
        item = recording.api.objects.get("VolumeBackup", f"b-{number:03}", "shop")
        assert item is not None
        recording.api.objects.delete(item)
    await recording.run()
    assert recording.recorded() == 15


def test_memory_is_bounded() -> None:
    pending = PendingRecords()
    pending.keep("first", [str(number) for number in range(MAX_NAMES)])
    pending.keep("second", ["a", "b", "c"])
    assert pending.take("first", 5) == []
    assert pending.take("second", 2) == ["a", "b"]
    assert pending.take("second", 2) == ["c"]
    assert pending.take("second", 2) == []
