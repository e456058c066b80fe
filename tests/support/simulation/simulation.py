"""The real operator in a simulated cluster with virtual time, scripted faults and crashes.

    with Simulation() as simulation:
        simulation.claim("data", "content")
        simulation.backup("full", "data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"

Nothing here sleeps: `settle` advances the clock to the next instant at which something is due. Forbidden behavior
(a write to somebody else's object, the removal of needed data, a hot loop) raises AssertionError at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from cinderblock.api import labels as api_labels
from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.api.layout import owner_key
from cinderblock.api.mover import MoverReport
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.cluster_stores.broker import Broker
from cinderblock.controller.context import Context
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import CHILD_KINDS, EventHandler
from cinderblock.controller.handlers.watch_filter import asks_for_backup
from cinderblock.controller.metrics.collector import read
from cinderblock.controller.reconcile.admission import MoverAdmission
from cinderblock.controller.reconcile.reconciler import Reconciler
from cinderblock.controller.reconcile.resync import list_pending
from cinderblock.controller.reconcile.running_movers import load_movers
from cinderblock.controller.request import ObjectKey, volume_key
from cinderblock.controller.requeue import Result
from cinderblock.controller.stores.circuit_breaker import CALL_SECONDS
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups
from cinderblock.controller.stores.secrets import SecretReader
from cinderblock.controller.workqueue import AGEING_SECONDS, Priority, WorkQueue
from cinderblock.errors import CinderblockError, KubeUnavailable
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.pack import parse_pack_name
from cinderblock.format.range_reader import Buffer
from cinderblock.kube.client import KubeClient
from cinderblock.kube.reduction import reduce_object
from cinderblock.kube.responses import RequestInfo
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy, RunningMover
from cinderblock.lifecycle.store.container_rules import ContainerRules
from cinderblock.observability.cluster_state import ClusterState
from cinderblock.observability.exposition import MetricsPage, MetricsSnapshot
from cinderblock.observability.operator_metrics import OperatorMetrics
from cinderblock.repository.objects import MARK_NAME, list_manifests
from cinderblock.store.base import ObjectInfo, ObjectLock, ObjectStore
from cinderblock.store.lock_probe import PROBE_NAME
from cinderblock.store.read_only import ReadOnlyStore
from cinderblock.store.retention import Retention, read_rules
from tests.support.cluster.metrics import Samples, samples
from tests.support.simulation.api import OWN, START, Change, Object, ObjectsInMemory, SimulatedApi, stamp
from tests.support.simulation.cluster import DRIVER, KEPT, LATE, NAMESPACE, WHOLE_PACK, Cluster, Move
from tests.support.store.faults import Crash

T = TypeVar("T")

STEP = timedelta(seconds=0.25)
"""Duration of one reconciliation, so that a status that contains the present changes every time."""
QUIET_PERIOD = timedelta(minutes=35)
"""Time without a change after which nothing changes any more: longer than every deadline."""
ENDED_QUIET_PERIOD = timedelta(minutes=3)
"""The same when every operation has ended: longer than the requeue interval of ended operations."""
MAX_STEPS = 6000
"""Steps after which every simulation must have settled."""
POLICY = OperatorPolicy(MoverSettings(image="example/cinderblock:1", limit=2, namespace_limit=2))
CHILD_NAMES = {kind.kind for kind in CHILD_KINDS}
OPERATIONS = ("VolumeBackup", "VolumeRestore", "BackupVerification")


class Faults:
    """An observer of the client that fails one planned write of the operator.

    Attributes:
        log: the writes to the API server that were begun.
        requests: how many requests were begun, by verb and resource.
        writes: how many writes were begun, including those to the store.
        at: number of the write to fail; None: no write fails.
        error: the error to raise.
        done: whether the write happens before it fails.
    """

    def __init__(self) -> None:
        self.log: list[RequestInfo] = []
        self.requests: Counter[tuple[str, str]] = Counter()
        self.writes = 0
        self.at: int | None = None
        self.error: BaseException = Crash("scripted")
        self.done = False

    def plan(self, at: int, error: BaseException, *, done: bool) -> None:
        """Fail the ``at``-th write from now on, counted from 0."""
        self.at, self.error, self.done = self.writes + at, error, done

    def strike(self, *, done: bool) -> None:
        """Fail if this is the planned write."""
        if self.at is not None and self.writes == self.at and done == self.done:
            self.at = None
            if done:
                self.writes += 1
            raise self.error
        self.writes += done

    async def before(self, call: RequestInfo) -> None:
        """See `Observer`."""
        self.requests[call.verb, call.kind.resource] += 1
        if call.is_write:
            self.log.append(call)
            self.strike(done=False)

    async def after(self, call: RequestInfo, status: int) -> None:
        """See `Observer`."""
        if call.is_write:
            self.strike(done=True)


class OperatorStore:
    """The store as the operator uses it. Deletions are checked and may crash, and every call may fail.

    Attributes:
        error: the error that every call raises; None: the store answers.
        removal_error: the error that every deletion raises; None: deletions succeed.
        asked: how often the operator has called get and list.
        before: receives the operation and its key or prefix before the store answers; may change the store.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.error: CinderblockError | None = None
        self.removal_error: CinderblockError | None = None
        self.asked: Counter[str] = Counter()
        self.before: Callable[[str, str], None] | None = None

    @property
    def _inner(self) -> ObjectStore:
        return self._simulation.cluster.store

    def check(self) -> None:
        """See ObjectStore."""
        self._answer()

    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        """See ObjectStore. The operator writes marks of removed backups, that of the owner, and probes of locks."""
        self._answer()
        if key.endswith(PROBE_NAME):
            self._inner.put(key, body, lock)
            return
        if key != owner_key(""):
            self._simulation.check_mark(key)
        self._simulation.faults.strike(done=False)
        self._inner.put(key, body, lock)
        self._simulation.store_changes += 1
        self._simulation.faults.strike(done=True)

    def create(self, key: str, body: Buffer) -> bool:
        """See ObjectStore."""
        self._answer()
        assert key == owner_key(""), f"the operator writes {key} to the store"
        self._simulation.faults.strike(done=False)
        is_stored = self._inner.create(key, body)
        self._simulation.faults.strike(done=True)
        return is_stored

    def set_lock(self, key: str, lock: ObjectLock) -> None:
        """See ObjectStore. The operator locks nothing but its probe."""
        self._answer()
        assert key.endswith(PROBE_NAME)
        self._inner.set_lock(key, lock)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ObjectStore."""
        self._answer()
        self._count("get", key)
        return self._inner.get(key, start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        self._answer()
        self._count("list", prefix)
        return self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        self._answer()
        if self.removal_error is not None:
            raise self.removal_error
        for key in keys:
            self._simulation.check_removal(key)
            self._simulation.faults.strike(done=False)
            self._inner.delete([key])
            self._simulation.store_changes += 1
            self._simulation.faults.strike(done=True)

    @property
    def retention(self) -> Retention:
        """See ObjectStore."""
        return self._inner.retention

    def close(self) -> None:
        """See ObjectStore."""

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error

    def _count(self, operation: str, key: str) -> None:
        self.asked[operation] += 1
        if self.before is not None:
            self.before(operation, key)


class SingleStorePool:
    """A `StorePool` with one store, sealed with the movers' keys if the BackupStore has an encryption Secret."""

    def __init__(self, store: ObjectStore, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster

    async def open(self, store: BackupStore, container: str, secrets: SecretReader) -> ObjectStore:
        """Return the store, as `open_store` does for its access."""
        is_read_only = store.is_read_only and not store.is_foreign
        return ReadOnlyStore(self._store, container) if is_read_only else self._store

    async def check(self, store: BackupStore, container: str, secrets: SecretReader) -> None:
        """Check the store."""
        self._store.check()

    async def container_rules(self, store: BackupStore, container: str, secrets: SecretReader) -> ContainerRules:
        """Return the rules of the container."""
        return read_rules(self._store.retention)

    async def call(self, store: BackupStore, call: Callable[[], T], seconds: float = CALL_SECONDS) -> T:
        """Return the result of the call."""
        return call()

    async def keys(self, store: BackupStore, secrets: SecretReader) -> KeyRing | None:
        """Return the keys if the BackupStore has an encryption Secret."""
        return self._cluster.keys if store.spec.encryption_secret_ref is not None else None

    def forget(self, namespace: str, name: str) -> None:
        """Do nothing: nothing is kept for a store."""

    async def active_key(self, store: BackupStore, secrets: SecretReader) -> str | None:
        """Return the active key if some keys are read-only, because the Secret does not name it."""
        ring = await self.keys(store, secrets)
        return ring.active if ring is not None and ring.has_read_only_keys else None


@dataclass
class DueKeys:
    """The work queue: the instant at which each key is due."""

    at: dict[ObjectKey, datetime] = field(default_factory=dict)
    failures: dict[ObjectKey, int] = field(default_factory=dict)
    now: datetime = START

    async def add(self, key: ObjectKey, after: float = 0.0, priority: Priority = Priority.NORMAL) -> None:
        """See `WorkQueue`."""
        due = self.now + timedelta(seconds=after - priority * AGEING_SECONDS)
        self.at[key] = min(due, self.at.get(key, due))

    def counts(self) -> dict[str, int]:
        """See `WorkQueue`."""
        return {"due": len(self.at)}


class Simulation:
    """One namespace with a store, a snapshot class, and the objects that a test creates.

    Attributes:
        objects: the objects of the API server.
        api: the HTTP side of the API server, which the operator uses.
        cluster: the controllers and movers.
        store: the store as the operator uses it.
        faults: fails writes.
        quota: kinds whose creation a quota rejects.
        store_changes: increases with every object that the operator removes from the store.
        rejections: the answer to the operator's creation of an object of a kind: HTTP status and message.
        reasons: every reason that a condition or an Event has ever had.
        policy: the settings of the operator.
        history: the steps, for the message of a failed assertion.
    """

    def __init__(
        self, *, snapshots: bool = True, cluster: type[Cluster] = Cluster, policy: OperatorPolicy = POLICY
    ) -> None:
        self.policy = policy
        self._due = DueKeys()
        self._undelivered: list[Change] = []
        self.rejections: dict[str, tuple[int, str]] = {}
        self.reasons: set[str] = set()
        self.objects = ObjectsInMemory(lambda: self._due.now, self._changed)
        self.cluster = cluster(self.objects)
        self.faults = Faults()
        self.store = OperatorStore(self)
        self.store_changes = 0
        self.quota: set[str] = set()
        self.history: list[str] = []
        self._served_foreign = True
        self._loop = asyncio.new_event_loop()
        self._namespace(snapshots=snapshots)
        self.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _namespace(self, *, snapshots: bool) -> None:
        self.objects.create("Namespace", {"metadata": {"name": NAMESPACE}})
        for name, mode in (("fast", "Immediate"), (KEPT, "Immediate"), (LATE, "WaitForFirstConsumer")):
            policy = "Retain" if name == KEPT else "Delete"
            made = {"metadata": {"name": name}, "provisioner": DRIVER, "volumeBindingMode": mode}
            made["reclaimPolicy"] = policy
            self.objects.create("StorageClass", made)
        if snapshots:
            self.objects.create("VolumeSnapshotClass", {"metadata": {"name": "snap"}, "driver": DRIVER})
        annotations = {"cinderblock.io/is-default-store": "true"}
        metadata = {"name": "default", "namespace": NAMESPACE, "annotations": annotations}
        spec = {"credentialsSecretRef": {"name": "s3"}}
        self.objects.create("BackupStore", {"metadata": metadata, "spec": spec})

    @property
    def now(self) -> datetime:
        """The present."""
        return self._due.now

    def _seconds(self) -> float:
        return self.now.timestamp()

    def restart(self) -> None:
        """Restart the operator without memory: its watches begin with all existing objects."""
        self._due = DueKeys(now=self._due.now)
        self.objects.clock = lambda: self._due.now
        self.api = SimulatedApi(self.objects, self.check_write, self.rejections)
        self.api.quota = self.quota
        self._kube = KubeClient(self.api, observer=self.faults, reduce=reduce_object)
        self._metrics = OperatorMetrics()
        stores = cast("StorePool", SingleStorePool(self.store, self.cluster))
        context = Context(
            self._kube,
            stores,
            self.policy,
            lambda: self._due.now,
            self._metrics,
            MoverAdmission(self._seconds),
            MoverAdmission(self._seconds),
            references=ReferenceLookups(lock_wait_seconds=0.0),
            enqueue=self._due.add,
        )
        self._acknowledger = Acknowledger(cast("WorkQueue", self._due))
        self._event_handler = EventHandler(cast("WorkQueue", self._due), self._acknowledger)
        self._context = context
        self._reconciler = Reconciler(context, broker=Broker(connect=_answers))
        self._undelivered[:] = [
            Change(None, item)
            for kind in (*OWN, "RestoreSource", *CHILD_NAMES, "PersistentVolume")
            for item in self.objects.all(kind)
        ]
        for key in sorted(self.pending()):
            self._loop.run_until_complete(self._due.add(key))

    # Users

    def claim(self, name: str, content: str, storage_class: str = "fast", size: str = "1Gi") -> Object:
        """Create a bound claim whose volume holds ``content``."""
        spec = {
            "storageClassName": storage_class,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        }
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
        claim = self.make("PersistentVolumeClaim", body)
        self.cluster._provision(claim, content)
        return claim

    def unbound_claim(self, name: str, storage_class: str = LATE, size: str = "1Gi") -> Object:
        """Create an unbound claim; one of class ``late`` is bound when a pod needs it."""
        spec = {
            "storageClassName": storage_class,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        }
        return self.make("PersistentVolumeClaim", {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})

    def ask(self, name: str, source: str, kind: str = "RestoreSource", **spec: Any) -> Object:
        """Create a claim whose dataSourceRef names one of our kinds."""
        reference = {"apiGroup": "cinderblock.io", "kind": kind, "name": source}
        usual = {
            "storageClassName": "fast",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "dataSourceRef": reference,
        }
        return self.make(
            "PersistentVolumeClaim", {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": usual | spec}
        )

    def source(self, name: str, **spec: Any) -> Object:
        """Create a RestoreSource."""
        return self.make("RestoreSource", {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})

    def attach(self, claim: str, node: str) -> None:
        """Attach the volume of a claim to a node, as the attach-detach controller does."""
        volume = self.get("PersistentVolumeClaim", claim)["spec"]["volumeName"]
        spec = {"attacher": DRIVER, "nodeName": node, "source": {"persistentVolumeName": volume}}
        self.make("VolumeAttachment", {"metadata": {"name": f"csi-{claim}"}, "spec": spec})

    def detach(self, claim: str) -> None:
        """Detach the volume of a claim."""
        self.delete("VolumeAttachment", f"csi-{claim}")

    def encrypt(self, keys: KeyRing) -> None:
        """Give the store an encryption Secret."""
        self.cluster.keys = keys
        store = self.get("BackupStore", "default")
        self.objects.update(store, spec=store["spec"] | {"encryptionSecretRef": {"name": "keys"}})

    def write(self, claim: str, content: str) -> None:
        """Change the content of a volume, as an application does."""
        volume = self.cluster.volume_of(self.get("PersistentVolumeClaim", claim))
        assert volume is not None, f"claim {claim} is not bound"
        self.cluster.contents[volume["metadata"]["name"]] = content

    def backup(self, name: str, volume: str, /, **spec: Any) -> Object:
        """Create a VolumeBackup."""
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"volumeId": volume} | spec}
        return self.make("VolumeBackup", body)

    def import_backup(self, name: str, backup_id: str, /, *, manifest: str | None = None, **spec: Any) -> Object:
        """Create a VolumeBackup that imports a stored backup."""
        source = {"id": backup_id} if manifest is None else {"id": backup_id, "manifest": manifest}
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"import": source} | spec}
        return self.make("VolumeBackup", body)

    def restore(self, name: str, backup: str, /, **spec: Any) -> Object:
        """Create a VolumeRestore."""
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"backupId": backup} | spec}
        return self.make("VolumeRestore", body)

    def verify(self, name: str, level: str = "Data", /, **spec: Any) -> Object:
        """Create a BackupVerification."""
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"level": level} | spec}
        return self.make("BackupVerification", body)

    def pod(self, name: str, claim: str) -> Object:
        """Create a user's pod that mounts a claim."""
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"volumes": volumes}}
        runs = {"name": "main", "state": {"running": {"startedAt": stamp(self.now)}}}
        return self.make("Pod", body | {"status": {"phase": "Running", "containerStatuses": [runs]}})

    def end_pod(self, name: str) -> None:
        """End a user's pod, which still exists afterwards."""
        pod = self.get("Pod", name)
        (container,) = pod["status"]["containerStatuses"]
        ended = container["state"]["running"] | {"exitCode": 0, "finishedAt": stamp(self.now)}
        status = {"phase": "Succeeded", "containerStatuses": [container | {"state": {"terminated": ended}}]}
        self.objects.update(pod, status=status)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object."""
        self.objects.delete(self.get(kind, name))

    def expire(self, *names: str) -> None:
        """Delete VolumeBackups as retention does: their time is over."""
        for name in names:
            backup = self.get("VolumeBackup", name)
            self.objects.update(backup, status=backup["status"] | {"expiresAt": stamp(self.now)})
        for name in names:
            self.delete("VolumeBackup", name)

    def orphan_children(self) -> None:
        """Take our owner references off all children, as the garbage collector does for ``--cascade=orphan``."""
        for kind in sorted(CHILD_NAMES):
            for item in self.objects.all(kind):
                owners = item["metadata"].get("ownerReferences", [])
                kept = [owner for owner in owners if owner["kind"] not in OWN]
                if kept != owners:
                    self.objects.update(item, metadata=item["metadata"] | {"ownerReferences": kept})

    @contextmanager
    def reading_references(self, claim: str) -> Iterator[None]:
        """Let another reconciliation read the manifests of a volume during the block."""
        store = BackupStore.model_validate(self.get("BackupStore", "default"))
        uid = self.get("PersistentVolumeClaim", claim)["metadata"]["uid"]
        turn = self._context.references.lock(store, store.spec.container, uid)
        self._loop.run_until_complete(turn.__aenter__())
        try:
            yield
        finally:
            self._loop.run_until_complete(turn.__aexit__(None, None, None))

    def break_manifest(self, name: str) -> str:
        """Damage the manifest of a backup in the store, and return its key."""
        key: str = self.get("VolumeBackup", name)["status"]["manifestKey"]
        content = bytearray(self.cluster.store.get(key))
        content[-1] ^= 1
        self.cluster.store.put(key, content)
        return key

    def damage_pack(self, name: str, content: bytes | None = b"pick") -> str:
        """Replace the content of the pack of a backup, or remove the pack. Return its key."""
        status = self.get("VolumeBackup", name)["status"]
        key = f"packs/{status['volumeId']}/{status['id']}/{WHOLE_PACK}"
        assert key in self.stored(key), f"there is no {key}"
        if content is None:
            self.cluster.store.delete([key])
        else:
            self.cluster.store.put(key, content)
        return key

    def remove_by_force(self, name: str) -> None:
        """Remove a VolumeBackup by force: remove its finalizers, and leave its data in the store."""
        backup = self.get("VolumeBackup", name)
        self.objects.update(backup, metadata=backup["metadata"] | {"finalizers": []})
        self.objects.delete(self.get("VolumeBackup", name))

    def end_mover(self, report: MoverReport | None, code: int = 3, reason: str = "Error") -> None:
        """End the only mover pod, with a report or without one."""
        (pod,) = (pod for pod in self.objects.all("Pod") if "ownerReferences" in pod["metadata"])
        self.cluster.end(pod, code, report, reason)

    def erase_status(self, kind: str, name: str) -> None:
        """Erase the status of an object."""
        self.objects.update(self.get(kind, name), status=None)

    def make(self, kind: str, body: Object) -> Object:
        """Create an object with a free name."""
        made = self.objects.create(kind, body)
        assert made is not None, f"{kind} {body['metadata']['name']} exists"
        return made

    # Observations

    def get(self, kind: str, name: str) -> Object:
        """Return an existing object."""
        found = self.objects.get(kind, name, NAMESPACE) or self.objects.get(kind, name)
        assert found is not None, f"there is no {kind} {name}"
        return found

    def exists(self, kind: str, name: str) -> bool:
        """Return whether the object exists."""
        return self.objects.get(kind, name, NAMESPACE) is not None

    def phase(self, kind: str, name: str) -> str:
        """Return status.phase, or ``gone`` if the object does not exist."""
        found = self.objects.get(kind, name, NAMESPACE)
        return "gone" if found is None else str(found.get("status", {}).get("phase"))

    def reason(self, kind: str, name: str) -> str:
        """Return the reason of condition Ready."""
        return str(self.get(kind, name)["status"]["conditions"][0]["reason"])

    def pods_of_users(self) -> list[str]:
        """Return the names of the pods that are not movers."""
        pods = self.objects.all("Pod", NAMESPACE)
        return [pod["metadata"]["name"] for pod in pods if "ownerReferences" not in pod["metadata"]]

    def content(self, claim: str) -> str:
        """Return the content of a claim's volume."""
        volume = self.cluster.volume_of(self.get("PersistentVolumeClaim", claim))
        assert volume is not None, f"claim {claim} is not bound"
        return self.cluster.contents[volume["metadata"]["name"]]

    def kept(self, backup: str) -> str:
        """Return the content of a backup."""
        return self.cluster.kept[self.get("VolumeBackup", backup)["metadata"]["uid"]]

    def stored(self, prefix: str = "") -> list[str]:
        """Return the keys in the store."""
        return [found.key for found in self.cluster.store.list(prefix)]

    def events(self) -> list[tuple[str, int]]:
        """Return the reason of every Event, and how often it was recorded."""
        recorded = self.objects.all("Event")
        return [(event["reason"], event.get("series", {}).get("count", 1)) for event in recorded]

    def metrics(self) -> Samples:
        """Return the present metrics of the operator."""
        state = self.cluster_state()
        figures = MetricsSnapshot("1.2.3", self.now.timestamp(), mover_limit=POLICY.mover.limit, state=state)
        content, _ = MetricsPage(self._metrics).render(figures)
        return samples(content.decode())

    def cluster_state(self) -> ClusterState:
        """Return what the operator reads for metrics and notifications."""
        return self._loop.run_until_complete(read(self._kube))

    # Progress

    def _changed(self, change: Change) -> None:
        """Record a change for the watches, and its reasons."""
        self._undelivered.append(change)
        if change.object["kind"] in (*OWN, "ClusterBackupStore", "BackupGrant", "RestoreSource"):
            conditions = change.object.get("status", {}).get("conditions", ())
            self.reasons |= {condition["reason"] for condition in conditions}
        elif change.object["kind"] == "Event" and "reason" in change.object:
            self.reasons.add(change.object["reason"])

    def deliver_changes(self) -> None:
        """Deliver the recorded changes to the operator."""
        delivered, self._undelivered[:] = self._undelivered[:], []
        for change in delivered:
            self._loop.run_until_complete(self._deliver(change))

    async def _deliver(self, change: Change) -> None:
        event = {"type": change.type, "object": change.object}
        labels = change.object["metadata"].get("labels") or {}
        if change.object["kind"] in OWN:
            await self._event_handler.on_custom_resource(event)
        elif change.object["kind"] == "ClusterBackupStore":
            await self._event_handler.on_cluster_store(event)
        elif change.object["kind"] == "BackupGrant":
            await self._event_handler.on_grant(event)
        elif change.object["kind"] == "RestoreSource":
            await self._event_handler.on_source(event)
        elif change.object["kind"] == "PersistentVolumeClaim" and asks_for_backup(change.object):
            await self._event_handler.on_claim(event)
        elif change.object["kind"] in CHILD_NAMES and labels.get(api_labels.MANAGED_BY_LABEL) == api_labels.MANAGED_BY:
            await self._event_handler.on_child(event)
        elif RESTORE_LABEL in labels:
            await self._event_handler.on_persistent_volume(event)
        elif change.object["kind"] == "PersistentVolume" and change.type == "MODIFIED":
            await self._event_handler.on_persistent_volume(event | {"type": "DELETED"})

    def due(self) -> list[ObjectKey]:
        """Return the keys that are due, the longest waiting first. Other namespaces take turns with the usual one."""
        self.deliver_changes()
        ready = [key for key, at in self._due.at.items() if at <= self.now]
        return sorted(ready, key=lambda key: (_is_foreign(key) is self._served_foreign, self._due.at[key], key))

    def acknowledge(self) -> None:
        """Let the operator acknowledge new backups, as it does under load."""
        self.deliver_changes()
        for item in self.objects.all("VolumeBackup"):
            key = _key(item)
            try:
                self._loop.run_until_complete(self._acknowledger.acknowledge(self._context, key))
            except Crash:
                self._record(key, "the operator crashes")
                self.restart()

    def reconcile(self, key: ObjectKey) -> None:
        """Reconcile one object. A crash restarts the operator."""
        self._due.at.pop(key, None)
        self._served_foreign = _is_foreign(key)
        self._due.now += STEP
        version = self._version()
        try:
            result = self._loop.run_until_complete(self._reconciler.reconcile(key))
        except Crash:
            self._record(key, "the operator crashes")
            self.restart()
            return
        except CinderblockError as error:
            self._record(key, f"{error.reason}: {error.message}")
            failures = self._due.failures.get(key, 0)
            self._due.failures[key] = failures + 1
            result = Result(min(300.0, 2.0**failures))
        else:
            self._due.failures.pop(key, None)
            hot = result.requeue_after is not None and result.requeue_after < 1 and version == self._version()
            assert not hot, f"{key} is requeued after {result.requeue_after} s although nothing has changed"
            if version != self._version():
                self._record(key, "was reconciled")
        if result.requeue_after is not None:
            self._loop.run_until_complete(self._due.add(key, result.requeue_after, result.priority))

    def _record(self, key: ObjectKey, what: str) -> None:
        found = self.objects.get(key.kind, key.name, key.namespace)
        outcome = "gone" if found is None else " ".join(_outcome(found))
        self.history.append(f"{self.now:%H:%M:%S} {key.kind} {key.name} ({outcome}): {what}")

    def _version(self) -> tuple[int, int]:
        return self.objects.version, self.store_changes

    def move(self, move: Move) -> None:
        """Execute a move of the cluster."""
        self.history.append(f"{self.now:%H:%M:%S} {move.name}")
        move.run()

    def advance(self, seconds: float) -> None:
        """Let time pass without any action."""
        self._due.now += timedelta(seconds=seconds)

    def resync(self) -> None:
        """Enqueue every object, as the slow resync does."""
        for kind in OWN:
            for item in self.objects.all(kind):
                key = _key(item)
                self._loop.run_until_complete(self._due.add(key))
        for item in filter(asks_for_backup, self.objects.all("PersistentVolumeClaim")):
            self._loop.run_until_complete(self._due.add(_key(item)))
        for item in self.objects.all("PersistentVolume"):
            if RESTORE_LABEL in item["metadata"].get("labels", {}):
                self._loop.run_until_complete(self._due.add(volume_key(item["metadata"]["name"])))

    def movers_of_a_new_leader(self) -> list[RunningMover]:
        """Return the movers that a process counts when it begins to lead."""
        self._context.admission.reset()
        self._context.verification_admission.reset()
        self._loop.run_until_complete(load_movers(self._context))
        return self.counted_movers()

    def counted_movers(self) -> list[RunningMover]:
        """Return the movers that use up the limits."""
        return [mover for mover, _ in self._context.admission._running.values()]

    def pending(self) -> set[ObjectKey]:
        """Return the objects that the resync of a real operator would reconcile."""
        return {key for key, _ in self._loop.run_until_complete(list_pending(self._context))}

    def check_steady_objects(self) -> None:
        """Check that reconciling the objects that the resync skips changes nothing."""
        pending, version = self.pending(), self._version()
        for kind in OPERATIONS:
            for key in [_key(item) for item in self.objects.all(kind)]:
                result = Result() if key in pending else self._loop.run_until_complete(self._reconciler.reconcile(key))
                assert (result.requeue_after, self._version()) == (None, version), f"{key} was skipped:\n{self.story()}"

    def settle(self) -> None:
        """Continue without further faults until nothing changes any more, and check that nothing will.

        Watch events and requeues must suffice: the resync must find nothing to do.
        """
        self._rest()
        version = self._version()
        self.resync()
        self._rest()
        assert self._version() == version, "the resync changed something:\n" + self.story()
        waiting = [item for item in self._ended() if _is_forgotten(item) or _is_compared_later(item)]
        tidy = [item for item in self._ended() if not self._children_of(item) and item not in waiting]
        left = {_key(item) for item in tidy}
        assert not left & self.pending(), "every resync would reconcile ended objects:\n" + self.story()

    def _rest(self) -> None:
        quiet_since, version = self.now, self._version()
        for _ in range(MAX_STEPS):
            self.step()
            if self._version() != version:
                quiet_since, version = self.now, self._version()
            elif self.now - quiet_since > (QUIET_PERIOD if self._is_awaited() else ENDED_QUIET_PERIOD):
                return
        raise AssertionError("the simulation does not settle:\n" + self.story())

    def _is_awaited(self) -> bool:
        """Return whether an operation has not ended, so that a deadline may still change something."""
        return len(self._ended()) < len(self._operations())

    def _operations(self) -> list[Object]:
        return [item for kind in OPERATIONS for item in self.objects.all(kind)]

    def _children_of(self, item: Object) -> list[Object]:
        children = [child for kind in CHILD_NAMES - {"Pod"} for child in self.objects.all(kind)]
        uid = item["metadata"]["uid"]
        return [
            child for child in children if child["metadata"].get("labels", {}).get(api_labels.OWNER_UID_LABEL) == uid
        ]

    def _ended(self) -> list[Object]:
        """Return the operations that have ended and are not deleted."""
        return [o for o in self._operations() if "deletionTimestamp" not in o["metadata"] and not _is_unfinished(o)]

    def until(self, kind: str, name: str, text: str) -> None:
        """Continue until the reason and message of condition Ready contain ``text``."""
        for _ in range(MAX_STEPS):
            conditions = self.get(kind, name).get("status", {}).get("conditions", [])
            if conditions and text in f"{conditions[0]['reason']}: {conditions[0]['message']}":
                return
            self.step()
        raise AssertionError(f"{name} never reported {text}:\n{self.story()}")

    def story(self) -> str:
        """Return the latest entries of the history."""
        return "\n".join(self.history[-80:])

    def step(self) -> None:
        """Execute the next step without faults; if there is none, advance the clock to the next one."""
        ready = self.due()
        if ready:
            self.reconcile(ready[0])
            return
        moves = [move for move in self.cluster.moves() if not move.is_bad]
        if moves:
            self.move(moves[0])
            return
        self._due.now = min(self._due.at.values(), default=self.now + timedelta(minutes=10))

    # Forbidden behavior

    def check_write(self, how: str, item: Object) -> None:
        """Check a write of the operator to an existing object."""
        kind, metadata = item["kind"], item["metadata"]
        if kind in (*OWN, "ClusterBackupStore", "BackupGrant", "RestoreSource", "Event"):
            is_drill = any(owner["kind"] == "BackupVerification" for owner in metadata.get("ownerReferences", ()))
            is_made = metadata.get("labels", {}).get(api_labels.MANAGED_BY_LABEL) == api_labels.MANAGED_BY
            is_shared = kind == "BackupStore" and "clusterStoreRef" in item["spec"] and is_made
            missing = item.get("status", {}).get("manifestMissing", {})
            is_removed_import = api_labels.IMPORTED_ANNOTATION in metadata.get("annotations", {})
            may_delete = (kind == "VolumeRestore" and is_drill) or is_shared
            may_delete |= is_removed_import and bool(missing.get("removing"))
            assert how != "DELETE" or may_delete, f"the operator deletes {kind} {metadata['name']}"
            return
        if kind == "PersistentVolume":
            hidden = item["spec"].get("claimRef", {}).get("name", "").startswith("cinderblock-")
            assert hidden or RESTORE_LABEL in metadata.get("labels", {}), f"the operator writes to {metadata['name']}"
            return
        owners = [owner["kind"] for owner in metadata.get("ownerReferences", ())]
        assert kind in CHILD_NAMES, f"the operator writes to {kind} {metadata['name']}"
        is_orphan = not owners and api_labels.OWNER_UID_LABEL in metadata.get("labels", {})
        assert is_orphan or any(owner in OWN for owner in owners), f"{how} of {kind} {metadata['name']}, not ours"

    def check_removal(self, key: str) -> None:
        """Check the removal of an object from the store."""
        prefix, is_pack, _ = f"/{key}".rpartition("/packs/")
        prefix = prefix if is_pack else f"/{key}".rpartition("/backups/")[0]
        backup_id = key.split("/")[-2] if is_pack else key.rsplit("/", maxsplit=1)[-1].removesuffix(".manifest")
        name = key.rpartition("/")[2]
        is_manifest = name.endswith(".manifest")
        adopters = (item for item in self.objects.all("VolumeBackup") if _adopts(item, backup_id))
        backup = self.objects.by_uid(backup_id) or next(adopters, None)
        is_expired = backup is not None and "expiresAt" in backup.get("status", {})
        if backup is None:
            mark = f"{key.rpartition('/')[0]}/{MARK_NAME}"
            assert not is_manifest, f"{key} is removed without a VolumeBackup"
            assert mark in self.stored(mark), f"{key} is removed without a VolumeBackup or a mark"
        else:
            metadata = backup["metadata"]
            assert "deletionTimestamp" in metadata, f"{key} is removed although its VolumeBackup is not deleted"
            assert api_labels.BACKUP_FINALIZER in metadata["finalizers"], f"{key} is removed without our finalizer"
        for other in self.objects.all("VolumeBackup"):
            status = other.get("status", {})
            is_child = status.get("parentId") == backup_id and status.get("phase") not in (None, "error")
            needs = is_child and (status["phase"] == "creating" or not (is_expired or backup is None))
            assert not needs, f"{key} is removed although {other['metadata']['name']} needs it"
        for found in () if is_manifest and is_expired else list_manifests(self.cluster.store, prefix[1:]):
            is_other = found.backup_id != backup_id
            needs = is_other and backup_id in self.cluster.needs.get(found.backup_id, ())
            assert not needs, f"{key} is removed although {found.key} lists its packs"
        assert is_manifest or name == MARK_NAME or parse_pack_name(name), f"{key} is removed, which is not ours"

    def check_mark(self, key: str) -> None:
        """Check that an object that the operator writes is the mark of a backup that is being deleted."""
        backup = self.objects.by_uid(key.split("/")[-2])
        assert key.endswith(f"/{MARK_NAME}"), f"the operator writes {key} to the store"
        assert backup is not None, f"{key} is written for a backup that does not exist"
        assert "deletionTimestamp" in backup["metadata"], f"{key} is written for a backup that is not deleted"


