"""``cinderblock recover apply``: what it writes to a cluster, in which order, and how a stopped run is continued."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from cinderblock.cli.commands import recover
from cinderblock.cli.recovery import patient_client, readiness
from cinderblock.errors import KubeUnavailable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.responses import RequestInfo
from tests.support.recovery.fake_operator import ApiWithOperator, FakeOperator, a_store
from tests.support.recovery.lost_clusters import PREFIX, put
from tests.support.simulation.api import ObjectsInMemory
from tests.support.store.faults import Crash
from tests.unit.cli.conftest import Cli, Opened, Outcome

NOW = datetime(2026, 5, 4, tzinfo=UTC)
PLACE = {"container": "backups", "prefix": PREFIX}


class Faults:
    """An observer that raises an error before or after one write, or before some requests.

    Attributes:
        writes: the writes that were sent, as verb, plural and name.
    """

    def __init__(self) -> None:
        self.writes: list[tuple[str, str, str | None]] = []
        self.at: int | None = None
        self.is_after = False
        self.unavailable = 0

    async def before(self, info: RequestInfo) -> None:
        """See `Observer`."""
        if self.unavailable:
            self.unavailable -= 1
            raise KubeUnavailable("no route to host")
        self._strike(info, is_after=False)
        if info.is_write:
            self.writes.append((info.verb, info.kind.plural, info.name))

    async def after(self, info: RequestInfo, status: int) -> None:
        """See `Observer`."""
        self._strike(info, is_after=True)

    def _strike(self, info: RequestInfo, *, is_after: bool) -> None:
        if info.is_write and self.is_after is is_after and self.at == len(self.writes) - is_after:
            raise Crash(f"{info.verb} {info.kind.plural}")


@dataclass
class World:
    """A new cluster with an operator, and the command line."""

    cli: Cli
    objects: ObjectsInMemory
    operator: FakeOperator
    faults: Faults

    def apply(self, *words: str) -> Outcome:
        return self.cli("recover", "apply", "--from", f"s3://backups/{PREFIX}", "--parallel", "1", *words)

    def results(self, *words: str, code: int = 0) -> dict[str, str]:
        """Return the results by claim."""
        outcome = self.apply("--output", "json", *words)
        assert outcome.code == code, (outcome.out, outcome.err)
        *_, last = outcome.out.splitlines()
        return {f"{each['namespace']}/{each['name']}": each["result"] for each in json.loads(last)}

    def made(self) -> dict[str, list[str]]:
        """Return the names of the objects that a recovery makes, by kind."""
        kinds = ("VolumeBackup", "VolumeRestore", "PersistentVolumeClaim")
        return {kind: [body["metadata"]["name"] for body in self.objects.all(kind)] for kind in kinds}


MakeWorld = Callable[[], World]


@pytest.fixture
def make_world(cli: Cli, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    """Return a function that makes a cluster with the namespace shop; the last one is that of the kubeconfig."""
    monkeypatch.setattr(patient_client, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(readiness, "STORE_SECONDS", 1)

    def make() -> World:
        objects = ObjectsInMemory(lambda: NOW)
        operator, faults = FakeOperator(objects, opened.inside, PREFIX), Faults()
        a_store(objects, "shop", **PLACE)
        objects.create("StorageClass", {"metadata": {"name": "fast"}})

        async def connect() -> KubeClient:
            return KubeClient(ApiWithOperator(operator, lambda how, item: None), observer=faults)

        monkeypatch.setattr(recover, "connect", connect)
        return World(cli, objects, operator, faults)

    return make


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """Return a new cluster."""
    return make_world()


@pytest.fixture
def ids(opened: Opened) -> dict[str, str]:
    """Store a backup of two claims. Returns the ids of the backups."""
    return {claim: put(opened.inside, claim) for claim in ("data", "logs")}


def test_claims_are_imported_and_restored_under_their_names(world: World, ids: dict[str, str]) -> None:
    assert world.results() == {"shop/data": "restored", "shop/logs": "restored"}
    names = [f"recover-{claim}-{backup[:8]}" for claim, backup in ids.items()]
    assert world.made() == {
        "VolumeBackup": ["daily-data-0", "daily-logs-0"],
        "VolumeRestore": names,
        "PersistentVolumeClaim": ["data", "logs"],
    }
    spec = world.objects.all("VolumeBackup")[0]["spec"]
    assert (spec["storeName"], spec["deletionPolicy"], spec["import"]["id"]) == ("default", "Retain", ids["data"])


def test_second_run_changes_nothing(world: World, ids: dict[str, str]) -> None:
    first = world.results()
    count = len(world.faults.writes)
    assert world.results() == first
    assert len(world.faults.writes) == count


def test_existing_claim_is_reported_and_not_touched(world: World, ids: dict[str, str]) -> None:
    world.objects.create("PersistentVolumeClaim", {"metadata": {"name": "data", "namespace": "shop"}, "spec": {"a": 1}})
    before = world.objects.get("PersistentVolumeClaim", "data", "shop")
    assert world.results(code=6) == {"shop/data": "exists", "shop/logs": "restored"}
    assert world.objects.get("PersistentVolumeClaim", "data", "shop") == before
    assert len(world.made()["VolumeRestore"]) == 1


@pytest.mark.parametrize("late", [False, True])
def test_claim_in_deletion_is_no_result(
    world: World, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Neither one that the plan has seen, nor one whose deletion begins after the plan was made."""
    finalizer = "kubernetes.io/pvc-protection"
    metadata = {"name": "data", "namespace": "shop", "finalizers": [finalizer]}
    claim = world.objects.create("PersistentVolumeClaim", {"metadata": metadata, "spec": {}})
    assert claim is not None
    prepare = readiness.prepare

    async def delete_first(*words: Any, **more: Any) -> dict[str, str]:
        world.objects.delete(claim)
        return await prepare(*words, **more)

    if late:
        monkeypatch.setattr(recover, "prepare", delete_first)
    else:
        world.objects.delete(claim)
    assert world.results(code=3) == {"shop/data": "blocked", "shop/logs": "restored"}
    monkeypatch.setattr(recover, "prepare", prepare)
    world.objects.drop_finalizer(claim, finalizer)
    assert world.results() == {"shop/data": "restored", "shop/logs": "restored"}


