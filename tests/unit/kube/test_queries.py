"""Choices among objects that were read: default classes, pods that use a claim, objects by UID or name."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.kube.queries import choose_snapshot_class, newest, stateful_sets_of, uses_claim

DEFAULT = "snapshot.storage.kubernetes.io/is-default-class"


def snapshot_class(
    name: str, driver: str = "csi.example.com", *, default: bool = False, age: int = 0
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "creationTimestamp": f"2026-01-{28 - age:02}T00:00:00Z"}
    if default:
        metadata["annotations"] = {DEFAULT: "true"}
    return {"metadata": metadata, "driver": driver}


def name_of(found: dict[str, Any] | None) -> str | None:
    return found["metadata"]["name"] if found else None


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        ([], None),
        ([snapshot_class("a", "other.example.com", default=True)], None),
        ([snapshot_class("only")], "only"),
        ([snapshot_class("a"), snapshot_class("b")], None),
        ([snapshot_class("a"), snapshot_class("b", default=True)], "b"),
        ([snapshot_class("only"), snapshot_class("x", "other.example.com", default=True)], "only"),
        ([snapshot_class("old", default=True, age=3), snapshot_class("new", default=True)], "new"),
        ([snapshot_class("b", default=True), snapshot_class("a", default=True)], "a"),
    ],
    ids=[
        "none",
        "another driver's",
        "the only one",
        "two without a default",
        "the default",
        "the only one of the driver",
        "the newest default",
        "of one age the first by name",
    ],
)
def test_snapshot_class_of_a_driver_is_chosen(classes: list[dict[str, Any]], chosen: str | None) -> None:
    assert name_of(choose_snapshot_class(classes, "csi.example.com")) == chosen


def test_annotation_counts_only_with_the_value_true() -> None:
    marked = snapshot_class("marked", default=True)
    marked["metadata"]["annotations"][DEFAULT] = "false"
    assert choose_snapshot_class([marked, snapshot_class("other")], "csi.example.com") is None


def test_newest_of_nothing_is_none() -> None:
    assert newest([]) is None


def pod(*volumes: dict[str, Any], phase: str = "Running", name: str = "web-0") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"volumes": list(volumes)}, "status": {"phase": phase}}


CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}
EPHEMERAL = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}
OTHER = {"name": "config", "configMap": {"name": "web"}}


@pytest.mark.parametrize(
    ("found", "claim", "uses"),
    [
        (pod(OTHER, CLAIM), "data-web-0", True),
        (pod(OTHER, CLAIM), "data-web-1", False),
        (pod(CLAIM, phase="Pending"), "data-web-0", True),
        (pod(CLAIM, phase="Unknown"), "data-web-0", True),
        (pod(CLAIM, phase="Succeeded"), "data-web-0", False),
        (pod(CLAIM, phase="Failed"), "data-web-0", False),
        (pod(EPHEMERAL), "web-0-scratch", True),
        (pod(EPHEMERAL), "scratch", False),
        (pod(OTHER), "", False),
        ({"metadata": {"name": "bare"}, "spec": {}}, "data-web-0", False),
    ],
)
def test_pod_uses_the_claims_it_names(found: dict[str, Any], claim: str, uses: bool) -> None:
    assert uses_claim(found, claim) is uses


def stateful_pod(name: str, owner: str, *claims: str, kind: str = "StatefulSet") -> dict[str, Any]:
    """A pod of a controller that mounts claims."""
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
    owners = [{"kind": kind, "name": owner, "controller": True}]
    return {"metadata": {"name": name, "ownerReferences": owners}, "spec": {"volumes": volumes}}


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        ("data-web-0", ["web"]),
        ("data-web-7", ["web"]),
        ("logs-web-7", []),
        ("data-job-0", []),
        ("shared", []),
    ],
)
def test_claim_belongs_to_the_stateful_set_of_its_template(claim: str, found: list[str]) -> None:
    pods = [
        stateful_pod("web-0", "web", "data-web-0", "shared"),
        stateful_pod("job-0", "job", "data-job-0", kind="ReplicaSet"),
        {"metadata": {"name": "alone"}},
    ]
    assert stateful_sets_of(claim, pods) == found
