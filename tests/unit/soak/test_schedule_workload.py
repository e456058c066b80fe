"""The soak notices scheduled backups that vanish, fail or hold too little, with a tenant that follows a script."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from tests.soak.schedule_workload import Sample, ScheduledVolume, promise_of, schedule_spec
from tests.soak.volume_workload import KINDS, Promise
from tests.support.cluster.cluster import KubeClusterError, Object
from tests.support.cluster.namespaces import Tenant
from tests.support.strict_schemas import SCHEMAS

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@dataclass
class ScriptedKube:
    """The part of a cluster that a volume uses."""

    def diagnose(self, namespace: str) -> str:
        return f"state of {namespace}"


@dataclass
class ScriptedTenant:
    """A namespace in which a writer has made some steps, with some backups."""

    steps: int = 10
    backups: dict[str, str] = field(default_factory=dict)
    name: str = "soak"
    kube: ScriptedKube = field(default_factory=ScriptedKube)

    def kubectl(self, *arguments: str, **_: Any) -> str:
        if arguments[0] == "logs":
            return f"{self.steps}\n"
        assert arguments[:4] == ("get", "volumebackups", "-l", "cinderblock.io/schedule=volume-1")
        return json.dumps({"items": [a_backup(name, phase) for name, phase in self.backups.items()]})


def a_backup(name: str, phase: str = "available", began: int = 60, ended: int = 90) -> Object:
    times = [(NOON + timedelta(seconds=at)).isoformat() for at in (began, ended)]
    metadata = {"name": name, "creationTimestamp": times[0]}
    return {"metadata": metadata, "status": {"phase": phase, "completedAt": times[1], "updatedAt": times[1]}}


def a_volume(tenant: ScriptedTenant) -> ScheduledVolume:
    return ScheduledVolume(cast("Tenant", tenant), "volume-1", KINDS[0], random.Random(1), lambda _: None)


def test_schedule_fits_its_definition() -> None:
    schema = SCHEMAS["backupschedule"]["properties"]["spec"]
    assert [error.message for error in Draft202012Validator(schema).iter_errors(schedule_spec("volume-1"))] == []


def test_backups_and_expiries_are_counted() -> None:
    tenant = ScriptedTenant(backups={"a": "available", "b": "creating"})
    volume = a_volume(tenant)
    volume.observe()
    tenant.backups = {"b": "available", "c": "deleting"}
    volume.observe()
    assert dict(volume.done) == {"scheduled backup": 2, "expiry": 1}
    assert (volume.promises.keys(), volume.gone) == ({"b"}, {"a"})


def test_loss_of_the_last_backup_is_found() -> None:
    tenant = ScriptedTenant(backups={"a": "available"})
    volume = a_volume(tenant)
    volume.observe()
    tenant.backups = {"b": "creating"}
    with pytest.raises(AssertionError, match="has no backup any more"):
        volume.observe()


@pytest.mark.parametrize("phase", ["error", "error_deleting"])
def test_failed_backup_is_found(phase: str) -> None:
    volume = a_volume(ScriptedTenant(backups={"a": "available", "b": phase}))
    with pytest.raises(KubeClusterError, match=r"\['b'\] failed"):
        volume.observe()


def test_promise_is_between_the_last_sample_before_and_the_first_one_after() -> None:
    samples = [Sample(NOON + timedelta(seconds=at), at) for at in (0, 30, 57, 59, 70, 91, 95, 120)]
    assert promise_of(a_backup("a"), samples) == Promise(57, 96)


def test_promise_without_later_samples_still_has_an_end() -> None:
    assert promise_of(a_backup("a"), [Sample(NOON, 5)]) == Promise(5, 1006)