def test_command_names_the_cluster_that_it_writes_to(world: World, ids: dict[str, str]) -> None:
    assert "recovering into the cluster https://simulated (context lab)" in world.apply().err


@pytest.mark.parametrize(("endpoint", "is_named"), [("https://s3.inside/", True), (None, False)])
def test_other_endpoint_of_a_store_is_named(
    world: World, ids: dict[str, str], endpoint: str | None, is_named: bool
) -> None:
    store = world.objects.get("BackupStore", "default", "shop")
    assert store is not None
    if endpoint is not None:
        world.objects.update(store, spec=store["spec"] | {"endpointUrl": endpoint})
    outcome = world.apply()
    assert outcome.code == 0
    text = "the BackupStores use endpoint https://s3.inside, and the plan was read from AWS"
    assert (text in outcome.err) is is_named


def after_a_failure(world: World) -> World:
    """Let one claim fail in a first run."""
    world.operator.failing["data"] = "TargetError"
    world.results(code=3)
    world.operator.failing.clear()
    world.faults.writes.clear()
    return world


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize(("prepared", "count"), [(lambda world: world, 4), (after_a_failure, 2)])
def test_run_that_dies_at_any_write_is_continued(
    make_world: MakeWorld, ids: dict[str, str], prepared: Callable[[World], World], count: int, is_after: bool
) -> None:
    calm = prepared(make_world())
    calm.results("--retry-failed")
    assert len(calm.faults.writes) == count
    for at in range(count):
        world = prepared(make_world())
        world.faults.at, world.faults.is_after = at, is_after
        with pytest.raises(Crash):
            world.apply("--retry-failed")
        world.faults.at = None
        assert set(world.results("--retry-failed").values()) == {"restored"}, at
        assert world.made() == calm.made()


def test_running_restore_of_an_earlier_run_is_followed(world: World, ids: dict[str, str]) -> None:
    metadata = {"name": f"recover-data-{ids['data'][:8]}", "namespace": "shop"}
    world.objects.create("VolumeRestore", {"metadata": metadata, "spec": {"backupId": ids["data"], "name": "data"}})
    world.operator.steps = 20
    world.operator.work()
    assert world.results(code=3)["shop/data"] == "failed", "its backup was never imported"
    assert ("create", "volumerestores", metadata["name"]) not in world.faults.writes


def test_failed_restore_is_repeated_only_if_asked(world: World, ids: dict[str, str]) -> None:
    world.operator.failing["data"] = "IntegrityError"
    assert world.results(code=5) == {"shop/data": "failed", "shop/logs": "restored"}
    world.operator.failing.clear()
    outcome = world.apply()
    assert outcome.code == 3
    assert "--retry-failed" in outcome.out
    assert "it failed" in outcome.out
    assert world.results("--retry-failed") == {"shop/data": "restored", "shop/logs": "restored"}
    assert [verb for verb, *_ in world.faults.writes].count("delete") == 1


