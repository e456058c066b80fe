"""The controllers of a cluster, one move at a time: snapshots become ready, claims are bound, pods start and end.

`Cluster.moves` lists everything that may happen next, and the simulation chooses the order. A move that only happens
when something fails is marked as bad, so that a simulation can run without faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from cinderblock.api import layout
from cinderblock.api.file_policies import Unreadable
from cinderblock.api.kubernetes import PROVISIONED_BY_ANNOTATION, SELECTED_NODE_ANNOTATION
from cinderblock.api.losses import Loss
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverReport, MoverTask, VolumeMode
from cinderblock.api.pins import ExpectedBackup
from cinderblock.controller.handlers.watch_filter import asks_for_backup
from cinderblock.errors import CinderblockError, IntegrityError
from cinderblock.format.crypto.keyring import DataKey, KeyRing
from cinderblock.format.manifest.comparison import Comparison
from cinderblock.format.manifest.footer import UnreadableRecord
from cinderblock.format.manifest.header import new_header
from cinderblock.format.manifest.reader import ManifestReader
from cinderblock.format.manifest.writer import ManifestWriter
from cinderblock.format.pack import Origin, PackTable, pack_name
from cinderblock.restorer.restorer import open_manifest
from cinderblock.store.memory import MemoryStore
from tests.support.simulation.api import Object, ObjectsInMemory, stamp
from tests.support.simulation.checks import Check, is_check
from tests.support.simulation.verification import PACK, verify

NAMESPACE = "shop"
DRIVER = "csi.example.org"
LATE = "late"
"""The StorageClass that binds a claim only when a pod needs it."""
KEPT = "kept"
"""The StorageClass with the reclaim policy Retain."""
UNBOUND = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
"""The scheduler's message about a pod whose claim should have been bound before."""
PROTECTION = "kubernetes.io/pvc-protection"
WHOLE = "0" * 32
"""Id of the attempt that completes every backup."""
WHOLE_PACK = pack_name(WHOLE, 0)
"""Name of the pack of every complete backup."""
LOSSES = [Loss(what="trusted.* attributes")]
"""Losses that every backup mover reports."""
HALF = "half"
"""Content of a volume that a mover has not finished."""


class MoverDies(BaseException):
    """A mover dies at a write."""


@dataclass(frozen=True)
class Move:
    """Something that may happen: its name, its effect, and whether it is a fault."""

    name: str
    run: Callable[[], object]
    is_bad: bool = False


@dataclass(frozen=True)
class Sizes:
    """BackupStats of a backup that its manifest counts, without the data: all in bytes, except the entries."""

    logical: int
    transferred: int
    packs: int
    entries: int = 1000


