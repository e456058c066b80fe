"""A volume's status follows from its claim, its pods, and the operations on it."""

from typing import Any

import pytest

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.gateway.resources.volumes.gather import NamespaceVolumes

CLAIM: dict[str, Any] = {
    "metadata": {"name": "database", "uid": "c"},
    "spec": {"volumeName": "pv", "resources": {"requests": {"storage": "1500Mi"}}},
    "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}},
}
POD = {
    "metadata": {"name": "app", "uid": "p"},
    "spec": {"nodeName": "node1", "volumes": [{"persistentVolumeClaim": {"claimName": "database"}}]},
    "status": {"phase": "Running", "startTime": "2026-01-02T03:04:05Z"},
}


def _claim(**changed: Any) -> PersistentVolumeClaim:
    return PersistentVolumeClaim.model_validate(
        CLAIM | {key: CLAIM.get(key, {}) | value for key, value in changed.items()}
    )


def _restore(phase: str | None, *, spec: dict[str, Any], uid: str = "r", **status: str) -> VolumeRestore:
    meta = {"name": uid, "uid": uid, "creationTimestamp": f"2026-01-01T00:00:0{len(uid)}Z"}
    return VolumeRestore.model_validate(
        {"metadata": meta, "spec": {"backupId": "b"} | spec, "status": {"phase": phase} | status}
    )


def _backup(phase: str | None, **spec: Any) -> VolumeBackup:
    return VolumeBackup.model_validate(
        {"metadata": {"name": "b", "uid": "b"}, "spec": {"volumeId": "c"} | spec, "status": {"phase": phase, "size": 3}}
    )


def _status(
    claim: PersistentVolumeClaim, *restores: VolumeRestore, pods: tuple[Any, ...] = (), backups: Any = ()
) -> str:
    (volume,) = NamespaceVolumes([claim], pods, backups, restores).volumes()
    return volume.status


INTO_CLAIM = {"volumeId": "c"}


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("available", _status(_claim())),
        ("in-use", _status(_claim(), pods=(POD,))),
        ("creating", _status(_claim(status={"phase": "Pending"}))),
        ("error", _status(_claim(status={"phase": "Lost"}))),
        ("deleting", _status(_claim(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), pods=(POD,))),
        ("backing-up", _status(_claim(), pods=(POD,), backups=[_backup(None)])),
        ("backing-up", _status(_claim(), backups=[_backup("creating", volumeId="database")])),
        ("available", _status(_claim(), backups=[_backup("creating", snapshotId="s")])),
        ("available", _status(_claim(), backups=[_backup("deleting")])),
        ("restoring-backup", _status(_claim(), _restore(None, spec=INTO_CLAIM))),
        ("restoring-backup", _status(_claim(), _restore("restoring", spec=INTO_CLAIM, volumeId="c"))),
        ("error_restoring", _status(_claim(), _restore("error_restoring", spec=INTO_CLAIM, volumeId="c"))),
        (
            "available",
            _status(
                _claim(),
                _restore("error_restoring", spec=INTO_CLAIM, volumeId="c"),
                _restore("available", spec=INTO_CLAIM, volumeId="c", uid="r2"),
            ),
        ),
    ],
)
def test_status_follows_from_the_objects(expected: str, actual: str) -> None:
    assert actual == expected


def test_restored_volume_keeps_the_id_of_its_restore() -> None:
    restore = _restore("restoring", spec={"name": "copy"})
    (restoring,) = NamespaceVolumes([], [], [_backup("restoring")], [restore]).volumes()
    assert (restoring.id, restoring.name, restoring.status, restoring.size) == ("r", "copy", "restoring-backup", 3)
    claim = _claim(metadata={"annotations": {"cinderblock.io/volume-id": "r"}})
    namespace = NamespaceVolumes([claim], [], [], [_restore("available", spec={"name": "copy"}, volumeId="c")])
    (restored,) = namespace.volumes()
    assert (restored.id, restored.status) == ("r", "available")
    assert namespace.find("r") == namespace.find("c") == restored
    assert namespace.find("database") is None


def test_failed_restore_is_a_volume_in_error_restoring() -> None:
    (failed,) = NamespaceVolumes([], [], [], [_restore("error_restoring", spec={"name": "copy"})]).volumes()
    assert failed.status == "error_restoring"


def test_claim_that_asks_for_a_backup_is_one_volume() -> None:
    asking = _claim(status={"phase": "Pending"}, spec={"volumeName": ""})
    for phase in ("restoring", "error_restoring"):
        restore = _restore(phase, spec={"claim": {"name": "database", "uid": "c"}})
        (volume,) = NamespaceVolumes([asking], (), (), [restore]).volumes()
        assert (volume.id, volume.status) == ("c", "creating")


def test_pods_are_attachments_of_their_volume() -> None:
    (volume,) = NamespaceVolumes([_claim()], [POD], [], []).volumes()
    (attachment,) = volume.attachments
    assert (attachment.pod_uid, attachment.node) == ("p", "node1")
    assert volume.size == 2


class Counted(list[Any]):
    """Counts how often it is read from its beginning."""

    reads = 0

    def __iter__(self) -> Any:
        self.reads += 1
        return super().__iter__()


def test_objects_are_read_equally_often_however_many_claims_there_are() -> None:
    """Otherwise one request would cost the product of two numbers that tenants choose."""
    restores = Counted([_restore(None, spec=INTO_CLAIM), _restore("error_restoring", spec={"name": "x"}, uid="rr")])
    objects = (Counted([POD]), Counted([_backup("creating")]), restores)
    claims = [_claim(metadata={"name": f"c{number}", "uid": f"c{number}"}) for number in range(20)]
    assert len(NamespaceVolumes(claims, *objects).volumes()) == 21
    assert max(found.reads for found in objects) <= 2
