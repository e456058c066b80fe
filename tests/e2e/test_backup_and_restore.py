"""Restores return every byte and every attribute, to a new volume or over an existing one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cinderblock.api.quantity import to_bytes
from tests.support.cluster.cluster import KubeCluster, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, compare_trees, digests, finish_pod, run_pod

pytestmark = pytest.mark.e2e

FILES, DISK = 1 << 30, 32 << 20
LARGER = "2Gi"


@pytest.fixture(scope="module")
def originals(kube: KubeCluster, make_shared_tenant: Callable[[], Tenant]) -> Tenant:
    """Create a volume of files and a device of every class, each with a backup of the same name. No test changes them.

    All restores to new volumes start here, because they can run in parallel. Each test waits for its own.
    """
    tenant = make_shared_tenant()
    classes = {"": kube.storage_class, **({"-wffc": "rawfile-wffc"} if kube.is_own else {})}
    names = [f"{kind}{suffix}" for suffix in classes for kind in ("files", "disk")]
    for suffix, storage_class in classes.items():
        kube.apply(
            claim(kube, tenant.name, f"files{suffix}", size=str(FILES), storage_class=storage_class),
            claim(kube, tenant.name, f"disk{suffix}", size=str(DISK), block=True, storage_class=storage_class),
        )
    for name in names:
        kube.apply(_writer(name).manifest(kube, tenant.name))
    for name in names:
        finish_pod(kube, tenant.name, f"write-{name}")
    kube.apply(*(tenant.backup(name, name) for name in names))
    tenant.ends(*(f"volumebackup/{name}" for name in names))
    kube.apply(*_restores(tenant, names))
    return tenant


def _restores(tenant: Tenant, backups: list[str]) -> list[Object]:
    """Return restores to new volumes."""
    wanted = [
        tenant.restore("asked", "files", name="files-asked", labels={"app": "shop"}),
        tenant.restore("asked-disk", "disk", name="disk-asked"),
        tenant.restore("unnamed", tenant.get("volumebackup", "disk")["metadata"]["uid"]),
        tenant.restore("short-lived", "disk", name="short-lived"),
        tenant.restore("larger", "files", name="files-larger", size=LARGER),
        tenant.restore("larger-disk", "disk", name="disk-larger", size=LARGER),
        tenant.restore("late", "files-wffc", name="files-late"),
        tenant.restore("late-disk", "disk-wffc", name="disk-late"),
    ]
    return wanted if "files-wffc" in backups else wanted[:-2]


def _writer(name: str, seed: str = "1") -> OneShotPod:
    if name.startswith("disk"):
        command = ("python3", "/tools/devices.py", "fill", "/dev/volume", seed)
        return OneShotPod(f"write-{name}", command, (Mount(name, "/dev/volume", is_block=True),))
    make = ("python3", "/tools/trees.py", "make", "/volume/tree", "--seed", seed, "--files", "60")
    return OneShotPod(f"write-{name}", make, (Mount(name, "/volume"),))


def _same_files(tenant: Tenant, original: str, restored: str) -> None:
    assert compare_trees(tenant.kube, tenant.name, original, restored) == []


def _same_bytes(tenant: Tenant, original: str, restored: str) -> None:
    """Check that all bytes of the original are equal, and that the rest of a larger device is zero."""
    length = to_bytes(tenant.get("pvc", original)["status"]["capacity"]["storage"])
    one, other = digests(tenant.kube, tenant.name, (original, restored), length)
    assert one == other
    assert other.split()[1] == "0"


def _own_cluster_only(kube: KubeCluster) -> None:
    if not kube.is_own:
        pytest.skip("needs the WaitForFirstConsumer class of our own cluster")


def test_backup_status_has_cinders_fields(originals: Tenant) -> None:
    claimed = originals.get("pvc", "files")
    status = originals.get("volumebackup", "files")["status"]
    assert status["id"] == originals.get("volumebackup", "files")["metadata"]["uid"]
    assert (status["volumeId"], status["volumeName"]) == (claimed["metadata"]["uid"], "files")
    assert (status["size"], status["isIncremental"], status["hasDependentBackups"]) == (1, False, False)
    assert status["container"] == originals.account.container
    assert status["objectCount"] > 0
    assert 0 < status["logicalBytes"] < FILES
    assert status["dataTimestamp"] >= status["createdAt"]
    assert "failReason" not in status


def test_device_backup_stores_neither_zeros_nor_holes(originals: Tenant) -> None:
    status = originals.get("volumebackup", "disk")["status"]
    assert status["logicalBytes"] < DISK * 3 // 4
    assert status["storedBytes"] < status["logicalBytes"]


def test_files_are_restored_to_a_new_volume_with_the_requested_name(originals: Tenant) -> None:
    [restore] = originals.ends("volumerestore/asked")
    made = originals.get("pvc", "files-asked")
    assert made["metadata"]["labels"] == {"app": "shop"}
    assert made["metadata"].get("ownerReferences") is None
    assert restore["status"]["volumeId"] == made["metadata"]["uid"]
    _same_files(originals, "files", "files-asked")


def test_device_is_restored_to_a_new_volume_with_the_requested_name(originals: Tenant) -> None:
    originals.ends("volumerestore/asked-disk")
    _same_bytes(originals, "disk", "disk-asked")


def test_unnamed_new_volume_is_named_after_the_backup(originals: Tenant) -> None:
    backup = originals.get("volumebackup", "disk")["metadata"]["uid"]
    [restore] = originals.ends("volumerestore/unnamed")
    assert restore["status"]["volumeName"] == f"restore-backup-{backup}"
    _same_bytes(originals, "disk", f"restore-backup-{backup}")


def test_restored_volume_is_deleted_with_its_claim(originals: Tenant) -> None:
    originals.ends("volumerestore/short-lived")
    volume = originals.get("pvc", "short-lived")["spec"]["volumeName"]
    made = originals.wait_until("volume with its own reclaim policy", lambda: _unmarked(originals, volume))
    assert made["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    originals.kubectl("delete", "pvc", "short-lived", "--timeout=60s")
    originals.wait_until("end of the volume", lambda: originals.kube.get("pv", volume) is None)


def _unmarked(tenant: Tenant, volume: str) -> object:
    found = tenant.kube.get("pv", volume) or {}
    return found if "cinderblock.io/restore-uid" not in found["metadata"].get("labels", {}) else None


def test_files_are_restored_to_a_larger_volume(originals: Tenant) -> None:
    originals.ends("volumerestore/larger")
    assert originals.get("pvc", "files-larger")["status"]["capacity"]["storage"] == LARGER
    _same_files(originals, "files", "files-larger")


def test_device_restored_to_a_larger_volume_ends_in_zeros(originals: Tenant) -> None:
    originals.ends("volumerestore/larger-disk")
    _same_bytes(originals, "disk", "disk-larger")


def test_restore_of_files_in_place_removes_other_files(originals: Tenant) -> None:
    kube, name = originals.kube, originals.name
    kube.apply(claim(kube, name, "files-other", size=str(FILES)))
    run_pod(kube, name, _writer("files-other", seed="7"))
    edit = ("python3", "/tools/trees.py", "edit", "/volume/tree", "--seed", "8", "--edits", "20")
    run_pod(kube, name, OneShotPod("edit-files", edit, (Mount("files-other", "/volume"),)))
    extra = (
        "import os; os.makedirs('/volume/extra/deep'); open('/volume/extra/deep/file', 'w').write('not in the backup')"
    )
    run_pod(kube, name, OneShotPod("extra-files", ("python3", "-c", extra), (Mount("files-other", "/volume"),)))
    assert compare_trees(kube, name, "files", "files-other") != []
    kube.apply(originals.restore("over", "files", volumeId="files-other"))
    [restore] = originals.ends("volumerestore/over")
    assert restore["status"]["volumeName"] == "files-other"
    _same_files(originals, "files", "files-other")


def test_device_is_restored_over_other_content(originals: Tenant) -> None:
    kube, name = originals.kube, originals.name
    kube.apply(claim(kube, name, "disk-other", size=str(DISK), block=True))
    run_pod(kube, name, _writer("disk-other", seed="7"))
    kube.apply(originals.restore("over-disk", "disk", volumeId="disk-other"))
    originals.ends("volumerestore/over-disk")
    _same_bytes(originals, "disk", "disk-other")


def test_files_of_a_class_that_waits_for_a_consumer_are_restored(originals: Tenant) -> None:
    _own_cluster_only(originals.kube)
    originals.ends("volumerestore/late")
    assert originals.get("pvc", "files-late")["spec"]["storageClassName"] == "rawfile-wffc"
    _same_files(originals, "files-wffc", "files-late")


def test_device_of_a_class_that_waits_for_a_consumer_is_restored(originals: Tenant) -> None:
    _own_cluster_only(originals.kube)
    originals.ends("volumerestore/late-disk")
    _same_bytes(originals, "disk-wffc", "disk-late")


def test_claim_is_filled_before_it_has_a_consumer(originals: Tenant) -> None:
    kube, name = originals.kube, originals.name
    _own_cluster_only(kube)
    kube.apply(
        claim(kube, name, "young", size=str(FILES), storage_class="rawfile-wffc"),
        originals.restore("into-young", "files", volumeId="young"),
    )
    originals.ends("volumerestore/into-young")
    _same_files(originals, "files", "young")


def test_store_without_keys_works_too(originals: Tenant) -> None:
    unsealed = originals.store("unsealed", prefix=f"{originals.name}/unsealed", encryptionSecretRef=None)
    originals.kube.apply(unsealed, originals.backup("unsealed", "disk", storeName="unsealed"))
    originals.ends("volumebackup/unsealed")
    originals.kube.apply(originals.restore("unsealed", "unsealed", name="disk-unsealed"))
    originals.ends("volumerestore/unsealed")
    _same_bytes(originals, "disk", "disk-unsealed")


def test_unused_volume_without_snapshots_is_copied_directly(originals: Tenant) -> None:
    kube, name = originals.kube, originals.name
    if not kube.is_own:
        pytest.skip("needs the class `plain` of our own cluster, whose driver makes no snapshots")
    kube.apply(claim(kube, name, "plain", storage_class="plain"))
    run_pod(kube, name, _writer("plain"))
    kube.apply(originals.backup("plain", "plain"))
    originals.ends("volumebackup/plain")
    kube.apply(originals.restore("plain", "plain", name="plain-restored"))
    originals.ends("volumerestore/plain")
    assert originals.get("pvc", "plain-restored")["spec"]["storageClassName"] == "plain"
    _same_files(originals, "plain", "plain-restored")
    reasons = {event["reason"] for event in originals.events("plain")}
    assert "MoverStarted" in reasons
    assert "SnapshotRequested" not in reasons
