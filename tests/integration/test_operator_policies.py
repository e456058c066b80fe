"""The writes that the chart's policies allow the operator's ServiceAccount, on a real API server, with all rights.

The account is bound to cluster-admin, so that only the policies refuse. The operator's own code makes what passes.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.labels import POLICY_ANNOTATION, RESTORE_LABEL
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverTask, StoreLocation, VolumeMode
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import AccessDenied
from cinderblock.kube import event_recorder, kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle import children
from cinderblock.lifecycle.mover.job import mover_job
from cinderblock.lifecycle.observed import MoverSettings
from cinderblock.lifecycle.restore import rebind
from tests.support.cluster.admission import CONFIG_MAP, enforce, lift, wait_until_enforced
from tests.support.cluster.chart import Objects, render
from tests.support.cluster.mover_templates import TEMPLATES
from tests.support.cluster.rights import all_rights, connect_as

pytestmark = pytest.mark.integration

IMAGE = "localhost/cinderblock:0.1.0"
LEVELS = ("baseline", "restricted", "privileged")
CONSENT = "consent"
"""The release whose root movers need the consent of the namespace."""
RELEASES = {level: (f"fullnameOverride=policies-{level}", f"mover.podSecurity={level}") for level in LEVELS} | {
    CONSENT: ("fullnameOverride=policies-consent", "mover.rootRequiresOptIn=true")
}
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)

VALID_TEMPLATES = [case for case in TEMPLATES if case.field != "securityContext.procMount"]
"""Without the setting that the API server itself rejects: it needs a user namespace, which movers do not ask for."""

Change = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Releases:
    """The operators' accounts of several releases, each held to the policies of its own values."""

    namespace: str
    kubeconfig: Path
    directory: Path

    async def operator(self, release: str) -> KubeClient:
        """Return a client with the token of a release's operator."""
        return await connect_as(self.kubeconfig, self.namespace, f"policies-{release}", self.directory)


def _policies(namespace: str) -> Objects:
    """Return the policies about the operators. Those about marks would keep each from acting for another."""
    found = [item for values in RELEASES.values() for item in render(*values, namespace=namespace)]
    return [item for item in found if "-operator-" in item["metadata"]["name"]]


