"""Volumes that pods use: a backup is rejected without force, and with it is a copy of one instant."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster.cluster import KubeClusterError
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = pytest.mark.e2e

APPEND = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open("/volume/log", "ab", buffering=0) as log:
    for number in range(10**9):
        log.write(b"line %d\\n" % number)
        os.fsync(log.fileno())
"""
LINES = """
lines = open("/volume/log", "rb").read().split(b"\\n")
assert lines[:-1] == [b"line %d" % number for number in range(len(lines) - 1)], lines[-3:]
print(len(lines) - 1)
"""


@pytest.fixture
def busy(tenant: Tenant) -> Iterator[Tenant]:
    """Return a tenant whose volume `files` a pod keeps writing to."""
    tenant.kube.apply(
        claim(tenant.kube, tenant.name, "files"),
        OneShotPod("writer", ("python3", "-c", APPEND), (Mount("files", "/volume"),)).manifest(
            tenant.kube, tenant.name
        ),
    )
    tenant.kubectl("wait", "pod/writer", "--for=condition=Ready", "--timeout=60s")
    yield tenant
    tenant.kubectl("delete", "pod", "writer", "--timeout=60s")


def test_backup_without_force_fails_with_cinders_message(busy: Tenant) -> None:
    busy.kube.apply(busy.backup("careful", "files"))
    status = busy.reaches("volumebackup/careful", "error")["status"]
    assert "Invalid volume: Backing up an in-use volume must use the force flag." in status["failReason"]
    assert "writer" in status["failReason"]


def test_force_copies_one_instant_while_the_pod_runs(busy: Tenant) -> None:
    kube, name = busy.kube, busy.name
    kube.apply(busy.backup("forced", "files", force=True))
    [backup] = busy.ends("volumebackup/forced")
    assert backup["status"]["dataTimestamp"] > backup["metadata"]["creationTimestamp"][:10]
    assert busy.get("pod", "writer")["status"]["phase"] == "Running"
    kube.apply(busy.restore("read", "forced", name="restored"))
    busy.ends("volumerestore/read")
    lines = run_pod(kube, name, OneShotPod("read", ("python3", "-c", LINES), (Mount("restored", "/volume"),)))
    assert int(lines) > 0


def test_volume_in_use_is_not_overwritten(busy: Tenant) -> None:
    busy.kube.apply(busy.backup("forced", "files", force=True))
    busy.ends("volumebackup/forced")
    busy.kube.apply(busy.restore("over", "forced", volumeId="files"))
    status = busy.reaches("volumerestore/over", "error_restoring")["status"]
    assert "Volume to be restored to must be available" in status["failReason"]
    backup = busy.reaches("volumebackup/forced", "error_restoring")["status"]
    assert backup["failReason"] == status["failReason"]
    busy.kube.apply(busy.restore("new", "forced", name="restored"))
    busy.ends("volumerestore/new")
    # The backup's status follows that of the restore by a moment; until then it says restoring, without an error too.
    busy.wait_until("whole backup", lambda: busy.get("volumebackup", "forced")["status"]["phase"] == "available")
    assert "failReason" not in busy.get("volumebackup", "forced")["status"]


def test_volume_without_snapshots_in_use_cannot_be_copied(tenant: Tenant) -> None:
    kube = tenant.kube
    if not kube.is_own:
        pytest.skip("needs the class `plain` of our own cluster, whose driver makes no snapshots")
    sleeper = OneShotPod("sleeper", ("python3", "-c", "import signal; signal.pause()"), (Mount("plain", "/volume"),))
    kube.apply(claim(kube, tenant.name, "plain", storage_class="plain"), sleeper.manifest(kube, tenant.name))
    tenant.kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s")
    kube.apply(tenant.backup("forced", "plain", force=True))
    with pytest.raises(KubeClusterError, match="no VolumeSnapshotClass for driver"):
        tenant.ends("volumebackup/forced")
    tenant.kubectl("delete", "pod", "sleeper", "--timeout=60s")


def test_pod_that_starts_during_a_direct_copy_fails_the_backup(tenant: Tenant) -> None:
    kube = tenant.kube
    if not kube.is_own:
        pytest.skip("needs the class `plain` of our own cluster, whose driver makes no snapshots")
    kube.apply(claim(kube, tenant.name, "plain", storage_class="plain"))
    fill = "import os; open('/volume/file', 'wb').write(os.urandom(1_000_000))"
    run_pod(kube, tenant.name, OneShotPod("fill", ("python3", "-c", fill), (Mount("plain", "/volume"),)))
    tenant.limit(uploadBytesPerSecond=65536)
    kube.apply(tenant.backup("copied", "plain"))
    tenant.says("volumebackup/copied", "MoverRunning")
    sleeper = OneShotPod("sleeper", ("python3", "-c", "import signal; signal.pause()"), (Mount("plain", "/volume"),))
    kube.apply(sleeper.manifest(kube, tenant.name))
    status = tenant.reaches("volumebackup/copied", "error")["status"]
    assert "Pod sleeper used the volume during the copy" in status["failReason"]
    tenant.kubectl("delete", "pod", "sleeper", "--timeout=60s")


def test_pod_that_starts_during_a_restore_in_place_fails_it(tenant: Tenant) -> None:
    kube = tenant.kube
    if not kube.is_own:
        pytest.skip("needs a single node: elsewhere the pod may have to wait until the mover has ended")
    kube.apply(claim(kube, tenant.name, "files"))
    fill = "import os; open('/volume/file', 'wb').write(os.urandom(1_000_000))"
    run_pod(kube, tenant.name, OneShotPod("fill", ("python3", "-c", fill), (Mount("files", "/volume"),)))
    kube.apply(tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    tenant.limit(downloadBytesPerSecond=65536)
    kube.apply(tenant.restore("over", "full", volumeId="files"))
    tenant.says("volumerestore/over", "MoverRunning")
    sleeper = OneShotPod("sleeper", ("python3", "-c", "import signal; signal.pause()"), (Mount("files", "/volume"),))
    kube.apply(sleeper.manifest(kube, tenant.name))
    status = tenant.reaches("volumerestore/over", "error_restoring")["status"]
    assert "Pod sleeper used it during the copy" in status["failReason"]
    tenant.kubectl("delete", "pod", "sleeper", "--timeout=60s")
