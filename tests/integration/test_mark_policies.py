"""The users who may set, change and remove the operator's marks under the chart's policies, on a real API server."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.api import labels
from cinderblock.api.labels import NUDGED_ANNOTATION, POLICY_ANNOTATION, RESTORE_LABEL, STORE_LABEL
from cinderblock.controller.request import OWN_KINDS
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from tests.support.cluster.admission import enforce, lift, wait_until_refused
from tests.support.cluster.chart import CHART, render
from tests.support.cluster.rights import all_rights, connect_as

pytestmark = pytest.mark.integration

MARKS = yaml.safe_load((CHART / "admission" / "marks.yaml").read_text())["policies"]
APPS = ("deployments", "replicasets", "statefulsets", "daemonsets")
DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET = (
    Kind("apps", "v1", plural, kind)
    for plural, kind in zip(APPS, ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"), strict=True)
)
CRON_JOB = Kind("batch", "v1", "cronjobs", "CronJob")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
REPLICATION_CONTROLLER = Kind("", "v1", "replicationcontrollers", "ReplicationController")
MANAGED = {labels.MANAGED_BY_LABEL: labels.MANAGED_BY}


@dataclass(frozen=True, slots=True)
class People:
    """Accounts with all rights: the operator, Kubernetes' own controllers, a tool that is exempt, and a tenant."""

    namespace: str
    kubeconfig: Path
    directory: Path

    async def connect(self, account: str) -> KubeClient:
        """Return a client of an account."""
        place = "kube-system" if account.startswith("controller-") else self.namespace
        return await connect_as(self.kubeconfig, place, account, self.directory)


@pytest.fixture(scope="module")
def people(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    found = People(f"release-{uuid.uuid4().hex[:12]}", kubeconfig, tmp_path_factory.mktemp("people"))
    tool = f"system:serviceaccount:{found.namespace}:tool"
    values = ("fullnameOverride=marks", f"admissionPolicies.exemptUsers={{{tool}}}")
    policies = [item for item in render(*values, namespace=found.namespace) if "-marks-of-" in item["metadata"]["name"]]

    async def begin() -> None:
        async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client:
            await client.create(kinds.NAMESPACE, {"metadata": {"name": found.namespace}})
            for account in ("marks", "marks-uninstall", "tool", "tenant"):
                await all_rights(client, found.namespace, account)
            await all_rights(client, "kube-system", _controller(found))
            await enforce(client, policies)
        async with aclosing(await found.connect("tenant")) as tenant:
            body = a_claim(found.namespace, "probe", labels=MANAGED)
            await wait_until_refused(lambda: tenant.create(kinds.PVC, body), "Only Cinderblock may")

    async def end() -> None:
        async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client:
            await lift(client, policies)

    asyncio.run(begin())
    yield found
    asyncio.run(end())


def _controller(people: People) -> str:
    return f"controller-{people.namespace}"


@pytest.fixture
async def tenant(people: People) -> AsyncIterator[KubeClient]:
    async with aclosing(await people.connect("tenant")) as connected:
        yield connected


def a_claim(namespace: str, name: str = "data", **metadata: Any) -> dict[str, Any]:
    resources = {"requests": {"storage": "1Mi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": resources, "storageClassName": "fast"}
    return {"metadata": {"name": name, "namespace": namespace} | metadata, "spec": spec}


def a_job(namespace: str, name: str = "mine", **metadata: Any) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "example.org/a"}]}
    spec = {"suspend": True, "template": {"spec": pod}}
    return {"metadata": {"name": name, "namespace": namespace} | metadata, "spec": spec}


def a_snapshot(namespace: str, name: str = "mine", **metadata: Any) -> dict[str, Any]:
    spec = {"source": {"persistentVolumeClaimName": "data"}}
    return {"metadata": {"name": name, "namespace": namespace} | metadata, "spec": spec}


def a_child_of(uid: str) -> dict[str, Any]:
    """Return the metadata that a child has, apart from its name."""
    owner = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "VolumeRestore", "name": "back", "uid": uid}
    return {
        "labels": MANAGED | {labels.OWNER_KIND_LABEL: "VolumeRestore", labels.OWNER_UID_LABEL: uid},
        "annotations": {labels.OWNER_NAME_ANNOTATION: "back"},
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": False}],
    }


