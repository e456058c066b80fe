"""``cinderblock list --as-manifests``: VolumeBackups that import what a store holds."""

from __future__ import annotations

import itertools
import uuid
from contextlib import closing, nullcontext
from datetime import timedelta
from typing import Any

import pytest
import yaml

from cinderblock.api.layout import manifest_key
from cinderblock.api.mover import MoverOperation
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.archiver.archiver import run_backup
from cinderblock.cli.commands import list as list_command
from cinderblock.errors import StoreUnreachable, UnsupportedFormat
from cinderblock.format.manifest.header import HEADER_BYTES
from cinderblock.lifecycle.imports.names import NAME, ImportNames
from cinderblock.repository import catalog as catalog_module
from cinderblock.repository.catalog import Catalog
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import NOON, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.unit.cli.conftest import Cli, Opened

FROM = ("--from", "s3://backups/some/where")
PREFIX = "some/where"
_count = itertools.count()


def put(
    store: ObjectStore,
    name: str,
    *,
    volume: str = "",
    namespace: str = "shop",
    hours: int = 0,
    keys: bool = False,
    backup_id: str = "",
    volume_name: str = "data",
) -> str:
    """Store a backup as a mover in a cluster does. Return its id."""
    volume = volume or str(uuid.UUID(int=next(_count)))
    backup_id = backup_id or str(uuid.uuid4())
    backups = Backups(store, key_ring("2024") if keys else None)
    task = backups.task(MoverOperation.BACKUP, backup_id)
    facts = {
        "backup_name": name,
        "namespace": namespace,
        "volume_id": volume,
        "volume_name": volume_name,
        "data_timestamp": NOON + timedelta(hours=hours),
    }
    task = task.model_copy(
        update={"backup": task.backup.model_copy(update=facts), "manifest": manifest_key(PREFIX, volume, backup_id)}
    )
    run_backup(task, store, backups.keys, opener=lambda mode, path: nullcontext(MemorySource()))
    return backup_id


def objects(text: str) -> list[dict[str, Any]]:
    """Return the objects of the output, which the model of the API must accept."""
    found = list(yaml.safe_load_all(text))
    for item in found:
        VolumeBackup.model_validate(item)
    return found


def listed(cli: Cli, *more: str) -> list[dict[str, Any]]:
    outcome = cli("list", *FROM, "--as-manifests", *more)
    assert outcome.code == 0, outcome.err
    return objects(outcome.out)


def names(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in found]


def test_object_imports_the_backup_and_retains_its_data(cli: Cli, opened: Opened) -> None:
    backup_id = put(opened.inside, "daily-data", volume="v-1")
    [found] = listed(cli)
    assert found == {
        "apiVersion": "cinderblock.io/v1alpha1",
        "kind": "VolumeBackup",
        "metadata": {"name": "daily-data", "namespace": "shop"},
        "spec": {
            "import": {"id": backup_id, "manifest": manifest_key(PREFIX, "v-1", backup_id)},
            "deletionPolicy": "Retain",
        },
    }
    assert listed(cli, "--store-name", "rescue")[0]["spec"]["storeName"] == "rescue"


def test_taken_name_gets_the_beginning_of_the_id(cli: Cli, opened: Opened) -> None:
    first, second = (put(opened.inside, "daily", volume=f"v-{number}") for number in range(2))
    put(opened.inside, "daily", volume="v-3", namespace="other")
    assert names(listed(cli)) == [("shop", "daily"), ("shop", f"daily-{second[:8]}"), ("other", "daily")]
    assert names(listed(cli)) == names(listed(cli)), f"the names follow from the store, also that of {first}"


@pytest.mark.parametrize("name", ["", "My Backup", "trailing-", "UPPER", "a..b", "x" * 254, "späte", "---", "a/b"])
def test_impossible_name_becomes_a_legal_one_with_the_id(cli: Cli, opened: Opened, name: str) -> None:
    backup_id = put(opened.inside, name)
    [(_, made)] = names(listed(cli))
    assert made.endswith(f"-{backup_id[:8]}")
    assert NAME.fullmatch(made)
    assert len(made) <= 253


def test_third_backup_of_the_same_name_and_id_prefix_has_a_name() -> None:
    made = ImportNames()
    found = [made.name("shop", f"backups/v/{n}.manifest", f"aaaaaaaa-{n}", "daily") for n in range(3)]
    assert found[:2] == ["daily", "daily-aaaaaaaa"]
    assert found[2].startswith("daily-")
    assert len(set(found)) == 3


def test_newest_of_each_volume_is_enough_if_asked(cli: Cli, opened: Opened) -> None:
    for hours in (2, 5, 3):
        put(opened.inside, f"data-{hours}", volume="v-1", hours=hours)
    put(opened.inside, "other-1", volume="v-2", hours=1)
    assert names(listed(cli, "--newest")) == [("shop", "data-5"), ("shop", "other-1")]
    assert names(listed(cli, "--newest", "--volume-id", "v-2")) == [("shop", "other-1")]
    assert len(cli("list", *FROM, "--newest").out.splitlines()) == 3


