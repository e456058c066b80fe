"""A cluster that a recorded release has left, upgraded to what is in this tree."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cinderblock.api.crd.definitions import RESOURCES, definition
from cinderblock.api.layout import owner_key
from cinderblock.api.mover import StoreLocation
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.apiserver import ApiServer
from tests.cluster.toolchain import tool
from tests.support.cluster.faulty_api import faulty_api
from tests.support.cluster.kubectl import ROOT
from tests.support.cluster.metrics import samples
from tests.support.cluster.operators import PATIENCE, OperatorProcess, operator, wait_for
from tests.support.simulation.controllers import Cluster, MoverEnd, running
from tests.upgrade.movers import Secrets, owner_name, run_mover, volume_of
from tests.upgrade.recording import CONTAINER, KEYS, NAMESPACE, a_backup, a_restore, a_secret
from tests.upgrade.release import Release

Object = dict[str, Any]


@dataclass
class UpgradedCluster(Cluster):
    """A cluster whose movers are real, and where recorded movers end as they ended then.

    Attributes:
        volumes: folder of what stands for volumes.
        secrets: data of the Secrets that movers mount.
        messages: the termination messages of recorded movers, by the name of their owner.
    """

    volumes: Path = Path()
    secrets: Secrets = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def move(self, job: Object) -> MoverEnd:
        """See Cluster: run the program of the Job."""
        if owner_name(job) in self.messages:
            return MoverEnd(0, self.messages[owner_name(job)])
        with tempfile.TemporaryDirectory() as scratch:
            return MoverEnd(*run_mover(job, volume_of(job, self.volumes), self.secrets, Path(scratch)))


@dataclass
class Upgrade:
    """The cluster after the upgrade, and what is known of it from before.

    Attributes:
        release: what was there.
        before: BLAKE2 of each object of the bucket, by key, as the release left it.
        volumes: folder of what stands for volumes; a restored one has the name of its VolumeRestore.
    """

    release: Release
    server: ApiServer
    store: ObjectStore
    cluster: UpgradedCluster
    operator: OperatorProcess
    before: dict[str, str]
    volumes: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace; returns what it prints. Raises AssertionError with what it says if it fails."""
        return _kubectl(self.server, *arguments, stdin=stdin)

    def get(self, kind: str, name: str) -> Object:
        """Return an object."""
        found: Object = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def await_phase(self, phase: str, kind: str, *names: str) -> None:
        """Wait until objects have a phase. On a busy machine, a dozen movers at once need over a minute."""
        until = (f"--for=jsonpath={{.status.phase}}={phase}", f"--timeout={4 * PATIENCE:.0f}s")
        try:
            self.kubectl("wait", *until, kind, *names)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.kubectl('get', kind, *names, '-o', 'yaml')}") from None

    def await_quiet(self) -> None:
        """Wait until the operator has reconciled every store, and has nothing left to do."""
        wait_for("rest of the operator", self._is_quiet)

    def bucket(self) -> dict[str, str]:
        """Return a digest of each object of the bucket, by key, except owner markers, which 0.1.0 did not have."""
        return _digests(self.store)

    def back_up(self, name: str, volume: str) -> None:
        """Make an incremental backup."""
        wanted = a_backup(name, {"volumeId": volume, "incremental": True})
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(wanted))
        self.await_phase("available", "VolumeBackup", name)

    def restore(self, *backups: str) -> None:
        """Restore backups to new volumes; the VolumeRestores have the names that `restored` gives them."""
        bodies = [a_restore(restored(name), {"backupId": name, "name": restored(name)}) for name in backups]
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(bodies))
        self.await_phase("available", "volumerestore", *map(restored, backups))

    def _is_quiet(self) -> bool:
        url = f"http://127.0.0.1:{self.operator.metrics_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                page = samples(answer.read().decode())
        except TimeoutError:
            return False
        looks = page.value("reconcile_duration_seconds_count", kind="BackupStore", result="success") or 0
        stores = sum(body["kind"] == "BackupStore" for body in self.release.objects)
        busy = [page.value("queue_keys", state=state) for state in ("due", "running")]
        return looks >= stores and busy == [0, 0]


