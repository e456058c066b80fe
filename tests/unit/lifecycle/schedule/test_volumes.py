"""Which claims a schedule selects, and their places in a run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.lifecycle.schedule.volumes import Selection, offset, record_of_claim
from tests.support.schedules.builders import NAMESPACE, START, claim

BOUND: dict[str, Any] = {"spec": {"volumeName": "pv-1", "storageClassName": "fast"}, "status": {"phase": "Bound"}}


def a_claim(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **metadata: Any) -> Any:
    return PersistentVolumeClaim.model_validate(
        {
            "metadata": {"name": "data", "namespace": NAMESPACE, "uid": "u", "creationTimestamp": START, **metadata},
            "spec": BOUND["spec"] if spec is None else spec,
            "status": BOUND["status"] if status is None else status,
        }
    )


def test_bound_claim_is_selected_from_its_creation_on() -> None:
    record = record_of_claim(a_claim())
    assert record.storage_class == "fast"
    assert Selection().selects(record, START)
    assert not Selection().selects(record, START - timedelta(seconds=1))


@pytest.mark.parametrize(
    "left_out",
    [
        a_claim(status={"phase": "Pending"}),
        a_claim(status={"phase": "Lost"}),
        a_claim(spec={}),
        a_claim(deletionTimestamp=START),
        a_claim(labels={"cinderblock.io/owner-uid": "some"}),
        a_claim(annotations={"cinderblock.io/backup": "false"}),
    ],
)
def test_claims_that_are_always_left_out(left_out: PersistentVolumeClaim) -> None:
    assert not Selection().selects(record_of_claim(left_out), START)


def test_label_that_anybody_may_set_leaves_no_claim_out() -> None:
    record = record_of_claim(a_claim(labels={"app.kubernetes.io/managed-by": "cinderblock"}))
    assert Selection().selects(record, START)


def test_volume_must_match_every_rule() -> None:
    selection = Selection(frozenset({"fast"}), timedelta(hours=25), opt_in=True)
    assert selection.selects(claim(storage_class="fast", wish="true"), START + timedelta(hours=1))
    assert not selection.selects(claim(storage_class="fast", wish="true"), START)
    assert not selection.selects(claim(storage_class="slow", wish="true"), START + timedelta(hours=1))
    assert not selection.selects(claim(storage_class="fast", wish="yes"), START + timedelta(hours=1))


def test_places_are_stable_spread_and_belong_to_the_schedule() -> None:
    spread = timedelta(minutes=10)
    places = [offset(f"claim-{number}", "schedule", spread) for number in range(2000)]
    assert places == [offset(f"claim-{number}", "schedule", spread) for number in range(2000)]
    assert places != [offset(f"claim-{number}", "other", spread) for number in range(2000)]
    assert all(timedelta() <= place < spread for place in places)
    by_minute = [sum(timedelta(minutes=m) <= place < timedelta(minutes=m + 1) for place in places) for m in range(10)]
    assert min(by_minute) > 140
    assert offset("claim", "schedule", timedelta()) == timedelta()