@dataclass
class Cluster:
    """The controllers, the kubelet and the movers.

    Attributes:
        objects: the objects of the API server.
        store: the store that the movers use.
        contents: the content of each volume, by name of the PersistentVolume.
        keys: the keys of the encryption Secret; None: there is no such Secret.
        kept: the content of each backup, by id.
        held: the content of each manifest, by its salt.
        needs: the ids of the backups whose packs each backup needs, by id.
        no_node: the scheduler's message about every mover pod; empty: there is a node.
        gates: whether a queue holds every mover pod back.
        no_volume: the provisioner's message about every new volume; empty: it creates the volume.
        mover_writes: number of objects and volumes that the movers have begun to write.
        mover_dies: number of the write at which a mover dies, and whether it happens; None: no mover dies.
        unreadable: the files that backup movers cannot read; None: they can read everything.
        sizes: the numbers in the manifests of movers; None: those of their few bytes.
        check: how checks of restored volumes behave.
    """

    objects: ObjectsInMemory
    store: MemoryStore = field(default_factory=MemoryStore)
    contents: dict[str, str] = field(default_factory=dict)
    keys: KeyRing | None = None
    kept: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    needs: dict[str, set[str]] = field(default_factory=dict)
    no_node: str = ""
    gates: bool = False
    no_volume: str = ""
    mover_writes: int = 0
    mover_dies: tuple[int, bool] | None = None
    found: Comparison | None = None
    unreadable: UnreadableRecord | None = None
    sizes: Sizes | None = None
    check: Check = field(default_factory=Check)
    _snapshots: dict[str, str] = field(default_factory=dict)

    def moves(self) -> list[Move]:
        """Return everything that may happen now, faults last."""
        found = [
            *self._collect(),
            *self._snapshot(),
            *self._volumes(),
            *self._claims(),
            *self._jobs(),
            *self._pods(),
        ]
        return sorted(found, key=lambda move: move.is_bad)

    def volume_of(self, claim: Object) -> Object | None:
        """Return the PersistentVolume that a claim is bound to."""
        return self.objects.get("PersistentVolume", claim["spec"].get("volumeName", ""))

    def _collect(self) -> Iterator[Move]:
        """Act as garbage collector: remove objects whose owners do not exist any more."""
        for kind in ("Pod", "Job", "PersistentVolumeClaim", "VolumeSnapshot", "VolumeRestore"):
            for item in self.objects.all(kind):
                owners = item["metadata"].get("ownerReferences", ())
                gone = owners and all(self.objects.by_uid(owner["uid"]) is None for owner in owners)
                if gone and "deletionTimestamp" not in item["metadata"]:
                    yield Move(f"collect {_name(item)}", partial(self.objects.delete, item))

    def _snapshot(self) -> Iterator[Move]:
        for item in self.objects.all("VolumeSnapshot"):
            if not item.get("status", {}).get("readyToUse"):
                yield Move(f"take {_name(item)}", partial(self._take, item))
                failed = {"readyToUse": False, "error": {"message": "the array is busy"}}
                if item.get("status") != failed:
                    yield Move(f"fail {_name(item)}", partial(self.objects.update, item, status=failed), is_bad=True)

    def _take(self, item: Object) -> None:
        source = item["spec"]["source"]["persistentVolumeClaimName"]
        claim = self.objects.get("PersistentVolumeClaim", source, item["metadata"]["namespace"])
        volume = self.volume_of(claim) if claim else None
        if volume is None:
            return
        self._snapshots[item["metadata"]["name"]] = self.contents[volume["metadata"]["name"]]
        created = stamp(self.objects.clock())
        self.objects.update(item, status={"readyToUse": True, "creationTime": created, "restoreSize": "1Gi"})

    def _volumes(self) -> Iterator[Move]:
        """Act as PersistentVolume controller for volumes."""
        for volume in self.objects.all("PersistentVolume"):
            reference, phase = volume["spec"].get("claimRef"), volume.get("status", {}).get("phase")
            where = (reference["name"], reference["namespace"]) if reference else ("", "")
            owner = self.objects.get("PersistentVolumeClaim", *where)
            if owner is not None and owner["metadata"]["uid"] != reference.get("uid"):
                owner = None
            expected = "Available" if not reference or not reference.get("uid") else "Bound" if owner else "Released"
            if phase != expected:
                yield Move(
                    f"{_name(volume)} is {expected}", partial(self.objects.update, volume, status={"phase": expected})
                )
            elif phase == "Released" and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
                yield Move(f"reclaim {_name(volume)}", partial(self._reclaim, volume))

    def _reclaim(self, volume: Object) -> None:
        del self.contents[volume["metadata"]["name"]]
        self.objects.delete(volume)

    def _claims(self) -> Iterator[Move]:
        for claim in self.objects.all("PersistentVolumeClaim"):
            metadata = claim["metadata"]
            if "deletionTimestamp" in metadata:
                if not self._users(claim):
                    yield Move(f"let {_name(claim)} go", partial(self.objects.drop_finalizer, claim, PROTECTION))
            elif claim.get("status", {}).get("phase") != "Bound":
                yield from self._binding(claim)

    def _users(self, claim: Object) -> list[Object]:
        """Return the pods that use a claim and have not ended."""
        pods = self.objects.all("Pod", claim["metadata"]["namespace"])
        running = [pod for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]
        return [pod for pod in running if _claim_of(pod) == claim["metadata"]["name"]]

    def _binding(self, claim: Object) -> Iterator[Move]:
        """Bind a claim to its reserved volume, or provision a volume, from a snapshot if the claim names one."""
        for volume in self.objects.all("PersistentVolume"):
            if _is_reserved_for(volume, claim):
                yield Move(f"bind {_name(claim)}", partial(self._bind, claim, volume))
                if not volume["spec"]["claimRef"].get("uid"):
                    yield Move(f"half bind {_name(claim)}", partial(self._half_bind, claim, volume), is_bad=True)
                return
        spec = claim["spec"]
        is_late = spec.get("storageClassName") == LATE
        if (
            spec.get("volumeName")
            or not spec.get("storageClassName")
            or (is_late and not _has_node(claim) and (self.no_node or not self._users(claim)))
            or asks_for_backup(claim)
        ):
            return
        source, namespace = spec.get("dataSource"), claim["metadata"]["namespace"]
        if self.no_volume:
            yield from self._refusal(claim)
        elif source is None:
            yield Move(f"provision {_name(claim)}", partial(self._provision, claim, ""))
        elif source["name"] in self._snapshots and self.objects.get("VolumeSnapshot", source["name"], namespace):
            content = self._snapshots[source["name"]]
            yield Move(f"provision {_name(claim)} from a snapshot", partial(self._provision, claim, content))

    def _refusal(self, claim: Object) -> Iterator[Move]:
        name, namespace = f"{claim['metadata']['name']}.refused", claim["metadata"]["namespace"]
        if self.objects.get("Event", name, namespace) is None:
            regarding = {"uid": claim["metadata"]["uid"]}
            event = {"regarding": regarding, "type": "Warning", "note": self.no_volume}
            body = {"metadata": {"name": name, "namespace": namespace}} | event
            yield Move(f"refuse {_name(claim)}", partial(self.objects.create, "Event", body))

    def _provision(self, claim: Object, content: str) -> None:
        name = f"pv-{claim['metadata']['uid']}"
        storage_class = self.objects.get("StorageClass", claim["spec"].get("storageClassName", "")) or {}
        spec = {
            "csi": {"driver": DRIVER},
            "accessModes": claim["spec"].get("accessModes", []),
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
            "storageClassName": claim["spec"].get("storageClassName", ""),
            "claimRef": {"namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"]},
        }
        self.contents[name] = content
        metadata = {"name": name, "annotations": {PROVISIONED_BY_ANNOTATION: DRIVER}}
        volume = self.objects.create("PersistentVolume", {"metadata": metadata, "spec": spec})
        assert volume is not None
        self._bind(claim, volume)

    def _half_bind(self, claim: Object, volume: Object) -> None:
        """Bind only the volume, as the volume controller does in a conflict with itself."""
        reference = {key: claim["metadata"][key] for key in ("namespace", "name", "uid")}
        self.objects.update(volume, spec=volume["spec"] | {"claimRef": reference}, status={"phase": "Bound"})

    def _bind(self, claim: Object, volume: Object) -> None:
        self._half_bind(claim, volume)
        capacity = {"storage": claim["spec"]["resources"]["requests"]["storage"]}
        self.objects.update(
            claim,
            spec=claim["spec"] | {"volumeName": volume["metadata"]["name"]},
            status={"phase": "Bound", "capacity": capacity},
        )

    def _jobs(self) -> Iterator[Move]:
        """Act as Job controller: one pod after the other, until one succeeds or enough have failed."""
        for job in self.objects.all("Job"):
            if job.get("status") or job["spec"].get("suspend") or "deletionTimestamp" in job["metadata"]:
                continue
            if "template" not in job["spec"]:
                # Tests forge such Jobs. A real API server would refuse them.
                continue
            pods = [pod for pod in self.objects.all("Pod") if _owner(pod) == job["metadata"]["uid"]]
            phases = [pod["status"]["phase"] for pod in pods]
            if self.check.is_late(job, self.objects.clock()):
                yield Move(f"{_name(job)} is late", partial(self._stop, job, pods))
                continue
            exits = [_exit_code(pod) for pod in pods]
            if "Succeeded" in phases:
                yield Move(f"{_name(job)} completes", partial(self._finish, job, "Complete", ""))
            elif 3 in exits:
                yield Move(f"{_name(job)} fails", partial(self._finish, job, "Failed", "PodFailurePolicy"))
            elif phases.count("Failed") > job["spec"]["backoffLimit"]:
                yield Move(f"{_name(job)} fails", partial(self._finish, job, "Failed", "BackoffLimitExceeded"))
            elif all(phase == "Failed" for phase in phases):
                yield Move(f"{_name(job)} starts a pod", partial(self._start_pod, job, len(pods)))

    def _stop(self, job: Object, pods: list[Object]) -> None:
        """Act as Job controller after activeDeadlineSeconds."""
        for pod in pods:
            self.objects.delete(pod)
        self._finish(job, "Failed", "DeadlineExceeded")

    def _finish(self, job: Object, condition: str, reason: str) -> None:
        ended = {"type": condition, "status": "True", "reason": reason, "message": reason}
        self.objects.update(job, status={"conditions": [ended]})

    def _start_pod(self, job: Object, number: int) -> None:
        template = job["spec"]["template"]
        metadata = template["metadata"] | {
            "name": f"{job['metadata']['name']}-{number}",
            "namespace": job["metadata"]["namespace"],
            "ownerReferences": [{"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}],
        }
        self.objects.create("Pod", {"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}})

    def _pods(self) -> Iterator[Move]:
        sets = {item["metadata"]["uid"] for item in self.objects.all("StatefulSet")}
        for pod in self.objects.all("Pod"):
            if "ownerReferences" not in pod["metadata"] or _owner(pod) in sets:
                continue
            claim = self.objects.get("PersistentVolumeClaim", _claim_of(pod), pod["metadata"]["namespace"])
            is_bound = claim is not None and claim.get("status", {}).get("phase") == "Bound"
            # Volumes of hostile tenants have no content, so that their pods never start.
            is_mountable = claim is not None and is_bound and claim["spec"].get("volumeName") in self.contents
            if pod["status"]["phase"] == "Pending" and self.gates:
                yield from self._unschedulable(pod, "blocked by scheduling gates", "SchedulingGated")
            elif pod["status"]["phase"] == "Pending" and (self.no_node or _waits_for_a_volume(claim)):
                yield from self._unschedulable(pod, self.no_node or UNBOUND)
            elif pod["status"]["phase"] == "Pending" and is_check(pod) and self.check.no_image:
                yield from self._no_image(pod)
            elif pod["status"]["phase"] == "Pending" and (is_mountable or not _claim_of(pod)):
                yield Move(f"{_name(pod)} runs", partial(self.objects.update, pod, status={"phase": "Running"}))
            elif pod["status"]["phase"] == "Running":
                yield from self._check_ends(pod) if is_check(pod) else self._ends(pod)

    def _no_image(self, pod: Object) -> Iterator[Move]:
        status = self.check.no_image_status()
        if pod["status"] != status:
            yield Move(f"no image for {_name(pod)}", partial(self.objects.update, pod, status=status))

    def _check_ends(self, pod: Object) -> Iterator[Move]:
        if not self.check.hangs:
            yield Move(f"{_name(pod)} checks", partial(self._run_check, pod))
        yield Move(f"{_name(pod)} is evicted", partial(self._evict, pod), is_bad=True)

    def _unschedulable(self, pod: Object, message: str, reason: str = "Unschedulable") -> Iterator[Move]:
        condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
        status = {"phase": "Pending", "conditions": [condition]}
        if pod["status"] != status:
            yield Move(f"no node for {_name(pod)}", partial(self.objects.update, pod, status=status))

    def _ends(self, pod: Object) -> Iterator[Move]:
        """Yield every way in which a mover may end."""
        never = MoverReport(succeeded=False, permanent=True, reason="SourceError", message="the disk is broken")
        later = MoverReport(succeeded=False, reason="StoreUnreachable", message="the store is away")
        yield Move(f"{_name(pod)} succeeds", partial(self._run_mover, pod))
        yield Move(f"{_name(pod)} fails for good", partial(self._break_off, pod, 3, never), is_bad=True)
        yield Move(f"{_name(pod)} fails for now", partial(self._break_off, pod, 4, later), is_bad=True)
        yield Move(f"{_name(pod)} dies", partial(self._break_off, pod, 137, None), is_bad=True)
        yield Move(f"{_name(pod)} dies after its work", partial(self._die_late, pod), is_bad=True)
        if pod["metadata"].get("ownerReferences"):
            yield Move(f"{_name(pod)} is evicted", partial(self.objects.delete, pod), is_bad=True)

    def _run_check(self, pod: Object) -> None:
        code = self.check.run(pod, self.contents[self._volume_under(pod)])
        self.objects.update(pod, status=self.check.ended(code, stamp(self.objects.clock())))

    def _evict(self, pod: Object) -> None:
        ended = self.check.ended(137, stamp(self.objects.clock()))
        self.objects.update(pod, status=ended | {"reason": "Evicted"})

    def _run_mover(self, pod: Object) -> None:
        try:
            report = self.work(pod)
        except MoverDies:
            self.end(pod, 137, None)
        except CinderblockError as error:
            refused = MoverReport(succeeded=False, permanent=True, reason=error.reason, message=error.message)
            self.end(pod, 3, refused)
        else:
            self.end(pod, 0, report)

    def _write(self, write: Callable[[], object]) -> None:
        """Execute a write of a mover, at which it may die."""
        number, self.mover_writes = self.mover_writes, self.mover_writes + 1
        if self.mover_dies == (number, False):
            raise MoverDies
        write()
        if self.mover_dies == (number, True):
            raise MoverDies

    def _break_off(self, pod: Object, code: int, report: MoverReport | None) -> None:
        task = _task(pod)
        if task.operation is MoverOperation.BACKUP:
            attempt = f"{int(pod['metadata']['name'].rpartition('-')[2]) + 1:032x}"
            self.store.put(_packs(task) + pack_name(attempt, 0), b"begun")
        elif task.operation is MoverOperation.RESTORE:
            self.contents[self._volume_under(pod)] = HALF
        self.end(pod, code, report)

    def _die_late(self, pod: Object) -> None:
        with suppress(CinderblockError):
            self.work(pod)
        self.end(pod, 137, None)

    def end(self, pod: Object, code: int, report: MoverReport | None, reason: str = "Error") -> None:
        """End a mover with an exit code, a reason and a report, if it wrote one."""
        words = report.model_dump_json(by_alias=True) if report else "Killed"
        ended = {"exitCode": code, "message": words, "reason": "Completed" if code == 0 else reason}
        ended["finishedAt"] = stamp(self.objects.clock())
        status = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "mover", "state": {"terminated": ended}}],
        }
        self.objects.update(pod, status=status)

    def _volume_under(self, pod: Object) -> str:
        claim = self.objects.get("PersistentVolumeClaim", _claim_of(pod), pod["metadata"]["namespace"])
        assert claim is not None, "a claim cannot go while a pod uses it"
        name: str = claim["spec"]["volumeName"]
        return name

    def work(self, pod: Object) -> MoverReport:
        """Do the work of a mover without ending its pod."""
        task = _task(pod)
        if task.operation is MoverOperation.VERIFY:
            return MoverReport(succeeded=True, verification=verify(self.store, task, self.needs))
        volume = self._volume_under(pod)
        if task.operation is MoverOperation.RESTORE:
            found = open_manifest(task, self.store, self.keys)
            self._read_packs(task)
            self.contents[volume] = HALF
            self._write(lambda: self.contents.update({volume: self.held[found.summary.pins.salt]}))
            return MoverReport(succeeded=True, restored_bytes=5)
        if not any(found.key == task.manifest for found in self.store.list(task.manifest)):
            self._commit(task, self.contents[volume])
        expected = ExpectedBackup(volume_id=task.backup.volume_id, backup_id=task.backup.backup_id, sealed=task.sealed)
        pins = self._read(task.manifest, expected).summary.pins
        lacks = self.unreadable if task.unreadable is Unreadable.SKIP else None
        return MoverReport(
            succeeded=True,
            manifest=task.manifest,
            pins=pins,
            unreadable_files=lacks.files if lacks else 0,
            unreadable_examples=lacks.examples if lacks else [],
            losses=LOSSES,
        )

    def _read_packs(self, task: MoverTask) -> None:
        """Read what a restore reads. Raises what a real mover raises for a missing or damaged pack."""
        for owner in sorted(self.needs.get(task.backup.backup_id, ())):
            key = _packs(task).removesuffix(f"{task.backup.backup_id}/") + f"{owner}/{WHOLE_PACK}"
            if bytes(self.store.get(key)) != PACK:
                raise IntegrityError(f"Cannot read chunk 0 of {key}: its content is not what was written.")

    def task_of(self, pod: Object) -> MoverTask:
        """Return the task of a mover's pod."""
        return _task(pod)

    def forge(self, volume_id: str, backup_id: str, content: str, keys: KeyRing | None = None) -> bytes:
        """Return a forged manifest of a backup whose restore yields ``content``.

        Anybody who can write to the store can forge it; with ``keys`` only if they have leaked.
        """
        data_key = DataKey.random() if keys is not None else None
        header = new_header(volume_id, backup_id, None, data_key, keys)
        self.held[header.salt.hex()] = content
        writer = ManifestWriter(header, header.sealer(data_key, ""), PackTable())
        made = datetime(2020, 1, 1, tzinfo=UTC)
        description = BackupMetadata(
            backup_id=backup_id,
            volume_id=volume_id,
            volume_name="data",
            volume_mode=VolumeMode.FILESYSTEM,
            volume_bytes=1 << 30,
            storage_class="fast",
            access_modes=["ReadWriteOnce"],
            created_at=made,
            data_timestamp=made,
        )
        return bytes(writer.finish(description, 1 << 20, {}))

    def _read(self, key: str, expected: ExpectedBackup) -> ManifestReader:
        return ManifestReader(partial(self.store.get, key), self.keys, expected, key)

    def _commit(self, task: MoverTask, content: str) -> None:
        backup_id, parent = task.backup.backup_id, None
        if task.parent_manifest is not None:
            assert task.expected_parent is not None, "the task of a mover identifies its parent"
            parent = self._read(task.parent_manifest, task.expected_parent).header.backup_id
        self.kept[backup_id] = content
        self.needs[backup_id] = {backup_id} | self.needs.get(parent or "", set())
        self._write(lambda: self.store.put(_packs(task) + WHOLE_PACK, b"pack"))
        keys = self.keys if task.sealed else None
        data_key = DataKey.random() if keys is not None else None
        header = new_header(task.backup.volume_id, backup_id, parent, data_key, keys)
        self.held[header.salt.hex()] = content
        packs = PackTable()
        for listed in sorted(self.needs[backup_id]):
            is_own = listed == backup_id and self.sizes is not None
            packs.add(Origin(listed, WHOLE), 0, self.sizes.packs if is_own and self.sizes else len(b"pack"))
        writer = ManifestWriter(header, header.sealer(data_key, task.manifest), packs)
        for pack in range(len(packs)):
            # An entry with data in each of the packs would do the same.
            writer._used.final(pack)
        if self.sizes is not None:
            writer._names = self.sizes.entries
            writer._logical_bytes, writer._transferred_bytes = self.sizes.logical, self.sizes.transferred
        lacks = self.unreadable if task.unreadable is Unreadable.SKIP else None
        manifest = bytes(
            writer.finish(task.backup, 1 << 20, {}, comparison=self.found, unreadable=lacks, losses=LOSSES)
        )
        self._write(lambda: self.store.put(task.manifest, manifest))


def _name(item: Object) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def _owner(item: Object) -> str:
    uid: str = item["metadata"].get("ownerReferences", [{"uid": ""}])[0]["uid"]
    return uid


def _claim_of(pod: Object) -> str:
    """Return the name of the claim that a pod mounts; empty: the mover of a verification mounts none."""
    claims = [volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"] if "persistentVolumeClaim" in volume]
    return str(claims[0]["claimName"]) if claims else ""


def _waits_for_a_volume(claim: Object | None) -> bool:
    """Return whether a claim is unbound although its class binds at once."""
    is_late = claim is not None and claim["spec"].get("storageClassName") == LATE
    return claim is not None and not is_late and claim.get("status", {}).get("phase") != "Bound"


def _exit_code(pod: Object) -> int | None:
    statuses: list[dict[str, Any]] = pod["status"].get("containerStatuses", [])
    codes = [int(status["state"]["terminated"]["exitCode"]) for status in statuses if "terminated" in status["state"]]
    return codes[0] if codes else None


def _has_node(claim: Object) -> bool:
    return SELECTED_NODE_ANNOTATION in (claim["metadata"].get("annotations") or {})


def _is_reserved_for(volume: Object, claim: Object) -> bool:
    reference = volume["spec"].get("claimRef") or {}
    metadata = claim["metadata"]
    same = (reference.get("namespace"), reference.get("name")) == (metadata["namespace"], metadata["name"])
    is_requested = claim["spec"].get("volumeName") in (None, volume["metadata"]["name"])
    return same and is_requested and reference.get("uid") in (None, "", claim["metadata"]["uid"])


def _task(pod: Object) -> MoverTask:
    (variable,) = pod["spec"]["containers"][0]["env"]
    return MoverTask.model_validate_json(variable["value"])


def _packs(task: MoverTask) -> str:
    return layout.pack_prefix(task.store.prefix, task.backup.volume_id, task.backup.backup_id)
