"""Failures of the API server that repeat, so that a status reports them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from cinderblock.controller.request import ObjectKey

REPORTED_FROM: Final = 4
"""Number of failures from which a status reports them: 7 s after the first one, by the back-off of the queue. A restart
of an API server or of a webhook is often over by then."""


@dataclass(slots=True)
class FailedActions:
    """Failures in a row of each object's actions. Losing the counts costs a few attempts."""

    _counts: Counter[ObjectKey] = field(default_factory=Counter)

    def add(self, key: ObjectKey) -> bool:
        """Count a failure. Return whether a status must report it."""
        self._counts[key] += 1
        return self._counts[key] >= REPORTED_FROM

    def forget(self, key: ObjectKey) -> None:
        """Forget the failures of an object whose actions got an answer, or that no longer exists."""
        self._counts.pop(key, None)
