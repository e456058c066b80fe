"""A backup of a VolumeSnapshot that the user made, and backups of one volume at the same time."""

from __future__ import annotations

import pytest

from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Errand, Mount, claim, run_errand

pytestmark = pytest.mark.e2e


def _run(tenant: Tenant, volume: str, program: str) -> str:
    errand = Errand("work", ("python3", "-c", program), (Mount(volume, "/volume"),))
    return run_errand(tenant.lab, tenant.name, errand).strip()


def test_given_snapshot_is_backed_up_and_stays(tenant: Tenant) -> None:
    lab = tenant.lab
    lab.apply(claim(lab, tenant.name, "files"))
    _run(tenant, "files", "open('/volume/file', 'w').write('before')")
    taken = {"source": {"persistentVolumeClaimName": "files"}}
    lab.apply(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": "mine", "namespace": tenant.name},
            "spec": taken | ({"volumeSnapshotClassName": lab.snapshot_class} if lab.snapshot_class else {}),
        }
    )
    tenant.kubectl("wait", "volumesnapshot/mine", "--for=jsonpath={.status.readyToUse}=true", "--timeout=90s")
    _run(tenant, "files", "open('/volume/file', 'w').write('after')")

    lab.apply(tenant.backup("old", "files", snapshotId="mine"))
    [backup] = tenant.ends("volumebackup/old")
    snapshot = tenant.get("volumesnapshot", "mine")
    assert backup["status"]["snapshotId"] == snapshot["metadata"]["uid"]
    assert backup["status"]["dataTimestamp"][:19] == snapshot["status"]["creationTime"][:19]
    lab.apply(tenant.restore("old", "old", name="restored"))
    tenant.ends("volumerestore/old")
    assert _run(tenant, "restored", "print(open('/volume/file').read())") == "before"


def test_two_backups_of_one_volume_take_turns(tenant: Tenant) -> None:
    lab = tenant.lab
    lab.apply(claim(lab, tenant.name, "files"))
    tenant.wait_until("bound volume", tenant.volumes)
    tenant.limit(uploadBytesPerSecond=65536)
    _run(tenant, "files", "import os; open('/volume/file', 'wb').write(os.urandom(200_000))")
    lab.apply(tenant.backup("first", "files"))
    tenant.says("volumebackup/first", "MoverRunning")
    lab.apply(tenant.backup("second", "files"))
    assert "first" in tenant.says("volumebackup/second", "VolumeBusy")
    tenant.ends("volumebackup/first", "volumebackup/second")
