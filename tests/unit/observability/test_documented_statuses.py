"""docs/reference/statuses.md says of every phase and every reason what it means and what to do, each once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.restore import RestorePhase
from tests.support.reasons import reasons

PAGE = (Path(__file__).parents[3] / "docs/reference/statuses.md").read_text()


def test_every_reason_has_one_row_and_no_other_word_has() -> None:
    rows = re.findall(r"^\| `([A-Z]\w+)` \| .+ \| .+ \|$", PAGE, re.MULTILINE)
    assert Counter(rows) == Counter(reasons())


def test_every_phase_has_one_row_and_no_other_word_has() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+) \| .+ \|$", PAGE, re.MULTILINE)
    of = {phase: {kind.strip() for kind in kinds.split(",")} for phase, kinds in rows}
    assert {phase for phase, kinds in of.items() if "VolumeBackup" in kinds} == set(BackupPhase)
    assert {phase for phase, kinds in of.items() if "VolumeRestore" in kinds} == set(RestorePhase)
