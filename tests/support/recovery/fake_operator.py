"""An API server in memory with an operator that imports and restores at once, for tests of what a command writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cinderblock.api.layout import stored_ids
from cinderblock.errors import PermanentError
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.repository.catalog import Catalog
from cinderblock.repository.objects import BackupRef
from cinderblock.store.base import ObjectStore
from tests.support.simulation.api import Object, ObjectsInMemory, SimulatedApi


@dataclass
class FakeOperator:
    """Works on VolumeBackups with spec.import, and on VolumeRestores.

    Attributes:
        objects: the cluster.
        store, prefix, keys: what all BackupStores hold.
        failing: fail reason by the name of the claim whose restores fail.
        is_stopped: whether it works on nothing.
        steps: how often it works on a restore until it ends.
        order: names of claims in the order in which their restores began.
        most: the largest number of restores that ran at the same time.
    """

    objects: ObjectsInMemory
    store: ObjectStore
    prefix: str
    keys: KeyRing | None = None
    failing: dict[str, str] = field(default_factory=dict)
    is_stopped: bool = False
    steps: int = 1
    order: list[str] = field(default_factory=list)
    most: int = 0
    _done: Counter[str] = field(default_factory=Counter)

    def work(self) -> None:
        """Take every object one step further."""
        if self.is_stopped:
            return
        for body in self.objects.all("VolumeBackup"):
            if not body.get("status"):
                self.objects.update(body, status=self._imported(body))
        begun = [body for body in self.objects.all("VolumeRestore") if _phase(body) == "restoring"]
        self.most = max(self.most, len(begun))
        for body in begun:
            self._done[body["metadata"]["uid"]] += 1
            if self._done[body["metadata"]["uid"]] >= self.steps:
                self.objects.update(body, status=self._restored(body))
        for body in self.objects.all("VolumeRestore"):
            if not body.get("status") and "name" in body["spec"]:
                self.order.append(body["spec"]["name"])
                self.objects.update(body, status={"phase": "restoring", "id": body["metadata"]["uid"]})

    def _imported(self, body: Object) -> Object:
        uid, source = body["metadata"]["uid"], body["spec"]["import"]
        status = {"id": source["id"], "importedBy": uid}
        ids = stored_ids(source["manifest"], self.prefix)
        assert ids is not None
        reference = BackupRef(source["manifest"], *ids)
        try:
            expected = reference.expected(sealed=self.keys is not None and not source.get("allowUnsealed"))
            summary = Catalog(self.store, self.prefix, self.keys).read_summary(reference, expected)
        except PermanentError as error:
            return status | _ended("error", str(error.reason), error.message)
        return status | {"phase": "available", "pins": summary.pins.to_wire()}

    def _restored(self, body: Object) -> Object:
        metadata, spec = body["metadata"], body["spec"]
        status = {"id": metadata["uid"]}
        backups = self.objects.all("VolumeBackup", metadata["namespace"])
        if not any(_phase(each) == "available" and each["status"]["id"] == spec["backupId"] for each in backups):
            return status | _ended("error_restoring", "BackupNotFound", "no such backup")
        if spec["name"] in self.failing:
            return status | _ended("error_restoring", self.failing[spec["name"]], "it failed")
        claim = {"metadata": {"name": spec["name"], "namespace": metadata["namespace"]}, "spec": spec}
        made = self.objects.create("PersistentVolumeClaim", claim)
        if made is None:
            return status | _ended("error_restoring", "NameTaken", "it exists")
        return status | {"phase": "available", "volumeId": made["metadata"]["uid"]}


def _phase(body: Object) -> str:
    return str((body.get("status") or {}).get("phase", ""))


def _ended(phase: str, reason: str, message: str) -> Object:
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-05-04T12:00:00Z",
    }
    return {"phase": phase, "failReason": message[:255], "conditions": [condition]}


class ApiWithOperator(SimulatedApi):
    """Lets the operator work before each answer."""

    def __init__(self, operator: FakeOperator, check_write: Callable[[str, Any], None]) -> None:
        super().__init__(operator.objects, check_write)
        self._operator = operator

    async def round_trip(self, request: Request) -> Response:
        """See `Transport`."""
        self._operator.work()
        return await super().round_trip(request)


def a_store(objects: ObjectsInMemory, namespace: str, **spec: Any) -> Object:
    """Create a namespace with a default BackupStore that is ready."""
    objects.create("Namespace", {"metadata": {"name": namespace}})
    metadata = {
        "name": "default",
        "namespace": namespace,
        "annotations": {"cinderblock.io/is-default-store": "true"},
    }
    made = objects.create(
        "BackupStore", {"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "s3"}} | spec}
    )
    assert made is not None
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Available",
        "message": "",
        "lastTransitionTime": "2026-05-04T12:00:00Z",
    }
    objects.update(made, status={"conditions": [ready]})
    return made
