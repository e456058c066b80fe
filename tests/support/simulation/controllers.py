"""The controllers of a cluster for a real API server without nodes: snapshots, volumes, Jobs, pods and movers.

    with controllers(server, s3) as cluster:
        ...create claims and VolumeBackups; movers write real manifests into the S3 server...

They use one watch for each type and a few writes for each object, so that thousands of backups cost seconds.
`Cluster.done` contains the instant of each step, and `Cluster.hold` delays the steps of a kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp

from cinderblock.api import labels
from cinderblock.api.mover import MoverOperation, MoverReport, MoverTask, VerifyReport
from cinderblock.controller.handlers.watch_filter import asks_for_backup
from cinderblock.errors import AlreadyExists, CinderblockError, Conflict, NotFound
from cinderblock.format.manifest.header import new_header
from cinderblock.format.manifest.writer import ManifestWriter
from cinderblock.format.pack import PackTable
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from tests.cluster.apiserver import ApiServer
from tests.cluster.s3 import S3Server

DRIVER = "csi.example.org"
CLASS = "fast"
"""Name of the StorageClass and of the VolumeSnapshotClass."""
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")

Object = dict[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MoverEnd:
    """The end of a mover's container.

    Attributes:
        exit_code: the exit code of its process; other codes than 0 end its Job at once.
        message: its termination message.
    """

    exit_code: int
    message: str

    @classmethod
    def of(cls, report: MoverReport) -> MoverEnd:
        """Return the end of a mover that has succeeded."""
        return cls(0, report.model_dump_json(by_alias=True))

    @property
    def reason(self) -> str:
        """The kubelet's reason."""
        return "Error" if self.exit_code else "Completed"

    @property
    def pod_phase(self) -> str:
        """The phase of the pod."""
        return "Failed" if self.exit_code else "Succeeded"

    def job_status(self) -> Object:
        """Return the status that the Job controller sets."""
        if self.exit_code:
            return {"startTime": _now(), "failed": 1} | _conditions("PodFailurePolicy", "FailureTarget", "Failed")
        complete = _conditions("CompletionsReached", "SuccessCriteriaMet", "Complete")
        return {"startTime": _now(), "completionTime": _now(), "succeeded": 1} | complete


def _conditions(reason: str, *kinds: str) -> Object:
    now = _now()
    return {"conditions": [{"type": k, "status": "True", "reason": reason, "lastTransitionTime": now} for k in kinds]}