def _key(item: Object) -> ObjectKey:
    return ObjectKey(item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])


async def _answers(_settings: MoverSettings) -> None:
    """Connect to a broker that always answers."""


def _is_foreign(key: ObjectKey) -> bool:
    return key.namespace not in ("", NAMESPACE)


def _adopts(item: Object, backup_id: str) -> bool:
    """Return whether a VolumeBackup has imported this backup and may delete its data."""
    source = item["spec"].get("import", {})
    return source.get("id") == backup_id and item["spec"].get("deletionPolicy") == "Delete"


def api_outage() -> KubeUnavailable:
    """Return the error of a write without an answer."""
    return KubeUnavailable("the API server does not answer")


def is_restorable(simulation: Simulation, backup_id: str) -> bool:
    """Return whether the store holds everything that a restore of the backup needs."""
    store = simulation.cluster.store
    manifests = {found.key.rsplit("/", 1)[1].removesuffix(".manifest") for found in store.list("backups/")}
    packs = {found.key.split("/")[2] for found in store.list("packs/") if found.key.endswith(WHOLE_PACK)}
    return backup_id in manifests and simulation.cluster.needs[backup_id] <= packs


def summary(simulation: Simulation) -> dict[str, Any]:
    """Return the final state, with names that do not depend on the order of creation."""
    objects = simulation.objects
    operations = [item for kind in OPERATIONS for item in objects.all(kind)]
    return {
        "phases": {item["metadata"]["name"]: _outcome(item) for item in operations},
        "finalizers": {item["metadata"]["name"]: item["metadata"].get("finalizers", []) for item in operations},
        "claims": {
            claim["metadata"]["name"]: _inside(simulation, claim) for claim in objects.all("PersistentVolumeClaim")
        },
        "volumes": sorted(
            (volume["status"]["phase"], volume["spec"]["persistentVolumeReclaimPolicy"], _marks(volume))
            for volume in objects.all("PersistentVolume")
        ),
        "children": [
            item["metadata"]["name"] for kind in ("Job", "VolumeSnapshot", "Pod") for item in objects.all(kind)
        ],
        "stored": sorted(_by_name(simulation, key) for key in simulation.stored()),
        "verified": {item["metadata"]["name"]: _verified(item) for item in objects.all("VolumeBackup")},
    }


