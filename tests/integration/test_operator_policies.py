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
from typing import Any, cast

import pytest
from kubernetes.client import AuthenticationV1TokenRequest, BatchV1Api, CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.labels import POLICY_ANNOTATION, RESTORE_LABEL, TEMPORARY_ANNOTATION
from cinderblock.api.meta import Object
from cinderblock.api.mover import BackupMetadata, MoverOperation, MoverTask, StoreLocation, VolumeMode
from cinderblock.api.v1alpha1.backup import FOREIGN_FIELDS, ManifestMissing, VolumeBackup
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore, MoverTemplate
from cinderblock.api.v1alpha1.verification import BackupVerification, VerificationResult, VerificationSummary
from cinderblock.cli.commands.release_finalizers import release_finalizers
from cinderblock.controller.context import Context
from cinderblock.controller.imports.write import write_presence
from cinderblock.controller.schedules.apply_retention import apply_retention
from cinderblock.controller.verifications.record import record_summary
from cinderblock.errors import AccessDenied
from cinderblock.kube import event_recorder, kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle import children
from cinderblock.lifecycle.actions import RecordVerification
from cinderblock.lifecycle.children import Owner
from cinderblock.lifecycle.imports.presence import PresenceWrite
from cinderblock.lifecycle.imports.records import record_of
from cinderblock.lifecycle.mover.job import mover_job, mover_path
from cinderblock.lifecycle.observed import MoverSettings
from cinderblock.lifecycle.restore import rebind
from cinderblock.lifecycle.retention.actions import BackupVersion, MarkExpiring, UnmarkExpiring
from cinderblock.lifecycle.store import shared
from tests.support.cluster import unlike
from tests.support.cluster.admission import CONFIG_MAP, enforce, lift, wait_until_enforced
from tests.support.cluster.chart import Objects, render
from tests.support.cluster.mover_templates import TEMPLATES
from tests.support.cluster.rights import all_rights, connect_as

pytestmark = pytest.mark.integration

