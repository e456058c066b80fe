"""The dirty window, comparisons, and the age of snapshots on the command line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_backup import STORE, back_up


def ago(**elapsed: float) -> str:
    return (datetime.now(UTC) - timedelta(**elapsed)).isoformat()


@pytest.fixture
def read_only(tree: Path, tmp_path: Path) -> Iterator[Path]:
    """Mount the tree read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mount = tmp_path / "read-only"
    mount.mkdir()
    subprocess.run(["mount", "--bind", "-o", "ro", str(tree), str(mount)], check=True)
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_files_in_the_dirty_window_are_read_again_and_counted(cli: Cli, tree: Path) -> None:
    back_up(cli, tree)
    report = cli("backup", str(tree), "--to", STORE, "--incremental", "--json").json
    assert (report["rereadFiles"], report["missedChanges"], report["transferredBytes"]) == (3, 0, 0)
    output = cli("backup", str(tree), "--to", STORE, "--incremental").out
    assert "read again  3 files in the dirty window\n" in output
    assert "missed" not in output


def test_changes_hidden_by_timestamps_are_reported(cli: Cli, tree: Path) -> None:
    os.utime(tree / "top", (1_700_000_000, 1_700_000_000))
    back_up(cli, tree)
    (tree / "top").write_text("pot\n")
    os.utime(tree / "top", (1_700_000_000, 1_700_000_000))
    words = (
        "backup",
        str(tree),
        "--to",
        STORE,
        "--incremental",
        "--change-detection",
        "SizeMtime",
        "--compare-every",
        "1",
    )
    output = cli(*words)
    assert "content of 1 file had changed although size and timestamps had not" in output.err
    assert "missed   1 changed file\n" in output.out
    (tree / "top").write_text("opt\n")
    os.utime(tree / "top", (1_700_000_000, 1_700_000_000))
    report = cli(*words, "--json").json
    assert report["missedChanges"] == 1
    assert "missed       1 changed file\n" in cli("show", report["backupId"], "--from", STORE).out


def test_show_prints_how_changes_were_detected(cli: Cli, tree: Path) -> None:
    first = back_up(cli, tree, "--data-timestamp", "2026-01-31T04:00:00+01:00")
    second = back_up(cli, tree, "--incremental", "--dirty-window", "90m")
    third = back_up(cli, tree, "--incremental", "--compare-every", "1")
    shown = [cli("show", backup, "--from", STORE).out for backup in (first, second, third)]
    assert "taken after  2026-01-31 03:00:00Z\n" in shown[0]
    assert "window       1:00:00, 0 files read again for it\nfull read    in this backup\n" in shown[0]
    assert "window       1:30:00, 3 files read again for it\nfull read    1 backup ago\n" in shown[1]
    assert "full read    in this backup, and compared\n" in shown[2]
    report = cli("show", second, "--from", STORE, "--json").json["comparison"]
    assert (report["dirtyWindowSeconds"], report["sinceAllRead"], report["weakestDetection"]) == (
        5400,
        1,
        "SizeMtimeCtimeInode",
    )


def test_read_only_tree_may_be_an_older_snapshot(cli: Cli, read_only: Path) -> None:
    outcome = cli("backup", str(read_only), "--to", STORE, "--json")
    assert "may be an older snapshot" in outcome.err
    assert "Give --data-timestamp" in outcome.err
    backup = outcome.json["backupId"]
    assert cli("show", backup, "--from", STORE, "--json").json["comparison"]["instant"] is None
    assert "taken after  unknown\n" in cli("show", backup, "--from", STORE).out


def test_snapshot_with_its_time_is_treated_like_a_live_tree(cli: Cli, tree: Path, read_only: Path) -> None:
    for path, more in ((read_only, ("--data-timestamp", ago(hours=1))), (tree, ())):
        outcome = cli("backup", str(path), "--to", STORE, "--json", *more)
        assert "older snapshot" not in outcome.err
        backup = outcome.json["backupId"]
        assert cli("show", backup, "--from", STORE, "--json").json["comparison"]["instant"] is not None


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--dirty-window", "119s"), "at least 2m"),
        (("--dirty-window", "1d"), "not a duration"),
        (("--dirty-window", ""), "not a duration"),
        (("--compare-every", "0"), "from 1 to 10000"),
        (("--compare-every", "10001"), "from 1 to 10000"),
        (("--compare-every", "x"), "from 1 to 10000"),
        (("--data-timestamp", "yesterday"), "time zone"),
        (("--data-timestamp", "2026-01-31T04:00:00"), "time zone"),
        (("--data-timestamp", "0001-01-01T00:00:00+14:00"), "time zone"),
        (("--data-timestamp", "2999-01-31T04:00:00Z"), "in the future"),
    ],
)
def test_invalid_values_are_rejected(cli: Cli, tree: Path, words: tuple[str, str], cause: str) -> None:
    outcome = cli("backup", str(tree), "--to", STORE, *words)
    assert (outcome.code, cause in outcome.err) == (2, True)