FORGED: dict[str, dict[str, Any]] = {
    "managed by us": {"labels": MANAGED},
    "an owner's UID": {"labels": {labels.OWNER_UID_LABEL: "u"}},
    "an owner's kind": {"labels": {labels.OWNER_KIND_LABEL: "VolumeBackup"}},
    "a store": {"labels": {STORE_LABEL: "s"}},
    "a restore": {"labels": {RESTORE_LABEL: "r"}},
    "an owner's name": {"annotations": {labels.OWNER_NAME_ANNOTATION: "full"}},
    "a nudge": {"annotations": {NUDGED_ANNOTATION: "true"}},
    "a reclaim policy": {"annotations": {POLICY_ANNOTATION: "Delete"}},
    "a finalizer": {"finalizers": [labels.JOB_FINALIZER]},
}


@pytest.mark.parametrize("metadata", FORGED.values(), ids=FORGED)
async def test_nobody_else_creates_or_marks_children(
    tenant: KubeClient, namespace: str, metadata: dict[str, Any]
) -> None:
    made: list[tuple[Kind, Any]] = [(kinds.JOB, a_job), (kinds.PVC, a_claim), (kinds.VOLUME_SNAPSHOT, a_snapshot)]
    for kind, make in made:
        with pytest.raises(AccessDenied, match="Only Cinderblock may set, change or remove"):
            await tenant.create(kind, make(namespace, **metadata))
        name = (await tenant.create(kind, make(namespace)))["metadata"]["name"]
        with pytest.raises(AccessDenied, match="Only Cinderblock may set, change or remove"):
            await tenant.merge_patch(kind, name, namespace, {"metadata": metadata})


LABELS = {"app": "shop"}


def a_template(**metadata: Any) -> dict[str, Any]:
    """Return the template of a pod with a generic ephemeral volume."""
    claim = {"spec": a_claim("")["spec"]}
    return {
        "metadata": metadata | {"labels": LABELS | metadata.get("labels", {})},
        "spec": {
            "containers": [{"name": "a", "image": "example.org/a"}],
            "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": claim}}],
        },
    }


def a_controller(namespace: str, template: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"generateName": "shop-", "namespace": namespace},
        "spec": {"selector": {"matchLabels": LABELS}, "template": template} | spec,
    }


