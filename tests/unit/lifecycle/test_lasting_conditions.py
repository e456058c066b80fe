"""Conditions about stored data outlive the operations that set them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.lifecycle import conditions

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
COMPLETE = ConditionType.COMPLETE
Outcome = Callable[[list[Condition], datetime, int, str, str], list[Condition]]


def incomplete(shown: list[Condition], now: datetime, message: str = "two files") -> list[Condition]:
    return conditions.with_lasting(
        shown, now, 1, kind=COMPLETE, status="False", reason="FilesUnreadable", message=message
    )


def of_type(shown: list[Condition], kind: ConditionType) -> list[Condition]:
    return [condition for condition in shown if condition.type == kind]


@pytest.mark.parametrize("outcome", [conditions.reconciling, conditions.ready, conditions.stalled])
def test_outcome_keeps_a_lasting_condition(outcome: Outcome) -> None:
    before = incomplete(conditions.ready([], NOW, 1, "Available", "whole"), NOW)
    after = outcome(before, LATER, 2, "Other", "other")
    assert of_type(after, COMPLETE) == of_type(before, COMPLETE)
    assert of_type(after, ConditionType.READY)[0].reason == "Other"


def test_outcome_drops_conditions_of_the_operation() -> None:
    before = conditions.stalled([], NOW, 1, "Broken", "broken")
    assert [condition.type for condition in conditions.ready(before, LATER, 1, "Available", "whole")] == ["Ready"]


def test_lasting_condition_keeps_its_transition_time() -> None:
    before = incomplete(conditions.ready([], NOW, 1, "Available", "whole"), NOW)
    again = incomplete(conditions.ready(before, LATER, 1, "Available", "whole"), LATER, "three files")
    (shown,) = of_type(again, COMPLETE)
    assert (shown.message, shown.last_transition_time) == ("three files", NOW)
