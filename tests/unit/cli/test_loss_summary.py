"""Reports of losses and unreadable files, and their exit codes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cinderblock.volume.tree import reader as tree_reader
from tests.support.mover.unprivileged import IGNORED, Call, run_with_answers
from tests.unit.cli.conftest import Cli, Outcome

STORE = "s3://backups/some/prefix"
INCOMPLETE = 6
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def unreadable(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a directory with one file that has more attributes than a backup can hold."""
    monkeypatch.setattr(tree_reader, "MAX_XATTR_BYTES", 100)
    os.setxattr(tree / "top", "user.large", b"v" * 200)
    return tree


def test_unreadable_file_fails_the_backup_by_default(cli: Cli, unreadable: Path) -> None:
    outcome = cli("backup", str(unreadable), "--to", STORE)
    assert outcome.code == 3
    assert "--skip-unreadable" in outcome.err


def test_backup_with_skipped_files_lists_them_and_exits_with_6(cli: Cli, unreadable: Path) -> None:
    outcome = cli("backup", str(unreadable), "--to", STORE, "--skip-unreadable")
    assert outcome.code == INCOMPLETE
    assert "the backup lacks 1 file that could not be read: top" in outcome.err


def test_skipped_files_are_in_json_and_in_show(cli: Cli, unreadable: Path, tmp_path: Path) -> None:
    made = cli("backup", str(unreadable), "--to", STORE, "--skip-unreadable", "--json")
    assert (made.code, made.json["unreadableFiles"], made.json["unreadableExamples"]) == (INCOMPLETE, 1, ["top"])
    shown = cli("show", made.json["backupId"], "--from", STORE)
    assert "1 file that could not be read: top" in shown.out
    assert cli("list", "--from", STORE).out.splitlines()[1].endswith("(lacks 1 file)")
    (listed,) = cli("list", "--from", STORE, "--json").json
    assert (listed["unreadableFiles"], listed["unreadableExamples"]) == (1, ["top"])
    restored = cli("restore", made.json["backupId"], "--from", STORE, "--target", str(tmp_path / "new"))
    assert restored.code == 0
    assert "the backup lacks 1 file that could not be read when it was made (top)" in restored.err


def test_complete_backup_with_skip_unreadable_succeeds(cli: Cli, tree: Path) -> None:
    assert cli("backup", str(tree), "--to", STORE, "--skip-unreadable").code == 0


@needs_root
@pytest.mark.parametrize("answer", [IGNORED, errno.EPERM])
def test_best_effort_continues_when_owners_are_lost(cli: Cli, tree: Path, tmp_path: Path, answer: int) -> None:
    os.chown(tree / "top", 7, 8)
    backup = cli("backup", str(tree), "--to", STORE, "--json").json["backupId"]

    def restore(*more: str) -> Outcome:
        words = ("restore", backup, "--from", STORE, "--target", str(tmp_path / "new"), *more)
        return run_with_answers(lambda: cli(*words), {Call.CHOWN: answer})

    refused = restore()
    assert refused.code == 3
    assert "--best-effort" in refused.err
    went_on = restore("--overwrite", "--best-effort")
    assert went_on.code == 0
    assert "owners of files: 1 (top)" in went_on.out
    report = restore("--overwrite", "--best-effort", "--json").json
    assert report["losses"] == [{"what": "owners of files", "objects": 1, "examples": ["top"]}]
