"""``cinderblock recover plan`` on a bucket in memory with real manifests."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.cli.commands import recover
from cinderblock.errors import AccessDenied, ObjectArchived, PermanentError, StoreUnreachable
from cinderblock.kube.client import KubeClient
from cinderblock.repository.verify import findings
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import KEYS
from tests.support.recovery.fake_operator import a_store
from tests.support.recovery.lost_clusters import damage_manifest, put
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi
from tests.unit.cli.conftest import Cli, Opened

FROM = ("--from", "s3://backups/some/where")
NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Create the file of the key 2024."""
    file = tmp_path / "2024"
    file.write_bytes(base64.b64encode(KEYS["2024"]))
    return file


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> ObjectsInMemory:
    """Return the objects of a cluster that may only be read."""
    objects = ObjectsInMemory(lambda: NOW)

    def refuse(write: str, _: object) -> None:
        raise AssertionError(f"a plan must not write: {write}")

    async def connect() -> KubeClient:
        return KubeClient(SimulatedApi(objects, refuse))

    monkeypatch.setattr(recover, "connect", connect)
    return objects


def claims(cli: Cli, *words: str, code: int = 0) -> dict[str, Any]:
    """Return the claims of a plan by namespace and name."""
    outcome = cli("recover", "plan", *FROM, "--output", "json", *words)
    assert outcome.code == code, outcome.err
    return {f"{claim['namespace']}/{claim['name']}": claim for claim in outcome.json["claims"]}


def objects(text: str) -> list[dict[str, Any]]:
    """Return the objects of the output, which the models of the API must accept."""
    found = list(yaml.safe_load_all(text))
    for item in found:
        (VolumeBackup if item["kind"] == "VolumeBackup" else VolumeRestore).model_validate(item)
    return found


def test_plan_needs_only_bucket_and_key(cli: Cli, opened: Opened, key: Path) -> None:
    put(opened.inside, "data", hours=1, volume="v-1", is_sealed=True)
    newest = put(opened.inside, "data", hours=2, volume="v-1", is_sealed=True)
    before = {item.key for item in opened.inside.list("")}
    found = claims(cli, "--encryption-key-file", str(key))
    assert found["shop/data"]["backup"]["id"] == newest
    assert found["shop/data"]["backup"]["recorded"]["storageClassName"] == "fast"
    assert {item.key for item in opened.inside.list("")} == before
    assert opened.locations[-1].access == "ReadOnly"


def test_table_has_a_row_for_each_claim_and_says_what_is_wrong(cli: Cli, opened: Opened) -> None:
    put(opened.inside, "data", hours=1, volume="v-1")
    put(opened.inside, "logs", hours=1, volume="v-2")
    damage_manifest(opened.inside, put(opened.inside, "data", hours=3, volume="v-1"))
    put(opened.inside, "/srv/data", namespace="", backup_id="laptop")
    outcome = cli("recover", "plan", *FROM)
    assert outcome.code == 5
    heading, *rows = outcome.out.splitlines()
    assert heading.split()[:4] == ["NAMESPACE", "CLAIM", "STATE", "BACKUP"]
    assert [row.split()[:3] for row in rows[:2]] == [["shop", "data", "planned"], ["shop", "logs", "planned"]]
    text = "\n".join(rows)
    assert "shop/data: 1 backups cannot be read, and may be newer than this one" in text
    assert "(IntegrityError)" in text
    assert "left out: backup laptop: no cluster made it" in text
    assert rows[-1] == "2 claims: 2 planned; 2.00 GiB to create"


def test_missing_key_is_no_silence(cli: Cli, opened: Opened) -> None:
    put(opened.inside, "data", volume="v-1", is_sealed=True)
    outcome = cli("recover", "plan", *FROM)
    assert outcome.code == 3
    assert "volume v-1: none of its 1 backup can be read" in outcome.out
    assert "2024" in outcome.out
    assert "no backup of a claim can be read" in outcome.err


def test_unencrypted_backup_is_refused_if_a_key_is_given(cli: Cli, opened: Opened, key: Path) -> None:
    real = put(opened.inside, "data", hours=1, volume="v-1", is_sealed=True)
    forged = put(opened.inside, "data", hours=9, volume="v-1")
    words = ("--encryption-key-file", str(key))
    found = claims(cli, *words, code=5)["shop/data"]
    assert found["backup"]["id"] == real
    assert [(each["id"], each["reason"]) for each in found["unreadable"]] == [(forged, "SealBroken")]
    assert claims(cli, *words, "--allow-unsealed")["shop/data"]["backup"]["id"] == forged


