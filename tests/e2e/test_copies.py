"""A second copy on a real cluster: it is made and shown, it outlives its primary, and restores byte for byte."""

from __future__ import annotations

import pytest

from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod
from tests.support.store.objects_in_store import EmbeddedStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_lost_primary_is_recovered_from_its_copy(tenant: Tenant) -> None:
    prefix = f"{tenant.name}/offsite"
    tenant.kube.apply(claim(tenant.kube, tenant.name, "files"), tenant.store("offsite", prefix=prefix))
    command = "head -c 3000000 /dev/urandom > /volume/random && sha256sum /volume/random > /volume/sum"
    run_pod(tenant.kube, tenant.name, OneShotPod("write", ("sh", "-c", command), (Mount("files", "/volume"),)))
    tenant.kube.apply(tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    tenant.kube.apply(tenant.store("default", is_default=True, copies=[{"storeName": "offsite"}]))
    copied = ["--for=condition=Copied", "backupstore/default", "--timeout=120s"]
    tenant.kubectl("wait", *copied)
    [copy] = tenant.get("volumebackup", "full")["status"]["copies"]
    assert (copy["storeName"], bool(copy["time"])) == ("offsite", True)
    [known] = tenant.get("backupstore", "default")["status"]["copyTargets"]
    assert (known["copied"], known["pending"]) == (1, 0)
    assert not tenant.kube.items("jobs", tenant.name)
    _destroy_primary(tenant, prefix)
    tenant.kubectl("annotate", "volumebackup/full", "cinderblock.io/let-go=leave-data")
    tenant.delete("volumebackup/full")
    tenant.kube.apply(tenant.store("default", is_default=True, copies=[]))
    tenant.kube.apply(tenant.store("offsite", prefix=prefix, **{"import": {"mode": "Once"}}))
    tenant.kubectl("wait", "--for=condition=Imported", "backupstore/offsite", "--timeout=120s")
    tenant.ends("volumebackup/full")
    tenant.kube.apply(tenant.restore("back", "full", name="restored"))
    tenant.ends("volumerestore/back")
    check = OneShotPod("read", ("sh", "-c", "cd /volume && sha256sum -c sum"), (Mount("restored", "/volume"),))
    run_pod(tenant.kube, tenant.name, check)
    held = tenant.keys()
    tenant.kept |= {key for key in held if key.startswith(prefix)}


def _destroy_primary(tenant: Tenant, copies: str) -> None:
    """Remove all objects of the primary from the server, as a lost bucket would."""
    held = tenant.keys()
    with EmbeddedStore.of(tenant.kube, tenant.name).opened(tenant.kube) as store:
        store.delete(sorted(key for key in held if not key.startswith(f"{copies}/")))
