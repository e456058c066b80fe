"""GitOps tools can apply our objects again, compare them, wait for them and prune them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.cluster import KubeCluster, Object
from tests.support.cluster.namespaces import CHILDREN, Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples" / "gitops"
TRACKING = {
    "argocd.argoproj.io/instance": "shop",
    "kustomize.toolkit.fluxcd.io/name": "shop",
    "app.kubernetes.io/instance": "shop",
}
TRACKING_ID = {"argocd.argoproj.io/tracking-id": "shop:cinderblock.io/VolumeBackup:demo/tracked"}


@pytest.fixture(scope="module")
def shop(kube: KubeCluster, make_shared_tenant: Callable[..., Tenant]) -> Tenant:
    """Return a namespace with a volume that an application has written to."""
    tenant = make_shared_tenant()
    kube.apply(claim(kube, tenant.name, "files"))
    write = ("python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1", "--files", "5")
    run_pod(kube, tenant.name, OneShotPod("write", write, (Mount("files", "/volume"),)))
    return tenant


def _tracked(item: Object) -> Object:
    """Return the object with the tracking labels of a GitOps tool."""
    metadata = item["metadata"]
    return item | {"metadata": metadata | {"labels": TRACKING, "annotations": TRACKING_ID}}


def _applied_again(tenant: Tenant, *items: Object) -> None:
    """Apply the manifests in all the ways that tools do; nothing may differ, before or after."""
    text = yaml.safe_dump_all(items)
    tenant.kubectl("diff", "-f", "-", stdin=text)  # fails if there is a difference
    for options in (
        (),
        ("--server-side", "--force-conflicts"),
        ("--server-side", "--force-conflicts", "--field-manager=argocd-controller"),
        ("--server-side", "--force-conflicts", "--field-manager=kustomize-controller"),
    ):
        tenant.kubectl("apply", *options, "-f", "-", stdin=text)
    tenant.kubectl("diff", "-f", "-", stdin=text)
    tenant.kubectl("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def _what_matters(tenant: Tenant, *names: str) -> list[Any]:
    found = [tenant.get(*name.split("/")) for name in names]
    return [(item["metadata"]["uid"], item["metadata"]["generation"], item["status"]) for item in found]


def test_applying_again_changes_nothing_and_copies_no_tracking_label(shop: Tenant) -> None:
    backup = _tracked(shop.backup("tracked", "files", name="Tracked", metadata={"team": "shop"}))
    restore = _tracked(shop.restore("tracked-back", "tracked", name="files-back"))
    store = _tracked(shop.store("default", is_default=True))
    store["metadata"]["annotations"] = store["metadata"]["annotations"] | {"cinderblock.io/is-default-store": "true"}
    shop.kube.apply(store, backup)
    marked = set()
    shop.wait_until(
        "backup",
        lambda: marked.update(_marks(shop)) or shop.get("vb", "tracked").get("status", {}).get("dataTimestamp"),
    )
    shop.ends("volumebackup/tracked")
    shop.kube.apply(restore)
    shop.wait_until(
        "restore", lambda: marked.update(_marks(shop)) or _phase(shop, "tracked-back") not in (None, "restoring")
    )
    shop.ends("volumerestore/tracked-back")
    assert marked == set()
    assert not set(shop.get("pvc", "files-back")["metadata"].get("labels", {})) & set(TRACKING)

    # The backup leaves the phase restoring after the restore has ended.
    shop.wait_until("backup", lambda: shop.get("vb", "tracked")["status"]["phase"] == "available")
    before = _what_matters(shop, "volumebackup/tracked", "volumerestore/tracked-back")
    _applied_again(shop, store, backup, restore)
    assert _what_matters(shop, "volumebackup/tracked", "volumerestore/tracked-back") == before
    assert shop.children() == []


def _phase(tenant: Tenant, restore: str) -> str | None:
    phase: str | None = tenant.get("volumerestore", restore).get("status", {}).get("phase")
    return phase


def _marks(tenant: Tenant) -> set[str]:
    """Return labels and annotations of GitOps tools on anything that the operator has created."""
    labelled = "app.kubernetes.io/managed-by=cinderblock"
    found = json.loads(tenant.kubectl("get", CHILDREN, "-l", labelled, "-o", "json"))["items"]
    keys = {key for item in found for part in ("labels", "annotations") for key in item["metadata"].get(part, {})}
    return keys & {*TRACKING, *TRACKING_ID}


def test_hook_of_argo_cd_makes_a_backup_for_each_sync(shop: Tenant) -> None:
    [hook] = yaml.safe_load_all((EXAMPLES / "argocd-presync.yaml").read_text())
    hook["metadata"]["namespace"] = shop.name
    synced = [shop.kubectl("create", "-f", "-", "-o", "name", stdin=yaml.safe_dump(hook)).strip() for _ in range(2)]
    assert len(set(synced)) == 2
    for name in synced:
        shop.kubectl("wait", name, "--for=condition=Ready", "--timeout=90s")


def test_flux_waits_for_one_backup_of_each_version(shop: Tenant) -> None:
    text = (EXAMPLES / "flux-backup" / "volumebackup.yaml").read_text().replace("${VERSION}", "1.4.0")
    backup = yaml.safe_load(text)
    backup["metadata"]["namespace"] = shop.name
    how = ("apply", "--server-side", "--field-manager=kustomize-controller", "-f", "-")
    shop.kubectl(*how, stdin=yaml.safe_dump(backup))
    seen = []
    shop.wait_until("Current", lambda: seen.append(_kstatus(shop.get("vb", "before-1.4.0"))) or seen[-1] == "Current")
    assert set(seen) == {"InProgress", "Current"}
    before = _what_matters(shop, "volumebackup/before-1.4.0")
    shop.kubectl(*how, stdin=yaml.safe_dump(backup))
    assert _what_matters(shop, "volumebackup/before-1.4.0") == before


def test_backup_that_fails_is_failed_for_flux(shop: Tenant) -> None:
    shop.kube.apply(shop.backup("hopeless", "no-such-volume"))
    shop.reaches("volumebackup/hopeless", "error")
    assert _kstatus(shop.get("vb", "hopeless")) == "Failed"


def _kstatus(item: Object) -> str:
    """Return the status that kstatus computes from the conditions of a custom resource (sigs.k8s.io/cli-utils
    pkg/kstatus).
    """
    status = item.get("status", {})
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    if "deletionTimestamp" in item["metadata"]:
        return "Terminating"
    if status.get("observedGeneration") != item["metadata"]["generation"] or conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready") == "True" else "InProgress"


def test_pruning_honours_the_deletion_policy(shop: Tenant) -> None:
    kept = _tracked(shop.backup("pruned-kept", "files", deletionPolicy="Retain"))
    gone = _tracked(shop.backup("pruned-gone", "files"))
    shop.kube.apply(kept, gone)
    statuses = [item["status"] for item in shop.ends("volumebackup/pruned-kept", "volumebackup/pruned-gone")]
    shop.kubectl(
        "apply",
        "--prune",
        "--all",
        "--prune-allowlist=cinderblock.io/v1alpha1/VolumeBackup",
        "-f",
        "-",
        stdin=yaml.safe_dump(_tracked(shop.backup("tracked", "files", name="Tracked", metadata={"team": "shop"}))),
    )
    shop.disappears("volumebackup/pruned-kept", "volumebackup/pruned-gone")
    keys = shop.keys()
    assert [status["manifestKey"] in keys for status in statuses] == [True, False]
    shop.kept = {key for key in keys if statuses[0]["id"] in key}
