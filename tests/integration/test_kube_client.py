"""The client against a real API server: each verb, each precondition, each rejection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cinderblock.errors import AccessDenied, AlreadyExists, Conflict, InvalidInput, NotFound
from cinderblock.kube.client import PAGE_LIMIT, KubeClient, connect
from cinderblock.kube.kinds import (
    JOB,
    LEASE,
    NAMESPACE,
    PVC,
    SECRET,
    STORAGE_CLASS,
    VOLUME_BACKUP,
    VOLUME_SNAPSHOT,
    Kind,
)
from cinderblock.kube.transport import Request
from tests.support.cluster.kubectl import as_user
from tests.support.cluster.rights import create_token

pytestmark = pytest.mark.integration

CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")


def backup(namespace: str, name: str = "nightly", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": {"volumeId": "data"}}


@pytest.fixture
async def seen(client: KubeClient, namespace: str) -> dict[str, Any]:
    """A VolumeBackup as it was read."""
    return await client.create(VOLUME_BACKUP, backup(namespace))


async def status_of(client: KubeClient, namespace: str, name: str = "nightly") -> dict[str, Any]:
    found = await client.get(VOLUME_BACKUP, name, namespace)
    assert found
    nothing_said = {"observedGeneration": -1}
    return {key: value for key, value in found["status"].items() if nothing_said.get(key) != value}


async def test_server_is_ready(client: KubeClient) -> None:
    assert await client.server_ready()


async def test_created_object_can_be_read_and_listed(client: KubeClient, namespace: str) -> None:
    created = await client.create(VOLUME_BACKUP, backup(namespace))
    assert created["metadata"]["uid"]
    assert "managedFields" not in created["metadata"]
    assert await client.get(VOLUME_BACKUP, "nightly", namespace) == created
    assert await client.list(VOLUME_BACKUP, namespace) == [created]


async def test_cluster_scoped_object_can_be_read_and_listed(client: KubeClient, namespace: str) -> None:
    found = await client.get(NAMESPACE, namespace)
    assert found
    assert found["kind"] == "Namespace"
    assert found in await client.list(NAMESPACE)


async def test_second_object_of_a_name_is_rejected(client: KubeClient, namespace: str, seen: dict[str, Any]) -> None:
    with pytest.raises(AlreadyExists, match=f"create volumebackups.cinderblock.io {namespace}/nightly"):
        await client.create(VOLUME_BACKUP, backup(namespace))


async def test_creating_in_a_missing_namespace_is_not_found(client: KubeClient) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await client.create(VOLUME_BACKUP, backup("nowhere"))


async def test_creating_in_a_terminating_namespace_has_its_reason(client: KubeClient, namespace: str) -> None:
    await client.delete(NAMESPACE, namespace, None)
    with pytest.raises(AccessDenied) as caught:
        await client.create(VOLUME_BACKUP, backup(namespace))
    assert caught.value.reason == "NamespaceTerminating"


async def test_unknown_field_is_rejected(client: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "m", "namespace": namespace}, "data": {"a": "b"}, "dtaa": {}}
    with pytest.raises(InvalidInput, match='unknown field "dtaa"'):
        await client.create(CONFIG_MAP, body)


async def test_selectors_filter_a_list(client: KubeClient, namespace: str) -> None:
    await client.create(VOLUME_BACKUP, backup(namespace, "a", labels={"tier": "one"}))
    await client.create(VOLUME_BACKUP, backup(namespace, "b", labels={"tier": "two"}))
    found = await client.list(VOLUME_BACKUP, namespace, labels="tier in (two, three)")
    assert [item["metadata"]["name"] for item in found] == ["b"]
    found = await client.list(VOLUME_BACKUP, namespace, fields="metadata.name=a")
    assert [item["metadata"]["name"] for item in found] == ["a"]


async def test_field_that_is_not_selectable_is_rejected(client: KubeClient, namespace: str) -> None:
    with pytest.raises(InvalidInput, match=r"field label not supported: status\.size"):
        await client.list(VOLUME_BACKUP, namespace, fields="status.size=1")


async def test_all_pages_of_a_list_are_read_once(client: KubeClient, namespace: str) -> None:
    count = 2 * PAGE_LIMIT + 1
    # Each request has a time limit, which a thousand at once would reach on a busy machine.
    slots = asyncio.Semaphore(32)

    async def create(number: int) -> None:
        async with slots:
            await client.create(CONFIG_MAP, {"metadata": {"name": f"c-{number}", "namespace": namespace}})

    await asyncio.gather(*(create(number) for number in range(count)))
    before = client.response_counts["list", "configmaps", 200]
    names = [item["metadata"]["name"] for item in await client.list(CONFIG_MAP, namespace)]
    assert sorted(names) == sorted(f"c-{number}" for number in range(count))
    assert client.response_counts["list", "configmaps", 200] - before == 3


async def test_list_of_a_type_that_is_not_served_is_an_error(client: KubeClient, namespace: str) -> None:
    absent = Kind("absent.example.com", "v1", "nothings", "Nothing")
    assert not await client.serves(absent)
    assert await client.get(absent, "s", namespace) is None
    with pytest.raises(
        NotFound, match=r"Cannot list nothings\.absent\.example\.com: the API server does not serve it in version v1"
    ):
        await client.list(absent, namespace)


@pytest.mark.parametrize(
    "kind", [VOLUME_BACKUP, VOLUME_SNAPSHOT, JOB, PVC, LEASE, STORAGE_CLASS], ids=lambda kind: kind.plural
)
async def test_served_types_are_found(client: KubeClient, kind: Kind) -> None:
    assert await client.serves(kind)


async def test_merge_patch_adds_replaces_and_removes(client: KubeClient, namespace: str) -> None:
    await client.create(VOLUME_BACKUP, backup(namespace, labels={"a": "1", "b": "2"}))
    patch = {"metadata": {"labels": {"a": None, "b": "3", "c": "4"}}}
    patched = await client.merge_patch(VOLUME_BACKUP, "nightly", namespace, patch)
    assert patched["metadata"]["labels"] == {"b": "3", "c": "4"}


@pytest.mark.parametrize("precondition", [{"resourceVersion": "1"}, {"uid": "another"}], ids=["resourceVersion", "uid"])
async def test_merge_patch_checks_its_preconditions(
    client: KubeClient, namespace: str, seen: dict[str, Any], precondition: dict[str, str]
) -> None:
    patch = {"metadata": {**precondition, "labels": {"a": "b"}}}
    with pytest.raises(Conflict):
        await client.merge_patch(VOLUME_BACKUP, "nightly", namespace, patch)
    assert await client.get(VOLUME_BACKUP, "nightly", namespace) == seen


async def test_replacement_needs_the_version_that_was_read(client: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "lead", "namespace": namespace}, "spec": {"holderIdentity": "one"}}
    first = await client.create(LEASE, body)
    second = await client.replace(LEASE, {**first, "spec": {"holderIdentity": "two"}})
    with pytest.raises(Conflict):
        await client.replace(LEASE, {**first, "spec": {"holderIdentity": "three"}})
    assert await client.get(LEASE, "lead", namespace) == second


async def test_replacement_never_overwrites_another_object(client: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "lead", "namespace": namespace}, "spec": {"holderIdentity": "one"}}
    first = await client.create(LEASE, body)
    await client.delete(LEASE, "lead", namespace)
    second = await client.create(LEASE, {**body, "spec": {"holderIdentity": "two"}})
    del first["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        await client.replace(LEASE, first)
    assert await client.get(LEASE, "lead", namespace) == second


def lease(namespace: str) -> dict[str, Any]:
    return {"metadata": {"name": "gone", "namespace": namespace, "uid": "u", "resourceVersion": "1"}}


Write = Callable[[KubeClient, str], Awaitable[object]]
WRITES: dict[str, Write] = {
    "merge_patch": lambda client, namespace: client.merge_patch(VOLUME_BACKUP, "gone", namespace, {"spec": {}}),
    "replace": lambda client, namespace: client.replace(LEASE, lease(namespace)),
    "apply_status": lambda client, namespace: client.apply_status(VOLUME_BACKUP, "gone", namespace, {}, uid="u"),
    "apply_status at a version": lambda client, namespace: client.apply_status(
        VOLUME_BACKUP, "gone", namespace, {}, uid="u", resource_version="1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_write_to_a_missing_object_fails_and_creates_nothing(
    client: KubeClient, namespace: str, write: Write
) -> None:
    with pytest.raises((NotFound, Conflict)):
        await write(client, namespace)
    assert await client.list(VOLUME_BACKUP, namespace) == []
    assert await client.list(LEASE, namespace) == []


async def test_applied_status_holds_the_last_value(client: KubeClient, namespace: str, seen: dict[str, Any]) -> None:
    uid = seen["metadata"]["uid"]
    transition = "2026-01-01T00:00:00Z"
    condition = {"status": "True", "reason": "Why", "lastTransitionTime": transition}
    conditions = [{"type": kind, **condition} for kind in ("Ready", "Reconciling")]
    first = {"phase": "creating", "id": uid, "progress": {"percent": 3}, "conditions": conditions}
    await client.apply_status(VOLUME_BACKUP, "nightly", namespace, first, uid=uid)
    assert await status_of(client, namespace) == first
    second = {"phase": "available", "id": uid, "conditions": conditions[:1]}
    await client.apply_status(VOLUME_BACKUP, "nightly", namespace, second, uid=uid)
    assert await status_of(client, namespace) == second


async def test_applied_status_keeps_fields_of_other_managers(
    client: KubeClient, namespace: str, seen: dict[str, Any]
) -> None:
    uid = seen["metadata"]["uid"]
    theirs = {"type": "Audited", "status": "True", "reason": "Ok", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    body = {
        "apiVersion": VOLUME_BACKUP.api_version,
        "kind": "VolumeBackup",
        "metadata": {"name": "nightly"},
        "status": {"conditions": [theirs]},
    }
    path = VOLUME_BACKUP.path(namespace, "nightly", "status")
    applied = Request("PATCH", path, {"fieldManager": "auditor"}, body, "application/apply-patch+yaml")
    assert (await client._transport.round_trip(applied)).is_success
    ours = {"type": "Ready", "status": "False", "reason": "Why", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "creating", "conditions": [ours]}
    await client.apply_status(VOLUME_BACKUP, "nightly", namespace, status, uid=uid)
    await client.apply_status(VOLUME_BACKUP, "nightly", namespace, {"phase": "error"}, uid=uid)
    assert await status_of(client, namespace) == {"phase": "error", "conditions": [theirs]}


async def test_applied_status_overwrites_a_field_that_another_manager_changed(
    client: KubeClient, namespace: str, seen: dict[str, Any]
) -> None:
    uid = seen["metadata"]["uid"]
    await client.apply_status(VOLUME_BACKUP, "nightly", namespace, {"phase": "available"}, uid=uid)
    by_hand = {"status": {"phase": "error"}}
    await client.merge_patch(VOLUME_BACKUP, "nightly", namespace, by_hand, subresource="status")
    await client.apply_status(VOLUME_BACKUP, "nightly", namespace, {"phase": "available"}, uid=uid)
    assert await status_of(client, namespace) == {"phase": "available"}


async def test_same_status_applied_again_changes_nothing(
    client: KubeClient, namespace: str, seen: dict[str, Any]
) -> None:
    uid = seen["metadata"]["uid"]
    first = await client.apply_status(VOLUME_BACKUP, "nightly", namespace, {"phase": "creating"}, uid=uid)
    again = await client.apply_status(VOLUME_BACKUP, "nightly", namespace, {"phase": "creating"}, uid=uid)
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


@pytest.mark.parametrize("with_version", [False, True])
async def test_status_never_lands_on_a_new_object_of_the_name(
    client: KubeClient, namespace: str, seen: dict[str, Any], with_version: bool
) -> None:
    await client.delete(VOLUME_BACKUP, "nightly", namespace)
    await client.create(VOLUME_BACKUP, backup(namespace))
    version = seen["metadata"]["resourceVersion"] if with_version else None
    with pytest.raises(Conflict):
        await client.apply_status(
            VOLUME_BACKUP,
            "nightly",
            namespace,
            {"phase": "available"},
            uid=seen["metadata"]["uid"],
            resource_version=version,
        )
    assert await status_of(client, namespace) == {}


async def test_status_with_an_unknown_field_is_a_permanent_error(
    client: KubeClient, namespace: str, seen: dict[str, Any]
) -> None:
    uid = seen["metadata"]["uid"]
    with pytest.raises(InvalidInput, match=r"\.status\.fizz: field not declared in schema"):
        await client.apply_status(VOLUME_BACKUP, "nightly", namespace, {"fizz": 1}, uid=uid)


async def test_deletion_with_another_uid_is_a_conflict(
    client: KubeClient, namespace: str, seen: dict[str, Any]
) -> None:
    with pytest.raises(Conflict, match="does not match the UID in record"):
        await client.delete(VOLUME_BACKUP, "nightly", namespace, uid="another")
    assert await client.get(VOLUME_BACKUP, "nightly", namespace) == seen


async def test_object_may_be_deleted_twice(client: KubeClient, namespace: str, seen: dict[str, Any]) -> None:
    for _ in range(2):
        await client.delete(VOLUME_BACKUP, "nightly", namespace, uid=seen["metadata"]["uid"])
    assert await client.get(VOLUME_BACKUP, "nightly", namespace) is None


async def test_object_with_a_finalizer_stays_until_it_is_removed(client: KubeClient, namespace: str) -> None:
    await client.create(VOLUME_BACKUP, backup(namespace, finalizers=["cinderblock.io/backup-data"]))
    await client.delete(VOLUME_BACKUP, "nightly", namespace)
    left = await client.get(VOLUME_BACKUP, "nightly", namespace)
    assert left
    assert left["metadata"]["deletionTimestamp"]
    await client.merge_patch(VOLUME_BACKUP, "nightly", namespace, {"metadata": {"finalizers": None}})
    assert await client.get(VOLUME_BACKUP, "nightly", namespace) is None


async def test_log_of_a_missing_pod_is_empty(client: KubeClient, namespace: str) -> None:
    assert await client.pod_log_tail(namespace, "absent", "mover", lines=3) == ""


async def test_message_about_a_secret_is_not_passed_on(client: KubeClient, namespace: str) -> None:
    body = {"metadata": {"name": "s3", "namespace": namespace}, "stringData": {"not a key": "hunter2"}}
    with pytest.raises(InvalidInput) as caught:
        await client.create(SECRET, body)
    assert "not a key" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def write_token(path: Path, kubeconfig: Path, namespace: str, bound_to: str) -> Path:
    """Write a token of the namespace's ServiceAccount ``reader`` that ends with the Secret ``bound_to``."""
    path.write_text(create_token(kubeconfig, namespace, "reader", bound_to=bound_to))
    return path


