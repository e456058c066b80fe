"""docs/observability.md lists every reason that conditions and Events can have, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from cinderblock.lifecycle import events
from cinderblock.reasons import Reason
from tests.support.documented_reasons import INTERNAL_REASONS

SECTION = (Path(__file__).parents[3] / "docs/observability.md").read_text().partition("## Events\n")[2]
SECTION = SECTION.partition("\n## Logs")[0]
OTHER_WORDS = {"Reconciling", "Evicted"}
"""Words of the section that look like reasons."""


def words(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z][A-Za-z0-9]+)`", text)) - OTHER_WORDS


def test_page_lists_every_reason() -> None:
    assert words(SECTION) == set(Reason) - INTERNAL_REASONS.keys()


def test_table_of_waits_has_the_types_of_events() -> None:
    table = SECTION.partition("### Waits\n")[2].partition("In conditions only")[0]
    normal = set(re.findall(r"^\| `(\w+)` \| Normal", table, re.MULTILINE))
    warning = set(re.findall(r"^\| `(\w+)` \| Warning", table, re.MULTILINE))
    assert normal == events.BENIGN_WAITS
    assert warning.isdisjoint(events.BENIGN_WAITS | events.EXPECTED_WAITS)


def test_page_lists_expected_waits_as_conditions_only() -> None:
    paragraph = SECTION.partition("In conditions only")[2].partition("###")[0]
    assert words(paragraph) - {Reason.STATUS_LOST} == events.EXPECTED_WAITS