def test_as_of_and_backup_choose_older_data(cli: Cli, opened: Opened) -> None:
    ids = [put(opened.inside, "data", hours=hours, volume="v-1") for hours in range(8)]
    assert claims(cli, "--as-of", "2026-01-02T15:30:00Z")["shop/data"]["backup"]["id"] == ids[3]
    assert claims(cli, "--backup", ids[0])["shop/data"]["backup"]["id"] == ids[0]
    outcome = cli("recover", "plan", *FROM, "--backup", "nowhere")
    assert outcome.code == 3
    assert "Cannot use the backups nowhere" in outcome.err


def test_namespaces_are_filtered_and_mapped(cli: Cli, opened: Opened) -> None:
    put(opened.inside, "data")
    put(opened.inside, "data", namespace="bank")
    assert set(claims(cli, "--namespace", "bank")) == {"bank/data"}
    assert set(claims(cli, "--namespace-map", "bank=new-bank")) == {"shop/data", "new-bank/data"}
    outcome = cli("recover", "plan", *FROM, "--namespace", "shpo", "--storage-class", "fsat=slow")
    assert "nothing in the store fits --namespace shpo" in outcome.err
    assert "nothing in the store fits --storage-class fsat=slow" in outcome.err


def test_cluster_is_checked_if_asked(cli: Cli, opened: Opened, cluster: ObjectsInMemory) -> None:
    put(opened.inside, "data")
    put(opened.inside, "logs")
    put(opened.inside, "data", namespace="bank")
    a_store(cluster, "shop")
    cluster.create("PersistentVolumeClaim", {"metadata": {"name": "data", "namespace": "shop"}})
    cluster.create("StorageClass", {"metadata": {"name": "slow", "annotations": {}}})
    found = claims(cli, "--check-cluster", code=3)
    assert {name: claim["state"] for name, claim in found.items()} == {
        "bank/data": "blocked",
        "shop/data": "exists",
        "shop/logs": "blocked",
    }
    assert "namespace bank does not exist yet" in found["bank/data"]["notes"]
    assert "give --storage-class fast=NEW" in found["shop/logs"]["problems"][0]
    mapped = claims(cli, "--check-cluster", "--storage-class", "fast=slow")
    assert mapped["shop/logs"]["storageClassName"] == "slow"


def test_verify_chooses_a_backup_whose_packs_are_there(
    cli: Cli, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "SETTLE_SECONDS", 0.0)
    old = put(opened.inside, "data", hours=1, volume="v-1", content=b"old" * 1000)
    new = put(opened.inside, "data", hours=2, volume="v-1", content=b"new" * 1000)
    opened.inside.delete([item.key for item in opened.inside.list(f"some/where/packs/v-1/{new}")])
    assert claims(cli)["shop/data"]["backup"]["id"] == new
    found = claims(cli, "--verify", code=5)["shop/data"]
    assert found["backup"]["id"] == old
    assert f"backup {new} is not whole" in found["notes"][0]


