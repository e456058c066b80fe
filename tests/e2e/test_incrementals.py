"""An incremental backup uploads only changes, is restored on its own, and keeps its parent's data."""

from __future__ import annotations

import pytest

from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, compare_trees, digests, run_pod

pytestmark = pytest.mark.e2e

DISK = 64 << 20


def test_incremental_backup_of_files_uploads_little_and_survives_its_parents_deletion(tenant: Tenant) -> None:
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "files"))
    _in_files(tenant, "make", "/volume/tree", "--seed", "1", "--files", "60")
    kube.apply(tenant.backup("full", "files"))
    [full] = tenant.ends("volumebackup/full")
    _in_files(tenant, "edit", "/volume/tree", "--seed", "2", "--edits", "8")
    kube.apply(tenant.backup("monday", "files", incremental=True))
    [monday] = tenant.ends("volumebackup/monday")
    assert monday["status"]["isIncremental"] is True
    assert monday["status"]["parentId"] == full["metadata"]["uid"]
    assert monday["status"]["transferredBytes"] < full["status"]["transferredBytes"] / 4
    tenant.wait_until("parent with dependents", lambda: _has_dependents(tenant, "full"))

    tenant.kubectl("delete", "volumebackup", "full", "--wait=false")
    assert "monday" in tenant.says("volumebackup/full", "HasDependentBackups")
    assert tenant.get("volumebackup", "full")["status"]["phase"] == "deleting"
    kube.apply(tenant.restore("restored", "monday", name="restored"))
    tenant.ends("volumerestore/restored")
    assert compare_trees(kube, name, "files", "restored") == []

    tenant.delete("volumebackup/monday")
    tenant.disappears("volumebackup/full")
    assert tenant.keys() == set()


def _in_files(tenant: Tenant, *arguments: str) -> None:
    one_shot = OneShotPod("work", ("python3", "/tools/trees.py", *arguments), (Mount("files", "/volume"),))
    run_pod(tenant.kube, tenant.name, one_shot)


def _has_dependents(tenant: Tenant, name: str) -> bool:
    return bool(tenant.get("volumebackup", name)["status"]["hasDependentBackups"])


def test_third_backup_of_a_device_chain_is_complete(tenant: Tenant) -> None:
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "disk", block=True, size=str(DISK)))
    _on_disk(tenant, "fill", "1")
    kube.apply(tenant.backup("full", "disk"))
    [full] = tenant.ends("volumebackup/full")
    parent = full
    for number in (2, 3):
        _on_disk(tenant, "edit", str(number))
        kube.apply(tenant.backup(f"step-{number}", "disk", incremental=True))
        [step] = tenant.ends(f"volumebackup/step-{number}")
        assert step["status"]["parentId"] == parent["metadata"]["uid"]
        assert step["status"]["transferredBytes"] < full["status"]["transferredBytes"] / 2
        parent = step
    kube.apply(tenant.restore("restored", "step-3", name="restored"))
    tenant.ends("volumerestore/restored")
    original, restored = digests(kube, name, ("disk", "restored"), DISK)
    assert restored == original


def _on_disk(tenant: Tenant, verb: str, seed: str) -> None:
    command = ("python3", "/tools/devices.py", verb, "/dev/volume", seed)
    run_pod(tenant.kube, tenant.name, OneShotPod("work", command, (Mount("disk", "/dev/volume", is_block=True),)))
