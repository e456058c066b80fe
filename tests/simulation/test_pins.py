"""The operator records the pins of every backup, later also of backups of an earlier release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.controller.reconcile.resync import PIN_SLOT_SECONDS, PIN_SLOTS
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import KeyUnavailable, StoreUnreachable
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.lifecycle.backup.pins import retry_seconds
from cinderblock.lifecycle.observed import ObservedBackup
from tests.support.mover.backups import key_ring
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation


@pytest.fixture(params=[False, True], ids=["unsealed", "sealed"])
def simulation(request: pytest.FixtureRequest) -> Iterator[Simulation]:
    """Return a simulation with a backup of claim ``data``, in a store with or without keys."""
    with Simulation() as simulation:
        if request.param:
            simulation.encrypt(key_ring())
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        simulation.settle()
        yield simulation


def status(simulation: Simulation, name: str = "full") -> dict[str, Any]:
    return dict(simulation.get("VolumeBackup", name)["status"])


def condition(simulation: Simulation, kind: str, name: str = "full") -> dict[str, Any] | None:
    return next((c for c in status(simulation, name)["conditions"] if c["type"] == kind), None)


def forget_pins(simulation: Simulation, name: str = "full") -> dict[str, Any]:
    """Remove the pins from a status, as an earlier release wrote it. Return the pins."""
    backup = simulation.get("VolumeBackup", name)
    pins: dict[str, Any] = backup["status"].pop("pins")
    simulation.objects.update(backup, status=backup["status"])
    return pins


def upgrade(simulation: Simulation) -> None:
    """Restart the operator and let it settle."""
    simulation.restart()
    simulation.settle()


def manifest(simulation: Simulation, name: str = "full") -> str:
    return str(status(simulation, name)["manifestKey"])


def replace_manifest(simulation: Simulation, name: str, other: str) -> None:
    """Replace the manifest of a backup with that of another one."""
    store = simulation.cluster.store
    store.put(manifest(simulation, name), store.get(manifest(simulation, other)))


def restored(simulation: Simulation, backup: str = "full") -> tuple[str, str]:
    """Return phase and reason of a restore into a new volume."""
    simulation.restore("back", backup, name="new")
    simulation.settle()
    return simulation.phase("VolumeRestore", "back"), simulation.reason("VolumeRestore", "back")


def test_new_backup_has_pins(simulation: Simulation) -> None:
    pins = status(simulation)["pins"]
    assert pins["suite"] == (1 if simulation.cluster.keys else 0)
    assert pins["salt"] in simulation.cluster.held
    assert condition(simulation, "Pinned") is None


def test_upgrade_pins_a_backup_of_an_earlier_release(simulation: Simulation) -> None:
    pins, before = forget_pins(simulation), status(simulation)
    upgrade(simulation)
    assert status(simulation)["pins"] == pins
    unchanged = {name: value for name, value in status(simulation).items() if name not in ("pins", "updatedAt")}
    assert unchanged == {name: value for name, value in before.items() if name != "updatedAt"}
    assert ObjectKey("VolumeBackup", NAMESPACE, "full") not in simulation.pending()


def test_silent_store_delays_the_pinning(simulation: Simulation) -> None:
    pins = forget_pins(simulation)
    simulation.store.error = StoreUnreachable("no answer")
    simulation.restart()
    for _ in range(40):
        simulation.step()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert simulation.reason("VolumeBackup", "full") == "Available"
    pinned = condition(simulation, "Pinned")
    assert pinned is not None
    assert (pinned["status"], pinned["reason"]) == ("False", "StoreUnreachable")
    for _ in range(PIN_SLOTS):
        if ObjectKey("VolumeBackup", NAMESPACE, "full") in simulation.pending():
            break
        simulation.advance(PIN_SLOT_SECONDS)
    assert ObjectKey("VolumeBackup", NAMESPACE, "full") in simulation.pending()
    simulation.store.error = None
    simulation.settle()
    assert status(simulation)["pins"] == pins
    assert condition(simulation, "Pinned") is None


@pytest.mark.parametrize(("minutes", "seconds"), [(0.5, 60), (3, 180), (30, 1800)])
def test_pinning_is_tried_more_rarely_the_longer_it_fails(simulation: Simulation, minutes: float, seconds: int) -> None:
    forget_pins(simulation)
    simulation.store.error = StoreUnreachable("no answer")
    simulation.restart()
    for _ in range(40):
        simulation.step()
    failing = condition(simulation, "Pinned")
    assert failing is not None
    since = datetime.fromisoformat(failing["lastTransitionTime"])
    backup = VolumeBackup.model_validate(simulation.get("VolumeBackup", "full"))
    observed = ObservedBackup(backup, simulation.policy, manifest_error=StoreUnreachable("no answer"))
    assert retry_seconds(observed, since + timedelta(minutes=minutes)) == seconds
    refused = replace(observed, manifest_error=KeyUnavailable("no key"))
    assert retry_seconds(refused, since) is None


def test_missing_key_delays_the_pinning(simulation: Simulation) -> None:
    forget_pins(simulation)
    simulation.store.error = KeyUnavailable("the Secret does not hold it")
    simulation.restart()
    for _ in range(40):
        simulation.step()
    assert simulation.reason("VolumeBackup", "full") == "Available"
    pinned = condition(simulation, "Pinned")
    assert pinned is not None
    assert pinned["reason"] == "KeyUnavailable"


def test_foreign_manifest_is_neither_pinned_nor_restored(simulation: Simulation) -> None:
    simulation.claim("other", "secret")
    simulation.backup("theirs", "other")
    simulation.settle()
    forget_pins(simulation)
    right = simulation.cluster.store.get(manifest(simulation))
    replace_manifest(simulation, "full", "theirs")
    simulation.restart()
    simulation.resync()
    for _ in range(60):
        simulation.step()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert simulation.reason("VolumeBackup", "full") == "ForeignManifest"
    pinned = condition(simulation, "Pinned")
    assert pinned is not None
    assert pinned["reason"] == "ForeignManifest"
    assert "pins" not in status(simulation)
    assert ("ForeignManifest", 1) in simulation.events()
    simulation.restore("back", "full", name="new")
    simulation.until("VolumeRestore", "back", "ForeignManifest")
    assert not simulation.exists("PersistentVolumeClaim", "new")
    simulation.cluster.store.put(manifest(simulation), right)
    simulation.resync()
    simulation.settle()
    assert "pins" in status(simulation)
    assert (simulation.reason("VolumeBackup", "full"), condition(simulation, "Pinned")) == ("Available", None)


def test_missing_manifest_is_reported(simulation: Simulation) -> None:
    forget_pins(simulation)
    simulation.cluster.store.delete([manifest(simulation)])
    simulation.restart()
    for _ in range(40):
        simulation.step()
    assert simulation.reason("VolumeBackup", "full") == "ManifestMissing"


def test_recovered_status_has_condition_pin_regained(simulation: Simulation) -> None:
    pins = status(simulation)["pins"]
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    simulation.settle()
    assert status(simulation)["pins"] == pins
    regained = condition(simulation, "PinRegained")
    assert regained is not None
    assert (regained["status"], regained["reason"]) == ("True", "StatusLost")
    simulation.restore("back", "full", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"
    assert condition(simulation, "PinRegained") == regained


def test_lost_status_is_not_recovered_from_a_foreign_manifest(simulation: Simulation) -> None:
    simulation.claim("other", "secret")
    simulation.backup("theirs", "other")
    simulation.settle()
    key, right = manifest(simulation), simulation.cluster.store.get(manifest(simulation))
    replace_manifest(simulation, "full", "theirs")
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    for _ in range(60):
        simulation.step()
    assert (simulation.phase("VolumeBackup", "full"), simulation.reason("VolumeBackup", "full")) == (
        "error",
        "ForeignManifest",
    )
    assert "pins" not in status(simulation)
    simulation.cluster.store.put(key, right)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_copied_manifest_does_not_hide_the_true_one(simulation: Simulation) -> None:
    uid = simulation.get("VolumeBackup", "full")["metadata"]["uid"]
    pins = status(simulation)["pins"]
    simulation.cluster.store.put(
        f"backups/0-before-all/{uid}.manifest", simulation.cluster.store.get(manifest(simulation))
    )
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    simulation.settle()
    assert status(simulation)["pins"] == pins


def test_manifest_under_an_unknown_key_does_not_hide_the_true_one(simulation: Simulation) -> None:
    uid = simulation.get("VolumeBackup", "full")["metadata"]["uid"]
    pins, leaked = status(simulation)["pins"], KeyRing({"lost": bytes(32)}, "lost")
    forged = simulation.cluster.forge("0-before-all", uid, "evil", leaked)
    simulation.cluster.store.put(f"backups/0-before-all/{uid}.manifest", forged)
    simulation.delete("PersistentVolumeClaim", "data")
    simulation.settle()
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    simulation.settle()
    assert status(simulation)["pins"] == pins


def test_ambiguous_manifests_need_a_known_volume(simulation: Simulation) -> None:
    """Anybody who can write to the container, and has the key if there is one, can forge such a manifest."""
    uid = simulation.get("VolumeBackup", "full")["metadata"]["uid"]
    pins, key = status(simulation)["pins"], f"backups/0-before-all/{uid}.manifest"
    simulation.cluster.store.put(key, simulation.cluster.forge("0-before-all", uid, "evil", simulation.cluster.keys))
    simulation.delete("PersistentVolumeClaim", "data")
    simulation.settle()
    simulation.erase_status("VolumeBackup", "full")
    simulation.resync()
    for _ in range(40):
        simulation.step()
    assert simulation.reason("VolumeBackup", "full") == "ForeignManifest"
    assert "2 have its name" in status(simulation)["failReason"]
    simulation.cluster.store.delete([key])
    simulation.settle()
    assert status(simulation)["pins"] == pins


def test_import_of_an_ambiguous_id_needs_the_key(simulation: Simulation) -> None:
    uid, right = simulation.get("VolumeBackup", "full")["metadata"]["uid"], manifest(simulation)
    simulation.remove_by_force("full")
    key = f"backups/0-before-all/{uid}.manifest"
    simulation.cluster.store.put(key, simulation.cluster.forge("0-before-all", uid, "evil", simulation.cluster.keys))
    simulation.import_backup("by-id", uid)
    simulation.settle()
    assert simulation.reason("VolumeBackup", "by-id") == "ForeignManifest"
    assert "spec.import.manifest" in status(simulation, "by-id")["failReason"]
    simulation.delete("VolumeBackup", "by-id")
    simulation.settle()
    simulation.import_backup("by-key", uid, manifest=right)
    simulation.settle()
    simulation.restore("back", "by-key", name="new")
    simulation.settle()
    assert simulation.content("new") == "first"


def test_manifest_replaced_before_the_read_back_is_detected(simulation: Simulation) -> None:
    uid = simulation.backup("again", "data")["metadata"]["uid"]
    simulation.until("VolumeBackup", "again", "MoverRunning")
    (pod,) = (pod for pod in simulation.objects.all("Pod") if "ownerReferences" in pod["metadata"])
    report = simulation.cluster.work(pod)
    key = next(key for key in simulation.stored("backups/") if uid in key)
    written = simulation.cluster.store.get(key)
    simulation.cluster.store.delete([key])
    simulation.cluster.work(pod)
    assert simulation.cluster.store.get(key) != written
    simulation.cluster.end(pod, 0, report)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "again") == "error"
    assert simulation.reason("VolumeBackup", "again") == "ManifestReplaced"


def test_report_without_pins_uses_the_pins_of_the_manifest(simulation: Simulation) -> None:
    simulation.backup("again", "data")
    simulation.until("VolumeBackup", "again", "MoverRunning")
    (pod,) = (pod for pod in simulation.objects.all("Pod") if "ownerReferences" in pod["metadata"])
    report = simulation.cluster.work(pod)
    simulation.cluster.end(pod, 0, report.model_copy(update={"pins": None}))
    simulation.settle()
    assert simulation.phase("VolumeBackup", "again") == "available"
    assert report.pins is not None
    assert status(simulation, "again")["pins"] == report.pins.to_wire()


@pytest.mark.parametrize("is_pinned", [True, False])
def test_incremental_backup_uses_its_recorded_parent(simulation: Simulation, is_pinned: bool) -> None:
    if not is_pinned:
        forget_pins(simulation)
    simulation.backup("child", "data", incremental=True)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "child") == "available"
    assert status(simulation, "child")["isIncremental"] is True


def test_replaced_parent_fails_the_incremental_backup(simulation: Simulation) -> None:
    simulation.claim("other", "secret")
    simulation.backup("theirs", "other")
    simulation.settle()
    replace_manifest(simulation, "full", "theirs")
    simulation.backup("child", "data", incremental=True)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "child") == "error"
    assert simulation.reason("VolumeBackup", "child") == "ForeignManifest"


def test_replaced_parent_without_pins_starts_no_mover(simulation: Simulation) -> None:
    simulation.claim("other", "secret")
    simulation.backup("theirs", "other")
    simulation.settle()
    forget_pins(simulation)
    replace_manifest(simulation, "full", "theirs")
    simulation.backup("child", "data", incremental=True)
    simulation.until("VolumeBackup", "child", "ForeignManifest")
    assert simulation.phase("VolumeBackup", "child") == "error"
    assert not any(item["metadata"]["name"].startswith("cinderblock-") for item in simulation.objects.all("Job"))


def test_restore_without_pins_uses_the_pins_of_the_manifest(simulation: Simulation) -> None:
    """Somebody puts an older manifest of the backup there after the operator has read the right one."""
    forget_pins(simulation)
    key, right = manifest(simulation), simulation.cluster.store.get(manifest(simulation))
    simulation.restore("back", "full", name="new")
    simulation.until("VolumeRestore", "back", "MoverRunning")
    (pod,) = (pod for pod in simulation.objects.all("Pod") if "ownerReferences" in pod["metadata"])
    task = simulation.cluster.task_of(pod)
    assert task.expected is not None
    assert task.expected.pins is not None
    assert task.expected.pins.salt in simulation.cluster.held
    assert restored_after(simulation, key, right) == "ManifestReplaced"


def restored_after(simulation: Simulation, key: str, right: bytes) -> str:
    """Return the reason of a restore whose manifest is replaced by a forged one while its mover runs."""
    ids = simulation.get("VolumeBackup", "full")["status"]
    forged = simulation.cluster.forge(ids["volumeId"], ids["id"], "older", simulation.cluster.keys)
    assert forged != right
    simulation.cluster.store.put(key, forged)
    simulation.settle()
    assert not simulation.exists("PersistentVolumeClaim", "new")
    return simulation.reason("VolumeRestore", "back")