def test_manifests_are_imports_and_restores_in_waves(cli: Cli, opened: Opened) -> None:
    first = put(opened.inside, "data", facts={"labels": {"app": "shop"}})
    put(opened.inside, "logs")
    words = ("-o", "manifests", "--priority", "shop/data=1", "--store", "rescue")
    outcome = cli("recover", "plan", *FROM, *words)
    assert outcome.code == 0, outcome.err
    found = objects(outcome.out)
    kinds = [item["kind"] for item in found]
    assert kinds == ["VolumeBackup", "VolumeBackup", "VolumeRestore", "VolumeRestore"]
    waves = [item["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] for item in found]
    assert waves == ["0", "0", "1", "2"]
    assert found[0]["spec"]["storeName"] == "rescue"
    assert found[2]["spec"] == {"backupId": first, "name": "data", "labels": {"app": "shop"}}
    assert outcome.out == cli("recover", "plan", *FROM, *words).out
    for kind in ("VolumeBackup", "VolumeRestore"):
        part = objects(cli("recover", "plan", *FROM, *words, "--kind", kind).out)
        assert part == [item for item in found if item["kind"] == kind]


def test_imports_are_those_of_list_as_manifests(cli: Cli, opened: Opened) -> None:
    for hours in range(3):
        put(opened.inside, "data", hours=hours, volume="v-1", backup_name="same")
    imports = {item["metadata"]["name"]: item["spec"] for item in objects(cli("list", *FROM, "--as-manifests").out)}
    [planned] = objects(cli("recover", "plan", *FROM, "-o", "manifests", "--kind", "VolumeBackup").out)
    assert imports[planned["metadata"]["name"]] == planned["spec"]


HOSTILE = {
    "backup_name": 'x"\n---\nkind: Secret',
    "storage_class": "fast\n---\nkind: Secret",
    "access_modes": ["\x1b[2J\n---", *["x" * 10_000] * 20],
    "volume_bytes": 10**300,
    "facts": {
        "labels": {"a\nb: c": "x"} | {f"k{number}": "v" * 100_000 for number in range(10)},
        "annotations": {"note": '"}\n---\nkind: Secret'},
        "requested_size": "9" * 100_000,
        "stateful_set": "\x00" * 5000,
        "ordinal": 10**300,
    },
}


def test_hostile_manifests_stay_texts(cli: Cli, opened: Opened) -> None:
    put(opened.inside, "huge", **HOSTILE)
    put(opened.inside, "odd", **HOSTILE | {"volume_bytes": 1})
    put(opened.inside, "v\x7f\u2028\nkind: Secret\x00" + "x" * 100_000)
    put(opened.inside, "data", namespace="a\nb: c")
    outcome = cli("recover", "plan", *FROM)
    assert outcome.code == 3
    assert "\x1b" not in outcome.out
    assert outcome.out.count("left out: backup") == 2
    assert all(len(line) < 2000 for line in outcome.out.splitlines())
    [backup, restore] = objects(cli("recover", "plan", *FROM, "-o", "manifests").out)
    assert (backup["kind"], restore["kind"], restore["spec"]["name"]) == ("VolumeBackup", "VolumeRestore", "odd")
    assert restore["spec"]["annotations"] == {"note": '"}\n---\nkind: Secret'}
    assert "labels" not in restore["spec"]
    as_yaml = yaml.safe_load(cli("recover", "plan", *FROM, "-o", "yaml").out)
    assert len(str(as_yaml)) < 100_000


@pytest.mark.parametrize("time", ["2026-05-04T00:00:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_odd_time_of_one_manifest_hides_no_other(cli: Cli, opened: Opened, time: str) -> None:
    """Such a time cannot be compared with others, or not converted to UTC."""
    good = put(opened.inside, "data", hours=1)
    put(opened.inside, "odd", data_timestamp=datetime.fromisoformat(time))
    for words in (("recover", "plan"), ("recover", "plan", "--as-of", "2026-01-02T15:30:00Z"), ("list",)):
        outcome = cli(*words, *FROM)
        assert outcome.code == 0, outcome.err
        assert good in outcome.out


@pytest.mark.parametrize("error", [AccessDenied("denied"), ObjectArchived("archived")])
def test_manifest_that_cannot_be_fetched_hides_no_other(cli: Cli, opened: Opened, error: PermanentError) -> None:
    put(opened.inside, "data")
    refused = put(opened.inside, "logs")
    opened.faulty.on("get", f"{refused}.manifest").raises(error).times(float("inf"))
    outcome = cli("recover", "plan", *FROM)
    assert outcome.code == 3
    assert "shop" in outcome.out
    assert f"backup {refused} ({error.reason}): {error.message}" in outcome.out


def test_failing_store_ends_the_plan_without_output(cli: Cli, opened: Opened) -> None:
    put(opened.inside, "data")
    opened.faulty.on("get").raises(StoreUnreachable("The store does not answer")).times(float("inf"))
    outcome = cli("recover", "plan", *FROM)
    assert (outcome.code, outcome.out) == (4, "")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("plan", "--retry-failed"), 3),
        (("plan", "--create-namespaces"), 3),
        (("plan", "--parallel", "2"), 3),
        (("plan", "--kind", "VolumeBackup"), 3),
        (("apply", "--check-cluster"), 3),
        (("apply", "-o", "manifests"), 3),
        (("plan", "--namespace-map", "=x"), 3),
        (("plan", "--namespace-map", "a=b", "--namespace-map", "a=c"), 3),
        (("plan", "--namespace-map", "a"), 2),
        (("plan", "--storage-class", "a=B C"), 2),
        (("plan", "--priority", "shop=high"), 2),
        (("plan", "--priority", "shop=99999999999"), 2),
        (("plan", "--priority", "shop/=1"), 2),
        (("plan", "--as-of", "2999-01-01T00:00:00Z"), 2),
        (("simulate",), 2),
    ],
)
def test_options_that_do_not_fit_are_refused(cli: Cli, words: tuple[str, ...], code: int) -> None:
    outcome = cli("recover", *words, *FROM)
    assert outcome.code == code
    assert outcome.out == ""


def test_each_manifest_is_read_once(cli: Cli, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = CountedStore(MemoryStore())
    for number in range(20):
        put(counted, "data", hours=number, volume="v-1")
    monkeypatch.setattr(opened.faulty, "get", counted.get)
    monkeypatch.setattr(opened.faulty, "list", counted.list)
    before = counted.counts.gets
    assert set(claims(cli)) == {"shop/data"}
    assert counted.counts.gets - before == 20