@dataclass
class Cluster:
    """The controllers and their record.

    Attributes:
        done: instants (``time.monotonic``) by step and UID of the VolumeBackup, as in ``done["ready", uid]``: a phase
            appeared, the snapshot is ready, the mover started and ended; "accepted": the status has the manifest key.
        movers: UIDs of the Jobs that have begun to work, by UID of the owner.
        held: kinds whose steps are delayed.
        binds: whether claims are bound and volumes released here; False: a real controller manager does that, and
            collects garbage.
        workers: number of moves at the same time.
    """

    server: ApiServer
    s3: S3Server
    done: dict[tuple[str, str], float] = field(default_factory=dict)
    movers: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    held: set[str] = field(default_factory=set)
    binds: bool = True
    workers: int = 16
    _seen: dict[tuple[str, str], Object] = field(default_factory=dict)
    _queue: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)
    _stores: dict[str, ObjectStore] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = None

    def hold(self, kind: str) -> None:
        """Delay all steps of a kind until `release`."""
        self.held.add(kind)

    def release(self, kind: str) -> None:
        """Continue with a kind."""
        self.held.discard(kind)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._again, kind)

    def _again(self, kind: str) -> None:
        for key in [key for key in self._seen if key[0] == kind]:
            self._queue.put_nowait(key)

    async def run(self) -> None:
        """Act as the cluster until cancelled."""
        self._loop = asyncio.get_running_loop()
        context = ssl.create_default_context(cafile=str(self.server.authority))
        headers = {"Authorization": f"Bearer {self.server.token}"}
        limits = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(ssl=context)
        moves: dict[str, Callable[[KubeClient, Object], Awaitable[None]]] = {
            "VolumeSnapshot": self._snapshot,
            "PersistentVolumeClaim": self._claim,
            "PersistentVolume": self._volume,
            "Job": self._job,
        }
        watched = (kinds.VOLUME_SNAPSHOT, kinds.PVC, kinds.PV, kinds.JOB, kinds.VOLUME_BACKUP)
        async with (
            contextlib.aclosing(await connect(kubeconfig=str(self.server.kubeconfig))) as client,
            aiohttp.ClientSession(self.server.url, connector=connector, headers=headers, timeout=limits) as session,
            asyncio.TaskGroup() as group,
        ):
            for kind in watched:
                group.create_task(self._event_handler(session, client, kind))
            for _ in range(self.workers):
                group.create_task(self._work(client, moves))

    async def _event_handler(self, session: aiohttp.ClientSession, client: KubeClient, kind: Kind) -> None:
        while True:
            with contextlib.suppress(CinderblockError, aiohttp.ClientError, TimeoutError):
                async for change in _changes(session, kind):
                    await self._undelivered(client, kind.kind, change["type"], change["object"])
            await asyncio.sleep(0.2)

    async def _undelivered(self, client: KubeClient, kind: str, how: str, body: Object) -> None:
        key = kind, body["metadata"]["uid"]
        if kind == "VolumeBackup":
            status = body.get("status", {})
            if status.get("id") == key[1]:
                self.done.setdefault((str(status.get("phase")), key[1]), time.monotonic())
                if status.get("manifestKey"):
                    self.done.setdefault(("accepted", key[1]), time.monotonic())
            return
        if how == "DELETED":
            self._seen.pop(key, None)
            await self._gone(client, kind, body)
        else:
            self._seen[key] = body
            self._queue.put_nowait(key)

    async def _work(self, client: KubeClient, moves: dict[str, Any]) -> None:
        while True:
            kind, uid = await self._queue.get()
            body = self._seen.get((kind, uid))
            if body is None or kind in self.held:
                continue
            try:
                await moves[kind](client, body)
            except (Conflict, NotFound):
                continue
            except CinderblockError as error:
                log.info("Later: %s", error.message)
                asyncio.get_running_loop().call_later(0.5, self._queue.put_nowait, (kind, uid))

    def _note(self, what: str, body: Object) -> None:
        self.done.setdefault((what, _owner(body)), time.monotonic())

    # Moves

    async def _snapshot(self, client: KubeClient, body: Object) -> None:
        if body.get("status", {}).get("readyToUse"):
            return
        status = {"readyToUse": True, "creationTime": _now(), "restoreSize": "1Mi"}
        await _status(client, kinds.VOLUME_SNAPSHOT, body, status)
        self._note("ready", body)

    async def _claim(self, client: KubeClient, body: Object) -> None:
        metadata, spec = body["metadata"], body["spec"]
        if not self.binds:
            await self._provision(client, body)
            return
        if "deletionTimestamp" in metadata:
            await client.merge_patch(kinds.PVC, *_who(body), {"metadata": {"finalizers": None}})
            return
        if body.get("status", {}).get("phase") == "Bound":
            return
        reference = {"namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]}
        volume = spec.get("volumeName") or f"pv-{metadata['uid']}"
        if spec.get("volumeName"):
            await client.merge_patch(kinds.PV, volume, None, {"spec": {"claimRef": reference}})
        else:
            await _create(client, kinds.PV, _volume_for(spec, volume, reference))
            await client.merge_patch(kinds.PVC, *_who(body), {"spec": {"volumeName": volume}})
        capacity = {"storage": spec["resources"]["requests"]["storage"]}
        await _status(client, kinds.PVC, body, {"phase": "Bound", "capacity": capacity})

    async def _provision(self, client: KubeClient, body: Object) -> None:
        """Act as CSI provisioner: create a volume that is reserved for the claim by its UID."""
        metadata, spec = body["metadata"], body["spec"]
        if "deletionTimestamp" not in metadata and not spec.get("volumeName") and not asks_for_backup(body):
            reference = {key: metadata[key] for key in ("namespace", "name", "uid")}
            volume = f"pv-{metadata['uid']}"
            await _create(client, kinds.PV, _volume_for(spec, volume, reference))

    async def _volume(self, client: KubeClient, body: Object) -> None:
        if not self.binds:
            return
        if "deletionTimestamp" in body["metadata"]:
            await client.merge_patch(kinds.PV, body["metadata"]["name"], None, {"metadata": {"finalizers": None}})
            return
        reference = body["spec"].get("claimRef") or {}
        is_there = ("PersistentVolumeClaim", reference.get("uid")) in self._seen
        expected = "Bound" if is_there else "Released" if reference.get("uid") else "Available"
        if body.get("status", {}).get("phase") != expected and expected != "Released":
            await _status(client, kinds.PV, body, {"phase": expected})

    async def _gone(self, client: KubeClient, kind: str, body: Object) -> None:
        """Release or delete the volume of a deleted claim, and the pods of a deleted Job."""
        if not self.binds:
            return
        if kind == "PersistentVolumeClaim" and body["spec"].get("volumeName"):
            volume = await client.get(kinds.PV, body["spec"]["volumeName"])
            if volume is None or volume["spec"].get("claimRef", {}).get("uid") != body["metadata"]["uid"]:
                return
            if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                await client.delete(kinds.PV, volume["metadata"]["name"], None)
            else:
                await _status(client, kinds.PV, volume, {"phase": "Released"})
        elif kind == "Job":
            for pod in await client.list(kinds.POD, body["metadata"]["namespace"]):
                if any(owner["uid"] == body["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", ())):
                    await client.delete(kinds.POD, pod["metadata"]["name"], pod["metadata"]["namespace"])

    async def _job(self, client: KubeClient, body: Object) -> None:
        """Run a Job in three writes: its pod, the end of the pod, and the end of the Job.

        The Job is read again, because a watch may not have delivered its deletion yet: no mover starts after that.
        """
        current = await client.get(kinds.JOB, body["metadata"]["name"], body["metadata"]["namespace"])
        if current is None or current["metadata"]["uid"] != body["metadata"]["uid"]:
            return
        body = current
        is_over = body.get("status", {}).get("conditions") or "deletionTimestamp" in body["metadata"]
        mounted = [volume.get("persistentVolumeClaim") for volume in body["spec"]["template"]["spec"]["volumes"]]
        claim = mounted[0]["claimName"] if mounted[0] else ""
        is_there = not claim or await client.get(kinds.PVC, claim, body["metadata"]["namespace"]) is not None
        if is_over or body["spec"].get("suspend") or not is_there:
            # Without its claim a pod stays Pending.
            return
        self._note("started", body)
        self.movers[_owner(body)].add(body["metadata"]["uid"])
        end = await asyncio.to_thread(self.move, body)
        pod = _pod_of(body)
        await _create(client, kinds.POD, pod)
        ended = {"exitCode": end.exit_code, "reason": end.reason, "message": end.message}
        status = {"name": "mover", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
        statuses = [status | {"state": {"terminated": ended | {"startedAt": _now(), "finishedAt": _now()}}}]
        await _status(client, kinds.POD, pod, {"phase": end.pod_phase, "containerStatuses": statuses})
        self._note("ended", body)
        await _status(client, kinds.JOB, body, end.job_status())

    def move(self, job: Object) -> MoverEnd:
        """Do the work of a mover: write one manifest, as for an empty device."""
        [variable] = job["spec"]["template"]["spec"]["containers"][0]["env"]
        task = MoverTask.model_validate_json(variable["value"])
        if task.operation is MoverOperation.VERIFY:
            self._store(task).get(task.manifest)
            return MoverEnd.of(MoverReport(succeeded=True, verification=VerifyReport()))
        if task.operation is not MoverOperation.BACKUP:
            return MoverEnd.of(MoverReport(succeeded=True, restored_bytes=5))
        header = new_header(task.backup.volume_id, task.backup.backup_id, None, None, None)
        writer = ManifestWriter(header, header.sealer(None, task.manifest), PackTable())
        self._store(task).put(task.manifest, bytes(writer.finish(task.backup, 1 << 20, {})))
        return MoverEnd.of(MoverReport(succeeded=True, manifest=task.manifest))

    def _store(self, task: MoverTask) -> ObjectStore:
        if task.store.container not in self._stores:
            credentials = S3Credentials(self.s3.access_key, self.s3.secret_key)
            self._stores[task.store.container] = open_store(task.store, credentials)
        return self._stores[task.store.container]


@contextlib.contextmanager
def controllers(server: ApiServer, s3: S3Server, *, binds: bool = True) -> Iterator[Cluster]:
    """Run the controllers in a thread during the block."""
    with running(Cluster(server, s3, binds=binds)) as cluster:
        yield cluster


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Run a cluster in a thread during the block."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(cluster.run())

    def serve() -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        finally:
            loop.run_until_complete(asyncio.sleep(0.1))  # TLS connections close in the background.
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            for store in cluster._stores.values():
                store.close()

    thread = threading.Thread(target=serve, name="controllers")
    thread.start()
    try:
        yield cluster
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


async def furnish(client: KubeClient) -> None:
    """Create the classes that every namespace uses."""
    await _create(client, kinds.STORAGE_CLASS, {"metadata": {"name": CLASS}, "provisioner": DRIVER})
    body = {"metadata": {"name": CLASS}, "driver": DRIVER, "deletionPolicy": "Delete"}
    await _create(client, kinds.VOLUME_SNAPSHOT_CLASS, body)


async def furnish_namespace(client: KubeClient, namespace: str, s3: S3Server, container: str) -> None:
    """Create a namespace with the ServiceAccount of pods and a default BackupStore on the S3 server."""
    await _create(client, kinds.NAMESPACE, {"metadata": {"name": namespace}})
    await _create(client, SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": namespace}})
    secret = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    await _create(client, kinds.SECRET, {"metadata": {"name": "s3", "namespace": namespace}, "stringData": secret})
    annotations = {"cinderblock.io/is-default-store": "true"}
    spec = {
        "credentialsSecretRef": {"name": "s3"},
        "endpointUrl": s3.url,
        "container": container,
        "prefix": namespace,
        "createContainer": True,
    }
    metadata = {"name": "default", "namespace": namespace, "annotations": annotations}
    await _create(client, kinds.BACKUP_STORE, {"metadata": metadata, "spec": spec})


def a_claim(namespace: str, name: str) -> Object:
    """Return a small, empty claim of a user."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": CLASS,
        "resources": {"requests": {"storage": "1Mi"}},
    }
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


async def _changes(session: aiohttp.ClientSession, kind: Kind) -> AsyncIterator[Object]:
    """Yield the existing objects, then the changes, until the watch ends."""
    async with session.get(kind.path(), raise_for_status=True) as answer:
        listed = await answer.json()
    for item in listed.get("items", ()):
        yield {"type": "ADDED", "object": item}
    query = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"], "timeoutSeconds": "600"}
    async with session.get(kind.path(), params=query, raise_for_status=True) as answer:
        pending = b""
        async for chunk in answer.content.iter_any():
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                change = json.loads(line)
                if change["type"] == "ERROR":
                    return
                yield change


async def _create(client: KubeClient, kind: Kind, body: Object) -> None:
    with contextlib.suppress(AlreadyExists):
        await client.create(kind, body)


async def _status(client: KubeClient, kind: Kind, body: Object, status: Object) -> None:
    await client.merge_patch(kind, *_who(body), {"status": status}, subresource="status")


def _who(body: Object) -> tuple[str, str | None]:
    return body["metadata"]["name"], body["metadata"].get("namespace")


def _owner(body: Object) -> str:
    return str(body["metadata"].get("labels", {}).get(labels.OWNER_UID_LABEL, ""))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _volume_for(spec: Object, name: str, reference: Object) -> Object:
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    fields = {
        "accessModes": spec["accessModes"],
        "capacity": {"storage": spec["resources"]["requests"]["storage"]},
        "csi": {"driver": DRIVER, "volumeHandle": name},
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": CLASS,
        "claimRef": kind | reference,
    }
    return {"metadata": {"name": name}, "spec": fields}


def _pod_of(job: Object) -> Object:
    template = job["spec"]["template"]
    metadata = {key: template["metadata"].get(key, {}) for key in ("labels", "annotations")} | {
        "name": f"{job['metadata']['name']}-0",
        "namespace": job["metadata"]["namespace"],
        "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        ],
    }
    return {"metadata": metadata, "spec": template["spec"]}
