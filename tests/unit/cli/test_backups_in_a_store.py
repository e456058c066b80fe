"""Listing, showing, verifying and deleting what a store holds."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    assert heading.split() == ["ID", "TIME", "KIND", "DATA", "STORED", "NAME"]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == list(zip(line, ("n0", "n1", "n2"), strict=True))
    assert ["incremental" in row for row in rows] == [False, True, True]


def test_the_list_of_one_volume_leaves_out_the_others(cli: Cli, tree: Path, line: list[str]) -> None:
    other = cli("backup", str(tree), "--to", STORE, "--volume-id", "other", "--json").json["backupId"]
    assert [found["id"] for found in cli("list", "--from", STORE, "--volume-id", "other", "--json").json] == [other]
    assert len(cli("list", "--from", STORE, "--json").json) == 4


def test_an_empty_store_is_an_empty_list(cli: Cli) -> None:
    assert cli("list", "--from", STORE, "--json").json == []
    assert len(cli("list", "--from", STORE).out.splitlines()) == 1


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
    assert "give more of it" in several.err
    none = cli("show", "b", "--from", STORE)
    assert none.code == 3
    assert "There is no backup b" in none.err


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
    assert cli("delete", line[1], "--from", STORE).code == 5
    assert list(opened.inside.list("")) == before


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
    assert "of another backup" in outcome.err
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
