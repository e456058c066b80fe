"""Our CustomResourceDefinitions on a real API server."""

from __future__ import annotations

import copy
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.crd.definitions import RESOURCES, CustomResource, definition
from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.backup_grant import BackupGrant
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.restore_source import RestoreSource
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.errors import InvalidInput
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import (
    BACKUP_GRANT,
    BACKUP_STORE,
    BACKUP_VERIFICATION,
    CLUSTER_BACKUP_STORE,
    RESTORE_SOURCE,
    VOLUME_BACKUP,
    VOLUME_RESTORE,
    Kind,
)
from tests.support.cluster.custom_resources import Case, conditions, examples, install, named
from tests.support.cluster.kubectl import kubectl

pytestmark = pytest.mark.integration

MODELS: dict[Kind, type[Object]] = {
    BACKUP_STORE: BackupStore,
    CLUSTER_BACKUP_STORE: ClusterBackupStore,
    VOLUME_BACKUP: VolumeBackup,
    VOLUME_RESTORE: VolumeRestore,
    BACKUP_VERIFICATION: BackupVerification,
    BACKUP_GRANT: BackupGrant,
    RESTORE_SOURCE: RestoreSource,
}
STORE = {"credentialsSecretRef": {"name": "s3"}}


async def create(
    client: KubeClient, kind: Kind, namespace: str, spec: dict[str, Any], name: str = ""
) -> dict[str, Any]:
    metadata = {"name": name or f"x-{uuid.uuid4().hex[:8]}", "namespace": namespace}
    return await client.create(kind, {"metadata": metadata, "spec": spec})


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)
async def test_definition_is_established_and_structural(client: KubeClient, resource: CustomResource) -> None:
    found = conditions(await install(client, resource))
    assert found["Established"] == "True"
    assert found["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in found


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)
async def test_server_stores_a_definition_unchanged(client: KubeClient, resource: CustomResource) -> None:
    found = await install(client, resource)
    ours = definition(resource)
    stored = copy.deepcopy(found["spec"])
    del stored["conversion"]
    assert stored == ours["spec"]
    assert found["metadata"]["labels"] == ours["metadata"]["labels"]


def test_files_apply_without_a_warning(kubeconfig: Path) -> None:
    done = kubectl(kubeconfig, "replace", "--dry-run=server", "-f", "crds")
    assert done.stderr == ""
    assert done.stdout.count("replaced (server dry run)") == len(RESOURCES)


def test_explain_describes_tolerations(kubeconfig: Path) -> None:
    explained = kubectl(kubeconfig, "explain", "backupstore.spec.mover.tolerations").stdout
    assert "Taints of nodes that mover pods tolerate. Defaults to no tolerations." in words(explained)
    for field in ("effect", "key", "operator", "tolerationSeconds", "value"):
        assert f"  {field}\t<" in explained
    assert "Effect indicates the taint effect to match." in words(explained)
    assert "enum: " in explained
    assert "NoExecute" in explained


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("backupstore.spec.mover.affinity.nodeAffinity", "Node affinity is a group of node affinity scheduling rules."),
        (
            "backupstore.spec.mover.resources.limits",
            "Limits describes the maximum amount of compute resources allowed.",
        ),
        ("backupstore.spec.mover.securityContext.runAsUser", "The UID to run the entrypoint of the container process."),
        ("backupstore.spec.mover.podSecurityContext.fsGroup", "A special supplemental group"),
        ("backupstore.spec.clusterStoreRef", "Leave out all other fields then."),
        ("clusterbackupstore", "Each has a place of its own in it."),
        ("clusterbackupstore.spec.allowedNamespaces", "Objects of each are below PREFIX/NAME/UID of the namespace."),
        ("clusterbackupstore.spec.moverAccess.mode", "It works with every S3 server."),
        ("clusterbackupstore.status.namespaces", "Number of namespaces that may use the store."),
        ("volumebackup.spec.deletionPolicy", "Whether stored data is deleted with the VolumeBackup"),
        ("volumerestore.status.completedAt", "Time when the restore became available or failed."),
    ],
)
def test_explain_describes_a_field(kubeconfig: Path, path: str, sentence: str) -> None:
    assert sentence in words(kubectl(kubeconfig, "explain", path).stdout)


