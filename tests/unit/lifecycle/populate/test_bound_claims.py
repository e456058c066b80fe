"""A bound claim is reported as populated only by the restore that filled its volume."""

from __future__ import annotations

import pytest

from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.labels import POPULATED_ANNOTATION
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.lifecycle.populate.decide import decide
from cinderblock.lifecycle.populate.observed import ObservedClaim
from cinderblock.reasons import Reason

CLAIM = PersistentVolumeClaim.model_validate(
    {
        "metadata": {"name": "data", "namespace": "shop", "uid": "u-1"},
        "spec": {
            "volumeName": "pv-1",
            "dataSourceRef": {"apiGroup": "cinderblock.io", "kind": "RestoreSource", "name": "bootstrap"},
        },
        "status": {"phase": "Bound"},
    }
)


def a_volume(**claim_ref: str) -> PersistentVolume:
    """Return the volume of the claim with its mark, and changes of its claimRef."""
    reference = {"namespace": "shop", "name": "data", "uid": "u-1"} | claim_ref
    metadata = {"name": "pv-1", "annotations": {POPULATED_ANNOTATION: "u-1"}}
    return PersistentVolume.model_validate({"metadata": metadata, "spec": {"claimRef": reference}})


def a_restore(phase: str) -> VolumeRestore:
    """Return the VolumeRestore of the claim in a phase."""
    spec = {"backupId": "b-2", "claim": {"name": "data", "uid": "u-1"}}
    status = {"id": "r-1", "phase": phase}
    return VolumeRestore.model_validate({"metadata": {"name": "r", "uid": "r-1"}, "spec": spec, "status": status})


@pytest.mark.parametrize(
    ("phase", "reason"), [("restoring", None), ("error_restoring", None), ("available", Reason.POPULATED)]
)
def test_only_a_completed_restore_has_populated_a_claim(phase: str, reason: Reason | None) -> None:
    decision = decide(ObservedClaim(CLAIM, volume=a_volume(), restore=a_restore(phase)))
    assert (decision.report.reason if decision.report is not None else None) is reason
    assert (decision.requeue_after is not None) is (phase == "restoring")


@pytest.mark.parametrize("volume", [None, a_volume(uid="u-2"), a_volume(namespace="payroll")])
def test_mark_counts_only_with_the_reference_to_the_claim(volume: PersistentVolume | None) -> None:
    decision = decide(ObservedClaim(CLAIM, volume=volume))
    assert decision.report is not None
    assert decision.report.reason is Reason.BOUND_ELSEWHERE
