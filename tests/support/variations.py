"""Variations of one test: `make test` runs some of them, and `make test-long` all others.

Each variation costs seconds. A variation that `make test` leaves out differs from the others only in its combination.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def some(cases: Iterable[Any], first: int = 0, step: int = 3) -> list[Any]:
    """Return all cases, of which `make test` runs one in ``step``, from number ``first``."""
    return [_case(case, is_short=number % step == first) for number, case in enumerate(cases)]


def pairs_in_turn(names: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """Return all pairs, of which `make test` runs one for each name: with one of the others, in turn."""
    return [
        _case((name, other), is_short=(number + place) % len(others) == 0)
        for number, name in enumerate(names)
        for place, other in enumerate(others)
    ]


def _case(case: Any, *, is_short: bool) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=() if is_short else pytest.mark.long)
