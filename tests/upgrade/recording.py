"""Record what a release leaves behind. Runs with the code of that release: `tests.upgrade.__main__` sees to it.

A real API server, a real S3 server, the operator process and the movers' program of that release make everything;
`tests.support.simulation.controllers` plays the cluster. The operator is stopped before anything is written down.
"""

from __future__ import annotations

import base64
import json
import signal
import ssl
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from cinderblock.api.mover import MoverReport, StoreLocation
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.toolchain import tool
from tests.support.cluster.faulty_api import faulty_api
from tests.support.cluster.operators import operator, wait_for
from tests.support.simulation import controllers
from tests.upgrade import sources
from tests.upgrade.contents import Contents, contents, write_contents
from tests.upgrade.movers import owner_name, run_mover, volume_of

NAMESPACE = "shop"
CONTAINER = "volumebackups"
ENDPOINT = "http://s3.example.com:7070"
"""Stands in everything recorded for the address of the S3 server."""
RUNNING = "running"
"""Name of the VolumeBackup whose mover ends only after the upgrade."""
RESTORING = "restoring"
"""Name of the VolumeRestore whose mover ends only after the upgrade, and of the claim that it makes."""
NOWHERE = "http://127.0.0.1:9"
"""Where no S3 server answers: a store moves there before the upgrade."""
KINDS = (
    "storageclasses,volumesnapshotclasses,persistentvolumes,persistentvolumeclaims,secrets,"
    "backupstores,volumebackups,volumerestores,volumesnapshots,jobs,pods"
)
KEYS = {"2024": base64.b64encode(b"k" * 32).decode(), "2025": base64.b64encode(b"l" * 32).decode()}

Object = dict[str, Any]


