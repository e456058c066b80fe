"""Children that the cluster refuses, or cannot create for now: the status says so, and the operation has a deadline."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cinderblock.errors import AccessDenied, CinderblockError, KubeUnavailable
from cinderblock.kube.responses import RequestInfo
from tests.support.simulation.simulation import Simulation

FAILING = 500, 'Internal error occurred: failed calling webhook "v.example.org": context deadline exceeded'
DENIED = 400, 'admission webhook "v.example.org" denied the request: the label team is missing'
DEADLINE = timedelta(minutes=15)


def test_failing_webhook_is_reported_and_the_backup_continues_after_it(simulation: Simulation) -> None:
    simulation.rejections["VolumeSnapshot"] = FAILING
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", 'failed calling webhook "v.example.org"')
    assert simulation.reason("VolumeBackup", "full") == "KubeUnavailable"
    assert "Repair the webhook" in simulation.get("VolumeBackup", "full")["status"]["conditions"][0]["message"]
    simulation.rejections.clear()
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


@pytest.mark.parametrize("kind", ["VolumeSnapshot", "PersistentVolumeClaim", "Job"])
@pytest.mark.parametrize("refusal", [FAILING, DENIED, (429, "too many requests")])
def test_backup_whose_child_cannot_be_created_has_a_deadline(
    simulation: Simulation, kind: str, refusal: tuple[int, str]
) -> None:
    simulation.rejections[kind] = refusal
    began = simulation.now
    simulation.backup("full", "data")
    simulation.until("VolumeBackup", "full", "(waited 900 s)")
    assert simulation.phase("VolumeBackup", "full") == "error"
    assert DEADLINE < simulation.now - began < DEADLINE + timedelta(minutes=2)


@pytest.mark.parametrize("error", [KubeUnavailable("the webhook is away"), AccessDenied("a policy denies that")])
def test_mover_that_cannot_be_started_is_reported_and_has_a_deadline(
    stored: Simulation, error: CinderblockError
) -> None:
    before = stored.faults.before

    async def refuse(call: RequestInfo) -> None:
        await before(call)
        if (call.verb, call.kind.kind) == ("patch", "Job"):
            raise error

    stored.faults.before = refuse  # type: ignore[method-assign]
    stored.restore("back", "full", volumeId="data")
    stored.until("VolumeRestore", "back", error.message)
    stored.until("VolumeRestore", "back", "(waited 900 s)")
    assert (stored.phase("VolumeRestore", "back"), stored.content("data")) == ("error_restoring", "second")


def test_short_failure_is_not_reported(simulation: Simulation) -> None:
    simulation.rejections["VolumeSnapshot"] = FAILING
    simulation.backup("full", "data")
    began = simulation.now
    while simulation.now - began < timedelta(seconds=5):
        simulation.step()
    simulation.rejections.clear()
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert "KubeUnavailable" not in simulation.reasons


@pytest.mark.parametrize("refusal", [FAILING, DENIED])
def test_complete_copy_of_a_restore_survives_a_refused_claim(stored: Simulation, refusal: tuple[int, str]) -> None:
    """The claim with the requested name comes last, when every byte has been copied."""
    stored.restore("back", "full", name="new")
    stored.until("VolumeRestore", "back", "Rebinding")
    stored.rejections["PersistentVolumeClaim"] = refusal
    stored.until("VolumeRestore", "back", refusal[1])
    assert stored.phase("VolumeRestore", "back") == "restoring"
    stored.rejections.clear()
    stored.settle()
    assert (stored.phase("VolumeRestore", "back"), stored.content("new")) == ("available", "first")
