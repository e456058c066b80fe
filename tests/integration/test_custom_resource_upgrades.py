"""Objects that exist when the CustomResourceDefinitions of a release are replaced by ours, on a real API server."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.api.labels import MANAGED_BY, MANAGED_BY_LABEL, STORE_FINALIZER
from cinderblock.errors import AccessDenied, InvalidInput, NotFound
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import BACKUP_STORE
from cinderblock.kube.kinds import NAMESPACE as NAMESPACE_KIND
from tests.cluster import apiserver
from tests.cluster.toolchain import tool
from tests.support.cluster.admission import enforce, lift, wait_until_enforced
from tests.support.cluster.chart import render
from tests.support.cluster.kubectl import kubectl
from tests.support.cluster.rights import all_rights, connect_as

pytestmark = pytest.mark.integration

NAMESPACE = "default"
OLD = "tests/data/releases/0.1.0/crds"
SPEC = {"credentialsSecretRef": {"name": "s3"}}

UNKNOWN_FIELDS: dict[str, Any] = {
    "resources": {"limits": {"memory": "1Gi"}, "tomorrow": {"a": [1, {"b": None}]}},
    "tolerations": [{"key": "backup", "operator": "Exists", "tomorrow": {"deep": True}}],
    "affinity": {
        "tomorrow": 1,
        "nodeAffinity": {
            "tomorrow": 2,
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"tomorrow": 3}]},
        },
    },
    "securityContext": {"runAsUser": 1000, "capabilities": {"drop": ["ALL"], "tomorrow": 4}},
    "podSecurityContext": {"fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault", "tomorrow": 5}},
}
"""Values of spec.mover with fields that the new schema does not name."""

REFUSED_VALUES: dict[str, dict[str, Any]] = {
    "wrong-types": {"tolerations": [{"key": 5}], "securityContext": {"runAsUser": "1000"}},
    "wrong-words": {"tolerations": [{"key": "a", "effect": "Never"}], "resources": {"limits": {"memory": "1GB"}}},
    "fractions": {"resources": {"limits": {"cpu": 0.5}}},
    "missing-fields": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}},
    "wrong-containers": {"affinity": {"podAffinity": []}, "podSecurityContext": {"seccompProfile": "RuntimeDefault"}},
}
"""Values of spec.mover that the release accepted, and that the new schema refuses."""

STORED = {"unknown-fields": UNKNOWN_FIELDS} | REFUSED_VALUES

CORRECTED = {f"corrected-{name}": REFUSED_VALUES[name] for name in ("wrong-types", "wrong-containers")}
"""The same for objects that a test corrects."""


@pytest.fixture(scope="module")
def kubeconfig() -> Iterator[Path]:
    """Return the kubeconfig of an API server that had the release's definitions, and has ours now."""
    with apiserver.running() as server:
        kubectl(server.kubeconfig, "apply", "-f", OLD)
        kubectl(server.kubeconfig, "wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
        asyncio.run(create_objects(server.kubeconfig))
        kubectl(server.kubeconfig, "apply", "-f", "crds")
        asyncio.run(until_refused(server.kubeconfig))
        yield server.kubeconfig


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with aclosing(await connect(kubeconfig=str(kubeconfig))) as connected:
        yield connected


async def create_objects(kubeconfig: Path) -> None:
    """Create a BackupStore for each example, as soon as the API server serves the kind."""
    async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client, asyncio.timeout(30):
        for name, mover in (STORED | CORRECTED).items():
            body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": SPEC | {"mover": mover}}
            while True:
                try:
                    await client.create(BACKUP_STORE, copy.deepcopy(body))
                    break
                except NotFound:
                    await asyncio.sleep(0.1)


async def until_refused(kubeconfig: Path) -> None:
    """Wait until the API server validates with the new schema."""
    body = {
        "metadata": {"generateName": "x-", "namespace": NAMESPACE},
        "spec": SPEC | {"mover": {"tolerations": [{"key": 5}]}},
    }
    async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client, asyncio.timeout(30):
        while True:
            try:
                created = await client.create(BACKUP_STORE, copy.deepcopy(body))
            except InvalidInput:
                return
            kubectl(kubeconfig, "delete", "backupstore", "-n", NAMESPACE, created["metadata"]["name"])
            await asyncio.sleep(0.1)


def a_status(generation: int, *types: str) -> dict[str, Any]:
    usual = {"status": "True", "reason": "Answers", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"observedGeneration": generation, "conditions": [usual | {"type": kind} for kind in types]}


@pytest.mark.parametrize("name", STORED)
async def test_status_write_keeps_the_mover_of_a_stored_object(client: KubeClient, name: str) -> None:
    """The operator writes a status by server-side apply."""
    before = await client.get(BACKUP_STORE, name, NAMESPACE)
    assert before is not None
    uid, generation = before["metadata"]["uid"], before["metadata"]["generation"]
    written = await client.apply_status(BACKUP_STORE, name, NAMESPACE, a_status(generation, "Ready"), uid=uid)
    assert written["status"]["conditions"][0]["reason"] == "Answers"
    after = await client.get(BACKUP_STORE, name, NAMESPACE)
    assert after is not None
    assert after["spec"]["mover"] == before["spec"]["mover"] == STORED[name]
    assert after["metadata"]["generation"] == generation


@pytest.mark.parametrize("name", CORRECTED)
async def test_status_stays_exact_after_a_wrong_type_is_corrected(client: KubeClient, name: str) -> None:
    """Server-side apply fails until then, and the other writes have cleared who owns which condition."""
    found = await client.get(BACKUP_STORE, name, NAMESPACE)
    assert found is not None
    uid = found["metadata"]["uid"]
    for types in (("Ready", "Reconciling"), ("Ready", "Stalled")):
        written = await client.apply_status(BACKUP_STORE, name, NAMESPACE, a_status(1, *types), uid=uid)
        assert written["status"] == a_status(1, *types)
    await client.merge_patch(BACKUP_STORE, name, NAMESPACE, {"spec": {"mover": dict.fromkeys(CORRECTED[name])}})
    for types in (("Ready",), ("Ready", "Reconciling"), ("Ready",)):
        written = await client.apply_status(BACKUP_STORE, name, NAMESPACE, a_status(1, *types), uid=uid)
        assert written["status"] == a_status(1, *types)


@pytest.mark.parametrize("name", STORED)
async def test_finalizer_of_a_stored_object_can_be_added_and_removed(client: KubeClient, name: str) -> None:
    for finalizers in (["cinderblock.io/store-in-use"], []):
        patch = {"metadata": {"finalizers": finalizers}}
        changed = await client.merge_patch(BACKUP_STORE, name, NAMESPACE, patch)
        assert changed["metadata"].get("finalizers", []) == finalizers
        assert changed["spec"]["mover"] == STORED[name]


@pytest.mark.parametrize("name", STORED)
async def test_other_fields_of_a_stored_object_can_change(client: KubeClient, name: str) -> None:
    changed = await client.merge_patch(BACKUP_STORE, name, NAMESPACE, {"spec": {"region": "eu-central-1"}})
    assert changed["spec"]["region"] == "eu-central-1"
    assert changed["spec"]["mover"] == STORED[name]


@pytest.mark.parametrize("name", REFUSED_VALUES)
async def test_refused_value_cannot_be_written_again(client: KubeClient, name: str) -> None:
    body = {"metadata": {"name": f"new-{name}", "namespace": NAMESPACE}, "spec": SPEC | {"mover": STORED[name]}}
    with pytest.raises(InvalidInput, match=r"spec\.mover\."):
        await client.create(BACKUP_STORE, body)


@pytest.mark.parametrize("name", ["backupstores", "volumebackups", "volumerestores"])
def test_definition_was_applied_by_the_client(kubeconfig: Path, name: str) -> None:
    """kubectl keeps the whole definition in an annotation, which would fail if it were too large."""
    found = yaml.safe_load(kubectl(kubeconfig, "get", "crd", f"{name}.cinderblock.io", "-o", "yaml").stdout)
    annotation = found["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert "app.kubernetes.io/version" in annotation
    assert len(annotation) < 128 << 10


def test_rollback_of_definitions_loses_holds_and_keeps_schedules() -> None:
    """The guide says so (docs/guide/upgrade.md, Roll back), and its commands hold the backups again."""
    save, restore, _ = _commands_of_the_guide()
    with apiserver.running() as server:
        apply = ("apply", "--server-side", "--force-conflicts", "-f")
        kubectl(server.kubeconfig, *apply, "crds")
        kubectl(server.kubeconfig, "wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
        for name in ("written", "untouched"):
            _create(server.kubeconfig, "VolumeBackup", name, {"volumeId": "data", "hold": True})
        _create(server.kubeconfig, "BackupSchedule", "daily", {"schedule": "@daily"})
        held = _shell(server.kubeconfig, save)
        kubectl(server.kubeconfig, *apply, OLD)
        _wait_for(lambda: _holds(server.kubeconfig) == {"written": None, "untouched": None})
        kubectl(server.kubeconfig, "annotate", "volumebackup", "written", "example.com/written=yes")
        kubectl(server.kubeconfig, *apply, "crds")
        _wait_for(lambda: _holds(server.kubeconfig) == {"written": False, "untouched": True})
        assert "daily" in kubectl(server.kubeconfig, "get", "backupschedules").stdout
        _shell(server.kubeconfig, restore, held)
        assert _holds(server.kubeconfig) == {"written": True, "untouched": True}


def test_rollback_of_definitions_breaks_stores_until_they_are_deleted() -> None:
    *_, repair = _commands_of_the_guide()
    reference = {"clusterStoreRef": {"name": "shared"}}
    metadata = {"labels": {MANAGED_BY_LABEL: MANAGED_BY}, "finalizers": [STORE_FINALIZER]}
    with apiserver.running() as server:
        apply = ("apply", "--server-side", "--force-conflicts", "-f")
        kubectl(server.kubeconfig, *apply, "crds")
        kubectl(server.kubeconfig, "wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
        _create(server.kubeconfig, "BackupStore", "shared", reference, metadata)
        kubectl(server.kubeconfig, *apply, OLD)
        _wait_for(lambda: "clusterStoreRef" not in _spec_of_the_store(server.kubeconfig))
        kubectl(server.kubeconfig, "annotate", "backupstore", "shared", "example.com/written=yes")
        kubectl(server.kubeconfig, *apply, "crds")
        _wait_for(lambda: "renewBelow" in _spec_of_the_store(server.kubeconfig))
        assert "clusterStoreRef" not in _spec_of_the_store(server.kubeconfig)
        _shell(server.kubeconfig, repair)
        _create(server.kubeconfig, "BackupStore", "shared", reference)
        assert "clusterStoreRef" in _spec_of_the_store(server.kubeconfig)


def _spec_of_the_store(kubeconfig: Path) -> str:
    return kubectl(kubeconfig, "get", "backupstore", "shared", "-o", "jsonpath={.spec}").stdout


def _commands_of_the_guide() -> tuple[str, str, str]:
    page = Path("docs/guide/upgrade.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page.partition("### Roll back")[2], re.DOTALL)
    save, restore, repair = (block.replace("> held", "").replace("< held", "") for block in blocks[:3])
    return save, restore, repair


def _shell(kubeconfig: Path, command: str, stdin: str = "") -> str:
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PATH": f"{tool('kubectl').parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-ec", command], input=stdin, capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout


def _create(
    kubeconfig: Path, kind: str, name: str, spec: dict[str, Any], metadata: dict[str, Any] | None = None
) -> None:
    named = {"name": name} | (metadata or {})
    body = {"apiVersion": "cinderblock.io/v1alpha1", "kind": kind, "metadata": named, "spec": spec}
    _shell(kubeconfig, "kubectl create -f -", yaml.safe_dump(body))


def _holds(kubeconfig: Path) -> dict[str, bool | None]:
    found = json.loads(kubectl(kubeconfig, "get", "volumebackups", "-o", "json").stdout)["items"]
    return {item["metadata"]["name"]: item["spec"].get("hold") for item in found}


def _wait_for(is_true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < limit
        time.sleep(0.2)


async def test_policies_accept_writes_to_stored_objects_that_no_longer_fit(
    client: KubeClient, kubeconfig: Path, tmp_path: Path
) -> None:
    release = "backup-system"
    policies = render(namespace=release)
    await client.create(NAMESPACE_KIND, {"metadata": {"name": release}})
    for account in ("cinderblock", "tenant"):
        await all_rights(client, release, account)
    await enforce(client, policies)
    async with (
        aclosing(await connect_as(kubeconfig, release, "cinderblock", tmp_path)) as operator,
        aclosing(await connect_as(kubeconfig, release, "tenant", tmp_path)) as tenant,
    ):
        await wait_until_enforced(operator, release)
        for name in STORED:
            held = {"metadata": {"finalizers": [STORE_FINALIZER]}}
            await operator.merge_patch(BACKUP_STORE, name, NAMESPACE, held)
            noted = {"metadata": {"annotations": {"note": "x"}}}
            await tenant.merge_patch(BACKUP_STORE, name, NAMESPACE, noted)
            with pytest.raises(AccessDenied, match="Only Cinderblock may"):
                await tenant.merge_patch(BACKUP_STORE, name, NAMESPACE, {"metadata": {"finalizers": []}})
            await operator.merge_patch(BACKUP_STORE, name, NAMESPACE, {"metadata": {"finalizers": []}})
    await lift(client, policies)
