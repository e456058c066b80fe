"""docs/observability.md lists exactly the reasons that conditions and Events can have."""

from __future__ import annotations

import re
from pathlib import Path

from cinderblock.lifecycle import events
from tests.support.reasons import reasons

SECTION = (Path(__file__).parents[3] / "docs/observability.md").read_text().partition("## Events\n")[2]
SECTION = SECTION.partition("\n## Logs")[0]
OTHERS = {"Reconciling", "Evicted"}
"""CamelCase words of the section that are not reasons of Cinderblock."""


def _words(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z][A-Za-z0-9]+)`", text))


def test_documented_reasons_are_the_existing_ones() -> None:
    assert _words(SECTION) - OTHERS == reasons()


def test_waits_recorded_as_events_are_in_the_table_of_waits() -> None:
    table = SECTION.partition("### Waits\n")[2].partition("In conditions only")[0]
    normal = set(re.findall(r"^\| `(\w+)` \| Normal", table, re.MULTILINE))
    warning = set(re.findall(r"^\| `(\w+)` \| Warning", table, re.MULTILINE))
    assert normal == events.BENIGN_WAITS
    assert warning.isdisjoint(events.BENIGN_WAITS | events.EXPECTED_WAITS)


def test_expected_waits_are_documented_as_conditions_only() -> None:
    usual = SECTION.partition("In conditions only")[2].partition("###")[0]
    assert _words(usual) - OTHERS - {"StatusLost"} == events.EXPECTED_WAITS