def a_cron_job(namespace: str, template: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    template["spec"]["restartPolicy"] = "Never"
    job = {"metadata": metadata, "spec": {"template": template}}
    return {
        "metadata": {"generateName": "c", "namespace": namespace},
        "spec": {"schedule": "0 0 * * *", "jobTemplate": job},
    }


def _claims(**metadata: Any) -> list[dict[str, Any]]:
    return [{"metadata": {"name": "data"} | metadata, "spec": a_claim("")["spec"]}]


def _with_ephemeral(template: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    template["spec"]["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["metadata"] = metadata
    return template


def controllers_that_mark(namespace: str, metadata: dict[str, Any]) -> list[tuple[Kind, dict[str, Any]]]:
    """Return objects from which Kubernetes' controllers would make pods, claims or Jobs with these marks."""
    made = [(kind, a_controller(namespace, a_template(**metadata))) for kind in (DEPLOYMENT, REPLICA_SET, DAEMON_SET)]
    stateful = a_controller(namespace, a_template(**metadata), serviceName="shop")
    claims = a_controller(namespace, a_template(), serviceName="shop", volumeClaimTemplates=_claims(**metadata))
    simple = a_controller(namespace, a_template(**metadata), selector=LABELS)
    job = a_job(namespace)
    job["spec"]["template"]["metadata"] = metadata
    pod = _with_ephemeral(a_template(), **metadata)
    pod["metadata"] = {"name": "marked", "namespace": namespace}
    return [
        *made,
        (STATEFUL_SET, stateful),
        (STATEFUL_SET, claims),
        (REPLICATION_CONTROLLER, simple),
        (kinds.JOB, job),
        (CRON_JOB, a_cron_job(namespace, a_template(**metadata))),
        (CRON_JOB, a_cron_job(namespace, a_template(), **metadata)),
        (DEPLOYMENT, a_controller(namespace, _with_ephemeral(a_template(), **metadata))),
        (kinds.POD, pod),
    ]


@pytest.fixture
async def account(client: KubeClient, namespace: str) -> str:
    """The namespace, with the ServiceAccount that pods need and no controller makes here."""
    await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": namespace}})
    return namespace


async def test_templates_of_every_kind_have_no_marks(tenant: KubeClient, account: str) -> None:
    for kind, body in controllers_that_mark(account, {"labels": MANAGED}):
        with pytest.raises(AccessDenied, match=r"Only Cinderblock may set, change or remove app\.kubernetes\.io"):
            await tenant.create(kind, body)


@pytest.mark.parametrize("metadata", FORGED.values(), ids=FORGED)
async def test_templates_have_none_of_the_marks(tenant: KubeClient, namespace: str, metadata: dict[str, Any]) -> None:
    [mark] = [name for part in metadata.values() for name in part]
    with pytest.raises(AccessDenied, match=f"Only Cinderblock may set, change or remove {re.escape(mark)}"):
        await tenant.create(DEPLOYMENT, a_controller(namespace, a_template(**metadata)))


async def test_templates_of_others_pass(tenant: KubeClient, account: str) -> None:
    metadata = {
        "labels": {labels.MANAGED_BY_LABEL: "Helm"},
        "annotations": {labels.DISPLAY_NAME_ANNOTATION: "d"},
    }
    for kind, body in controllers_that_mark(account, metadata):
        await tenant.create(kind, body)


async def test_existing_templates_with_marks_are_still_written_by_their_users(
    tenant: KubeClient, client: KubeClient, namespace: str
) -> None:
    marked = a_controller(namespace, a_template(labels=MANAGED, annotations={labels.OWNER_NAME_ANNOTATION: "full"}))
    made = await client.create(DEPLOYMENT, marked)
    name = made["metadata"]["name"]
    made = await tenant.replace(DEPLOYMENT, made)
    restarted: dict[str, Any] = {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}
    await tenant.merge_patch(DEPLOYMENT, name, namespace, {"spec": {"replicas": 2, "template": restarted}})
    for added in ({"annotations": {labels.OWNER_NAME_ANNOTATION: "other"}}, {"labels": {STORE_LABEL: "s"}}):
        with pytest.raises(AccessDenied, match="Only Cinderblock may"):
            await tenant.merge_patch(DEPLOYMENT, name, namespace, {"spec": {"template": {"metadata": added}}})
    unmarked = {"metadata": {"annotations": {labels.OWNER_NAME_ANNOTATION: None}}}
    await tenant.merge_patch(DEPLOYMENT, name, namespace, {"spec": {"template": unmarked}})
    await tenant.delete(DEPLOYMENT, name, namespace)


async def test_controllers_of_kubernetes_and_the_operator_write_marked_templates(
    people: People, namespace: str
) -> None:
    async with (
        aclosing(await people.connect("marks")) as operator,
        aclosing(await people.connect(_controller(people))) as controller,
    ):
        job = a_job(namespace)
        job["spec"]["template"]["metadata"] = {"labels": MANAGED}
        await operator.create(kinds.JOB, job)
        await controller.create(REPLICA_SET, a_controller(namespace, a_template(labels=MANAGED)))


async def test_many_volumes_and_claims_stay_within_the_limit_of_the_server(tenant: KubeClient, namespace: str) -> None:
    """The API server evaluates at most a million steps of an expression (CEL cost)."""
    template = a_template()
    [ephemeral] = template["spec"]["volumes"]
    template["spec"]["volumes"] = [ephemeral | {"name": f"scratch-{number}"} for number in range(200)]
    claims = [claim | {"metadata": {"name": f"c{number}"}} for number in range(200) for claim in _claims()]
    body = a_controller(namespace, template, serviceName="shop", volumeClaimTemplates=claims)
    made = await tenant.create(STATEFUL_SET, body)
    await tenant.replace(STATEFUL_SET, made)


async def test_refusal_names_the_value_that_exempts_a_tool(tenant: KubeClient, namespace: str) -> None:
    with pytest.raises(AccessDenied, match=r"admissionPolicies\.exemptUsers.*docs/guide/security\.md"):
        await tenant.create(kinds.PVC, a_claim(namespace, labels=MANAGED))


async def test_volumes_are_not_marked_by_others(tenant: KubeClient) -> None:
    name = f"pv-{uuid.uuid4().hex[:12]}"
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "d", "volumeHandle": "h"},
    }
    await tenant.create(kinds.PV, {"metadata": {"name": name}, "spec": spec})
    with pytest.raises(AccessDenied, match=RESTORE_LABEL):
        await tenant.merge_patch(kinds.PV, name, None, {"metadata": {"labels": {RESTORE_LABEL: "r"}}})


async def test_copy_of_a_populated_volume_is_created(tenant: KubeClient) -> None:
    """Its mark stays for as long as the volume exists, so a backup of Kubernetes objects contains it."""
    metadata = {"name": f"pv-{uuid.uuid4().hex[:12]}", "annotations": {labels.POPULATED_ANNOTATION: "u-1"}}
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "d", "volumeHandle": "h"},
    }
    await tenant.create(kinds.PV, {"metadata": metadata, "spec": spec})


