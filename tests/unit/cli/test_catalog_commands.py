"""The commands list, show, verify, delete and rewrap."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from cinderblock import __version__
from cinderblock.api.mover import MoverOperation
from cinderblock.api.origin import ClaimFacts, ClusterFacts, DriverFacts
from cinderblock.archiver.archiver import run_backup
from cinderblock.errors import ObjectNotFound
from tests.support.mover.backups import PREFIX, Backups
from tests.support.mover.volumes_in_memory import MemorySource
from tests.unit.cli.conftest import Cli, Opened

STORE = "s3://backups"


@pytest.fixture
def chain(cli: Cli, tree: Path) -> list[str]:
    """Create three backups, each incremental to the previous one. Returns their ids."""
    return make_chain(cli, tree)


def make_chain(cli: Cli, tree: Path, *more: str) -> list[str]:
    """Create three backups with changes between them. Returns their ids."""
    ids = []
    for number in range(3):
        (tree / f"file-{number}").write_text(f"content {number}")
        outcome = cli("backup", str(tree), "--to", STORE, "--incremental", "--json", "--name", f"n{number}", *more)
        ids.append(outcome.json["backupId"])
    return ids


def manifest_of(opened: Opened, backup_id: str) -> str:
    """Return the key of a manifest."""
    (key,) = (item.key for item in opened.inside.list("backups/") if backup_id in item.key)
    return key


def damage(opened: Opened, backup_id: str, at: int) -> None:
    """Flip one bit of a manifest."""
    key = manifest_of(opened, backup_id)
    content = bytearray(opened.inside.get(key))
    content[at] ^= 1
    opened.inside.put(key, content)


def test_table_lists_all_backups_oldest_first(cli: Cli, chain: list[str]) -> None:
    heading, *rows = cli("list", "--from", STORE).out.splitlines()
    assert heading.split() == ["ID", "TIME", "KIND", "DATA", "STORED", "VOLUME", "NAME"]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == list(zip(chain, ("n0", "n1", "n2"), strict=True))
    assert ["incremental" in row for row in rows] == [False, True, True]


def test_list_of_one_volume_omits_the_others(cli: Cli, tree: Path, chain: list[str]) -> None:
    other = cli("backup", str(tree), "--to", STORE, "--volume-id", "other", "--json").json["backupId"]
    assert [found["id"] for found in cli("list", "--from", STORE, "--volume-id", "other", "--json").json] == [other]
    assert len(cli("list", "--from", STORE, "--json").json) == 4


def test_empty_store_gives_an_empty_list(cli: Cli) -> None:
    assert cli("list", "--from", STORE, "--json").json == []
    listed = cli("list", "--from", f"{STORE}/a/prefix")
    assert listed.code == 0
    assert len(listed.out.splitlines()) == 1
    assert "no backups found below a/prefix/backups/ in container backups" in listed.err


def test_damaged_manifest_does_not_hide_the_others(cli: Cli, opened: Opened, chain: list[str]) -> None:
    damage(opened, chain[1], at=-1)
    outcome = cli("list", "--from", STORE, "--json")
    assert outcome.code == 5
    assert {found["id"]: found["readable"] for found in outcome.json} == {
        chain[0]: True,
        chain[1]: False,
        chain[2]: True,
    }
    assert f"{chain[1]}  ?" in cli("list", "--from", STORE).out


def test_unique_prefix_of_an_id_is_enough(cli: Cli, tree: Path) -> None:
    for backup_id in ("aaa-1", "aaa-2", "aaa"):
        assert cli("backup", str(tree), "--to", STORE, "--resume", backup_id).code == 0
    assert cli("show", "aaa-2", "--from", STORE, "--json").json["id"] == "aaa-2"
    assert cli("show", "aaa", "--from", STORE, "--json").json["id"] == "aaa"
    several = cli("show", "aaa-", "--from", STORE)
    assert several.code == 3
    assert "Give more of the id" in several.err
    none = cli("show", "b", "--from", STORE)
    assert none.code == 3
    assert "Cannot find backup b" in none.err


def test_show_prints_parent_dependents_and_encryption(cli: Cli, chain: list[str]) -> None:
    shown = cli("show", chain[1], "--from", STORE).out
    assert f"parent       {chain[0]}" in shown
    assert f"needed by    {chain[2]}" in shown
    assert "sealed with  nothing" in shown


def test_exit_code_of_verify_shows_damage(cli: Cli, opened: Opened, chain: list[str]) -> None:
    assert cli("verify", chain[2], "--from", STORE).code == 0
    assert cli("verify", chain[2], "--from", STORE, "--sample", "1%", "--json").json["succeeded"] is True
    (pack, *_) = (
        item.key for item in opened.inside.list(f"packs/{manifest_of(opened, chain[0]).split('/')[1]}/{chain[0]}")
    )
    content = bytearray(opened.inside.get(pack))
    content[len(content) // 2] ^= 1
    opened.inside.put(pack, content)
    outcome = cli("verify", chain[2], "--from", STORE)
    assert outcome.code == 5
    assert pack in outcome.err


def test_backup_that_others_need_is_not_deleted(cli: Cli, opened: Opened, chain: list[str]) -> None:
    before = list(opened.inside.list(""))
    for backup_id, dependents in ((chain[0], chain[1:]), (chain[1], chain[2:])):
        outcome = cli("delete", backup_id, "--from", STORE, "--json")
        assert (outcome.code, outcome.json["reason"]) == (3, "HasDependentBackups")
        assert all(dependent in outcome.err for dependent in dependents)
    assert list(opened.inside.list("")) == before


def test_deleting_newest_first_leaves_nothing(cli: Cli, opened: Opened, chain: list[str]) -> None:
    for number, backup_id in enumerate(reversed(chain)):
        assert cli("delete", backup_id, "--from", STORE).code == 0
        for remaining in chain[: 2 - number]:
            assert cli("verify", remaining, "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_dependents_of_encrypted_backups_are_known_without_the_key(
    cli: Cli, opened: Opened, tree: Path, keys: dict[str, Path]
) -> None:
    chain = make_chain(cli, tree, "--encryption-key-file", str(keys["old"]))
    outcome = cli("delete", chain[0], "--from", STORE)
    assert outcome.code == 3
    assert chain[1] in outcome.err
    assert chain[2] in outcome.err


def test_encrypted_backup_keeps_data_even_without_its_parent(
    cli: Cli, opened: Opened, tree: Path, keys: dict[str, Path]
) -> None:
    key = ("--encryption-key-file", str(keys["old"]))
    chain = make_chain(cli, tree, *key)
    opened.inside.delete([manifest_of(opened, chain[1])])
    outcome = cli("delete", chain[0], "--from", STORE, "--json")
    assert (outcome.code, outcome.json["reason"]) == (3, "KeyUnavailable")
    outcome = cli("delete", chain[0], "--from", STORE, "--json", *key)
    assert (outcome.code, outcome.json["reason"]) == (3, "HasDependentBackups")


def test_nothing_is_deleted_while_another_manifest_is_unreadable(cli: Cli, opened: Opened, chain: list[str]) -> None:
    damage(opened, chain[2], at=50)
    before = list(opened.inside.list(""))
    outcome = cli("delete", chain[1], "--from", STORE)
    assert outcome.code == 5
    assert f"Delete {chain[2]} first" in outcome.err
    assert list(opened.inside.list("")) == before


def test_foreign_objects_do_not_prevent_deletion(cli: Cli, opened: Opened, chain: list[str]) -> None:
    volume = manifest_of(opened, chain[0]).split("/")[1]
    planted = [f"packs/{volume}/{chain[2]}/", f"packs/{volume}/{chain[2]}/notes.txt", f"backups/{volume}/"]
    for key in planted:
        opened.inside._objects[key] = b""
    for backup_id in reversed(chain):
        assert cli("delete", backup_id, "--from", STORE).code == 0
    assert [found.key for found in opened.inside.list("")] == sorted(planted)


def test_interrupted_deletion_keeps_data_that_others_need(cli: Cli, opened: Opened, chain: list[str]) -> None:
    key = manifest_of(opened, chain[0])
    opened.inside.delete([key])
    before = list(opened.inside.list(""))
    again = ("delete", chain[0], "--from", STORE, "--volume-id", key.split("/")[1])
    outcome = cli(*again, "--json")
    assert (outcome.code, outcome.json["reason"]) == (3, "HasDependentBackups")
    assert list(opened.inside.list("")) == before
    for backup_id in reversed(chain[1:]):
        assert cli("delete", backup_id, "--from", STORE).code == 0
    assert cli(*again).code == 0
    assert list(opened.inside.list("")) == []


def test_several_damaged_backups_can_be_deleted(cli: Cli, opened: Opened, chain: list[str]) -> None:
    for backup_id in chain[1:]:
        damage(opened, backup_id, at=50)
    for backup_id in (chain[1], chain[2], chain[0]):
        assert cli("delete", backup_id, "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_damaged_backup_that_another_needs_is_not_deleted(cli: Cli, opened: Opened, chain: list[str]) -> None:
    damage(opened, chain[0], at=50)
    outcome = cli("delete", chain[0], "--from", STORE)
    assert outcome.code == 3
    assert chain[1] in outcome.err


def test_damaged_backup_is_not_used_as_parent(cli: Cli, opened: Opened, tree: Path, chain: list[str]) -> None:
    damage(opened, chain[2], at=50)
    outcome = cli("backup", str(tree), "--to", STORE, "--incremental", "--json")
    assert outcome.code == 0
    assert f"cannot use a backup as the parent: {manifest_of(opened, chain[2])}" in outcome.err
    assert cli("show", outcome.json["backupId"], "--from", STORE, "--json").json["parentId"] == chain[1]


def test_damaged_backup_is_shown_as_damaged(cli: Cli, opened: Opened, chain: list[str]) -> None:
    damage(opened, chain[2], at=50)
    shown = cli("show", chain[2], "--from", STORE, "--json")
    assert shown.code == 5
    assert manifest_of(opened, chain[2]) in shown.json["damage"]
    assert cli("show", chain[2], "--from", STORE).code == 5


def test_manifest_in_the_place_of_another_is_damage(cli: Cli, opened: Opened, tmp_path: Path, chain: list[str]) -> None:
    opened.inside.put(manifest_of(opened, chain[1]), opened.inside.get(manifest_of(opened, chain[0])))
    listed = cli("list", "--from", STORE, "--json")
    assert listed.code == 5
    assert [found["readable"] for found in listed.json if found["id"] == chain[1]] == [False]
    for command in (("verify", chain[1]), ("restore", chain[1], "--target", str(tmp_path / "out")), ("show", chain[1])):
        outcome = cli(*command, "--from", STORE)
        assert outcome.code == 5
        assert manifest_of(opened, chain[1]) in outcome.err
    assert not (tmp_path / "out").exists()


def test_backup_deleted_during_list_is_omitted(cli: Cli, opened: Opened, chain: list[str]) -> None:
    opened.faulty.on("get", chain[1]).raises(ObjectNotFound("gone"))
    listed = cli("list", "--from", STORE, "--json")
    assert (listed.code, [found["id"] for found in listed.json]) == (0, [chain[0], chain[2]])


def test_missing_pack_is_damage(cli: Cli, opened: Opened, tmp_path: Path, chain: list[str]) -> None:
    (pack, *_) = (item.key for item in opened.inside.list("packs/") if chain[0] in item.key)
    opened.inside.delete([pack])
    for command in (("verify", chain[2]), ("restore", chain[2], "--target", str(tmp_path / "out"))):
        outcome = cli(*command, "--from", STORE)
        assert outcome.code == 5
        assert f"{pack} is missing" in outcome.err
    assert not (tmp_path / "out").exists()


def test_control_characters_in_names_are_escaped(cli: Cli, tree: Path) -> None:
    name = "red \x1b[31m and \n another line"
    backup_id = cli("backup", str(tree), "--to", STORE, "--name", name, "--json").json["backupId"]
    for outcome in (cli("list", "--from", STORE), cli("show", backup_id, "--from", STORE)):
        assert "\x1b" not in outcome.out
        assert "red \\x1b[31m and \\n another line" in outcome.out
    assert cli("show", backup_id, "--from", STORE, "--json").json["description"]["displayName"] == name


def test_deleting_nothing_is_an_error(cli: Cli, chain: list[str]) -> None:
    outcome = cli("delete", "b-1", "--volume-id", "v-1", "--from", STORE)
    assert outcome.code == 3
    assert "Cannot delete backup b-1 of volume v-1" in outcome.err


def test_damaged_backup_can_be_deleted(cli: Cli, opened: Opened, chain: list[str]) -> None:
    damage(opened, chain[2], at=50)
    assert cli("delete", chain[2], "--from", STORE).code == 0
    assert [found["id"] for found in cli("list", "--from", STORE, "--json").json] == chain[:2]


def test_manifest_of_another_backup_is_not_deleted(cli: Cli, opened: Opened, chain: list[str]) -> None:
    source = manifest_of(opened, chain[2])
    target = source.replace(chain[2], "other")
    opened.inside.put(target, opened.inside.get(source))
    outcome = cli("delete", "other", "--from", STORE)
    assert outcome.code == 3
    assert f"is the manifest of backup {chain[2]}" in outcome.err
    assert opened.inside.get(target)


def test_delete_requires_the_complete_id(cli: Cli, opened: Opened, chain: list[str]) -> None:
    before = list(opened.inside.list(""))
    outcome = cli("delete", chain[2][:8], "--from", STORE)
    assert outcome.code == 3
    assert "give its complete id" in outcome.err
    assert list(opened.inside.list("")) == before


def test_rewrap_requires_keys(cli: Cli) -> None:
    outcome = cli("rewrap", "--from", STORE)
    assert outcome.code == 3
    assert "--encryption-key-file" in outcome.err


def test_damaged_manifest_makes_dependents_unknown(cli: Cli, opened: Opened, chain: list[str]) -> None:
    damage(opened, chain[2], at=50)
    shown, as_json = cli("show", chain[1], "--from", STORE), cli("show", chain[1], "--from", STORE, "--json")
    assert (shown.code, as_json.code, as_json.json["neededBy"]) == (0, 0, None)
    assert "needed by    unknown" in shown.out
    assert chain[2] in shown.err


def test_show_prints_the_origin_of_a_volume_in_a_cluster(cli: Cli, opened: Opened) -> None:
    backups = Backups(opened.inside)
    facts = {
        "claim": ClaimFacts(labels={"app": "web"}, requested_size="1Gi", stateful_set="web", ordinal=3),
        "driver": DriverFacts(name="csi.example.org", volume_handle="vol-1", fs_type="xfs"),
        "cluster": ClusterFacts(uid="k-1", release="backups"),
        "consistency": "snapshot",
    }
    task = backups.task(MoverOperation.BACKUP, "b-1")
    task = task.model_copy(update={"backup": task.backup.model_copy(update=facts)})
    run_backup(task, opened.inside, None, opener=lambda mode, path: nullcontext(MemorySource()))
    shown = cli("show", "b-1", "--from", f"{STORE}/{PREFIX}").out
    for words in ("web, ordinal 3", "app=web", "1Gi", "csi.example.org", "vol-1", "xfs", "k-1", "backups", "snapshot"):
        assert words in shown
    description = cli("show", "b-1", "--from", f"{STORE}/{PREFIX}", "--json").json["description"]
    assert description["claim"]["statefulSet"] == "web"


def test_show_prints_the_version_that_made_the_backup(cli: Cli, chain: list[str]) -> None:
    description = cli("show", chain[0], "--from", STORE, "--json").json["description"]
    assert (description["consistency"], description["writtenBy"]) == ("live", __version__)
