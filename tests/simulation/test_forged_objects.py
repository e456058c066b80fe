"""Objects that look like ours give no access to volumes or backups of another namespace.

In one namespace, the attacker may create any claim, Job, pod or object of our kinds, with any names, labels, owner
references and annotations. They may create nothing outside it, and may not set the status of a claim or a volume.
"""

from __future__ import annotations

from typing import Any

import pytest

from cinderblock.api import labels as api_labels
from cinderblock.api.mover import MoverReport
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import DRIVER, NAMESPACE
from tests.support.simulation.simulation import Simulation

pytestmark = pytest.mark.usefixtures("backed_up")

SECRETS_OF_OTHERS = "secrets of somebody else"


def volume_of_others(simulation: Simulation, uid: str | None) -> Object:
    """Create another tenant's volume; without a UID in its claimRef, it is reserved for a future claim."""
    reference = {"namespace": "others", "name": "theirs"} | ({"uid": uid} if uid else {})
    spec = {
        "csi": {"driver": DRIVER},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "fast",
        "claimRef": reference,
    }
    made = simulation.objects.create("PersistentVolume", {"metadata": {"name": "pv-theirs"}, "spec": spec})
    assert made is not None
    simulation.cluster.contents["pv-theirs"] = SECRETS_OF_OTHERS
    return made


def disguise(simulation: Simulation, restore: Object) -> dict[str, Any]:
    """Return metadata that looks like that of our child."""
    uid = restore["metadata"]["uid"]
    owner = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "VolumeRestore", "name": "again", "uid": uid}
    labels = {
        api_labels.MANAGED_BY_LABEL: api_labels.MANAGED_BY,
        api_labels.OWNER_KIND_LABEL: "VolumeRestore",
        api_labels.OWNER_UID_LABEL: uid,
    }
    annotations = {api_labels.OWNER_NAME_ANNOTATION: "again"}
    return {
        "name": api_labels.child_name(uid),
        "namespace": NAMESPACE,
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [owner | {"controller": True}],
    }


@pytest.mark.parametrize("uid", ["a-claim-that-is-gone", None], ids=["released", "reserved"])
@pytest.mark.parametrize("phase", ["Pending", "Bound"])
def test_forged_claim_and_mover_do_not_yield_foreign_volumes(
    simulation: Simulation, uid: str | None, phase: str
) -> None:
    volume_of_others(simulation, uid)
    restore = simulation.restore("again", "full", name="loot")
    metadata = disguise(simulation, restore)
    spec = {
        "volumeName": "pv-theirs",
        "storageClassName": "fast",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    claim = simulation.objects.create("PersistentVolumeClaim", {"metadata": metadata, "spec": spec})
    job = simulation.objects.create("Job", {"metadata": metadata, "spec": {"suspend": True}})
    assert claim is not None
    assert job is not None
    if phase == "Bound":
        simulation.objects.update(claim, status={"phase": "Bound", "capacity": {"storage": "1Gi"}})
    report = MoverReport(succeeded=True, restored_bytes=5).model_dump_json(by_alias=True)
    ended = {"exitCode": 0, "message": report}
    status = {"phase": "Succeeded", "containerStatuses": [{"name": "mover", "state": {"terminated": ended}}]}
    pod = metadata | {"name": "forged", "ownerReferences": metadata["ownerReferences"]}
    simulation.objects.create("Pod", {"metadata": pod, "spec": {"volumes": []}, "status": status})
    for _ in range(200):
        ready = simulation.due()
        if ready:
            simulation.reconcile(ready[0])
        else:
            simulation.advance(5)
    original = simulation.get("PersistentVolume", "pv-theirs")
    assert original["spec"]["claimRef"]["namespace"] == "others"
    assert original["metadata"].get("labels", {}) == {}
    assert simulation.phase("VolumeRestore", "again") == "error_restoring"
    assert not simulation.exists("PersistentVolumeClaim", "loot")


def test_forged_mover_makes_no_backup(simulation: Simulation) -> None:
    backup = simulation.backup("again", "data")
    metadata = disguise(simulation, backup)
    job = simulation.objects.create("Job", {"metadata": metadata, "spec": {"suspend": True}})
    assert job is not None
    report = MoverReport(succeeded=True, manifest="backups/x/y.manifest").model_dump_json(by_alias=True)
    ended = {"exitCode": 0, "message": report}
    status = {"phase": "Succeeded", "containerStatuses": [{"name": "mover", "state": {"terminated": ended}}]}
    volumes = [{"name": "volume", "persistentVolumeClaim": {"claimName": "data"}}]
    simulation.objects.create(
        "Pod", {"metadata": metadata | {"name": "forged"}, "spec": {"volumes": volumes}, "status": status}
    )
    simulation.settle()
    assert simulation.phase("VolumeBackup", "again") == "error"


def test_copied_status_deletes_no_data_of_the_original(simulation: Simulation) -> None:
    before = simulation.stored()
    original = simulation.get("VolumeBackup", "full")
    copied = simulation.backup("copied", "nowhere")
    simulation.objects.update(copied, status=dict(original["status"]))
    metadata = copied["metadata"] | {
        "finalizers": [api_labels.BACKUP_FINALIZER, "foreground-of/somebody"],
        "ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "gone"}],
    }
    simulation.objects.update(copied, metadata=metadata)
    simulation.deliver_changes()
    simulation.delete("VolumeBackup", "copied")
    simulation.objects.drop_finalizer(copied, "foreground-of/somebody")
    simulation.settle()
    assert (simulation.phase("VolumeBackup", "copied"), simulation.stored()) == ("gone", before)


def test_copied_backup_is_a_backup_of_its_own(simulation: Simulation) -> None:
    original = simulation.get("VolumeBackup", "full")
    copied = simulation.backup("copied", "data")
    simulation.objects.update(copied, status=dict(original["status"]))
    simulation.objects.update(
        copied, metadata=copied["metadata"] | {"finalizers": [api_labels.BACKUP_FINALIZER], "ownerReferences": []}
    )
    simulation.settle()
    own = simulation.get("VolumeBackup", "copied")["status"]
    assert own["phase"] == "available"
    assert own["id"] == copied["metadata"]["uid"] != original["status"]["id"]
    assert own["manifestKey"].endswith(f"/{own['id']}.manifest")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert any(own["id"] in key for key in simulation.stored()), "its data is its own"


def test_foreign_status_provides_no_parent(simulation: Simulation) -> None:
    uid = simulation.get("VolumeBackup", "full")["metadata"]["uid"]
    copied = simulation.backup("copied", "nowhere")
    status = {"id": "another", "phase": "available", "parentId": uid}
    simulation.objects.update(copied, status=status)
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "gone"
    assert simulation.phase("VolumeBackup", "copied") == "error"


def test_forged_jobs_do_not_occupy_mover_slots(simulation: Simulation) -> None:
    for number in range(20):
        labels = {api_labels.MANAGED_BY_LABEL: api_labels.MANAGED_BY, api_labels.OWNER_KIND_LABEL: "VolumeBackup"}
        metadata = {"name": f"forged-{number}", "namespace": NAMESPACE, "labels": labels}
        simulation.objects.create("Job", {"metadata": metadata, "spec": {"suspend": True}})
    simulation.backup("again", "data")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "again") == "available"