async def test_others_change_no_mark_of_a_child_and_anything_else(
    people: People, tenant: KubeClient, namespace: str
) -> None:
    uid = str(uuid.uuid4())
    child = a_claim(namespace, f"cinderblock-{uid}", **a_child_of(uid))
    async with aclosing(await people.connect("marks")) as operator:
        made = await operator.create(kinds.PVC, child)
    name = made["metadata"]["name"]
    attacks = (
        {"labels": {labels.OWNER_UID_LABEL: "other"}},
        {"labels": {labels.MANAGED_BY_LABEL: None}},
        {"labels": {labels.MANAGED_BY_LABEL: "Helm"}},
        {"annotations": {labels.OWNER_NAME_ANNOTATION: "other"}},
        {"ownerReferences": []},
    )
    for attack in attacks:
        with pytest.raises(AccessDenied, match="Only Cinderblock may"):
            await tenant.merge_patch(kinds.PVC, name, namespace, {"metadata": attack})
    harmless = {"labels": {"app": "shop"}, "annotations": {"note": "x"}, "finalizers": ["example.org/held"]}
    changed = await tenant.merge_patch(kinds.PVC, name, namespace, {"metadata": harmless})
    await tenant.replace(kinds.PVC, changed)
    await tenant.merge_patch(kinds.PVC, name, namespace, {"metadata": {"finalizers": []}})
    await tenant.delete(kinds.PVC, name, namespace)


async def test_others_set_no_mark_together_with_a_status(people: People, tenant: KubeClient, account: str) -> None:
    """The API server takes labels, annotations and owners from such a write, too."""
    pod = {"metadata": {"name": "mine", "namespace": account}, "spec": a_template()["spec"]}
    async with aclosing(await people.connect("marks")) as operator:
        for kind, body in (
            (kinds.PVC, a_claim(account, "mine")),
            (kinds.JOB, a_job(account)),
            (kinds.POD, pod),
        ):
            await operator.create(kind, body)
    for kind in (kinds.PVC, kinds.JOB, kinds.POD):
        for attack in FORGED.values():
            if "finalizers" not in attack:
                with pytest.raises(AccessDenied, match="Only Cinderblock may"):
                    await tenant.merge_patch(kind, "mine", account, {"metadata": attack}, subresource="status")
        harmless = {"metadata": {"labels": {"app": "shop"}}}
        await tenant.merge_patch(kind, "mine", account, harmless, subresource="status")


def a_binding(namespace: str, pod: str, **metadata: Any) -> dict[str, Any]:
    """Return what a scheduler creates to give a pod its node."""
    target = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
    return {"metadata": {"name": pod, "namespace": namespace} | metadata, "target": target}