@dataclass
class RecordedCluster(controllers.Cluster):
    """A cluster whose movers are real, two of which nobody sees end.

    Attributes:
        volumes: folder with the directories that stand for volumes.
        secrets: data of the Secrets that movers mount.
        messages: what the movers that nobody sees end have left as termination messages, by the name of their owner.
    """

    volumes: Path = Path()
    secrets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    async def _job(self, client: KubeClient, body: Object) -> None:
        name = owner_name(body)
        if name not in (RUNNING, RESTORING):
            await super()._job(client, body)
        elif name not in self.messages and not body["spec"].get("suspend"):
            pod = controllers._pod_of(body)
            await client.create(kinds.POD, pod)
            seen = {"name": "mover", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
            state = {"state": {"running": {"startedAt": controllers._now()}}}
            await controllers._status(client, kinds.POD, pod, {"phase": "Running", "containerStatuses": [seen | state]})
            self.messages[name] = self._run(body)

    def move(self, job: Object) -> controllers.MoverEnd:
        """See Cluster: run the program of the Job."""
        return controllers.MoverEnd(0, self._run(job))

    def _move(self, job: Object) -> MoverReport:
        """Do the same in the words of release 0.1.0."""
        return MoverReport.model_validate_json(self._run(job))

    def _run(self, job: Object) -> str:
        with tempfile.TemporaryDirectory() as scratch:
            code, message = run_mover(job, volume_of(job, self.volumes), self.secrets, Path(scratch))
        if code:
            raise SystemExit(f"the mover of {owner_name(job)} ended with {code}: {message}")
        return message


@dataclass
class Story:
    """The actions of the release's users, and their results.

    Attributes:
        kubeconfig: the administrator's.
        volumes: folder with the directories that stand for volumes.
        manifests: objects that users have applied and not deleted, by name.
        expected: the content of each backup, by the name of its VolumeBackup.
    """

    kubeconfig: Path
    volumes: Path
    endpoint: str
    manifests: dict[str, Object] = field(default_factory=dict)
    expected: dict[str, Contents] = field(default_factory=dict)

    def run(self) -> None:
        """Do everything that ends while the release runs."""
        files, notes, disk, ledger = (self.volumes / name for name in ("files", "notes", "disk", "ledger"))
        for folder in (files, notes, ledger):
            sources.make_tree(folder)
        sources.make_device(disk)
        for name, mode in {
            "files": "Filesystem",
            "notes": "Filesystem",
            "ledger": "Filesystem",
            "disk": "Block",
        }.items():
            self.apply(a_claim(name, mode))
        self.apply(a_store("vault", {"encryptionSecretRef": {"name": "keys"}}, default=True))
        self.apply(a_store("plain", {}))
        self.apply(a_store("grown", {}))
        self.apply(a_store("away", {}))
        self.back_up("files-full", "files")
        self.back_up("notes-full", "notes", storeName="plain")
        self.back_up("disk-full", "disk", description="of a device", metadata={"tier": "gold"})
        self.back_up("before-keys", "notes", storeName="grown")
        self.back_up("away-full", "notes", storeName="away")
        unsealed = self.leave("left-unsealed", "notes", storeName="grown")
        sealed = self.leave("left-sealed", "files")
        self.apply(a_store("grown", {"encryptionSecretRef": {"name": "keys"}}))
        sources.change_tree(files)
        sources.change_tree(notes)
        sources.change_device(disk)
        self.back_up("files-second", "files", incremental=True)
        self.back_up("notes-second", "notes", storeName="plain", incremental=True)
        self.back_up("disk-second", "disk", incremental=True, deletionPolicy="Retain")
        self.back_up("since-keys", "notes", storeName="grown")
        sources.change_again(files)
        self.back_up("files-third", "files", incremental=True, name="Nightly")
        self.adopt("adopted", *sealed, deletionPolicy="Delete")
        self.adopt("adopted-unsealed", *unsealed, storeName="grown")
        full = self.get("volumebackup", "files-full")["status"]["manifestKey"]
        self.adopt("second-name", self.expected["files-full"], {"id": "another-id", "manifest": full})
        self.want(a_backup("refused", {"volumeId": "absent"}), "error")
        self.want(a_restore("restored", {"backupId": "files-second", "name": "files-again"}), "available")
        self.want(a_restore("not-restored", {"backupId": "absent", "name": "never"}), "error_restoring")
        self.apply(a_restore(RESTORING, {"backupId": "files-full", "name": RESTORING}))
        self.apply(a_backup(RUNNING, {"volumeId": "ledger"}))
        self.expected[RUNNING] = contents(ledger)
        self.kubectl("delete", "volumebackup", "notes-full", "--wait=false")
        self.await_phase("volumebackup", "notes-full", "deleting")

    def tell_rest(self) -> None:
        """Do what happens while no operator runs: a backup is to be adopted that is not sealed, and a store moves."""
        stored = self.get("volumebackup", "adopted-unsealed")["status"]
        wanted = {"id": "asked-late", "manifest": stored["manifestKey"]}
        self.apply(a_backup("late-unsealed", {"import": wanted, "storeName": "grown"}))
        self.apply(a_store("away", {"endpointUrl": NOWHERE}))
        self.expected["late-unsealed"] = self.expected["adopted-unsealed"]

    def back_up(self, name: str, volume: str, /, **spec: Any) -> None:
        """Make a backup, and note what it holds."""
        self.want(a_backup(name, {"volumeId": volume} | spec), "available")
        self.expected[name] = contents(self.volumes / volume)

    def leave(self, name: str, volume: str, /, **spec: Any) -> tuple[Contents, Object]:
        """Make a backup whose data outlives its VolumeBackup. Returns what it holds, and what adopts it."""
        self.want(a_backup(name, {"volumeId": volume, "deletionPolicy": "Retain"} | spec), "available")
        found = self.get("volumebackup", name)["status"]["id"]
        self.kubectl("delete", "volumebackup", name)
        del self.manifests[name]
        return contents(self.volumes / volume), {"id": found}

    def adopt(self, name: str, holds: Contents, stored: Object, /, **spec: Any) -> None:
        """Import a stored backup."""
        self.want(a_backup(name, {"import": stored} | spec), "available")
        self.expected[name] = holds

    def want(self, body: Object, phase: str) -> None:
        """Apply an object and wait for its phase."""
        self.apply(body)
        self.await_phase(body["kind"].lower(), body["metadata"]["name"], phase)

    def await_phase(self, kind: str, name: str, phase: str) -> None:
        """Wait until an object has a phase."""
        wait_for(f"{phase} of {name}", lambda: self.get(kind, name).get("status", {}).get("phase") == phase)

    def apply(self, body: Object) -> None:
        """Apply an object as a user does."""
        self.manifests[body["metadata"]["name"]] = body
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body).replace(ENDPOINT, self.endpoint))

    def get(self, kind: str, name: str) -> Object:
        """Return an object."""
        found: Object = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace."""
        command = [str(tool("kubectl")), "--kubeconfig", str(self.kubeconfig), "-n", NAMESPACE, *arguments]
        return subprocess.run(command, input=stdin, check=True, stdout=subprocess.PIPE, text=True).stdout


def a_claim(name: str, mode: str) -> Object:
    """Return a user's claim."""
    body = controllers.a_claim(NAMESPACE, name)
    body["spec"]["volumeMode"] = mode
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | body


