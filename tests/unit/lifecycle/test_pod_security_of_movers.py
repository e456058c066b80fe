"""Limits on spec.mover of a BackupStore, at each level and with the consent of the namespace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cinderblock.api.v1alpha1.store import MoverTemplate
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.mover.pod_security import mover_refusal, runs_as_root
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy, PodSecurityLevel, StoreLookup
from cinderblock.lifecycle.restore import checks as restore_checks
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason
from tests.support.cluster.mover_templates import RESTRICTED, TEMPLATES
from tests.support.simulation.observed_builders import (
    a_backup,
    a_restore,
    a_store,
    observed_backup,
    observed_restore,
)

LEVELS = [level.value for level in PodSecurityLevel]
PRIVILEGED = {"securityContext": {"privileged": True}}


def settings(level: str = "baseline", *, opt_in: bool = False) -> MoverSettings:
    return MoverSettings("example/cinderblock:1", pod_security=PodSecurityLevel(level), root_requires_opt_in=opt_in)


def refusal(mover: dict[str, Any], level: str = "baseline", *, opt_in: bool = False, consent: bool = False) -> str:
    lookup = StoreLookup(a_store(mover=mover), allows_root=consent)
    found = mover_refusal(lookup, settings(level, opt_in=opt_in))
    if found is None:
        return ""
    assert found.reason == Reason.MOVER_NOT_PERMITTED
    return found.message


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", TEMPLATES, ids=lambda case: case.field or "nothing")
def test_each_level_refuses_what_exceeds_it(case: Any, level: str) -> None:
    message = refusal(case.mover, level)
    assert bool(message) == (level not in case.levels)
    if message:
        assert case.field in message or level == "restricted"
        assert "mover.podSecurity" in message


def test_message_names_field_store_and_remedy() -> None:
    assert refusal(PRIVILEGED) == (
        "Cannot start movers of BackupStore default: spec.mover.securityContext.privileged is true, and the operator"
        " allows movers only the Pod Security level baseline. Change spec.mover, or ask an administrator to raise"
        " mover.podSecurity."
    )


def test_root_needs_consent_only_if_the_operator_asks_for_it() -> None:
    assert refusal({}) == ""
    assert 'cinderblock.io/allow-root-movers: "true"' in refusal({}, opt_in=True)
    assert refusal({}, opt_in=True, consent=True) == ""
    assert refusal(RESTRICTED, opt_in=True) == ""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["system-node-critical", "system-cluster-critical"])
def test_priority_of_the_system_needs_a_value(name: str, level: str) -> None:
    store = StoreLookup(a_store(mover=RESTRICTED | {"priorityClassName": name}))
    message = refusal(RESTRICTED | {"priorityClassName": name}, level)
    assert f"spec.mover.priorityClassName is {name}" in message
    assert "mover.allowSystemPriority" in message
    assert mover_refusal(store, replace(settings(level), allow_system_priority=True)) is None
    assert refusal(RESTRICTED | {"priorityClassName": "backup-system"}, level) == ""


@pytest.mark.parametrize(
    ("mover", "root"),
    [
        ({}, True),
        ({"podSecurityContext": {"runAsUser": 1000}}, True),
        ({"securityContext": {"readOnlyRootFilesystem": True}}, False),
        ({"securityContext": {"readOnlyRootFilesystem": True}, "podSecurityContext": {"runAsUser": 0}}, True),
        ({"securityContext": {"runAsUser": 0}}, True),
        ({"securityContext": {"runAsUser": 7}, "podSecurityContext": {"runAsUser": 0}}, False),
    ],
)
def test_user_of_a_mover_follows_from_both_contexts(mover: dict[str, Any], root: bool) -> None:
    assert runs_as_root(MoverTemplate.model_validate(mover)) == root


@pytest.mark.parametrize("level", LEVELS)
def test_stored_value_of_the_wrong_type_ends_nothing(level: str) -> None:
    context = {
        "seccompProfile": "RuntimeDefault",
        "seLinuxOptions": [],
        "capabilities": {"add": "ALL", "drop": [{}]},
        "windowsOptions": 1,
        "runAsUser": "1000",
        "sysctls": {},
    }
    message = refusal({"securityContext": context, "podSecurityContext": context | {"capabilities": "ALL"}}, level)
    assert bool(message) == (level == "restricted")


def test_operations_of_a_refused_store_fail_before_the_copy() -> None:
    lookup, policy = StoreLookup(a_store(mover=PRIVILEGED)), OperatorPolicy(settings())
    backup = replace(observed_backup(a_backup(), store=lookup), policy=policy)
    restore = replace(observed_restore(a_restore(), store=lookup), policy=policy)
    for verdict in (
        backup_checks.first_verdict(backup, backup_checks.BEFORE_COPY),
        restore_checks.mover_is_permitted(restore),
    ):
        assert isinstance(verdict, Fail)
        assert verdict.reason == Reason.MOVER_NOT_PERMITTED
