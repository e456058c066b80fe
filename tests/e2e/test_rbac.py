"""The operator has exactly the rights that it uses: no request is refused, and no right is unused.

The API server's audit log shows the requests, also those of all earlier tests. So that this file gives the same result
alone, it uses every right itself: backups, restores, deletions, and a store that fails. It runs last, because it also
judges the requests of the other tests.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.cluster.audit import AuditLog, Right, UsedRights, foreign, granted, rights_used_by, unused
from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, KubeCluster, Object
from tests.support.cluster.namespaces import CREDENTIALS, Account, Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing, pytest.mark.last(2)]


@pytest.fixture
def log(audit: AuditLog | None) -> AuditLog:
    if audit is None:
        pytest.skip("needs the audit log of our own cluster's API server")
    return audit


@pytest.fixture
def asked_by_the_operator(log: AuditLog, tenant: Tenant) -> UsedRights:
    _full_lifecycle(tenant)
    _store_outages(tenant)
    _mover_problems(tenant)
    _shared_store(tenant)
    _lost_lease(tenant)
    return rights_used_by(log.lines(), f"{RELEASE_NAMESPACE}:{RELEASE}")


def test_operator_uses_every_right_and_no_request_is_refused(
    kube: KubeCluster, asked_by_the_operator: UsedRights
) -> None:
    rights = granted(_roles(kube))
    assert len(rights) > 30
    assert _listed(asked_by_the_operator.refused) == []
    assert _listed(unused(rights, asked_by_the_operator)) == []
    assert foreign(asked_by_the_operator, RELEASE, f"{RELEASE}-checks") == {}


@pytest.mark.parametrize("account", ["uninstall", "store-setup", "broker"])
def test_nothing_is_refused_to_the_other_accounts_of_the_chart(log: AuditLog, account: str, release: Account) -> None:
    used = rights_used_by(log.lines(), f"{RELEASE_NAMESPACE}:{RELEASE}-{account}")
    assert _listed(used.refused) == []
    roles = (f"{RELEASE}-{account}{suffix}" for suffix in ("", "-tenant", "-cluster"))
    assert foreign(used, *roles) == {}


def _listed(rights: set[Right]) -> list[str]:
    return sorted(str(right) for right in rights)


def _roles(kube: KubeCluster) -> list[Object]:
    """Return the operator's installed roles."""
    places = (("clusterrole", None), ("role", RELEASE_NAMESPACE))
    found = [kube.get(kind, RELEASE, namespace) for kind, namespace in places]
    return [role for role in found if role is not None]


def _full_lifecycle(tenant: Tenant) -> None:
    """Back up, also incrementally, restore to a new and an existing volume, use a volume by its UID, and delete
    everything.
    """
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "files", size="64Mi"), claim(kube, name, "other", size="64Mi"))
    run_pod(kube, name, OneShotPod("write", ("sh", "-c", "echo text > /volume/file"), (Mount("files", "/volume"),)))
    tenant.wait_until("bound volumes", lambda: len(tenant.volumes()) == 2)
    uid = tenant.get("pvc", "files")["metadata"]["uid"]
    kube.apply(tenant.backup("full", uid))
    tenant.ends("volumebackup/full")
    kube.apply(tenant.backup("more", "files", incremental=True))
    tenant.ends("volumebackup/more")
    kube.apply(tenant.restore("new", "more", name="copy"), tenant.restore("over", "full", volumeId="other"))
    tenant.ends("volumerestore/new", "volumerestore/over")
    tenant.delete("volumebackup/more", "volumebackup/full")


def _store_outages(tenant: Tenant) -> None:
    """Remove and restore a Secret twice, so that the same Events repeat."""
    kube, name = tenant.kube, tenant.name
    kept = tenant.get("secret", CREDENTIALS)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CREDENTIALS, "namespace": name}}
    for number in range(2):
        tenant.kubectl("delete", "secret", CREDENTIALS)
        _look_again(tenant, f"gone-{number}")
        tenant.says("backupstore/default", "SecretNotFound")
        kube.apply(secret | {"data": kept["data"]})
        _look_again(tenant, f"back-{number}")
        tenant.says("backupstore/default", "Answers")
    tenant.wait_until("an Event that was counted", partial(_is_counted, tenant))


def _look_again(tenant: Tenant, why: str) -> None:
    tenant.kubectl("annotate", "backupstore", "default", f"example.com/changed={why}", "--overwrite")


def _is_counted(tenant: Tenant) -> bool:
    return any((event.get("series") or {}).get("count", 1) > 1 for event in tenant.events("default"))


def _mover_problems(tenant: Tenant) -> None:
    """Run a mover that is slow enough for its log to be read, and one that no node accepts, which the Events of its pod
    explain.
    """
    kube, name = tenant.kube, tenant.name
    fill = ("sh", "-c", "head -c 12000000 /dev/urandom > /volume/random")
    run_pod(kube, name, OneShotPod("fill", fill, (Mount("files", "/volume"),)))
    tenant.limit(uploadBytesPerSecond=1 << 20)
    kube.apply(tenant.backup("slow", "files"))
    tenant.wait_until("progress", lambda: tenant.get("volumebackup", "slow")["status"].get("progress"))
    tenant.delete("volumebackup/slow")
    kube.apply(tenant.store("default", is_default=True, mover={"nodeSelector": {"example.com/nowhere": "true"}}))
    kube.apply(tenant.backup("stuck", "files"))
    tenant.says("volumebackup/stuck", "MoverUnschedulable")
    tenant.delete("volumebackup/stuck")


def _shared_store(tenant: Tenant) -> None:
    """Share a store with the namespace, and remove it, which takes half a minute."""
    kube, name = tenant.kube, f"shared-{tenant.name}"
    spec = {
        "credentialsSecretRef": {"name": "nowhere"},
        "allowedNamespaces": {"from": "Names", "names": [tenant.name]},
    }
    metadata = {"name": name}
    kube.apply(
        {"apiVersion": "cinderblock.io/v1alpha1", "kind": "ClusterBackupStore", "metadata": metadata, "spec": spec}
    )
    tenant.wait_until("a BackupStore", lambda: kube.get("backupstore", name, tenant.name))
    kube.kubectl("delete", "clusterbackupstore", name, "--wait=false")
    tenant.disappears(f"backupstore/{name}", timeout=180)
    tenant.wait_until("the end of the store", lambda: kube.get("clusterbackupstore", name) is None)


def _lost_lease(tenant: Tenant) -> None:
    """Delete the Lease, which the operator then creates again, as at its first start."""
    kube, place = tenant.kube, ("lease", RELEASE, RELEASE_NAMESPACE)
    kube.kubectl("delete", "lease", RELEASE, "-n", RELEASE_NAMESPACE)
    tenant.wait_until("a new Lease with a holder", lambda: _holder(kube.get(*place)))


def _holder(lease: Object | None) -> str:
    return str(lease["spec"].get("holderIdentity", "")) if lease else ""
