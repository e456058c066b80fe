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
    shared = {
        Right("", "namespaces", "list", ""),
        *(Right("cinderblock.io", "clusterbackupstores", verb, "") for verb in ("get", "list", "watch", "patch")),
        Right("cinderblock.io", "clusterbackupstores/status", "patch", ""),
        *(Right("cinderblock.io", "backupgrants", verb, "") for verb in ("get", "list", "watch")),
        Right("cinderblock.io", "backupgrants/status", "patch", ""),
    }
    assert everywhere - granted([cluster, namespaced]) == shared | {
        Right("cinderblock.io", "backupstores", verb, "") for verb in ("create", "delete")
    }
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


def test_release_for_some_namespaces_leaves_cluster_stores_to_another() -> None:
    objects = render(WATCHED, "stores.cluster=true", "uninstall.releaseFinalizers=always")
    [operator] = _named(objects, "Deployment", "cinderblock")
    environment = {v["name"]: v["value"] for v in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["CINDERBLOCK_CLUSTER_STORES"] == "false"
    rights = granted(of_kind(objects, "ClusterRole") + of_kind(objects, "Role"))
    named = {r.verb for r in rights if r.resource == "clusterbackupstores"}
    assert not named & {"patch", "delete"}, "the finalizers of another release stay"


@pytest.mark.parametrize("setting", [WATCHED, "stores.cluster=false"])
def test_broker_without_shared_stores_is_refused(setting: str) -> None:
    done = helm("template", "cinderblock", str(CHART), f"--set={setting}", "--set=broker.enabled=true")
    assert done.returncode != 0
    assert "this release does not work on ClusterBackupStores" in done.stderr