@pytest.fixture(scope="module")
def releases(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    made = Releases(f"release-{uuid.uuid4().hex[:12]}", kubeconfig, tmp_path_factory.mktemp("releases"))
    policies = _policies(made.namespace)

    async def begin() -> None:
        async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client:
            await client.create(kinds.NAMESPACE, {"metadata": {"name": made.namespace}})
            for release in RELEASES:
                await all_rights(client, made.namespace, f"policies-{release}")
            await enforce(client, policies)
        for release in RELEASES:
            async with aclosing(await made.operator(release)) as operator:
                await wait_until_enforced(operator, made.namespace)

    async def end() -> None:
        async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client:
            await lift(client, policies)

    asyncio.run(begin())
    yield made
    asyncio.run(end())


@pytest.fixture
async def operator(releases: Releases) -> AsyncIterator[KubeClient]:
    """A client with the operator's token."""
    async with aclosing(await releases.operator("baseline")) as connected:
        yield connected


@pytest.fixture
async def backup(client: KubeClient, namespace: str) -> VolumeBackup:
    body = {"metadata": {"name": "full", "namespace": namespace}, "spec": {"volumeId": "data"}}
    return VolumeBackup.model_validate(await client.create(kinds.VOLUME_BACKUP, body))


@pytest.fixture
async def restore(client: KubeClient, namespace: str) -> VolumeRestore:
    body = {"metadata": {"name": "back", "namespace": namespace}, "spec": {"backupId": "full", "name": "new"}}
    return VolumeRestore.model_validate(await client.create(kinds.VOLUME_RESTORE, body))


def a_job(owner: VolumeBackup | VolumeRestore, **mover: Any) -> dict[str, Any]:
    """Return the mover Job of an operation, as the operator makes it."""
    secret = {"name": "s3"}
    references = {"credentialsSecretRef": secret, "encryptionSecretRef": secret, "caSecretRef": secret}
    metadata = {"name": "default", "namespace": owner.namespace, "uid": str(uuid.uuid4())}
    store = BackupStore.model_validate({"metadata": metadata, "spec": references | {"mover": mover}})
    now = datetime.now(UTC)
    description = BackupMetadata(
        backup_id=owner.uid,
        volume_id="v",
        volume_mode=VolumeMode.FILESYSTEM,
        created_at=now,
        data_timestamp=now,
    )
    task = MoverTask(
        operation=MoverOperation.BACKUP,
        store=StoreLocation(container="volumebackups"),
        volume_mode=VolumeMode.FILESYSTEM,
        path="/volume",
        backup=description,
        manifest="backups/v/b.manifest",
    )
    proxies = (("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", ".svc"))
    settings = MoverSettings(IMAGE, pull_secrets=("registry",), proxies=proxies)
    return mover_job(owner, task, store, labels.child_name(owner.uid), settings)


REQUEST = children.ClaimRequest(1 << 20, "fast", VolumeMode.FILESYSTEM, ("ReadWriteOnce",))


async def test_mover_job_is_created_started_released_and_deleted(operator: KubeClient, backup: VolumeBackup) -> None:
    made = await operator.create(kinds.JOB, a_job(backup))
    name, metadata = made["metadata"]["name"], made["metadata"]
    noted = {"uid": metadata["uid"], "annotations": {"cinderblock.io/started": "true"}}
    start = {"metadata": noted, "spec": {"suspend": False}}
    await operator.merge_patch(kinds.JOB, name, backup.namespace, start)
    await operator.merge_patch(kinds.JOB, name, backup.namespace, {"metadata": {"finalizers": []}})
    await operator.delete(kinds.JOB, name, backup.namespace, uid=metadata["uid"])


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def _mover(job: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = _pod(job)["containers"][0]
    return container


def _volume(**source: Any) -> dict[str, Any]:
    return {"name": "more"} | source


PROBE = {"exec": {"command": ["sh"]}}
TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
FORGED_JOBS: dict[str, Change] = {
    "another image": lambda job: _mover(job).update(image="example.org/evil:1"),
    "a similar image": lambda job: _mover(job).update(image="localhost/cinderblock-evil:1"),
    "another command": lambda job: _mover(job).update(command=["sh"]),
    "other arguments": lambda job: _mover(job).update(args=["gateway"]),
    "further arguments": lambda job: _mover(job).update(args=["mover", "x"]),
    "another directory": lambda job: _mover(job).update(workingDir="/volume"),
    "a hook": lambda job: _mover(job).update(lifecycle={"postStart": PROBE}),
    "a probe": lambda job: _mover(job).update(livenessProbe=PROBE),
    "a start probe": lambda job: _mover(job).update(startupProbe=PROBE),
    "a library": lambda job: _mover(job)["env"].append({"name": "LD_PRELOAD", "value": "/volume/evil.so"}),
    "a module path": lambda job: _mover(job)["env"].append({"name": "PYTHONPATH", "value": "/volume"}),
    "a Secret's value": lambda job: _mover(job)["env"].append(
        {"name": "CINDERBLOCK_X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    ),
    "a Secret's values": lambda job: _mover(job).update(envFrom=[{"secretRef": {"name": "s"}}]),
    "another container": lambda job: _pod(job)["containers"].append(_mover(job) | {"name": "more"}),
    "an init container": lambda job: _pod(job).update(initContainers=[{"name": "more", "image": IMAGE}]),
    "a token": lambda job: _pod(job).update(automountServiceAccountToken=True),
    "the default for tokens": lambda job: _pod(job).pop("automountServiceAccountToken"),
    "a projected token": lambda job: _pod(job)["volumes"].append(_volume(**TOKEN)),
    "the host's files": lambda job: _pod(job)["volumes"].append(_volume(hostPath={"path": "/"})),
    "a volume of NFS": lambda job: _pod(job)["volumes"].append(_volume(nfs={"server": "s", "path": "/"})),
    "a CSI volume": lambda job: _pod(job)["volumes"].append(_volume(csi={"driver": "d"})),
    "a ConfigMap": lambda job: _pod(job)["volumes"].append(_volume(configMap={"name": "c"})),
    "a second claim": lambda job: _pod(job)["volumes"].append(_volume(persistentVolumeClaim={"claimName": "other"})),
    "a mount over the program": lambda job: _mover(job)["volumeMounts"].append(
        {"name": "volume", "mountPath": "/opt/cinderblock"}
    ),
    "the host's network": lambda job: _pod(job).update(hostNetwork=True),
    "the host's processes": lambda job: _pod(job).update(hostPID=True),
    "the host's IPC": lambda job: _pod(job).update(hostIPC=True),
    "a port of the host": lambda job: _mover(job).update(ports=[{"containerPort": 80, "hostPort": 80}]),
    "a node": lambda job: _pod(job).update(nodeName="master"),
    "privileges": lambda job: _mover(job).update(securityContext={"privileged": True}),
    "another name": lambda job: job["metadata"].update(name="mover"),
    "no owner": lambda job: job["metadata"].update(ownerReferences=[]),
    "an owner of another kind": lambda job: job["metadata"]["ownerReferences"][0].update(kind="BackupStore"),
    "an owner of another group": lambda job: job["metadata"]["ownerReferences"][0].update(apiVersion="v1"),
    "another owner": lambda job: job["metadata"]["ownerReferences"][0].update(uid=str(uuid.uuid4())),
    "two owners": lambda job: job["metadata"]["ownerReferences"].append(
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": str(uuid.uuid4())}
    ),
}


@pytest.mark.parametrize("change", FORGED_JOBS.values(), ids=FORGED_JOBS)
async def test_any_other_job_is_refused(operator: KubeClient, backup: VolumeBackup, change: Change) -> None:
    job = copy.deepcopy(a_job(backup))
    change(job)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.create(kinds.JOB, job)


async def test_job_in_any_namespace_needs_the_same_shape(operator: KubeClient, backup: VolumeBackup) -> None:
    job = a_job(backup)
    job["metadata"]["namespace"] = "kube-system"
    _pod(job)["serviceAccountName"] = "clusterrole-aggregation-controller"
    _pod(job)["automountServiceAccountToken"] = True
    with pytest.raises(AccessDenied, match="token of a ServiceAccount"):
        await operator.create(kinds.JOB, job)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", VALID_TEMPLATES, ids=lambda case: case.field or "nothing")
async def test_each_level_lets_the_same_pass_as_the_operators_own_check(
    releases: Releases, backup: VolumeBackup, case: Any, level: str
) -> None:
    async with aclosing(await releases.operator(level)) as operator:
        if level in case.levels:
            await operator.create(kinds.JOB, a_job(backup, **case.mover))
            return
        with pytest.raises(AccessDenied, match="keep to Pod Security"):
            await operator.create(kinds.JOB, a_job(backup, **case.mover))


async def test_root_movers_need_the_consent_of_the_namespace(
    releases: Releases, client: KubeClient, backup: VolumeBackup
) -> None:
    async with aclosing(await releases.operator(CONSENT)) as operator:
        with pytest.raises(AccessDenied, match="as root only in a namespace"):
            await operator.create(kinds.JOB, a_job(backup))
        consent = {"metadata": {"annotations": {labels.ROOT_MOVERS_ANNOTATION: "true"}}}
        await client.merge_patch(kinds.NAMESPACE, backup.namespace, None, consent)
        await _eventually(lambda: operator.create(kinds.JOB, a_job(backup)))


async def _eventually(attempt: Callable[[], Any]) -> None:
    """Repeat an attempt, because the API server reads namespaces from a cache."""
    for _ in range(40):
        try:
            await attempt()
        except AccessDenied:
            await asyncio.sleep(0.25)
        else:
            return
    raise AssertionError("it is refused all the time")


FORGED_UPDATES: dict[str, dict[str, Any]] = {
    "another owner": {"metadata": {"ownerReferences": []}},
    "a label": {"metadata": {"labels": {"more": "x"}}},
    "an annotation": {"metadata": {"annotations": {"cinderblock.io/owner-name": "other"}}},
    "a finalizer": {"metadata": {"finalizers": [labels.JOB_FINALIZER, "example.org/held"]}},
    "parallelism": {"spec": {"parallelism": 5}},
    "the pod while it is suspended": {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}},
    "the deadline": {"spec": {"backoffLimit": 6}},
}


@pytest.mark.parametrize("patch", FORGED_UPDATES.values(), ids=FORGED_UPDATES)
async def test_any_other_change_of_a_job_is_refused(
    operator: KubeClient, restore: VolumeRestore, patch: dict[str, Any]
) -> None:
    job = a_job(restore)
    job["spec"]["suspend"] = True
    made = await operator.create(kinds.JOB, job)
    with pytest.raises(AccessDenied, match="The operator must change a Job only"):
        await operator.merge_patch(kinds.JOB, made["metadata"]["name"], restore.namespace, patch)


async def test_jobs_of_others_are_neither_started_nor_deleted(
    operator: KubeClient, client: KubeClient, backup: VolumeBackup
) -> None:
    job = a_job(backup)
    job["spec"]["suspend"] = True
    job["metadata"] = {"name": "theirs", "namespace": backup.namespace}
    await client.create(kinds.JOB, job)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.merge_patch(kinds.JOB, "theirs", backup.namespace, {"spec": {"suspend": False}})
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.delete(kinds.JOB, "theirs", backup.namespace)


async def test_children_are_created_and_deleted(
    operator: KubeClient, backup: VolumeBackup, restore: VolumeRestore
) -> None:
    snapshot = children.volume_snapshot(backup, "data", "snap")
    from_snapshot = children.claim(backup, REQUEST, from_snapshot=snapshot["metadata"]["name"])
    staging = children.claim(restore, REQUEST)
    restored = children.restored_claim(restore, "new", REQUEST, "pv-1")
    made = [(kinds.VOLUME_SNAPSHOT, snapshot), (kinds.PVC, from_snapshot), (kinds.PVC, staging), (kinds.PVC, restored)]
    for kind, body in made:
        await operator.create(kind, body)
    for kind, body in made:
        await operator.delete(kind, body["metadata"]["name"], backup.namespace)


async def test_restored_claim_is_tried_before_the_copy(operator: KubeClient, restore: VolumeRestore) -> None:
    extras = children.Extras({"team": "platform"}, {"note": "x"})
    tried = children.restored_claim(restore, "new", REQUEST, f"pvc-{restore.uid}", extras)
    await operator.create(kinds.PVC, tried, dry_run=True)
    assert await operator.get(kinds.PVC, "new", restore.namespace) is None


async def test_orphaned_children_are_deleted(
    operator: KubeClient, client: KubeClient, backup: VolumeBackup, restore: VolumeRestore
) -> None:
    """`kubectl delete --cascade=orphan` takes the owner off."""
    snapshot = children.volume_snapshot(backup, "data", "snap")
    made = [(kinds.VOLUME_SNAPSHOT, snapshot), (kinds.PVC, children.claim(restore, REQUEST))]
    for kind, body in made:
        name = body["metadata"]["name"]
        await operator.create(kind, body)
        await client.merge_patch(kind, name, backup.namespace, {"metadata": {"ownerReferences": None}})
        await operator.delete(kind, name, backup.namespace)


async def test_restored_claim_is_nudged_and_released(
    operator: KubeClient, client: KubeClient, restore: VolumeRestore
) -> None:
    body = children.restored_claim(restore, "new", REQUEST, "pv-1")
    body["metadata"]["labels"]["app"] = "shop"
    body["metadata"]["annotations"]["note"] = "kept"
    claim = PersistentVolumeClaim.model_validate(await operator.create(kinds.PVC, body))
    patch = rebind._nudge(claim).patch
    claim = PersistentVolumeClaim.model_validate(await operator.merge_patch(kinds.PVC, "new", restore.namespace, patch))
    await operator.merge_patch(kinds.PVC, "new", restore.namespace, rebind.release(claim, restore).patch)
    found = await client.get(kinds.PVC, "new", restore.namespace)
    assert found is not None
    assert found["metadata"]["labels"] == {"app": "shop"}
    assert "ownerReferences" not in found["metadata"]
    for patch in ({"metadata": {"labels": {"app": "x"}}}, {"metadata": {"annotations": {"cinderblock.io/x": "y"}}}):
        with pytest.raises(AccessDenied, match="The operator must"):
            await operator.merge_patch(kinds.PVC, "new", restore.namespace, patch)
    with pytest.raises(AccessDenied, match="The operator must delete a claim only"):
        await operator.delete(kinds.PVC, "new", restore.namespace)


CLONE = {"kind": "PersistentVolumeClaim", "name": "data"}
FORGED_CLAIMS: dict[str, Change] = {
    "no owner": lambda claim: claim["metadata"].update(ownerReferences=[]),
    "another name": lambda claim: claim["metadata"].update(name="data"),
    "a clone": lambda claim: claim["spec"].update(dataSource=CLONE),
    "another kind of source": lambda claim: claim["spec"].update(
        dataSourceRef={"apiGroup": "example.org", "kind": "Populator", "name": "s"}
    ),
}


@pytest.mark.parametrize("change", FORGED_CLAIMS.values(), ids=FORGED_CLAIMS)
async def test_any_other_claim_is_refused(operator: KubeClient, backup: VolumeBackup, change: Change) -> None:
    claim = children.claim(backup, REQUEST)
    change(claim)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.create(kinds.PVC, claim)


async def test_snapshots_of_others_stay(operator: KubeClient, client: KubeClient, backup: VolumeBackup) -> None:
    foreign = children.volume_snapshot(backup, "data", "snap")
    foreign["metadata"] = {"name": "theirs", "namespace": backup.namespace}
    await client.create(kinds.VOLUME_SNAPSHOT, foreign)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.delete(kinds.VOLUME_SNAPSHOT, "theirs", backup.namespace)
    content = children.volume_snapshot(backup, "data", "snap")
    content["spec"]["source"] = {"volumeSnapshotContentName": "of-somebody"}
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.create(kinds.VOLUME_SNAPSHOT, content)


async def a_volume(client: KubeClient, claim_name: str, namespace: str, policy: str = "Delete") -> PersistentVolume:
    """Create the volume that a provisioner has made for a claim."""
    name = f"pv-{uuid.uuid4().hex[:12]}"
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": "fast",
        "claimRef": {"namespace": namespace, "name": claim_name, "uid": str(uuid.uuid4())},
        "csi": {"driver": "csi.example.org", "volumeHandle": name},
    }
    annotations = {"pv.kubernetes.io/provisioned-by": "csi.example.org"}
    body = {"metadata": {"name": name, "annotations": annotations}, "spec": spec}
    return PersistentVolume.model_validate(await client.create(kinds.PV, body))


async def _apply(operator: KubeClient, patch: dict[str, Any], volume: PersistentVolume) -> PersistentVolume:
    patch = patch | {"metadata": patch.get("metadata", {}) | {"resourceVersion": volume.metadata.resource_version}}
    return PersistentVolume.model_validate(await operator.merge_patch(kinds.PV, volume.name, None, patch))


def _mark(volume: PersistentVolume, uid: str) -> dict[str, Any]:
    """Return the first step of a hand-over (`rebind._mark`)."""
    policy = volume.spec.persistent_volume_reclaim_policy
    metadata = {"labels": {RESTORE_LABEL: uid}, "annotations": {POLICY_ANNOTATION: policy}}
    return {"metadata": metadata, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}


def _reserve(namespace: str, name: str = "new") -> dict[str, Any]:
    return {"spec": {"claimRef": rebind._reference(namespace, name)}}


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_volume_is_marked_reserved_and_unmarked(
    operator: KubeClient, client: KubeClient, restore: VolumeRestore, policy: str
) -> None:
    volume = await a_volume(client, labels.child_name(restore.uid), restore.namespace, policy)
    volume = await _apply(operator, _mark(volume, restore.uid), volume)
    assert volume.spec.persistent_volume_reclaim_policy == "Retain"
    volume = await _apply(operator, _reserve(restore.namespace), volume)
    volume = await _apply(operator, rebind.unmark(volume, None).patch, volume)
    assert volume.spec.persistent_volume_reclaim_policy == policy
    assert RESTORE_LABEL not in volume.metadata.labels


async def test_abandoned_volume_is_kept(operator: KubeClient, client: KubeClient, restore: VolumeRestore) -> None:
    volume = await a_volume(client, labels.child_name(restore.uid), restore.namespace)
    volume = await _apply(operator, _mark(volume, restore.uid), volume)
    volume = await _apply(operator, rebind.keep_volume(volume).patch, volume)
    assert volume.spec.persistent_volume_reclaim_policy == "Retain"


async def test_volume_of_a_temporary_claim_may_go_with_it(
    operator: KubeClient, client: KubeClient, backup: VolumeBackup
) -> None:
    volume = await a_volume(client, labels.child_name(backup.uid), backup.namespace, "Retain")
    volume = await _apply(operator, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}, volume)
    other = await a_volume(client, "data", backup.namespace, "Retain")
    with pytest.raises(AccessDenied, match="The operator must"):
        await _apply(operator, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}, other)


