"""The chart for an operator that works in some namespaces only."""

from __future__ import annotations

import pytest

from tests.support.cluster.audit import Right, granted
from tests.support.cluster.chart import CHART, Objects, helm, of_kind, render

pytestmark = pytest.mark.integration

WATCHED = "watchNamespaces={demo,shop}"
CLUSTER_WIDE = {
    *("persistentvolumes", "volumesnapshotclasses", "storageclasses", "volumeattachments", "namespaces"),
    *("clusterbackupschedules", "clusterbackupschedules/status"),
    *("clusterbackupstores", "clusterbackupstores/status"),
}


def _named(objects: Objects, kind: str, name: str) -> Objects:
    return [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]


def test_namespaced_rights_are_bound_in_these_namespaces_only() -> None:
    objects = render(WATCHED)
    [cluster], [namespaced] = (
        _named(objects, "ClusterRole", name) for name in ("cinderblock", "cinderblock-namespaced")
    )
    assert {right.resource for right in granted([cluster])} == CLUSTER_WIDE
    everywhere = granted(_named(render(), "ClusterRole", "cinderblock"))
    assert everywhere - granted([cluster, namespaced]) == {Right("", "namespaces", "list", "")}
    assert granted([cluster, namespaced]) <= everywhere
    bindings = [b for b in of_kind(objects, "RoleBinding") if b["roleRef"]["name"] == "cinderblock-namespaced"]
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["demo", "shop"]
    assert not [b for b in of_kind(objects, "ClusterRoleBinding") if b["roleRef"]["name"] == "cinderblock-namespaced"]


def test_operator_and_the_uninstall_hook_get_the_same_list() -> None:
    objects = render(WATCHED, "uninstall.releaseFinalizers=always")
    [operator] = _named(objects, "Deployment", "cinderblock")
    environment = {v["name"]: v["value"] for v in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["CINDERBLOCK_WATCH_NAMESPACES"] == "demo,shop"
    [hook] = _named(objects, "Job", "cinderblock-uninstall")
    arguments = hook["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[-4:] == ["--in-namespace", "demo", "--in-namespace", "shop"]
    bindings = [
        b for b in of_kind(objects, "RoleBinding") if b["metadata"]["name"] == "cinderblock-uninstall-namespaced"
    ]
    assert [binding["metadata"]["namespace"] for binding in bindings] == ["demo", "shop"]
    assert not _named(objects, "ClusterRoleBinding", "cinderblock-uninstall")


def test_embedded_store_serves_only_watched_namespaces() -> None:
    settings = (WATCHED, "embeddedStore.enabled=true", "embeddedStore.namespaces={demo,other}")
    done = helm("template", "cinderblock", str(CHART), *(f"--set={setting}" for setting in settings))
    assert done.returncode != 0
    assert "embeddedStore.namespaces has other, which is not in watchNamespaces" in done.stderr
