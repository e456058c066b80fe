"""A cluster unlike ours: demanded labels, a LimitRange, Retain, injected containers, a queue, ReadOnlyMany, orphans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.support.cluster import unlike
from tests.support.cluster.cluster import KubeClusterError, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = [pytest.mark.e2e, pytest.mark.long]

WRITE = ("sh", "-c", "echo content > /volume/file && head -c 12000000 /dev/urandom > /volume/random")
MOVER: dict[str, Any] = {"labels": unlike.TEAM, "resources": unlike.RESOURCES}


@pytest.fixture
def tenant(make_tenant: Callable[..., Tenant]) -> Iterator[Tenant]:
    """A namespace with a volume of a class that retains, in which everything is different from now on."""
    made = make_tenant()
    kube, name = made.kube, made.name
    if not kube.is_own:
        pytest.skip("changes the admission of the cluster, and serves a webhook on this machine")
    kube.apply(unlike.keeping_class(kube, name), claim(kube, name, "files", size="64Mi", storage_class=name))
    run_pod(kube, name, OneShotPod("write", WRITE, (Mount("files", "/volume"),)))
    with unlike.webhook(name) as configuration:
        objects = [configuration, *unlike.label_policy(name)]
        try:
            kube.apply(unlike.limits(name), *objects)
            made.kubectl("label", "namespace", name, f"{unlike.LABEL}={name}")
            made.wait_until("the policy in force", lambda: _is_refused(made))
            yield made
        finally:
            for item in objects:
                kube.kubectl("delete", item["kind"], item["metadata"]["name"], "--ignore-not-found")
    # The volumes of users stay by their policy, so the test removes them.
    made.kubectl("delete", "pods,volumebackups,volumerestores,persistentvolumeclaims", "--all", "--timeout=90s")
    for volume in made.volumes():
        patch = '{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}'
        kube.kubectl("patch", "persistentvolume", volume, "--type=merge", "-p", patch)
    kube.kubectl("delete", "storageclass", name)


def _store(tenant: Tenant, **mover: Any) -> Object:
    return tenant.store("default", is_default=True, mover=mover)


def _is_refused(tenant: Tenant) -> bool:
    """Return whether the policy refuses a claim without the label. The API server learns of a policy after a while."""
    probe = claim(tenant.kube, tenant.name, "probe", size="1Mi")
    command = ("create", "--dry-run=server", "-f", "-")
    try:
        tenant.kubectl(*command, stdin=yaml.safe_dump(probe))
    except KubeClusterError as error:
        return "the label team is missing" in str(error)
    return False


def _policies(tenant: Tenant) -> dict[str, str]:
    """Return the reclaim policies of all volumes of the namespace, by claim."""
    found = json.loads(tenant.kube.kubectl("get", "persistentvolumes", "-o", "json"))["items"]
    mine = [item["spec"] for item in found if item["spec"].get("claimRef", {}).get("namespace") == tenant.name]
    return {spec["claimRef"]["name"]: spec["persistentVolumeReclaimPolicy"] for spec in mine}


def _warnings(tenant: Tenant, *names: str) -> set[str]:
    return {event["reason"] for name in names for event in tenant.events(name) if event["type"] == "Warning"}


def test_refusals_name_what_to_set(tenant: Tenant) -> None:
    tenant.kube.apply(tenant.backup("unlabelled", "files"))
    assert "spec.mover.labels" in tenant.says("volumebackup/unlabelled", "AccessDenied")
    tenant.delete("volumebackup/unlabelled")
    tenant.kube.apply(_store(tenant, labels=unlike.TEAM), tenant.backup("unlimited", "files"))
    told = tenant.says("volumebackup/unlimited", "LimitRangeViolated", timeout=90)
    assert "max limit to request ratio per Container is 2" in told
    assert "spec.mover.resources" in told
    tenant.delete("volumebackup/unlimited")
    tenant.wait_until("no volume of the backups", lambda: set(_policies(tenant)) == {"files"}, timeout=60)


def test_operations_succeed_and_leave_only_volumes_of_users(tenant: Tenant) -> None:
    tenant.kube.apply(_store(tenant, **MOVER), tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    tenant.kube.apply(tenant.restore("back", "full", name="restored", labels=unlike.TEAM))
    tenant.ends("volumerestore/back")
    assert tenant.get("persistentvolumeclaim", "restored")["metadata"]["labels"] == unlike.TEAM
    assert not _warnings(tenant, "full", "back"), "nobody has to look at operations that went well"
    expected = {"files": "Retain", "restored": "Retain"}
    tenant.wait_until("no other volume", lambda: _policies(tenant) == expected, timeout=60)
    tenant.kube.apply(tenant.store("default", is_default=True, mover=MOVER, limits={"uploadBytesPerSecond": 1 << 20}))
    tenant.kube.apply(tenant.backup("orphaned", "files"))
    tenant.says("volumebackup/orphaned", "MoverRunning", timeout=90)
    tenant.kubectl("delete", "volumebackup", "orphaned", "--cascade=orphan", "--wait=false")
    tenant.disappears("volumebackup/orphaned")
    tenant.wait_until("no child is left", lambda: not tenant.children(), timeout=60)
    tenant.wait_until("no volume of the orphan", lambda: _policies(tenant) == expected, timeout=60)


def test_queue_decides_when_a_mover_starts(tenant: Tenant) -> None:
    queued = MOVER | {"annotations": {"queued": "true"}}
    tenant.kube.apply(_store(tenant, **queued), tenant.backup("full", "files"))
    assert "LocalQueue default" in tenant.says("volumebackup/full", "MoverSuspended", timeout=90)
    [job] = json.loads(tenant.kubectl("get", "jobs", "-o", "json"))["items"]
    assert job["spec"]["suspend"] is True, "the queue has not admitted it"
    tenant.kubectl("patch", "job", job["metadata"]["name"], "--type=merge", "-p", '{"spec":{"suspend":false}}')
    tenant.ends("volumebackup/full")
    assert not _warnings(tenant, "full")


def test_read_only_volume_in_use_is_backed_up(tenant: Tenant) -> None:
    kube, name = tenant.kube, tenant.name
    shared = claim(kube, name, "shared", size="64Mi")
    shared["metadata"]["labels"] = unlike.TEAM
    shared["spec"]["accessModes"] = ["ReadOnlyMany"]
    group = "snapshot.storage.k8s.io"
    shared["spec"]["dataSource"] = {"apiGroup": group, "kind": "VolumeSnapshot", "name": "of-files"}
    shared["spec"]["storageClassName"] = name
    snapshot = {
        "apiVersion": f"{group}/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": "of-files", "namespace": name, "labels": unlike.TEAM},
        "spec": {"source": {"persistentVolumeClaimName": "files"}},
    }
    reader = OneShotPod("reader", ("sleep", "600"), (Mount("shared", "/volume"),), unlike.TEAM).manifest(kube, name)
    reader["spec"]["containers"][0]["resources"] = unlike.RESOURCES
    kube.apply(_store(tenant, **MOVER), snapshot, shared, reader)
    tenant.wait_until("reader at work", lambda: tenant.get("pod", "reader")["status"]["phase"] == "Running")
    kube.apply(tenant.backup("full", "shared"))
    tenant.ends("volumebackup/full")
    kube.apply(tenant.restore("back", "full", name="restored", labels=unlike.TEAM))
    tenant.ends("volumerestore/back")
    restored = tenant.get("persistentvolumeclaim", "restored")
    assert restored["spec"]["accessModes"] == ["ReadOnlyMany"]
    assert restored["status"]["accessModes"] == ["ReadOnlyMany"]
    tenant.kubectl("delete", "pod/reader", "volumesnapshot/of-files", "--grace-period=1", "--timeout=60s")
