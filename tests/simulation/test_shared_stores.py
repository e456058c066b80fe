"""A ClusterBackupStore in the simulation: its BackupStores, the place of each namespace, crashes, and withdrawals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cinderblock.errors import PermanentError
from cinderblock.lifecycle.observed import OperatorAccount, OperatorPolicy
from cinderblock.reasons import Reason
from tests.simulation.test_store_imports import run
from tests.support.documented_reasons import CLUSTER_STORE_REASONS
from tests.support.shared_stores import SYSTEM
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import POLICY, Simulation
from tests.support.store.faults import Crash
from tests.support.variations import pairs_in_turn

BROKER = replace(POLICY.mover, broker_url="https://broker.example:8778", broker_ca="a certificate")
SHARED = replace(POLICY, mover=BROKER, account=OperatorAccount(SYSTEM))
DEFAULT = {"cinderblock.io/is-default-store": "true"}
CRASHES = 24
"""More writes than the creation of one BackupStore and a backup in it take."""


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(policy=SHARED) as made:
        made.claim("data", "content")
        yield made


def share(simulation: Simulation, allowed: str = "All", /, **spec: Any) -> Object:
    metadata = {"name": "shared", "annotations": spec.pop("annotations", {})}
    fields = {"credentialsSecretRef": {"name": "s3"}, "allowedNamespaces": {"from": allowed}} | spec
    made = simulation.objects.create("ClusterBackupStore", {"metadata": metadata, "spec": fields})
    assert made is not None
    return made


def cluster_store(simulation: Simulation) -> Object:
    found = simulation.objects.get("ClusterBackupStore", "shared")
    assert found is not None
    return found


def change(simulation: Simulation, **spec: Any) -> None:
    found = cluster_store(simulation)
    simulation.objects.update(found, spec=found["spec"] | spec)


def moved(simulation: Simulation, uid: str = "another", **more: str) -> dict[str, str]:
    """Return the entry of formerNamespaces that gives the namespace another place."""
    present = simulation.objects.get("Namespace", NAMESPACE)
    assert present is not None
    return {"namespace": NAMESPACE, "namespaceUID": present["metadata"]["uid"], "uid": uid} | more


def own_store(simulation: Simulation, namespace: str = NAMESPACE) -> Object | None:
    return simulation.objects.get("BackupStore", "shared", namespace)


def place(simulation: Simulation) -> str:
    found = simulation.objects.get("Namespace", NAMESPACE)
    assert found is not None
    return f"{NAMESPACE}/{found['metadata']['uid']}"


def condition(item: Object, kind: str) -> tuple[str, str]:
    found = next(c for c in item["status"]["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


def conditions_message(item: Object, kind: str) -> str:
    return str(next(c["message"] for c in item["status"]["conditions"] if c["type"] == kind))


def a_shared_backup(simulation: Simulation) -> None:
    share(simulation)
    simulation.settle()
    simulation.backup("full", "data", storeName="shared")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_allowed_namespace_makes_and_restores_backups(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    key = simulation.get("VolumeBackup", "full")["status"]["manifestKey"]
    assert key.startswith(f"{place(simulation)}/backups/")
    assert simulation.stored() == simulation.stored(f"{place(simulation)}/")
    simulation.restore("back", "full", name="new")
    simulation.verify("check", "Structure", backupId="full")
    simulation.settle()
    assert simulation.content("new") == "content"
    assert simulation.phase("BackupVerification", "check") == "verified"
    assert condition(cluster_store(simulation), "StoresCreated") == ("True", "StoresCreated")
    assert cluster_store(simulation)["status"]["namespaces"] == 1


def test_incremental_backups_build_on_each_other_and_are_deleted(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    simulation.backup("more", "data", storeName="shared", incremental=True)
    simulation.settle()
    assert simulation.get("VolumeBackup", "more")["status"]["isIncremental"]
    for name in ("more", "full"):
        simulation.delete("VolumeBackup", name)
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "full")
    assert simulation.stored(f"{place(simulation)}/backups/") == []


def test_withdrawn_permission_leaves_only_deletion(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    change(simulation, allowedNamespaces={"from": "None"})
    simulation.backup("late", "data", storeName="shared")
    simulation.restore("back", "full", name="new")
    simulation.verify("check", "Structure", backupId="full")
    simulation.settle()
    for kind, name in (("VolumeBackup", "late"), ("VolumeRestore", "back"), ("BackupVerification", "check")):
        assert simulation.reason(kind, name) == "StoreNotAllowed"
    store = own_store(simulation)
    assert store is not None, "a backup needs it"
    assert condition(store, "Ready") == ("False", "StoreNotAllowed")
    simulation.delete("VolumeBackup", "late")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.stored(f"{place(simulation)}/backups/") == []
    assert own_store(simulation) is None


def test_removal_in_the_order_of_the_guide_leaves_nothing(simulation: Simulation) -> None:
    """See docs/guide/upgrade.md, Uninstall. The BackupStore would come back if the ClusterBackupStore stayed."""
    a_shared_backup(simulation)
    simulation.objects.delete(cluster_store(simulation))
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    assert condition(cluster_store(simulation), "Reconciling") == ("True", "InUse")
    simulation.delete("VolumeBackup", "full")
    simulation.delete("BackupStore", "shared")
    simulation.settle()
    assert simulation.stored(f"{place(simulation)}/backups/") == []
    assert own_store(simulation) is None
    assert simulation.objects.get("ClusterBackupStore", "shared") is None


def test_running_backup_ends_after_the_permission_is_withdrawn(simulation: Simulation) -> None:
    share(simulation)
    simulation.settle()
    simulation.backup("full", "data", storeName="shared")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    change(simulation, allowedNamespaces={"from": "None"})
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_allowed_again_means_usable_again(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    change(simulation, allowedNamespaces={"from": "None"})
    simulation.settle()
    change(simulation, allowedNamespaces={"from": "Names", "names": [NAMESPACE]})
    simulation.restore("back", "full", name="new")
    simulation.settle()
    assert simulation.content("new") == "content"


@pytest.mark.parametrize(("at", "done"), pairs_in_turn(range(CRASHES), [False, True]))
def test_crash_at_any_write_changes_no_result(at: int, done: bool) -> None:
    with Simulation(policy=SHARED) as simulation:
        simulation.claim("data", "content")
        simulation.faults.plan(at, Crash("scripted"), done=done)
        share(simulation, annotations=DEFAULT)
        simulation.settle()
        simulation.backup("full", "data", storeName="shared")
        simulation.settle()
        store = own_store(simulation)
        assert store is not None
        assert (store["spec"], store["metadata"]["annotations"]) == ({"clusterStoreRef": {"name": "shared"}}, DEFAULT)
        assert simulation.phase("VolumeBackup", "full") == "available"
        simulation.objects.delete(cluster_store(simulation))
        simulation.settle()
        assert simulation.objects.get("ClusterBackupStore", "shared") is not None
        simulation.delete("VolumeBackup", "full")
        simulation.settle()
        assert own_store(simulation) is None
        assert simulation.objects.get("ClusterBackupStore", "shared") is None
        assert simulation.stored(f"{place(simulation)}/backups/") == []


def test_store_of_a_tenant_with_the_same_name_stays(simulation: Simulation) -> None:
    body = {"metadata": {"name": "shared", "namespace": NAMESPACE}, "spec": {"credentialsSecretRef": {"name": "mine"}}}
    simulation.make("BackupStore", body)
    share(simulation, annotations=DEFAULT)
    simulation.settle()
    store = own_store(simulation)
    assert store is not None
    assert store["spec"] == body["spec"]
    assert "annotations" not in store["metadata"]
    assert condition(cluster_store(simulation), "StoresCreated") == ("False", "NameTaken")
    simulation.objects.delete(cluster_store(simulation))
    simulation.settle()
    assert own_store(simulation) is not None


def test_deleted_store_is_used_until_it_is_gone_and_comes_back(simulation: Simulation) -> None:
    """Retention keeps the last backups, so a store that took no new ones would never take one again."""
    simulation.delete("BackupStore", "default")
    share(simulation, annotations=DEFAULT)
    simulation.settle()
    simulation.backup("full", "data")
    simulation.settle()
    simulation.delete("BackupStore", "shared")
    simulation.settle()
    kept = own_store(simulation)
    assert kept is not None
    assert kept["metadata"]["deletionTimestamp"]
    assert condition(kept, "Ready") == ("True", "Answers")
    assert "VolumeBackups need it: full. It is used as before" in conditions_message(kept, "Ready")
    simulation.backup("more", "data", incremental=True)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "more") == "available"
    for name in ("more", "full"):
        simulation.delete("VolumeBackup", name)
        simulation.settle()
    again = own_store(simulation)
    assert again is not None
    assert again["metadata"]["uid"] != kept["metadata"]["uid"]
    assert condition(again, "Ready") == ("True", "Answers")


def test_deleted_store_takes_nothing_new_without_the_permission(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    simulation.delete("BackupStore", "shared")
    change(simulation, allowedNamespaces={"from": "None"})
    simulation.settle()
    simulation.backup("more", "data", storeName="shared")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "more") == "StoreNotAllowed"
    kept = own_store(simulation)
    assert kept is not None
    assert condition(kept, "Ready") == ("False", "StoreNotAllowed")
    assert "VolumeBackups need it: full" in conditions_message(kept, "Ready")


def test_result_of_a_mover_waits_for_a_store_that_is_gone(simulation: Simulation) -> None:
    share(simulation)
    simulation.settle()
    simulation.backup("full", "data", storeName="shared")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    lost = cluster_store(simulation)
    simulation.objects.update(lost, metadata=lost["metadata"] | {"finalizers": []})
    simulation.objects.delete(cluster_store(simulation))
    simulation.until("VolumeBackup", "full", "ClusterStoreNotFound")
    share(simulation)
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"


def test_shared_default_is_used_only_without_an_own_one(simulation: Simulation) -> None:
    share(simulation, annotations=DEFAULT)
    simulation.settle()
    simulation.backup("own", "data")
    simulation.settle()
    assert simulation.get("VolumeBackup", "own")["status"]["storeName"] == "default"
    simulation.delete("VolumeBackup", "own")
    simulation.settle()
    simulation.delete("BackupStore", "default")
    simulation.backup("shared", "data")
    simulation.settle()
    assert simulation.get("VolumeBackup", "shared")["status"]["storeName"] == "shared"


def test_moved_place_deletes_nothing_and_says_why(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    stored = simulation.stored()
    change(simulation, formerNamespaces=[moved(simulation)])
    simulation.restore("back", "full", name="new")
    simulation.backup("more", "data", storeName="shared", incremental=True)
    simulation.verify("check", "Structure", backupId="full")
    simulation.settle()
    assert simulation.reason("VolumeRestore", "back") == "ManifestMisplaced"
    assert simulation.reason("BackupVerification", "check") == "ManifestMisplaced"
    assert simulation.reason("VolumeBackup", "more") == "ManifestMisplaced"
    assert not simulation.get("VolumeBackup", "full")["status"].get("verification")
    assert condition(cluster_store(simulation), "Ready") == ("False", "FormerNamespaceRefused")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "ManifestMisplaced"
    assert simulation.stored() == stored
    change(simulation, formerNamespaces=[])
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "full")
    assert simulation.stored(f"{place(simulation)}/backups/") == []


def test_namespace_with_backups_elsewhere_gets_no_new_ones(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    change(simulation, formerNamespaces=[moved(simulation)])
    simulation.backup("at-once", "data", storeName="shared")
    simulation.settle()
    simulation.backup("later", "data", storeName="shared")
    simulation.settle()
    assert [simulation.reason("VolumeBackup", name) for name in ("at-once", "later")] == ["ManifestMisplaced"] * 2
    assert simulation.stored(f"{NAMESPACE}/another/") == []


@pytest.mark.parametrize("declared", [[], ["another"]], ids=["server", "entry"])
def test_backup_right_after_a_move_is_not_accepted(simulation: Simulation, declared: list[str]) -> None:
    """The BackupStore does not show the move yet: there may be a thousand of them."""
    share(simulation, formerNamespaces=[moved(simulation, uid) for uid in declared])
    simulation.settle()
    simulation.backup("full", "data", storeName="shared")
    simulation.settle()
    assert simulation.phase("VolumeBackup", "full") == "available"
    stored = simulation.stored()
    edits: dict[str, Any] = {"formerNamespaces": []} if declared else {"endpointUrl": "https://new.example.org"}
    change(simulation, **edits)
    simulation.backup("at-once", "data", storeName="shared")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "at-once") == "ManifestMisplaced"
    assert simulation.stored() == stored


def test_lost_status_in_a_moved_place_deletes_nothing(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    stored = simulation.stored()
    change(simulation, formerNamespaces=[moved(simulation)])
    simulation.erase_status("VolumeBackup", "full")
    simulation.settle()
    assert "its status was lost" in conditions_message(simulation.get("VolumeBackup", "full"), "Ready")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "ManifestMisplaced"
    assert simulation.stored() == stored
    change(simulation, formerNamespaces=[])
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "full")
    assert simulation.stored(f"{place(simulation)}/backups/") == []


def test_unfinished_backup_in_a_moved_place_is_deleted_only_on_request(simulation: Simulation) -> None:
    share(simulation)
    change(simulation, formerNamespaces=[moved(simulation)])
    simulation.settle()
    simulation.backup("full", "data", storeName="shared")
    simulation.until("VolumeBackup", "full", "MoverRunning")
    simulation.erase_status("VolumeBackup", "full")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "ManifestMisplaced"
    found = simulation.get("VolumeBackup", "full")
    metadata = found["metadata"] | {"annotations": {"cinderblock.io/let-go": "leave-data"}}
    simulation.objects.update(found, metadata=metadata)
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "full")


def test_findings_in_a_moved_place_say_nothing_about_the_backup(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    simulation.break_manifest("full")
    simulation.verify("check", "Structure", backupId="full")
    simulation.until("BackupVerification", "check", "MoverRunning")
    change(simulation, formerNamespaces=[moved(simulation)])
    simulation.settle()
    assert simulation.reason("BackupVerification", "check") == "ManifestMisplaced"
    assert not simulation.get("VolumeBackup", "full")["status"].get("verification")


def test_other_server_deletes_nothing_until_it_is_declared(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    stored = simulation.stored()
    change(simulation, endpointUrl="https://new.example.org")
    simulation.settle()
    simulation.delete("VolumeBackup", "full")
    simulation.backup("more", "data", storeName="shared")
    simulation.settle()
    assert [simulation.reason("VolumeBackup", name) for name in ("full", "more")] == ["ManifestMisplaced"] * 2
    assert condition(cluster_store(simulation), "Ready") == ("False", "FormerNamespaceRefused")
    assert simulation.stored() == stored
    recorded = simulation.get("VolumeBackup", "full")["status"]["storePlace"]
    found = cluster_store(simulation)
    metadata = found["metadata"] | {"annotations": {"cinderblock.io/moved-from": recorded}}
    simulation.objects.update(found, metadata=metadata)
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "full")
    assert simulation.stored(f"{place(simulation)}/backups/") == []


def test_place_of_a_living_namespace_is_given_to_nobody(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    other = simulation.objects.create("Namespace", {"metadata": {"name": "other"}})
    assert other is not None
    change(simulation, formerNamespaces=[moved(simulation, other["metadata"]["uid"], name="other")])
    simulation.backup("more", "data", storeName="shared")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "more") == "FormerNamespaceRefused"
    assert condition(cluster_store(simulation), "Ready") == ("False", "FormerNamespaceRefused")
    assert "other" in conditions_message(cluster_store(simulation), "Ready")


def test_expired_backup_waits_in_a_moved_place(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    stored = simulation.stored()
    change(simulation, formerNamespaces=[moved(simulation)])
    simulation.expire("full")
    simulation.settle()
    assert simulation.exists("VolumeBackup", "full")
    assert simulation.stored() == stored


def test_backup_cannot_choose_another_bucket(simulation: Simulation) -> None:
    share(simulation)
    simulation.settle()
    simulation.backup("full", "data", storeName="shared", container="others")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "StoreNotAllowed"


def policy_with(broker_url: str, broker_ca: str) -> OperatorPolicy:
    return replace(SHARED, mover=replace(BROKER, broker_url=broker_url, broker_ca=broker_ca))


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (policy_with("", ""), "BrokerDisabled"),
        (policy_with(BROKER.broker_url, ""), "BrokerUnavailable"),
    ],
)
def test_no_mover_starts_without_the_broker(policy: OperatorPolicy, reason: str) -> None:
    with Simulation(policy=policy) as simulation:
        simulation.claim("data", "content")
        share(simulation)
        simulation.settle()
        simulation.backup("full", "data", storeName="shared")
        simulation.settle()
        assert simulation.reason("VolumeBackup", "full") == reason
        assert condition(cluster_store(simulation), "Ready") == ("False", reason)
        assert simulation.objects.all("Job") == []


def test_missing_cluster_store_is_named(simulation: Simulation) -> None:
    metadata = {"name": "shared", "namespace": NAMESPACE}
    simulation.make("BackupStore", {"metadata": metadata, "spec": {"clusterStoreRef": {"name": "shared"}}})
    simulation.backup("full", "data", storeName="shared")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "full") == "ClusterStoreNotFound"


def test_refused_creation_is_reported_and_repeated(simulation: Simulation) -> None:
    simulation.rejections["BackupStore"] = (403, "a policy of the cluster")
    share(simulation)
    simulation.settle()
    assert condition(cluster_store(simulation), "StoresCreated") == ("False", "StoresNotCreated")
    simulation.rejections.clear()
    simulation.settle()
    assert own_store(simulation) is not None


def test_many_namespaces_are_served_step_by_step(simulation: Simulation) -> None:
    names = [f"n-{number:03}" for number in range(60)]
    for name in names:
        simulation.objects.create("Namespace", {"metadata": {"name": name}})
    share(simulation)
    simulation.settle()
    assert "CreatingStores" in simulation.reasons
    assert all(own_store(simulation, name) for name in names)
    assert condition(cluster_store(simulation), "StoresCreated") == ("True", "StoresCreated")


def test_server_that_accepts_unsigned_headers_gets_no_movers(simulation: Simulation) -> None:
    simulation.store.error = PermanentError("it accepts them", reason=Reason.UNSIGNED_HEADERS_ACCEPTED)
    share(simulation)
    simulation.settle()
    assert condition(cluster_store(simulation), "Ready") == ("False", "UnsignedHeadersAccepted")


def test_every_reason_of_cluster_stores_has_a_test_here() -> None:
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    assert not {reason for reason in CLUSTER_STORE_REASONS if f'"{reason}"' not in text and reason.name not in text}


def test_access_of_the_cluster_store_holds_for_its_namespaces(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    stored = simulation.stored()
    change(simulation, access="ReadOnly")
    simulation.backup("late", "data", storeName="shared")
    simulation.delete("VolumeBackup", "full")
    simulation.settle()
    assert simulation.reason("VolumeBackup", "late") == "StoreReadOnly"
    assert "Ask an administrator" in simulation.get("VolumeBackup", "late")["status"]["failReason"]
    assert simulation.reason("VolumeBackup", "full") == "StoreReadOnly"
    assert simulation.stored() == stored
    store = own_store(simulation)
    assert store is not None
    assert [item["status"]["access"] for item in (store, cluster_store(simulation))] == ["ReadOnly", "ReadOnly"]
    assert condition(store, "Ready") == ("True", "Answers")
    assert "read-only" in conditions_message(store, "Ready")
    change(simulation, access="ReadWrite")
    simulation.settle()
    assert not simulation.exists("VolumeBackup", "full")
    assert simulation.stored(f"{place(simulation)}/backups/") == []


def test_each_namespace_imports_from_its_place_and_releases_stay(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    simulation.backup("gone", "data", storeName="shared")
    simulation.settle()
    other = simulation.stored(f"{place(simulation)}/backups/")[0]
    foreign = other.replace(f"{place(simulation)}/", "another/uid/")
    simulation.cluster.store.put(foreign, simulation.cluster.store.get(other))
    for name in ("full", "gone"):
        simulation.remove_by_force(name)
    change(simulation, **{"import": {"mode": "Always"}})
    run(simulation)
    assert [item["metadata"]["name"] for item in simulation.objects.all("VolumeBackup")] == ["full", "gone"]
    simulation.delete("VolumeBackup", "gone")
    run(simulation, 25)
    assert [item["metadata"]["name"] for item in simulation.objects.all("VolumeBackup")] == ["full"]
    store = own_store(simulation)
    assert store is not None
    assert len(store["status"]["released"]) == 1
    assert store["status"]["inventory"]["backups"] == 2


def test_administrator_reads_where_to_accept_the_loss_of_a_shared_place(simulation: Simulation) -> None:
    a_shared_backup(simulation)
    change(simulation, **{"import": {"mode": "Always"}})
    simulation.remove_by_force("full")
    run(simulation)
    simulation.cluster.store.delete(simulation.stored(f"{place(simulation)}/backups/"))
    run(simulation, 15)
    store = own_store(simulation)
    assert store is not None
    assert condition(store, "Imported") == ("False", Reason.INVENTORY_SHRUNK)
    assert "set spec.import.mode of ClusterBackupStore shared to Never" in conditions_message(store, "Imported")
    assert simulation.exists("VolumeBackup", "full")