async def test_volumes_of_others_are_never_changed(
    operator: KubeClient, client: KubeClient, restore: VolumeRestore
) -> None:
    volume = await a_volume(client, "database", "payroll")
    attacks = (
        _mark(volume, restore.uid),
        _reserve(restore.namespace),
        _mark(volume, restore.uid) | _reserve(restore.namespace),
        {"spec": {"persistentVolumeReclaimPolicy": "Retain"}},
        {"metadata": {"labels": {"more": "x"}}},
        {"metadata": {"finalizers": []}},
        {"spec": {"claimRef": None}},
    )
    for attack in attacks:
        with pytest.raises(AccessDenied, match="The operator must"):
            await _apply(operator, attack, volume)


async def test_marked_volume_goes_to_no_other_namespace(
    operator: KubeClient, client: KubeClient, restore: VolumeRestore
) -> None:
    volume = await a_volume(client, labels.child_name(restore.uid), restore.namespace)
    volume = await _apply(operator, _mark(volume, restore.uid), volume)
    attacks = (
        _reserve("payroll"),
        _reserve(restore.namespace) | {"metadata": {"labels": {"more": "x"}}},
        {"spec": {"capacity": {"storage": "2Mi"}}},
        {"spec": {"accessModes": ["ReadWriteMany"]}},
        {"spec": {"mountOptions": ["suid"]}},
        {"metadata": {"labels": {RESTORE_LABEL: str(uuid.uuid4())}}},
        {"metadata": {"labels": {RESTORE_LABEL: None}}},
        {"spec": {"persistentVolumeReclaimPolicy": "Delete"}},
    )
    for attack in attacks:
        with pytest.raises(AccessDenied, match="The operator must"):
            await _apply(operator, attack, volume)


