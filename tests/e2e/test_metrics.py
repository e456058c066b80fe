"""The operator's metrics as Prometheus collects them from the pod, through the Service of the chart."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, KubeCluster
from tests.support.cluster.metrics import Samples, samples
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import claim

pytestmark = pytest.mark.e2e


def _scrape(kube: KubeCluster) -> Samples:
    service = f"/api/v1/namespaces/{RELEASE_NAMESPACE}/services/{RELEASE}-metrics:metrics/proxy/metrics"
    return samples(kube.kubectl("get", "--raw", service))


def test_metrics_show_the_age_of_the_newest_backup(tenant: Tenant) -> None:
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "files", size="64Mi"))
    tenant.wait_until("bound volume", tenant.volumes)
    kube.apply(tenant.backup("full", "files"))
    [backup] = tenant.ends("volumebackup/full")

    volume = {"volume_namespace": name, "volume": "files"}
    held = datetime.fromisoformat(backup["status"]["dataTimestamp"]).timestamp()
    page = _scrape(kube)
    assert page.value("volume_last_success_timestamp_seconds", **volume) == held
    assert page.value("leader") == 1
    assert page.value("store_ready", store_namespace=name, store="default") == 1
    assert (page.value("operation_duration_seconds_count", operation="backup", result="success") or 0) >= 1