IMAGE = "localhost/cinderblock:0.1.0"
LEVELS = ("baseline", "restricted", "privileged")
CONSENT = "consent"
"""The release whose root movers need the consent of the namespace."""
ADDITIONS = "additions"
"""The release of a cluster whose webhooks change the Jobs of movers."""
BROKER = "broker"
"""The release with a broker for shared stores."""
UNINSTALL = "baseline-uninstall"
"""The uninstall hook of the release "baseline"."""
_ADDED = "admissionPolicies.moverAdditions"
VALUES: dict[str, tuple[str, ...]] = {level: (f"mover.podSecurity={level}",) for level in LEVELS} | {
    CONSENT: ("mover.rootRequiresOptIn=true",),
    BROKER: ("broker.enabled=true",),
    ADDITIONS: (
        "admissionPolicies.moverImages={mirror.example.org:5000/cinderblock}",
        f"{_ADDED}.env={{SSL_CERT_FILE}}",
        f"{_ADDED}.volumes.authorities=/etc/ssl/certs",
        f"{_ADDED}.initImages={{example.org/wait}}",
        f"{_ADDED}.imagePullSecrets={{mirror}}",
        f"{_ADDED}.fields={{ttlSecondsAfterFinished,dnsConfig}}",
        "mover.allowSystemPriority=true",
    ),
}
RELEASES = {
    name: (f"fullnameOverride=policies-{name}", "mover.imagePullSecrets={registry}", *values)
    for name, values in VALUES.items()
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
    """Return the policies about the operators. Those about marks would keep each from acting for another.

    The values of the other releases concern only Jobs.
    """
    found: Objects = []
    for release, values in RELEASES.items():
        wanted = ("-operator-",) if release == "baseline" else ("-operator-jobs", "-operator-else")
        objects = render(*values, namespace=namespace)
        found += [item for item in objects if any(part in item["metadata"]["name"] for part in wanted)]
    return found


@pytest.fixture(scope="module")
def releases(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    made = Releases(f"release-{uuid.uuid4().hex[:12]}", kubeconfig, tmp_path_factory.mktemp("releases"))
    policies = _policies(made.namespace)

    async def begin() -> None:
        async with aclosing(await connect(kubeconfig=str(kubeconfig))) as client:
            await client.create(kinds.NAMESPACE, {"metadata": {"name": made.namespace}})
            for release in RELEASES:
                await all_rights(client, made.namespace, f"policies-{release}")
            await all_rights(client, made.namespace, f"policies-{UNINSTALL}")
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


@pytest.fixture
async def verification(client: KubeClient, namespace: str) -> BackupVerification:
    body = {"metadata": {"name": "proof", "namespace": namespace}, "spec": {"level": "Data", "backupId": "full"}}
    return BackupVerification.model_validate(await client.create(kinds.BACKUP_VERIFICATION, body))


SECRET = {"name": "s3"}
REFERENCES = {"credentialsSecretRef": SECRET, "encryptionSecretRef": SECRET, "caSecretRef": SECRET}


def a_job(owner: Owner, mode: VolumeMode = VolumeMode.FILESYSTEM, **mover: Any) -> dict[str, Any]:
    """Return the mover Job of an operation, as the operator makes it."""
    metadata = {"name": "default", "namespace": owner.namespace, "uid": str(uuid.uuid4())}
    store = BackupStore.model_validate({"metadata": metadata, "spec": REFERENCES | {"mover": mover}})
    return job_for(owner, store, mode)


def a_job_of_a_shared_store(owner: Owner, **mover: Any) -> dict[str, Any]:
    """Return the mover Job of an operation with a shared store."""
    spec = {**REFERENCES, "mover": mover}
    cluster = ClusterBackupStore.model_validate({"metadata": {"name": "archive", "uid": "c"}, "spec": spec})
    metadata = {"name": "archive", "namespace": owner.namespace, "uid": str(uuid.uuid4())}
    store = BackupStore.model_validate({"metadata": metadata, "spec": {"clusterStoreRef": {"name": "archive"}}})
    namespace = Object.model_validate({"metadata": {"name": owner.namespace, "uid": "n"}})
    return job_for(owner, shared.share(cluster, store, namespace, "system"))


def job_for(owner: Owner, store: BackupStore, mode: VolumeMode = VolumeMode.FILESYSTEM) -> dict[str, Any]:
    """Return the mover Job of an operation with a store."""
    operation = MoverOperation.VERIFY if isinstance(owner, BackupVerification) else MoverOperation.BACKUP
    task = task_of(owner, operation, mode)
    proxies = (("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", ".svc"))
    settings = MoverSettings(IMAGE, pull_secrets=("registry",), proxies=proxies)
    claim = None if isinstance(owner, BackupVerification) else labels.child_name(owner.uid)
    return mover_job(owner, task, store, claim, settings)


def task_of(owner: Owner, operation: MoverOperation, mode: VolumeMode = VolumeMode.FILESYSTEM) -> MoverTask:
    """Return the task of a mover."""
    now = datetime.now(UTC)
    description = BackupMetadata(
        backup_id=owner.uid,
        volume_id="v",
        volume_mode=mode,
        created_at=now,
        data_timestamp=now,
    )
    return MoverTask(
        operation=operation,
        store=StoreLocation(container="volumebackups"),
        volume_mode=mode,
        path=mover_path(mode),
        backup=description,
        manifest="backups/v/b.manifest",
    )


REQUEST = children.ClaimRequest(1 << 20, "fast", VolumeMode.FILESYSTEM, ("ReadWriteOnce",))


async def test_mover_job_is_created_started_released_and_deleted(operator: KubeClient, backup: VolumeBackup) -> None:
    made = await operator.create(kinds.JOB, a_job(backup))
    name, metadata = made["metadata"]["name"], made["metadata"]
    noted = {"uid": metadata["uid"], "annotations": {"cinderblock.io/started": "true"}}
    start = {"metadata": noted, "spec": {"suspend": False}}
    await operator.merge_patch(kinds.JOB, name, backup.namespace, start)
    await operator.merge_patch(kinds.JOB, name, backup.namespace, {"metadata": {"finalizers": []}})
    await operator.delete(kinds.JOB, name, backup.namespace, uid=metadata["uid"])


async def test_mover_of_a_verification_has_no_claim(
    operator: KubeClient, backup: VolumeBackup, verification: BackupVerification
) -> None:
    forged = a_job(verification)
    _pod(forged)["volumes"] = _pod(a_job(backup))["volumes"]
    with pytest.raises(AccessDenied, match="or none for a BackupVerification"):
        await operator.create(kinds.JOB, forged)
    await operator.create(kinds.JOB, a_job(verification, **WHOLE_TEMPLATE))


async def test_mover_of_copies_has_the_secrets_of_two_stores_and_no_claim(
    operator: KubeClient, client: KubeClient, backup: VolumeBackup
) -> None:
    body = {"metadata": {"name": "primary", "namespace": backup.namespace}, "spec": REFERENCES}
    store = BackupStore.model_validate(await client.create(kinds.BACKUP_STORE, body))
    plain = a_job(backup)
    settings, task = MoverSettings(IMAGE, pull_secrets=("registry",)), task_of(backup, MoverOperation.COPY)
    job = mover_job(store, task, store, None, settings, target=store)
    with_claim, of_backup = copy.deepcopy(job), copy.deepcopy(plain)
    _pod(with_claim)["volumes"].append(_volume(persistentVolumeClaim={"claimName": "data"}))
    with pytest.raises(AccessDenied, match="or none for a BackupVerification or a BackupStore"):
        await operator.create(kinds.JOB, with_claim)
    _pod(of_backup)["volumes"].append({"name": "target-ca", "secret": {"secretName": "s3"}})
    _mover(of_backup)["volumeMounts"].append({"name": "target-ca", "mountPath": "/etc/cinderblock/target-ca"})
    with pytest.raises(AccessDenied, match="mount volumes only at the mover's own paths"):
        await operator.create(kinds.JOB, of_backup)
    made = await operator.create(kinds.JOB, job)
    start = {"metadata": {"annotations": {"cinderblock.io/started": "true"}}, "spec": {"suspend": False}}
    await operator.merge_patch(kinds.JOB, made["metadata"]["name"], store.namespace, start)
    await operator.delete(kinds.JOB, made["metadata"]["name"], store.namespace, uid=made["metadata"]["uid"])


async def test_verification_owns_no_claim_and_no_snapshot(
    operator: KubeClient, verification: BackupVerification
) -> None:
    with pytest.raises(AccessDenied, match="child of one VolumeBackup or VolumeRestore"):
        await operator.create(kinds.PVC, children.claim(verification, REQUEST))
    with pytest.raises(AccessDenied, match="child of one VolumeBackup"):
        await operator.create(kinds.VOLUME_SNAPSHOT, children.volume_snapshot(verification, "data", "snap"))


async def test_findings_are_written_into_backups(
    operator: KubeClient, backup: VolumeBackup, verification: BackupVerification
) -> None:
    """A merge patch of one part of the status replaces what was there before, and nothing else."""
    first = VerificationSummary(recorded_for=backup.uid, result=VerificationResult.DAMAGED, objects=["packs/v/b/1"])
    second = VerificationSummary(recorded_for=backup.uid, coverage=50)
    name, namespace = backup.name, backup.namespace
    for summary in (first, second):
        found = await operator.get(kinds.VOLUME_BACKUP, name, namespace)
        assert found is not None
        version = found["metadata"]["resourceVersion"]
        await record_summary(operator, namespace, RecordVerification(name, version, summary))
    own = {"phase": "available", "id": backup.uid}
    await operator.apply_status(kinds.VOLUME_BACKUP, name, namespace, own, uid=backup.uid, preserved=FOREIGN_FIELDS)
    found = await operator.get(kinds.VOLUME_BACKUP, name, namespace)
    assert found is not None
    assert found["status"] | own == found["status"]
    assert found["status"]["verification"] == second.to_wire()
    added = {"metadata": {"finalizers": [labels.VERIFICATION_FINALIZER]}}
    await operator.merge_patch(kinds.BACKUP_VERIFICATION, verification.name, namespace, added)


WHOLE_TEMPLATE: dict[str, Any] = {
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}, "claims": []},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "backup", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "serviceAccountName": "movers",
    "securityContext": {"runAsUser": 1000, "runAsNonRoot": True},
    "podSecurityContext": {"fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"},
    "labels": {"team": "storage", "kueue.x-k8s.io/queue-name": "q"},
    "annotations": {"sidecar.istio.io/inject": "false"},
}
"""Every field of spec.mover."""