def restored(backup: str) -> str:
    """Return the name of what a backup is restored to."""
    return f"from-{backup}"


@contextmanager
def upgraded(directory: Path, scratch: Path) -> Iterator[Upgrade]:
    """Install a recorded release, and upgrade it as docs/guide/upgrade.md says: definitions first, then the operator.

    The mover that the release has left running ends when the operator has taken over.
    """
    with ExitStack() as stack:
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        s3_server = stack.enter_context(s3.running("--keep-alive"))
        release = Release(directory, s3_server.url)
        credentials = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
        store = _bucket(s3_server)
        stack.enter_context(closing(store))
        release.fill(store)
        before = _digests(store)
        _install_definitions(server, release.definitions)
        _kubectl(server, "create", "namespace", NAMESPACE)
        for body in (_SERVICE_ACCOUNT, a_secret("s3", credentials)):
            _kubectl(server, "apply", "-f", "-", stdin=yaml.safe_dump(body))
        release.put_in_place(server.etcd)

        _install_definitions(server, ROOT / "crds")
        wait_for("the new definitions", lambda: _serves_new_definitions(server))
        (volumes := scratch / "volumes").mkdir()
        cluster = UpgradedCluster(server, s3_server, volumes=volumes, messages=release.messages)
        cluster.secrets = {
            name: {key: value.encode() for key, value in data.items()}
            for name, data in (("s3", credentials), ("keys", KEYS))
        }
        cluster.hold("Job")
        stack.enter_context(running(cluster))
        line = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        kubeconfig = kubeconfigs.write(scratch / "kubeconfig", line.url, server.authority, server.token)
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": "default"}
        process = stack.enter_context(operator(line, scratch, "operator", kubeconfig, **settings))
        upgrade = Upgrade(release, server, store, cluster, process, before, volumes)
        wait_for("readiness", process.is_ready)
        upgrade.await_quiet()
        cluster.release("Job")
        yield upgrade


_SERVICE_ACCOUNT: Object = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": "default", "namespace": NAMESPACE},
}


def _bucket(server: s3.S3Server) -> ObjectStore:
    location = StoreLocation(endpoint_url=server.url, container=CONTAINER, create_container=True)
    store = open_store(location, S3Credentials(server.access_key, server.secret_key))
    store.check()
    return store


def _digests(store: ObjectStore) -> dict[str, str]:
    keys = [info.key for info in store.list("") if not f"/{info.key}".endswith(f"/{owner_key('')}")]
    return {key: hashlib.blake2b(store.get(key)).hexdigest() for key in keys}


def _install_definitions(server: ApiServer, folder: Path) -> None:
    files = [word for path in sorted(folder.glob("*.yaml")) for word in ("-f", str(path))]
    _kubectl(server, "apply", "--server-side", "--force-conflicts", *files)
    names = [f"crd/{path.stem}.cinderblock.io" for path in sorted(folder.glob("*.yaml"))]
    _kubectl(server, "wait", "--for=condition=Established", "--timeout=30s", *names)


def _serves_new_definitions(server: ApiServer) -> bool:
    """Return whether the API server describes our kinds with all their present fields, which takes a moment."""
    described = json.loads(_kubectl(server, "get", "--raw", "/openapi/v3/apis/cinderblock.io/v1alpha1"))
    schemas = described["components"]["schemas"]
    for resource in RESOURCES:
        [version] = definition(resource)["spec"]["versions"]
        served = schemas[f"io.cinderblock.v1alpha1.{resource.kind}"]["properties"]
        for part, schema in version["schema"]["openAPIV3Schema"]["properties"].items():
            if schema.get("properties", {}).keys() != served[part].get("properties", {}).keys() and part != "metadata":
                return False
    return True


def _kubectl(server: ApiServer, *arguments: str, stdin: str | None = None) -> str:
    command = [str(tool("kubectl")), "--kubeconfig", str(server.kubeconfig), "-n", NAMESPACE, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout
