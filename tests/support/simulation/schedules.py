"""A schedule in a simulated cluster: the real reconciler, an API server in memory, and a clock that the test sets.

    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        simulation.schedule("daily", schedule="0 2 * * *")
        simulation.run_until(hours(26))
        assert len(simulation.backups()) == 1

VolumeBackups and BackupVerifications are not reconciled: `finish` and `finish_verification` give them a result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from cinderblock.api import labels
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.reconciler import Reconciler
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.stores.pool import StorePool
from cinderblock.errors import CinderblockError
from cinderblock.kube.client import KubeClient
from cinderblock.kube.reduction import reduce_object
from cinderblock.kube.responses import Response
from cinderblock.kube.transport import Request
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.observability.operator_metrics import OperatorMetrics
from cinderblock.store.factory import ignores_unsigned_headers
from tests.support.simulation.api import START, Change, Object, ObjectsInMemory, SimulatedApi, stamp
from tests.support.simulation.simulation import Faults
from tests.support.store.faults import Crash

NAMESPACE = "shop"
POLICY = OperatorPolicy(MoverSettings(image="example/cinderblock:1"))
RETRY = timedelta(seconds=2)
"""Delay before a reconciliation is repeated that failed."""
MAX_LOOKS = 20_000
CLAIM = "PersistentVolumeClaim"


class ScheduleSimulation:
    """A cluster with schedules.

    Attributes:
        now: the present.
        objects: the objects of the API server.
        api: its HTTP side.
        faults: fails planned writes.
        looks: number of reconciliations.
        duration: how long a backup takes until `finish_due` ends it; None: backups never end by themselves.
        reading: how long a verification takes until `finish_due` ends it; None: verifications never end by themselves.
    """

    def __init__(self, now: datetime = START, namespaces: tuple[str, ...] = (NAMESPACE,)) -> None:
        self.now = now
        self.objects = ObjectsInMemory(lambda: self.now, self._on_change)
        self.api = _TimedApi(self.objects, lambda _how, _item: None)
        self.faults = Faults()
        self.looks = 0
        self.duration: timedelta | None = timedelta(seconds=30)
        self.reading: timedelta | None = timedelta(seconds=30)
        # asyncio.Runner would exchange signal handlers at each of very many runs.
        self._loop = asyncio.new_event_loop()
        self._due: dict[ObjectKey, datetime] = {}
        self.metrics = OperatorMetrics()
        self.restart()
        for namespace in namespaces:
            self.namespace(namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def restart(self) -> None:
        """Start the operator again, as after its death."""
        self.kube = KubeClient(self.api, observer=self.faults, reduce=reduce_object)
        self.reconciler = self._loop.run_until_complete(self._new_reconciler())
        for kind in ("BackupSchedule", "ClusterBackupSchedule"):
            for item in self.objects.all(kind):
                self._due[_key(item)] = self.now

    async def _new_reconciler(self) -> Reconciler:
        context = Context(
            self.kube,
            StorePool(self.kube, ignores_unsigned_headers=ignores_unsigned_headers),
            POLICY,
            clock=lambda: self.now,
            metrics=self.metrics,
        )
        return Reconciler(context)

    def _on_change(self, change: Change) -> None:
        item = change.object
        if item["kind"] in ("BackupSchedule", "ClusterBackupSchedule"):
            is_changed = item["metadata"]["generation"] != (item.get("status") or {}).get("observedGeneration")
            if is_changed or change.type == "DELETED":
                self._due[_key(item)] = self.now

    # Objects

    def namespace(self, name: str, *, with_store: bool = True, **marks: str) -> None:
        """Create a namespace with a default BackupStore."""
        self.objects.create("Namespace", {"metadata": {"name": name, "labels": marks}})
        if with_store:
            annotations = {labels.DEFAULT_STORE_ANNOTATION: "true"}
            metadata = {"name": "default", "namespace": name, "annotations": annotations}
            self.objects.create("BackupStore", {"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "s3"}}})

    def claim(self, name: str, namespace: str = NAMESPACE, *, phase: str = "Bound", **metadata: Any) -> Object:
        """Create a claim."""
        spec = {"storageClassName": "fast", "volumeName": f"pv-{namespace}-{name}"}
        body = {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec}
        made = self.objects.create("PersistentVolumeClaim", body)
        assert made is not None
        self.objects.update(made, status={"phase": phase})
        return made

    def schedule(self, name: str = "daily", namespace: str = NAMESPACE, **spec: Any) -> Object:
        """Create a BackupSchedule."""
        spec = {"schedule": "0 2 * * *", **spec}
        made = self.objects.create("BackupSchedule", {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
        assert made is not None
        return made

    def cluster_schedule(self, name: str = "all", **spec: Any) -> Object:
        """Create a ClusterBackupSchedule."""
        spec = {"schedule": "0 2 * * *", "namespaceSelector": {}, **spec}
        made = self.objects.create("ClusterBackupSchedule", {"metadata": {"name": name}, "spec": spec})
        assert made is not None
        return made

    def change(self, item: Object, **spec: Any) -> None:
        """Change fields of the spec of an object."""
        self.objects.update(item, spec=item["spec"] | spec)

    def backups(self, namespace: str | None = None) -> list[Object]:
        """Return the VolumeBackups, by name."""
        return self.objects.all("VolumeBackup", namespace)

    def names(self, namespace: str | None = None) -> list[str]:
        """Return the names of the VolumeBackups."""
        return [item["metadata"]["name"] for item in self.backups(namespace)]

    def status(self, item: Object) -> Object:
        """Return the status of a schedule."""
        found: Object = item.get("status") or {}
        return found

    def condition(self, item: Object, kind: str) -> Object:
        """Return a condition of a schedule; empty if there is none."""
        found = [c for c in self.status(item).get("conditions", ()) if c["type"] == kind]
        return found[0] if found else {}

    def events(self, reason: str | None = None) -> list[str]:
        """Return the notes of the Events, of one reason or of all."""
        found = self.objects.all("Event")
        return [event["note"] for event in found if reason in (None, event["reason"])]

    def finish(self, item: Object, phase: str = "available", reason: str = "Unexpected") -> None:
        """End a VolumeBackup."""
        metadata, spec = item["metadata"], item["spec"]
        status = {
            "phase": phase,
            "id": metadata["uid"],
            "volumeId": spec["volumeId"],
            "storeName": spec.get("storeName", "default"),
            "container": spec.get("container", "bucket"),
            "isIncremental": spec.get("incremental", False),
            "dataTimestamp": metadata["creationTimestamp"],
            "completedAt": stamp(self.now),
        }
        claims = {claim["metadata"]["uid"]: claim["metadata"]["name"] for claim in self.objects.all(CLAIM)}
        if spec["volumeId"] in claims:
            status["volumeName"] = claims[spec["volumeId"]]
        if phase == "error":
            ready = {"type": "Ready", "status": "False", "reason": reason, "lastTransitionTime": stamp(self.now)}
            status["conditions"] = [ready]
        self.objects.update(item, status=status)

    def verifications(self, level: str | None = None, namespace: str | None = None) -> list[Object]:
        """Return the BackupVerifications, of one level or of all, by name."""
        found = self.objects.all("BackupVerification", namespace)
        return [item for item in found if level in (None, item["spec"]["level"])]

    def finish_verification(self, item: Object, phase: str = "verified") -> None:
        """End a BackupVerification."""
        self.objects.update(item, status={"phase": phase, "id": item["metadata"]["uid"]})

    # Time

    def finish_due(self) -> None:
        """End each VolumeBackup and each BackupVerification that has taken its time."""
        for item in self.backups() if self.duration is not None else ():
            if self._is_due(item, self.duration):
                self.finish(item)
        for item in self.verifications() if self.reading is not None else ():
            if self._is_due(item, self.reading):
                self.finish_verification(item)

    def _is_due(self, item: Object, duration: timedelta) -> bool:
        if (item.get("status") or {}).get("phase"):
            return False
        return datetime.fromisoformat(item["metadata"]["creationTimestamp"]) + duration <= self.now

    def look(self, item: Object) -> None:
        """Reconcile a schedule now."""
        self._reconcile(_key(item))

    def run_until(self, until: datetime, each: Callable[[], object] | None = None) -> None:
        """Let time pass, and reconcile each schedule when it asks for it."""
        while True:
            at = min(self._due.values(), default=None)
            if at is None or at > until:
                break
            self.now = max(self.now, at)
            self.finish_due()
            for key in [key for key, due in self._due.items() if due <= self.now]:
                self._reconcile(key)
            if each is not None:
                each()
        self.now = max(self.now, until)
        self.finish_due()

    def run_for(self, time: timedelta) -> None:
        """Let some time pass; see `run_until`."""
        self.run_until(self.now + time)

    def _reconcile(self, key: ObjectKey) -> None:
        self.looks += 1
        assert self.looks < MAX_LOOKS, "the schedule looks too often"
        self._due.pop(key, None)
        try:
            result = self._loop.run_until_complete(self.reconciler.reconcile(key))
        except Crash:
            self.restart()
            return
        except CinderblockError:
            self._due[key] = self.now + RETRY
            return
        if result.requeue_after is not None:
            again = self.now + timedelta(seconds=result.requeue_after)
            self._due[key] = min(again, self._due.get(key, again))


class _TimedApi(SimulatedApi):
    """An API server that tells the time."""

    async def round_trip(self, request: Request) -> Response:
        return replace(await super().round_trip(request), date=self.objects.clock())


def _key(item: Object) -> ObjectKey:
    return ObjectKey(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"])
