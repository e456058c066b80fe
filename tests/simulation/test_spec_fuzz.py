"""No spec causes an exception, blocks other objects, or gives access to another namespace.

The API server rejects most of these specs (see the tests of the CRDs); the simulated one accepts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cinderblock.api import labels
from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.controller.request import SCHEDULE_KINDS, ObjectKey
from cinderblock.lifecycle.observed import OperatorAccount
from tests.support.cluster.spec_fuzz import hostile, schema_of, specs
from tests.support.shared_stores import SYSTEM
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import POLICY, Simulation

KNOWN_ACCOUNT = replace(POLICY, account=OperatorAccount(SYSTEM))
SAME_SPECS = settings(derandomize=True, max_examples=25)
SCHEMAS = {resource.kind: schema_of(resource) for resource in RESOURCES}
METADATA = {
    resource.kind: {"name": "hostile"} | ({"namespace": NAMESPACE} if resource.namespaced else {})
    for resource in RESOURCES
}
ENDS = ("available", "error", "error_restoring")
THEIRS = ("their-data", "their-backup", "their-store", "their-snapshot")
UIDS = {
    "VolumeBackup": "00000000-0000-0000-0000-000000000007",
    "PersistentVolumeClaim": "00000000-0000-0000-0000-000000000008",
}
"""UIDs of foreign objects, which an attacker may know. They are the same in every simulation."""
OWN = ("data", "full", "default", "snap")


def two_namespaces() -> Simulation:
    """Return a simulation with our namespace, and with a foreign one that contains objects of every kind."""
    simulation = Simulation(policy=KNOWN_ACCOUNT)
    simulation.claim("data", "first")
    for kind, name, parts in (
        ("PersistentVolumeClaim", "their-data", {"spec": {"volumeName": "their-volume"}}),
        ("VolumeBackup", "their-backup", {"spec": {"volumeId": "their-data"}}),
        ("BackupStore", "their-store", {"spec": {"credentialsSecretRef": {"name": "their-secret"}}}),
        ("VolumeSnapshot", "their-snapshot", {"spec": {"source": {"persistentVolumeClaimName": "their-data"}}}),
    ):
        made = simulation.objects.create(kind, {"metadata": {"name": name, "namespace": "others"}} | parts)
        assert made is not None
        simulation.objects.update(made, status=_status(made))
    return simulation


def _status(made: Object) -> dict[str, Any]:
    uid = made["metadata"]["uid"]
    return {
        "PersistentVolumeClaim": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        "VolumeBackup": {"phase": "available", "id": uid, "storeName": "their-store", "container": "theirs"},
        "VolumeSnapshot": {"readyToUse": True, "restoreSize": "1Gi"},
    }.get(made["kind"], {})


def foreign_versions(simulation: Simulation) -> list[tuple[str, str]]:
    """Return names and versions of the foreign objects."""
    found = [
        item for kind in ("PersistentVolumeClaim", "VolumeBackup", "BackupStore", "VolumeSnapshot", "Job")
        for item in simulation.objects.all(kind, "others")
    ]  # fmt: skip
    return [(item["metadata"]["name"], item["metadata"]["resourceVersion"]) for item in found]


def run_for_some_time(simulation: Simulation) -> None:
    """Run the operator on our namespace, and on objects without one, for some time."""
    for _ in range(120):
        ready = [key for key in simulation.due() if key.namespace in (NAMESPACE, "")]
        moves = [move for move in simulation.cluster.moves() if not move.is_bad]
        if ready:
            simulation.reconcile(ready[0])
        elif moves:
            simulation.move(moves[0])
        else:
            simulation.advance(5)


@pytest.mark.parametrize("kind", SCHEMAS)
@given(data=st.data())
@SAME_SPECS
def test_hostile_spec_harms_nobody(kind: str, data: st.DataObject) -> None:
    with two_namespaces() as simulation:
        before = foreign_versions(simulation)
        spec = data.draw(hostile(SCHEMAS[kind], (*THEIRS, *UIDS.values(), *OWN)))
        simulation.make(kind, {"metadata": METADATA[kind], "spec": spec})
        simulation.backup("full", "data")
        run_for_some_time(simulation)
        check(simulation, before)


@pytest.mark.parametrize("kind", sorted(SCHEMAS.keys() - SCHEDULE_KINDS.keys()))
@given(data=st.data())
@SAME_SPECS
def test_valid_spec_gets_a_status(kind: str, data: st.DataObject) -> None:
    with two_namespaces() as simulation:
        before = foreign_versions(simulation)
        simulation.backup("full", "data")
        spec = data.draw(specs(SCHEMAS[kind]))
        # CEL rules of the definitions, which their schemas cannot express.
        alternative = {"VolumeBackup": "import", "BackupVerification": "backupId"}.get(kind)
        assume(alternative is None or ("volumeId" in spec) != (alternative in spec))
        simulation.make(kind, {"metadata": METADATA[kind], "spec": spec})
        run_for_some_time(simulation)
        check(simulation, before)
        status = simulation.get(kind, "hostile").get("status")
        assert status is not None, f"no status for {spec}"


def check(simulation: Simulation, before: list[tuple[str, str]]) -> None:
    """Check that our backup is complete, foreign objects are unchanged, and the store holds no foreign keys."""
    story = simulation.story()
    assert simulation.phase("VolumeBackup", "full") in ("available", "restoring", "error_restoring"), story
    assert foreign_versions(simulation) == before, story
    for job in simulation.objects.all("Job"):
        assert job["metadata"]["namespace"] == NAMESPACE, story
    own = {item["metadata"]["uid"] for kind in ("VolumeBackup", "PersistentVolumeClaim")
           for item in simulation.objects.all(kind, NAMESPACE)}  # fmt: skip
    for key in simulation.stored():
        parts = key.removesuffix(".manifest").split("/")
        volume, backup = parts[-2:] if key.endswith(".manifest") else parts[-3:-1]
        assert {volume, backup} <= own, f"{key}\n{story}"


FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "a claim of others, by UID": ("VolumeBackup", {"volumeId": "{claim}"}),
    "a claim of others, by name": ("VolumeBackup", {"volumeId": "their-data"}),
    "a claim of others, by path": ("VolumeBackup", {"volumeId": "../others/their-data"}),
    "a store of others": ("VolumeBackup", {"volumeId": "data", "storeName": "their-store"}),
    "a store of others, by path": ("VolumeBackup", {"volumeId": "data", "storeName": "../others/their-store"}),
    "a snapshot of others, by UID": ("VolumeBackup", {"volumeId": "data", "snapshotId": "{snapshot}"}),
    "a snapshot of others, by name": ("VolumeBackup", {"volumeId": "data", "snapshotId": "their-snapshot"}),
    "a backup of others, by UID": ("VolumeRestore", {"backupId": "{backup}", "name": "loot"}),
    "a backup of others, by name": ("VolumeRestore", {"backupId": "their-backup", "name": "loot"}),
    "into a claim of others, by UID": ("VolumeRestore", {"backupId": "full", "volumeId": "{claim}"}),
    "into a claim of others, by name": ("VolumeRestore", {"backupId": "full", "volumeId": "their-data"}),
    "adopting a backup of others": ("VolumeBackup", {"volumeId": "data", "import": {"id": "{backup}"}}),
}


@pytest.fixture
def beside_others() -> Iterator[Simulation]:
    with two_namespaces() as simulation:
        yield simulation


@pytest.mark.parametrize(("kind", "spec"), FIELDS.values(), ids=FIELDS.keys())
def test_spec_gives_no_access_to_another_namespace(beside_others: Simulation, kind: str, spec: dict[str, Any]) -> None:
    simulation = beside_others
    simulation.backup("full", "data")
    run_for_some_time(simulation)
    before = foreign_versions(simulation)
    ids = {
        "claim": simulation.objects.get("PersistentVolumeClaim", "their-data", "others"),
        "snapshot": simulation.objects.get("VolumeSnapshot", "their-snapshot", "others"),
        "backup": simulation.objects.get("VolumeBackup", "their-backup", "others"),
    }
    uids = {name: item["metadata"]["uid"] for name, item in ids.items() if item}
    filled = {
        field: value.format(**uids) if isinstance(value, str) else {"id": uids["backup"]}
        for field, value in spec.items()
    }
    simulation.make(kind, {"metadata": {"name": "thief", "namespace": NAMESPACE}, "spec": filled})
    run_for_some_time(simulation)
    assert simulation.phase(kind, "thief") in ("error", "error_restoring", "None"), simulation.story()
    check(simulation, before)
    assert not simulation.exists("PersistentVolumeClaim", "loot")


def test_unparsable_object_is_left_alone(beside_others: Simulation) -> None:
    simulation = beside_others
    body = {"metadata": {"name": "poison", "namespace": NAMESPACE}, "spec": {"volumeId": ["not", "a", "name"]}}
    simulation.make("VolumeBackup", body)
    simulation.reconcile(ObjectKey("VolumeBackup", NAMESPACE, "poison"))
    simulation.backup("full", "data")
    run_for_some_time(simulation)
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert labels.BACKUP_FINALIZER not in simulation.get("VolumeBackup", "poison")["metadata"].get("finalizers", [])