def _outcome(item: Object) -> tuple[str, str, str]:
    status = item.get("status", {})
    reasons = [condition["reason"] for condition in status.get("conditions", [])]
    return str(status.get("phase")), ",".join(reasons), str(status.get("failReason"))


def _verified(item: Object) -> dict[str, Any]:
    """Return what verifications have found about a backup, without times."""
    found = item.get("status", {}).get("verification") or {}
    parts = (found.get("parts") or {}).get("read")
    names = ("result", "level", "coverage", "damagedLevel", "damagedObjects", "objects")
    return {name: found.get(name) for name in names} | {"read": parts}


def _is_forgotten(item: Object) -> bool:
    """Return whether data of a backup with a lost status may be stored, so that the store is asked repeatedly."""
    recorded = item.get("status", {}).get("manifestKey") is not None
    return api_labels.BACKUP_FINALIZER in item["metadata"].get("finalizers", ()) and not recorded


def _is_compared_later(item: Object) -> bool:
    """Return whether a backup waits for the statuses of others, so that the next resync reconciles it."""
    shown = item.get("status", {}).get("conditions", ())
    return any(c["type"] == "Suspicious" and c["status"] == "Unknown" for c in shown)


def _is_unfinished(item: Object) -> bool:
    unfinished = (None, "creating", "restoring", "verifying", "deleting", "error_deleting")
    return item.get("status", {}).get("phase") in unfinished


def _inside(simulation: Simulation, claim: Object) -> str:
    volume = simulation.cluster.volume_of(claim)
    return "nothing" if volume is None else simulation.cluster.contents[volume["metadata"]["name"]]


def _marks(volume: Object) -> str:
    marks = [*volume["metadata"].get("labels", {}), *volume["metadata"].get("annotations", {})]
    return ",".join(mark for mark in marks if "cinderblock" in mark)


def _by_name(simulation: Simulation, key: str) -> str:
    """Return a key with names instead of UIDs."""
    for kind in ("VolumeBackup", "PersistentVolumeClaim"):
        for item in simulation.objects.all(kind):
            key = key.replace(item["metadata"]["uid"], item["metadata"]["name"])
    return key