def test_namespace_selects_and_completes(cli: Cli, opened: Opened) -> None:
    put(opened.inside, "theirs", namespace="other")
    put(opened.inside, "ours")
    put(opened.inside, "bare", namespace="")
    assert sorted(names(listed(cli, "--namespace", "shop"))) == [("shop", "bare"), ("shop", "ours")]
    assert ("", "bare") in names(listed(cli))


def test_unreadable_backups_are_named_and_change_the_exit_code(cli: Cli, opened: Opened) -> None:
    sealed = put(opened.inside, "sealed", keys=True)
    put(opened.inside, "plain")
    outcome = cli("list", *FROM, "--as-manifests")
    assert outcome.code == 3
    assert names(objects(outcome.out)) == [("shop", "plain")]
    assert sealed in outcome.err
    assert "2024" in outcome.err
    broken = put(opened.inside, "broken")
    key = next(item.key for item in opened.inside.list("") if f"{broken}.manifest" in item.key)
    opened.inside.put(key, opened.inside.get(key)[:-1])
    outcome = cli("list", *FROM, "--as-manifests")
    assert outcome.code == 5
    assert broken in outcome.err
    assert names(objects(outcome.out)) == [("shop", "plain")]


def test_manifest_of_a_newer_release_is_named(cli: Cli, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    put(opened.inside, "newer")

    def refuse(*_: object, **__: object) -> None:
        raise UnsupportedFormat("format version 9")

    monkeypatch.setattr(catalog_module, "read_summary", refuse)
    outcome = cli("list", *FROM, "--as-manifests")
    assert (outcome.code, outcome.out) == (5, "")
    assert "format version 9" in outcome.err


def test_hostile_names_stay_inside_their_quotes(cli: Cli, opened: Opened) -> None:
    put(opened.inside, 'x"\n---\nkind: Secret', volume_name="v\x7f\u2028\nkind: Secret\x00" + "x" * 100_000)
    put(opened.inside, "ok", namespace="a\nb: c")
    outcome = cli("list", *FROM, "--as-manifests")
    assert outcome.code == 3
    [found] = objects(outcome.out)
    assert found["kind"] == "VolumeBackup"
    assert NAME.fullmatch(found["metadata"]["name"])
    assert "no namespace can have" in outcome.err


def test_id_of_the_command_line_is_replaced_if_it_cannot_be_imported(cli: Cli, opened: Opened) -> None:
    put(opened.inside, "named", backup_id="host_1.2026")
    [first], [second] = listed(cli), listed(cli)
    assert first == second
    assert uuid.UUID(first["spec"]["import"]["id"]).version == 5
    assert first["spec"]["import"]["manifest"].endswith("host_1.2026.manifest")


def test_empty_store_is_an_empty_stream(cli: Cli) -> None:
    outcome = cli("list", *FROM, "--as-manifests")
    assert (outcome.code, outcome.out) == (0, "")
    assert "no backups found" in outcome.err


def test_forms_of_output_exclude_each_other(cli: Cli) -> None:
    assert cli("list", *FROM, "--as-manifests", "--json").code == 2
    assert cli("list", *FROM, "--store-name", "x").code == 3


def test_store_that_fails_in_between_ends_the_stream_with_its_code(cli: Cli, opened: Opened) -> None:
    for number in range(40):
        put(opened.inside, f"data-{number}")
    opened.faulty.on("get").raises(StoreUnreachable("The store does not answer")).after(20).times(float("inf"))
    outcome = cli("list", *FROM, "--as-manifests")
    assert outcome.code == 4
    assert all(item["kind"] == "VolumeBackup" for item in objects(outcome.out))


def test_small_manifest_costs_one_request() -> None:
    store = CountedStore(MemoryStore())
    for number in range(3):
        put(store, f"data-{number}")
    assert HEADER_BYTES < max(item.size for item in store.list(f"{PREFIX}/backups/")) < 64 << 10
    before = store.counts.gets
    catalog = Catalog(store, PREFIX)
    assert len([entry.summary for entry in catalog.stream_entries(catalog.list_backups())]) == 3
    assert store.counts.gets - before == 3


def test_stream_reads_few_manifests_ahead() -> None:
    store = CountedStore(MemoryStore())
    for number in range(40):
        put(store, f"data-{number}")
    before = store.counts.gets
    catalog = Catalog(store, PREFIX)
    with closing(catalog.stream_entries(catalog.list_backups())) as entries:
        next(entries)
    assert store.counts.gets - before < 40


def test_no_manifest_is_read_after_the_output_failed(cli: Cli, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        put(opened.inside, f"data-{number}")
    monkeypatch.setattr(list_command, "has_failed", lambda stream: True)
    assert len(objects(cli("list", *FROM, "--as-manifests").out)) == 1
