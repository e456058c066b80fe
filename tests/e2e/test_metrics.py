"""The operator's metrics as Prometheus would get them from the pod, through the Service that the chart makes."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, Lab
from tests.support.cluster.metrics import Samples, samples
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import claim

pytestmark = pytest.mark.e2e


def _scrape(lab: Lab) -> Samples:
    service = f"/api/v1/namespaces/{RELEASE_NAMESPACE}/services/{RELEASE}-metrics:metrics/proxy/metrics"
    return samples(lab.kubectl("get", "--raw", service))


def test_volume_says_how_old_its_newest_backup_is(tenant: Tenant) -> None:
    lab, name = tenant.lab, tenant.name
    lab.apply(claim(lab, name, "files", size="64Mi"))
    tenant.wait_until("bound volume", tenant.volumes)
    lab.apply(tenant.backup("full", "files"))
    [backup] = tenant.ends("volumebackup/full")

    volume = {"volume_namespace": name, "volume": "files"}
    held = datetime.fromisoformat(backup["status"]["dataTimestamp"]).timestamp()
    page = _scrape(lab)
    assert page.value("volume_last_success_timestamp_seconds", **volume) == held
    assert page.value("leader") == 1
    assert page.value("store_ready", store_namespace=name, store="default") == 1
    assert (page.value("operation_duration_seconds_count", operation="backup", result="success") or 0) >= 1
