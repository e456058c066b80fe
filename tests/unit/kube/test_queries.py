"""Choices among objects that were read: pods that use a claim, objects by UID or name."""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.kube.queries import newest, stateful_sets_of, uses_claim


def test_the_newest_of_nothing_is_none() -> None:
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
def test_whether_a_pod_uses_a_claim(found: dict[str, Any], claim: str, uses: bool) -> None:
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
def test_a_claim_is_of_the_stateful_set_whose_pods_mount_claims_of_the_same_template(
    claim: str, found: list[str]
) -> None:
    pods = [
        stateful_pod("web-0", "web", "data-web-0", "shared"),
        stateful_pod("job-0", "job", "data-job-0", kind="ReplicaSet"),
        {"metadata": {"name": "alone"}},
    ]
    assert stateful_sets_of(claim, pods) == found