async def test_finalizers_notes_and_statuses_of_operations_are_written(
    operator: KubeClient, restore: VolumeRestore
) -> None:
    name, namespace = restore.name, restore.namespace
    added = {"metadata": {"finalizers": [labels.RESTORE_FINALIZER]}}
    await operator.merge_patch(kinds.VOLUME_RESTORE, name, namespace, added)
    status = {"phase": "available", "id": restore.uid}
    await operator.apply_status(kinds.VOLUME_RESTORE, name, namespace, status, uid=restore.uid)
    ended = {"metadata": {"finalizers": [], "annotations": {labels.ENDED_ANNOTATION: f"{restore.uid}/available"}}}
    await operator.merge_patch(kinds.VOLUME_RESTORE, name, namespace, ended)


FORGED_OPERATIONS: dict[str, dict[str, Any]] = {
    "the spec": {"spec": {"name": "another title"}},
    "a label": {"metadata": {"labels": {"more": "x"}}},
    "an annotation": {"metadata": {"annotations": {"cinderblock.io/let-go": "leave-data"}}},
    "a finalizer of others": {"metadata": {"finalizers": ["example.org/held"]}},
    "an owner": {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u"}]}},
}


@pytest.mark.parametrize("patch", FORGED_OPERATIONS.values(), ids=FORGED_OPERATIONS)
async def test_any_other_change_of_an_operation_is_refused(
    operator: KubeClient, backup: VolumeBackup, patch: dict[str, Any]
) -> None:
    with pytest.raises(AccessDenied, match="The operator must change"):
        await operator.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, patch)


