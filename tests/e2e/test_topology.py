"""A volume that exists only in some places: the mover is its first consumer."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.cluster.cluster import Lab, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Errand, Mount, claim, run_errand

pytestmark = pytest.mark.e2e


def _key(zone: str) -> str:
    """Label of the nodes of a zone: one for each test, for several run side by side."""
    return f"e2e.cinderblock.io/{zone}"


@pytest.fixture
def zoned(tenant: Tenant) -> Iterator[str]:
    """A class that waits for its first consumer, in a zone that no node is in yet; named as the zone is."""
    lab, name = tenant.lab, tenant.name
    if not lab.is_own:
        pytest.skip("needs the WaitForFirstConsumer class of our own cluster, and labels a node")
    lab.apply(_class(lab, name))
    yield name
    _move_out(lab, name)
    lab.kubectl("delete", "storageclass", name)


def _class(lab: Lab, zone: str) -> Object:
    late = lab.get("storageclass", "rawfile-wffc")
    assert late is not None
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": zone},
        "provisioner": late["provisioner"],
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": _key(zone), "values": ["here"]}]}],
    }


def _move_in(lab: Lab, zone: str) -> None:
    """A node comes into the zone."""
    [node, *_] = lab.items("nodes")
    lab.kubectl("label", "node", node["metadata"]["name"], f"{_key(zone)}=here")


def _move_out(lab: Lab, zone: str) -> None:
    """No node is in the zone any more."""
    lab.kubectl("label", "nodes", "--all", f"{_key(zone)}-")


def _wrote(tenant: Tenant, volume: str) -> None:
    write = ("python3", "-c", "open('/volume/file', 'w').write('content')")
    run_errand(tenant.lab, tenant.name, Errand("write", write, (Mount(volume, "/volume"),)))


def _read(tenant: Tenant, volume: str) -> str:
    read = ("python3", "-c", "print(open('/volume/file').read())")
    return run_errand(tenant.lab, tenant.name, Errand("read", read, (Mount(volume, "/volume"),))).strip()


def test_restore_without_a_fitting_node_waits_for_one(tenant: Tenant, zoned: str) -> None:
    lab = tenant.lab
    lab.apply(claim(lab, tenant.name, "files"))
    _wrote(tenant, "files")
    lab.apply(tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    lab.apply(tenant.restore("back", "full", name="new", storageClassName=zoned))
    said = tenant.says("volumerestore/back", "MoverUnschedulable")
    assert "didn't find available persistent volumes to bind" in said
    assert lab.get("pvc", "new", tenant.name) is None
    _move_in(lab, zoned)
    tenant.ends("volumerestore/back")
    assert _read(tenant, "new") == "content"


def test_unschedulable_backup_says_so_and_is_cancelled_in_seconds(tenant: Tenant, zoned: str) -> None:
    lab = tenant.lab
    _move_in(lab, zoned)
    lab.apply(claim(lab, tenant.name, "files", storage_class=zoned))
    _wrote(tenant, "files")
    _move_out(lab, zoned)
    lab.apply(tenant.backup("full", "files"))
    assert "didn't find available persistent volumes" in tenant.says("volumebackup/full", "MoverUnschedulable")
    begun = time.monotonic()
    tenant.delete("volumebackup/full")
    assert time.monotonic() - begun < 30
    assert tenant.children() == []