@pytest.mark.parametrize("path", ["bindings", "pods/mine/binding"])
async def test_others_set_no_mark_of_a_pod_by_its_binding(
    people: People, tenant: KubeClient, client: KubeClient, account: str, path: str
) -> None:
    """The API server copies labels and annotations of a Binding to the pod."""
    binding = Kind("", "v1", path, "Binding")
    ours = {"labels": MANAGED | {labels.OWNER_UID_LABEL: "u"}, "annotations": {labels.OWNER_NAME_ANNOTATION: "full"}}
    pod = {"metadata": {"name": "mine", "namespace": account} | ours, "spec": a_template()["spec"]}
    async with aclosing(await people.connect("marks")) as operator:
        await operator.create(kinds.POD, pod)
    for attack in (*FORGED.values(), {"labels": {labels.MANAGED_BY_LABEL: "Helm"}}):
        if "finalizers" not in attack:
            with pytest.raises(AccessDenied, match="Only Cinderblock may"):
                await tenant.create(binding, a_binding(account, "mine", **attack))
    harmless = {"labels": {"app": "shop"}, "annotations": {"note": "x"}}
    await tenant.create(binding, a_binding(account, "mine", **harmless))
    bound = await client.get(kinds.POD, "mine", account)
    assert bound is not None
    assert bound["spec"]["nodeName"] == "node-1"
    assert bound["metadata"]["annotations"] == ours["annotations"] | {"note": "x"}
    assert ours["labels"].items() <= bound["metadata"]["labels"].items()


async def test_binding_without_policies_carries_marks_to_a_pod(client: KubeClient, account: str) -> None:
    """The administrator is exempt. If this changes, the policies need not judge Bindings any more."""
    pod = {"metadata": {"name": "mine", "namespace": account}, "spec": a_template()["spec"]}
    await client.create(kinds.POD, pod)
    mark = {"annotations": {labels.OWNER_NAME_ANNOTATION: "full"}}
    await client.create(Kind("", "v1", "pods/mine/binding", "Binding"), a_binding(account, "mine", **mark))
    bound = await client.get(kinds.POD, "mine", account)
    assert bound is not None
    assert bound["metadata"]["annotations"] == mark["annotations"]


async def test_user_s_objects_with_other_annotations_of_ours_pass(tenant: KubeClient, namespace: str) -> None:
    metadata = {
        "labels": {labels.MANAGED_BY_LABEL: "Helm"},
        "annotations": {
            labels.VOLUME_ID_ANNOTATION: "u",
            labels.DISPLAY_NAME_ANNOTATION: "d",
            labels.DESCRIPTION_ANNOTATION: "d",
            labels.METADATA_ANNOTATION: "{}",
        },
    }
    await tenant.create(kinds.PVC, a_claim(namespace, **metadata))
    await tenant.merge_patch(kinds.PVC, "data", namespace, {"metadata": {"annotations": {"cinderblock.io/x": "y"}}})


async def test_controllers_tools_and_administrators_are_exempt(
    people: People, client: KubeClient, namespace: str
) -> None:
    async with (
        aclosing(await people.connect(_controller(people))) as controller,
        aclosing(await people.connect("tool")) as tool,
        aclosing(await people.connect("marks-uninstall")) as uninstall,
    ):
        for number, caller in enumerate((controller, tool, uninstall, client)):
            made = a_claim(namespace, f"data-{number}", **a_child_of(str(uuid.uuid4())))
            await caller.create(kinds.PVC, made)
            await caller.merge_patch(
                kinds.PVC, f"data-{number}", namespace, {"metadata": {"labels": {labels.OWNER_UID_LABEL: None}}}
            )


async def an_operation(people: People, namespace: str, kind: Kind, spec: dict[str, Any], finalizer: str) -> str:
    """Create an object as a tenant does, and add the finalizer as the operator does. Return its name."""
    body = {"metadata": {"name": "mine", "namespace": namespace}, "spec": spec}
    async with aclosing(await people.connect("tenant")) as tenant:
        await tenant.create(kind, body)
    async with aclosing(await people.connect("marks")) as operator:
        await operator.merge_patch(kind, "mine", namespace, {"metadata": {"finalizers": [finalizer]}})
    return "mine"


