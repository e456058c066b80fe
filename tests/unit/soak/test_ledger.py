"""The ledger finds every copy that mixes instants: lost writes, torn ones, and pages of another time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.soak import ledger

SEED, STEPS = "volume", 40


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A volume of files with some steps in it."""
    monkeypatch.setattr(ledger, "PAUSE", 0)
    (tmp_path / "tree").mkdir()
    ledger.write(str(tmp_path / "tree"), SEED, lambda step: step < STEPS)
    return tmp_path / "tree"


def test_copy_of_one_instant_is_good(tree: Path) -> None:
    assert ledger.find_errors(str(tree), SEED) == (STEPS, [])


def test_writer_continues_after_the_last_step_of_the_volume(tree: Path) -> None:
    ledger.write(str(tree), SEED, lambda step: step < STEPS + 5)
    assert ledger.find_errors(str(tree), SEED) == (STEPS + 5, [])


def test_page_of_an_earlier_instant_is_found(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "earlier")
    ledger.write(str(tree), SEED, lambda step: step < 2 * STEPS)
    page = next(page for page in (tree / "pages").iterdir() if _is_rewritten(int(page.name)))
    earlier = tmp_path / "earlier" / "pages" / page.name
    page.write_bytes(earlier.read_bytes() if earlier.exists() else b"")
    assert [text.split()[1] for text in ledger.find_errors(str(tree), SEED)[1]] == [page.name]


def _is_rewritten(page: int) -> bool:
    return any(ledger.page_of(SEED, step) == page for step in range(STEPS, 2 * STEPS)) and page != ledger.page_of(
        SEED, 2 * STEPS
    )


@pytest.mark.parametrize("damage", [b"", b"x"])
def test_torn_page_is_found(tree: Path, damage: bytes) -> None:
    page = next(page for page in (tree / "pages").iterdir() if int(page.name) != ledger.page_of(SEED, STEPS))
    page.write_bytes(page.read_bytes()[: ledger.PAGE // 2] + damage)
    assert len(ledger.find_errors(str(tree), SEED)[1]) == 1


def test_only_the_page_being_written_may_be_torn(tree: Path) -> None:
    between = ledger.page_of(SEED, STEPS)
    if between < ledger.FILES:
        (tree / "pages" / str(between)).write_bytes(b"half")
    else:
        with open(tree / "shared", "r+b") as file:
            os.pwrite(file.fileno(), b"half", (between - ledger.FILES) * ledger.PAGE)
    assert ledger.find_errors(str(tree), SEED) == (STEPS, [])


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with two checkpoints and some steps after them."""
    for name, value in {"PAUSE": 0, "STAY": 4, "CHECKPOINT": 10}.items():
        monkeypatch.setattr(ledger, name, value)
    (tmp_path / "database").mkdir()
    ledger.write(str(tmp_path / "database"), SEED, lambda step: step < 25, ledger.DATABASE)
    return tmp_path / "database"


def test_database_without_its_last_pages_is_good_and_writes_them_again(database: Path) -> None:
    # Segments 5 and 6 were changed by steps 20 to 24, after the checkpoint.
    for segment in ("5", "6"):
        (database / "segments" / segment).write_bytes(bytes(ledger.SEGMENT_PAGES * ledger.PAGE))
    assert ledger.find_errors(str(database), SEED, ledger.DATABASE) == (25, [])
    ledger.write(str(database), SEED, lambda step: step < 30, ledger.DATABASE)
    assert ledger.find_errors(str(database), SEED, ledger.DATABASE) == (30, [])


def test_page_lost_before_the_checkpoint_is_found(database: Path) -> None:
    (database / "segments" / "4").write_bytes(bytes(ledger.SEGMENT_PAGES * ledger.PAGE))
    steps, wrong = ledger.find_errors(str(database), SEED, ledger.DATABASE)
    assert steps == 25
    assert {int(text.split()[1]) // ledger.SEGMENT_PAGES for text in wrong} == {4}


@pytest.mark.parametrize(("name", "steps"), [("log", 15), ("checkpoint", 25)])
def test_log_older_than_its_checkpoint_and_a_damaged_checkpoint_are_found(
    database: Path, name: str, steps: int
) -> None:
    with open(database / name, "r+b") as file:
        os.pwrite(file.fileno(), b"\xff", ledger.RECORD.size * 15 if name == "log" else 0)
    assert ledger.find_errors(str(database), SEED, ledger.DATABASE)[0] == steps
    assert ledger.find_errors(str(database), SEED, ledger.DATABASE)[1]


def test_record_that_is_damaged_ends_the_ledger(tree: Path) -> None:
    with open(tree / "ledger", "r+b") as file:
        os.pwrite(file.fileno(), b"\\xff", ledger.RECORD.size * 10)
    steps, wrong = ledger.find_errors(str(tree), SEED)
    assert steps == 10
    assert wrong
