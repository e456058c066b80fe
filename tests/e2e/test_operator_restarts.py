"""An operator that is killed resumes its work after the restart, and does nothing twice."""

from __future__ import annotations

import pytest

from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, KubeCluster
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, digests, run_pod

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing]

DISK = 32 << 20
WALK = 1 << 20
"""Bytes a second: a mover needs some eight seconds for the disk, longer than an operator needs to come back."""


def _kill_operator(kube: KubeCluster) -> None:
    selector = "app.kubernetes.io/name=cinderblock,app.kubernetes.io/component=operator"
    kube.kubectl("-n", RELEASE_NAMESPACE, "delete", "pod", "-l", selector, "--grace-period=1", "--timeout=60s")


def _operator_is_back(kube: KubeCluster) -> None:
    kube.kubectl("-n", RELEASE_NAMESPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")


def test_backup_and_restore_continue_after_a_restart(tenant: Tenant) -> None:
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "disk", block=True, size=str(DISK)))
    fill = ("python3", "/tools/devices.py", "fill", "/dev/volume", "1")
    run_pod(kube, name, OneShotPod("fill", fill, (Mount("disk", "/dev/volume", is_block=True),)))

    tenant.limit(uploadBytesPerSecond=WALK, downloadBytesPerSecond=WALK)
    kube.apply(tenant.backup("full", "disk"))
    tenant.says("volumebackup/full", "MoverRunning")
    _kill_operator(kube)
    _operator_is_back(kube)
    [backup] = tenant.ends("volumebackup/full")
    assert len(tenant.recorder.jobs(backup["metadata"]["uid"])) == 1

    kube.apply(tenant.restore("again", "full", name="restored"))
    tenant.says("volumerestore/again", "MoverRunning")
    _kill_operator(kube)
    _operator_is_back(kube)
    [restore] = tenant.ends("volumerestore/again")
    assert len(tenant.recorder.jobs(restore["metadata"]["uid"])) == 1
    original, restored = digests(kube, name, ("disk", "restored"), DISK)
    assert restored == original