async def test_events_are_recorded_and_counted_in_its_own_name(operator: KubeClient, backup: VolumeBackup) -> None:
    body = {"kind": "VolumeBackup", "apiVersion": "cinderblock.io/v1alpha1"}
    body |= {"metadata": {"name": backup.name, "namespace": backup.namespace, "uid": backup.uid}}  # type: ignore[dict-item]
    for _ in range(2):
        await event_recorder.record_event(operator, body, "Normal", "Accepted", "it begins", action="Reconcile")
    [event] = await operator.list(kinds.EVENT, backup.namespace)
    assert event["series"]["count"] == 2
    forged = event_recorder._event(body, "Normal", "Scheduled", "forged", action="Bind", now=datetime.now(UTC))
    with pytest.raises(AccessDenied, match="only in its own name"):
        await operator.create(kinds.EVENT, forged | {"reportingController": "default-scheduler"})


async def test_only_its_own_lease_is_written(operator: KubeClient, releases: Releases, namespace: str) -> None:
    def lease(name: str, place: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": place}, "spec": {"holderIdentity": "x"}}

    made = await operator.create(kinds.LEASE, lease("policies-baseline", releases.namespace))
    await operator.replace(kinds.LEASE, made | {"spec": {"holderIdentity": "y"}})
    for name, place in (("policies-baseline", namespace), ("other", releases.namespace)):
        with pytest.raises(AccessDenied, match="only the Lease of its own"):
            await operator.create(kinds.LEASE, lease(name, place))


async def test_nothing_else_is_written(operator: KubeClient, backup: VolumeBackup) -> None:
    namespace = backup.namespace
    metadata = {"name": "evil", "namespace": namespace}
    job = (await operator.create(kinds.JOB, a_job(backup)))["metadata"]["name"]
    role = {"metadata": {"name": f"evil-{uuid.uuid4().hex[:8]}"}, "rules": []}
    attacks: list[Callable[[], Any]] = [
        lambda: operator.create(CONFIG_MAP, {"metadata": metadata}),
        lambda: operator.create(SERVICE_ACCOUNT, {"metadata": metadata}),
        lambda: operator.create(CLUSTER_ROLE, role),
        lambda: operator.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": "data"}}),
        lambda: operator.delete(kinds.VOLUME_BACKUP, backup.name, namespace),
        lambda: operator.delete(kinds.NAMESPACE, namespace, None),
        lambda: operator.merge_patch(kinds.NAMESPACE, namespace, None, {"metadata": {"labels": {"a": "b"}}}),
        lambda: operator.merge_patch(kinds.JOB, job, namespace, {"status": {"active": 1}}, subresource="status"),
    ]
    for attack in attacks:
        with pytest.raises(AccessDenied, match="never writes objects of this type"):
            await attack()