def test_failed_import_is_repeated_if_asked(world: World, opened: Opened, ids: dict[str, str]) -> None:
    key = next(item.key for item in opened.inside.list("") if ids["data"] in item.key and "manifest" in item.key)
    whole = opened.inside.get(key)
    world.operator.is_stopped = True
    spec = {"import": {"id": ids["data"], "manifest": key}, "deletionPolicy": "Retain"}
    made = world.objects.create(
        "VolumeBackup", {"metadata": {"name": "daily-data-0", "namespace": "shop"}, "spec": spec}
    )
    assert made is not None
    opened.inside.put(key, whole[:-1])
    world.operator.is_stopped = False
    world.operator.work()
    opened.inside.put(key, whole)
    assert world.results(code=3)["shop/data"] == "failed"
    assert world.results("--retry-failed")["shop/data"] == "restored"


def test_restored_claim_that_is_gone_is_not_restored_in_silence(world: World, ids: dict[str, str]) -> None:
    world.results()
    claim = world.objects.get("PersistentVolumeClaim", "data", "shop")
    assert claim is not None
    world.objects.update(claim, metadata=claim["metadata"] | {"finalizers": []})
    world.objects.delete(claim)
    outcome = world.apply()
    assert outcome.code == 3
    assert "which no longer exists" in outcome.out
    assert world.results("--retry-failed")["shop/data"] == "restored"


def test_backup_that_is_imported_under_another_name_is_used(world: World, opened: Opened, ids: dict[str, str]) -> None:
    key = next(item.key for item in opened.inside.list("") if ids["data"] in item.key and "manifest" in item.key)
    spec = {"import": {"id": ids["data"], "manifest": key}}
    world.objects.create("VolumeBackup", {"metadata": {"name": "mine", "namespace": "shop"}, "spec": spec})
    world.results()
    assert world.made()["VolumeBackup"] == ["daily-logs-0", "mine"]