def test_whole_template_has_every_field() -> None:
    assert set(WHOLE_TEMPLATE) == {field.alias or name for name, field in MoverTemplate.model_fields.items()}


@pytest.mark.parametrize("mode", VolumeMode)
@pytest.mark.parametrize("owner", ["backup", "restore"])
async def test_whatever_a_store_may_set_passes(
    operator: KubeClient, backup: VolumeBackup, restore: VolumeRestore, owner: str, mode: VolumeMode
) -> None:
    """The policies list the fields of a mover's Job, so a new field of spec.mover must be added there."""
    await operator.create(kinds.JOB, a_job(backup if owner == "backup" else restore, mode, **WHOLE_TEMPLATE))


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
    "an image below a port": lambda job: _mover(job).update(image="localhost/cinderblock:5000/evil"),
    "an image below a port with a tag": lambda job: _mover(job).update(image="localhost/cinderblock:5000/evil:1"),
    "an image below a digest": lambda job: _mover(job).update(image=f"localhost/cinderblock@sha256:{'a' * 64}/evil"),
    "parallel pods": lambda job: job["spec"].update(parallelism=1000),
    "many pods": lambda job: job["spec"].update(completions=1000),
    "indexed pods": lambda job: job["spec"].update(completionMode="Indexed", completions=1),
    "another controller": lambda job: job["spec"].update(managedBy="example.org/controller"),
    "a time to live": lambda job: job["spec"].update(ttlSecondsAfterFinished=0),
    "a deadline": lambda job: job["spec"].update(activeDeadlineSeconds=60),
    "the pods of others": lambda job: job["spec"].update(
        manualSelector=True, selector={"matchLabels": dict(job["spec"]["template"]["metadata"]["labels"])}
    ),
    "a finalizer of others": lambda job: job["metadata"]["finalizers"].append("example.org/held"),
    "a priority of the system": lambda job: _pod(job).update(priorityClassName="system-node-critical"),
    "a Secret for images": lambda job: _pod(job)["imagePullSecrets"].append({"name": "other"}),
    "shared processes": lambda job: _pod(job).update(shareProcessNamespace=True),
    "another runtime": lambda job: _pod(job).update(runtimeClassName="unconfined"),
    "names of hosts": lambda job: _pod(job).update(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["s3.example.com"]}]),
    "other name servers": lambda job: _pod(job).update(dnsConfig={"nameservers": ["10.0.0.1"]}),
    "the volume as another device": lambda job: _mover(job).update(
        volumeDevices=[{"name": "volume", "devicePath": "/dev/sda"}], volumeMounts=[]
    ),
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


def _token(job: dict[str, Any]) -> dict[str, Any]:
    [volume] = [volume for volume in _pod(job)["volumes"] if "projected" in volume]
    projected: dict[str, Any] = volume["projected"]
    return projected


TOKEN_SOURCE = {"serviceAccountToken": {"path": "api", "audience": "https://kubernetes.default.svc"}}
FORGED_TOKENS: dict[str, Change] = {
    "the API server's audience": lambda job: _token(job)["sources"][0]["serviceAccountToken"].pop("audience"),
    "another audience": lambda job: _token(job)["sources"][0]["serviceAccountToken"].update(audience="vault"),
    "a longer life": lambda job: _token(job)["sources"][0]["serviceAccountToken"].update(expirationSeconds=86400),
    "a second token": lambda job: _token(job)["sources"].append(TOKEN_SOURCE),
    "a Secret besides the token": lambda job: _token(job)["sources"].append({"secret": {"name": "s3"}}),
    "a Secret instead of the token": lambda job: _token(job).update(sources=[{"secret": {"name": "s3"}}]),
    "another name": lambda job: _pod(job)["volumes"].append(_volume(projected=_token(job))),
    "another place": lambda job: _mover(job)["volumeMounts"][0].update(mountPath="/var/run/secrets/broker"),
    "the credentials of a store": lambda job: _pod(job)["volumes"].append(
        {"name": "credentials", "secret": {"secretName": "s3"}}
    ),
    "the keys of a store": lambda job: _pod(job)["volumes"].append(
        {"name": "encryption", "secret": {"secretName": "s3"}}
    ),
}


async def test_token_for_the_broker_needs_a_broker(
    releases: Releases, operator: KubeClient, backup: VolumeBackup, restore: VolumeRestore
) -> None:
    with pytest.raises(AccessDenied, match=r"the token for the broker, but sets broker\."):
        await operator.create(kinds.JOB, a_job_of_a_shared_store(backup))
    async with aclosing(await releases.operator(BROKER)) as allowed:
        await allowed.create(kinds.JOB, a_job_of_a_shared_store(backup, **WHOLE_TEMPLATE))
        await allowed.create(kinds.JOB, a_job(restore))


async def test_mover_of_a_verification_may_have_the_token(releases: Releases, verification: BackupVerification) -> None:
    async with aclosing(await releases.operator(BROKER)) as allowed:
        await allowed.create(kinds.JOB, a_job_of_a_shared_store(verification))


@pytest.mark.parametrize("change", FORGED_TOKENS.values(), ids=FORGED_TOKENS)
async def test_any_other_token_is_refused(releases: Releases, backup: VolumeBackup, change: Change) -> None:
    job = a_job_of_a_shared_store(backup)
    change(job)
    async with aclosing(await releases.operator(BROKER)) as allowed:
        with pytest.raises(AccessDenied, match="The operator must"):
            await allowed.create(kinds.JOB, job)


@pytest.mark.parametrize("change", FORGED_JOBS.values(), ids=FORGED_JOBS)
async def test_any_other_job_is_refused(operator: KubeClient, backup: VolumeBackup, change: Change) -> None:
    job = copy.deepcopy(a_job(backup))
    change(job)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.create(kinds.JOB, job)