@pytest.fixture
async def token_file(client: KubeClient, namespace: str, kubeconfig: Path, tmp_path: Path) -> Path:
    """A file with a token that may read VolumeBackups of the namespace and nothing else."""
    rules = [{"apiGroups": ["cinderblock.io"], "resources": ["volumebackups"], "verbs": ["get", "list"]}]
    await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "reader", "namespace": namespace}})
    await client.create(ROLE, {"metadata": {"name": "reader", "namespace": namespace}, "rules": rules})
    binding = {
        "metadata": {"name": "reader", "namespace": namespace},
        "roleRef": {"apiGroup": ROLE.group, "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    await client.create(ROLE_BINDING, binding)
    await client.create(SECRET, {"metadata": {"name": "first", "namespace": namespace}})
    return write_token(tmp_path / "token", kubeconfig, namespace, "first")


@pytest.fixture
async def reader(kubeconfig: Path, token_file: Path, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """A client that may read VolumeBackups of the namespace and nothing else."""
    path = as_user(kubeconfig, {"tokenFile": str(token_file)}, tmp_path / "reader")
    async with aclosing(await connect(kubeconfig=str(path))) as connected:
        yield connected


async def test_only_granted_requests_succeed(reader: KubeClient, namespace: str) -> None:
    # A Role needs a moment to reach the authorizer's cache.
    async with asyncio.timeout(10):
        while True:
            try:
                assert await reader.list(VOLUME_BACKUP, namespace) == []
                break
            except AccessDenied:
                await asyncio.sleep(0.05)
    with pytest.raises(
        AccessDenied, match=f"Cannot create volumebackups.cinderblock.io {namespace}/nightly: the API server refused"
    ):
        await reader.create(VOLUME_BACKUP, backup(namespace))
    with pytest.raises(AccessDenied, match='cannot list resource "jobs" in API group "batch"'):
        await reader.list(JOB, namespace)
    with pytest.raises(AccessDenied, match="Cannot list volumebackups"):
        await reader.list(VOLUME_BACKUP)


async def test_expired_token_is_replaced_from_its_file(
    client: KubeClient, reader: KubeClient, namespace: str, kubeconfig: Path, token_file: Path
) -> None:
    await client.create(SECRET, {"metadata": {"name": "second", "namespace": namespace}})
    old = (await reader.config()).token
    await client.delete(SECRET, "first", namespace)
    await refused(reader, namespace)
    write_token(token_file, kubeconfig, namespace, "second")
    assert await reader.list(VOLUME_BACKUP, namespace) == []
    assert (await reader.config()).token != old


async def refused(reader: KubeClient, namespace: str) -> None:
    """Wait until the server has forgotten the token; it remembers that one was good for ten seconds."""
    async with asyncio.timeout(30):
        while True:
            try:
                await reader.list(VOLUME_BACKUP, namespace)
            except AccessDenied as error:
                if "does not accept the credentials" in error.message:
                    return
            await asyncio.sleep(0.2)


async def test_unknown_token_is_rejected_and_not_quoted(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    path = as_user(kubeconfig, {"token": "made-up-token"}, tmp_path / "stranger")
    async with aclosing(await connect(kubeconfig=str(path))) as stranger:
        with pytest.raises(AccessDenied, match="does not accept the credentials") as caught:
            await stranger.list(VOLUME_BACKUP, namespace)
    assert "made-up-token" not in str(caught.value)
