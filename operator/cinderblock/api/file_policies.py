"""Policies for files that a backup cannot read or a restore cannot preserve.

They are apart from the models because the worker processes of a volume import them, and start without pydantic.
"""

from __future__ import annotations

from enum import StrEnum


class Unreadable(StrEnum):
    """Policy of a backup for a file that cannot be read, or whose attributes the format cannot express."""

    FAIL = "Fail"
    SKIP = "Skip"


class Fidelity(StrEnum):
    """Policy of a restore for a target that cannot preserve the owner, mode, links or times of a file."""

    STRICT = "Strict"
    BEST_EFFORT = "BestEffort"
