"""The origin of a volume in its manifest, and the limits of its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.api.kubernetes import PersistentVolume, PersistentVolumeClaim
from cinderblock.api.meta import OwnerReference
from cinderblock.api.mover import MoverTask, task_to_env
from cinderblock.api.origin import ClaimFacts, ClusterFacts, Consistency, DriverFacts
from cinderblock.lifecycle.backup import origin
from cinderblock.lifecycle.backup.task import mover_task
from tests.support.simulation.api import Object
from tests.support.simulation.observed_builders import POLICY, a_claim, a_store, accepted, observed_backup
from tests.support.simulation.simulation import Simulation

TRACKED = {
    "app.kubernetes.io/managed-by": "Helm",
    "argocd.argoproj.io/instance": "shop",
    "argocd.argoproj.io/tracking-id": "shop:/PersistentVolumeClaim:shop/data",
    "cinderblock.io/volume-id": "someone's",
    "helm.sh/chart": "shop-1",
    "helm.toolkit.fluxcd.io/name": "shop",
    "kubectl.kubernetes.io/last-applied-configuration": '{"password": "geheim"}',
    "kustomize.toolkit.fluxcd.io/name": "shop",
    "meta.helm.sh/release-name": "shop",
    "pv.kubernetes.io/bind-completed": "yes",
    "volume.beta.kubernetes.io/storage-provisioner": "csi.example.org",
    "volume.kubernetes.io/selected-node": "node-1",
}


def with_metadata(claim: PersistentVolumeClaim, **more: Any) -> PersistentVolumeClaim:
    return claim.model_copy(update={"metadata": claim.metadata.model_copy(update=more)})


def facts(claim: PersistentVolumeClaim, **fields: Any) -> ClaimFacts:
    return origin.claim_facts(observed_backup(accepted(), **fields), claim)


def test_labels_of_tools_are_not_kept() -> None:
    own = {"app": "web", "example.org/team": "a", "cinderblock.io.example.org/x": "y", "helm.sh": "no domain"}
    kept = facts(with_metadata(a_claim(), labels=own | TRACKED, annotations=own | TRACKED))
    assert (kept.labels, kept.annotations, kept.left_out) == (own, own, [])


def test_large_values_are_omitted_and_listed() -> None:
    small = {f"small-{number}": "x" for number in range(5)}
    large = {"notes": "x" * (origin.VALUE_LIMIT + 1), "umlauts": "ü" * origin.VALUE_LIMIT}
    kept = facts(with_metadata(a_claim(), labels={"app": "web"}, annotations=small | large))
    assert (kept.labels, kept.annotations) == ({"app": "web"}, small)
    assert kept.left_out == ["notes", "umlauts"]


def test_total_size_of_values_is_limited() -> None:
    many = {f"key-{number:03d}": "x" * 1000 for number in range(256)}
    kept = facts(with_metadata(a_claim(), annotations=many))
    assert sum(map(len, kept.annotations.values())) <= origin.TOTAL_LIMIT
    assert 30 <= len(kept.annotations) <= 32
    assert len(kept.left_out) == origin.LEFT_OUT_LIMIT


@given(st.dictionaries(st.text(max_size=20), st.text(alphabet='a$"\n\u0001ü💣', max_size=3000), max_size=40))
def test_task_stays_small_for_any_claim(annotations: dict[str, str]) -> None:
    claim = with_metadata(a_claim(), annotations=annotations)
    with_them = mover_task(observed_backup(accepted()), a_store(), claim, Consistency.LIVE)
    without = mover_task(observed_backup(accepted()), a_store(), a_claim(), Consistency.LIVE)
    names = 0 if with_them.backup.claim is None else len(json.dumps(with_them.backup.claim.left_out))
    assert _bytes(with_them) - _bytes(without) <= origin.TOTAL_LIMIT + names


def test_largest_task_fits_into_a_job() -> None:
    words = {f"key-{number:03d}": "$" * 255 for number in range(128)}
    claim = with_metadata(a_claim(), annotations={f"example.org/{'k' * 50}-{n}": "$" * 4000 for n in range(60)})
    backup = accepted(spec={"metadata": words, "description": "d" * 255})
    task = mover_task(observed_backup(backup), a_store(), claim, Consistency.LIVE)
    # A Job may have 1.5 MiB (etcd), and a process 128 KiB in one variable.
    assert _bytes(task) < 300_000
    assert max(len(value.encode()) for value in task_to_env(task).values()) < 128 << 10


def _bytes(task: MoverTask) -> int:
    return sum(len(value.encode()) for value in task_to_env(task).values())


def test_requested_size_is_kept_as_written() -> None:
    claim = a_claim(resources={"requests": {"storage": "1Gi"}}, volumeAttributesClassName="gold")
    kept = facts(claim)
    assert (kept.requested_size, kept.volume_attributes_class) == ("1Gi", "gold")


@pytest.mark.parametrize(
    ("name", "sets", "found"),
    [
        ("data-web-0", ("web",), ("web", 0)),
        ("data-web-12", ("web",), ("web", 12)),
        ("data-my-web-3", ("my-web",), ("my-web", 3)),
        ("data-web-03", ("web",), (None, None)),
        ("web-0", ("web",), (None, None)),
        ("data-web", ("web",), (None, None)),
        ("data-web-0", (), (None, None)),
        ("data-web-0", ("other",), (None, None)),
    ],
)
def test_stateful_set_is_found_by_name_and_pods(
    name: str, sets: tuple[str, ...], found: tuple[str | None, int | None]
) -> None:
    kept = facts(a_claim(name=name), stateful_sets=sets)
    assert (kept.stateful_set, kept.ordinal) == found


def test_stateful_set_is_found_as_owner() -> None:
    owner = OwnerReference(kind="StatefulSet", name="web", uid="s-9")
    kept = facts(with_metadata(a_claim(name="data-web-4"), owner_references=(owner,)))
    assert (kept.stateful_set, kept.ordinal) == ("web", 4)


def test_driver_facts_exist_only_for_csi_volumes() -> None:
    csi = {"driver": "csi.example.org", "volumeHandle": "vol-1", "fsType": "xfs"}
    volume = PersistentVolume.model_validate({"spec": {"csi": csi}})
    assert origin.driver_facts(volume) == DriverFacts(name="csi.example.org", volume_handle="vol-1", fs_type="xfs")
    assert origin.driver_facts(PersistentVolume()) is None
    assert origin.driver_facts(None) is None


def test_cluster_facts_need_the_cluster_uid() -> None:
    observed = observed_backup(accepted(), cluster_uid="k-1")
    observed = replace(observed, policy=replace(POLICY, release="backups"))
    assert origin.cluster_facts(observed) == ClusterFacts(uid="k-1", release="backups")
    assert origin.cluster_facts(observed_backup(accepted())) is None


# With the real gatherers


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation() as simulation:
        simulation.objects.create("Namespace", {"metadata": {"name": "kube-system"}})
        simulation.claim("data-web-1", "first")
        yield simulation


def task_of(simulation: Simulation, kind: str, name: str) -> MoverTask:
    """Return the task of the running mover of an operation."""
    simulation.until(kind, name, "MoverRunning")
    (job,) = simulation.objects.all("Job")
    variables: list[Object] = job["spec"]["template"]["spec"]["containers"][0]["env"]
    return MoverTask.model_validate_json("".join(variable["value"] for variable in variables))


def test_task_contains_the_origin(simulation: Simulation) -> None:
    claim = simulation.get("PersistentVolumeClaim", "data-web-1")
    simulation.objects.update(claim, metadata=claim["metadata"] | {"labels": {"app": "web"} | TRACKED})
    pod = simulation.pod("web-0", "data-web-0")
    made = simulation.make("StatefulSet", {"metadata": {"name": "web", "namespace": "shop"}})
    owner = {"kind": "StatefulSet", "name": "web", "uid": made["metadata"]["uid"], "controller": True}
    simulation.objects.update(pod, metadata=pod["metadata"] | {"ownerReferences": [owner]})
    simulation.backup("full", "data-web-1")
    described = task_of(simulation, "VolumeBackup", "full").backup
    assert described.claim == ClaimFacts(labels={"app": "web"}, requested_size="1Gi", stateful_set="web", ordinal=1)
    assert described.driver == DriverFacts(name="csi.example.org")
    cluster = simulation.get("Namespace", "kube-system")["metadata"]["uid"]
    assert described.cluster == ClusterFacts(uid=cluster)
    assert described.consistency == "snapshot"


def test_copy_without_snapshot_is_live() -> None:
    with Simulation(snapshots=False) as simulation:
        simulation.claim("data", "first")
        simulation.backup("full", "data")
        described = task_of(simulation, "VolumeBackup", "full").backup
        assert (described.consistency, described.cluster) == ("live", None)


def test_restore_task_omits_the_claim(simulation: Simulation) -> None:
    claim = simulation.get("PersistentVolumeClaim", "data-web-1")
    simulation.objects.update(claim, metadata=claim["metadata"] | {"annotations": {"notes": "x" * 3000}})
    simulation.backup("full", "data-web-1")
    simulation.settle()
    simulation.restore("again", "full", name="new")
    assert task_of(simulation, "VolumeRestore", "again").backup.claim is None


def test_cluster_uid_is_read_once(simulation: Simulation) -> None:
    for name in ("one", "two"):
        simulation.backup(name, "data-web-1")
        simulation.settle()
    assert simulation.faults.requests["get", "namespaces"] == 1
