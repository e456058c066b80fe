"""Backups of a VolumeSnapshot that the user created, and concurrent backups of one volume."""

from __future__ import annotations

import pytest

from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = pytest.mark.e2e


def _run(tenant: Tenant, volume: str, program: str) -> str:
    one_shot = OneShotPod("work", ("python3", "-c", program), (Mount(volume, "/volume"),))
    return run_pod(tenant.kube, tenant.name, one_shot).strip()


def test_given_snapshot_is_backed_up_and_stays(tenant: Tenant) -> None:
    kube = tenant.kube
    kube.apply(claim(kube, tenant.name, "files"))
    _run(tenant, "files", "open('/volume/file', 'w').write('before')")
    taken = {"source": {"persistentVolumeClaimName": "files"}}
    kube.apply(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": "mine", "namespace": tenant.name},
            "spec": taken | ({"volumeSnapshotClassName": kube.snapshot_class} if kube.snapshot_class else {}),
        }
    )
    tenant.kubectl("wait", "volumesnapshot/mine", "--for=jsonpath={.status.readyToUse}=true", "--timeout=90s")
    _run(tenant, "files", "open('/volume/file', 'w').write('after')")

    kube.apply(tenant.backup("old", "files", snapshotId="mine"))
    [backup] = tenant.ends("volumebackup/old")
    snapshot = tenant.get("volumesnapshot", "mine")
    assert backup["status"]["snapshotId"] == snapshot["metadata"]["uid"]
    assert backup["status"]["dataTimestamp"][:19] == snapshot["status"]["creationTime"][:19]
    kube.apply(tenant.restore("old", "old", name="restored"))
    tenant.ends("volumerestore/old")
    assert _run(tenant, "restored", "print(open('/volume/file').read())") == "before"


def test_two_backups_of_one_volume_take_turns(tenant: Tenant) -> None:
    kube = tenant.kube
    kube.apply(claim(kube, tenant.name, "files"))
    tenant.wait_until("bound volume", tenant.volumes)
    tenant.limit(uploadBytesPerSecond=65536)
    _run(tenant, "files", "import os; open('/volume/file', 'wb').write(os.urandom(200_000))")
    kube.apply(tenant.backup("first", "files"))
    tenant.says("volumebackup/first", "MoverRunning")
    kube.apply(tenant.backup("second", "files"))
    assert "first" in tenant.says("volumebackup/second", "VolumeBusy")
    tenant.ends("volumebackup/first", "volumebackup/second")