def a_store(name: str, spec: Object, *, default: bool = False) -> Object:
    """Return a store on the S3 server.

    Its rules suit drivers that copy files and change ctimes and inodes, as this test does.
    """
    annotations = {"cinderblock.io/is-default-store": "true"} if default else {}
    usual = {
        "endpointUrl": ENDPOINT,
        "container": CONTAINER,
        "prefix": name,
        "credentialsSecretRef": {"name": "s3"},
        "changeDetection": {"storageClasses": {controllers.CLASS: "SizeMtime"}},
    }
    return _ours("BackupStore", name, usual | spec, annotations)


def a_backup(name: str, spec: Object) -> Object:
    """Return a VolumeBackup."""
    return _ours("VolumeBackup", name, spec, {})


def a_restore(name: str, spec: Object) -> Object:
    """Return a VolumeRestore."""
    return _ours("VolumeRestore", name, spec, {})


def _ours(kind: str, name: str, spec: Object, annotations: Object) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE} | ({"annotations": annotations} if annotations else {})
    return {"apiVersion": "cinderblock.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def a_secret(name: str, data: dict[str, str]) -> Object:
    """Return a Secret of the namespace."""
    metadata = {"name": name, "namespace": NAMESPACE}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded}


def record(directory: Path) -> None:
    """Make everything, and write it down below ``directory``."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (volumes := scratch / "volumes").mkdir()
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))
        story = Story(server.kubeconfig, volumes, store.url)
        credentials = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
        _furnish(story, credentials)
        cluster = RecordedCluster(server, store, volumes=volumes)
        for name, data in (("s3", credentials), ("keys", KEYS)):
            cluster.secrets[name] = {key: value.encode() for key, value in data.items()}
        with mock.patch.object(controllers, "Cluster", return_value=cluster):
            stack.enter_context(controllers.controllers(server, store))
        line = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        kubeconfig = kubeconfigs.write(scratch / "kubeconfig", line.url, server.authority, server.token)
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": "default"}
        process = stack.enter_context(operator(line, scratch, "operator", kubeconfig, **settings))
        story.run()
        wait_for("end of the movers that nobody sees", lambda: len(cluster.messages) == 2)
        for kind, name in (("volumebackup", RUNNING), ("volumerestore", RESTORING)):
            wait_for(f"word of {name}", lambda k=kind, n=name: "MoverRunning" in json.dumps(story.get(k, n)))
        process.send(signal.SIGTERM)
        process.ended()
        story.tell_rest()
        _write(directory, story, store, cluster)


def _furnish(story: Story, credentials: dict[str, str]) -> None:
    story.kubectl("create", "namespace", NAMESPACE)
    story.kubectl("apply", "--server-side", "-f", "crds/backupstores.yaml", "-f", "crds/volumebackups.yaml",
                  "-f", "crds/volumerestores.yaml")  # fmt: skip
    for kind in ("backupstores", "volumebackups", "volumerestores"):
        story.kubectl("wait", "--for=condition=Established", f"crd/{kind}.cinderblock.io")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": NAMESPACE}}
    classes: list[Object] = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": controllers.CLASS},
            "provisioner": controllers.DRIVER,
        },
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": controllers.CLASS},
            "driver": controllers.DRIVER,
            "deletionPolicy": "Delete",
        },
    ]
    for body in (account, a_secret("s3", credentials)):
        story.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    for body in classes:
        story.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    story.apply(a_secret("keys", KEYS))


def _write(directory: Path, story: Story, store: s3.S3Server, cluster: RecordedCluster) -> None:
    objects = json.loads(story.kubectl("get", KINDS, "-o", "json", "--show-managed-fields"))["items"]
    kept = [item for item in objects if (item["kind"], item["metadata"]["name"]) != ("Secret", "s3")]
    for item in kept:
        del item["metadata"]["resourceVersion"]
    _dump(directory / "objects.yaml", kept, story.endpoint)
    _dump(directory / "manifests.yaml", list(story.manifests.values()), story.endpoint)
    for name in ("backupstores", "volumebackups", "volumerestores"):
        target = directory / "crds" / f"{name}.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Path("crds", f"{name}.yaml").read_text())
    write_contents(directory / "contents.json", story.expected)
    (directory / "termination-messages.json").write_text(json.dumps(cluster.messages, indent=1) + "\n")
    location = StoreLocation(endpoint_url=store.url, container=CONTAINER)
    opened = open_store(location, S3Credentials(store.access_key, store.secret_key))
    for info in opened.list(""):
        path = directory / "bucket" / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(opened.get(info.key))
    opened.close()


def _dump(path: Path, bodies: list[Object], endpoint: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(bodies, sort_keys=False, width=200).replace(endpoint, ENDPOINT))


if __name__ == "__main__":
    record(Path(sys.argv[1]))