def words(text: str) -> str:
    """Return a text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("case", examples("accepted"), ids=named)
async def test_example_is_accepted(client: KubeClient, namespace: str, case: Case) -> None:
    kind, _, spec = case
    created = await create(client, kind, namespace, spec)
    assert {key: created["spec"][key] for key in spec} == spec
    assert MODELS[kind].model_validate(created).name == created["metadata"]["name"]


@pytest.mark.parametrize("case", examples("rejected"), ids=named)
async def test_example_is_rejected_with_its_reason(client: KubeClient, namespace: str, case: Case) -> None:
    kind, _, example = case
    with pytest.raises(InvalidInput) as caught:
        await create(client, kind, namespace, example["spec"])
    assert example["because"] in caught.value.message


@pytest.mark.parametrize("case", examples("changed"), ids=named)
async def test_change_is_accepted_or_rejected(client: KubeClient, namespace: str, case: Case) -> None:
    kind, _, example = case
    created = await create(client, kind, namespace, example["from"])
    name = created["metadata"]["name"]
    if "because" not in example:
        changed = await client.merge_patch(kind, name, namespace, {"spec": example["to"]})
        assert changed["metadata"]["generation"] == created["metadata"]["generation"] + 1
        return
    with pytest.raises(InvalidInput) as caught:
        await client.merge_patch(kind, name, namespace, {"spec": example["to"]})
    assert example["because"] in caught.value.message
    assert await client.get(kind, name, namespace) == created


async def test_backup_gets_the_defaults_of_cinder(client: KubeClient, namespace: str) -> None:
    created = await create(client, VOLUME_BACKUP, namespace, {"volumeId": "data"})
    given = {"volumeId": "data", "incremental": False, "force": False, "unreadable": "Fail", "hold": False}
    assert created["spec"] == given


async def test_restore_is_strict_by_default(client: KubeClient, namespace: str) -> None:
    created = await create(client, VOLUME_RESTORE, namespace, {"backupId": "nightly"})
    assert created["spec"] == {"backupId": "nightly", "fidelity": "Strict"}


async def test_store_gets_the_defaults_of_inner_fields(client: KubeClient, namespace: str) -> None:
    created = await create(client, BACKUP_STORE, namespace, {**STORE, "compression": {"level": 3}})
    assert created["spec"] == {
        **STORE,
        "region": "us-east-1",
        "container": "volumebackups",
        "prefix": "",
        "access": "ReadWrite",
        "import": {"mode": "Never", "interval": "10m", "latestOnly": False},
        "createContainer": True,
        "addressing": "path",
        "compression": {"algorithm": "zstd", "level": 3},
        "changeDetection": {"default": "SizeMtimeCtimeInode"},
        "dirtyWindow": {"default": "1h"},
        "compareEvery": 30,
        "renewBelow": 50,
        "allowUnsealed": False,
    }


async def test_user_cannot_write_the_status_with_the_spec(client: KubeClient, namespace: str) -> None:
    body = {
        "metadata": {"name": "mine", "namespace": namespace},
        "spec": {"volumeId": "data"},
        "status": {"phase": "available"},
    }
    initial = {"observedGeneration": -1}
    assert (await client.create(VOLUME_BACKUP, body))["status"] == initial
    changed = await client.merge_patch(VOLUME_BACKUP, "mine", namespace, {"status": {"phase": "available"}})
    assert changed["status"] == initial


async def test_status_write_changes_neither_spec_nor_generation(client: KubeClient, namespace: str) -> None:
    created = await create(client, VOLUME_BACKUP, namespace, {"volumeId": "data"}, "mine")
    patch = {"spec": {"description": "sneaked in"}, "status": {"phase": "error"}}
    written = await client.merge_patch(VOLUME_BACKUP, "mine", namespace, patch, subresource="status")
    assert written["status"]["phase"] == "error"
    assert written["spec"] == created["spec"]
    assert written["metadata"]["generation"] == created["metadata"]["generation"]


async def test_second_condition_of_a_type_is_refused(client: KubeClient, namespace: str) -> None:
    await create(client, VOLUME_BACKUP, namespace, {"volumeId": "data"}, "mine")
    ready = {"type": "Ready", "status": "True", "reason": "Done", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    patch = {"status": {"conditions": [ready, ready]}}
    with pytest.raises(InvalidInput, match="Duplicate value"):
        await client.merge_patch(VOLUME_BACKUP, "mine", namespace, patch, subresource="status")


SELECTABLE = [
    (VOLUME_BACKUP, "status.phase", "available"),
    (VOLUME_BACKUP, "status.id", "id-1"),
    (VOLUME_BACKUP, "status.volumeId", "volume-1"),
    (VOLUME_BACKUP, "status.parentId", "parent-1"),
    (VOLUME_BACKUP, "status.storeName", "offsite"),
    (VOLUME_BACKUP, "status.sealed", "false"),
    (VOLUME_BACKUP, "spec.storeName", "wanted"),
    (VOLUME_BACKUP, "spec.volumeId", "data"),
    (VOLUME_RESTORE, "status.phase", "restoring"),
    (VOLUME_RESTORE, "status.id", "id-1"),
    (VOLUME_RESTORE, "status.backupId", "backup-1"),
    (VOLUME_RESTORE, "status.volumeId", "volume-1"),
    (VOLUME_RESTORE, "spec.backupId", "nightly"),
    (VOLUME_RESTORE, "spec.volumeId", "data"),
    (BACKUP_VERIFICATION, "status.phase", "verifying"),
    (BACKUP_VERIFICATION, "status.id", "id-1"),
    (BACKUP_VERIFICATION, "status.backupId", "backup-1"),
    (BACKUP_VERIFICATION, "status.volumeId", "volume-1"),
    (BACKUP_VERIFICATION, "spec.level", "Data"),
    (BACKUP_VERIFICATION, "spec.volumeId", "data"),
]


MINIMAL: dict[Kind, dict[str, Any]] = {
    VOLUME_BACKUP: {"volumeId": "other"},
    VOLUME_RESTORE: {"backupId": "other"},
    BACKUP_VERIFICATION: {"level": "Structure", "volumeId": "other"},
}


@pytest.mark.parametrize(("kind", "field", "value"), SELECTABLE, ids=lambda x: x.plural if isinstance(x, Kind) else x)
async def test_objects_are_found_by_a_selectable_field(
    client: KubeClient, namespace: str, kind: Kind, field: str, value: str
) -> None:
    where, key = field.split(".")
    minimal = MINIMAL[kind]
    await create(client, kind, namespace, minimal, "another")
    await create(client, kind, namespace, minimal | ({key: value} if where == "spec" else {}), "wanted")
    if where == "status":
        written = False if value == "false" else value
        await client.merge_patch(kind, "wanted", namespace, {"status": {key: written}}, subresource="status")
    found = await client.list(kind, namespace, fields=f"{field}={value}")
    assert [item["metadata"]["name"] for item in found] == ["wanted"]


def test_every_selectable_field_is_tested() -> None:
    declared = {(resource.plural, path) for resource in RESOURCES for path in resource.selectable}
    assert {(kind.plural, f".{field}") for kind, field, _ in SELECTABLE} == declared


def table(printed: str) -> list[dict[str, str]]:
    """Parse the rows that kubectl prints, by column. A column begins where its title begins."""
    head, *lines = printed.splitlines()
    starts = [i for i, letter in enumerate(head) if letter != " " and (i == 0 or head[i - 2 : i] == "  ")]
    ends = [*starts[1:], None]
    spans = list(zip(starts, ends, strict=True))
    return [{head[a:b].strip(): line[a:b].strip() for a, b in spans} for line in lines]


async def test_kubectl_lists_backups_as_openstack_does(client: KubeClient, namespace: str, kubeconfig: Path) -> None:
    spec = {"volumeId": "data", "name": "Nightly", "description": "of the shop", "incremental": True}
    await create(client, VOLUME_BACKUP, namespace, spec, "nightly")
    status = {
        "phase": "error",
        "id": "id-1",
        "volumeName": "data",
        "storeName": "offsite",
        "container": "shop",
        "size": 10,
        "objectCount": 7,
        "isIncremental": True,
        "hasDependentBackups": False,
        "storedBytes": 4096,
        "failReason": "The bucket is gone",
        "progress": {"percent": 40, "bytesDone": 4, "bytesTotal": 10},
        "completedAt": (datetime.now(UTC) - timedelta(hours=2, minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "duration": "2m5s",
        "conditions": [a_ready_condition("False", "BucketNotFound")],
    }
    await client.merge_patch(VOLUME_BACKUP, "nightly", namespace, {"status": status}, subresource="status")
    (row,) = table(kubectl(kubeconfig, "get", "vb", "-n", namespace).stdout)
    age = row.pop("AGE")
    assert age.endswith("s")
    assert row == {
        "NAME": "nightly",
        "STATUS": "error",
        "READY": "False",
        "REASON": "BucketNotFound",
        "VOLUME": "data",
        "SIZE GIB": "10",
        "OBJECTS": "7",
        "CONTAINER": "shop",
        "INCREMENTAL": "true",
        "PROGRESS %": "40",
        "DURATION": "2m5s",
    }
    (wide,) = table(kubectl(kubeconfig, "get", "vb", "-n", namespace, "-o", "wide").stdout)
    assert wide.items() >= row.items()
    assert wide["DISPLAY NAME"] == "Nightly"
    assert wide["COMPLETED"] == "150m"
    assert wide["DESCRIPTION"] == "of the shop"
    assert wide["STORE"] == "offsite"
    assert wide["DEPENDENTS"] == "false"
    assert wide["ID"] == "id-1"
    assert wide["FAIL REASON"] == "The bucket is gone"


def a_ready_condition(status: str, reason: str) -> dict[str, str]:
    return {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize("short_name", ["vr", "vrs"])
async def test_kubectl_lists_restores(client: KubeClient, namespace: str, kubeconfig: Path, short_name: str) -> None:
    await create(client, VOLUME_RESTORE, namespace, {"backupId": "nightly"}, "back")
    status = {
        "phase": "restoring",
        "backupName": "nightly",
        "volumeName": "data-2",
        "progress": {"percent": 7},
        "conditions": [a_ready_condition("False", "MoverRunning")],
    }
    await client.merge_patch(VOLUME_RESTORE, "back", namespace, {"status": status}, subresource="status")
    (row,) = table(kubectl(kubeconfig, "get", short_name, "-n", namespace).stdout)
    del row["AGE"]
    assert row == {
        "NAME": "back",
        "STATUS": "restoring",
        "READY": "False",
        "REASON": "MoverRunning",
        "BACKUP": "nightly",
        "VOLUME": "data-2",
        "PROGRESS %": "7",
        "DURATION": "",
    }


async def test_kubectl_lists_stores_and_which_is_the_default(
    client: KubeClient, namespace: str, kubeconfig: Path
) -> None:
    annotations = {"cinderblock.io/is-default-store": "true"}
    metadata = {"name": "offsite", "namespace": namespace, "annotations": annotations}
    spec = {**STORE, "endpointUrl": "https://s3.example.com", "container": "shop"}
    await client.create(BACKUP_STORE, {"metadata": metadata, "spec": spec})
    found = {"access": "ReadWrite", "container": "shop", "endpointUrl": "https://s3.example.com"}
    status = {"status": {"conditions": [a_ready_condition("True", "Answers")], **found}}
    await client.merge_patch(BACKUP_STORE, "offsite", namespace, status, subresource="status")
    (row,) = table(kubectl(kubeconfig, "get", "bst", "-n", namespace).stdout)
    del row["AGE"]
    assert row == {
        "NAME": "offsite",
        "READY": "True",
        "REASON": "Answers",
        "DEFAULT": "true",
        "ACCESS": "ReadWrite",
        "CONTAINER": "shop",
        "ENDPOINT": "https://s3.example.com",
    }


async def test_category_lists_all_our_kinds(client: KubeClient, namespace: str, kubeconfig: Path) -> None:
    await create(client, BACKUP_STORE, namespace, STORE, "one")
    await create(client, VOLUME_BACKUP, namespace, {"volumeId": "data"}, "two")
    await create(client, VOLUME_RESTORE, namespace, {"backupId": "two"}, "three")
    printed = kubectl(kubeconfig, "get", "cinderblock", "-n", namespace, "-o", "name").stdout.split()
    # Objects of the whole cluster, which other tests create, are listed as well.
    assert [name for name in printed if not name.startswith("cluster")] == [
        "backupstore.cinderblock.io/one",
        "volumebackup.cinderblock.io/two",
        "volumerestore.cinderblock.io/three",
    ]
