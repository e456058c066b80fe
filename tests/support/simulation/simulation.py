"""The operator in a simulated cluster: real observers, decisions and performers; time, faults and crashes as told.

    with Simulation() as simulation:
        simulation.claim("data", "content")
        simulation.backup("full", "data")
        simulation.settle()
        assert simulation.phase("VolumeBackup", "full") == "available"

Nothing here sleeps: `settle` moves the clock to the next instant at which something is due. What must never happen
(a write to somebody else's object, data removed that is still needed, a hot loop) raises AssertionError at once.
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
from cinderblock.api.mover import MoverReport
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.handlers.acknowledge import Acknowledger
from cinderblock.controller.handlers.event_handler import CHILD_KINDS, EventHandler, volume_key
from cinderblock.controller.metrics.collector import read
from cinderblock.controller.reconcile.admission import MoverAdmission
from cinderblock.controller.reconcile.reconciler import Reconciler
from cinderblock.controller.reconcile.resync import list_pending
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import CinderblockError, KubeUnavailable
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.pack import parse_pack_name
from cinderblock.format.range_reader import Buffer
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import RequestInfo
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL
from cinderblock.observability.exposition import MetricsPage, MetricsSnapshot
from cinderblock.observability.operator_metrics import OperatorMetrics
from cinderblock.repository.objects import list_manifests
from cinderblock.store.base import ObjectInfo, ObjectStore
from tests.support.cluster.metrics import Samples, samples
from tests.support.simulation.api import OWN, START, Change, Object, ObjectsInMemory, SimulatedApi, stamp
from tests.support.simulation.cluster import DRIVER, LATE, NAMESPACE, WHOLE_PACK, Cluster, Move
from tests.support.store.faults import Crash

T = TypeVar("T")

STEP = timedelta(seconds=0.25)
"""What one reconciliation takes: a status that holds the present would change with every one."""
LONG = timedelta(minutes=35)
"""After so much time without any change nothing will ever change: longer than every deadline."""
SHORT = timedelta(minutes=3)
"""The same when every operation has ended: longer than any interval at which an ended one is looked at."""
PATIENCE = 6000
"""Steps in which every simulated world must come to rest."""
POLICY = OperatorPolicy(MoverSettings(image="example/cinderblock:1", limit=2))
CHILD_NAMES = {kind.kind for kind in CHILD_KINDS}


class Faults:
    """An observer of the client that fails one write of the operator, as told.

    Attributes:
        log: writes to the API server that were begun.
        writes: how many were begun, those to the store among them.
        at: number of the write to fail; None: none.
        error: what is raised.
        done: whether the write has happened when it fails.
    """

    def __init__(self) -> None:
        self.log: list[RequestInfo] = []
        self.writes = 0
        self.at: int | None = None
        self.error: BaseException = Crash("scripted")
        self.done = False

    def plan(self, at: int, error: BaseException, *, done: bool) -> None:
        """Fail the ``at``-th write from now on, counted from 0."""
        self.at, self.error, self.done = self.writes + at, error, done

    def strike(self, *, done: bool) -> None:
        """Fail, if it is time."""
        if self.at is not None and self.writes == self.at and done == self.done:
            self.at = None
            if done:
                self.writes += 1
            raise self.error
        self.writes += done

    async def before(self, call: RequestInfo) -> None:
        """See `Observer`."""
        if call.is_write:
            self.log.append(call)
            self.strike(done=False)

    async def after(self, call: RequestInfo, status: int) -> None:
        """See `Observer`."""
        if call.is_write:
            self.strike(done=True)


class OperatorsStore:
    """The store as the operator reaches it; deletions are judged and may be crashed, everything may fail.

    Attributes:
        trouble: what every call raises; None: the store answers.
        refuses_removal: what every deletion raises; None: it may be done.
        asked: how often the operator has called get and list.
        before: called with the operation and its key or prefix before the store answers; may change the store.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._inner = simulation.cluster.store
        self.trouble: CinderblockError | None = None
        self.refuses_removal: CinderblockError | None = None
        self.asked: Counter[str] = Counter()
        self.before: Callable[[str, str], None] | None = None

    def check(self) -> None:
        """See ObjectStore."""
        self._answer()

    def put(self, key: str, body: Buffer) -> None:
        """See ObjectStore."""
        raise AssertionError(f"the operator writes {key} to the store")

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
        if self.refuses_removal is not None:
            raise self.refuses_removal
        for key in keys:
            self._simulation.forbid_removal(key)
            self._simulation.faults.strike(done=False)
            self._inner.delete([key])
            self._simulation.changes_in_store += 1
            self._simulation.faults.strike(done=True)

    def close(self) -> None:
        """See ObjectStore."""

    def _answer(self) -> None:
        if self.trouble is not None:
            raise self.trouble

    def _count(self, operation: str, key: str) -> None:
        self.asked[operation] += 1
        if self.before is not None:
            self.before(operation, key)


