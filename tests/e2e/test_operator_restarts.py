"""An operator that is killed in the middle goes on where it was: nothing is done twice."""

from __future__ import annotations

import pytest

from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, Lab
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Errand, Mount, claim, digests, run_errand

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing]

DISK = 32 << 20
WALK = 1 << 20
"""Bytes a second: a mover needs some eight seconds for the disk, longer than an operator needs to come back."""


def _kill_operator(lab: Lab) -> None:
    selector = "app.kubernetes.io/name=cinderblock,app.kubernetes.io/component=operator"
    lab.kubectl("-n", RELEASE_NAMESPACE, "delete", "pod", "-l", selector, "--grace-period=1", "--timeout=60s")


def _operator_is_back(lab: Lab) -> None:
    lab.kubectl("-n", RELEASE_NAMESPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")


def test_backup_and_a_restore_go_on_over_a_restart(tenant: Tenant) -> None:
    lab, name = tenant.lab, tenant.name
    lab.apply(claim(lab, name, "disk", block=True, size=str(DISK)))
    fill = ("python3", "/tools/devices.py", "fill", "/dev/volume", "1")
    run_errand(lab, name, Errand("fill", fill, (Mount("disk", "/dev/volume", is_block=True),)))

    tenant.limit(uploadBytesPerSecond=WALK, downloadBytesPerSecond=WALK)
    lab.apply(tenant.backup("full", "disk"))
    tenant.says("volumebackup/full", "MoverRunning")
    _kill_operator(lab)
    _operator_is_back(lab)
    [backup] = tenant.ends("volumebackup/full")
    assert len(tenant.witness.jobs(backup["metadata"]["uid"])) == 1

    lab.apply(tenant.restore("again", "full", name="restored"))
    tenant.says("volumerestore/again", "MoverRunning")
    _kill_operator(lab)
    _operator_is_back(lab)
    [restore] = tenant.ends("volumerestore/again")
    assert len(tenant.witness.jobs(restore["metadata"]["uid"])) == 1
    original, restored = digests(lab, name, ("disk", "restored"), DISK)
    assert restored == original
