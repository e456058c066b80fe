"""``cinderblock retention preview`` on a bucket and on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.cli.commands import retention
from cinderblock.cli.retention_view import why
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.retention.verdict import Judgement, Step, Verdict
from tests.support.retention.records import a_record
from tests.support.simulation.api import ObjectsInMemory, SimulatedApi
from tests.unit.cli.conftest import Cli, Opened
from tests.unit.cli.test_catalog_commands import damage, make_chain

STORE = "s3://backups"
NOW = datetime.now(UTC).replace(microsecond=0)
BUCKET = ("retention", "preview", "--from", STORE, "--min-age", "0s")


@pytest.fixture
def chain(cli: Cli, tree: Path) -> list[str]:
    """Create three backups. Returns their ids, the oldest first."""
    return make_chain(cli, tree)


def verdicts(wire: dict[str, Any]) -> dict[str, str]:
    """Return the verdict on each backup, by id."""
    return {backup["id"]: backup["verdict"] for backup in wire["backups"]}


def test_backups_of_a_bucket_are_judged_by_the_options(cli: Cli, chain: list[str]) -> None:
    [wire] = cli(*BUCKET, "--keep-last", "2", "--output", "json").json
    assert wire["of"] == "s3://backups"
    assert verdicts(wire) == dict(zip(chain, ("expire", "keep", "keep"), strict=True))
    assert wire["summary"] == {"keep": 2, "expire": 1, "wait": 0, "remove": 0, "frozen": 0, "braked": 0}
    assert [backup["why"] for backup in wire["backups"]] == ["last complete, last 1", "last 2", "no rule"]
    assert "expiresAt" not in wire["backups"][2]


def test_table_has_a_row_for_each_backup_and_a_summary(cli: Cli, chain: list[str]) -> None:
    first, heading, *rows = cli(*BUCKET, "--keep-last", "1").out.splitlines()
    assert first == "s3://backups: 1 to keep, 2 to remove"
    assert heading.split() == ["VOLUME", "BACKUP", "TIME", "VERDICT", "EXPIRES", "WHY"]
    assert len(rows) == len(chain)


def test_preview_deletes_nothing(cli: Cli, opened: Opened, chain: list[str]) -> None:
    before = {item.key for item in opened.inside.list("")}
    assert cli(*BUCKET, "--keep-last", "1", "--max-age", "0s").code == 0
    assert {item.key for item in opened.inside.list("")} == before


def test_young_backups_are_kept_by_default(cli: Cli, chain: list[str]) -> None:
    [wire] = cli("retention", "preview", "--from", STORE, "--keep-last", "1", "--output", "json").json
    assert set(verdicts(wire)) == set(chain)
    assert set(verdicts(wire).values()) == {"keep"}


RULES = "keepLast: 1\nminAge: 0s\n"
SCHEDULE = (
    "apiVersion: cinderblock.io/v1alpha1\nkind: BackupSchedule\nspec:\n  schedule: '@daily'\n"
    "  timeZone: Europe/Berlin\n  retention: {keepLast: 1, minAge: 0s}\n"
)


@pytest.mark.parametrize("text", [RULES, SCHEDULE])
def test_rules_come_from_a_file(cli: Cli, chain: list[str], tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    words = ("retention", "preview", "--from", STORE, "--rules", str(tmp_path / "rules.yaml"), "--output", "json")
    assert list(verdicts(cli(*words).json[0]).values()) == ["keep", "expire", "expire"]
    assert list(verdicts(cli(*words, "--keep-last", "2").json[0]).values()) == ["keep", "keep", "expire"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keepLast: [", "not YAML"),
        ("- 1", "the fields of spec.retention are missing"),
        ("kind: BackupSchedule\nspec: {}", "the fields of spec.retention are missing"),
        ("keepLats: 3", "unknown fields keepLats"),
        ("keepLast: -1", "keep_last|keepLast"),
        ("maxAge: 3d", "at least one rule"),
        ("keepLast: 1\ntimeZone: Europe/Atlantis", "time zone 'Europe/Atlantis'"),
        ("keepLast: 1\ntimeZone: ../../etc/passwd", "time zone"),
    ],
)
def test_file_that_is_no_rules_is_refused(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    outcome = cli("retention", "preview", "--from", STORE, "--rules", str(tmp_path / "rules.yaml"))
    assert outcome.code == 3
    assert any(part in outcome.err for part in message.split("|"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--keep-last", "1"), 3),
        (("--from", STORE, "--namespace", "shop", "--keep-last", "1"), 3),
        (("--from", STORE), 3),
        (("--schedule", "daily", "--cluster-schedule", "all"), 3),
        (("--namespace", "shop", "--volume-id", "v"), 3),
        (("--namespace", "shop", "--keep-last", "-1"), 2),
        (("--namespace", "shop", "--keep-within", "2 weeks"), 2),
        (("--namespace", "shop", "--rules", "/nonexistent"), 3),
    ],
)
def test_options_that_name_no_place_or_no_rules_are_refused(cli: Cli, words: tuple[str, ...], code: int) -> None:
    assert cli("retention", "preview", *words).code == code


def test_damaged_manifest_is_named_and_the_others_are_judged(cli: Cli, opened: Opened, chain: list[str]) -> None:
    damage(opened, chain[0], 40)
    outcome = cli(*BUCKET, "--keep-last", "1", "--output", "json")
    assert outcome.code == 5
    assert f"backup {chain[0]} could not be judged" in outcome.err
    assert set(verdicts(outcome.json[0])) == set(chain[1:])


def test_encrypted_backups_without_their_key_are_counted(cli: Cli, tree: Path, keys: dict[str, Path]) -> None:
    make_chain(cli, tree, "--encryption-key-file", str(keys["old"]))
    outcome = cli(*BUCKET, "--keep-last", "1", "--output", "json")
    assert outcome.code == 0
    assert "3 backups could not be judged: give the key" in outcome.err
    assert outcome.json[0]["backups"] == []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> ObjectsInMemory:
    """Return the objects of a cluster whose API server may only be read."""
    objects = ObjectsInMemory(lambda: NOW)

    def refuse(write: str, _: object) -> None:
        raise AssertionError(f"a preview must not write: {write}")

    async def connect() -> KubeClient:
        return KubeClient(SimulatedApi(objects, refuse))

    monkeypatch.setattr(retention, "connect", connect)
    return objects


Make = Callable[..., str]


@pytest.fixture
def make(cluster: ObjectsInMemory) -> Make:
    """Return a function that creates a backup of a schedule, and returns its UID."""

    def create(name: str, days: int, *, schedule: str = "BackupSchedule/daily", volume: str = "", **spec: Any) -> str:
        metadata = {"name": name, "namespace": "shop", "annotations": {labels.SCHEDULE_ANNOTATION: schedule}}
        made = cluster.create("VolumeBackup", {"metadata": metadata, "spec": {"volumeId": "data"} | spec})
        assert made is not None
        uid = made["metadata"]["uid"]
        created = (NOW - timedelta(days=days)).isoformat()
        status = {"id": uid, "phase": "available", "volumeId": "c-1", "dataTimestamp": created} | (
            {"volumeName": volume} if volume else {}
        )
        cluster.update(made, metadata=made["metadata"] | {"creationTimestamp": created}, status=status)
        return str(uid)

    return create


def a_schedule(cluster: ObjectsInMemory, name: str = "daily", **retention_: Any) -> None:
    """Create a BackupSchedule."""
    spec: dict[str, Any] = {"schedule": "@daily"} | ({"retention": retention_} if retention_ else {})
    cluster.create("BackupSchedule", {"metadata": {"name": name, "namespace": "shop"}, "spec": spec})


def test_copy_of_a_scheduled_backup_is_not_judged(cli: Cli, cluster: ObjectsInMemory, make: Make) -> None:
    a_schedule(cluster, keepLast=1)
    made = make("daily-data-now-0123abcd", 5, volume="data")
    make("copy", 1, volume="data")
    [wire] = cli("retention", "preview", "--namespace", "shop", "--output", "json").json
    assert verdicts(wire) == {made: "keep"}


def test_schedule_of_a_cluster_is_judged_by_its_own_rules(cli: Cli, cluster: ObjectsInMemory, make: Make) -> None:
    a_schedule(cluster, keepLast=1)
    a_schedule(cluster, "without")
    ids = [make("new", 1), make("held", 3, hold=True), make("old", 4), make("by-hand", 5, schedule="")]
    outcome = cli("retention", "preview", "--namespace", "shop", "--output", "json")
    [wire] = outcome.json
    assert wire["of"] == "shop/BackupSchedule/daily"
    assert verdicts(wire) == dict(zip(ids[:3], ("keep", "keep", "expire"), strict=True))
    assert [b["judgement"] for b in wire["backups"]] == [Judgement.LAST_WHOLE, Judgement.HELD, Judgement.EXPIRED]
    assert datetime.fromisoformat(wire["backups"][2]["expiresAt"]) >= NOW + timedelta(days=1)


def test_other_rules_can_be_tried_on_a_schedule(cli: Cli, cluster: ObjectsInMemory, make: Make) -> None:
    a_schedule(cluster, keepLast=9)
    for days in range(1, 5):
        make(f"b-{days}", days)
    words = ("retention", "preview", "--namespace", "shop", "--schedule", "daily", "--output", "json")
    assert list(verdicts(cli(*words).json[0]).values()) == ["keep"] * 4
    assert list(verdicts(cli(*words, "--keep-last", "2").json[0]).values()) == ["keep", "keep", "expire", "expire"]


def test_backup_that_a_restore_reads_is_in_use(cli: Cli, cluster: ObjectsInMemory, make: Make) -> None:
    a_schedule(cluster, keepLast=1)
    make("new", 1), make("old", 4)
    restore = {"metadata": {"name": "r", "namespace": "shop"}, "spec": {"backupId": "old", "name": "again"}}
    cluster.create("VolumeRestore", restore)
    [wire] = cli("retention", "preview", "--namespace", "shop", "--output", "json").json
    assert wire["backups"][1]["judgement"] == Judgement.IN_USE


def test_cluster_schedule_judges_its_backups_in_all_namespaces(cli: Cli, cluster: ObjectsInMemory, make: Make) -> None:
    spec = {"schedule": "@daily", "namespaceSelector": {}, "retention": {"keepLast": 1}}
    cluster.create("ClusterBackupSchedule", {"metadata": {"name": "all"}, "spec": spec})
    make("new", 1, schedule="ClusterBackupSchedule/all"), make("mine", 2)
    [wire] = cli("retention", "preview", "--cluster-schedule", "all", "--output", "json").json
    assert wire["of"] == "ClusterBackupSchedule/all"
    assert [backup["name"] for backup in wire["backups"]] == ["new"]


@pytest.mark.parametrize("words", [("--namespace", "shop"), ("--namespace", "shop", "--schedule", "other")])
def test_schedule_without_retention_or_that_is_missing_is_an_error(
    cli: Cli, cluster: ObjectsInMemory, words: tuple[str, ...]
) -> None:
    a_schedule(cluster)
    outcome = cli("retention", "preview", *words)
    assert outcome.code == 3
    assert "Cannot preview retention" in outcome.err


@pytest.mark.parametrize("judgement", Judgement)
def test_every_judgement_has_words(judgement: Judgement) -> None:
    words = why(Verdict(a_record(), Step.KEEP, judgement, ("daily 3", "weekly 1")))
    assert words.endswith("daily 3, weekly 1")
