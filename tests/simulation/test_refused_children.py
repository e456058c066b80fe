"""Children that the cluster refuses, or cannot create for now: the status says so, and the operation has a deadline."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cinderblock.errors import AccessDenied, CinderblockError, KubeUnavailable
from cinderblock.kube import kinds
from cinderblock.kube.responses import RequestInfo, Response
from cinderblock.kube.transport import Request
from tests.support.simulation.cluster import LATE
from tests.support.simulation.simulation import POLICY, Simulation

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


def test_only_failures_in_a_row_are_reported(simulation: Simulation) -> None:
    simulation.backup("full", "data")
    snapshot = "create", kinds.VOLUME_SNAPSHOT.resource
    for refusal in (FAILING, FAILING, FAILING, DENIED, FAILING):
        simulation.rejections["VolumeSnapshot"] = refusal
        attempts = simulation.faults.requests.copy()
        while simulation.faults.requests[snapshot] == attempts[snapshot]:
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


def demand_label(simulation: Simulation, *, supports_trials: bool = True) -> None:
    """Let a webhook refuse every claim without the label team."""
    answer = simulation.api.round_trip

    async def judge(request: Request) -> Response:
        if request.method == "POST" and request.path.endswith("/persistentvolumeclaims"):
            body: Any = request.body
            if "dryRun" in request.query and not supports_trials:
                return refusal(400, 'admission webhook "v.example.org" does not support dry run')
            if "team" not in body["metadata"].get("labels", {}):
                return refusal(*DENIED)
        return await answer(request)

    simulation.api.round_trip = judge  # type: ignore[method-assign]


def refusal(code: int, message: str) -> Response:
    return Response(code, json.dumps({"kind": "Status", "code": code, "message": message}).encode())


def set_labels_of_store(simulation: Simulation) -> None:
    store = simulation.get("BackupStore", "default")
    simulation.objects.update(store, spec=store["spec"] | {"mover": {"labels": {"team": "shop"}}})


def test_claim_that_a_policy_refuses_is_refused_before_the_copy(stored: Simulation) -> None:
    """The labels of the store are for temporary objects, and not for the claim that the restore leaves."""
    set_labels_of_store(stored)
    demand_label(stored)
    before = len(stored.faults.log)
    stored.restore("back", "full", name="new")
    stored.until("VolumeRestore", "back", "set spec.labels or spec.annotations of the VolumeRestore")
    stored.until("VolumeRestore", "back", "(waited 900 s)")
    assert stored.phase("VolumeRestore", "back") == "error_restoring"
    assert not [call for call in stored.faults.log[before:] if call.kind in (kinds.JOB, kinds.PV)]


def restores_that_are_held_up(simulation: Simulation) -> None:
    """Begin as many restores as there are slots. Their volumes are bound late, so claim and Job come together."""
    for number in range(POLICY.mover.limit):
        simulation.restore(f"back-{number}", "full", name=f"new-{number}", storageClassName=LATE)


def test_refused_restores_hold_no_mover_slots(stored: Simulation) -> None:
    set_labels_of_store(stored)
    demand_label(stored)
    restores_that_are_held_up(stored)
    for number in range(POLICY.mover.limit):
        stored.until("VolumeRestore", f"back-{number}", "the label team is missing")
    stored.backup("next", "data")
    began = stored.now
    stored.until("VolumeBackup", "next", "Available")
    assert stored.now - began < timedelta(minutes=1)
    assert "Queued" not in stored.reasons


def test_jobs_that_a_failing_webhook_holds_up_hold_no_mover_slots(stored: Simulation) -> None:
    """The API server has answered that it stored no Job."""
    stored.rejections["Job"] = FAILING
    restores_that_are_held_up(stored)
    for number in range(POLICY.mover.limit):
        stored.until("VolumeRestore", f"back-{number}", "failed calling webhook")
    assert stored.counted_movers() == []
    stored.rejections["Job"] = (503, "the answer was lost")
    stored.until("VolumeRestore", "back-0", "the answer was lost")
    assert [mover.namespace for mover in stored.counted_movers()] != [], "the Job may exist"


def test_restored_claim_has_the_labels_of_the_chart() -> None:
    settings = replace(POLICY.mover, labels=(("team", "platform"),), annotations=(("note", "x"),))
    with Simulation(policy=replace(POLICY, mover=settings)) as simulation:
        simulation.claim("data", "first")
        demand_label(simulation)
        simulation.backup("full", "data")
        simulation.settle()
        simulation.restore("back", "full", name="new")
        simulation.restore("named", "full", name="other", labels={"team": "shop"})
        simulation.settle()
        claims = [simulation.get("PersistentVolumeClaim", name)["metadata"] for name in ("new", "other")]
        assert [claim["labels"]["team"] for claim in claims] == ["platform", "shop"]
        assert [claim["annotations"]["note"] for claim in claims] == ["x", "x"]


def test_webhook_that_supports_no_trial_judges_at_the_end(stored: Simulation) -> None:
    set_labels_of_store(stored)
    demand_label(stored, supports_trials=False)
    stored.restore("back", "full", name="new", labels={"team": "shop"})
    stored.settle()
    assert (stored.phase("VolumeRestore", "back"), stored.content("new")) == ("available", "first")
