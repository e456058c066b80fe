"""Attacks of a user with the role ``edit`` in one namespace on an operator that serves all namespaces.

Each attack prepares objects in its own namespace, and may disturb again at every step. It creates and changes objects
of any kind, with any name, label, owner and annotation, but writes no status and nothing in another namespace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cinderblock.api import labels
from tests.support.simulation.api import Object
from tests.support.simulation.simulation import Simulation

EVIL: Final = "evil"
MANY: Final = 20
"""More than any limit of a simulation."""

FORGED: Final = ("Job", "PersistentVolumeClaim", "VolumeSnapshot", "Pod")
"""Kinds of children."""

Disturb = Callable[[], None]


def _nothing() -> None:
    """Disturb no more."""


def _make(simulation: Simulation, kind: str, name: str, spec: Object, **metadata: Any) -> Object:
    body = {"metadata": {"name": name, "namespace": EVIL} | metadata, "spec": spec}
    made = simulation.objects.create(kind, body)
    assert made is not None
    return made


def _namespace(simulation: Simulation) -> None:
    """Create the attacker's namespace with a store, unless another attack has."""
    simulation.objects.create("Namespace", {"metadata": {"name": EVIL}})
    metadata = {"name": "default", "namespace": EVIL, "annotations": {"cinderblock.io/is-default-store": "true"}}
    simulation.objects.create("BackupStore", {"metadata": metadata, "spec": {"credentialsSecretRef": {"name": "s3"}}})


def _backup(simulation: Simulation, name: str) -> Object:
    """Create a backup of a bound claim whose driver has no snapshots, so that its mover mounts the claim."""
    requests = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}
    claim = _make(simulation, "PersistentVolumeClaim", name, requests | {"volumeName": f"pv-{name}"})
    reference = {"namespace": EVIL, "name": name, "uid": claim["metadata"]["uid"]}
    volume = {"csi": {"driver": "csi.other.example"}, "claimRef": reference, "persistentVolumeReclaimPolicy": "Retain"}
    simulation.objects.create("PersistentVolume", {"metadata": {"name": f"pv-{name}"}, "spec": volume})
    simulation.objects.update(claim, status={"phase": "Bound", "capacity": {"storage": "1Gi"}})
    return _make(simulation, "VolumeBackup", name, {"volumeId": name})


def disguise(owner: Object, **more: str) -> dict[str, Any]:
    """Return metadata like that of a child of the owner."""
    uid, kind = owner["metadata"]["uid"], owner["kind"]
    reference = {"apiVersion": "cinderblock.io/v1alpha1", "kind": kind, "name": owner["metadata"]["name"], "uid": uid}
    return {
        "name": labels.child_name(uid),
        "namespace": EVIL,
        "labels": {
            labels.MANAGED_BY_LABEL: labels.MANAGED_BY,
            labels.OWNER_KIND_LABEL: "VolumeBackup",
            labels.OWNER_UID_LABEL: uid,
        }
        | more,
        "annotations": {labels.OWNER_NAME_ANNOTATION: owner["metadata"]["name"]},
        "ownerReferences": [reference | {"controller": True}],
    }


def _suspended_job(simulation: Simulation, owner: Object, **more: str) -> None:
    body = {"metadata": disguise(owner, **more), "spec": {"suspend": True}}
    simulation.objects.create("Job", body)


def jobs_of_config_maps(simulation: Simulation) -> Disturb:
    """Suspended Jobs with the names that they would have if ConfigMaps were backups. They cost no pod."""
    for number in range(MANY):
        owner = _make(simulation, "ConfigMap", f"plain-{number}", {})
        _suspended_job(simulation, owner)
    return _nothing


def jobs_that_name_a_store_of_others(simulation: Simulation) -> Disturb:
    """The same, with the label that names the BackupStore of another namespace."""
    store = simulation.get("BackupStore", "default")["metadata"]["uid"]
    for number in range(MANY):
        owner = _make(simulation, "ConfigMap", f"store-{number}", {})
        _suspended_job(simulation, owner, **{"cinderblock.io/store": store})
    return _nothing


def jobs_before_the_operator_makes_them(simulation: Simulation) -> Disturb:
    """Real backups, each with a Job that the operator would create, made again whenever it is removed."""
    _namespace(simulation)
    owners = [_backup(simulation, f"early-{number}") for number in range(MANY)]

    def again() -> None:
        for owner in owners:
            _suspended_job(simulation, owner)

    again()
    return again


def movers_that_never_end(simulation: Simulation) -> Disturb:
    """Real backups whose pods never start."""
    _namespace(simulation)
    for number in range(MANY):
        _backup(simulation, f"endless-{number}")
    return _nothing


def movers_held_back_and_released(simulation: Simulation) -> Disturb:
    """Real backups whose Jobs are suspended as soon as they run, and all resumed once there are more than any limit."""
    _namespace(simulation)
    for number in range(MANY):
        _backup(simulation, f"held-{number}")
    held: set[str] = set()

    def hold_or_release() -> None:
        started = _started_jobs(simulation)
        if len(held) < MANY // 2:
            for job in started:
                held.add(job["metadata"]["uid"])
                simulation.objects.update(job, spec=job["spec"] | {"suspend": True})
            return
        for job in started:
            simulation.objects.update(job, spec=job["spec"] | {"suspend": False})

    return hold_or_release


