"""``cinderblock key check``."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from cinderblock.api.v1alpha1.store import StoreAccess
from tests.unit.cli.conftest import Cli, Opened

STORE = "s3://backups"
CHECK = ("key", "check", "--from", STORE)


def option(key: Path, key_id: str | None = None) -> tuple[str, str]:
    return "--encryption-key-file", f"{key_id}={key}" if key_id else str(key)


@pytest.fixture
def sealed(cli: Cli, tree: Path, keys: dict[str, Path]) -> None:
    """Create two backups of one volume: the first with the old key, the second one with the new one."""
    for name in ("old", "young"):
        assert cli("backup", str(tree), "--to", STORE, "--volume-id", "v", *option(keys[name])).code == 0


def test_right_copy_opens_the_backups(cli: Cli, sealed: None, keys: dict[str, Path]) -> None:
    outcome = cli(*CHECK, "--all", *option(keys["old"]), *option(keys["young"]))
    assert outcome.code == 0, outcome.err
    heading, *rows = outcome.out.splitlines()
    assert heading.split() == ["KEY", "ID", "OPENS", "FAILS", "CAUSE"]
    assert [row.split() for row in rows] == [["old.key", "1", "0"], ["young.key", "1", "0"]]
    assert outcome.err == ""


def test_missing_key_is_named(cli: Cli, sealed: None, keys: dict[str, Path]) -> None:
    outcome = cli(*CHECK, "--all", "--json", *option(keys["young"]))
    assert outcome.code == 3
    assert outcome.json["keys"] == [
        {"keyId": "young.key", "opens": 1, "fails": 0, "reasons": {}},
        {"keyId": "old.key", "opens": 0, "fails": 1, "reasons": {"KeyUnavailable": 1}},
    ]
    assert [failure["keyId"] for failure in outcome.json["failures"]] == ["old.key"]
    assert "old.key" in outcome.err


def test_another_key_under_the_right_id_is_worse(cli: Cli, sealed: None, keys: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(base64.b64encode(os.urandom(32)))
    outcome = cli(*CHECK, "--all", *option(other, "young.key"), *option(keys["old"]))
    assert outcome.code == 5
    assert "the given key is another one" in outcome.out
    assert "young.key" in outcome.err


def test_only_one_backup_of_each_volume_is_checked_without_all(
    cli: Cli, sealed: None, keys: dict[str, Path], tree: Path
) -> None:
    assert cli("backup", str(tree), "--to", STORE, "--volume-id", "w", *option(keys["old"])).code == 0
    both = (*option(keys["old"]), *option(keys["young"]))
    assert cli(*CHECK, "--json", *both).json["checked"] == 2
    assert cli(*CHECK, "--json", "--all", *both).json["checked"] == 3
    assert cli(*CHECK, "--json", "--all", "--volume-id", "w", *both).json["checked"] == 1


@pytest.mark.parametrize("plain", [False, True], ids=["empty", "unencrypted"])
def test_store_without_encrypted_backups_proves_nothing(
    cli: Cli, tree: Path, keys: dict[str, Path], plain: bool
) -> None:
    if plain:
        assert cli("backup", str(tree), "--to", STORE).code == 0
    outcome = cli(*CHECK, *option(keys["old"]))
    assert outcome.code == 3
    assert "nothing is proven" in outcome.err


def test_unencrypted_backup_among_others_is_no_failure(
    cli: Cli, sealed: None, tree: Path, keys: dict[str, Path]
) -> None:
    assert cli("backup", str(tree), "--to", STORE, "--volume-id", "w").code == 0
    outcome = cli(*CHECK, "--all", *option(keys["old"]), *option(keys["young"]))
    assert outcome.code == 0
    assert "can be read without a key" in outcome.err
    assert "(none)" in outcome.out


def test_check_needs_a_key(cli: Cli) -> None:
    outcome = cli(*CHECK)
    assert outcome.code == 3
    assert "--encryption-key-file" in outcome.err
    assert cli("key", "print", "--from", STORE).code == 2


def test_no_output_contains_a_key(cli: Cli, sealed: None, keys: dict[str, Path]) -> None:
    secrets = [file.read_text().strip() for file in keys.values()]
    for more in ((), ("--json",)):
        outcome = cli(*CHECK, "--all", *more, *option(keys["young"], "old.key"))
        assert not any(secret in outcome.out + outcome.err for secret in secrets)


def test_check_opens_the_store_only_for_reading(cli: Cli, opened: Opened, sealed: None, keys: dict[str, Path]) -> None:
    cli(*CHECK, *option(keys["young"]))
    assert opened.locations[-1].access is StoreAccess.READ_ONLY


@pytest.mark.parametrize(
    ("words", "writes"),
    [
        (("list",), False),
        (("list", "--as-manifests"), False),
        (("show", "none"), False),
        (("verify", "none"), False),
        (("restore", "none", "--target", "/nowhere"), False),
        (("retention", "preview", "--keep-last", "1"), False),
        (("delete", "none"), True),
        (("rewrap", "none", "--encryption-key-file"), True),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else None,
)
def test_only_commands_that_write_open_the_store_for_writing(
    cli: Cli, opened: Opened, keys: dict[str, Path], words: tuple[str, ...], writes: bool
) -> None:
    given = [*words, str(keys["old"])] if words[-1] == "--encryption-key-file" else [*words]
    cli(*given, "--from", STORE)
    expected = StoreAccess.READ_WRITE if writes else StoreAccess.READ_ONLY
    assert [location.access for location in opened.locations] == [expected]
