"""A backup can be deleted in every phase, together with its data, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinderblock.api.quantity import to_bytes
from tests.cluster import cluster, storage
from tests.cluster.csi.faults import Fault, plant
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, digests, run_pod

pytestmark = pytest.mark.e2e

DISK = 64 << 20
CRAWL = 65536
"""Bytes a second, the least that a store can be limited to: a mover needs minutes for the disk."""


@pytest.fixture
def owner(tenant: Tenant) -> Tenant:
    """Return a tenant with a device full of data."""
    tenant.kube.apply(claim(tenant.kube, tenant.name, "disk", block=True, size=str(DISK)))
    fill = ("python3", "/tools/devices.py", "fill", "/dev/volume", "1")
    run_pod(tenant.kube, tenant.name, OneShotPod("fill", fill, (Mount("disk", "/dev/volume", is_block=True),)))
    return tenant


def _slow_backup(tenant: Tenant, name: str) -> str:
    """Start a backup whose mover will run for minutes, and return its UID once the mover works."""
    tenant.limit(uploadBytesPerSecond=CRAWL)
    tenant.kube.apply(tenant.backup(name, "disk"))
    tenant.says(f"volumebackup/{name}", "MoverRunning")
    uid: str = tenant.get("volumebackup", name)["metadata"]["uid"]
    return uid


def _slow_restore(tenant: Tenant, name: str, backup: str) -> str:
    """Start a restore whose mover will run for minutes, and return its UID once the mover works."""
    tenant.limit(downloadBytesPerSecond=CRAWL)
    tenant.kube.apply(tenant.restore(name, backup, name="restored"))
    tenant.says(f"volumerestore/{name}", "MoverRunning")
    uid: str = tenant.get("volumerestore", name)["metadata"]["uid"]
    return uid


def test_deleting_an_available_backup_deletes_its_data(owner: Tenant) -> None:
    owner.kube.apply(owner.backup("whole", "disk"))
    [backup] = owner.ends("volumebackup/whole")
    keys = owner.keys()
    assert backup["status"]["manifestKey"] in keys
    assert len(keys) == backup["status"]["objectCount"] + 1
    owner.delete("volumebackup/whole")
    assert owner.keys() == set()


def test_retained_backup_leaves_its_data_and_can_be_adopted(owner: Tenant) -> None:
    owner.kube.apply(owner.backup("kept", "disk", deletionPolicy="Retain"))
    [kept] = owner.ends("volumebackup/kept")
    before = owner.keys()
    owner.delete("volumebackup/kept")
    assert owner.keys() == before
    assert any(event["reason"] == "Retained" for event in owner.events("kept"))

    owner.kube.apply(owner.adopt("found", kept["status"]["id"], deletionPolicy="Delete"))
    [found] = owner.ends("volumebackup/found")
    fields = ("id", "volumeId", "size", "objectCount", "storedBytes", "dataTimestamp", "manifestKey")
    assert {field: found["status"][field] for field in fields} == {field: kept["status"][field] for field in fields}
    owner.kube.apply(owner.restore("found-again", kept["status"]["id"], name="disk-found"))
    owner.ends("volumerestore/found-again")
    length = to_bytes(owner.get("pvc", "disk")["status"]["capacity"]["storage"])
    original, restored = digests(owner.kube, owner.name, ("disk", "disk-found"), length)
    assert original == restored
    owner.delete("volumebackup/found")
    assert owner.keys() == set()


def test_backup_can_be_deleted_right_after_its_creation(owner: Tenant) -> None:
    owner.kube.apply(*(owner.backup(f"hasty-{number}", "disk") for number in range(3)))
    owner.delete(*(f"volumebackup/hasty-{number}" for number in range(3)))
    assert owner.keys() == set()


def test_deletion_ends_once_a_pending_snapshot_can_be_removed(owner: Tenant) -> None:
    if not owner.kube.is_own:
        pytest.skip("needs the driver of our own cluster, which refuses snapshots on request")
    data = str(storage.DRIVERS[0].data(cluster.running()))
    volume = owner.get("pvc", "disk")["spec"]["volumeName"]
    path = plant(data, "CreateSnapshot", Fault(code="UNAVAILABLE", message="not now", match=volume), owner.name)
    try:
        owner.kube.apply(owner.backup("waiting", "disk"))
        assert "not now" in owner.wait_until("snapshot's error in the status", lambda: _snapshot_trouble(owner))
        owner.kubectl("delete", "volumebackup/waiting", "--wait=false")
        assert "VolumeSnapshot" in owner.says("volumebackup/waiting", "ChildrenRemain")
    finally:
        Path(path).unlink()
    owner.disappears("volumebackup/waiting")
    assert owner.children() == []


def _snapshot_trouble(tenant: Tenant) -> str:
    message = tenant.says("volumebackup/waiting", "SnapshotNotReady")
    return message if "not now" in message else ""


def test_backup_can_be_deleted_while_its_mover_runs(owner: Tenant) -> None:
    uid = _slow_backup(owner, "slow")
    assert owner.children(uid)
    owner.delete("volumebackup/slow")
    owner.wait_until("end of the mover", lambda: not owner.children(uid))
    assert owner.keys() == set()


def test_backup_that_failed_halfway_can_be_deleted(owner: Tenant) -> None:
    uid = _slow_backup(owner, "broken")
    owner.wait_until("progress", lambda: owner.get("volumebackup", "broken")["status"].get("progress"))
    [job] = [child for child in owner.children(uid) if child.startswith("job")]
    owner.kubectl("delete", job, "--wait=false")
    status = owner.reaches("volumebackup/broken", "error")["status"]
    assert "deleted by somebody else" in status["failReason"]
    owner.delete("volumebackup/broken")
    assert owner.keys() == set()


def test_backup_is_deleted_after_its_running_restore(owner: Tenant) -> None:
    owner.kube.apply(owner.backup("read", "disk"))
    owner.ends("volumebackup/read")
    _slow_restore(owner, "reading", "read")
    owner.reaches("volumebackup/read", "restoring")
    owner.kubectl("delete", "volumebackup", "read", "--wait=false")
    assert "reading" in owner.says("volumebackup/read", "BackupInUse")
    assert owner.keys() != set()
    owner.delete("volumerestore/reading")
    owner.disappears("volumebackup/read")
    assert owner.keys() == set()


def test_restore_that_is_deleted_while_it_runs_leaves_no_volume(owner: Tenant) -> None:
    owner.kube.apply(owner.backup("read", "disk"))
    owner.ends("volumebackup/read")
    hidden = f"cinderblock-{_slow_restore(owner, 'reading', 'read')}"
    assert hidden in owner.volumes().values()
    assert owner.kube.get("pvc", "restored", owner.name) is None
    owner.delete("volumerestore/reading")
    assert owner.kube.get("pvc", "restored", owner.name) is None
    owner.wait_until("end of the half-filled volume", lambda: list(owner.volumes().values()) == ["disk"])
    assert owner.reaches("volumebackup/read", "available")


def test_restore_that_has_ended_leaves_its_volume(owner: Tenant) -> None:
    owner.kube.apply(owner.backup("read", "disk"))
    owner.ends("volumebackup/read")
    owner.kube.apply(owner.restore("done", "read", name="restored"))
    owner.ends("volumerestore/done")
    owner.delete("volumerestore/done", "volumebackup/read")
    original, restored = digests(owner.kube, owner.name, ("disk", "restored"), DISK)
    assert restored == original


def test_namespace_is_deleted_with_everything_in_it(owner: Tenant) -> None:
    kube = owner.kube
    kube.apply(owner.backup("full", "disk"))
    owner.ends("volumebackup/full")
    kube.apply(owner.backup("step", "disk", incremental=True))
    owner.ends("volumebackup/step")
    _slow_restore(owner, "reading", "full")
    kube.apply(owner.backup("wrong", "nowhere"))
    owner.reaches("volumebackup/wrong", "error")
    assert not owner.exposed_secrets()
    owner.is_gone = True
    kube.kubectl("delete", "namespace", owner.name, "--timeout=60s")
    owner.account.purge(kube, owner.name)
