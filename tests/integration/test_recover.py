"""``cinderblock recover`` in an empty cluster: a real API server, a real S3 server, and the operator itself.

The bucket holds encrypted backups of a cluster that no longer exists, and its BackupStore is read-only.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.api.mover import StoreLocation
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from tests.cluster import apiserver, kubeconfigs, s3
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import faulty_api
from tests.support.cluster.operators import operator, wait_for
from tests.support.cluster.rights import call_as_admin
from tests.support.mover.backups import KEYS
from tests.support.mover.mover_pods import PROGRAM
from tests.support.recovery.lost_clusters import damage_manifest, put
from tests.support.simulation.controllers import Cluster, a_claim, controllers, furnish, furnish_namespace

pytestmark = pytest.mark.integration

NAMESPACE, OTHER, BUCKET, KEY_ID = "shop", "new-shop", "lost-cluster", "2024"
CLAIMS = [f"data-db-{number}" for number in range(3)]

Call = Callable[[Callable[[KubeClient], Any]], Any]


@dataclass(frozen=True)
class NewCluster:
    """A new cluster.

    Attributes:
        call: runs a function with the administrator's client.
        controllers: the controllers of the cluster.
        environment: of the command line.
        place: options for the bucket and the key.
        newest: id of the newest whole backup of each claim.
        objects: returns the keys in the bucket with their times.
    """

    call: Call
    controllers: Cluster
    environment: dict[str, str]
    place: tuple[str, ...]
    newest: dict[str, str]
    objects: Callable[[], dict[str, int]]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command line that does not inherit ignored signals, for example from nohup."""
        command = ["env", "--default-signal", PROGRAM, "recover", *words, *self.place]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command line, and return its output."""
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, (out, err)
        return str(out)

    def names(self, kind: kinds.Kind, namespace: str = NAMESPACE) -> dict[str, str]:
        """Return the UIDs of all objects of a kind, by name."""
        found = self.call(lambda client: client.list(kind, namespace))
        return {body["metadata"]["name"]: body["metadata"]["uid"] for body in found}


def fill(store_location: StoreLocation, credentials: S3Credentials) -> dict[str, str]:
    """Store two whole backups of each claim, and a damaged one of the first. Returns the newest whole ones."""
    facts = {"volume_bytes": 1 << 20, "prefix": NAMESPACE, "namespace": NAMESPACE, "is_sealed": True}
    newest = {}
    with closing(open_store(store_location, credentials)) as store:
        store.check()
        for number, claim in enumerate(CLAIMS):
            labels = {"stateful_set": "db", "ordinal": number, "labels": {"app": "db"}}
            for hours in (1, 2):
                newest[claim] = put(store, claim, hours=hours, volume=f"volume-{number}", facts=labels, **facts)
        damage_manifest(store, put(store, CLAIMS[0], hours=3, volume="volume-0", **facts))
    return newest


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewCluster]:
    """Run an empty cluster, two of whose namespaces have a read-only BackupStore for the bucket of the lost one."""
    tmp_path = tmp_path_factory.mktemp("new-cluster")
    with ExitStack() as stack:
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))
        credentials = S3Credentials(store.access_key, store.secret_key)
        location = StoreLocation(endpoint_url=store.url, container=BUCKET, prefix=NAMESPACE, create_container=True)
        newest = fill(location, credentials)
        key = tmp_path / KEY_ID
        key.write_bytes(base64.b64encode(KEYS[KEY_ID]))

        async def prepare(client: KubeClient) -> None:
            for resource in RESOURCES:
                await install(client, resource)
            await furnish(client)
            for namespace in (NAMESPACE, OTHER):
                await furnish_namespace(client, namespace, store, BUCKET)
                metadata = {"name": "keys", "namespace": namespace}
                await client.create(kinds.SECRET, {"metadata": metadata, "stringData": {KEY_ID: key.read_text()}})
                made = await client.get(kinds.BACKUP_STORE, "default", namespace)
                assert made is not None
                await client.delete(kinds.BACKUP_STORE, "default", namespace)
                spec = {"prefix": NAMESPACE, "access": "ReadOnly", "encryptionSecretRef": {"name": "keys"}}
                metadata = {name: made["metadata"][name] for name in ("name", "namespace", "annotations")}
                await client.create(kinds.BACKUP_STORE, {"metadata": metadata, "spec": made["spec"] | spec})

        call_as_admin(server.kubeconfig, prepare)
        running = stack.enter_context(controllers(server, store))
        api = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        kubeconfig = kubeconfigs.write(tmp_path / "kubeconfig", api.url, server.authority, server.token)
        settings = {"CINDERBLOCK_LEASE_NAMESPACE": "default"}
        process = stack.enter_context(operator(api, tmp_path, "operator", kubeconfig, **settings))
        wait_for("readiness", process.is_ready)
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CINDERBLOCK_"))}
        environment = outside | {
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
            "KUBECONFIG": str(server.kubeconfig),
        }
        place = ("--from", f"s3://{BUCKET}/{NAMESPACE}", "--endpoint-url", store.url, "--encryption-key-file", str(key))
        objects = partial(times_of, store.directory)
        yield NewCluster(partial(call_as_admin, server.kubeconfig), running, environment, place, newest, objects)


def times_of(directory: Path) -> dict[str, int]:
    """Return the time of the last change of each file."""
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_stopped_and_killed_recovery_is_completed(cluster: NewCluster) -> None:
    stored = cluster.objects()
    cluster.call(lambda client: client.create(kinds.PVC, a_claim(NAMESPACE, CLAIMS[2])))
    existing = cluster.names(kinds.PVC)

    # No mover runs, so both runs are stopped in the middle.
    cluster.controllers.hold("Job")
    for number, (stop, code) in enumerate(((signal.SIGINT, 130), (signal.SIGKILL, -9)), start=1):
        process = cluster.start("apply", "--parallel", str(number))
        wait_for("restores", lambda n=number: len(cluster.names(kinds.VOLUME_RESTORE)) == n)
        process.send_signal(stop)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert stop is signal.SIGKILL or "Run the same command again" in err
    begun = cluster.names(kinds.VOLUME_RESTORE)
    cluster.controllers.release("Job")

    results = json.loads(cluster.run("apply", "--output", "json", code=5))
    assert {each["name"]: each["result"] for each in results} == {
        **dict.fromkeys(CLAIMS[:2], "restored"),
        CLAIMS[2]: "exists",
    }
    assert cluster.names(kinds.VOLUME_RESTORE) == begun
    assert len(cluster.names(kinds.VOLUME_BACKUP)) == 2
    assert cluster.names(kinds.PVC).items() > existing.items()
    claim = cluster.call(lambda client: client.get(kinds.PVC, CLAIMS[0], NAMESPACE))
    assert (claim["status"]["phase"], claim["metadata"]["labels"]["app"]) == ("Bound", "db")
    restored = cluster.call(lambda client: client.list(kinds.VOLUME_RESTORE, NAMESPACE))
    assert {each["status"]["backupId"] for each in restored} == {cluster.newest[name] for name in CLAIMS[:2]}
    assert cluster.objects() == stored


@pytest.mark.long
def test_plan_shows_the_state_of_the_cluster(cluster: NewCluster) -> None:
    words = ("plan", "--check-cluster", "--verify", "--output", "json", "--namespace-map", f"{NAMESPACE}=absent")
    plan = json.loads(cluster.run(*words, code=5))
    assert [(claim["namespace"], claim["name"]) for claim in plan["claims"]] == [("absent", name) for name in CLAIMS]
    assert {claim["name"]: claim["backup"]["id"] for claim in plan["claims"]} == cluster.newest
    assert all("namespace absent does not exist yet" in claim["notes"] for claim in plan["claims"])


@pytest.mark.long
def test_manifests_of_the_plan_are_accepted_in_another_namespace(cluster: NewCluster) -> None:
    words = ("plan", "--output", "manifests", "--namespace-map", f"{NAMESPACE}={OTHER}")
    for kind, resource in (("VolumeBackup", kinds.VOLUME_BACKUP), ("VolumeRestore", kinds.VOLUME_RESTORE)):
        bodies = list(yaml.safe_load_all(cluster.run(*words, "--kind", kind, code=5)))
        assert len(bodies) == len(CLAIMS)
        for body in bodies:
            cluster.call(lambda client, r=resource, b=body: client.create(r, b))
        for body in bodies:
            name = body["metadata"]["name"]
            wait_for(f"end of {name}", lambda n=name, r=resource: phase(cluster, r, n) == "available")
    assert set(cluster.names(kinds.PVC, OTHER)) == set(CLAIMS)


def phase(cluster: NewCluster, kind: kinds.Kind, name: str) -> str:
    found = cluster.call(lambda client: client.get(kind, name, OTHER))
    return str((found or {}).get("status", {}).get("phase"))
