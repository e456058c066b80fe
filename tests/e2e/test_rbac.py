"""The operator works with exactly what its roles grant: nothing is refused, and nothing is granted that it never uses.

The judge is the API server's audit log, for all tests before this one as well. So that this file says the same when it
runs alone, its story makes use of every right: a whole life of backups, restores, deletions, and a store in trouble.
Last in order, because it judges what the others have caused.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.cluster.audit import Asked, AuditLog, Right, asked, foreign, granted, unused
from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, Lab, Object
from tests.support.cluster.namespaces import CREDENTIALS, Account, Tenant
from tests.support.cluster.workloads import Errand, Mount, claim, run_errand

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing, pytest.mark.last(2)]


@pytest.fixture
def log(audit: AuditLog | None) -> AuditLog:
    if audit is None:
        pytest.skip("needs the audit log of our own cluster's API server")
    return audit


@pytest.fixture
def asked_by_the_operator(log: AuditLog, tenant: Tenant) -> Asked:
    _whole_life(tenant)
    _trouble_with_the_store(tenant)
    _trouble_with_a_mover(tenant)
    _lost_lease(tenant)
    return asked(log.lines(), f"{RELEASE_NAMESPACE}:{RELEASE}")


def test_nothing_is_refused_and_nothing_is_granted_that_is_not_used(lab: Lab, asked_by_the_operator: Asked) -> None:
    rights = granted(_roles(lab))
    assert len(rights) > 30
    assert _listed(asked_by_the_operator.refused) == []
    assert _listed(unused(rights, asked_by_the_operator)) == []
    assert foreign(asked_by_the_operator, RELEASE) == {}


@pytest.mark.parametrize("account", ["uninstall", "store-setup"])
def test_nothing_is_refused_to_the_accounts_of_the_charts_jobs(log: AuditLog, account: str, release: Account) -> None:
    used = asked(log.lines(), f"{RELEASE_NAMESPACE}:{RELEASE}-{account}")
    assert _listed(used.refused) == []
    assert foreign(used, f"{RELEASE}-{account}", f"{RELEASE}-{account}-tenant") == {}


def _listed(rights: set[Right]) -> list[str]:
    return sorted(str(right) for right in rights)


def _roles(lab: Lab) -> list[Object]:
    """The operator's, as they are installed."""
    places = (("clusterrole", None), ("role", RELEASE_NAMESPACE))
    found = [lab.get(kind, RELEASE, namespace) for kind, namespace in places]
    return [role for role in found if role is not None]


def _whole_life(tenant: Tenant) -> None:
    """Backup, incremental, restores to a new and to an existing volume, a volume by its UID, deletions."""
    lab, name = tenant.lab, tenant.name
    lab.apply(claim(lab, name, "files", size="64Mi"), claim(lab, name, "other", size="64Mi"))
    run_errand(lab, name, Errand("write", ("sh", "-c", "echo text > /volume/file"), (Mount("files", "/volume"),)))
    tenant.wait_until("bound volumes", lambda: len(tenant.volumes()) == 2)
    uid = tenant.get("pvc", "files")["metadata"]["uid"]
    lab.apply(tenant.backup("full", uid))
    tenant.ends("volumebackup/full")
    lab.apply(tenant.backup("more", "files", incremental=True))
    tenant.ends("volumebackup/more")
    lab.apply(tenant.restore("new", "more", name="copy"), tenant.restore("over", "full", volumeId="other"))
    tenant.ends("volumerestore/new", "volumerestore/over")
    tenant.delete("volumebackup/more", "volumebackup/full")


def _trouble_with_the_store(tenant: Tenant) -> None:
    """A Secret that goes and comes, twice: the same Events again."""
    lab, name = tenant.lab, tenant.name
    kept = tenant.get("secret", CREDENTIALS)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": CREDENTIALS, "namespace": name}}
    for number in range(2):
        tenant.kubectl("delete", "secret", CREDENTIALS)
        _look_again(tenant, f"gone-{number}")
        tenant.says("backupstore/default", "SecretNotFound")
        lab.apply(secret | {"data": kept["data"]})
        _look_again(tenant, f"back-{number}")
        tenant.says("backupstore/default", "Answers")
    tenant.wait_until("an Event that was counted", partial(_is_counted, tenant))


def _look_again(tenant: Tenant, why: str) -> None:
    tenant.kubectl("annotate", "backupstore", "default", f"example.com/changed={why}", "--overwrite")


def _is_counted(tenant: Tenant) -> bool:
    return any((event.get("series") or {}).get("count", 1) > 1 for event in tenant.events("default"))


def _trouble_with_a_mover(tenant: Tenant) -> None:
    """A mover that is slow enough for its log to be read; and one that no node takes: why, its pod's Events say."""
    lab, name = tenant.lab, tenant.name
    fill = ("sh", "-c", "head -c 12000000 /dev/urandom > /volume/random")
    run_errand(lab, name, Errand("fill", fill, (Mount("files", "/volume"),)))
    tenant.limit(uploadBytesPerSecond=1 << 20)
    lab.apply(tenant.backup("slow", "files"))
    tenant.wait_until("progress", lambda: tenant.get("volumebackup", "slow")["status"].get("progress"))
    tenant.delete("volumebackup/slow")
    lab.apply(tenant.store("default", is_default=True, mover={"nodeSelector": {"example.com/nowhere": "true"}}))
    lab.apply(tenant.backup("stuck", "files"))
    tenant.says("volumebackup/stuck", "MoverUnschedulable")
    tenant.delete("volumebackup/stuck")


def _lost_lease(tenant: Tenant) -> None:
    """Somebody deletes the Lease: the operator creates it again. It does so at its first start, too."""
    lab, place = tenant.lab, ("lease", RELEASE, RELEASE_NAMESPACE)
    lab.kubectl("delete", "lease", RELEASE, "-n", RELEASE_NAMESPACE)
    tenant.wait_until("a new Lease with a holder", lambda: _holder(lab.get(*place)))


def _holder(lease: Object | None) -> str:
    return str(lease["spec"].get("holderIdentity", "")) if lease else ""
