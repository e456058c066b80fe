"""The chart's ValidatingAdmissionPolicies after rendering. tests/integration judges what they refuse."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.support.cluster.chart import CHART, Objects, of_kind, render

pytestmark = pytest.mark.integration

ROLE_VERBS = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}


def _policies(*settings: str) -> Objects:
    return of_kind(render(*settings), "ValidatingAdmissionPolicy")


def _rules(policy: dict[str, Any], key: str = "resourceRules") -> set[tuple[str, str, str]]:
    return {
        (group, resource, operation)
        for rule in policy["spec"]["matchConstraints"].get(key, [])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }


def test_every_policy_has_a_binding_that_denies() -> None:
    objects = render()
    bindings = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    names = {policy["metadata"]["name"] for policy in of_kind(objects, "ValidatingAdmissionPolicy")}
    assert len(names) == 15
    assert {binding["spec"]["policyName"] for binding in bindings} == names
    assert all(binding["spec"]["validationActions"] == ["Deny"] for binding in bindings)


def test_policies_can_be_off_or_only_report() -> None:
    assert not _policies("admissionPolicies.enabled=false")
    objects = render("admissionPolicies.validationActions={Warn,Audit}")
    for binding in of_kind(objects, "ValidatingAdmissionPolicyBinding"):
        assert binding["spec"]["validationActions"] == ["Warn", "Audit"]


def test_every_operation_of_every_row_is_judged_by_a_rule() -> None:
    for policy in _policies():
        if "-marks-of-" in policy["metadata"]["name"] or policy["metadata"]["name"].endswith("-else"):
            continue
        for _, _, operation in _rules(policy):
            judging = [rule for rule in policy["spec"]["validations"] if f"'{operation}'" in rule["expression"]]
            assert judging, (policy["metadata"]["name"], operation)
        assert all(rule["reason"] == "Forbidden" for rule in policy["spec"]["validations"])


def test_every_write_that_rbac_grants_has_a_row_and_no_other() -> None:
    policies = _policies()
    rows = set[tuple[str, str, str]]().union(
        *(_rules(p) for p in policies if "-operator-" in p["metadata"]["name"] and "-else" not in p["metadata"]["name"])
    )
    granted = {
        (group, resource, ROLE_VERBS[verb])
        for role in render()
        if role["kind"] in ("ClusterRole", "Role") and role["metadata"]["name"] == "cinderblock"
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb in ROLE_VERBS
    }
    own = {right for right in granted if right[0] == "cinderblock.io"}
    made = ("backupstores", "volumebackups", "backupverifications", "volumerestores")
    creations = {("cinderblock.io", resource, operation) for resource in made for operation in ("CREATE", "DELETE")}
    assert {right for right in own if right[2] != "UPDATE"} == creations
    assert rows == (granted - own) | creations | {("cinderblock.io", "*", "UPDATE")}


def test_last_policy_leaves_out_what_the_rows_judge() -> None:
    policies = _policies()
    [last] = [policy for policy in policies if policy["metadata"]["name"] == "cinderblock-operator-else"]
    rows = [p for p in policies if "-operator-" in p["metadata"]["name"] and p is not last]
    judged = set[tuple[str, str, str]]().union(*(_rules(policy) for policy in rows))
    assert _rules(last, "excludeResourceRules") == judged | {("cinderblock.io", "*/status", "UPDATE")}


def test_operator_and_its_uninstall_hook_are_named_by_namespace_and_release() -> None:
    account = "system:serviceaccount:backup-system:cinderblock"
    for policy in _policies("admissionPolicies.exemptUsers={system:serviceaccount:velero:velero}"):
        conditions = " ".join(condition["expression"] for condition in policy["spec"]["matchConditions"])
        assert f"'{account}'" in conditions
        if "-marks-of-" in policy["metadata"]["name"]:
            assert f"'{account}-uninstall'" in conditions
            assert "'system:serviceaccount:velero:velero'" in conditions


@pytest.mark.parametrize("level", ["baseline", "restricted", "privileged"])
def test_operator_and_policy_have_the_same_level(level: str) -> None:
    objects = render(f"mover.podSecurity={level}", "mover.rootRequiresOptIn=true", "mover.allowSystemPriority=true")
    [operator] = [d for d in of_kind(objects, "Deployment") if d["metadata"]["name"] == "cinderblock"]
    environment = {v["name"]: v["value"] for v in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert environment["CINDERBLOCK_MOVER_POD_SECURITY"] == level
    assert environment["CINDERBLOCK_ROOT_MOVERS_REQUIRE_OPT_IN"] == "true"
    assert environment["CINDERBLOCK_ALLOW_SYSTEM_PRIORITY"] == "true"
    [jobs] = [p for p in of_kind(objects, "ValidatingAdmissionPolicy") if p["metadata"]["name"].endswith("-jobs")]
    messages = " ".join(rule["message"] for rule in jobs["spec"]["validations"])
    assert ("Pod Security baseline" in messages) == (level != "privileged")
    assert ("Pod Security restricted" in messages) == (level == "restricted")
    assert "as root only" in messages
    assert "allowSystemPriority" not in messages


def test_images_of_movers_are_whole_names() -> None:
    for settings, accepted, refused in (
        (("image.repository=cinderblock",), "cinderblock:1", "cinderblock:5000/evil/x"),
        (
            ("admissionPolicies.moverImages={mirror:5000/a.b}",),
            f"mirror:5000/a.b:1@sha256:{'a' * 64}",
            "mirror:5000/acb:1",
        ),
    ):
        [jobs] = [policy for policy in _policies(*settings) if policy["metadata"]["name"].endswith("-jobs")]
        [pattern] = {
            found
            for rule in jobs["spec"]["validations"]
            for found in re.findall(r"c\.image\.matches\(r'([^']+\$)'", rule["expression"])
        }
        assert re.search(pattern, accepted)
        assert not re.search(pattern, refused)


def test_refusals_name_the_value_and_what_was_found() -> None:
    [jobs] = [policy for policy in _policies() if policy["metadata"]["name"].endswith("-jobs")]
    named = {
        found
        for rule in jobs["spec"]["validations"]
        for found in re.findall(r"admissionPolicies\.[A-Za-z.]+[A-Za-z]", rule.get("messageExpression", ""))
    }
    schema = json.loads((CHART / "values.schema.json").read_text())
    additions = schema["properties"]["admissionPolicies"]["properties"]["moverAdditions"]["properties"]
    assert named == {f"admissionPolicies.moverAdditions.{name}" for name in additions}


def test_upgrade_that_keeps_only_old_values_renders() -> None:
    """`helm upgrade --reuse-values` gives no value that the former release did not have."""
    assert (
        _policies("admissionPolicies.moverAdditions=null", "mover.allowSystemPriority=null", "schedules=null")
        == _policies()
    )


def test_who_may_create_what() -> None:
    def verbs(role: str, *settings: str) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for item in of_kind(render(*settings), "ClusterRole"):
            if f"rbac.authorization.k8s.io/aggregate-to-{role}" in item["metadata"]["labels"]:
                found |= {
                    (verb, name) for rule in item["rules"] for verb in rule["verbs"] for name in rule["resources"]
                }
        return found

    assert {verb for verb, _ in verbs("view")} == {"get", "list", "watch"}
    assert ("create", "volumebackups") in verbs("edit")
    assert ("create", "volumerestores") in verbs("edit")
    assert ("create", "backupstores") not in verbs("edit")
    assert ("create", "backupstores") in verbs("admin")
    assert ("create", "backupstores") in verbs("edit", "rbac.aggregateBackupStoresToEdit=true")
    assert ("create", "backupgrants") not in verbs("edit", "rbac.aggregateBackupStoresToEdit=true")
    assert ("create", "backupgrants") in verbs("admin")
