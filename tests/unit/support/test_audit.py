"""The judgement of rights sees a grant that nobody uses, a call that nobody granted, and a right from elsewhere."""

from __future__ import annotations

import json
from typing import Any

from tests.support.cluster.audit import Right, foreign, granted, rights_used_by, unused

ACCOUNT = "system-namespace:operator"
ROLES = [
    {
        "kind": "ClusterRole",
        "metadata": {"name": "operator"},
        "rules": [
            {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get"]},
            {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]},
        ],
    },
    {
        "kind": "Role",
        "metadata": {"name": "operator", "namespace": "system-namespace"},
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]}],
    },
]


def line(verb: str, resource: str, group: str = "", *, role: str = "operator", **more: Any) -> str:
    reference = {"resource": resource, "namespace": more.get("namespace", "shop"), "apiGroup": group}
    if "subresource" in more:
        reference["subresource"] = more["subresource"]
    notes = {
        "authorization.k8s.io/decision": more.get("decision", "allow"),
        "authorization.k8s.io/reason": f'RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "{role}" to {ACCOUNT}',
    }
    user = more.get("user", ACCOUNT)
    event = {"verb": verb, "user": {"username": f"system:serviceaccount:{user}"}, "objectRef": reference}
    return json.dumps(event | {"annotations": notes})


EVERYTHING = [
    line("get", "pods"),
    line("get", "pods", subresource="log"),
    line("create", "jobs", "batch"),
    line("get", "leases", "coordination.k8s.io", namespace="system-namespace"),
]


def test_granted_and_used_rights_match() -> None:
    used = rights_used_by(EVERYTHING, ACCOUNT)
    assert not unused(granted(ROLES), used)
    assert not foreign(used, "operator")
    assert not used.refused


def test_unused_right_is_found() -> None:
    used = rights_used_by(EVERYTHING[1:], ACCOUNT)
    assert unused(granted(ROLES), used) == {Right("", "pods", "get")}


def test_call_uses_only_rights_of_its_namespace() -> None:
    used = rights_used_by([*EVERYTHING[:3], line("get", "leases", "coordination.k8s.io")], ACCOUNT)
    assert [str(right) for right in unused(granted(ROLES), used)] == [
        "get leases.coordination.k8s.io in system-namespace"
    ]


def test_refused_request_is_found() -> None:
    used = rights_used_by([*EVERYTHING, line("list", "secrets", decision="forbid")], ACCOUNT)
    assert used.refused == {Right("", "secrets", "list", "shop")}


def test_right_from_another_role_is_found() -> None:
    used = rights_used_by([*EVERYTHING, line("list", "nodes", role="somebody-elses")], ACCOUNT)
    assert list(foreign(used, "operator")) == [Right("", "nodes", "list", "shop")]


def test_others_are_not_counted() -> None:
    used = rights_used_by([line("get", "pods", user="system-namespace:other")], ACCOUNT)
    assert not used.allowed