# Kyverno and other webhooks change a mover's Job before the policies judge it.
MUTATIONS: dict[str, tuple[Change, str]] = {
    "a mirror": (
        lambda job: _mover(job).update(image="mirror.example.org:5000/cinderblock:0.1.0"),
        "admissionPolicies.moverImages",
    ),
    "the file of authorities": (
        lambda job: _mover(job)["env"].append({"name": "SSL_CERT_FILE", "value": "/etc/ssl/certs/ca.crt"}),
        "sets SSL_CERT_FILE. .*moverAdditions.env",
    ),
    "a volume of authorities": (
        lambda job: _pod(job)["volumes"].append({"name": "authorities", "configMap": {"name": "ca"}}),
        "sets authorities. .*moverAdditions.volumes",
    ),
    "a mount of a file": (
        lambda job: (
            _pod(job)["volumes"].append({"name": "authorities", "secret": {"secretName": "ca"}}),
            _mover(job)["volumeMounts"].append(
                {"name": "authorities", "mountPath": "/etc/ssl/certs", "subPath": "ca.crt"}
            ),
        ),
        "sets /etc/ssl/certs. .*moverAdditions.volumes",
    ),
    "an init container": (
        lambda job: _pod(job).update(initContainers=[{"name": "wait", "image": "example.org/wait:1"}]),
        "sets wait. .*moverAdditions.initImages",
    ),
    "a Secret for the mirror": (
        lambda job: _pod(job)["imagePullSecrets"].append({"name": "mirror"}),
        "sets mirror. .*moverAdditions.imagePullSecrets",
    ),
    "a time to live": (
        lambda job: job["spec"].update(ttlSecondsAfterFinished=900),
        "sets spec.ttlSecondsAfterFinished. .*moverAdditions.fields",
    ),
    "name servers": (
        lambda job: _pod(job).update(dnsConfig={"options": [{"name": "ndots", "value": "1"}]}),
        "sets spec.template.spec.dnsConfig. .*moverAdditions.fields",
    ),
    "a priority of the system": (
        lambda job: _pod(job).update(priorityClassName="system-cluster-critical"),
        "mover.allowSystemPriority",
    ),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
async def test_changes_of_webhooks_pass_if_a_value_names_them(
    releases: Releases, operator: KubeClient, backup: VolumeBackup, mutation: tuple[Change, str]
) -> None:
    change, refusal = mutation
    job = a_job(backup)
    change(job)
    with pytest.raises(AccessDenied, match=refusal):
        await operator.create(kinds.JOB, job)
    async with aclosing(await releases.operator(ADDITIONS)) as allowed:
        await allowed.create(kinds.JOB, job)


FORGED_ADDITIONS: dict[str, Change] = {
    "the host's files": lambda job: _pod(job)["volumes"].append({"name": "authorities", "hostPath": {"path": "/"}}),
    "another path": lambda job: (
        _pod(job)["volumes"].append({"name": "authorities", "secret": {"secretName": "ca"}}),
        _mover(job)["volumeMounts"].append({"name": "authorities", "mountPath": "/opt/cinderblock"}),
    ),
    "a privileged init container": lambda job: _pod(job).update(
        initContainers=[{"name": "wait", "image": "example.org/wait", "securityContext": {"privileged": True}}]
    ),
    "a port of the host": lambda job: _pod(job).update(
        initContainers=[{"name": "wait", "image": "example.org/wait", "ports": [{"containerPort": 80, "hostPort": 80}]}]
    ),
}


@pytest.mark.parametrize("change", FORGED_ADDITIONS.values(), ids=FORGED_ADDITIONS)
async def test_permitted_additions_give_no_further_rights(
    releases: Releases, backup: VolumeBackup, change: Change
) -> None:
    job = a_job(backup)
    change(job)
    async with aclosing(await releases.operator(ADDITIONS)) as operator:
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
    "a label": {"metadata": {"labels": {"cinderblock.io/more": "x"}}},
    "an annotation": {"metadata": {"annotations": {"cinderblock.io/owner-name": "other"}}},
    "a finalizer": {"metadata": {"finalizers": [labels.JOB_FINALIZER, "example.org/held"]}},
    "parallelism": {"spec": {"parallelism": 5}},
    "the pod while it is suspended": {"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}},
    "retries": {"spec": {"backoffLimit": 6}},
    "a deadline": {"spec": {"activeDeadlineSeconds": 1}},
    "a time to live": {"spec": {"ttlSecondsAfterFinished": 0}},
    "a label of Kubernetes": {"metadata": {"labels": {"batch.kubernetes.io/more": "x"}}},
    "an annotation of Kubernetes": {"metadata": {"annotations": {"batch.kubernetes.io/job-tracking": ""}}},
    "a suspension": {"spec": {"suspend": True}, "metadata": {"annotations": {"cinderblock.io/started": "false"}}},
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
    attacks: list[dict[str, Any]] = [
        {"spec": {"suspend": False}},
        {"spec": {"activeDeadlineSeconds": 1}},
        {"spec": {"ttlSecondsAfterFinished": 0}},
        {"spec": {"backoffLimit": 0}},
        {"metadata": {"annotations": {labels.STARTED_ANNOTATION: "true"}}},
        {"metadata": {"labels": {"more": "x"}}},
        {"metadata": {"finalizers": ["example.org/held"]}},
    ]
    for attack in attacks:
        with pytest.raises(AccessDenied, match="The operator must change a Job of others only"):
            await operator.merge_patch(kinds.JOB, "theirs", backup.namespace, attack)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.delete(kinds.JOB, "theirs", backup.namespace)


async def test_our_finalizer_is_removed_from_the_jobs_of_others(
    operator: KubeClient, client: KubeClient, backup: VolumeBackup
) -> None:
    copied = a_job(backup)
    copied["metadata"] = {"name": "copy", "namespace": backup.namespace, "finalizers": [labels.JOB_FINALIZER]}
    await client.create(kinds.JOB, copied)
    released: dict[str, Any] = {"metadata": {"finalizers": []}}
    with pytest.raises(AccessDenied, match="The operator must change a Job"):
        await operator.merge_patch(
            kinds.JOB, "copy", backup.namespace, released | {"spec": {"activeDeadlineSeconds": 1}}
        )
    await operator.merge_patch(kinds.JOB, "copy", backup.namespace, released)


# Webhooks that label everything do so during the operator's writes as well, and the policies judge the result.
ADDED_BY_WEBHOOKS = {
    "labels": {"team": "shop", "app.kubernetes.io/part-of": "shop", "example.org/cost": "1"},
    "annotations": {"audit.example.org/last-writer": "cinderblock"},
}


async def test_labels_that_webhooks_add_to_writes_pass(
    operator: KubeClient, client: KubeClient, backup: VolumeBackup, restore: VolumeRestore
) -> None:
    job, claim = a_job(backup), children.restored_claim(restore, "new", REQUEST, "pv-1")
    volume = await a_volume(client, labels.child_name(restore.uid), restore.namespace)
    await operator.create(kinds.JOB, job)
    await operator.create(kinds.PVC, claim)
    writes: list[tuple[Kind, str, str | None, dict[str, Any]]] = [
        (kinds.VOLUME_BACKUP, backup.name, backup.namespace, {"metadata": {"finalizers": [labels.BACKUP_FINALIZER]}}),
        (kinds.VOLUME_BACKUP, backup.name, backup.namespace, {"metadata": {"finalizers": []}}),
        (kinds.JOB, job["metadata"]["name"], backup.namespace, {"metadata": {"finalizers": []}}),
        (kinds.PVC, "new", restore.namespace, {"metadata": {"annotations": {"cinderblock.io/nudged": "true"}}}),
        (kinds.PV, volume.name, None, _mark(volume, restore.uid)),
    ]
    for number, (kind, name, namespace, patch) in enumerate(writes):
        mutated = copy.deepcopy(patch)
        for part, added in ADDED_BY_WEBHOOKS.items():
            mutated["metadata"][part] = mutated["metadata"].get(part, {}) | dict.fromkeys(added, str(number))
        await operator.merge_patch(kind, name, namespace, mutated)
        for part in ADDED_BY_WEBHOOKS:
            of_kubernetes: dict[str, Any] = {"metadata": {part: {"volume.kubernetes.io/more": "x"}}}
            with pytest.raises(AccessDenied, match="The operator must change"):
                await operator.merge_patch(kind, name, namespace, of_kubernetes)


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
    for patch in ({"metadata": {"labels": {"app": None}}}, {"metadata": {"annotations": {"cinderblock.io/x": "y"}}}):
        with pytest.raises(AccessDenied, match="The operator must"):
            await operator.merge_patch(kinds.PVC, "new", restore.namespace, patch)
    with pytest.raises(AccessDenied, match="The operator must delete a claim only"):
        await operator.delete(kinds.PVC, "new", restore.namespace)


def _mutate(kind: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Label everything, and let a Job find the certificate authorities of the cluster, as Kyverno does."""
    changes: list[dict[str, Any]] = [
        {"op": "add", "path": f"/metadata/{part}", "value": body["metadata"].get(part, {}) | added}
        for part, added in ADDED_BY_WEBHOOKS.items()
    ]
    if kind == "Job" and "uid" not in body["metadata"]:
        authorities = {"name": "SSL_CERT_FILE", "value": "/etc/ssl/certs/ca.crt"}
        changes.append({"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": authorities})
    return changes


WEBHOOK = Kind(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)


async def test_operator_works_beside_a_webhook_that_changes_everything(
    releases: Releases, client: KubeClient, operator: KubeClient, restore: VolumeRestore
) -> None:
    rules = [
        {"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
        for group, resource in (("batch", "jobs"), ("", "persistentvolumeclaims"), ("cinderblock.io", "*"))
    ]
    name, namespace = restore.name, restore.namespace
    selector = {"kubernetes.io/metadata.name": namespace}
    job, claim = a_job(restore), children.restored_claim(restore, "new", REQUEST, "pv-1")
    with unlike.mutating(_mutate) as served:
        await client.create(WEBHOOK, unlike.webhook_configuration(namespace, served, rules, selector))
        async with aclosing(await releases.operator(ADDITIONS)) as allowed:
            await _eventually(lambda: _is_labelled(client, restore))
            with pytest.raises(AccessDenied, match=r"sets SSL_CERT_FILE\. .*moverAdditions\.env"):
                await operator.create(kinds.JOB, job)
            made = await allowed.create(kinds.JOB, job)
            started = {"metadata": {"annotations": {"cinderblock.io/started": "true"}}, "spec": {"suspend": False}}
            await allowed.merge_patch(kinds.JOB, made["metadata"]["name"], namespace, started)
            await allowed.merge_patch(kinds.JOB, made["metadata"]["name"], namespace, {"metadata": {"finalizers": []}})
        for finalizers in ([labels.RESTORE_FINALIZER], []):
            await operator.merge_patch(kinds.VOLUME_RESTORE, name, namespace, {"metadata": {"finalizers": finalizers}})
        body = PersistentVolumeClaim.model_validate(await operator.create(kinds.PVC, claim))
        await operator.merge_patch(kinds.PVC, "new", namespace, rebind.release(body, restore).patch)
        await client.delete(WEBHOOK, namespace, None)
    found = await client.get(kinds.PVC, "new", namespace) or {}
    assert found["metadata"]["labels"] == ADDED_BY_WEBHOOKS["labels"]


async def _is_labelled(client: KubeClient, restore: VolumeRestore) -> None:
    """Raise AccessDenied while the API server does not know the webhook yet."""
    changed = {"metadata": {"annotations": {"probe": uuid.uuid4().hex}}}
    found = await client.merge_patch(kinds.VOLUME_RESTORE, restore.name, restore.namespace, changed)
    if "team" not in found["metadata"].get("labels", {}):
        raise AccessDenied("not yet")


async def test_restored_claim_that_lost_its_owner_is_released_or_deleted(
    operator: KubeClient, client: KubeClient, restore: VolumeRestore
) -> None:
    for name in ("kept", "unbound"):
        await operator.create(kinds.PVC, children.restored_claim(restore, name, REQUEST, "pv-1"))
        orphaned = {"metadata": {"ownerReferences": None}}
        body = await client.merge_patch(kinds.PVC, name, restore.namespace, orphaned)
    await operator.delete(kinds.PVC, "unbound", restore.namespace)
    body = await client.get(kinds.PVC, "kept", restore.namespace) or {}
    released = rebind.release(PersistentVolumeClaim.model_validate(body), restore).patch
    await operator.merge_patch(kinds.PVC, "kept", restore.namespace, released)
    with pytest.raises(AccessDenied, match="The operator must delete a claim only"):
        await operator.delete(kinds.PVC, "kept", restore.namespace)


CLONE = {"kind": "PersistentVolumeClaim", "name": "data"}
SNAPSHOT_SOURCE = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}
FORGED_CLAIMS: dict[str, Change] = {
    "a volume of others": lambda claim: claim["spec"].update(volumeName="of-somebody"),
    "a choice of volumes": lambda claim: claim["spec"].update(selector={"matchLabels": {"app": "payroll"}}),
    "other attributes": lambda claim: claim["spec"].update(volumeAttributesClassName="gold"),
    "a finalizer": lambda claim: claim["metadata"].update(finalizers=["example.org/held"]),
    "a VolumeSnapshot of another group": lambda claim: claim["spec"].update(
        dataSourceRef=SNAPSHOT_SOURCE | {"apiGroup": "example.org"}
    ),
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
    content, held = children.volume_snapshot(backup, "data", "snap"), children.volume_snapshot(backup, "data", "snap")
    content["spec"]["source"] = {"volumeSnapshotContentName": "of-somebody"}
    held["metadata"]["finalizers"] = ["example.org/held"]
    for forged in (content, held):
        with pytest.raises(AccessDenied, match="The operator must"):
            await operator.create(kinds.VOLUME_SNAPSHOT, forged)
    mine = children.volume_snapshot(backup, "data", "snap")
    await operator.create(kinds.VOLUME_SNAPSHOT, mine)
    with pytest.raises(AccessDenied, match="never writes objects of this type, or never in this way"):
        await operator.merge_patch(
            kinds.VOLUME_SNAPSHOT, mine["metadata"]["name"], backup.namespace, {"metadata": {"labels": {"a": "b"}}}
        )


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
        _reserve(restore.namespace) | {"metadata": {"labels": {"topology.kubernetes.io/zone": "x"}}},
        {"spec": {"capacity": {"storage": "2Mi"}}},
        {"spec": {"accessModes": ["ReadWriteMany"]}},
        {"spec": {"mountOptions": ["suid"]}},
        {"metadata": {"labels": {RESTORE_LABEL: str(uuid.uuid4())}}},
        {"metadata": {"labels": {RESTORE_LABEL: None}}},
        {"spec": {"persistentVolumeReclaimPolicy": "Delete"}},
        # The only Secret of a volume that the API server lets somebody add; the driver reads it in any namespace.
        {"spec": {"csi": {"controllerExpandSecretRef": {"name": "admin", "namespace": "kube-system"}}}},
        _reserve(restore.namespace) | {"metadata": {"annotations": {TEMPORARY_ANNOTATION: "true"}}},
        {"metadata": {"annotations": {TEMPORARY_ANNOTATION: "true"}}},
        {"metadata": {"annotations": {"volume.kubernetes.io/provisioner-deletion-secret-name": "s"}}},
        {"metadata": {"labels": {RESTORE_LABEL: None}}, "spec": {"accessModes": ["ReadWriteMany"]}},
    )
    for attack in attacks:
        with pytest.raises(AccessDenied, match="The operator must"):
            await _apply(operator, attack, volume)


async def test_each_step_writes_its_own_annotations_only(
    operator: KubeClient, client: KubeClient, restore: VolumeRestore
) -> None:
    volume = await a_volume(client, labels.child_name(restore.uid), restore.namespace)
    manual = await a_volume(client, labels.child_name(restore.uid), restore.namespace)
    unprovisioned = {"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": None}}}
    body = await client.merge_patch(kinds.PV, manual.name, None, unprovisioned)
    temporary = _mark(volume, restore.uid)
    temporary["metadata"]["annotations"][TEMPORARY_ANNOTATION] = "true"
    with pytest.raises(AccessDenied, match="The operator must"):
        await _apply(operator, temporary, PersistentVolume.model_validate(body))
    disposed: dict[str, Any] = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    for forged in (disposed, _mark(volume, restore.uid)):
        attack = copy.deepcopy(forged)
        attack.setdefault("metadata", {}).setdefault("annotations", {})["cinderblock.io/more"] = "x"
        with pytest.raises(AccessDenied, match="The operator must"):
            await _apply(operator, attack, volume)
    volume = await _apply(operator, temporary, volume)
    volume = await _apply(operator, rebind.unmark(volume, None).patch, volume)
    assert TEMPORARY_ANNOTATION not in volume.metadata.annotations


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
    "a label": {"metadata": {"labels": {"cinderblock.io/more": "x"}}},
    "an annotation": {"metadata": {"annotations": {"cinderblock.io/let-go": "leave-data"}}},
    "what kubectl applied": {"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}},
    "a finalizer of others": {"metadata": {"finalizers": ["example.org/held"]}},
    "an unknown finalizer": {"metadata": {"finalizers": ["cinderblock.io/held"]}},
    "an owner": {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u"}]}},
}


@pytest.mark.parametrize("patch", FORGED_OPERATIONS.values(), ids=FORGED_OPERATIONS)
async def test_any_other_change_of_an_operation_is_refused(
    operator: KubeClient, backup: VolumeBackup, patch: dict[str, Any]
) -> None:
    with pytest.raises(AccessDenied, match="The operator must change"):
        await operator.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, patch)


SCHEDULED: dict[str, Any] = {
    "metadata": {
        "name": "daily-data-202605040200",
        "labels": {labels.SCHEDULE_LABEL: "daily", "team": "db"},
        "annotations": {
            labels.SCHEDULE_ANNOTATION: "BackupSchedule/daily",
            labels.SCHEDULED_FOR_ANNOTATION: "2026-05-04T02:00:00Z",
            labels.FULL_TIME_ANNOTATION: "2026-05-01T02:00:00Z",
        },
    },
    "spec": {"volumeId": "data", "incremental": True, "force": True},
}
UNSCHEDULED: dict[str, dict[str, Any]] = {
    "no schedule": {"metadata": {"annotations": {labels.SCHEDULE_ANNOTATION: None}}},
    "another kind": {"metadata": {"annotations": {labels.SCHEDULE_ANNOTATION: "Pod/daily"}}},
    "no time": {"metadata": {"annotations": {labels.SCHEDULED_FOR_ANNOTATION: None}}},
    "no label": {"metadata": {"labels": {labels.SCHEDULE_LABEL: None}}},
    "another mark": {"metadata": {"annotations": {labels.RELEASED_ANNOTATION: "leave-data"}}},
    "a label of ours": {"metadata": {"labels": {labels.OWNER_UID_LABEL: "some"}}},
    "a finalizer": {"metadata": {"finalizers": [labels.BACKUP_FINALIZER]}},
    "an owner": {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u"}]}},
    "an import": {"spec": {"volumeId": None, "incremental": None, "force": None, "import": {"id": "some"}}},
    "a snapshot": {"spec": {"snapshotId": "some"}},
}


async def test_backups_of_schedules_are_created(operator: KubeClient, namespace: str) -> None:
    body = merged(SCHEDULED, {"metadata": {"namespace": namespace}})
    await operator.create(kinds.VOLUME_BACKUP, body)


@pytest.mark.parametrize("change", UNSCHEDULED.values(), ids=UNSCHEDULED)
async def test_any_other_backup_is_refused(operator: KubeClient, namespace: str, change: dict[str, Any]) -> None:
    body = merged(merged(SCHEDULED, {"metadata": {"namespace": namespace}}), change)
    with pytest.raises(AccessDenied, match=r"The operator must (create|give|back|import)"):
        await operator.create(kinds.VOLUME_BACKUP, body)


IMPORTED: dict[str, Any] = {
    "metadata": {
        "name": "again",
        "annotations": {labels.IMPORTED_ANNOTATION: "default"},
        "finalizers": [labels.BACKUP_FINALIZER],
    },
    "spec": {"storeName": "default", "import": {"id": "some", "manifest": "backups/v/some.manifest"}},
}
RETAIN = {"spec": {"deletionPolicy": "Retain"}}
OTHER_IMPORTS: dict[str, dict[str, Any]] = {
    "no annotation": {"metadata": {"annotations": {labels.IMPORTED_ANNOTATION: None}}},
    "another store": {"spec": {"storeName": "other"}},
    "the default policy": {"spec": {"deletionPolicy": None}},
    "another policy": {"spec": {"deletionPolicy": "Delete"}},
    "unsealed": {"spec": {"import": {"allowUnsealed": True}}},
    "another mark": {"metadata": {"annotations": {labels.RELEASED_ANNOTATION: "leave-data"}}},
    "a label of ours": {"metadata": {"labels": {labels.OWNER_UID_LABEL: "some"}}},
    "another finalizer": {"metadata": {"finalizers": [labels.STORE_FINALIZER]}},
    "an owner": {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u"}]}},
}


@pytest.mark.parametrize("change", OTHER_IMPORTS.values(), ids=OTHER_IMPORTS)
async def test_any_other_import_is_refused(operator: KubeClient, namespace: str, change: dict[str, Any]) -> None:
    body = merged(merged(merged(IMPORTED, RETAIN), {"metadata": {"namespace": namespace}}), change)
    with pytest.raises(AccessDenied, match=r"The operator must (import|give)"):
        await operator.create(kinds.VOLUME_BACKUP, body)


async def test_imports_are_created_and_removed_only_after_two_listings(
    operator: KubeClient, client: KubeClient, namespace: str
) -> None:
    body = merged(merged(IMPORTED, RETAIN), {"metadata": {"namespace": namespace}})
    made = await operator.create(kinds.VOLUME_BACKUP, body)
    since = {"since": "2026-05-04T12:00:00Z"}
    for missing in ({}, since):
        patch = {"status": {"manifestMissing": missing or None}}
        await operator.merge_patch(kinds.VOLUME_BACKUP, "again", namespace, patch, subresource="status")
        with pytest.raises(AccessDenied, match="only after two listings without its manifest"):
            await operator.delete(kinds.VOLUME_BACKUP, "again", namespace)
    store = BackupStore.model_validate({"metadata": {"name": "default", "namespace": namespace}, "spec": {}})
    read = VolumeBackup.model_validate(await client.get(kinds.VOLUME_BACKUP, "again", namespace))
    removing = ManifestMissing(since=datetime(2026, 5, 4, 12, 0, tzinfo=UTC), removing=True)
    write = PresenceWrite(record_of(read, store), removing)
    context = Context(kube=operator, stores=cast("Any", None), policy=cast("Any", None))
    await write_presence(context, store, write)
    found = await client.get(kinds.VOLUME_BACKUP, "again", namespace)
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert "deletionTimestamp" in found["metadata"]
    assert found["status"]["manifestMissing"] == since | {"removing": True}


async def test_import_of_a_person_is_not_removed(operator: KubeClient, client: KubeClient, namespace: str) -> None:
    body = merged(IMPORTED, {"metadata": {"namespace": namespace, "annotations": None, "finalizers": None}})
    await client.create(kinds.VOLUME_BACKUP, body)
    missing = {"status": {"manifestMissing": {"since": "2026-05-04T12:00:00Z", "removing": True}}}
    await operator.merge_patch(kinds.VOLUME_BACKUP, "again", namespace, missing, subresource="status")
    with pytest.raises(AccessDenied, match="only if it made it"):
        await operator.delete(kinds.VOLUME_BACKUP, "again", namespace)


def merged(body: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return a body with a merge patch (RFC 7386)."""
    found = {key: value for key, value in body.items() if patch.get(key, value) is not None}
    for key, value in patch.items():
        if isinstance(value, dict):
            found[key] = merged(body.get(key) or {}, value)
        elif value is not None:
            found[key] = value
    return found


async def test_only_announced_backups_are_deleted(
    operator: KubeClient, client: KubeClient, backup: VolumeBackup
) -> None:
    with pytest.raises(AccessDenied, match="whose removal retention has announced"):
        await operator.delete(kinds.VOLUME_BACKUP, backup.name, backup.namespace)
    backup = await _marked(operator, backup)
    held = await client.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, {"spec": {"hold": True}})
    with pytest.raises(AccessDenied, match=r"must not delete a VolumeBackup with spec\.hold"):
        await operator.delete(kinds.VOLUME_BACKUP, backup.name, backup.namespace)
    with pytest.raises(AccessDenied, match="must change no spec"):
        await operator.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, {"spec": {"hold": False}})
    released = {"metadata": {"resourceVersion": held["metadata"]["resourceVersion"]}, "spec": {"hold": False}}
    await client.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, released)
    await operator.delete(kinds.VOLUME_BACKUP, backup.name, backup.namespace)
    assert await client.get(kinds.VOLUME_BACKUP, backup.name, backup.namespace) is None


