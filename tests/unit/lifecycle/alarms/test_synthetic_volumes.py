"""Normal days of synthetic volumes raise hardly any alarm, and incidents raise one with the next backup.

docs/guide/alarms.md has the whole table, which `make test-long` makes again.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.alarms.incidents import CASES, false_alarms, found, table
from tests.support.alarms.volumes import KINDS

PAGE = (Path(__file__).parents[4] / "docs/guide/alarms.md").read_text()
ALL_SEEDS = range(100)
SOME_SEEDS = range(4)
ENCRYPTED, *_ = CASES
CASES_BY_TEXT = {case.text: case for case in CASES}


def test_normal_days_raise_at_most_one_false_alarm() -> None:
    assert sum(false_alarms(kind, SOME_SEEDS) for kind in KINDS) <= 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "logs"])
@pytest.mark.parametrize("text", [ENCRYPTED.text, "all files truncated to zero", "90 % of the files deleted"])
def test_incident_is_found_by_the_next_backup(kind: str, text: str) -> None:
    assert found(CASES_BY_TEXT[text], kind, SOME_SEEDS) == len(SOME_SEEDS)


@pytest.mark.long
def test_hundred_volumes_raise_at_most_one_false_alarm() -> None:
    """All kinds count together, because those that overwrite much raise more than those that do not."""
    assert sum(false_alarms(kind, ALL_SEEDS) for kind in KINDS) <= len(KINDS)


@pytest.mark.long
def test_documented_table_of_incidents_is_correct() -> None:
    assert "\n".join(table(ALL_SEEDS)) in PAGE
