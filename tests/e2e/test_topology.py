"""A volume that exists only in some zones: the mover is its first consumer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.cluster.cluster import KubeCluster, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = pytest.mark.e2e


def _key(zone: str) -> str:
    """Return the label of a zone's nodes. Each test has its own, since several run in parallel."""
    return f"e2e.cinderblock.io/{zone}"


@pytest.fixture
def zoned(tenant: Tenant) -> Iterator[str]:
    """Return a class that waits for its first consumer, in a zone without nodes. Its name is that of the zone."""
    kube, name = tenant.kube, tenant.name
    if not kube.is_own:
        pytest.skip("needs the WaitForFirstConsumer class of our own cluster, and labels a node")
    kube.apply(_class(kube, name))
    yield name
    _move_out(kube, name)
    kube.kubectl("delete", "storageclass", name)


def _class(kube: KubeCluster, zone: str) -> Object:
    late = kube.get("storageclass", "rawfile-wffc")
    assert late is not None
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": zone},
        "provisioner": late["provisioner"],
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": _key(zone), "values": ["here"]}]}],
    }


def _move_in(kube: KubeCluster, zone: str) -> None:
    """Add a node to the zone."""
    [node, *_] = kube.items("nodes")
    kube.kubectl("label", "node", node["metadata"]["name"], f"{_key(zone)}=here")


def _move_out(kube: KubeCluster, zone: str) -> None:
    """Remove all nodes from the zone."""
    kube.kubectl("label", "nodes", "--all", f"{_key(zone)}-")


def _wrote(tenant: Tenant, volume: str) -> None:
    write = ("python3", "-c", "open('/volume/file', 'w').write('content')")
    run_pod(tenant.kube, tenant.name, OneShotPod("write", write, (Mount(volume, "/volume"),)))


def _read(tenant: Tenant, volume: str) -> str:
    read = ("python3", "-c", "print(open('/volume/file').read())")
    return run_pod(tenant.kube, tenant.name, OneShotPod("read", read, (Mount(volume, "/volume"),))).strip()


def test_restore_without_a_fitting_node_waits_for_one(tenant: Tenant, zoned: str) -> None:
    kube = tenant.kube
    kube.apply(claim(kube, tenant.name, "files"))
    _wrote(tenant, "files")
    kube.apply(tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    kube.apply(tenant.restore("back", "full", name="new", storageClassName=zoned))
    message = tenant.says("volumerestore/back", "MoverUnschedulable")
    assert "didn't find available persistent volumes to bind" in message
    assert kube.get("pvc", "new", tenant.name) is None
    _move_in(kube, zoned)
    tenant.ends("volumerestore/back")
    assert _read(tenant, "new") == "content"


def test_unschedulable_backup_reports_it_and_can_be_cancelled(tenant: Tenant, zoned: str) -> None:
    kube = tenant.kube
    _move_in(kube, zoned)
    kube.apply(claim(kube, tenant.name, "files", storage_class=zoned))
    _wrote(tenant, "files")
    _move_out(kube, zoned)
    kube.apply(tenant.backup("full", "files"))
    assert "didn't find available persistent volumes" in tenant.says("volumebackup/full", "MoverUnschedulable")
    begun = time.monotonic()
    tenant.delete("volumebackup/full")
    assert time.monotonic() - begun < 30
    assert tenant.children() == []
