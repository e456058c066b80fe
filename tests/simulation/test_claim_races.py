"""Claims that are not there yet and claims that are not gone yet: both are waited for, visibly and not for ever.

Cinder's words for a target are ``Volume to be restored to must be available`` (cinder/backup/api.py ``API.restore``). A
caller of Cinder has made or deleted the volume in a call before; here both may stand in one commit.
"""

from __future__ import annotations

from tests.support.simulation.simulation import Simulation, summary

WORDS = "Invalid volume: Volume to be restored to must be available."


def said(simulation: Simulation, name: str) -> tuple[str, str]:
    return simulation.phase("VolumeRestore", name), simulation.reason("VolumeRestore", name)


def hold_volumes(simulation: Simulation) -> None:
    """No volume is made for a claim from now on."""
    simulation.cluster.no_volume = "the array is full"


def test_a_target_that_is_applied_together_with_its_restore_is_waited_for(stored: Simulation) -> None:
    hold_volumes(stored)
    stored.unbound_claim("young", "fast")
    stored.restore("back", "full", volumeId="young")
    stored.until("VolumeRestore", "back", f"VolumeNotBound: {WORDS} It is not bound yet. (until 2026-")
    stored.cluster.no_volume = ""
    stored.settle()
    assert (said(stored, "back"), stored.content("young")) == (("available", "Restored"), "first")


def test_a_target_that_is_never_bound_ends_the_restore_in_cinders_words(stored: Simulation) -> None:
    hold_volumes(stored)
    stored.unbound_claim("young", "fast")
    stored.restore("back", "full", volumeId="young")
    stored.settle()
    assert said(stored, "back") == ("error_restoring", "VolumeNotBound")
    assert stored.get("VolumeRestore", "back")["status"]["failReason"].startswith(WORDS)
    assert (summary(stored)["children"], stored.exists("PersistentVolumeClaim", "young")) == ([], True)


def test_a_target_that_waits_for_its_first_consumer_gets_the_mover_as_one(stored: Simulation) -> None:
    stored.unbound_claim("young")
    stored.restore("back", "full", volumeId="young")
    stored.settle()
    assert (said(stored, "back"), stored.content("young")) == (("available", "Restored"), "first")


def test_a_target_whose_consumer_is_there_already_is_in_use(stored: Simulation) -> None:
    stored.unbound_claim("young")
    stored.pod("web", "young")
    stored.restore("back", "full", volumeId="young")
    stored.settle()
    assert said(stored, "back") == ("error_restoring", "VolumeNotAvailable")
    assert stored.get("VolumeRestore", "back")["status"]["failReason"] == f"{WORDS} Used by pod web."


def test_a_target_that_asks_for_too_little_is_refused_before_it_is_bound(stored: Simulation) -> None:
    stored.unbound_claim("young", size="512Mi")
    stored.restore("back", "full", volumeId="young")
    stored.settle()
    assert said(stored, "back") == ("error_restoring", "VolumeTooSmall")
    assert stored.get("PersistentVolumeClaim", "young")["spec"].get("volumeName") is None


def test_a_target_whose_volume_is_gone_is_refused_at_once(stored: Simulation) -> None:
    claim = stored.claim("old", "theirs")
    stored.objects.update(claim, status={"phase": "Lost"})
    stored.restore("back", "full", volumeId="old")
    stored.settle()
    assert said(stored, "back") == ("error_restoring", "VolumeLost")


def test_a_target_that_is_being_deleted_is_refused_at_once(stored: Simulation) -> None:
    stored.claim("old", "theirs")
    pod = stored.pod("web", "old")
    stored.delete("PersistentVolumeClaim", "old")
    stored.restore("back", "full", volumeId="old")
    stored.until("VolumeRestore", "back", "VolumeNotAvailable")
    stored.objects.delete(pod)
    stored.settle()
    assert said(stored, "back") == ("error_restoring", "VolumeNotAvailable")


def test_a_volume_can_be_deleted_and_restored_under_its_name_in_one_go(stored: Simulation) -> None:
    pod = stored.pod("web", "data")
    stored.delete("PersistentVolumeClaim", "data")
    stored.restore("back", "full", name="data")
    stored.until("VolumeRestore", "back", "NameTaken: PersistentVolumeClaim data exists and is being deleted (until ")
    assert stored.phase("VolumeRestore", "back") == "restoring"
    stored.objects.delete(pod)
    stored.settle()
    assert (said(stored, "back"), stored.content("data")) == (("available", "Restored"), "first")


def test_a_name_that_does_not_become_free_ends_the_restore(stored: Simulation) -> None:
    stored.pod("web", "data")
    stored.delete("PersistentVolumeClaim", "data")
    stored.restore("back", "full", name="data")
    stored.settle()
    assert said(stored, "back") == ("error_restoring", "NameTaken")
    assert stored.content("data") == "second"


def test_of_two_that_wait_for_a_name_the_older_gets_it(stored: Simulation) -> None:
    pod = stored.pod("web", "data")
    stored.delete("PersistentVolumeClaim", "data")
    for name in ("older", "younger"):
        stored.restore(name, "full", name="data")
        stored.until("VolumeRestore", name, "NameTaken")
        stored.advance(1)
    stored.objects.delete(pod)
    stored.settle()
    assert (said(stored, "older"), said(stored, "younger")) == (
        ("available", "Restored"),
        ("error_restoring", "NameTaken"),
    )


def test_who_waits_for_a_name_holds_up_nobody(stored: Simulation) -> None:
    stored.pod("web", "data")
    stored.delete("PersistentVolumeClaim", "data")
    stored.restore("back", "full", name="data")
    stored.until("VolumeRestore", "back", "NameTaken")
    stored.restore("beside", "full", name="beside")
    stored.until("VolumeRestore", "beside", "Restored")
    assert stored.content("beside") == "first"


def test_a_claim_that_does_not_exist_is_cinders_error_at_once(stored: Simulation) -> None:
    stored.restore("back", "full", volumeId="nowhere")
    stored.backup("next", "nowhere")
    stored.until("VolumeRestore", "back", "VolumeNotFound: Volume nowhere could not be found.")
    stored.until("VolumeBackup", "next", "VolumeNotFound: Volume nowhere could not be found.")
    assert (said(stored, "back")[0], stored.phase("VolumeBackup", "next")) == ("error_restoring", "error")