class OpenStores:
    """Stands for `Stores`: one store; sealed if the BackupStore asks for it, with the keys that movers have."""

    def __init__(self, store: ObjectStore, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster

    async def open(self, store: BackupStore, container: str) -> ObjectStore:
        """The one store."""
        return self._store

    async def check(self, store: BackupStore, container: str) -> None:
        """Raises what the store raises."""
        self._store.check()

    async def call(self, store: BackupStore, call: Callable[[], T]) -> T:
        """What the call returns, in no time."""
        return call()

    async def keys(self, store: BackupStore) -> KeyRing | None:
        """The keys, if the BackupStore has an encryption Secret."""
        return self._cluster.keys if store.spec.encryption_secret_ref is not None else None

    async def active_key(self, store: BackupStore) -> str | None:
        """The Secret names none; but where keys are read-only, movers must be told which is not."""
        ring = await self.keys(store)
        return ring.active if ring is not None and ring.has_read_only_keys else None


@dataclass
class Due:
    """The queue's part: when each key is due."""

    at: dict[ObjectKey, datetime] = field(default_factory=dict)
    failures: dict[ObjectKey, int] = field(default_factory=dict)
    now: datetime = START

    async def add(self, key: ObjectKey, delay: float = 0.0) -> None:
        """See `WorkQueue`."""
        due = self.now + timedelta(seconds=delay)
        self.at[key] = min(due, self.at.get(key, due))

    def counts(self) -> dict[str, int]:
        """See `WorkQueue`."""
        return {"due": len(self.at)}


class Simulation:
    """One namespace with a store, a class for snapshots, and whatever a test puts into it.

    Attributes:
        objects: what the API server holds.
        cluster: what happens by itself.
        store: the store as the operator sees it.
        faults: fails writes.
        quota: kinds of which a quota lets the operator make nothing.
        changes_in_store: goes up with every object that the operator removes.
        refusals: what the API server answers when the operator creates an object of a kind: HTTP status and sentence.
        told: every reason that a condition of ours or an Event has ever had.
        history: what happened, for the message of a failed assertion.
        instruments: what the operator measures; new when it is started anew.
    """

    def __init__(self, *, snapshots: bool = True, cluster: type[Cluster] = Cluster) -> None:
        self._due = Due()
        self._heard: list[Change] = []
        self.refusals: dict[str, tuple[int, str]] = {}
        self.told: set[str] = set()
        self.objects = ObjectsInMemory(lambda: self._due.now, self._changed)
        self.cluster = cluster(self.objects)
        self.faults = Faults()
        self.store = OperatorsStore(self)
        self.changes_in_store = 0
        self.quota: set[str] = set()
        self.history: list[str] = []
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
        for name, mode in (("fast", "Immediate"), (LATE, "WaitForFirstConsumer")):
            made = {"metadata": {"name": name}, "provisioner": DRIVER, "volumeBindingMode": mode}
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
        """Start the operator anew: it remembers nothing, lists what there is, and its watches begin with all of it."""
        self._due = Due(now=self._due.now)
        self.objects.clock = lambda: self._due.now
        api = SimulatedApi(self.objects, self.forbid, self.refusals)
        api.quota = self.quota
        self._kube = KubeClient(api, observer=self.faults)
        self.metrics = OperatorMetrics()
        stores = cast("StorePool", OpenStores(self.store, self.cluster))
        context = Context(
            self._kube,
            stores,
            POLICY,
            lambda: self._due.now,
            self.metrics,
            MoverAdmission(self._seconds),
            references=ReferenceLookups(turn_seconds=0.0),
        )
        self._noticing = Acknowledger(cast("WorkQueue", self._due))
        self._watch = EventHandler(cast("WorkQueue", self._due), self._noticing)
        self._eyes = context
        self._reconcile = Reconciler(context)
        self._heard[:] = [
            Change(None, item) for kind in (*OWN, *CHILD_NAMES, "PersistentVolume") for item in self.objects.all(kind)
        ]
        for key in sorted(self.unsettled()):
            self._loop.run_until_complete(self._due.add(key))

    # -- what people do

    def claim(self, name: str, content: str, storage_class: str = "fast", size: str = "1Gi") -> Object:
        """A claim that holds ``content``."""
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
        """A claim that is not bound yet; one of class ``late`` is bound when a pod asks for it."""
        spec = {
            "storageClassName": storage_class,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        }
        return self.make("PersistentVolumeClaim", {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})

    def attach(self, claim: str, node: str) -> None:
        """Attach the volume of a claim to a node, as the attach-detach controller does."""
        volume = self.get("PersistentVolumeClaim", claim)["spec"]["volumeName"]
        spec = {"attacher": DRIVER, "nodeName": node, "source": {"persistentVolumeName": volume}}
        self.make("VolumeAttachment", {"metadata": {"name": f"csi-{claim}"}, "spec": spec})

    def detach(self, claim: str) -> None:
        """Detach the volume of a claim again."""
        self.delete("VolumeAttachment", f"csi-{claim}")

    def encrypt(self, keys: KeyRing) -> None:
        """Give the store an encryption Secret."""
        self.cluster.keys = keys
        store = self.get("BackupStore", "default")
        self.objects.update(store, spec=store["spec"] | {"encryptionSecretRef": {"name": "keys"}})

    def write(self, claim: str, content: str) -> None:
        """Have an application change what is in a volume."""
        volume = self.cluster.volume_of(self.get("PersistentVolumeClaim", claim))
        assert volume is not None, f"claim {claim} is not bound"
        self.cluster.contents[volume["metadata"]["name"]] = content

    def backup(self, name: str, volume: str, /, **spec: Any) -> Object:
        """Ask for a backup."""
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"volumeId": volume} | spec}
        return self.make("VolumeBackup", body)

    def adopt(self, name: str, backup_id: str, /, *, manifest: str | None = None, **spec: Any) -> Object:
        """Ask for a backup that is in the store to be adopted."""
        asked = {"id": backup_id} if manifest is None else {"id": backup_id, "manifest": manifest}
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"import": asked} | spec}
        return self.make("VolumeBackup", body)

    def restore(self, name: str, backup: str, /, **spec: Any) -> Object:
        """Ask for a restore."""
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"backupId": backup} | spec}
        return self.make("VolumeRestore", body)

    def pod(self, name: str, claim: str) -> Object:
        """A pod of a user that mounts a claim."""
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"volumes": volumes}}
        runs = {"name": "main", "state": {"running": {"startedAt": stamp(self.now)}}}
        return self.make("Pod", body | {"status": {"phase": "Running", "containerStatuses": [runs]}})

    def end_pod(self, name: str) -> None:
        """A pod of a user ends; it can still be seen that it was there."""
        pod = self.get("Pod", name)
        (container,) = pod["status"]["containerStatuses"]
        ended = container["state"]["running"] | {"exitCode": 0, "finishedAt": stamp(self.now)}
        status = {"phase": "Succeeded", "containerStatuses": [container | {"state": {"terminated": ended}}]}
        self.objects.update(pod, status=status)

    def delete(self, kind: str, name: str) -> None:
        """Ask for an object's deletion."""
        self.objects.delete(self.get(kind, name))

    @contextmanager
    def reading_references(self, claim: str) -> Iterator[None]:
        """While inside, another look of the operator reads the manifests of a volume."""
        store = BackupStore.model_validate(self.get("BackupStore", "default"))
        uid = self.get("PersistentVolumeClaim", claim)["metadata"]["uid"]
        turn = self._eyes.references.turn(store, store.spec.container, uid)
        self._loop.run_until_complete(turn.__aenter__())
        try:
            yield
        finally:
            self._loop.run_until_complete(turn.__aexit__(None, None, None))

    def break_manifest(self, name: str) -> str:
        """Damage the manifest of a backup in the store; return its key."""
        key: str = self.get("VolumeBackup", name)["status"]["manifestKey"]
        content = bytearray(self.cluster.store.get(key))
        content[-1] ^= 1
        self.cluster.store.put(key, content)
        return key

    def tear_away(self, name: str) -> None:
        """Remove a VolumeBackup by force: its finalizers are taken off, and nobody deals with its data."""
        backup = self.get("VolumeBackup", name)
        self.objects.update(backup, metadata=backup["metadata"] | {"finalizers": []})
        self.objects.delete(self.get("VolumeBackup", name))

    def end_mover(self, report: MoverReport | None, code: int = 3, reason: str = "Error") -> None:
        """Have the only pod of a mover end, with a report or without one."""
        (pod,) = (pod for pod in self.objects.all("Pod") if "ownerReferences" in pod["metadata"])
        self.cluster.end(pod, code, report, reason)

    def erase_status(self, kind: str, name: str) -> None:
        """Lose a status."""
        self.objects.update(self.get(kind, name), status=None)

    def make(self, kind: str, body: Object) -> Object:
        """Create an object whose name is free."""
        made = self.objects.create(kind, body)
        assert made is not None, f"{kind} {body['metadata']['name']} exists"
        return made

    # -- what can be seen

    def get(self, kind: str, name: str) -> Object:
        """An object that is there."""
        found = self.objects.get(kind, name, NAMESPACE) or self.objects.get(kind, name)
        assert found is not None, f"there is no {kind} {name}"
        return found

    def exists(self, kind: str, name: str) -> bool:
        """Whether there is such an object."""
        return self.objects.get(kind, name, NAMESPACE) is not None

    def phase(self, kind: str, name: str) -> str:
        """status.phase, or what stands for an object that is gone."""
        found = self.objects.get(kind, name, NAMESPACE)
        return "gone" if found is None else str(found.get("status", {}).get("phase"))

    def reason(self, kind: str, name: str) -> str:
        """Reason of the condition Ready."""
        return str(self.get(kind, name)["status"]["conditions"][0]["reason"])

    def pods_of_users(self) -> list[str]:
        """Names of the pods that are no movers."""
        pods = self.objects.all("Pod", NAMESPACE)
        return [pod["metadata"]["name"] for pod in pods if "ownerReferences" not in pod["metadata"]]

    def content(self, claim: str) -> str:
        """What the volume of a claim holds."""
        volume = self.cluster.volume_of(self.get("PersistentVolumeClaim", claim))
        assert volume is not None, f"claim {claim} is not bound"
        return self.cluster.contents[volume["metadata"]["name"]]

    def kept(self, backup: str) -> str:
        """What a backup holds."""
        return self.cluster.kept[self.get("VolumeBackup", backup)["metadata"]["uid"]]

    def stored(self, prefix: str = "") -> list[str]:
        """Keys of what is in the store."""
        return [found.key for found in self.cluster.store.list(prefix)]

    def events(self) -> list[tuple[str, int]]:
        """Reason of every Event, and how often it was recorded."""
        recorded = self.objects.all("Event")
        return [(event["reason"], event.get("series", {}).get("count", 1)) for event in recorded]

    def metrics(self) -> Samples:
        """A page of metrics of the operator as it is now."""
        state = self._loop.run_until_complete(read(self._kube))
        figures = MetricsSnapshot("1.2.3", self.now.timestamp(), mover_limit=POLICY.mover.limit, state=state)
        content, _ = MetricsPage(self.metrics).render(figures)
        return samples(content.decode())

    # -- how it goes on

    def _changed(self, change: Change) -> None:
        """What the watches are told of, and what an onlooker can read."""
        self._heard.append(change)
        if change.object["kind"] in OWN:
            conditions = change.object.get("status", {}).get("conditions", ())
            self.told |= {condition["reason"] for condition in conditions}
        elif change.object["kind"] == "Event" and "reason" in change.object:
            self.told.add(change.object["reason"])

    def hear(self) -> None:
        """Let the operator hear of what has changed."""
        heard, self._heard[:] = self._heard[:], []
        for change in heard:
            self._loop.run_until_complete(self._tell(change))

    async def _tell(self, change: Change) -> None:
        event = {"type": change.type, "object": change.object}
        labels = change.object["metadata"].get("labels") or {}
        if change.object["kind"] in OWN:
            await self._watch.on_own(event)
        elif change.object["kind"] in CHILD_NAMES and labels.get(api_labels.MANAGED_BY_LABEL) == api_labels.MANAGED_BY:
            await self._watch.on_child(event)
        elif RESTORE_LABEL in labels:
            await self._watch.on_volume(event)
        elif change.object["kind"] == "PersistentVolume" and change.type == "MODIFIED":
            await self._watch.on_volume(event | {"type": "DELETED"})

    def due(self) -> list[ObjectKey]:
        """Keys that may be reconciled now, the one that has waited longest first."""
        self.hear()
        ready = [key for key, at in self._due.at.items() if at <= self.now]
        return sorted(ready, key=lambda key: (self._due.at[key], key))

    def notice(self) -> None:
        """Have the operator tell new backups that they wait, as it does when it has very much to do."""
        self.hear()
        for item in self.objects.all("VolumeBackup"):
            key = ObjectKey("VolumeBackup", NAMESPACE, item["metadata"]["name"])
            try:
                self._loop.run_until_complete(self._noticing.acknowledge(self._eyes, key))
            except Crash:
                self._tell_of(key, "the operator dies")
                self.restart()

    def reconcile(self, key: ObjectKey) -> None:
        """Have the operator look at one object. A crash restarts the operator."""
        self._due.at.pop(key, None)
        self._due.now += STEP
        version = self._version()
        try:
            requeue_after = self._loop.run_until_complete(self._reconcile(key))
        except Crash:
            self._tell_of(key, "the operator dies")
            self.restart()
            return
        except CinderblockError as error:
            self._tell_of(key, f"{error.reason}: {error.message}")
            failures = self._due.failures.get(key, 0)
            self._due.failures[key] = failures + 1
            requeue_after = min(300.0, 2.0**failures)
        else:
            self._due.failures.pop(key, None)
            hot = requeue_after is not None and requeue_after < 1 and version == self._version()
            assert not hot, f"{key} wants to be looked at again in {requeue_after} s although nothing has changed"
            if version != self._version():
                self._tell_of(key, "is brought forward")
        if requeue_after is not None:
            self._loop.run_until_complete(self._due.add(key, requeue_after))

    def _tell_of(self, key: ObjectKey, what: str) -> None:
        found = self.objects.get(key.kind, key.name, key.namespace)
        said = "gone" if found is None else " ".join(_said(found))
        self.history.append(f"{self.now:%H:%M:%S} {key.kind} {key.name} ({said}): {what}")

    def _version(self) -> tuple[int, int]:
        return self.objects.version, self.changes_in_store

    def move(self, move: Move) -> None:
        """Let something happen in the cluster."""
        self.history.append(f"{self.now:%H:%M:%S} {move.name}")
        move.run()

    def advance(self, seconds: float) -> None:
        """Let time pass in which nobody does anything."""
        self._due.now += timedelta(seconds=seconds)

    def resync(self) -> None:
        """What the slow resync does: every object is looked at again."""
        for kind in OWN:
            for item in self.objects.all(kind):
                key = ObjectKey(kind, NAMESPACE, item["metadata"]["name"])
                self._loop.run_until_complete(self._due.add(key))
        for item in self.objects.all("PersistentVolume"):
            if RESTORE_LABEL in item["metadata"].get("labels", {}):
                self._loop.run_until_complete(self._due.add(volume_key(item["metadata"]["name"])))

    def unsettled(self) -> set[ObjectKey]:
        """What the resync of a real operator would look at, told from lists."""
        return {key for key, _ in self._loop.run_until_complete(list_pending(self._eyes))}

    def look_at_what_is_settled(self) -> None:
        """Make sure that a look at what the resync leaves out finds nothing to do."""
        wanted, version = self.unsettled(), self._version()
        for kind in ("VolumeBackup", "VolumeRestore"):
            for key in [ObjectKey(kind, NAMESPACE, item["metadata"]["name"]) for item in self.objects.all(kind)]:
                requeue_after = None if key in wanted else self._loop.run_until_complete(self._reconcile(key))
                assert (requeue_after, self._version()) == (None, version), f"{key} was left out:\n{self.story()}"

    def settle(self) -> None:
        """Without further faults, go on until nothing changes any more, and make sure that nothing will.

        Events and what the operator itself wants to look at again must be enough: the resync must find nothing to do.
        """
        self._rest()
        version = self._version()
        self.resync()
        self._rest()
        assert self._version() == version, "the resync had to repair something:\n" + self.story()
        tidy = [item for item in self._ended() if not self._children_of(item) and not _is_forgotten(item)]
        left = {ObjectKey(item["kind"], NAMESPACE, item["metadata"]["name"]) for item in tidy}
        assert not left & self.unsettled(), "what has ended would be looked at by every resync:\n" + self.story()

    def _rest(self) -> None:
        quiet_since, version = self.now, self._version()
        for _ in range(PATIENCE):
            self.step()
            if self._version() != version:
                quiet_since, version = self.now, self._version()
            elif self.now - quiet_since > (LONG if self._is_awaited() else SHORT):
                return
        raise AssertionError("the world does not come to rest:\n" + self.story())

    def _is_awaited(self) -> bool:
        """Whether an operation has not ended, so that a deadline may still change something."""
        return len(self._ended()) < len(self._operations())

    def _operations(self) -> list[Object]:
        return [item for kind in ("VolumeBackup", "VolumeRestore") for item in self.objects.all(kind)]

    def _children_of(self, item: Object) -> list[Object]:
        children = [child for kind in CHILD_NAMES - {"Pod"} for child in self.objects.all(kind)]
        uid = item["metadata"]["uid"]
        return [
            child for child in children if child["metadata"].get("labels", {}).get(api_labels.OWNER_UID_LABEL) == uid
        ]

    def _ended(self) -> list[Object]:
        """Operations that have ended and stay."""
        return [o for o in self._operations() if "deletionTimestamp" not in o["metadata"] and not _is_unfinished(o)]

    def until(self, kind: str, name: str, text: str) -> None:
        """Go on until the condition Ready of an object speaks of ``text``, in its reason or its message."""
        for _ in range(PATIENCE):
            conditions = self.get(kind, name).get("status", {}).get("conditions", [])
            if conditions and text in f"{conditions[0]['reason']}: {conditions[0]['message']}":
                return
            self.step()
        raise AssertionError(f"{name} never said {text}:\n{self.story()}")

    def story(self) -> str:
        """The last things that happened."""
        return "\n".join(self.history[-80:])

    def step(self) -> None:
        """The next thing that happens without faults; if there is none, time passes until there is."""
        ready = self.due()
        if ready:
            self.reconcile(ready[0])
            return
        moves = [move for move in self.cluster.moves() if not move.is_bad]
        if moves:
            self.move(moves[0])
            return
        self._due.now = min(self._due.at.values(), default=self.now + timedelta(minutes=10))

    # -- what must never happen

    def forbid(self, how: str, item: Object) -> None:
        """Judge a write of the operator to an object that exists."""
        kind, metadata = item["kind"], item["metadata"]
        if kind in OWN or kind == "Event":
            assert how != "DELETE", f"the operator deletes {kind} {metadata['name']}"
            return
        if kind == "PersistentVolume":
            hidden = item["spec"].get("claimRef", {}).get("name", "").startswith("cinderblock-")
            assert hidden or RESTORE_LABEL in metadata.get("labels", {}), f"the operator writes to {metadata['name']}"
            return
        owners = [owner["kind"] for owner in metadata.get("ownerReferences", ())]
        assert kind in CHILD_NAMES, f"the operator writes to {kind} {metadata['name']}"
        assert any(owner in OWN for owner in owners), f"{how} of {kind} {metadata['name']}, which is not ours"

    def forbid_removal(self, key: str) -> None:
        """Judge the removal of an object from the store."""
        backup_id = (
            key.split("/")[-2]
            if key.startswith("packs/")
            else key.rsplit("/", maxsplit=1)[-1].removesuffix(".manifest")
        )
        adopters = (item for item in self.objects.all("VolumeBackup") if _adopts(item, backup_id))
        backup = self.objects.by_uid(backup_id) or next(adopters, None)
        assert backup is not None, f"{key} is removed for nobody"
        metadata = backup["metadata"]
        assert "deletionTimestamp" in metadata, f"{key} is removed although nobody asked for it"
        assert api_labels.BACKUP_FINALIZER in metadata["finalizers"], f"{key} is removed without our finalizer"
        for other in self.objects.all("VolumeBackup"):
            status = other.get("status", {})
            needs = status.get("parentId") == backup_id and status.get("phase") not in (None, "error")
            assert not needs, f"{key} is removed although {other['metadata']['name']} needs it"
        for found in list_manifests(self.cluster.store, ""):
            is_other = found.backup_id != backup_id
            needs = is_other and backup_id in self.cluster.needs.get(found.backup_id, ())
            assert not needs, f"{key} is removed although {found.key} lists its packs"
        name = key.rpartition("/")[2]
        assert name.endswith(".manifest") or parse_pack_name(name), f"{key} is removed, which is not ours"


