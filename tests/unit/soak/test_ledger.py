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


def test_a_copy_of_one_instant_is_good(tree: Path) -> None:
    assert ledger.troubles(str(tree), SEED) == (STEPS, [])


def test_a_writer_goes_on_where_the_volume_is(tree: Path) -> None:
    ledger.write(str(tree), SEED, lambda step: step < STEPS + 5)
    assert ledger.troubles(str(tree), SEED) == (STEPS + 5, [])


def test_a_page_of_an_earlier_instant_is_found(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "earlier")
    ledger.write(str(tree), SEED, lambda step: step < 2 * STEPS)
    page = next(page for page in (tree / "pages").iterdir() if _is_rewritten(int(page.name)))
    earlier = tmp_path / "earlier" / "pages" / page.name
    page.write_bytes(earlier.read_bytes() if earlier.exists() else b"")
    assert [text.split()[1] for text in ledger.troubles(str(tree), SEED)[1]] == [page.name]


def _is_rewritten(page: int) -> bool:
    return any(ledger.page_of(SEED, step) == page for step in range(STEPS, 2 * STEPS)) and page != ledger.page_of(
        SEED, 2 * STEPS
    )


@pytest.mark.parametrize("damage", [b"", b"x"])
def test_a_torn_page_is_found(tree: Path, damage: bytes) -> None:
    page = next(page for page in (tree / "pages").iterdir() if int(page.name) != ledger.page_of(SEED, STEPS))
    page.write_bytes(page.read_bytes()[: ledger.PAGE // 2] + damage)
    assert len(ledger.troubles(str(tree), SEED)[1]) == 1


def test_only_the_page_of_the_step_that_was_under_way_may_be_torn(tree: Path) -> None:
    between = ledger.page_of(SEED, STEPS)
    if between < ledger.FILES:
        (tree / "pages" / str(between)).write_bytes(b"half")
    else:
        with open(tree / "shared", "r+b") as file:
            os.pwrite(file.fileno(), b"half", (between - ledger.FILES) * ledger.PAGE)
    assert ledger.troubles(str(tree), SEED) == (STEPS, [])


def test_a_record_that_is_damaged_ends_the_ledger(tree: Path) -> None:
    with open(tree / "ledger", "r+b") as file:
        os.pwrite(file.fileno(), b"\\xff", ledger.RECORD.size * 10)
    steps, wrong = ledger.troubles(str(tree), SEED)
    assert steps == 10
    assert wrong
