"""The measuring itself, with volumes so small that the figures mean nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.rounds import Step

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(os.geteuid() != 0, reason="restores go to file systems of their own"),
]


def test_a_quick_run_measures_every_step_of_every_program(tmp_path: Path) -> None:
    peers = ["restic"] if shutil.which("restic") else []
    written = tmp_path / "bench.md"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--peers", *(peers or ["none"]), "--write", str(written)]

    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])

    assert done.returncode == 0, done.stderr
    rows = [line for line in written.read_text().splitlines() if line.startswith("| ")]
    for step in Step:
        for program in ("cinderblock", *peers):
            measured = [row for row in rows if row.startswith(f"| {step} | {program} |")]
            expected = 2 if program != "cinderblock" or step is Step.CHANGED else 3
            assert len(measured) == expected, (step, program, rows)
