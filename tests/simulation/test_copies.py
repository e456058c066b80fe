"""spec.copies of a BackupStore: each available backup gets a copy, and the copy alone restores it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cinderblock.api.mover import MoverReport
from cinderblock.errors import StoreUnreachable
from cinderblock.lifecycle.mover.suspension import QUEUE_LABEL
from cinderblock.lifecycle.observed import OperatorPolicy
from tests.support.mover.backups import key_ring
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.real_movers import RealMovers
from tests.support.simulation.simulation import POLICY, Simulation, api_outage, summary
from tests.support.store.faults import Crash, FaultyStore
from tests.support.variations import some

COPIED = [{"storeName": "offsite"}]


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with started() as simulation:
        yield simulation


def started(policy: OperatorPolicy = POLICY, *, sealed: bool = True) -> Simulation:
    """Return a cluster with a volume, and with a second store in another place."""
    simulation = Simulation(cluster=RealMovers, policy=policy)
    simulation.claim("data", "shop-one")
    if sealed:
        simulation.encrypt(key_ring())
    spec = simulation.get("BackupStore", "default")["spec"]
    offsite = {"metadata": {"name": "offsite", "namespace": NAMESPACE}, "spec": spec | {"prefix": "off/site"}}
    simulation.make("BackupStore", offsite)
    return simulation


def configure(simulation: Simulation, name: str = "default", **spec: Any) -> None:
    store = simulation.get("BackupStore", name)
    simulation.objects.update(store, spec=store["spec"] | spec)


def back_up(simulation: Simulation, *names: str) -> None:
    """Make a full backup and incremental ones."""
    for number, name in enumerate(names):
        simulation.write("data", f"shop-{name}")
        simulation.backup(name, "data", incremental=number > 0)
        simulation.settle()


def copies_of(simulation: Simulation, backup: str) -> list[Object]:
    found: list[Object] = simulation.get("VolumeBackup", backup)["status"].get("copies", [])
    return found


def store_status(simulation: Simulation) -> Object:
    status: Object = simulation.get("BackupStore", "default")["status"]
    return status


def numbers(simulation: Simulation) -> tuple[int, int, int]:
    (known,) = store_status(simulation)["copyTargets"]
    return known["copied"], known["pending"], known["failed"]


def condition(simulation: Simulation) -> tuple[str, str]:
    found = next((c for c in store_status(simulation)["conditions"] if c["type"] == "Copied"), None)
    return (found["status"], found["reason"]) if found is not None else ("", "")


def jobs(simulation: Simulation) -> list[Object]:
    found = simulation.objects.all("Job")
    return [job for job in found if job["metadata"]["ownerReferences"][0]["kind"] == "BackupStore"]


def run(simulation: Simulation, minutes: float) -> None:
    end = simulation.now + timedelta(minutes=minutes)
    while simulation.now < end:
        simulation.step()


def stored_in(simulation: Simulation, prefix: str) -> dict[str, bytes]:
    store = simulation.cluster.store
    return {info.key.removeprefix(prefix): store.get(info.key) for info in store.list(prefix)}


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "unsealed"])
def test_copy_restores_after_the_primary_is_destroyed(sealed: bool) -> None:
    with started(sealed=sealed) as simulation:
        configure(simulation, copies=COPIED)
        back_up(simulation, "full", "child")
        assert condition(simulation) == ("True", "Copied")
        assert numbers(simulation) == (2, 0, 0)
        (copy,) = copies_of(simulation, "child")
        assert (copy["storeName"], "failReason" in copy, bool(copy["time"])) == ("offsite", False, True)
        primary = stored_in(simulation, "packs/") | stored_in(simulation, "backups/")
        copied = stored_in(simulation, "off/site/packs/") | stored_in(simulation, "off/site/backups/")
        assert copied == primary
        assert not jobs(simulation)
        assert "copyMover" not in store_status(simulation)
        backup_id = simulation.get("VolumeBackup", "child")["status"]["id"]
        lose_primary(simulation)
        simulation.import_backup("again", backup_id, storeName="offsite")
        simulation.restore("back", "again", name="new")
        simulation.settle()
        claim = simulation.get("PersistentVolumeClaim", "new")
        volume = simulation.cluster.volume_of(claim)
        assert volume is not None
        assert simulation.cluster.contents[volume["metadata"]["name"]] == "shop-child"


def lose_primary(simulation: Simulation) -> None:
    """Destroy all objects of the primary, and the VolumeBackups with it."""
    for name in [item["metadata"]["name"] for item in simulation.objects.all("VolumeBackup")]:
        simulation.remove_by_force(name)
    configure(simulation, copies=[])
    store = simulation.cluster.store
    store.delete([info.key for prefix in ("packs/", "backups/") for info in store.list(prefix)])


def test_backups_from_before_are_copied_in_one_job(simulation: Simulation) -> None:
    back_up(simulation, "full", "child", "third")
    configure(simulation, copies=COPIED)
    while not jobs(simulation):
        simulation.step()
    (job,) = jobs(simulation)
    pod = job["spec"]["template"]["spec"]
    mounted = [volume["name"] for volume in pod["volumes"]]
    assert mounted == ["credentials", "encryption", "target-credentials", "target-encryption"]
    assert pod["containers"][0]["securityContext"]["runAsNonRoot"]
    simulation.settle()
    assert numbers(simulation) == (3, 0, 0)
    assert {copy["time"] for name in ("full", "child", "third") for copy in copies_of(simulation, name)}


def test_deleted_backup_leaves_its_copy(simulation: Simulation) -> None:
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    before = stored_in(simulation, "off/site/")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert stored_in(simulation, "off/site/") == before
    assert not stored_in(simulation, "backups/")


def test_damaged_backup_is_not_copied_and_holds_up_no_other(simulation: Simulation) -> None:
    back_up(simulation, "full")
    simulation.break_manifest("full")
    simulation.write("data", "shop-other")
    simulation.backup("other", "data")
    simulation.settle()
    configure(simulation, copies=COPIED)
    run(simulation, 10)
    assert numbers(simulation) == (1, 1, 1)
    assert condition(simulation) == ("False", "Copying")
    (failed,) = copies_of(simulation, "full")
    assert "time" not in failed
    assert failed["failReason"].startswith("IntegrityError: ")
    assert copies_of(simulation, "other")[0]["time"]


def test_silent_target_is_tried_less_and_less_often(simulation: Simulation) -> None:
    target = FaultyStore(simulation.cluster.store)
    target.on("list", "off/site").raises(StoreUnreachable("away")).times(float("inf"))
    assert isinstance(simulation.cluster, RealMovers)
    simulation.cluster.copies = target
    back_up(simulation, "full")
    configure(simulation, copies=[{"storeName": "offsite", "lateAfter": "1h"}])
    run(simulation, 200)
    (known,) = store_status(simulation)["copyTargets"]
    assert 5 < known["failures"] < 12
    assert "StoreUnreachable" in known["failReason"]
    assert condition(simulation) == ("False", "CopiesLate")
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert next(c for c in store_status(simulation)["conditions"] if c["type"] == "Ready")["status"] == "True"
    simulation.cluster.copies = None
    run(simulation, 70)
    assert condition(simulation) == ("True", "Copied")
    (known,) = store_status(simulation)["copyTargets"]
    assert (known["failures"], "failReason" in known, "retryAt" in known) == (0, False, False)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"copies": [{"storeName": "nowhere"}]}, "StoreNotFound"),
    "itself": ({"copies": [{"storeName": "default"}]}, "CopyNotSupported"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_impossible_target_is_refused(simulation: Simulation, name: str) -> None:
    spec, reason = REFUSALS[name]
    configure(simulation, **spec)
    back_up(simulation, "full")
    assert condition(simulation) == ("False", reason)
    assert not jobs(simulation)


def test_read_only_target_gets_nothing_until_it_may_change(simulation: Simulation) -> None:
    configure(simulation, "offsite", access="ReadOnly")
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    assert condition(simulation) == ("False", "StoreReadOnly")
    configure(simulation, "offsite", access="ReadWrite")
    run(simulation, 5)
    assert condition(simulation) == ("True", "Copied")


def test_shared_target_is_refused(simulation: Simulation) -> None:
    simulation.objects.update(simulation.get("BackupStore", "offsite"), spec={"clusterStoreRef": {"name": "offsite"}})
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    assert condition(simulation)[0] == "False"
    assert condition(simulation)[1] in ("CopyNotSupported", "ClusterStoreNotFound")
    assert not jobs(simulation)


def test_moved_target_gets_the_copies_again(simulation: Simulation) -> None:
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    configure(simulation, "offsite", prefix="else/where")
    run(simulation, 5)
    assert numbers(simulation) == (1, 0, 0)
    assert stored_in(simulation, "else/where/") == stored_in(simulation, "off/site/")


def test_copy_that_somebody_deletes_is_made_again_when_it_is_compared(simulation: Simulation) -> None:
    configure(simulation, copies=[COPIED[0] | {"checkEvery": "7d"}])
    back_up(simulation, "full", "child")
    before = stored_in(simulation, "off/site/")
    store = simulation.cluster.store
    store.delete([info.key for info in store.list("off/site/packs/")])
    simulation.advance(6 * 86400)
    run(simulation, 5)
    assert stored_in(simulation, "off/site/") != before
    simulation.advance(86400)
    run(simulation, 5)
    assert stored_in(simulation, "off/site/") == before
    assert numbers(simulation) == (2, 0, 0)


def test_lost_original_keeps_its_copy_and_is_reported(simulation: Simulation) -> None:
    configure(simulation, copies=[COPIED[0] | {"checkEvery": "7d"}])
    back_up(simulation, "full")
    before, made = stored_in(simulation, "off/site/"), copies_of(simulation, "full")[0]["time"]
    store = simulation.cluster.store
    store.delete([info.key for info in store.list("backups/")])
    simulation.advance(7 * 86400)
    run(simulation, 5)
    assert stored_in(simulation, "off/site/") == before
    (copy,) = copies_of(simulation, "full")
    assert (copy["time"], copy["failReason"].split(":")[0]) == (made, "ManifestMissing")
    assert numbers(simulation) == (0, 1, 1)


def test_forged_job_copies_nothing_and_is_removed(simulation: Simulation) -> None:
    store = simulation.get("BackupStore", "default")["metadata"]
    owner = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "BackupStore", "name": "default", "uid": store["uid"]}
    back_up(simulation, "full")
    name = f"cinderblock-{store['uid']}"
    labels = {"app.kubernetes.io/managed-by": "cinderblock", "cinderblock.io/owner-uid": store["uid"]}
    metadata = {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner], "labels": labels}
    job = simulation.make("Job", {"metadata": metadata, "spec": {"suspend": True}})
    report = MoverReport(succeeded=True, copies=[])
    simulation.make(
        "Pod",
        {
            "metadata": {"name": "forged", "namespace": NAMESPACE, "labels": labels},
            "status": {
                "phase": "Succeeded",
                "containerStatuses": [
                    {
                        "name": "mover",
                        "state": {"terminated": {"exitCode": 0, "message": report.model_dump_json(by_alias=True)}},
                    }
                ],
            },
        },
    )
    configure(simulation, copies=COPIED)
    run(simulation, 5)
    assert simulation.objects.by_uid(job["metadata"]["uid"]) is None
    assert numbers(simulation) == (1, 0, 0)
    assert stored_in(simulation, "off/site/backups/") == stored_in(simulation, "backups/")


def test_withdrawn_rule_ends_the_mover_and_its_status(simulation: Simulation) -> None:
    configure(simulation, copies=COPIED)
    back_up(simulation, "full")
    simulation.cluster.no_node = "no nodes"
    configure(simulation, "offsite", prefix="else/where")
    while not jobs(simulation):
        simulation.step()
    configure(simulation, copies=[])
    run(simulation, 5)
    assert not jobs(simulation)
    assert condition(simulation) == ("", "")
    assert not store_status(simulation).get("copyTargets")
    assert "copyMover" not in store_status(simulation)


def test_mover_that_never_starts_is_given_up_for_a_while(simulation: Simulation) -> None:
    back_up(simulation, "full")
    simulation.cluster.no_node = "no nodes"
    configure(simulation, copies=COPIED)
    run(simulation, 20)
    (known,) = store_status(simulation)["copyTargets"]
    assert (known["failures"], known["failReason"].split(":")[0]) == (1, "MoverUnschedulable")
    simulation.cluster.no_node = ""
    run(simulation, 60)
    assert condition(simulation) == ("True", "Copied")


@pytest.mark.parametrize("end", ["dies", "dies after its work", "fails for now", "fails for good", "is evicted"])
def test_mover_that_ends_early_is_repeated(simulation: Simulation, end: str) -> None:
    back_up(simulation, "full", "child")
    configure(simulation, copies=COPIED)
    while not (moves := [move for move in simulation.cluster.moves() if move.name.endswith(f" {end}")]):
        simulation.step()
    simulation.move(moves[0])
    simulation.settle()
    _assert_all_copied(simulation)


def test_deleted_store_takes_its_mover_with_it(simulation: Simulation) -> None:
    back_up(simulation, "full")
    configure(simulation, copies=COPIED)
    while not jobs(simulation):
        simulation.step()
    simulation.delete("BackupStore", "default")
    run(simulation, 2)
    assert not jobs(simulation)
    assert simulation.get("BackupStore", "default")["metadata"]["finalizers"]
    simulation.delete("VolumeBackup", "full")
    run(simulation, 5)
    assert not [item for item in simulation.objects.all("BackupStore") if item["metadata"]["name"] == "default"]


def test_job_that_a_queue_holds_back_takes_no_slot(simulation: Simulation) -> None:
    back_up(simulation, "full")
    configure(simulation, copies=COPIED)
    while not jobs(simulation):
        simulation.step()
    (job,) = jobs(simulation)
    held = job["metadata"] | {"labels": job["metadata"]["labels"] | {QUEUE_LABEL: "queue"}}
    simulation.objects.update(job, metadata=held, spec=job["spec"] | {"suspend": True})
    spec = simulation.get("BackupStore", "default")["spec"]
    other = {
        "metadata": {"name": "other", "namespace": NAMESPACE},
        "spec": spec | {"prefix": "other", "copies": COPIED},
    }
    simulation.make("BackupStore", other)
    simulation.claim("second", "shop-two")
    simulation.backup("second", "second", storeName="other")
    run(simulation, 10)
    assert [copy["storeName"] for copy in copies_of(simulation, "second")] == ["offsite"]
    assert not copies_of(simulation, "full")


def test_backups_go_before_copies() -> None:
    with started(replace(POLICY, mover=replace(POLICY.mover, limit=1, namespace_limit=1))) as simulation:
        back_up(simulation, "full")
        simulation.cluster.no_node = "no nodes"
        simulation.claim("other", "shop-x")
        for volume in ("data", "other"):
            simulation.backup(f"next-{volume}", volume)
        run(simulation, 1)
        configure(simulation, copies=COPIED)
        run(simulation, 5)
        assert not jobs(simulation)
        simulation.cluster.no_node = ""
        simulation.settle()
        assert condition(simulation) == ("True", "Copied")


WRITES = 14
"""More writes than the copies of two backups take."""


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", some(range(WRITES), step=5))
def test_operator_that_dies_at_any_write_copies_all(at: int, done: bool) -> None:
    with started() as simulation:
        back_up(simulation, "full", "child")
        configure(simulation, copies=COPIED)
        simulation.faults.plan(at, Crash("scripted"), done=done)
        simulation.settle()
        _assert_all_copied(simulation)


@pytest.mark.parametrize("at", some(range(WRITES), step=5))
def test_lost_answer_to_any_write_copies_all(at: int) -> None:
    with started() as simulation:
        back_up(simulation, "full", "child")
        configure(simulation, copies=COPIED)
        simulation.faults.plan(at, api_outage(), done=True)
        simulation.settle()
        _assert_all_copied(simulation)


def test_writes_that_the_crash_tests_cover(simulation: Simulation) -> None:
    back_up(simulation, "full", "child")
    before = simulation.faults.writes
    configure(simulation, copies=COPIED)
    simulation.settle()
    assert 6 < simulation.faults.writes - before <= WRITES


def _assert_all_copied(simulation: Simulation) -> None:
    assert condition(simulation) == ("True", "Copied")
    assert numbers(simulation) == (2, 0, 0)
    assert not jobs(simulation)
    assert not summary(simulation)["children"]
    assert stored_in(simulation, "off/site/backups/") == stored_in(simulation, "backups/")
    assert stored_in(simulation, "off/site/packs/") == stored_in(simulation, "packs/")
    assert all(copies_of(simulation, name)[0]["time"] for name in ("full", "child"))
