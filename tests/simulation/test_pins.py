"""The operator records what identifies the content of a backup, later also for backups of an earlier release."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cinderblock.controller.request import ObjectKey
from cinderblock.errors import KeyUnavailable, StoreUnreachable
from cinderblock.format.crypto.keyring import KeyRing
from tests.support.mover.backups import key_ring
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation


@pytest.fixture(params=[False, True], ids=["unsealed", "sealed"])
def running(request: pytest.FixtureRequest) -> Iterator[Simulation]:
    """A backup of claim ``data``, in a store without keys or with them."""
    with Simulation() as running:
        if request.param:
            running.encrypt(key_ring())
        running.claim("data", "first")
        running.backup("full", "data")
        running.settle()
        yield running


def status(running: Simulation, name: str = "full") -> dict[str, Any]:
    return dict(running.get("VolumeBackup", name)["status"])


def condition(running: Simulation, kind: str, name: str = "full") -> dict[str, Any] | None:
    return next((c for c in status(running, name)["conditions"] if c["type"] == kind), None)


def forget_pins(running: Simulation, name: str = "full") -> dict[str, Any]:
    """Leave a status as an earlier release has written it. Returns the pins."""
    backup = running.get("VolumeBackup", name)
    pins: dict[str, Any] = backup["status"].pop("pins")
    running.objects.update(backup, status=backup["status"])
    return pins


def upgrade(running: Simulation) -> None:
    """Start the operator, which looks at what its lists show, and let it do all it wants."""
    running.restart()
    running.settle()


def manifest(running: Simulation, name: str = "full") -> str:
    return str(status(running, name)["manifestKey"])


def replace_manifest(running: Simulation, name: str, other: str) -> None:
    """Put the manifest of another backup in the place of one."""
    store = running.cluster.store
    store.put(manifest(running, name), store.get(manifest(running, other)))


def restored(running: Simulation, backup: str = "full") -> tuple[str, str]:
    """Phase and reason of a restore to a new volume."""
    running.restore("back", backup, name="new")
    running.settle()
    return running.phase("VolumeRestore", "back"), running.reason("VolumeRestore", "back")


def test_a_new_backup_is_pinned(running: Simulation) -> None:
    pins = status(running)["pins"]
    assert pins["suite"] == (1 if running.cluster.keys else 0)
    assert pins["salt"] in running.cluster.held
    assert condition(running, "Pinned") is None


def test_a_backup_of_an_earlier_release_is_pinned_once_by_an_upgrade(running: Simulation) -> None:
    pins, before = forget_pins(running), status(running)
    upgrade(running)
    assert status(running)["pins"] == pins
    told = {name: value for name, value in status(running).items() if name not in ("pins", "updatedAt")}
    assert told == {name: value for name, value in before.items() if name != "updatedAt"}
    assert ObjectKey("VolumeBackup", NAMESPACE, "full") not in running.unsettled()


def test_a_store_that_does_not_answer_takes_nothing_from_a_backup_and_is_asked_again(running: Simulation) -> None:
    pins = forget_pins(running)
    running.store.trouble = StoreUnreachable("no answer")
    running.restart()
    for _ in range(40):
        running.step()
    assert running.phase("VolumeBackup", "full") == "available"
    assert running.reason("VolumeBackup", "full") == "Available"
    pinned = condition(running, "Pinned")
    assert pinned is not None
    assert (pinned["status"], pinned["reason"]) == ("False", "StoreUnreachable")
    assert ObjectKey("VolumeBackup", NAMESPACE, "full") in running.unsettled()
    running.store.trouble = None
    running.resync()
    running.settle()
    assert status(running)["pins"] == pins
    assert condition(running, "Pinned") is None


def test_a_key_that_is_not_there_takes_nothing_from_a_backup(running: Simulation) -> None:
    forget_pins(running)
    running.store.trouble = KeyUnavailable("the Secret does not hold it")
    running.restart()
    for _ in range(40):
        running.step()
    assert running.reason("VolumeBackup", "full") == "Available"
    pinned = condition(running, "Pinned")
    assert pinned is not None
    assert pinned["reason"] == "KeyUnavailable"


def test_what_is_not_the_backup_is_told_and_not_pinned_and_not_restored(running: Simulation) -> None:
    running.claim("other", "secret")
    running.backup("theirs", "other")
    running.settle()
    forget_pins(running)
    right = running.cluster.store.get(manifest(running))
    replace_manifest(running, "full", "theirs")
    running.restart()
    running.resync()
    for _ in range(60):
        running.step()
    assert running.phase("VolumeBackup", "full") == "available"
    assert running.reason("VolumeBackup", "full") == "ForeignManifest"
    pinned = condition(running, "Pinned")
    assert pinned is not None
    assert pinned["reason"] == "ForeignManifest"
    assert "pins" not in status(running)
    assert ("ForeignManifest", 1) in running.events()
    running.restore("back", "full", name="new")
    running.until("VolumeRestore", "back", "ForeignManifest")
    assert not running.exists("PersistentVolumeClaim", "new")
    running.cluster.store.put(manifest(running), right)
    running.resync()
    running.settle()
    assert "pins" in status(running)
    assert (running.reason("VolumeBackup", "full"), condition(running, "Pinned")) == ("Available", None)


def test_a_manifest_that_is_gone_is_told(running: Simulation) -> None:
    forget_pins(running)
    running.cluster.store.delete([manifest(running)])
    running.restart()
    for _ in range(40):
        running.step()
    assert running.reason("VolumeBackup", "full") == "ManifestMissing"


def test_a_lost_status_is_regained_and_says_so(running: Simulation) -> None:
    pins = status(running)["pins"]
    running.erase_status("VolumeBackup", "full")
    running.resync()
    running.settle()
    assert status(running)["pins"] == pins
    regained = condition(running, "PinRegained")
    assert regained is not None
    assert (regained["status"], regained["reason"]) == ("True", "StatusLost")
    running.restore("back", "full", name="new")
    running.settle()
    assert running.content("new") == "first"
    assert condition(running, "PinRegained") == regained


def test_a_lost_status_is_not_regained_from_a_manifest_of_another_backup(running: Simulation) -> None:
    running.claim("other", "secret")
    running.backup("theirs", "other")
    running.settle()
    key, right = manifest(running), running.cluster.store.get(manifest(running))
    replace_manifest(running, "full", "theirs")
    running.erase_status("VolumeBackup", "full")
    running.resync()
    for _ in range(60):
        running.step()
    assert (running.phase("VolumeBackup", "full"), running.reason("VolumeBackup", "full")) == (
        "error",
        "ForeignManifest",
    )
    assert "pins" not in status(running)
    running.cluster.store.put(key, right)
    running.settle()
    assert running.phase("VolumeBackup", "full") == "available"


def test_a_namesake_beside_it_does_not_hide_a_backup_whose_status_was_lost(running: Simulation) -> None:
    uid = running.get("VolumeBackup", "full")["metadata"]["uid"]
    pins = status(running)["pins"]
    running.cluster.store.put(f"backups/0-before-all/{uid}.manifest", running.cluster.store.get(manifest(running)))
    running.erase_status("VolumeBackup", "full")
    running.resync()
    running.settle()
    assert status(running)["pins"] == pins


def test_a_namesake_under_a_key_that_nobody_has_does_not_hide_it_either(running: Simulation) -> None:
    uid = running.get("VolumeBackup", "full")["metadata"]["uid"]
    pins, leaked = status(running)["pins"], KeyRing({"lost": bytes(32)}, "lost")
    forged = running.cluster.forge("0-before-all", uid, "evil", leaked)
    running.cluster.store.put(f"backups/0-before-all/{uid}.manifest", forged)
    running.delete("PersistentVolumeClaim", "data")
    running.settle()
    running.erase_status("VolumeBackup", "full")
    running.resync()
    running.settle()
    assert status(running)["pins"] == pins


def test_of_several_namesakes_none_is_taken_unless_the_volume_is_known(running: Simulation) -> None:
    """Whoever can write to the container, and has the key if there is one, can make a manifest of the same name."""
    uid = running.get("VolumeBackup", "full")["metadata"]["uid"]
    pins, key = status(running)["pins"], f"backups/0-before-all/{uid}.manifest"
    running.cluster.store.put(key, running.cluster.forge("0-before-all", uid, "evil", running.cluster.keys))
    running.delete("PersistentVolumeClaim", "data")
    running.settle()
    running.erase_status("VolumeBackup", "full")
    running.resync()
    for _ in range(40):
        running.step()
    assert running.reason("VolumeBackup", "full") == "ForeignManifest"
    assert "2 have its name" in status(running)["failReason"]
    running.cluster.store.delete([key])
    running.settle()
    assert status(running)["pins"] == pins


def test_an_import_by_an_id_that_several_manifests_have_wants_the_key(running: Simulation) -> None:
    uid, right = running.get("VolumeBackup", "full")["metadata"]["uid"], manifest(running)
    running.tear_away("full")
    key = f"backups/0-before-all/{uid}.manifest"
    running.cluster.store.put(key, running.cluster.forge("0-before-all", uid, "evil", running.cluster.keys))
    running.adopt("by-id", uid)
    running.settle()
    assert running.reason("VolumeBackup", "by-id") == "ForeignManifest"
    assert "spec.import.manifest" in status(running, "by-id")["failReason"]
    running.delete("VolumeBackup", "by-id")
    running.settle()
    running.adopt("by-key", uid, manifest=right)
    running.settle()
    running.restore("back", "by-key", name="new")
    running.settle()
    assert running.content("new") == "first"


def test_what_is_swapped_between_the_movers_end_and_the_read_back_is_found(running: Simulation) -> None:
    uid = running.backup("again", "data")["metadata"]["uid"]
    running.until("VolumeBackup", "again", "MoverRunning")
    (pod,) = (pod for pod in running.objects.all("Pod") if "ownerReferences" in pod["metadata"])
    report = running.cluster.work(pod)
    key = next(key for key in running.stored("backups/") if uid in key)
    written = running.cluster.store.get(key)
    running.cluster.store.delete([key])
    running.cluster.work(pod)
    assert running.cluster.store.get(key) != written
    running.cluster.end(pod, 0, report)
    running.settle()
    assert running.phase("VolumeBackup", "again") == "error"
    assert running.reason("VolumeBackup", "again") == "ManifestReplaced"


def test_a_report_of_an_earlier_mover_names_no_pins_and_those_that_are_read_count(running: Simulation) -> None:
    running.backup("again", "data")
    running.until("VolumeBackup", "again", "MoverRunning")
    (pod,) = (pod for pod in running.objects.all("Pod") if "ownerReferences" in pod["metadata"])
    report = running.cluster.work(pod)
    running.cluster.end(pod, 0, report.model_copy(update={"pins": None}))
    running.settle()
    assert running.phase("VolumeBackup", "again") == "available"
    assert report.pins is not None
    assert status(running, "again")["pins"] == report.pins.to_wire()


@pytest.mark.parametrize("is_pinned", [True, False])
def test_a_mover_builds_on_the_parent_that_its_status_tells_of(running: Simulation, is_pinned: bool) -> None:
    if not is_pinned:
        forget_pins(running)
    running.backup("child", "data", incremental=True)
    running.settle()
    assert running.phase("VolumeBackup", "child") == "available"
    assert status(running, "child")["isIncremental"] is True


def test_a_parent_that_was_replaced_is_not_built_upon(running: Simulation) -> None:
    running.claim("other", "secret")
    running.backup("theirs", "other")
    running.settle()
    replace_manifest(running, "full", "theirs")
    running.backup("child", "data", incremental=True)
    running.settle()
    assert running.phase("VolumeBackup", "child") == "error"
    assert running.reason("VolumeBackup", "child") == "ForeignManifest"


def test_a_parent_without_pins_that_was_replaced_is_not_built_upon(running: Simulation) -> None:
    running.claim("other", "secret")
    running.backup("theirs", "other")
    running.settle()
    forget_pins(running)
    replace_manifest(running, "full", "theirs")
    running.backup("child", "data", incremental=True)
    running.until("VolumeBackup", "child", "ForeignManifest")
    assert running.phase("VolumeBackup", "child") == "error"
    assert not any(item["metadata"]["name"].startswith("cinderblock-") for item in running.objects.all("Job"))


def test_a_restore_of_a_backup_without_pins_is_bound_to_what_the_operator_has_read(running: Simulation) -> None:
    """Between the operator's look and the mover's, somebody puts an older manifest of the same backup there."""
    forget_pins(running)
    key, right = manifest(running), running.cluster.store.get(manifest(running))
    running.restore("back", "full", name="new")
    running.until("VolumeRestore", "back", "MoverRunning")
    (pod,) = (pod for pod in running.objects.all("Pod") if "ownerReferences" in pod["metadata"])
    task = running.cluster.task_of(pod)
    assert task.expected is not None
    assert task.expected.pins is not None
    assert task.expected.pins.salt in running.cluster.held
    assert restored_after(running, key, right) == "ManifestReplaced"


def restored_after(running: Simulation, key: str, right: bytes) -> str:
    """Reason of a restore whose manifest is replaced, while its mover runs, by another one of the same backup."""
    ids = running.get("VolumeBackup", "full")["status"]
    forged = running.cluster.forge(ids["volumeId"], ids["id"], "older", running.cluster.keys)
    assert forged != right
    running.cluster.store.put(key, forged)
    running.settle()
    assert not running.exists("PersistentVolumeClaim", "new")
    return running.reason("VolumeRestore", "back")
