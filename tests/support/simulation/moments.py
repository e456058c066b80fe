"""The writes at which a test lets the operator die after each step: one in turn, and in `make test-long` each.

A test that tries each of them after each step runs a hundred simulations. Such tests took a quarter of the time of all
simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

Moments = Callable[[int, Sequence[int]], Sequence[int | None]]
"""Returns the writes to die at after a number of steps, chosen from the given ones. None: the operator does not die."""


def _in_turn(steps: int, writes: Sequence[int]) -> Sequence[int | None]:
    return (None, writes[steps % len(writes)])


def _each(steps: int, writes: Sequence[int]) -> Sequence[int | None]:
    del steps
    return (None, *writes)


some_or_all_moments = pytest.mark.parametrize(
    "moments", [pytest.param(_in_turn, id="in turn"), pytest.param(_each, id="each", marks=pytest.mark.long)]
)
"""Runs a test with an argument ``moments``: with one write after each step, and in `make test-long` with each."""
