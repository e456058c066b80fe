"""docs/guide/observability.md knows every reason that conditions and Events can have, and none that they cannot."""

from __future__ import annotations

import re
from pathlib import Path

from cinderblock.lifecycle import events
from tests.support.reasons import reasons

SECTION = (Path(__file__).parents[3] / "docs/guide/observability.md").read_text().partition("## Events\n")[2]
SECTION = SECTION.partition("\n## Logs")[0]
OTHERS = {"Reconciling", "Evicted"}
"""Words of the section that are no reasons of ours."""


def _words(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z][A-Za-z0-9]+)`", text))


def test_every_reason_is_documented_and_every_documented_one_exists() -> None:
    assert _words(SECTION) - OTHERS == reasons()


def test_what_is_told_as_a_wait_is_in_the_table_of_waits() -> None:
    told = SECTION.partition("### Waits\n")[2].partition("In conditions only")[0]
    normal = set(re.findall(r"^\| `(\w+)` \| Normal", told, re.MULTILINE))
    warning = set(re.findall(r"^\| `(\w+)` \| Warning", told, re.MULTILINE))
    assert normal == events.BENIGN_WAITS
    assert warning.isdisjoint(events.BENIGN_WAITS | events.EXPECTED_WAITS)


def test_what_every_operation_goes_through_is_not_told_as_an_event() -> None:
    usual = SECTION.partition("In conditions only")[2].partition("###")[0]
    assert _words(usual) - OTHERS - {"StatusLost"} == events.EXPECTED_WAITS
