"""The bench itself, with volumes so small that the results mean nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.contenders import CINDERBLOCK
from tests.bench.peers import KOPIA, RESTIC
from tests.bench.rounds import COMMON, Step
from tests.bench.scattered import STEPS
from tests.cluster import toolchain

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(os.geteuid() != 0, reason="restores go to file systems of their own"),
    pytest.mark.timeout(600),
]


QUICK_FILES = 500
"""Files of the tree in a quick run."""


def test_quick_run_measures_every_step_of_every_volume(tmp_path: Path) -> None:
    rows = _rows(tmp_path, "--peers")

    for step in Step:
        measured = [row for row in rows if row.startswith(f"| {step} | {CINDERBLOCK} |")]
        volumes = ["image", "tree", "scattered"] if step in STEPS else ["image", "tree"]
        assert len(measured) == (1 if step is Step.JUST_WRITTEN else len(volumes)), (step, rows)
    assert f"| {Step.UNCHANGED} | 0 |" in rows
    assert f"| {Step.JUST_WRITTEN} | {QUICK_FILES} |" in rows


@pytest.mark.parametrize("peer", [RESTIC, KOPIA])
def test_peer_runs_every_step_and_is_compared(peer: str, tmp_path: Path) -> None:
    if not toolchain.is_built(peer):
        pytest.skip(f"{peer} takes minutes to build, and this test is for seconds: make bench builds it")

    rows = _rows(tmp_path, "--only", "image", "--peers", peer)

    assert f"| {peer} / {CINDERBLOCK} | Wall | CPU | Peak memory | Requests | Stored |" in rows
    for step in COMMON:
        measured = [row for row in rows if row.startswith(f"| {step} | {peer} |")]
        assert len(measured) == 1, (step, rows)


def _rows(folder: Path, *arguments: str) -> list[str]:
    """Return the rows of the tables on the page of a quick run."""
    written = folder / "bench.md"
    command = [sys.executable, "-m", "tests.bench", "--quick", *arguments, "--write", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return [line for line in written.read_text().splitlines() if line.startswith("| ")]
