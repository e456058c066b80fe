"""The status of a RestoreSource says whether claims can use it, and which backup each of them got."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.restore_source import MAX_CLAIMS, RestoreSource, RestoreSourceStatus
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.observed import StoreLookup
from cinderblock.lifecycle.populate.source import AGAIN_SECONDS, decide

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
STORE = BackupStore.model_validate({"metadata": {"name": "default"}, "spec": {"credentialsSecretRef": {"name": "s3"}}})
METADATA = {"name": "bootstrap", "namespace": "shop", "uid": "s-1", "generation": 1}


def a_source(**spec: Any) -> RestoreSource:
    return RestoreSource.model_validate({"metadata": METADATA, "spec": spec})


def a_restore(number: int, phase: str = "available", source: str = "bootstrap", **spec: Any) -> VolumeRestore:
    uid = f"u-{number}"
    created = NOW - timedelta(minutes=number)
    metadata = {
        "name": f"populate-{uid}",
        "uid": f"r-{number}",
        "creationTimestamp": created.isoformat(),
        "annotations": {"cinderblock.io/restore-source": source},
    }
    usual = {"backupId": "b-1", "claim": {"name": f"data-{number}", "uid": uid}}
    status = {"id": f"r-{number}", "phase": phase}
    return VolumeRestore.model_validate({"metadata": metadata, "spec": usual | spec, "status": status})


def status_of(source: RestoreSource, lookup: StoreLookup, *restores: VolumeRestore) -> RestoreSourceStatus:
    status = decide(source, lookup, restores, NOW).status
    assert isinstance(status, RestoreSourceStatus)
    return status


def test_claims_are_listed_with_the_newest_first() -> None:
    status = status_of(a_source(), StoreLookup(STORE), a_restore(2), a_restore(1, "restoring"))
    assert [(claim.name, claim.outcome, claim.backup_id) for claim in status.claims] == [
        ("data-1", "restoring", "b-1"),
        ("data-2", "available", "b-1"),
    ]
    assert len(status_of(a_source(), StoreLookup(STORE), *map(a_restore, range(99))).claims) == MAX_CLAIMS


def test_restores_of_other_sources_and_forged_ones_are_left_out() -> None:
    forged = a_restore(2, claim={"name": "data-2", "uid": "u-3"})
    assert status_of(a_source(), StoreLookup(STORE), a_restore(1, source="other"), forged).claims == []


@pytest.mark.parametrize(
    ("spec", "lookup", "shown"),
    [
        ({}, StoreLookup(STORE), ("True", "Accepted")),
        ({"suspend": True}, StoreLookup(STORE), ("True", "Suspended")),
        ({}, StoreLookup(missing="There is none."), ("False", "StoreNotFound")),
    ],
)
def test_condition_says_whether_claims_can_use_it(
    spec: dict[str, Any], lookup: StoreLookup, shown: tuple[str, str]
) -> None:
    ready = status_of(a_source(**spec), lookup).conditions[0]
    assert (ready.status, ready.reason) == shown


def test_status_is_computed_again_only_while_something_may_change() -> None:
    assert decide(a_source(), StoreLookup(STORE), [a_restore(1)], NOW).requeue_after is None
    assert decide(a_source(), StoreLookup(STORE), [a_restore(1, "restoring")], NOW).requeue_after == AGAIN_SECONDS
    assert decide(a_source(), StoreLookup(), [], NOW).requeue_after == AGAIN_SECONDS
