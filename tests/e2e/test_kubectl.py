"""Features that users of Kubernetes expect: kubectl wait, columns, Pod Security."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, compare_trees, run_pod

pytestmark = pytest.mark.e2e


def columns(header: str) -> list[str]:
    """Return the titles that kubectl prints, which may contain single spaces."""
    return re.split(r"\s{2,}", header.strip())


def test_kubectl_waits_for_ready_and_shows_cinders_list(tenant: Tenant) -> None:
    kube = tenant.kube
    kube.apply(claim(kube, tenant.name, "files", size="64Mi"))
    tenant.wait_until("bound volume", tenant.volumes)
    tenant.kubectl("wait", "backupstore/default", "--for=condition=Ready", "--timeout=60s")
    kube.apply(tenant.backup("sunday", "files", name="Sunday"))
    tenant.kubectl("wait", "volumebackup/sunday", "--for=condition=Ready", "--timeout=90s")
    kube.apply(tenant.restore("back", "sunday", name="restored"))
    tenant.kubectl("wait", "volumerestore/back", "--for=condition=Ready", "--timeout=90s")
    tenant.kubectl("wait", "volumebackup/sunday", "--for=jsonpath={.status.phase}=available", "--timeout=60s")

    header, row = tenant.kubectl("get", "vb").splitlines()
    assert columns(header) == [
        "NAME",
        "STATUS",
        "READY",
        "REASON",
        "VOLUME",
        "SIZE GIB",
        "OBJECTS",
        "CONTAINER",
        "INCREMENTAL",
        "PROGRESS %",
        "DURATION",
        "AGE",
    ]
    assert row.split()[:6] == ["sunday", "available", "True", "Available", "files", "1"]
    assert "Sunday" in tenant.kubectl("get", "vb", "-o", "wide")
    header, row = tenant.kubectl("get", "vr").splitlines()
    assert columns(header) == ["NAME", "STATUS", "READY", "REASON", "BACKUP", "VOLUME", "PROGRESS %", "DURATION", "AGE"]
    assert row.split()[:6] == ["back", "available", "True", "Restored", "sunday", "restored"]
    header, row = tenant.kubectl("get", "bst").splitlines()
    assert row.split()[:4] == ["default", "True", "Answers", "true"]
    selected = tenant.kubectl("get", "vb", "--field-selector", "status.phase=available", "-o", "name")
    assert selected.split() == ["volumebackup.cinderblock.io/sunday"]


def test_movers_run_in_a_namespace_that_enforces_baseline(make_tenant: Callable[..., Tenant]) -> None:
    tenant = make_tenant(labels={"pod-security.kubernetes.io/enforce": "baseline"})
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "files"))
    make = ("python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1", "--files", "20")
    run_pod(kube, name, OneShotPod("make", make, (Mount("files", "/volume"),)))
    kube.apply(tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    kube.apply(tenant.restore("back", "full", name="restored"))
    tenant.ends("volumerestore/back")
    assert compare_trees(kube, name, "files", "restored") == []
