"""Backup and restore of directories and images on the command line."""

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
    """Return everything in a tree that a restore must reproduce."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (status.st_mode, status.st_nlink, content)
    return found


def back_up(cli: Cli, path: Path, *more: str) -> str:
    """Back up ``path``, and return the id of the backup."""
    outcome = cli("backup", str(path), "--to", STORE, "--json", *more)
    assert outcome.code == 0, outcome.err
    backup_id: str = outcome.json["backupId"]
    return backup_id


def test_directory_is_restored_identically(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    outcome = cli("restore", backup_id, "--from", STORE, "--target", str(tmp_path / "new" / "place"))
    assert outcome.code == 0
    assert snapshot(tmp_path / "new" / "place") == snapshot(tree)


def test_image_is_restored_identically_with_its_holes(cli: Cli, tmp_path: Path) -> None:
    image, restored = tmp_path / "disk.img", tmp_path / "restored.img"
    with image.open("wb") as file:
        file.truncate(20_000_001)
        file.seek(5_000_000)
        file.write(os.urandom(100_000))
    backup_id = back_up(cli, image)
    assert cli("restore", backup_id[:8], "--from", STORE, "--target", str(restored)).code == 0
    assert filecmp.cmp(image, restored, shallow=False)
    assert restored.stat().st_blocks * 512 < 2_000_000


def test_number_of_requests_is_reported(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup = cli("backup", str(tree), "--to", STORE, "--json").json
    assert backup["requests"] >= backup["objectCount"] + 1
    command = ("restore", backup["backupId"], "--from", STORE, "--target")
    assert cli(*command, str(tmp_path / "one"), "--json").json["requests"] > 0
    assert "requests" in cli(*command, str(tmp_path / "two")).out
    assert "requests" in cli("backup", str(tree), "--to", STORE).out


def test_object_keys_contain_prefix_volume_and_backup(cli: Cli, opened: Opened, tree: Path) -> None:
    backup_id = back_up(cli, tree, "--volume-id", "vol-1")
    manifest = f"some/prefix/backups/vol-1/{backup_id}.manifest"
    packs = f"some/prefix/packs/vol-1/{backup_id}/"
    stored = [item.key for item in opened.inside.list("")]
    assert manifest in stored
    assert all(key == manifest or key.startswith(packs) for key in stored)


def test_only_backups_create_the_container(cli: Cli, opened: Opened, tree: Path) -> None:
    back_up(cli, tree)
    cli("list", "--from", STORE)
    assert [location.create_container for location in opened.locations] == [True, False]


def test_incremental_backup_shares_unchanged_data(cli: Cli, tree: Path, tmp_path: Path) -> None:
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


def test_parent_is_the_newest_backup_of_the_same_volume(cli: Cli, tree: Path, tmp_path: Path) -> None:
    back_up(cli, tree)
    second = back_up(cli, tree)
    back_up(cli, tree, "--volume-id", "another")
    third = back_up(cli, tree, "--incremental")
    assert cli("show", third, "--from", STORE, "--json").json["parentId"] == second


@pytest.mark.parametrize(("detection", "read"), [((), True), (("--change-detection", "SizeMtime"), False)])
def test_attributes_that_identify_unchanged_files_are_selectable(
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


def test_first_incremental_backup_is_full_with_a_warning(cli: Cli, tree: Path) -> None:
    outcome = cli("backup", str(tree), "--to", STORE, "--incremental")
    assert outcome.code == 0
    assert "creating a full backup" in outcome.err
    listed = cli("list", "--from", STORE, "--json").json
    assert listed[0]["parentId"] is None
    assert listed[0]["description"]["incremental"] is False


def test_interrupted_backup_is_not_listed_until_it_is_resumed(cli: Cli, opened: Opened, tree: Path) -> None:
    opened.faulty.on("put", ".manifest").raises(KeyboardInterrupt())
    interrupted = cli("backup", str(tree), "--to", STORE)
    assert interrupted.code == 130
    backup_id = interrupted.err.split("--resume ")[1].split()[0].rstrip(".")
    assert cli("list", "--from", STORE, "--json").json == []
    packs = {item.key for item in opened.inside.list("some/prefix/packs/") if item.key[-4:-3] == "-"}
    assert back_up(cli, tree, "--resume", backup_id) == backup_id
    assert packs <= {item.key for item in opened.inside.list("some/prefix/packs/")}
    assert cli("verify", backup_id, "--from", STORE).code == 0


def test_data_of_an_interrupted_backup_can_be_deleted(cli: Cli, opened: Opened, tree: Path) -> None:
    opened.faulty.on("put", ".manifest").raises(StoreUnreachable("unreachable"))
    assert cli("backup", str(tree), "--to", STORE, "--resume", "b-1", "--volume-id", "v-1").code == 4
    assert list(opened.inside.list(""))
    assert cli("delete", "b-1", "--volume-id", "v-1", "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_encrypted_backups_show_nothing_without_their_key(
    cli: Cli, opened: Opened, tree: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    backup_id = back_up(cli, tree, "--encryption-key-file", str(keys["old"]))
    assert not any(b"localhost" in opened.inside.get(item.key) for item in opened.inside.list(""))
    (listed,) = cli("list", "--from", STORE, "--json").json
    assert (listed["readable"], listed["keyId"]) == (False, "old.key")
    rejected = cli("restore", backup_id, "--from", STORE, "--target", str(tmp_path / "out"))
    assert rejected.code == 3
    assert "old.key" in rejected.err
    assert not (tmp_path / "out").exists()
    key = f"old.key={keys['old']}"
    restored = cli(
        "restore", backup_id, "--from", STORE, "--target", str(tmp_path / "out"), "--encryption-key-file", key
    )
    assert restored.code == 0
    assert snapshot(tmp_path / "out") == snapshot(tree)


def test_new_key_alone_opens_a_rewrapped_backup(cli: Cli, tree: Path, keys: dict[str, Path]) -> None:
    old, young = (("--encryption-key-file", str(file)) for file in (keys["old"], keys["young"]))
    sealed = back_up(cli, tree, *old)
    back_up(cli, tree)
    outcome = cli("rewrap", "--from", STORE, *old, *young, "--json")
    assert outcome.json == [{"backupId": sealed, "from": "old.key", "to": "young.key"}]
    assert cli("verify", sealed, "--from", STORE, *young).code == 0
    assert cli("verify", sealed, "--from", STORE, *old).code == 3


def test_only_requested_paths_and_their_parents_are_restored(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    out = tmp_path / "out"
    outcome = cli("restore", backup_id, "/etc/deep/", "--from", STORE, "--target", str(out), "symlink")
    assert outcome.code == 0, outcome.err
    assert set(snapshot(out)) == {"etc", "etc/deep", "etc/deep/data", "symlink"}
    assert (out / "etc/deep/data").read_bytes() == (tree / "etc/deep/data").read_bytes()


def test_hard_link_is_restored_with_its_file(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    out = tmp_path / "out"
    assert cli("restore", backup_id, "link", "--from", STORE, "--target", str(out)).code == 0
    assert (out / "link").read_bytes() == (tree / "link").read_bytes()
    assert set(snapshot(out)) == {"etc", "etc/deep", "etc/deep/data", "link"}


def test_missing_path_is_named_before_anything_is_written(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    outcome = cli("restore", backup_id, "top", "to", "--from", STORE, "--target", str(tmp_path / "out"))
    assert outcome.code == 3
    assert outcome.err.strip().endswith("Cannot restore to: the backup has no such path.")
    assert not (tmp_path / "out").exists()


def test_nonempty_directory_requires_overwrite(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    for more in ((), ("top",), ("top", "--overwrite")):
        outcome = cli("restore", backup_id, "--from", STORE, "--target", str(out), *more)
        assert (outcome.code, set(snapshot(out))) == (3, {"precious"})
    assert cli("restore", backup_id, "--from", STORE, "--target", str(out), "--overwrite").code == 0
    assert snapshot(out) == snapshot(tree)


def test_existing_image_requires_overwrite(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"a" * 100_000)
    backup_id = back_up(cli, image)
    image.write_bytes(b"b" * 100_000)
    assert cli("restore", backup_id, "--from", STORE, "--target", str(image)).code == 3
    assert image.read_bytes() == b"b" * 100_000
    assert cli("restore", backup_id, "--from", STORE, "--target", str(image), "--overwrite").code == 0
    assert image.read_bytes() == b"a" * 100_000


def test_target_of_the_wrong_type_is_rejected(cli: Cli, tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"a" * 1000)
    of_image, of_tree = back_up(cli, image), back_up(cli, tree)
    for backup_id, target in ((of_image, tree), (of_tree, image)):
        outcome = cli("restore", backup_id, "--from", STORE, "--target", str(target), "--overwrite")
        assert outcome.code == 3
        assert "this backup requires" in outcome.err
    assert image.read_bytes() == b"a" * 1000


def test_paths_of_a_device_are_rejected(cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"a" * 1000)
    backup_id = back_up(cli, image)
    outcome = cli("restore", backup_id, "etc", "--from", STORE, "--target", str(tmp_path / "out"))
    assert outcome.code == 3
    assert "no paths" in outcome.err


def test_other_file_types_cannot_be_backed_up(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "absent"):
        outcome = cli("backup", str(tmp_path / name), "--to", STORE)
        assert outcome.code == 3
        assert name in outcome.err


def test_volume_id_does_not_depend_on_symbolic_links(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree)
    assert default_volume_id(str(tree)) == default_volume_id(f"{tmp_path}/alias/../alias")
    assert default_volume_id(str(tree)) != default_volume_id(str(tree), host="another")
    # If this value changed, existing backups would lose their parents.
    assert default_volume_id("/srv/data", host="laptop") == "58a7cb62-297e-5e7a-8edd-3b50b178e001"


def test_unreachable_store_is_a_temporary_failure(cli: Cli, opened: Opened) -> None:
    opened.faulty.on("check").raises(StoreUnreachable("the store is unreachable")).times(inf)
    outcome = cli("list", "--from", STORE, "--json")
    assert outcome.code == 4
    assert outcome.json == {
        "succeeded": False,
        "permanent": False,
        "reason": "StoreUnreachable",
        "message": "the store is unreachable",
    }
    assert outcome.err == "cinderblock list: the store is unreachable\n"


def test_crashes_are_not_caught(cli: Cli, opened: Opened, tree: Path) -> None:
    opened.faulty.on("put").crashes()
    with pytest.raises(Crash):
        cli("backup", str(tree), "--to", STORE)


def test_with_a_key_unencrypted_backups_require_allow_unsealed(
    cli: Cli, tree: Path, keys: dict[str, Path], tmp_path: Path
) -> None:
    backup_id, key = back_up(cli, tree), ("--encryption-key-file", str(keys["old"]))
    for command in (("verify", backup_id), ("restore", backup_id, "--target", str(tmp_path / "out"))):
        rejected = cli(*command, "--from", STORE, *key)
        assert rejected.code == 5
        assert "is not encrypted" in rejected.err
        assert "use --allow-unsealed" in rejected.err
        assert not (tmp_path / "out").exists()
    for command in (("verify", backup_id), ("restore", backup_id, "--target", str(tmp_path / "out"))):
        assert cli(*command, "--from", STORE, *key, "--allow-unsealed").code == 0
    assert snapshot(tmp_path / "out") == snapshot(tree)


def test_unencrypted_parent_is_rejected_with_advice(cli: Cli, tree: Path, keys: dict[str, Path]) -> None:
    back_up(cli, tree)
    command = ("backup", str(tree), "--to", STORE, "--incremental", "--encryption-key-file", str(keys["old"]))
    rejected = cli(*command)
    assert rejected.code == 5
    assert "use --allow-unsealed" in rejected.err
    assert "--resume" not in rejected.err
    assert cli(*command, "--allow-unsealed").code == 0


def test_read_only_marks_of_missing_keys_are_rejected(cli: Cli, tree: Path) -> None:
    rejected = cli("backup", str(tree), "--to", STORE, "--read-only-keys", "2024=2026-01-31T12:00:00Z")
    assert rejected.code == 3
    assert "--encryption-key-file" in rejected.err


def test_overwritten_image_gets_the_size_of_the_backup(cli: Cli, tmp_path: Path) -> None:
    image, target = tmp_path / "disk.img", tmp_path / "target.img"
    image.write_bytes(os.urandom(100_001))
    backup_id = back_up(cli, image)
    for size in (10, 100_001, 3_000_000):
        target.write_bytes(b"x" * size)
        assert cli("restore", backup_id, "--from", STORE, "--target", str(target), "--overwrite").code == 0
        assert filecmp.cmp(image, target, shallow=False)


def test_failed_restore_warns_about_its_target(cli: Cli, opened: Opened, tmp_path: Path) -> None:
    image, target = tmp_path / "disk.img", tmp_path / "target.img"
    image.write_bytes(os.urandom(30 << 20))
    backup_id = back_up(cli, image)
    last = max(item.key for item in opened.inside.list("") if item.key.endswith("-000001"))
    body = opened.inside.get(last)
    opened.inside.put(last, bytes([body[0] ^ 1]) + body[1:])
    outcome = cli("restore", backup_id, "--from", STORE, "--target", str(target))
    assert outcome.code == 5
    assert f"do not use {target}, which is incomplete: repeat the command with --overwrite" in outcome.err
    opened.inside.put(last, body)
    assert cli("restore", backup_id, "--from", STORE, "--target", str(target), "--overwrite").code == 0
    assert filecmp.cmp(image, target, shallow=False)


def test_paths_are_normalized(cli: Cli, tree: Path, tmp_path: Path) -> None:
    backup_id = back_up(cli, tree)
    out = tmp_path / "out"
    assert cli("restore", backup_id, "./etc//deep/", "top", "--from", STORE, "--target", str(out)).code == 0
    assert set(snapshot(out)) == {"etc", "etc/deep", "etc/deep/data", "top"}


def test_empty_path_is_not_the_working_directory(
    cli: Cli, opened: Opened, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert cli("backup", "", "--to", STORE).code == 2
    assert opened.locations == []


def test_directory_with_a_name_outside_utf8_is_restored(cli: Cli, tree: Path, tmp_path: Path) -> None:
    source = os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff\xfe")
    tree.rename(source)
    backup_id = back_up(cli, Path(source))
    again = cli("backup", source, "--to", STORE, "--incremental")
    assert again.code == 0
    assert "creating a full backup" not in again.err
    target = os.fsdecode(os.fsencode(tmp_path) + b"/target \xff")
    restored = cli("restore", backup_id, "--from", STORE, "--target", target, "--json")
    assert (restored.code, restored.json["target"]) == (0, target)
    assert snapshot(Path(target)) == snapshot(Path(source))
    assert "odd \\xff\\xfe" in cli("list", "--from", STORE).out.replace("\\\\", "\\")


def test_backup_name_outside_utf8_is_rejected(cli: Cli, opened: Opened, tree: Path) -> None:
    assert cli("backup", str(tree), "--to", STORE, "--name", "\udcff").code == 2
    assert opened.locations == []


def test_wrong_and_missing_keys_have_different_errors(
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
    assert "give the key with --encryption-key-file" in none.err
    assert "give the key with --encryption-key-file" in other.err
    assert "does not open backup" in wrong.err
    assert not out.exists()


@pytest.mark.parametrize("content", [b"", b"not base64!", b"c2hvcnQ="])
def test_file_without_a_key_is_named(cli: Cli, opened: Opened, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.key").write_bytes(content)
    outcome = cli("list", "--from", STORE, "--encryption-key-file", str(tmp_path / "a.key"))
    assert (outcome.code, opened.locations) == (3, [])
    assert "'a.key' of what --encryption-key-file gives" in outcome.err
    assert "32" in outcome.err


def test_command_in_the_warning_deletes_an_interrupted_backup(cli: Cli, opened: Opened, tree: Path) -> None:
    opened.faulty.on("put", ".manifest").raises(StoreUnreachable("unreachable"))
    warning = cli("backup", str(tree), "--to", STORE).err
    words = warning.split("remove its data: cinderblock ")[1].splitlines()[0].split()
    assert list(opened.inside.list(""))
    assert cli(*words, "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_damaged_backup_does_not_prevent_rewrapping_others(
    cli: Cli, opened: Opened, tree: Path, keys: dict[str, Path]
) -> None:
    old, young = (("--encryption-key-file", str(file)) for file in (keys["old"], keys["young"]))
    ids = sorted(back_up(cli, tree, *old) for _ in range(3))
    damaged = next(item.key for item in opened.inside.list("") if item.key.endswith(f"{ids[0]}.manifest"))
    opened.inside.put(damaged, opened.inside.get(damaged)[:-1] + b"?")
    outcome = cli("rewrap", "--from", STORE, *old, *young, "--json")
    assert outcome.code == 5
    assert f"not re-wrapped: {damaged}" in outcome.err
    assert [done["backupId"] for done in outcome.json] == ids[1:]


def test_restore_can_require_the_digest_that_backup_printed(
    cli: Cli, opened: Opened, tree: Path, tmp_path: Path
) -> None:
    report = cli("backup", str(tree), "--to", STORE, "--json").json
    backup_id, digest = report["backupId"], report["contentDigest"]
    older = next(item.key for item in opened.inside.list("") if item.key.endswith(f"{backup_id}.manifest"))
    assert f"digest       {digest}" in cli("show", backup_id, "--from", STORE).out
    with_digest = ("--from", STORE, "--expect-digest", digest)
    assert cli("verify", backup_id, *with_digest).code == 0
    assert cli("restore", backup_id, "--target", str(tmp_path / "out"), *with_digest).code == 0
    (tree / "etc" / "hosts").write_text("changed\n")
    volume_id = report["volumeId"]
    opened.inside.delete([older])
    other = cli("backup", str(tree), "--to", STORE, "--resume", backup_id, "--volume-id", volume_id, "--json").json
    assert other["contentDigest"] != digest
    rejected = cli("restore", backup_id, "--target", str(tmp_path / "no"), *with_digest)
    assert rejected.code == 5
    assert f"should be {digest}" in rejected.err
    assert cli("verify", backup_id, *with_digest).code == 5
    assert not (tmp_path / "no").exists()


def test_malformed_digest_is_a_usage_error(cli: Cli) -> None:
    outcome = cli("verify", "some", "--from", STORE, "--expect-digest", "abc")
    assert (outcome.code, "64 hexadecimal digits" in outcome.err) == (2, True)


def test_read_only_key_decrypts_old_backups_and_encrypts_none(
    cli: Cli, tree: Path, tmp_path: Path, keys: dict[str, Path]
) -> None:
    old, young = (("--encryption-key-file", str(file)) for file in (keys["old"], keys["young"]))
    sealed = back_up(cli, tree, *old)
    later, earlier = (("--read-only-keys", f"old.key={year}-01-31T12:00:00Z") for year in (2999, 2000))
    assert cli("restore", sealed, "--from", STORE, "--target", str(tmp_path / "out"), *old, *young, *later).code == 0
    too_late = cli("verify", sealed, "--from", STORE, *old, *young, *earlier)
    assert (too_late.code, "read-only since 2000-01-31T12:00:00Z" in too_late.err) == (5, True)
    for words in (("backup", str(tree), "--to", STORE), ("rewrap", "--from", STORE)):
        rejected = cli(*words, *old, *young, *later, "--active-key", "old.key")
        assert (rejected.code, "marks it as read-only" in rejected.err) == (3, True)
    malformed = cli("list", "--from", STORE, *old, "--read-only-keys", "old.key")
    assert (malformed.code, "Cannot read --read-only-keys" in malformed.err) == (3, True)
    assert cli("rewrap", "--from", STORE, *old, *young, *later, "--json").json == [
        {"backupId": sealed, "from": "old.key", "to": "young.key"}
    ]