def test_import_of_the_operator_that_was_quicker_is_used(
    world: World, opened: Opened, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import creates the VolumeBackup under another name after the command has read the namespace."""
    key = next(item.key for item in opened.inside.list("") if ids["data"] in item.key and "manifest" in item.key)
    metadata, work = {"name": "quicker", "namespace": "shop"}, world.operator.work

    def work_and_import() -> None:
        late = next((b for b in world.objects.all("VolumeBackup") if b["metadata"]["name"] == "daily-data-0"), None)
        if late is not None and not late.get("status"):
            ended = {"phase": "error", "id": ids["data"], "importedBy": late["metadata"]["uid"], "failReason": "taken"}
            ready = {"type": "Ready", "status": "False", "reason": "IdTaken", "message": "taken"}
            ready["lastTransitionTime"] = "2026-05-04T12:00:00Z"
            world.objects.update(late, status=ended | {"conditions": [ready]})
            world.objects.create(
                "VolumeBackup", {"metadata": metadata, "spec": {"import": {"id": ids["data"], "manifest": key}}}
            )
        work()

    monkeypatch.setattr(world.operator, "work", work_and_import)
    assert world.results() == {"shop/data": "restored", "shop/logs": "restored"}


@pytest.mark.parametrize("words", [("--from", "s3://backups/wrong"), ("--namespace", "shpo")])
def test_place_without_backups_is_no_complete_recovery(
    world: World, ids: dict[str, str], words: tuple[str, str]
) -> None:
    outcome = world.apply(*words)
    assert outcome.code == 3
    assert "nothing was restored: no backup of a claim can be read in s3://backups/" in outcome.err
    assert world.cli("recover", "plan", "--from", f"s3://backups/{PREFIX}", *words).code == 3


def test_taken_name_of_a_backup_gets_the_beginning_of_the_id(world: World, ids: dict[str, str]) -> None:
    metadata = {"name": "daily-data-0", "namespace": "shop"}
    taken = world.objects.create("VolumeBackup", {"metadata": metadata, "spec": {"volumeId": "other"}})
    assert taken is not None
    world.objects.update(taken, status={"phase": "available", "id": taken["metadata"]["uid"]})
    world.results()
    assert f"daily-data-0-{ids['data'][:8]}" in world.made()["VolumeBackup"]
    assert set(world.results().values()) == {"restored"}
    assert len(world.made()["VolumeBackup"]) == 3


def test_import_with_other_content_is_not_restored(world: World, opened: Opened, ids: dict[str, str]) -> None:
    """The BackupStore of the cluster leads to another copy of the bucket, in which somebody has replaced a backup."""
    key = next(item.key for item in opened.inside.list("") if ids["data"] in item.key and "manifest" in item.key)
    volume = key.split("/")[-2]
    other = Opened(type(opened.inside)(), opened.faulty, [])
    for item in opened.inside.list(""):
        other.inside.put(item.key, opened.inside.get(item.key))
    other.inside.delete([key])
    put(other.inside, "data", volume=volume, backup_id=ids["data"], content=b"forged")
    world.operator.store = other.inside
    outcome = world.apply()
    assert outcome.code == 3
    assert "has other content than the plan" in outcome.out
    assert world.made()["PersistentVolumeClaim"] == ["logs"]


def test_missing_namespaces_are_named_and_created_only_if_asked(world: World, opened: Opened) -> None:
    put(opened.inside, "data", namespace="bank")
    put(opened.inside, "data")
    outcome = world.apply()
    assert outcome.code == 3
    assert "1 namespaces do not exist: bank" in outcome.err
    assert world.faults.writes == []
    outcome = world.apply("--create-namespaces")
    assert outcome.code == 3
    assert "bank: Cannot choose a BackupStore: namespace bank has no default BackupStore" in outcome.err
    assert world.faults.writes == [("create", "namespaces", "bank")]
    a_store(world.objects, "bank", **PLACE)
    assert world.results("--create-namespaces") == {"bank/data": "restored", "shop/data": "restored"}


@pytest.mark.parametrize(
    ("spec", "words", "message"),
    [
        ({"container": "other"}, (), "BackupStore default holds s3://other/some/where, and the plan is of"),
        ({"prefix": ""}, (), "BackupStore default holds s3://backups, and the plan is of"),
        ({}, ("--store", "rescue"), "BackupStore rescue does not exist"),
    ],
)
def test_wrong_store_is_refused_before_anything_is_created(
    world: World, ids: dict[str, str], spec: dict[str, Any], words: tuple[str, ...], message: str
) -> None:
    store = world.objects.get("BackupStore", "default", "shop")
    assert store is not None
    world.objects.update(store, spec=store["spec"] | spec)
    outcome = world.apply(*words)
    assert outcome.code == 3
    assert message in outcome.err
    assert world.faults.writes == []


def test_store_that_is_not_ready_is_refused_with_its_reason(world: World, ids: dict[str, str]) -> None:
    store = world.objects.get("BackupStore", "default", "shop")
    assert store is not None
    ready = store["status"]["conditions"][0] | {"status": "False", "message": "Secret s3 is missing"}
    world.objects.update(store, status={"conditions": [ready]})
    outcome = world.apply()
    assert outcome.code == 3
    assert "waiting up to" in outcome.err
    assert "is not ready: Secret s3 is missing" in outcome.err
    assert world.faults.writes == []


def test_store_that_the_lost_cluster_still_owns_is_read(world: World, ids: dict[str, str]) -> None:
    store = world.objects.get("BackupStore", "default", "shop")
    assert store is not None
    ready = store["status"]["conditions"][0] | {"status": "False", "reason": "ForeignOwner", "message": "owned"}
    world.objects.update(store, status={"conditions": [ready]})
    assert world.results() == {"shop/data": "restored", "shop/logs": "restored"}


def test_priorities_order_the_restores_and_parallel_bounds_them(world: World, opened: Opened) -> None:
    for number in range(6):
        put(opened.inside, f"data-{number}")
    world.results("--priority", "shop/data-4=2", "--priority", "shop/data-2=1")
    assert world.operator.order == ["data-4", "data-2", "data-0", "data-1", "data-3", "data-5"]
    assert world.operator.most == 1


def test_several_claims_are_restored_at_the_same_time(make_world: MakeWorld, opened: Opened, cli: Cli) -> None:
    for number in range(6):
        put(opened.inside, f"data-{number}")
    world = make_world()
    world.operator.steps = 20
    assert cli("recover", "apply", "--from", f"s3://backups/{PREFIX}", "--parallel", "3").code == 0
    assert world.operator.most == 3


def test_api_server_that_is_away_for_a_while_is_waited_for(world: World, ids: dict[str, str]) -> None:
    calls = 0

    def away() -> None:
        nonlocal calls
        calls += 1
        if calls in (12, 18):
            world.faults.unavailable = 5

    world.operator.work, work = (lambda: (away(), work())[0]), world.operator.work  # type: ignore[method-assign]
    assert set(world.results().values()) == {"restored"}
    assert calls > 18


def test_stopped_operator_is_noticed_and_the_rest_is_listed(world: World, ids: dict[str, str]) -> None:
    world.operator.is_stopped = True
    outcome = world.apply()
    assert outcome.code == 4
    assert "Check that the operator runs" in outcome.err
    assert "1 restoring, 1 pending" in outcome.err
    world.operator.is_stopped = False
    assert set(world.results().values()) == {"restored"}


def test_mapped_class_must_exist_and_is_asked_for(world: World, ids: dict[str, str]) -> None:
    assert set(world.results("--storage-class", "fast=gone", code=3).values()) == {"blocked"}
    assert world.faults.writes == []
    world.objects.create("StorageClass", {"metadata": {"name": "slow"}})
    world.results("--storage-class", "fast=slow")
    assert {body["spec"]["storageClassName"] for body in world.objects.all("VolumeRestore")} == {"slow"}


def test_object_of_another_purpose_with_the_name_is_left_alone(world: World, ids: dict[str, str]) -> None:
    metadata = {"name": f"recover-data-{ids['data'][:8]}", "namespace": "shop"}
    world.objects.create("VolumeRestore", {"metadata": metadata, "spec": {"backupId": "x", "volumeId": "data"}})
    outcome = world.apply("--retry-failed")
    assert outcome.code == 3
    assert "does not create claim data" in outcome.out
    assert not any(verb == "delete" for verb, *_ in world.faults.writes)


def test_claim_restored_by_another_restore_is_complete(world: World, ids: dict[str, str]) -> None:
    claim = world.objects.create("PersistentVolumeClaim", {"metadata": {"name": "data", "namespace": "shop"}})
    metadata = {"name": "by-hand", "namespace": "shop"}
    made = world.objects.create("VolumeRestore", {"metadata": metadata, "spec": {"backupId": "old", "name": "data"}})
    assert claim is not None
    assert made is not None
    status = {"phase": "available", "id": made["metadata"]["uid"], "volumeId": claim["metadata"]["uid"]}
    world.objects.update(made, status=status)
    assert world.results() == {"shop/data": "restored", "shop/logs": "restored"}
    assert "by VolumeRestore by-hand, from backup old" in world.apply().out


def test_cluster_without_the_chart_is_named(world: World, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def serves(self: KubeClient, kind: object) -> bool:
        return False

    monkeypatch.setattr(KubeClient, "serves", serves)
    outcome = world.apply()
    assert outcome.code == 3
    assert "Install the chart first" in outcome.err


def share(world: World, root: str, **cluster_spec: Any) -> str:
    """Replace the BackupStore of the namespace by one of a ClusterBackupStore. Return the UID of the namespace."""
    store = world.objects.get("BackupStore", "default", "shop")
    namespace = world.objects.get("Namespace", "shop")
    assert store is not None
    assert namespace is not None
    world.objects.update(store, spec={"clusterStoreRef": {"name": "default"}})
    spec = {"container": "backups", "prefix": root, "credentialsSecretRef": {"name": "s3"}} | cluster_spec
    world.objects.create("ClusterBackupStore", {"metadata": {"name": "default"}, "spec": spec})
    return str(namespace["metadata"]["uid"])


@pytest.mark.parametrize(("root", "is_right"), [("root", True), ("other", False)])
def test_place_of_a_shared_store_is_that_of_the_earlier_namespace(
    world: World, opened: Opened, root: str, is_right: bool
) -> None:
    former = "0b0e6a52-6c0f-4d7e-9a57-0d6f0f6a1f3e"
    place = f"root/shop/{former}"
    put(opened.inside, "data", prefix=place)
    world.operator.prefix = place
    uid = share(world, root)
    cluster = world.objects.get("ClusterBackupStore", "default")
    assert cluster is not None
    words = ("recover", "apply", "--from", f"s3://backups/{place}")
    outcome = world.cli(*words)
    assert outcome.code == 3
    assert f"holds s3://backups/{root}/shop/{uid}" in outcome.err
    entry = {"namespace": "shop", "namespaceUID": uid, "uid": former}
    world.objects.update(cluster, spec=cluster["spec"] | {"formerNamespaces": [entry]})
    outcome = world.cli(*words)
    assert outcome.code == (0 if is_right else 3), outcome.err
    assert len(world.made()["PersistentVolumeClaim"]) == is_right


def test_result_that_fails_early_is_one_document(world: World, opened: Opened) -> None:
    put(opened.inside, "data", namespace="absent")
    outcome = world.apply("--output", "json")
    assert outcome.code == 3
    assert outcome.json["reason"] == "NotFound"
