"""Listing, showing, verifying and deleting what a store holds."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from cinderblock import __version__
from cinderblock.api.mover import MoverOperation, VolumeMode
from cinderblock.api.origin import ClaimFacts, ClusterFacts, DriverFacts
from cinderblock.archiver.archiver import run_backup
from cinderblock.errors import ObjectNotFound
from tests.support.mover.backups import PREFIX, Backups
from tests.support.mover.volumes_in_memory import MemorySource
from tests.unit.cli.conftest import Cli, Opened

STORE = "s3://backups"


@pytest.fixture
def line(cli: Cli, tree: Path) -> list[str]:
    """Three backups, each building on the one before."""
    return make_line(cli, tree)


def make_line(cli: Cli, tree: Path, *more: str) -> list[str]:
    """Three backups with changes between them; their ids."""
    made = []
    for number in range(3):
        (tree / f"file-{number}").write_text(f"content {number}")
        outcome = cli("backup", str(tree), "--to", STORE, "--incremental", "--json", "--name", f"n{number}", *more)
        made.append(outcome.json["backupId"])
    return made


def manifest_of(opened: Opened, backup_id: str) -> str:
    """Key of a manifest."""
    (key,) = (item.key for item in opened.inside.list("backups/") if backup_id in item.key)
    return key


def damage(opened: Opened, backup_id: str, at: int) -> None:
    """Flip a bit of a manifest."""
    key = manifest_of(opened, backup_id)
    content = bytearray(opened.inside.get(key))
    content[at] ^= 1
    opened.inside.put(key, content)


def test_a_table_lists_all_backups_oldest_first(cli: Cli, line: list[str]) -> None:
    heading, *rows = cli("list", "--from", STORE).out.splitlines()
    assert heading.split() == ["ID", "TIME", "KIND", "DATA", "STORED", "VOLUME", "NAME"]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == list(zip(line, ("n0", "n1", "n2"), strict=True))
    assert ["incremental" in row for row in rows] == [False, True, True]


def test_the_list_of_one_volume_leaves_out_the_others(cli: Cli, tree: Path, line: list[str]) -> None:
    other = cli("backup", str(tree), "--to", STORE, "--volume-id", "other", "--json").json["backupId"]
    assert [found["id"] for found in cli("list", "--from", STORE, "--volume-id", "other", "--json").json] == [other]
    assert len(cli("list", "--from", STORE, "--json").json) == 4


def test_an_empty_store_is_an_empty_list(cli: Cli) -> None:
    assert cli("list", "--from", STORE, "--json").json == []
    listed = cli("list", "--from", f"{STORE}/a/prefix")
    assert listed.code == 0
    assert len(listed.out.splitlines()) == 1
    assert "no backups directly below a/prefix/backups/ in backups" in listed.err


def test_a_damaged_manifest_does_not_hide_the_others(cli: Cli, opened: Opened, line: list[str]) -> None:
    damage(opened, line[1], at=-1)
    outcome = cli("list", "--from", STORE, "--json")
    assert outcome.code == 5
    assert {found["id"]: found["readable"] for found in outcome.json} == {line[0]: True, line[1]: False, line[2]: True}
    assert f"{line[1]}  ?" in cli("list", "--from", STORE).out


def test_the_beginning_of_an_id_is_enough_if_it_is_of_one_backup_only(cli: Cli, tree: Path) -> None:
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


def test_a_person_is_shown_what_matters(cli: Cli, line: list[str]) -> None:
    shown = cli("show", line[1], "--from", STORE).out
    assert f"parent       {line[0]}" in shown
    assert f"needed by    {line[2]}" in shown
    assert "sealed with  nothing" in shown


def test_verification_tells_damage_by_its_exit_code(cli: Cli, opened: Opened, line: list[str]) -> None:
    assert cli("verify", line[2], "--from", STORE).code == 0
    assert cli("verify", line[2], "--from", STORE, "--sample", "1%", "--json").json["succeeded"] is True
    (pack, *_) = (
        item.key for item in opened.inside.list(f"packs/{manifest_of(opened, line[0]).split('/')[1]}/{line[0]}")
    )
    content = bytearray(opened.inside.get(pack))
    content[len(content) // 2] ^= 1
    opened.inside.put(pack, content)
    outcome = cli("verify", line[2], "--from", STORE)
    assert outcome.code == 5
    assert pack in outcome.err


def test_a_backup_that_others_need_stays(cli: Cli, opened: Opened, line: list[str]) -> None:
    before = list(opened.inside.list(""))
    for backup_id, dependents in ((line[0], line[1:]), (line[1], line[2:])):
        outcome = cli("delete", backup_id, "--from", STORE, "--json")
        assert (outcome.code, outcome.json["reason"]) == (3, "HasDependentBackups")
        assert all(dependent in outcome.err for dependent in dependents)
    assert list(opened.inside.list("")) == before


def test_backups_go_newest_first_and_leave_nothing(cli: Cli, opened: Opened, line: list[str]) -> None:
    for number, backup_id in enumerate(reversed(line)):
        assert cli("delete", backup_id, "--from", STORE).code == 0
        for left in line[: 2 - number]:
            assert cli("verify", left, "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_dependents_of_sealed_backups_are_known_without_the_key(
    cli: Cli, opened: Opened, tree: Path, keys: dict[str, Path]
) -> None:
    line = make_line(cli, tree, "--encryption-key-file", str(keys["old"]))
    outcome = cli("delete", line[0], "--from", STORE)
    assert outcome.code == 3
    assert line[1] in outcome.err
    assert line[2] in outcome.err


def test_a_sealed_backup_without_its_parent_keeps_everything_it_might_need(
    cli: Cli, opened: Opened, tree: Path, keys: dict[str, Path]
) -> None:
    key = ("--encryption-key-file", str(keys["old"]))
    line = make_line(cli, tree, *key)
    opened.inside.delete([manifest_of(opened, line[1])])
    outcome = cli("delete", line[0], "--from", STORE, "--json")
    assert (outcome.code, outcome.json["reason"]) == (3, "KeyUnavailable")
    outcome = cli("delete", line[0], "--from", STORE, "--json", *key)
    assert (outcome.code, outcome.json["reason"]) == (3, "HasDependentBackups")


def test_nothing_is_deleted_while_a_neighbour_is_too_damaged_to_ask(cli: Cli, opened: Opened, line: list[str]) -> None:
    damage(opened, line[2], at=50)
    before = list(opened.inside.list(""))
    outcome = cli("delete", line[1], "--from", STORE)
    assert outcome.code == 5
    assert f"Delete {line[2]} first" in outcome.err
    assert list(opened.inside.list("")) == before


def test_folders_and_other_peoples_objects_hold_up_no_deletion(cli: Cli, opened: Opened, line: list[str]) -> None:
    volume = manifest_of(opened, line[0]).split("/")[1]
    planted = [f"packs/{volume}/{line[2]}/", f"packs/{volume}/{line[2]}/notes.txt", f"backups/{volume}/"]
    for key in planted:
        opened.inside._objects[key] = b""
    for backup_id in reversed(line):
        assert cli("delete", backup_id, "--from", STORE).code == 0
    assert [found.key for found in opened.inside.list("")] == sorted(planted)


def test_what_is_left_of_a_deletion_that_was_interrupted_stays_while_others_need_it(
    cli: Cli, opened: Opened, line: list[str]
) -> None:
    key = manifest_of(opened, line[0])
    opened.inside.delete([key])
    before = list(opened.inside.list(""))
    again = ("delete", line[0], "--from", STORE, "--volume-id", key.split("/")[1])
    outcome = cli(*again, "--json")
    assert (outcome.code, outcome.json["reason"]) == (3, "HasDependentBackups")
    assert list(opened.inside.list("")) == before
    for backup_id in reversed(line[1:]):
        assert cli("delete", backup_id, "--from", STORE).code == 0
    assert cli(*again).code == 0
    assert list(opened.inside.list("")) == []


def test_backups_that_are_damaged_can_be_deleted_beside_each_other(cli: Cli, opened: Opened, line: list[str]) -> None:
    for backup_id in line[1:]:
        damage(opened, backup_id, at=50)
    for backup_id in (line[1], line[2], line[0]):
        assert cli("delete", backup_id, "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_a_damaged_backup_that_a_sound_one_needs_stays(cli: Cli, opened: Opened, line: list[str]) -> None:
    damage(opened, line[0], at=50)
    outcome = cli("delete", line[0], "--from", STORE)
    assert outcome.code == 3
    assert line[1] in outcome.err


def test_an_incremental_passes_over_a_damaged_backup_and_says_so(
    cli: Cli, opened: Opened, tree: Path, line: list[str]
) -> None:
    damage(opened, line[2], at=50)
    outcome = cli("backup", str(tree), "--to", STORE, "--incremental", "--json")
    assert outcome.code == 0
    assert f"passed over as a parent: {manifest_of(opened, line[2])}" in outcome.err
    assert cli("show", outcome.json["backupId"], "--from", STORE, "--json").json["parentId"] == line[1]


def test_a_damaged_backup_is_shown_as_such(cli: Cli, opened: Opened, line: list[str]) -> None:
    damage(opened, line[2], at=50)
    shown = cli("show", line[2], "--from", STORE, "--json")
    assert shown.code == 5
    assert manifest_of(opened, line[2]) in shown.json["damage"]
    assert cli("show", line[2], "--from", STORE).code == 5


def test_a_manifest_in_the_place_of_another_is_not_believed(
    cli: Cli, opened: Opened, tmp_path: Path, line: list[str]
) -> None:
    opened.inside.put(manifest_of(opened, line[1]), opened.inside.get(manifest_of(opened, line[0])))
    listed = cli("list", "--from", STORE, "--json")
    assert listed.code == 5
    assert [found["readable"] for found in listed.json if found["id"] == line[1]] == [False]
    for command in (("verify", line[1]), ("restore", line[1], "--target", str(tmp_path / "out")), ("show", line[1])):
        outcome = cli(*command, "--from", STORE)
        assert outcome.code == 5
        assert manifest_of(opened, line[1]) in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_backup_that_goes_while_it_is_listed_is_left_out(cli: Cli, opened: Opened, line: list[str]) -> None:
    opened.faulty.on("get", line[1]).raises(ObjectNotFound("gone"))
    listed = cli("list", "--from", STORE, "--json")
    assert (listed.code, [found["id"] for found in listed.json]) == (0, [line[0], line[2]])


def test_a_missing_pack_is_damage(cli: Cli, opened: Opened, tmp_path: Path, line: list[str]) -> None:
    (pack, *_) = (item.key for item in opened.inside.list("packs/") if line[0] in item.key)
    opened.inside.delete([pack])
    for command in (("verify", line[2]), ("restore", line[2], "--target", str(tmp_path / "out"))):
        outcome = cli(*command, "--from", STORE)
        assert outcome.code == 5
        assert f"{pack} is missing" in outcome.err
    assert not (tmp_path / "out").exists()


def test_restoring_a_device_from_an_empty_manifest_exits_as_corrupt(cli: Cli, opened: Opened, tmp_path: Path) -> None:
    empty = MemorySource()
    empty.files = {}
    Backups(opened.inside).back_up(empty, "one", mode=VolumeMode.BLOCK)
    target = tmp_path / "image"
    outcome = cli("restore", "one", "--from", f"s3://container/{PREFIX}", "--target", str(target))
    assert outcome.code == 5
    assert "lists no device" in outcome.err
    assert not target.exists()


def test_names_do_nothing_to_the_terminal(cli: Cli, tree: Path) -> None:
    name = "red \x1b[31m and \n another line"
    made = cli("backup", str(tree), "--to", STORE, "--name", name, "--json").json["backupId"]
    for outcome in (cli("list", "--from", STORE), cli("show", made, "--from", STORE)):
        assert "\x1b" not in outcome.out
        assert "red \\x1b[31m and \\n another line" in outcome.out
    assert cli("show", made, "--from", STORE, "--json").json["description"]["displayName"] == name


def test_what_is_not_there_cannot_be_deleted(cli: Cli, line: list[str]) -> None:
    outcome = cli("delete", "b-1", "--volume-id", "v-1", "--from", STORE)
    assert outcome.code == 3
    assert "nothing of a backup b-1 of volume v-1" in outcome.err


def test_a_damaged_backup_can_be_deleted(cli: Cli, opened: Opened, line: list[str]) -> None:
    damage(opened, line[2], at=50)
    assert cli("delete", line[2], "--from", STORE).code == 0
    assert [found["id"] for found in cli("list", "--from", STORE, "--json").json] == line[:2]


def test_a_manifest_of_another_backup_is_not_deleted(cli: Cli, opened: Opened, line: list[str]) -> None:
    source = manifest_of(opened, line[2])
    target = source.replace(line[2], "other")
    opened.inside.put(target, opened.inside.get(source))
    outcome = cli("delete", "other", "--from", STORE)
    assert outcome.code == 3
    assert f"is the manifest of backup {line[2]}" in outcome.err
    assert opened.inside.get(target)


def test_the_whole_id_is_needed_to_delete(cli: Cli, opened: Opened, line: list[str]) -> None:
    before = list(opened.inside.list(""))
    outcome = cli("delete", line[2][:8], "--from", STORE)
    assert outcome.code == 3
    assert "give the whole id" in outcome.err
    assert list(opened.inside.list("")) == before


def test_rewrapping_needs_keys(cli: Cli) -> None:
    outcome = cli("rewrap", "--from", STORE)
    assert outcome.code == 3
    assert "--encryption-key-file" in outcome.err


def test_a_damaged_neighbour_hides_who_needs_a_backup_and_nothing_else(
    cli: Cli, opened: Opened, line: list[str]
) -> None:
    damage(opened, line[2], at=50)
    shown, told = cli("show", line[1], "--from", STORE), cli("show", line[1], "--from", STORE, "--json")
    assert (shown.code, told.code, told.json["neededBy"]) == (0, 0, None)
    assert "needed by    cannot be told" in shown.out
    assert line[2] in shown.err


def test_a_backup_of_a_cluster_says_where_its_volume_comes_from(cli: Cli, opened: Opened) -> None:
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
    told = cli("show", "b-1", "--from", f"{STORE}/{PREFIX}", "--json").json["description"]
    assert told["claim"]["statefulSet"] == "web"


def test_a_backup_that_is_made_by_hand_says_which_version_made_it(cli: Cli, line: list[str]) -> None:
    told = cli("show", line[0], "--from", STORE, "--json").json["description"]
    assert (told["consistency"], told["writtenBy"]) == ("live", __version__)
