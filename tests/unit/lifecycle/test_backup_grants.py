"""Which grants let which namespace restore which backup, and what the status of a grant says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.backup_grant import BackupGrant, BackupGrantStatus
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.lifecycle.actions import RecordGrantedRestores
from cinderblock.lifecycle.backup_grants import readers, rules
from cinderblock.lifecycle.backup_grants.decide import decide
from cinderblock.lifecycle.backup_grants.rules import GrantState
from tests.support.shared_stores import a_namespace

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ALL = {"all": True}


def a_grant(backups: dict[str, Any], *to: str, **more: Any) -> BackupGrant:
    metadata = {"name": "give", "namespace": "shop", "uid": "g", "generation": 1} | more.pop("metadata", {})
    spec = {"backups": backups, "to": {"namespaces": list(to or ("staging",))}}
    return BackupGrant.model_validate({"metadata": metadata, "spec": spec, "status": more.pop("status", {})})


def accepted(grant: BackupGrant, *existing: Object) -> BackupGrant:
    """Return the grant with the status that the operator writes."""
    status = decide(grant, {namespace.name: namespace for namespace in existing or (a_namespace("staging"),)}, NOW)
    assert isinstance(status.status, BackupGrantStatus)
    return grant.model_copy(update={"status": status.status})


def a_backup(name: str = "full", namespace: str = "shop", **labels: str) -> VolumeBackup:
    metadata = {"name": name, "namespace": namespace, "uid": "b", "labels": labels}
    return VolumeBackup.model_validate({"metadata": metadata, "spec": {"volumeId": "data"}})


def state(grant: BackupGrant, target: Object | None = None, backup: VolumeBackup | None = None) -> GrantState:
    return rules.state_of([grant], target or a_namespace("staging"), backup or a_backup())


def shown(grant: BackupGrant) -> tuple[str, str, str]:
    """Return status, reason and message of the condition Ready."""
    condition = next(c for c in grant.status.conditions if c.type == "Ready")
    return condition.status, condition.reason, condition.message


@pytest.mark.parametrize(
    ("backups", "is_covered"),
    [
        (ALL, True),
        ({"names": ["other", "full"]}, True),
        ({"selector": {"matchLabels": {"share": "yes"}}}, True),
        ({"names": ["other"], "selector": {"matchLabels": {"share": "yes"}}}, True),
        ({"selector": {"matchExpressions": [{"key": "share", "operator": "Exists"}]}}, True),
        ({}, False),
        ({"names": ["other"]}, False),
        ({"selector": {"matchLabels": {"share": "no"}}}, False),
        ({"selector": {}}, False),
        ({"selector": {"matchLabels": {}}}, False),
        ({"selector": {"matchExpressions": [{"key": "share", "operator": "Perhaps"}]}}, False),
        ({"selector": {"matchExpressions": [{"key": "share", "operator": "In"}]}}, False),
    ],
)
def test_any_selection_covers_a_backup_and_none_covers_nothing(backups: dict[str, Any], is_covered: bool) -> None:
    expected = GrantState.GRANTED if is_covered else GrantState.NONE
    assert state(accepted(a_grant(backups)), backup=a_backup(share="yes")) is expected


def test_grant_covers_no_backup_of_another_namespace() -> None:
    assert state(accepted(a_grant(ALL)), backup=a_backup(namespace="bank")) is GrantState.NONE


def test_grant_counts_only_with_the_status_of_its_present_spec() -> None:
    granted = accepted(a_grant(ALL))
    assert state(granted) is GrantState.GRANTED
    for change in ({"generation": 2}, {"uid": "copy"}):
        changed = granted.model_copy(update={"metadata": granted.metadata.model_copy(update=change)})
        assert state(changed) is GrantState.PENDING
    forged = a_grant(ALL, status={"namespaces": [{"name": "staging", "uid": "u-staging"}]})
    assert state(forged) is GrantState.PENDING


def test_grant_that_is_being_deleted_grants_nothing() -> None:
    granted = accepted(a_grant(ALL))
    metadata = granted.metadata.model_copy(update={"deletion_timestamp": NOW})
    assert state(granted.model_copy(update={"metadata": metadata})) is GrantState.NONE


def test_namespace_with_another_uid_or_name_gets_nothing() -> None:
    granted = accepted(a_grant(ALL))
    assert state(granted, a_namespace("staging", uid="again")) is GrantState.NONE
    assert state(granted, a_namespace("other")) is GrantState.NONE


def test_replaced_namespace_is_named_and_a_new_spec_means_the_new_one() -> None:
    granted = accepted(a_grant(ALL))
    again = a_namespace("staging", uid="again")
    later = accepted(granted, again)
    assert shown(later)[:2] == ("False", "NamespaceReplaced")
    assert state(later, again) is GrantState.NONE
    changed = later.model_copy(update={"metadata": later.metadata.model_copy(update={"generation": 2})})
    renewed = accepted(changed, again)
    assert shown(renewed)[:2] == ("True", "Granted")
    assert state(renewed, again) is GrantState.GRANTED


def test_namespace_that_is_gone_stays_recorded() -> None:
    granted = accepted(accepted(a_grant(ALL, "staging", "test")), a_namespace("test"))
    assert [(n.name, n.uid) for n in granted.status.namespaces] == [("staging", "u-staging"), ("test", "u-test")]
    assert state(granted, a_namespace("staging", uid="again")) is GrantState.NONE


def test_absent_namespace_waits_for_its_first_restore() -> None:
    granted = accepted(a_grant(ALL, "staging", "later"))
    assert shown(granted)[0] == "True"
    absent = next(c for c in granted.status.conditions if c.type == "NamespacesAbsent")
    assert (absent.status, absent.reason) == ("True", "NamespaceAbsent")
    assert absent.message.startswith("Namespace later does not exist. Anyone who creates it may restore")
    assert state(granted, a_namespace("later")) is GrantState.PENDING
    present = accepted(granted, a_namespace("later"))
    assert state(present, a_namespace("later")) is GrantState.GRANTED
    assert [c.type for c in present.status.conditions] == ["Ready"]


def test_decision_that_changes_nothing_writes_the_same_status() -> None:
    granted = accepted(a_grant(ALL))
    assert accepted(granted).status == granted.status


@pytest.mark.parametrize(
    ("present", "is_recorded"),
    [
        ([], True),
        (["staging"] * 11, True),
        (["staging"] * 12, False),
        (["other"] * 12, True),
        (["other"] * 15, True),
        (["other"] * 16, False),
        (["other"] * 11 + ["staging"], False),
    ],
)
def test_namespace_leaves_some_entries_of_a_backup_to_others(present: list[str], is_recorded: bool) -> None:
    entries = [{"namespace": namespace, "name": f"r{n}", "uid": f"u{n}"} for n, namespace in enumerate(present)]
    backup = a_backup()
    body = backup.to_wire() | {"status": {"id": backup.uid, "phase": "available", "grantedRestores": entries}}
    metadata = {"name": "back", "namespace": "staging", "uid": "mine"}
    restore = VolumeRestore.model_validate({"metadata": metadata, "spec": {"backupId": "b", "backupNamespace": "shop"}})
    recorded = readers.record(restore, VolumeBackup.model_validate(body))
    assert isinstance(recorded, RecordGrantedRestores) is is_recorded