async def test_mark_that_was_removed_announces_nothing(operator: KubeClient, backup: VolumeBackup) -> None:
    marked = await _marked(operator, backup)
    await apply_retention(operator, [UnmarkExpiring(_version(marked))])
    with pytest.raises(AccessDenied, match="whose removal retention has announced"):
        await operator.delete(kinds.VOLUME_BACKUP, backup.name, backup.namespace)


async def _marked(operator: KubeClient, backup: VolumeBackup) -> VolumeBackup:
    """Mark a backup as retention does, and return it."""
    await apply_retention(operator, [MarkExpiring(_version(backup), datetime(2026, 5, 4, tzinfo=UTC))])
    body = await operator.get(kinds.VOLUME_BACKUP, backup.name, backup.namespace)
    return VolumeBackup.model_validate(body)


def _version(backup: VolumeBackup) -> BackupVersion:
    return BackupVersion(backup.namespace, backup.name, backup.uid, backup.metadata.resource_version)


async def test_events_are_recorded_and_counted_in_its_own_name(operator: KubeClient, backup: VolumeBackup) -> None:
    body = {"kind": "VolumeBackup", "apiVersion": "cinderblock.io/v1alpha1"}
    body |= {"metadata": {"name": backup.name, "namespace": backup.namespace, "uid": backup.uid}}  # type: ignore[dict-item]
    for _ in range(2):
        await event_recorder.record_event(operator, body, "Normal", "Accepted", "it begins", action="Reconcile")
    [event] = await operator.list(kinds.EVENT, backup.namespace)
    assert event["series"]["count"] == 2
    forged = event_recorder._event(body, "Normal", "Scheduled", "forged", action="Bind", now=datetime.now(UTC))
    held = copy.deepcopy(forged)
    held["metadata"]["finalizers"] = ["example.org/held"]
    for attack in (forged | {"reportingController": "default-scheduler"}, held):
        with pytest.raises(AccessDenied, match="only in its own name"):
            await operator.create(kinds.EVENT, attack)


