"""docs/reference/statuses.md explains every phase and every reason, each once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from cinderblock.api.v1alpha1.backup import BackupPhase
from cinderblock.api.v1alpha1.restore import RestorePhase
from cinderblock.api.v1alpha1.verification import VerificationPhase
from cinderblock.reasons import Reason
from tests.support.documented_reasons import INTERNAL_REASONS

PAGE = (Path(__file__).parents[3] / "docs/reference/statuses.md").read_text()


def test_page_has_one_row_for_every_reason() -> None:
    rows = re.findall(r"^\| `([A-Z]\w+)` \| .+ \| .+ \|$", PAGE, re.MULTILINE)
    assert Counter(rows) == Counter(set(Reason) - INTERNAL_REASONS.keys())


def test_page_has_one_row_for_every_phase() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+) \| .+ \|$", PAGE, re.MULTILINE)
    kinds_by_phase = {phase: {kind.strip() for kind in kinds.split(",")} for phase, kinds in rows}
    assert {phase for phase, kinds in kinds_by_phase.items() if "VolumeBackup" in kinds} == set(BackupPhase)
    assert {phase for phase, kinds in kinds_by_phase.items() if "VolumeRestore" in kinds} == set(RestorePhase)
    verifications = {phase for phase, kinds in kinds_by_phase.items() if "BackupVerification" in kinds}
    assert verifications == set(VerificationPhase)
