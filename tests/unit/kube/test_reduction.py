"""The operator keeps little of the objects in lists, whatever their creators put into them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.kubernetes import Pod
from cinderblock.kube import kinds, queries
from cinderblock.kube.kinds import Kind
from cinderblock.kube.reduction import reduce_object

KEPT_BYTES = 2048
JUNK = {f"{prefix}key-{number}": "x" * 5000 for number in range(50) for prefix in ("", "cinderblock.io/")}
METADATA: dict[str, Any] = {
    "name": "n" * 253,
    "namespace": "shop",
    "uid": "00000000-0000-0000-0000-000000000001",
    "resourceVersion": "12345",
    "labels": JUNK | {labels.OWNER_UID_LABEL: "u-1", labels.MANAGED_BY_LABEL: labels.MANAGED_BY},
    "annotations": JUNK | {labels.OWNER_NAME_ANNOTATION: "x" * 100_000},
    "finalizers": [f"example.com/{number}" for number in range(1000)] + [labels.JOB_FINALIZER] * 1000,
    "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "x" * 50_000, "uid": "1"},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "y" * 50_000},
        {"apiVersion": "batch/v1", "kind": "Job", "name": "mover", "uid": "u-2", "controller": True},
    ],
    "managedFields": [JUNK],
}
TEMPLATE = {"spec": {"containers": [{"env": [{"name": "A", "value": "x" * 100_000}]}]}, "metadata": METADATA}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (kinds.VOLUME_BACKUP, {"spec": {"volumeId": "data", "description": "x" * 255, "metadata": JUNK}}),
        (kinds.VOLUME_RESTORE, {"spec": {"backupId": "full", "labels": JUNK, "annotations": JUNK}}),
        (kinds.BACKUP_STORE, {"spec": {"credentialsSecretRef": {"name": "s3"}, "mover": {"affinity": JUNK}}}),
        (kinds.JOB, {"spec": {"suspend": True, "template": TEMPLATE}}),
        (kinds.POD, {"spec": TEMPLATE["spec"] | {"volumes": [{"name": "v", "configMap": JUNK}]}}),
        (kinds.POD, {"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x" * 100_000}}]}}),
        (kinds.PVC, {"spec": {"volumeName": "pv", "selector": {"matchLabels": JUNK}}}),
        (kinds.PVC, {"spec": {"volumeName": "x" * 100_000, "storageClassName": "fast"}}),
        (kinds.EVENT, {"note": "x" * 1024, "action": "y" * 10_000, "regarding": JUNK}),
    ],
    ids=lambda value: value.kind if isinstance(value, Kind) else "",
)
def test_large_object_is_kept_in_two_kibibytes(kind: Kind, fields: dict[str, Any]) -> None:
    kept = reduce_object(kind, {"kind": kind.kind, "metadata": METADATA} | fields)
    assert len(json.dumps(kept)) <= KEPT_BYTES
    assert kept["metadata"]["labels"] == {labels.OWNER_UID_LABEL: "u-1", labels.MANAGED_BY_LABEL: labels.MANAGED_BY}
    assert kept["metadata"]["finalizers"] == [labels.JOB_FINALIZER]
    if kind != kinds.EVENT:
        assert [owner["name"] for owner in kept["metadata"]["ownerReferences"]] == ["mover"]


def test_pod_still_shows_which_claims_it_uses() -> None:
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        {"name": "b", "ephemeral": {"volumeClaimTemplate": JUNK}},
    ]
    body = {"metadata": {"name": "web"}, "spec": {"nodeName": "n", "volumes": volumes}, "status": {"phase": "Running"}}
    kept = reduce_object(kinds.POD, body)
    assert all(queries.uses_claim(kept, claim) == queries.uses_claim(body, claim) for claim in ("data", "web-b", "x"))
    assert Pod.model_validate(kept) == Pod.model_validate(body)


@pytest.mark.parametrize(("count", "uses_any"), [(128, False), (129, True), (15_000, True)])
def test_pod_with_very_many_claims_counts_as_a_user_of_every_claim(count: int, uses_any: bool) -> None:
    volumes = [{"name": f"v{number}", "persistentVolumeClaim": {"claimName": f"c{number}"}} for number in range(count)]
    kept = reduce_object(kinds.POD, {"metadata": {"name": "web"}, "spec": {"volumes": volumes}})
    assert len(json.dumps(kept)) <= 16 << 10
    assert queries.uses_claim(kept, "c0")
    assert queries.uses_claim(kept, "another") is uses_any