async def test_only_its_own_lease_is_written(operator: KubeClient, releases: Releases, namespace: str) -> None:
    def lease(name: str, place: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": place}, "spec": {"holderIdentity": "x"}}

    made = await operator.create(kinds.LEASE, lease("policies-baseline", releases.namespace))
    await operator.replace(kinds.LEASE, made | {"spec": {"holderIdentity": "y"}})
    for name, place in (("policies-baseline", namespace), ("other", releases.namespace)):
        with pytest.raises(AccessDenied, match="only the Lease of its own"):
            await operator.create(kinds.LEASE, lease(name, place))
    held = {"metadata": {"finalizers": ["example.org/held"]}}
    with pytest.raises(AccessDenied, match="only the Lease of its own"):
        await operator.merge_patch(kinds.LEASE, "policies-baseline", releases.namespace, held)


async def test_nothing_else_is_written(operator: KubeClient, backup: VolumeBackup, restore: VolumeRestore) -> None:
    namespace = backup.namespace
    metadata = {"name": "evil", "namespace": namespace}
    job = (await operator.create(kinds.JOB, a_job(backup)))["metadata"]["name"]
    role = {"metadata": {"name": f"evil-{uuid.uuid4().hex[:8]}"}, "rules": []}
    attacks: list[Callable[[], Any]] = [
        lambda: operator.create(CONFIG_MAP, {"metadata": metadata}),
        lambda: operator.create(SERVICE_ACCOUNT, {"metadata": metadata}),
        lambda: operator.create(CLUSTER_ROLE, role),
        lambda: operator.delete(kinds.NAMESPACE, namespace, None),
        lambda: operator.merge_patch(kinds.NAMESPACE, namespace, None, {"metadata": {"labels": {"a": "b"}}}),
        lambda: operator.merge_patch(kinds.JOB, job, namespace, {"status": {"active": 1}}, subresource="status"),
    ]
    for attack in attacks:
        with pytest.raises(AccessDenied, match="never writes objects of this type"):
            await attack()
    with pytest.raises(AccessDenied, match="only as the child of one BackupVerification"):
        await operator.create(kinds.VOLUME_RESTORE, {"metadata": metadata, "spec": {"backupId": "full"}})
    with pytest.raises(AccessDenied, match="only if a BackupVerification owns it"):
        await operator.delete(kinds.VOLUME_RESTORE, restore.name, namespace)


async def test_uninstall_hook_removes_our_finalizers_and_changes_nothing_else(
    releases: Releases, operator: KubeClient, client: KubeClient, backup: VolumeBackup
) -> None:
    job = (await operator.create(kinds.JOB, a_job(backup)))["metadata"]["name"]
    held: dict[str, Any] = {"metadata": {"finalizers": [labels.BACKUP_FINALIZER]}}
    await operator.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, held)
    async with aclosing(await releases.operator(UNINSTALL)) as hook:
        hook.namespaces = (backup.namespace,)
        for kind, name, attack in (
            (kinds.JOB, job, {"spec": {"activeDeadlineSeconds": 1}}),
            (kinds.VOLUME_BACKUP, backup.name, {"spec": {"name": "another title"}}),
        ):
            with pytest.raises(AccessDenied, match="The operator must change"):
                await hook.merge_patch(kind, name, backup.namespace, attack)
        await release_finalizers(hook)
    for kind, name in ((kinds.JOB, job), (kinds.VOLUME_BACKUP, backup.name)):
        found = await client.get(kind, name, backup.namespace) or {}
        assert "finalizers" not in found["metadata"]


async def test_tokens_and_whole_collections_are_refused_too(
    releases: Releases, operator: KubeClient, client: KubeClient, backup: VolumeBackup
) -> None:
    theirs = a_job(backup)
    theirs["metadata"] = {"name": "theirs", "namespace": backup.namespace}
    await client.create(kinds.JOB, theirs)
    with new_client_from_config(str(releases.directory / "policies-baseline.kubeconfig")) as connected:
        attacks: list[Callable[[], Any]] = [
            lambda: BatchV1Api(connected).delete_collection_namespaced_job(backup.namespace),
            lambda: CoreV1Api(connected).create_namespaced_service_account_token(
                "policies-privileged", releases.namespace, AuthenticationV1TokenRequest(spec={"audiences": []})
            ),
        ]
        for attack in attacks:
            with pytest.raises(ApiException, match=r"The operator (must|never)"):
                await asyncio.to_thread(attack)
    assert await client.get(kinds.JOB, "theirs", backup.namespace) is not None