def movers_held_back(simulation: Simulation) -> Disturb:
    """Real backups whose Jobs are suspended as soon as they run."""
    _namespace(simulation)
    for number in range(MANY):
        _backup(simulation, f"idle-{number}")

    def hold() -> None:
        for job in _started_jobs(simulation):
            simulation.objects.update(job, spec=job["spec"] | {"suspend": True})

    return hold


def _started_jobs(simulation: Simulation) -> list[Object]:
    """Return the attacker's Jobs that the operator has started, and that have neither ended nor been deleted."""
    jobs = simulation.objects.all("Job", EVIL)
    living = [job for job in jobs if not job.get("status") and "deletionTimestamp" not in job["metadata"]]
    return [job for job in living if labels.STARTED_ANNOTATION in job["metadata"].get("annotations", {})]


def changes_of_children(simulation: Simulation) -> Disturb:
    """Claims that name backups, both of the own and of another namespace, changed all the time."""
    _namespace(simulation)
    owners = [
        *(_backup(simulation, f"touched-{number}") for number in range(3)),
        *simulation.objects.all("VolumeBackup", "shop"),
    ]
    claims = [
        _make(simulation, "PersistentVolumeClaim", f"forged-{number}", {}, **_without_name(disguise(owner)))
        for number, owner in enumerate(owners)
    ]

    def touch() -> None:
        for claim in claims:
            count = int(claim["metadata"]["annotations"].get("count", "0")) + 1
            changed = claim["metadata"]["annotations"] | {"count": str(count)}
            simulation.objects.update(claim, metadata=claim["metadata"] | {"annotations": changed})

    return touch


def _without_name(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key not in ("name", "namespace")}


def forge_children(simulation: Simulation, owner: Object) -> None:
    """Create children of any owner in the attacker's namespace, unless they exist."""
    volumes = [{"name": "volume", "persistentVolumeClaim": {"claimName": "nothing"}}]
    for kind in FORGED:
        # The simulated cluster takes every snapshot that is not ready, and starts every pod that has not ended.
        status = {"VolumeSnapshot": {"readyToUse": True}, "Pod": {"phase": "Failed"}}.get(kind, {})
        body = {"metadata": disguise(owner), "spec": {"suspend": True, "volumes": volumes}, "status": status}
        simulation.objects.create(kind, body)


def children_of_a_backup_of_others(simulation: Simulation) -> Disturb:
    """A Job, a claim, a pod and a snapshot that say that they belong to a backup of another namespace."""

    def forge() -> None:
        for owner in simulation.objects.all("VolumeBackup", "shop"):
            forge_children(simulation, owner)

    forge()
    return forge


def very_large_objects(simulation: Simulation) -> Disturb:
    """Backups and Jobs with annotations as long as the API server accepts them."""
    junk = {"annotations": {"note": "x" * 250_000}}
    for number in range(MANY):
        _make(simulation, "VolumeBackup", f"large-{number}", {"volumeId": "nothing"}, **junk)
        owner = _make(simulation, "ConfigMap", f"large-{number}", {})
        body = {"metadata": disguise(owner) | junk, "spec": {"suspend": True}}
        simulation.objects.create("Job", body)
    return _nothing


def requests_for_nothing(simulation: Simulation) -> Disturb:
    """Restores, verifications and imports of what does not exist, again and again."""
    _namespace(simulation)
    made = 0

    def again() -> None:
        nonlocal made
        if made == 10 * MANY:
            return
        made += 1
        identity = f"5c3c6a4e-0f2e-4f5b-9c55-{made:012}"
        for kind, spec in (
            ("VolumeRestore", {"backupId": "nothing", "name": f"new-{made}"}),
            ("BackupVerification", {"level": "Data", "volumeId": "nothing"}),
            ("VolumeBackup", {"import": {"id": identity}}),
        ):
            _make(simulation, kind, f"nothing-{made}", spec)

    return again


def pods_on_every_volume(simulation: Simulation) -> Disturb:
    """Pods that name very many claims, or one of a megabyte, next to real backups."""
    _namespace(simulation)
    volumes = [{"name": f"v{number}", "persistentVolumeClaim": {"claimName": f"c{number}"}} for number in range(500)]
    volumes.append({"name": "long", "persistentVolumeClaim": {"claimName": "x" * 1_000_000}})
    for number in range(MANY):
        _make(simulation, "Pod", f"greedy-{number}", {"volumes": volumes})
        _backup(simulation, f"used-{number}")
    return _nothing


ATTACKS: Final[tuple[Callable[[Simulation], Disturb], ...]] = (
    jobs_of_config_maps,
    jobs_that_name_a_store_of_others,
    jobs_before_the_operator_makes_them,
    movers_that_never_end,
    movers_held_back,
    movers_held_back_and_released,
    changes_of_children,
    children_of_a_backup_of_others,
    very_large_objects,
    requests_for_nothing,
    pods_on_every_volume,
)
