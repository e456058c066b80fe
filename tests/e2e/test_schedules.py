"""Schedules make backups, retention removes old ones although newer ones need their packs, and an alarm stops it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import TenantMaker
from tests.support.cluster.cluster import KubeCluster, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, compare_trees, run_pod

# Retention waits for a minute at least, twice in some tests.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

NEVER = "0 0 29 2 *"
"""Leap days: the tests start every run themselves."""
KEEP_ONE: Object = {"keepLast": 1, "minAge": "0s", "grace": "0s", "maxPerDay": 0}
REMOVAL_SECONDS = 180
"""Retention removes a backup a minute after its time at the earliest."""


def test_retention_removes_ancestors_and_the_newest_backup_restores(tenant: Tenant) -> None:
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "files"))
    _in_files(tenant, "make", "/volume/tree", "--seed", "1", "--files", "60")
    kube.apply(_schedule(name, "nightly", "first", retention=KEEP_ONE))
    made = [_new_backup(tenant, "nightly", ())]
    for number, token in ((2, "second"), (3, "third")):
        _in_files(tenant, "edit", "/volume/tree", "--seed", str(number), "--edits", "8")
        _run_now(tenant, "nightly", token)
        made.append(_new_backup(tenant, "nightly", made))
    backups = [tenant.get("volumebackup", backup) for backup in made if _exists(tenant, backup)]
    assert backups[-1]["status"]["isIncremental"] is True

    for backup in made[:2]:
        tenant.disappears(f"volumebackup/{backup}", timeout=REMOVAL_SECONDS)
    kube.apply(tenant.restore("restored", made[2], name="restored"))
    tenant.ends("volumerestore/restored")
    assert compare_trees(kube, name, "files", "restored") == []

    tenant.kubectl("delete", "backupschedule", "nightly")
    assert _exists(tenant, made[2])
    tenant.delete(f"volumebackup/{made[2]}")
    assert tenant.keys() == set()


def test_emptied_volume_raises_an_alarm_and_freezes_older_backups(tenant: Tenant) -> None:
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "files"))
    _in_volume(tenant, "head -c 4000000 /dev/urandom > /volume/data")
    kube.apply(_schedule(name, "nightly", "first", retention=KEEP_ONE | {"keepLast": 2}))
    first = _new_backup(tenant, "nightly", ())
    _run_now(tenant, "nightly", "second")
    second = _new_backup(tenant, "nightly", (first,))
    _in_volume(tenant, "rm /volume/data")
    _run_now(tenant, "nightly", "third")
    empty = _new_backup(tenant, "nightly", (first, second))
    status = tenant.get("volumebackup", empty)["status"]
    [alarm] = [condition for condition in status["conditions"] if condition["type"] == "Suspicious"]
    assert (alarm["status"], alarm["reason"]) == ("True", "Empty")
    tenant.wait_until(
        "frozen backup", lambda: _retention(tenant, "nightly").get("frozen") == 1, timeout=REMOVAL_SECONDS
    )
    assert "expiresAt" not in tenant.get("volumebackup", first)["status"]

    tenant.kubectl("annotate", "volumebackup", empty, f"cinderblock.io/accept={status['id']}")
    tenant.wait_until("end of the freeze", lambda: "expiresAt" in _status(tenant, first), timeout=REMOVAL_SECONDS)


def test_cluster_schedule_selects_namespaces_and_leaves_out_what_opts_out(make_tenant: TenantMaker) -> None:
    marked = make_tenant(labels={"protected-by": "cluster-nightly"})
    other = make_tenant()
    kube = marked.kube
    left_out = claim(kube, marked.name, "cache")
    left_out["metadata"]["annotations"] = {"cinderblock.io/backup": "false"}
    kube.apply(claim(kube, marked.name, "files"), left_out, claim(kube, other.name, "files"))
    for one in (marked, other):
        _in_volume(one, "echo content > /volume/data")
    _mount(marked, "cache")
    selector = {"matchLabels": {"protected-by": "cluster-nightly"}}
    schedule = _schedule("", marked.name, "first", namespaceSelector=selector)
    try:
        kube.apply(schedule)
        backup = _new_backup(marked, marked.name, ())
        assert marked.get("volumebackup", backup)["status"]["volumeName"] == "files"
        marked.wait_until("end of the run", lambda: _run(kube, marked.name).get("succeeded") == 1)
        assert _run(kube, marked.name)["volumes"] == 1
        assert _backups(other, marked.name) == []
    finally:
        kube.kubectl("delete", "clusterbackupschedule", marked.name, "--ignore-not-found")


def _schedule(namespace: str, name: str, token: str, **spec: Any) -> Object:
    """Return a schedule whose first run begins at once."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    kind = "BackupSchedule" if namespace else "ClusterBackupSchedule"
    times = {"schedule": NEVER, "runNow": token}
    return {"apiVersion": "cinderblock.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": times | spec}


def _run_now(tenant: Tenant, schedule: str, token: str) -> None:
    patch = '{"spec":{"runNow":"' + token + '"}}'
    tenant.kubectl("patch", "backupschedule", schedule, "--type=merge", "-p", patch)


def _new_backup(tenant: Tenant, schedule: str, known: tuple[str, ...] | list[str]) -> str:
    """Wait until the schedule has made one more backup and it is available. Return its name."""

    def found() -> str | None:
        return next((name for name in _backups(tenant, schedule) if name not in known), None)

    name: str = tenant.wait_until(f"backup of schedule {schedule}", found)
    tenant.ends(f"volumebackup/{name}")
    return name


def _backups(tenant: Tenant, schedule: str) -> list[str]:
    listed = tenant.kubectl("get", "volumebackups", "-o", "jsonpath={.items[*].metadata.name}")
    return [name for name in listed.split() if name.startswith(f"{schedule}-")]


def _exists(tenant: Tenant, backup: str) -> bool:
    return tenant.kube.get("volumebackup", backup, tenant.name) is not None


def _status(tenant: Tenant, backup: str) -> Object:
    """Return the status of a backup. One that is gone has expired."""
    found = tenant.kube.get("volumebackup", backup, tenant.name)
    return found["status"] if found is not None else {"expiresAt": ""}


def _retention(tenant: Tenant, schedule: str) -> Object:
    found: Object = tenant.get("backupschedule", schedule).get("status", {}).get("retention") or {}
    return found


def _run(kube: KubeCluster, schedule: str) -> Object:
    found: Object = ((kube.get("clusterbackupschedule", schedule) or {}).get("status") or {}).get("lastRun") or {}
    return found


def _in_files(tenant: Tenant, *arguments: str) -> None:
    one_shot = OneShotPod("work", ("python3", "/tools/trees.py", *arguments), (Mount("files", "/volume"),))
    run_pod(tenant.kube, tenant.name, one_shot)


def _in_volume(tenant: Tenant, command: str) -> None:
    run_pod(tenant.kube, tenant.name, OneShotPod("work", ("sh", "-c", command), (Mount("files", "/volume"),)))


def _mount(tenant: Tenant, volume: str) -> None:
    """Run a pod with the claim, so that it is bound whatever its class is."""
    run_pod(tenant.kube, tenant.name, OneShotPod("bind", ("true",), (Mount(volume, "/volume"),)))
