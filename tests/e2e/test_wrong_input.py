"""Wrong input fails within seconds with an error and an Event that name the problem, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.cluster.cluster import KubeCluster, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim

pytestmark = pytest.mark.e2e

WRONG_SECRET = "this-is-not-the-secret-key-of-anybody"
NOBODY = "http://127.0.0.1:9"
SERVE = ("python3", "-m", "http.server", "8000", "--directory", "/tools")
"""Uses a volume, and is a web server that knows nothing of S3."""


@dataclass(frozen=True)
class Case:
    """One wrong request.

    Attributes:
        reason: of the condition and of the Event.
        words: what failReason must say.
        volume: the volume to back up.
        backup: the backup to restore; None: the request is a backup.
        spec: the rest of the request.
        own_cluster_only: whether it needs our own cluster's classes.
    """

    reason: str
    words: str
    volume: str = "files"
    backup: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    own_cluster_only: bool = False


def _backup(reason: str, words: str, volume: str = "files", *, own: bool = False, **spec: Any) -> Case:
    return Case(reason, words, volume, spec={"storeName": "good"} | spec, own_cluster_only=own)


def _restore(reason: str, words: str, backup: str = "whole", **spec: Any) -> Case:
    return Case(reason, words, backup=backup, spec=spec)


CASES = {
    "no-such-volume": _backup("VolumeNotFound", "Volume nowhere could not be found.", "nowhere"),
    "in-use-without-force": _backup("VolumeInUse", "must use the force flag. Used by pod user", "used"),
    "in-use-without-snapshots": _backup(
        "SnapshotClassNotFound", "no VolumeSnapshotClass for driver plain", "used-plain", own=True, force=True
    ),
    "no-such-store": _backup("StoreNotFound", "BackupStore nowhere could not be found", storeName="nowhere"),
    "no-default-store": Case("StoreNotFound", "has no default BackupStore"),
    "no-such-secret": _backup("SecretNotFound", "Secret nowhere of BackupStore secretless", storeName="secretless"),
    "half-a-secret": _backup("SecretIncomplete", "has no AWS_SECRET_ACCESS_KEY", storeName="half"),
    "no-such-encryption-secret": _backup(
        "SecretNotFound", "Secret nowhere of BackupStore keyless", storeName="keyless"
    ),
    "malformed-encryption-key": _backup("InvalidInput", "key", storeName="malformed-key"),
    "wrong-credentials": _backup("AccessDenied", "Check AWS_SECRET_ACCESS_KEY", storeName="wrong-credentials"),
    "unknown-access-key": _backup("AccessDenied", "Check AWS_ACCESS_KEY_ID", storeName="unknown-account"),
    "untrusted-certificate": _backup("CertificateNotTrusted", "Provide the CA that signed it", storeName="untrusted"),
    "no-such-bucket": _backup("ContainerNotFound", "Cannot use container e2e-no-such-bucket", storeName="no-bucket"),
    "no-such-snapshot-class": _backup(
        "SnapshotClassNotFound", "BackupStore classless names VolumeSnapshotClass nowhere", storeName="classless"
    ),
    "no-such-snapshot": _backup("SnapshotNotFound", "Snapshot nowhere could not be found.", snapshotId="nowhere"),
    "incremental-without-parent": _backup(
        "NoParent", "No backups available to do an incremental backup.", "small", incremental=True
    ),
    "no-such-backup": _restore("BackupNotFound", "Backup nowhere could not be found.", "nowhere", name="new"),
    "backup-not-available": _restore("BackupNotAvailable", "Backup status must be available", "failed", name="new"),
    "no-such-target": _restore("VolumeNotFound", "Volume nowhere could not be found.", volumeId="nowhere"),
    "target-in-use": _restore("VolumeNotAvailable", "must be available. Used by pod user", volumeId="used"),
    "target-too-small": _restore("VolumeTooSmall", "is too small to restore backup", volumeId="small"),
    "target-of-other-mode": _restore("VolumeModeMismatch", "volumeMode is Block", volumeId="disk"),
    "name-exists": _restore("NameTaken", "Cannot create PersistentVolumeClaim files: it exists", name="files"),
    "size-too-small": _restore("VolumeTooSmall", "is too small to restore backup", name="new", size="1Gi"),
    "no-such-class": _restore(
        "StorageClassNotFound", "StorageClass nowhere could not be found.", name="new", storageClassName="nowhere"
    ),
}


@pytest.fixture(scope="module")
def prepared(kube: KubeCluster, make_shared_tenant: Callable[..., Tenant]) -> Iterator[Tenant]:
    """Create volumes in every state, stores with every fault, a complete and a failed backup, and no default store."""
    tenant = make_shared_tenant(is_default=False)
    tenant.secrets.append(WRONG_SECRET)
    kube.apply(*_volumes(tenant), *_stores(tenant))
    tenant.wait_until("bound volumes", lambda: len(tenant.volumes()) >= 4)
    kube.apply(tenant.backup("whole", "files", storeName="good"), tenant.backup("failed", "nowhere", storeName="good"))
    tenant.kubectl("wait", "pods", "--all", "--for=condition=Ready", "--timeout=60s")
    kube.apply(tenant.store("not-s3", endpointUrl=f"http://{tenant.get('pod', 'user')['status']['podIP']}:8000"))
    tenant.ends("volumebackup/whole")
    tenant.reaches("volumebackup/failed", "error")
    yield tenant
    tenant.kubectl("delete", "pods", "--all", "--timeout=60s")


def _volumes(tenant: Tenant) -> list[Object]:
    kube, name = tenant.kube, tenant.name
    objects = [
        claim(kube, name, "files", size="2Gi"),
        claim(kube, name, "used", size="2Gi"),
        claim(kube, name, "small", size="1Gi"),
        claim(kube, name, "disk", size="2Gi", block=True),
        claim(kube, name, "unbound", storage_class="rawfile-wffc" if kube.is_own else "e2e-no-such-class"),
        OneShotPod("user", SERVE, (Mount("used", "/volume"),)).manifest(kube, name),
    ]
    if kube.is_own:
        objects += [
            claim(kube, name, "used-plain", storage_class="plain", size="64Mi"),
            OneShotPod("user-plain", SERVE, (Mount("used-plain", "/volume"),)).manifest(kube, name),
        ]
    return objects


def _stores(tenant: Tenant) -> list[Object]:
    known = tenant.account.access_key
    return [
        tenant.secret("half", AWS_ACCESS_KEY_ID=known),
        tenant.secret("wrong", AWS_ACCESS_KEY_ID=known, AWS_SECRET_ACCESS_KEY=WRONG_SECRET),
        tenant.secret("unknown", AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY=WRONG_SECRET),
        tenant.secret("malformed", **{"key-1": WRONG_SECRET}),
        tenant.store("good"),
        tenant.store("secretless", credentialsSecretRef={"name": "nowhere"}),
        tenant.store("half", credentialsSecretRef={"name": "half"}),
        tenant.store("keyless", encryptionSecretRef={"name": "nowhere"}),
        tenant.store("malformed-key", encryptionSecretRef={"name": "malformed"}),
        tenant.store("wrong-credentials", credentialsSecretRef={"name": "wrong"}),
        tenant.store("unknown-account", credentialsSecretRef={"name": "unknown"}),
        tenant.store("untrusted", endpointUrl="https://kubernetes.default.svc"),
        tenant.store("no-bucket", container="e2e-no-such-bucket", createContainer=False),
        tenant.store("classless", volumeSnapshotClassName="nowhere"),
    ]


@pytest.mark.parametrize("name", CASES)
def test_wrong_request_is_reported_and_leaves_nothing(prepared: Tenant, name: str) -> None:
    case = CASES[name]
    if case.own_cluster_only and not prepared.kube.is_own:
        pytest.skip("needs the class `plain` of our own cluster, whose driver makes no snapshots")
    operation, phase = f"volumebackup/{name}", "error"
    wrong = prepared.backup(name, case.volume, **case.spec)
    if case.backup is not None:
        operation, phase = f"volumerestore/{name}", "error_restoring"
        wrong = prepared.restore(name, case.backup, **case.spec)
    prepared.kube.apply(wrong)

    found = prepared.reaches(operation, phase, timeout=60)

    assert case.words in found["status"]["failReason"]
    conditions = {item["type"]: item for item in found["status"]["conditions"]}
    assert (conditions["Ready"]["status"], conditions["Stalled"]["status"]) == ("False", "True")
    assert conditions["Stalled"]["reason"] == case.reason
    prepared.wait_until("a Warning", lambda: _warned(prepared, name, case.reason))
    assert prepared.children(found["metadata"]["uid"]) == []
    prepared.delete(operation)


def _warned(tenant: Tenant, name: str, reason: str) -> bool:
    return any(event["type"] == "Warning" and event["reason"] == reason for event in tenant.events(name))


def test_backup_waits_for_a_silent_store_and_reports_it(tenant: Tenant) -> None:
    tenant.kube.apply(
        claim(tenant.kube, tenant.name, "files", size="64Mi"),
        tenant.store("unreachable", endpointUrl=NOBODY),
    )
    tenant.wait_until("bound volume", tenant.volumes)
    tenant.kube.apply(tenant.backup("patient", "files", storeName="unreachable"))
    message = tenant.says("volumebackup/patient", "StoreUnreachable")
    assert NOBODY in message
    assert "until 20" in message
    assert tenant.get("volumebackup", "patient")["status"]["phase"] == "creating"
    tenant.delete("volumebackup/patient")


def test_backup_waits_while_another_server_answers_and_reports_it(prepared: Tenant) -> None:
    prepared.kube.apply(prepared.backup("misled", "files", storeName="not-s3"))
    message = prepared.says("volumebackup/misled", "NotS3")
    assert "does not speak S3" in message
    assert "until 20" in message
    assert prepared.get("volumebackup", "misled")["status"]["phase"] == "creating"
    prepared.delete("volumebackup/misled")


def test_backup_waits_for_an_unbound_volume_and_reports_it(prepared: Tenant) -> None:
    prepared.kube.apply(prepared.backup("early", "unbound", storeName="good"))
    message = prepared.says("volumebackup/early", "VolumeNotBound")
    assert 'current status is "pending"' in message
    assert "until 20" in message
    prepared.delete("volumebackup/early")


def test_store_reports_its_own_error(prepared: Tenant) -> None:
    for store, reason in (("half", "SecretIncomplete"), ("wrong-credentials", "AccessDenied"), ("good", "Answers")):
        assert prepared.says(f"backupstore/{store}", reason)