OPERATIONS = (
    (kinds.VOLUME_BACKUP, {"volumeId": "data"}, labels.BACKUP_FINALIZER),
    (kinds.VOLUME_RESTORE, {"backupId": "full"}, labels.RESTORE_FINALIZER),
    (kinds.BACKUP_VERIFICATION, {"level": "Data", "volumeId": "data"}, labels.VERIFICATION_FINALIZER),
    (kinds.BACKUP_STORE, {"credentialsSecretRef": {"name": "s3"}}, labels.STORE_FINALIZER),
)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_finalizers_stay_and_objects_are_changed_and_deleted(
    people: People, tenant: KubeClient, client: KubeClient, namespace: str, operation: tuple[Kind, Any, str]
) -> None:
    kind, _, finalizer = operation
    name = await an_operation(people, namespace, *operation)
    attacks: list[dict[str, Any]] = [
        {"finalizers": []},
        {"finalizers": [finalizer, labels.JOB_FINALIZER, *_others(finalizer)]},
    ]
    for attack in attacks:
        with pytest.raises(AccessDenied, match="Only Cinderblock may"):
            await tenant.merge_patch(kind, name, namespace, {"metadata": attack})
    harmless = {"labels": {"app": "shop"}, "annotations": {labels.RELEASED_ANNOTATION: "leave-data"}}
    changed = await tenant.merge_patch(kind, name, namespace, {"metadata": harmless})
    await tenant.replace(kind, changed)
    await tenant.delete(kind, name, namespace)
    with pytest.raises(AccessDenied, match="Only Cinderblock may"):
        await tenant.merge_patch(kind, name, namespace, {"metadata": {"finalizers": []}})
    await client.merge_patch(kind, name, namespace, {"metadata": {"finalizers": []}})
    assert await client.get(kind, name, namespace) is None


def _others(finalizer: str) -> list[str]:
    return [other for _, _, other in OPERATIONS if other != finalizer]


async def test_note_on_an_ended_restore_is_not_forged(people: People, tenant: KubeClient, namespace: str) -> None:
    name = await an_operation(people, namespace, *OPERATIONS[1])
    note = {"metadata": {"annotations": {labels.ENDED_ANNOTATION: "u/available"}}}
    with pytest.raises(AccessDenied, match=labels.ENDED_ANNOTATION):
        await tenant.merge_patch(kinds.VOLUME_RESTORE, name, namespace, note)


async def test_copy_of_an_object_with_its_finalizers_is_created(tenant: KubeClient, namespace: str) -> None:
    metadata = {"name": "copy", "namespace": namespace, "finalizers": [labels.BACKUP_FINALIZER]}
    await tenant.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": "data"}})


def test_every_mark_in_the_program_is_in_the_table() -> None:
    listed = {
        name for policy in MARKS for part in ("labels", "annotations", "finalizers") for name in policy.get(part, ())
    }
    marks = {
        labels.BACKUP_FINALIZER,
        labels.RESTORE_FINALIZER,
        labels.STORE_FINALIZER,
        labels.JOB_FINALIZER,
        labels.OWNER_KIND_LABEL,
        labels.OWNER_UID_LABEL,
        labels.OWNER_NAME_ANNOTATION,
        labels.ENDED_ANNOTATION,
        STORE_LABEL,
        RESTORE_LABEL,
        POLICY_ANNOTATION,
        NUDGED_ANNOTATION,
    }
    assert marks <= listed


EXAMPLES = sorted((CHART.parents[1] / "examples").rglob("*.yaml"))
EXAMPLE_KINDS = OWN_KINDS | {kind.kind: kind for kind in (kinds.SECRET, kinds.CRON_JOB)}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_tenant_may_create_every_example_under_the_policies(
    tenant: KubeClient, namespace: str, path: Path
) -> None:
    """Flux replaces the variable. Objects of other projects have no definition here."""
    for item in yaml.safe_load_all((await asyncio.to_thread(path.read_text)).replace("${VERSION}", "1-4-0")):
        kind = EXAMPLE_KINDS.get(item.get("kind"))
        if kind is not None:
            if kind.namespaced:
                item["metadata"]["namespace"] = namespace
            await tenant.create(kind, item, dry_run=True)
