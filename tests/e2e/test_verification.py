"""Verifications prove what they say on a real cluster: they pass, find damage, run checks, and leave nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod
from tests.support.store.objects_in_store import EmbeddedStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CHECK: Object = {"check": {"cronJobName": "check"}}
EACH_MINUTE = "* * * * *"
NEVER = "0 0 29 2 *"
SCHEDULE_SECONDS = 300
"""A schedule removes the first of its verifications two minutes after it has created it, at the earliest."""


@pytest.fixture
def backed_up(tenant: Tenant) -> Tenant:
    """A namespace in which checks are allowed, with a volume and a backup of it."""
    account = f"--serviceaccount={RELEASE_NAMESPACE}:{RELEASE}"
    tenant.kubectl("create", "rolebinding", "checks", f"--clusterrole={RELEASE}-checks", account)
    tenant.kube.apply(claim(tenant.kube, tenant.name, "files"))
    _write(tenant, "echo today > /volume/day; head -c 3000000 /dev/urandom > /volume/random")
    tenant.kube.apply(tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    return tenant


def test_levels_pass_and_leave_nothing(backed_up: Tenant) -> None:
    _check(backed_up, "grep -q today /restored/day && ! touch /restored/new")
    for level, rule in (("Structure", {}), ("Data", {}), ("Restore", {"restore": CHECK})):
        status = _verify(backed_up, level.lower(), "verified", level=level, **rule)
        assert status["backupName"] == "full"
    assert (status["checkExitCode"], status["restoredBytes"] >= 3_000_000) == (0, True)
    assert status["restoreDuration"]
    summary = backed_up.get("volumebackup", "full")["status"]["verification"]
    assert (summary["result"], summary["level"]) == ("Verified", "Restore")
    _nothing_left(backed_up)


def test_failed_check_is_damage_until_a_drill_passes(backed_up: Tenant) -> None:
    _check(backed_up, "grep -q tomorrow /restored/day || exit 3")
    status = _verify(backed_up, "stale", "damaged", level="Restore", restore=CHECK)
    assert (status["checkExitCode"], "exit code 3" in status["failReason"]) == (3, True)
    assert backed_up.get("volumebackup", "full")["status"]["verification"]["result"] == "Damaged"
    _write(backed_up, "echo tomorrow > /volume/day")
    backed_up.kube.apply(backed_up.backup("new", "files"))
    backed_up.ends("volumebackup/new")
    assert _verify(backed_up, "fresh", "verified", level="Restore", restore=CHECK)["backupName"] == "new"
    _nothing_left(backed_up)


def test_flipped_byte_in_the_bucket_is_found(backed_up: Tenant) -> None:
    keys = backed_up.keys()
    [pack] = [key for key in keys if "/packs/" in key]
    with EmbeddedStore.of(backed_up.kube, backed_up.name).opened(backed_up.kube) as store:
        content = bytearray(store.get(pack))
        content[len(content) // 2] ^= 1
        store.put(pack, bytes(content))
    _verify(backed_up, "structure", "verified", level="Structure")
    for level in ("Data", "Restore"):
        assert _verify(backed_up, level.lower(), "damaged", level=level)["objects"] == [pack]
    assert backed_up.get("volumebackup", "full")["status"]["verification"]["result"] == "Damaged"
    _nothing_left(backed_up)


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "image", "reason"),
    [("sleep 3600", "", "TimedOut"), ("true", "localhost/no-such-image:1", "TimedOut")],
    ids=["never ends", "no image"],
)
def test_check_that_cannot_decide_is_an_error(backed_up: Tenant, command: str, image: str, reason: str) -> None:
    _check(backed_up, command, image=image)
    _verify(backed_up, "drill", "error", level="Restore", restore=CHECK | {"timeout": "40s"})
    backed_up.says("backupverification/drill", reason)
    assert "verification" not in backed_up.get("volumebackup", "full")["status"]
    _nothing_left(backed_up)


@pytest.mark.long
def test_drill_that_is_deleted_while_it_checks_leaves_nothing(backed_up: Tenant) -> None:
    _check(backed_up, "sleep 3600")
    backed_up.kube.apply(_verification(backed_up, "drill", level="Restore", restore=CHECK))
    backed_up.says("backupverification/drill", "CheckRunning", timeout=180)
    backed_up.delete("backupverification/drill", timeout=120)
    _nothing_left(backed_up)


def test_schedule_verifies_each_minute_and_keeps_a_short_history(tenant: Tenant) -> None:
    tenant.kube.apply(claim(tenant.kube, tenant.name, "files"))
    _write(tenant, "echo today > /volume/day")
    rules = {"structure": {"schedule": EACH_MINUTE}, "restore": {"schedule": EACH_MINUTE}, "successfulHistoryLimit": 1}
    spec = {"schedule": NEVER, "runNow": "first", "verification": rules}
    metadata = {"name": "proven", "namespace": tenant.name}
    kind = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "BackupSchedule"}
    tenant.kube.apply({**kind, "metadata": metadata, "spec": spec})

    def levels() -> list[str]:
        found = tenant.kube.items("backupverifications", tenant.name)
        return sorted(item["spec"]["level"] for item in found if item.get("status", {}).get("phase") == "verified")

    tenant.wait_until("verifications", lambda: {"Restore", "Structure"} <= set(levels()), timeout=SCHEDULE_SECONDS)
    first = {item["metadata"]["name"] for item in tenant.kube.items("backupverifications", tenant.name)}

    def left() -> set[str]:
        return {item["metadata"]["name"] for item in tenant.kube.items("backupverifications", tenant.name)}

    tenant.wait_until("removal of old verifications", lambda: first - left(), timeout=SCHEDULE_SECONDS)
    tenant.kubectl("delete", "backupschedule", "proven")
    tenant.wait_until("removal with the schedule", lambda: not left(), timeout=120)
    _nothing_left(tenant)


def _write(tenant: Tenant, command: str) -> None:
    run_pod(tenant.kube, tenant.name, OneShotPod("work", ("sh", "-c", command), (Mount("files", "/volume"),)))


def _check(tenant: Tenant, command: str, *, image: str = "") -> None:
    """Create the suspended CronJob of a check."""
    container = {
        "name": "check",
        "image": image or tenant.kube.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", command],
    }
    pod = {"restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 1, "containers": [container]}
    job = {"spec": {"backoffLimit": 4, "template": {"spec": pod}}}
    spec = {"schedule": NEVER, "suspend": True, "jobTemplate": job}
    metadata = {"name": "check", "namespace": tenant.name}
    tenant.kube.apply({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec})


def _verification(tenant: Tenant, name: str, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": tenant.name}
    kind = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "BackupVerification"}
    return {**kind, "metadata": metadata, "spec": {"volumeId": "files"} | spec}


def _verify(tenant: Tenant, name: str, phase: str, **spec: Any) -> Object:
    """Verify, and return the status at the end, whose phase must be this one."""
    tenant.kube.apply(_verification(tenant, name, **spec))
    ended = tenant.reaches(f"backupverification/{name}", "verified", "damaged", "error", timeout=240)
    status: Object = ended["status"]
    assert status["phase"] == phase, status
    return status


def _nothing_left(tenant: Tenant) -> None:
    """Check that drills have left no object and no volume: only the volume of the user stays."""

    def found() -> list[str]:
        objects = tenant.kubectl("get", "volumerestores,jobs,pods", "-o", "name", "--ignore-not-found").split()
        volumes = [claimed for claimed in tenant.volumes().values() if claimed != "files"]
        return [*objects, *tenant.children(), *volumes]

    tenant.wait_until("nothing left of drills", lambda: not found(), timeout=90)
