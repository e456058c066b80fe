"""Requests for volumes are checked before anything reads their values."""

from __future__ import annotations

import pytest

from cinderblock.errors import InvalidInput
from cinderblock.gateway.resources.volumes.create import schema
from cinderblock.gateway.rest import validation

NEWEST = schema(71)


@pytest.mark.parametrize("size", ["0" * 5000, "9" * 5000, "-1", "1.5", "", "five", 0, True])
def test_unusable_sizes_are_rejected(size: object) -> None:
    """`int` raises ValueError for more than 4300 digits."""
    with pytest.raises(InvalidInput, match=r"^Invalid input for field/attribute size"):
        validation.check({"volume": {"size": size}}, NEWEST)


@pytest.mark.parametrize("size", [None, 1, "1", "0010"])
def test_sizes_in_gib_are_accepted(size: object) -> None:
    validation.check({"volume": {"size": size}}, NEWEST)