def _adopts(item: Object, backup_id: str) -> bool:
    """Whether a VolumeBackup has adopted this backup, and may delete its data."""
    asked = item["spec"].get("import", {})
    return asked.get("id") == backup_id and item["spec"].get("deletionPolicy") == "Delete"


def api_outage() -> KubeUnavailable:
    """A write whose answer never came."""
    return KubeUnavailable("the API server does not answer")


def is_whole(simulation: Simulation, backup_id: str) -> bool:
    """Whether the store holds everything that a restore of the backup needs."""
    store = simulation.cluster.store
    manifests = {found.key.rsplit("/", 1)[1].removesuffix(".manifest") for found in store.list("backups/")}
    packs = {found.key.split("/")[2] for found in store.list("packs/") if found.key.endswith(WHOLE_PACK)}
    return backup_id in manifests and simulation.cluster.needs[backup_id] <= packs


def summary(simulation: Simulation) -> dict[str, Any]:
    """What is there in the end, by names that do not depend on the order in which things were made."""
    objects = simulation.objects
    operations = [item for kind in ("VolumeBackup", "VolumeRestore") for item in objects.all(kind)]
    return {
        "phases": {item["metadata"]["name"]: _said(item) for item in operations},
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
    }


def _said(item: Object) -> tuple[str, str, str]:
    status = item.get("status", {})
    reasons = [condition["reason"] for condition in status.get("conditions", [])]
    return str(status.get("phase")), ",".join(reasons), str(status.get("failReason"))


def _is_forgotten(item: Object) -> bool:
    """Whether something may be stored of a backup whose status was lost: the store is asked again now and then."""
    recorded = item.get("status", {}).get("manifestKey") is not None
    return api_labels.BACKUP_FINALIZER in item["metadata"].get("finalizers", ()) and not recorded


def _is_unfinished(item: Object) -> bool:
    return item.get("status", {}).get("phase") in (None, "creating", "restoring", "deleting", "error_deleting")


def _inside(simulation: Simulation, claim: Object) -> str:
    volume = simulation.cluster.volume_of(claim)
    return "nothing" if volume is None else simulation.cluster.contents[volume["metadata"]["name"]]


def _marks(volume: Object) -> str:
    marks = [*volume["metadata"].get("labels", {}), *volume["metadata"].get("annotations", {})]
    return ",".join(mark for mark in marks if "cinderblock" in mark)


def _by_name(simulation: Simulation, key: str) -> str:
    """A key with the names instead of the UIDs."""
    for kind in ("VolumeBackup", "PersistentVolumeClaim"):
        for item in simulation.objects.all(kind):
            key = key.replace(item["metadata"]["uid"], item["metadata"]["name"])
    return key
