"""Stored objects with random changes are never restored wrongly. `make test-long` tries many more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.store.mutated import check_objects
from tests.support.store.mutations import MUTATIONS_IN_SUITE


@pytest.mark.parametrize("seed", range(MUTATIONS_IN_SUITE))
def test_mutated_object_is_found_or_harmless(seed: int, tmp_path: Path) -> None:
    check_objects(seed, tmp_path)
