"""The command delete in containers that keep versions, or that lock objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderblock.cli import store_arguments
from cinderblock.cli.exit_codes import LOCKED, exit_code_for
from cinderblock.errors import AccessDenied, CinderblockError, ObjectLocked, PermanentError, StoreUnreachable
from tests.support.store.aws.bucket import Bucket
from tests.support.store.aws.bucket_store import BucketStore
from tests.unit.cli.conftest import Cli, Opened

STORE = "s3://backups"
END = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)


def container(monkeypatch: pytest.MonkeyPatch, **rules: Any) -> BucketStore:
    """Let all command lines of a test use one bucket with these rules."""
    store = BucketStore(Bucket(lambda: datetime.now(UTC), **rules))
    monkeypatch.setattr(store_arguments, "open_store", lambda *_: store)
    return store


def backed_up(cli: Cli, tree: Path) -> str:
    return str(cli("backup", str(tree), "--to", STORE, "--json").json["backupId"])


def test_deletion_without_versions_says_that_data_is_gone(
    cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container(monkeypatch)
    for as_json in (True, False):
        backup_id = backed_up(cli, tree)
        outcome = cli("delete", backup_id, "--from", STORE, *(("--json",) if as_json else ()))
        assert outcome.code == 0
        if as_json:
            assert (outcome.json["hidden"], outcome.json["versionsRemaining"]) == (False, 0)
        else:
            assert [line.split()[0] for line in outcome.out.splitlines()] == ["deleted", "objects"]


def test_deletion_with_versions_says_how_many_remain(cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = container(monkeypatch, versioning="Enabled")
    shown = cli("delete", backed_up(cli, tree), "--from", STORE)
    count = len(store.bucket.versions)
    assert (shown.code, shown.out.split()[0]) == (0, "hidden")
    assert f"remaining  {count} versions remain in the store" in shown.out
    found = cli("delete", backed_up(cli, tree), "--from", STORE, "--json").json
    assert (found["succeeded"], found["hidden"], found["versionsRemaining"]) == (True, True, count)
    store.kept.errors["versions"] = AccessDenied("no")
    found = cli("delete", backed_up(cli, tree), "--from", STORE, "--json").json
    assert (found["hidden"], found["versionsRemaining"]) == (True, None)


def test_locked_backup_has_an_exit_code_and_stays(cli: Cli, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = container(monkeypatch, has_lock=True)
    backup_id = backed_up(cli, tree)
    pack = next(version for key, (version,) in store.bucket.versions.items() if key.startswith("packs/"))
    pack.mode, pack.until = "GOVERNANCE", END
    outcome = cli("delete", backup_id, "--from", STORE)
    assert outcome.code == LOCKED
    assert f"until {END:%Y-%m-%dT%H:%M:%SZ}. Nothing was deleted." in outcome.err
    assert outcome.err.count("\n") == 1
    assert cli("verify", backup_id, "--from", STORE).code == 0
    pack.until = None
    assert cli("delete", backup_id, "--from", STORE).code == 0
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "error",
    [ObjectLocked("locked"), AccessDenied("no"), PermanentError("refused"), StoreUnreachable("away")],
    ids=["locked", "denied", "refused", "silent"],
)
def test_printed_command_deletes_the_rest_of_a_backup(
    cli: Cli, tree: Path, opened: Opened, error: CinderblockError
) -> None:
    backup_id = backed_up(cli, tree)
    opened.faulty.on("delete", "packs/").raises(error)
    outcome = cli("delete", backup_id, "--from", STORE)
    assert outcome.code == exit_code_for(error)
    words = outcome.err.split("cinderblock delete ")[1].split()[:3]
    assert (words[0], words[1]) == (backup_id, "--volume-id")
    assert cli("delete", *words, "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []


def test_backup_that_was_not_touched_needs_no_such_command(cli: Cli, tree: Path, opened: Opened) -> None:
    backup_id = backed_up(cli, tree)
    for error in (AccessDenied("no"), ObjectLocked("locked")):
        opened.faulty.on("delete", ".manifest").raises(error)
        assert "--volume-id" not in cli("delete", backup_id, "--from", STORE).err
    assert cli("delete", backup_id, "--from", STORE).code == 0


def test_locked_manifest_is_not_rewrapped(
    cli: Cli, tree: Path, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacing a locked object is as impossible as deleting it."""
    store = container(monkeypatch, has_lock=True)
    old, young = (("--encryption-key-file", f"{name}={file}") for name, file in keys.items())
    made = cli("backup", str(tree), "--to", STORE, "--json", *old)
    (manifest,) = (versions for key, versions in store.bucket.versions.items() if key.startswith("backups/"))
    manifest[0].mode, manifest[0].until = "COMPLIANCE", END
    before = manifest[0].body
    assert cli("rewrap", "--from", STORE, *old, *young).code == LOCKED
    assert [version.body for version in manifest] == [before]
    assert cli("verify", made.json["backupId"], "--from", STORE, *old).code == 0


def test_help_explains_the_exit_code_of_locks(cli: Cli) -> None:
    assert f"\n  {LOCKED}    the store keeps an object locked" in cli("--help").out
    assert f"exit code {LOCKED}" in cli("delete", "--help").out
