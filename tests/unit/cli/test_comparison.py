"""The dirty window, comparing, and the age of a snapshot, by command lines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_backup import STORE, back_up


def ago(**passed: float) -> str:
    return (datetime.now(UTC) - timedelta(**passed)).isoformat()


@pytest.fixture
def read_only(tree: Path, tmp_path: Path) -> Iterator[Path]:
    """The tree, where nobody can write to it."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "read-only"
    place.mkdir()
    subprocess.run(["mount", "--bind", "-o", "ro", str(tree), str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_files_of_the_last_hour_are_read_again_and_counted(cli: Cli, tree: Path) -> None:
    back_up(cli, tree)
    told = cli("backup", str(tree), "--to", STORE, "--incremental", "--json").json
    assert (told["rereadFiles"], told["missedChanges"], told["transferredBytes"]) == (3, 0, 0)
    said = cli("backup", str(tree), "--to", STORE, "--incremental").out
    assert "read again  3 files stamped within the dirty window\n" in said
    assert "missed" not in said


def test_changes_that_timestamps_hid_are_told(cli: Cli, tree: Path) -> None:
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
    said = cli(*words)
    assert "content of 1 file had changed although size and timestamps had not" in said.err
    assert "missed   1 changed file\n" in said.out
    (tree / "top").write_text("opt\n")
    os.utime(tree / "top", (1_700_000_000, 1_700_000_000))
    told = cli(*words, "--json").json
    assert told["missedChanges"] == 1
    assert "missed       1 changed file\n" in cli("show", told["backupId"], "--from", STORE).out


def test_what_was_trusted_is_shown(cli: Cli, tree: Path) -> None:
    first = back_up(cli, tree, "--data-timestamp", "2026-01-31T04:00:00+01:00")
    second = back_up(cli, tree, "--incremental", "--dirty-window", "90m")
    third = back_up(cli, tree, "--incremental", "--compare-every", "1")
    shown = [cli("show", backup, "--from", STORE).out for backup in (first, second, third)]
    assert "cut after    2026-01-31 03:00:00Z\n" in shown[0]
    assert "window       1:00:00, 0 files read again for it\nall read     in this backup\n" in shown[0]
    assert "window       1:30:00, 3 files read again for it\nall read     1 backup ago\n" in shown[1]
    assert "all read     in this backup, and compared\n" in shown[2]
    told = cli("show", second, "--from", STORE, "--json").json["comparison"]
    assert (told["dirtyWindowSeconds"], told["sinceAllRead"], told["weakestDetection"]) == (
        5400,
        1,
        "SizeMtimeCtimeInode",
    )


def test_a_tree_that_nobody_can_write_to_may_be_an_older_snapshot(cli: Cli, read_only: Path) -> None:
    outcome = cli("backup", str(read_only), "--to", STORE, "--json")
    assert "may be an older snapshot" in outcome.err
    assert "Give --data-timestamp" in outcome.err
    backup = outcome.json["backupId"]
    assert cli("show", backup, "--from", STORE, "--json").json["comparison"]["instant"] is None
    assert "cut after    not known\n" in cli("show", backup, "--from", STORE).out


def test_with_its_time_a_snapshot_is_as_good_as_a_live_tree(cli: Cli, tree: Path, read_only: Path) -> None:
    for path, more in ((read_only, ("--data-timestamp", ago(hours=1))), (tree, ())):
        outcome = cli("backup", str(path), "--to", STORE, "--json", *more)
        assert "older snapshot" not in outcome.err
        backup = outcome.json["backupId"]
        assert cli("show", backup, "--from", STORE, "--json").json["comparison"]["instant"] is not None


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--dirty-window", "119s"), "at least 2m"),
        (("--dirty-window", "1d"), "no duration"),
        (("--dirty-window", ""), "no duration"),
        (("--compare-every", "0"), "from 1 to 10000"),
        (("--compare-every", "10001"), "from 1 to 10000"),
        (("--compare-every", "x"), "from 1 to 10000"),
        (("--data-timestamp", "yesterday"), "time zone"),
        (("--data-timestamp", "2026-01-31T04:00:00"), "time zone"),
        (("--data-timestamp", "0001-01-01T00:00:00+14:00"), "time zone"),
        (("--data-timestamp", "2999-01-31T04:00:00Z"), "in the future"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, tree: Path, words: tuple[str, str], cause: str) -> None:
    outcome = cli("backup", str(tree), "--to", STORE, *words)
    assert (outcome.code, cause in outcome.err) == (2, True)
