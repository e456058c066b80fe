"""Two operators: one acts, and the other takes over when it dies and completes all running operations."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, KubeCluster
from tests.support.cluster.namespaces import Account, Tenant
from tests.support.cluster.runs import install_release
from tests.support.cluster.workloads import Mount, OneShotPod, claim, digests, run_pod

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing]

DISK = 32 << 20
WALK = 1 << 20
"""Bytes a second: a mover needs some twenty seconds for the disk, longer than a Lease holds."""
KILLED, STOPPED = 20, 3
"""Seconds until another operator leads, after a kill and after SIGTERM."""


@pytest.fixture
def pair(kube: KubeCluster, release: Account) -> Iterator[None]:
    """Run two operators instead of one."""
    install_release(kube, "operator.replicas=2")
    yield
    install_release(kube)


def _leader(kube: KubeCluster) -> str:
    """Return the identity of the leading process: its pod's name, an underscore and a unique suffix."""
    lease = kube.get("lease", RELEASE, RELEASE_NAMESPACE)
    assert lease is not None
    return str(lease["spec"].get("holderIdentity") or "")


def _follow(kube: KubeCluster, before: str, began: float) -> float:
    """Wait until another process leads; returns the seconds that it took."""
    kube.wait_until("another leader", lambda: _leader(kube) not in ("", before), timeout=60)
    return time.monotonic() - began


def _kill_leader(kube: KubeCluster) -> float:
    """End the leader's process without a word; returns the seconds until another one leads."""
    before = _leader(kube)
    pod = before.partition("_")[0]
    found = [process for process in processes.with_argument("operator") if _hostname(process.pid) == pod]
    assert found, f"no process of pod {pod} on this machine"
    began = time.monotonic()
    for process in found:
        process.signal(signal.SIGKILL)
    return _follow(kube, before, began)


def _hostname(pid: int) -> str:
    """Return the content of /etc/hostname for a process, or nothing if the process is gone."""
    try:
        return Path(f"/proc/{pid}/root/etc/hostname").read_text().strip()
    except OSError:
        return ""


def _stop_leader(kube: KubeCluster) -> float:
    """Delete the leader's pod as a drain does; returns the seconds until another one leads."""
    before, began = _leader(kube), time.monotonic()
    pod = before.partition("_")[0]
    kube.kubectl("-n", RELEASE_NAMESPACE, "delete", "pod", pod, "--wait=false")
    return _follow(kube, before, began)


@pytest.mark.usefixtures("pair")
def test_backup_and_restore_survive_their_leaders_with_one_mover_each(
    tenant: Tenant, record_property: Callable[[str, object], None]
) -> None:
    kube, name = tenant.kube, tenant.name
    if not kube.is_own:
        pytest.skip("a process can be killed only on the machine that it runs on")
    kube.apply(claim(kube, name, "disk", block=True, size=str(DISK)))
    fill = ("python3", "/tools/devices.py", "fill", "/dev/volume", "1")
    run_pod(kube, name, OneShotPod("fill", fill, (Mount("disk", "/dev/volume", is_block=True),)))
    tenant.limit(uploadBytesPerSecond=WALK, downloadBytesPerSecond=WALK)

    kube.apply(tenant.backup("full", "disk"))
    tenant.says("volumebackup/full", "MoverRunning")
    killed = _kill_leader(kube)
    [backup] = tenant.ends("volumebackup/full")
    assert len(tenant.recorder.jobs(backup["metadata"]["uid"])) == 1

    kube.kubectl("-n", RELEASE_NAMESPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")
    kube.apply(tenant.restore("again", "full", name="restored"))
    tenant.says("volumerestore/again", "MoverRunning")
    stopped = _stop_leader(kube)
    [restore] = tenant.ends("volumerestore/again")
    assert len(tenant.recorder.jobs(restore["metadata"]["uid"])) == 1
    original, restored = digests(kube, name, ("disk", "restored"), DISK)
    assert restored == original

    record_property("seconds after a kill", round(killed, 1))
    record_property("seconds after SIGTERM", round(stopped, 1))
    print(f"another operator led {killed:.1f} s after a kill and {stopped:.1f} s after SIGTERM")
    assert killed < KILLED
    assert stopped < STOPPED
