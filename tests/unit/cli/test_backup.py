"""From a directory or image into a store and back, by command lines alone."""

from __future__ import annotations

import filecmp
import os
from math import inf
from pathlib import Path

import pytest

from cinderblock.cli.local_volume import default_volume_id
from cinderblock.errors import StoreUnreachable
from tests.support.store.faults import Crash
from tests.unit.cli.conftest import Cli, Opened

STORE = "s3://backups/some/prefix"


def snapshot(root: Path) -> dict[str, object]:
    """Everything in a tree that a restore must give back."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (status.st_mode, status.st_nlink, content)
    return found


def back_up(cli: Cli, path: Path, *more: str) -> str:
    """Back up; the id of the backup."""
    outcome = cli("backup", str(path), "--to", STORE, "--json", *more)
    assert outcome.code == 0, outcome.err
    backup_id: str = outcome.json["backupId"]
    return backup_id


def test_a_directory_comes_back_as_it_was(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    outcome = cli("restore", backup_id, "--from", STORE, "--target", str(tmp_path / "new" / "place"))
    assert outcome.code == 0
    assert snapshot(tmp_path / "new" / "place") == snapshot(tree)


def test_an_image_comes_back_as_it_was_holes_included(cli: Cli, tmp_path: Path) -> None:
    image, restored = tmp_path / "disk.img", tmp_path / "restored.img"
    with image.open("wb") as file:
        file.truncate(20_000_001)
        file.seek(5_000_000)
        file.write(os.urandom(100_000))
    backup_id = back_up(cli, image)
    assert cli("restore", backup_id[:8], "--from", STORE, "--target", str(restored)).code == 0
    assert filecmp.cmp(image, restored, shallow=False)
    assert restored.stat().st_blocks * 512 < 2_000_000


def test_requests_are_told(cli: Cli, tree: Path, tmp_path: Path) -> None:
    made = cli("backup", str(tree), "--to", STORE, "--json").json
    assert made["requests"] >= made["objectCount"] + 1
    asked = ("restore", made["backupId"], "--from", STORE, "--target")
    assert cli(*asked, str(tmp_path / "one"), "--json").json["requests"] > 0
    assert "requests" in cli(*asked, str(tmp_path / "two")).out
    assert "requests" in cli("backup", str(tree), "--to", STORE).out


def test_keys_lie_under_the_prefix_and_name_volume_and_backup(cli: Cli, opened: Opened, tree: Path) -> None:
    backup_id = back_up(cli, tree, "--volume-id", "vol-1")
    manifest = f"some/prefix/backups/vol-1/{backup_id}.manifest"
    packs = f"some/prefix/packs/vol-1/{backup_id}/"
    stored = [item.key for item in opened.inside.list("")]
    assert manifest in stored
    assert all(key == manifest or key.startswith(packs) for key in stored)


def test_the_container_is_created_for_a_backup_and_for_nothing_else(cli: Cli, opened: Opened, tree: Path) -> None:
    back_up(cli, tree)
    cli("list", "--from", STORE)
    assert [location.create_container for location in opened.locations] == [True, False]


def test_an_incremental_backup_shares_what_is_unchanged(cli: Cli, tree: Path, tmp_path: Path) -> None:
    first = back_up(cli, tree)
    (tree / "new").write_bytes(os.urandom(50_000))
    second = back_up(cli, tree, "--incremental")
    shown = cli("show", second, "--from", STORE, "--json").json
    assert shown["parentId"] == first
    assert shown["transferredBytes"] < 60_000
    assert shown["uses"].keys() == {first}
    assert cli("show", first, "--from", STORE, "--json").json["neededBy"] == [second]
    assert cli("restore", second, "--from", STORE, "--target", str(tmp_path / "out")).code == 0
    assert snapshot(tmp_path / "out") == snapshot(tree)


def test_the_parent_is_the_backup_with_the_newest_data_of_the_same_volume(cli: Cli, tree: Path, tmp_path: Path) -> None:
    back_up(cli, tree)
    second = back_up(cli, tree)
    back_up(cli, tree, "--volume-id", "another")
    third = back_up(cli, tree, "--incremental")
    assert cli("show", third, "--from", STORE, "--json").json["parentId"] == second


@pytest.mark.parametrize(("detection", "read"), [((), True), (("--change-detection", "SizeMtime"), False)])
def test_what_shows_that_a_file_is_unchanged_can_be_chosen(
    cli: Cli, tree: Path, tmp_path: Path, detection: tuple[str, ...], read: bool
) -> None:
    os.utime(tree / "top", (1_700_000_000, 1_700_000_000))
    back_up(cli, tree)
    (tree / "top").write_text("pot\n")
    os.utime(tree / "top", (1_700_000_000, 1_700_000_000))
    second = back_up(cli, tree, "--incremental", *detection)
    assert cli("restore", second, "--from", STORE, "--target", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out" / "top").read_text() == ("pot\n" if read else "top\n")
    assert (detection or ("", "SizeMtimeCtimeInode"))[1] in cli("show", second, "--from", STORE).out


def test_a_first_incremental_backup_is_a_full_one_and_says_so(cli: Cli, tree: Path) -> None:
    outcome = cli("backup", str(tree), "--to", STORE, "--incremental")
    assert outcome.code == 0
    assert "making a full one" in outcome.err
    listed = cli("list", "--from", STORE, "--json").json
    assert listed[0]["parentId"] is None
    assert listed[0]["description"]["incremental"] is False


def test_an_interrupted_backup_is_resumed_and_does_not_count_before(cli: Cli, opened: Opened, tree: Path) -> None:
    opened.faulty.on("put", ".manifest").raises(KeyboardInterrupt())
    interrupted = cli("backup", str(tree), "--to", STORE)
    assert interrupted.code == 130
    backup_id = interrupted.err.split("--resume ")[1].split()[0]
    assert cli("list", "--from", STORE, "--json").json == []
    packs = {item.key for item in opened.inside.list("some/prefix/packs/") if item.key[-4:-3] == "-"}
    assert back_up(cli, tree, "--resume", backup_id) == backup_id
    assert packs <= {item.key for item in opened.inside.list("some/prefix/packs/")}
    assert cli("verify", backup_id, "--from", STORE).code == 0


def test_what_an_interrupted_backup_left_can_be_deleted(cli: Cli, opened: Opened, tree: Path) -> None:
    opened.faulty.on("put", ".manifest").raises(StoreUnreachable("away"))
    assert cli("backup", str(tree), "--to", STORE, "--resume", "b-1", "--volume-id", "v-1").code == 4
    assert list(opened.inside.list(""))
    assert cli("delete", "b-1", "--volume-id", "v-1", "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_sealed_backups_show_nothing_without_their_key(
    cli: Cli, opened: Opened, tree: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    backup_id = back_up(cli, tree, "--encryption-key-file", str(keys["old"]))
    assert not any(b"localhost" in opened.inside.get(item.key) for item in opened.inside.list(""))
    (listed,) = cli("list", "--from", STORE, "--json").json
    assert (listed["readable"], listed["keyId"]) == (False, "old.key")
    refused = cli("restore", backup_id, "--from", STORE, "--target", str(tmp_path / "out"))
    assert refused.code == 3
    assert "old.key" in refused.err
    assert not (tmp_path / "out").exists()
    key = f"old.key={keys['old']}"
    restored = cli(
        "restore", backup_id, "--from", STORE, "--target", str(tmp_path / "out"), "--encryption-key-file", key
    )
    assert restored.code == 0
    assert snapshot(tmp_path / "out") == snapshot(tree)


def test_a_backup_can_be_opened_with_the_new_key_alone_after_rewrapping(
    cli: Cli, tree: Path, keys: dict[str, Path]
) -> None:
    old, young = (("--encryption-key-file", str(file)) for file in (keys["old"], keys["young"]))
    sealed = back_up(cli, tree, *old)
    back_up(cli, tree)
    outcome = cli("rewrap", "--from", STORE, *old, *young, "--json")
    assert outcome.json == [{"backupId": sealed, "from": "old.key", "to": "young.key"}]
    assert cli("verify", sealed, "--from", STORE, *young).code == 0
    assert cli("verify", sealed, "--from", STORE, *old).code == 3


def test_only_asked_paths_are_restored_with_what_leads_to_them(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    out = tmp_path / "out"
    outcome = cli("restore", backup_id, "/etc/deep/", "--from", STORE, "--target", str(out), "symlink")
    assert outcome.code == 0, outcome.err
    assert set(snapshot(out)) == {"etc", "etc/deep", "etc/deep/data", "symlink"}
    assert (out / "etc/deep/data").read_bytes() == (tree / "etc/deep/data").read_bytes()


def test_a_hard_link_brings_the_file_that_it_is_a_link_to(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    out = tmp_path / "out"
    assert cli("restore", backup_id, "link", "--from", STORE, "--target", str(out)).code == 0
    assert (out / "link").read_bytes() == (tree / "link").read_bytes()
    assert set(snapshot(out)) == {"etc", "etc/deep", "etc/deep/data", "link"}


def test_a_path_that_the_backup_does_not_have_is_named_before_anything_is_written(
    cli: Cli, tree: Path, tmp_path: Path
) -> None:
    backup_id = back_up(cli, tree)
    outcome = cli("restore", backup_id, "top", "to", "--from", STORE, "--target", str(tmp_path / "out"))
    assert outcome.code == 3
    assert outcome.err.strip().endswith("Cannot restore to: the backup has no such path.")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_holds_something_is_not_touched_unasked(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    for more in ((), ("top",), ("top", "--overwrite")):
        outcome = cli("restore", backup_id, "--from", STORE, "--target", str(out), *more)
        assert (outcome.code, set(snapshot(out))) == (3, {"precious"})
    assert cli("restore", backup_id, "--from", STORE, "--target", str(out), "--overwrite").code == 0
    assert snapshot(out) == snapshot(tree)


def test_an_image_that_is_there_is_not_touched_unasked(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"a" * 100_000)
    backup_id = back_up(cli, image)
    image.write_bytes(b"b" * 100_000)
    assert cli("restore", backup_id, "--from", STORE, "--target", str(image)).code == 3
    assert image.read_bytes() == b"b" * 100_000
    assert cli("restore", backup_id, "--from", STORE, "--target", str(image), "--overwrite").code == 0
    assert image.read_bytes() == b"a" * 100_000


def test_a_target_of_the_other_kind_is_refused(cli: Cli, tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"a" * 1000)
    of_image, of_tree = back_up(cli, image), back_up(cli, tree)
    for backup_id, target in ((of_image, tree), (of_tree, image)):
        outcome = cli("restore", backup_id, "--from", STORE, "--target", str(target), "--overwrite")
        assert outcome.code == 3
        assert "wrong kind" in outcome.err
    assert image.read_bytes() == b"a" * 1000


def test_paths_of_a_device_cannot_be_asked_for(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"a" * 1000)
    backup_id = back_up(cli, image)
    outcome = cli("restore", backup_id, "etc", "--from", STORE, "--target", str(tmp_path / "out"))
    assert outcome.code == 3
    assert "no paths" in outcome.err


def test_what_is_neither_directory_nor_image_cannot_be_backed_up(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "absent"):
        outcome = cli("backup", str(tmp_path / name), "--to", STORE)
        assert outcome.code == 3
        assert name in outcome.err


def test_a_volume_is_the_same_by_whatever_path_it_is_reached(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree)
    assert default_volume_id(str(tree)) == default_volume_id(f"{tmp_path}/alias/../alias")
    assert default_volume_id(str(tree)) != default_volume_id(str(tree), host="another")
    # Backups that are there already would lose their parents if this ever changed.
    assert default_volume_id("/srv/data", host="laptop") == "58a7cb62-297e-5e7a-8edd-3b50b178e001"


def test_a_store_that_does_not_answer_is_worth_another_try(cli: Cli, opened: Opened) -> None:
    opened.faulty.on("check").raises(StoreUnreachable("the store is away")).times(inf)
    outcome = cli("list", "--from", STORE, "--json")
    assert outcome.code == 4
    assert outcome.json == {
        "succeeded": False,
        "permanent": False,
        "reason": "StoreUnreachable",
        "message": "the store is away",
    }
    assert outcome.err == "cinderblock list: the store is away\n"


def test_the_death_of_the_process_is_not_caught(cli: Cli, opened: Opened, tree: Path) -> None:
    opened.faulty.on("put").crashes()
    with pytest.raises(Crash):
        cli("backup", str(tree), "--to", STORE)


def test_with_a_key_a_backup_that_is_not_sealed_is_taken_only_when_that_is_said(
    cli: Cli, tree: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    backup_id, key = back_up(cli, tree), ("--encryption-key-file", str(keys["old"]))
    for command in (("verify", backup_id), ("restore", backup_id, "--target", str(tmp_path / "out"))):
        refused = cli(*command, "--from", STORE, *key)
        assert refused.code == 5
        assert "is not encrypted" in refused.err
        assert "--allow-unsealed takes it" in refused.err
        assert not (tmp_path / "out").exists()
    for command in (("verify", backup_id), ("restore", backup_id, "--target", str(tmp_path / "out"))):
        assert cli(*command, "--from", STORE, *key, "--allow-unsealed").code == 0
    assert snapshot(tmp_path / "out") == snapshot(tree)


def test_an_incremental_on_a_backup_that_is_not_sealed_says_what_can_be_done(
    cli: Cli, tree: Path, keys: dict[str, Path]
) -> None:
    back_up(cli, tree)
    command = ("backup", str(tree), "--to", STORE, "--incremental", "--encryption-key-file", str(keys["old"]))
    refused = cli(*command)
    assert refused.code == 5
    assert "--allow-unsealed takes it" in refused.err
    assert "--resume" not in refused.err
    assert cli(*command, "--allow-unsealed").code == 0


def test_marks_of_keys_that_are_not_given_are_not_passed_over(cli: Cli, tree: Path) -> None:
    refused = cli("backup", str(tree), "--to", STORE, "--read-only-keys", "2024=2026-01-31T12:00:00Z")
    assert refused.code == 3
    assert "--encryption-key-file" in refused.err


def test_an_image_that_is_overwritten_gets_the_size_of_the_backup(cli: Cli, tmp_path: Path) -> None:
    image, target = tmp_path / "disk.img", tmp_path / "target.img"
    image.write_bytes(os.urandom(100_001))
    backup_id = back_up(cli, image)
    for size in (10, 100_001, 3_000_000):
        target.write_bytes(b"x" * size)
        assert cli("restore", backup_id, "--from", STORE, "--target", str(target), "--overwrite").code == 0
        assert filecmp.cmp(image, target, shallow=False)


def test_a_restore_that_fails_says_what_is_left(cli: Cli, opened: Opened, tmp_path: Path) -> None:
    image, target = tmp_path / "disk.img", tmp_path / "target.img"
    image.write_bytes(os.urandom(30 << 20))
    backup_id = back_up(cli, image)
    last = max(item.key for item in opened.inside.list("") if item.key.endswith("-000001"))
    body = opened.inside.get(last)
    opened.inside.put(last, bytes([body[0] ^ 1]) + body[1:])
    outcome = cli("restore", backup_id, "--from", STORE, "--target", str(target))
    assert outcome.code == 5
    assert f"{target} is not complete and not to be used: the same with --overwrite goes on" in outcome.err
    opened.inside.put(last, body)
    assert cli("restore", backup_id, "--from", STORE, "--target", str(target), "--overwrite").code == 0
    assert filecmp.cmp(image, target, shallow=False)


def test_a_path_may_be_written_as_people_write_paths(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    out = tmp_path / "out"
    assert cli("restore", backup_id, "./etc//deep/", "top", "--from", STORE, "--target", str(out)).code == 0
    assert set(snapshot(out)) == {"etc", "etc/deep", "etc/deep/data", "top"}


def test_an_empty_path_is_not_the_working_directory(
    cli: Cli, opened: Opened, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert cli("backup", "", "--to", STORE).code == 2
    assert opened.locations == []


def test_a_directory_whose_name_is_not_utf8_comes_back(cli: Cli, tree: Path, tmp_path: Path) -> None:
    source = os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff\xfe")
    tree.rename(source)
    backup_id = back_up(cli, Path(source))
    again = cli("backup", source, "--to", STORE, "--incremental")
    assert again.code == 0
    assert "making a full one" not in again.err
    target = os.fsdecode(os.fsencode(tmp_path) + b"/target \xff")
    restored = cli("restore", backup_id, "--from", STORE, "--target", target, "--json")
    assert (restored.code, restored.json["target"]) == (0, target)
    assert snapshot(Path(target)) == snapshot(Path(source))
    assert "odd \\xff\\xfe" in cli("list", "--from", STORE).out.replace("\\\\", "\\")


def test_a_name_that_is_not_utf8_is_refused(cli: Cli, opened: Opened, tree: Path) -> None:
    assert cli("backup", str(tree), "--to", STORE, "--name", "\udcff").code == 2
    assert opened.locations == []


def test_a_wrong_key_is_told_apart_from_none_and_nothing_is_made(
    cli: Cli, tree: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    backup_id = back_up(cli, tree, "--encryption-key-file", f"k={keys['old']}")
    out = tmp_path / "out"
    restore = ("restore", backup_id, "--from", STORE, "--target", str(out))
    none = cli(*restore)
    other = cli(*restore, "--encryption-key-file", f"j={keys['young']}")
    wrong = cli(*restore, "--encryption-key-file", f"k={keys['young']}")
    assert [outcome.code for outcome in (none, other, wrong)] == [3, 3, 5]
    assert all("'k'" in outcome.err for outcome in (none, other, wrong))
    assert "give that key with --encryption-key-file" in none.err
    assert "give that key with --encryption-key-file" in other.err
    assert "does not open backup" in wrong.err
    assert not out.exists()


@pytest.mark.parametrize("content", [b"", b"not base64!", b"c2hvcnQ="])
def test_a_file_that_holds_no_key_is_named(cli: Cli, opened: Opened, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.key").write_bytes(content)
    outcome = cli("list", "--from", STORE, "--encryption-key-file", str(tmp_path / "a.key"))
    assert (outcome.code, opened.locations) == (3, [])
    assert "'a.key' of what --encryption-key-file gives" in outcome.err
    assert "32" in outcome.err


def test_what_an_interrupted_backup_left_is_deleted_as_the_warning_says(cli: Cli, opened: Opened, tree: Path) -> None:
    opened.faulty.on("put", ".manifest").raises(StoreUnreachable("away"))
    words = cli("backup", str(tree), "--to", STORE).err.split("and cinderblock ")[1].split(" removes")[0].split()
    assert list(opened.inside.list(""))
    assert cli(*words, "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_a_backup_that_cannot_be_rewrapped_does_not_keep_the_others_from_it(
    cli: Cli, opened: Opened, tree: Path, keys: dict[str, Path]
) -> None:
    old, young = (("--encryption-key-file", str(file)) for file in (keys["old"], keys["young"]))
    ids = sorted(back_up(cli, tree, *old) for _ in range(3))
    damaged = next(item.key for item in opened.inside.list("") if item.key.endswith(f"{ids[0]}.manifest"))
    opened.inside.put(damaged, opened.inside.get(damaged)[:-1] + b"?")
    outcome = cli("rewrap", "--from", STORE, *old, *young, "--json")
    assert outcome.code == 5
    assert f"left as it is: {damaged}" in outcome.err
    assert [done["backupId"] for done in outcome.json] == ids[1:]


def test_the_digest_that_a_backup_prints_is_the_one_that_a_restore_may_insist_on(
    cli: Cli, opened: Opened, tree: Path, tmp_path: Path
) -> None:
    told = cli("backup", str(tree), "--to", STORE, "--json").json
    backup_id, digest = told["backupId"], told["contentDigest"]
    older = next(item.key for item in opened.inside.list("") if item.key.endswith(f"{backup_id}.manifest"))
    assert f"digest       {digest}" in cli("show", backup_id, "--from", STORE).out
    noted = ("--from", STORE, "--expect-digest", digest)
    assert cli("verify", backup_id, *noted).code == 0
    assert cli("restore", backup_id, "--target", str(tmp_path / "out"), *noted).code == 0
    (tree / "etc" / "hosts").write_text("changed\n")
    volume_id = told["volumeId"]
    opened.inside.delete([older])
    other = cli("backup", str(tree), "--to", STORE, "--resume", backup_id, "--volume-id", volume_id, "--json").json
    assert other["contentDigest"] != digest
    refused = cli("restore", backup_id, "--target", str(tmp_path / "no"), *noted)
    assert refused.code == 5
    assert f"should be {digest}" in refused.err
    assert cli("verify", backup_id, *noted).code == 5
    assert not (tmp_path / "no").exists()


def test_what_is_no_digest_is_a_usage_error(cli: Cli) -> None:
    outcome = cli("verify", "some", "--from", STORE, "--expect-digest", "abc")
    assert (outcome.code, "64 hexadecimal digits" in outcome.err) == (2, True)


def test_a_read_only_key_opens_what_is_old_and_seals_nothing(
    cli: Cli, tree: Path, tmp_path: Path, keys: dict[str, Path]
) -> None:
    old, young = (("--encryption-key-file", str(file)) for file in (keys["old"], keys["young"]))
    sealed = back_up(cli, tree, *old)
    later, earlier = (("--read-only-keys", f"old.key={year}-01-31T12:00:00Z") for year in (2999, 2000))
    assert cli("restore", sealed, "--from", STORE, "--target", str(tmp_path / "out"), *old, *young, *later).code == 0
    too_late = cli("verify", sealed, "--from", STORE, *old, *young, *earlier)
    assert (too_late.code, "read-only since 2000-01-31T12:00:00Z" in too_late.err) == (5, True)
    for words in (("backup", str(tree), "--to", STORE), ("rewrap", "--from", STORE)):
        refused = cli(*words, *old, *young, *later, "--active-key", "old.key")
        assert (refused.code, "marks it as read-only" in refused.err) == (3, True)
    malformed = cli("list", "--from", STORE, *old, "--read-only-keys", "old.key")
    assert (malformed.code, "Cannot read --read-only-keys" in malformed.err) == (3, True)
    assert cli("rewrap", "--from", STORE, *old, *young, *later, "--json").json == [
        {"backupId": sealed, "from": "old.key", "to": "young.key"}
    ]
