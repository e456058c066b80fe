"""Operations wait for unbound claims and for claims in deletion, visibly and with a deadline.

Cinder's message about a target is ``Volume to be restored to must be available`` (cinder/backup/api.py
``API.restore``). Cinder's callers create or delete the volume in an earlier request; here one commit may do both.
"""

from __future__ import annotations

from tests.support.simulation.simulation import Simulation, summary

WORDS = "Invalid volume: Volume to be restored to must be available."


def outcome(simulation: Simulation, name: str) -> tuple[str, str]:
    return simulation.phase("VolumeRestore", name), simulation.reason("VolumeRestore", name)


def hold_volumes(simulation: Simulation) -> None:
    """Stop the provisioning of volumes."""
    simulation.cluster.no_volume = "the array is full"


def test_restore_waits_for_its_target_to_be_bound(stored: Simulation) -> None:
    hold_volumes(stored)
    stored.unbound_claim("young", "fast")
    stored.restore("back", "full", volumeId="young")
    stored.until("VolumeRestore", "back", f"VolumeNotBound: {WORDS} It is not bound yet. (until 2026-")
    stored.cluster.no_volume = ""
    stored.settle()
    assert (outcome(stored, "back"), stored.content("young")) == (("available", "Restored"), "first")


def test_unbound_target_fails_the_restore_with_cinders_message(stored: Simulation) -> None:
    hold_volumes(stored)
    stored.unbound_claim("young", "fast")
    stored.restore("back", "full", volumeId="young")
    stored.settle()
    assert outcome(stored, "back") == ("error_restoring", "VolumeNotBound")
    assert stored.get("VolumeRestore", "back")["status"]["failReason"].startswith(WORDS)
    assert (summary(stored)["children"], stored.exists("PersistentVolumeClaim", "young")) == ([], True)


def test_mover_is_the_first_consumer_of_a_target(stored: Simulation) -> None:
    stored.unbound_claim("young")
    stored.restore("back", "full", volumeId="young")
    stored.settle()
    assert (outcome(stored, "back"), stored.content("young")) == (("available", "Restored"), "first")


def test_target_with_a_consumer_is_in_use(stored: Simulation) -> None:
    stored.unbound_claim("young")
    stored.pod("web", "young")
    stored.restore("back", "full", volumeId="young")
    stored.settle()
    assert outcome(stored, "back") == ("error_restoring", "VolumeNotAvailable")
    assert stored.get("VolumeRestore", "back")["status"]["failReason"] == f"{WORDS} Used by pod web."


def test_unbound_target_that_is_too_small_fails_at_once(stored: Simulation) -> None:
    stored.unbound_claim("young", size="512Mi")
    stored.restore("back", "full", volumeId="young")
    stored.settle()
    assert outcome(stored, "back") == ("error_restoring", "VolumeTooSmall")
    assert stored.get("PersistentVolumeClaim", "young")["spec"].get("volumeName") is None


def test_target_with_lost_volume_fails_at_once(stored: Simulation) -> None:
    claim = stored.claim("old", "theirs")
    stored.objects.update(claim, status={"phase": "Lost"})
    stored.restore("back", "full", volumeId="old")
    stored.settle()
    assert outcome(stored, "back") == ("error_restoring", "VolumeLost")


def test_target_in_deletion_fails_at_once(stored: Simulation) -> None:
    stored.claim("old", "theirs")
    pod = stored.pod("web", "old")
    stored.delete("PersistentVolumeClaim", "old")
    stored.restore("back", "full", volumeId="old")
    stored.until("VolumeRestore", "back", "VolumeNotAvailable")
    stored.objects.delete(pod)
    stored.settle()
    assert outcome(stored, "back") == ("error_restoring", "VolumeNotAvailable")


def test_volume_can_be_replaced_under_its_name(stored: Simulation) -> None:
    pod = stored.pod("web", "data")
    stored.delete("PersistentVolumeClaim", "data")
    stored.restore("back", "full", name="data")
    stored.until("VolumeRestore", "back", "NameTaken: PersistentVolumeClaim data exists and is being deleted (until ")
    assert stored.phase("VolumeRestore", "back") == "restoring"
    stored.objects.delete(pod)
    stored.settle()
    assert (outcome(stored, "back"), stored.content("data")) == (("available", "Restored"), "first")


def test_occupied_name_fails_the_restore_after_the_deadline(stored: Simulation) -> None:
    stored.pod("web", "data")
    stored.delete("PersistentVolumeClaim", "data")
    stored.restore("back", "full", name="data")
    stored.settle()
    assert outcome(stored, "back") == ("error_restoring", "NameTaken")
    assert stored.content("data") == "second"


def test_older_restore_gets_the_freed_name(stored: Simulation) -> None:
    pod = stored.pod("web", "data")
    stored.delete("PersistentVolumeClaim", "data")
    for name in ("older", "younger"):
        stored.restore(name, "full", name="data")
        stored.until("VolumeRestore", name, "NameTaken")
        stored.advance(1)
    stored.objects.delete(pod)
    stored.settle()
    assert (outcome(stored, "older"), outcome(stored, "younger")) == (
        ("available", "Restored"),
        ("error_restoring", "NameTaken"),
    )


def test_waiting_for_a_name_does_not_block_others(stored: Simulation) -> None:
    stored.pod("web", "data")
    stored.delete("PersistentVolumeClaim", "data")
    stored.restore("back", "full", name="data")
    stored.until("VolumeRestore", "back", "NameTaken")
    stored.restore("beside", "full", name="beside")
    stored.until("VolumeRestore", "beside", "Restored")
    assert stored.content("beside") == "first"


def test_missing_claim_fails_at_once_with_cinders_message(stored: Simulation) -> None:
    stored.restore("back", "full", volumeId="nowhere")
    stored.backup("next", "nowhere")
    stored.until("VolumeRestore", "back", "VolumeNotFound: Volume nowhere could not be found.")
    stored.until("VolumeBackup", "next", "VolumeNotFound: Volume nowhere could not be found.")
    assert (outcome(stored, "back")[0], stored.phase("VolumeBackup", "next")) == ("error_restoring", "error")
