"""The writes at which a test lets the operator die after each step: none and one in turn, and in `make test-long` all.

A test that tries each of them after each step runs a hundred simulations. Such tests took a quarter of the time of all
simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

Moments = Callable[[int, Sequence[int]], Sequence[int | None]]
"""Returns the writes to die at after a number of steps, chosen from the given ones. None: the operator does not die."""


def _in_turn(steps: int, writes: Sequence[int]) -> Sequence[int | None]:
    turn, dies = divmod(steps, 2)
    return (writes[turn % len(writes)] if dies else None,)


def _each(steps: int, writes: Sequence[int]) -> Sequence[int | None]:
    del steps
    return (None, *writes)


some_or_all_moments = pytest.mark.parametrize(
    "moments", [pytest.param(_in_turn, id="in turn"), pytest.param(_each, id="each", marks=pytest.mark.long)]
)
"""Runs a test with an argument ``moments``. After an even number of steps, the operator does not die; after an odd one,
it dies at one of the writes, in turn. In `make test-long`, both happen after each step, and at each write.
"""
