"""Answers with random changes lead to a result or an error of Cinderblock. `make test-long` tries many more."""

from __future__ import annotations

import pytest

from tests.support.store.mutated import check_answer
from tests.support.store.mutations import ANSWERS_IN_SUITE


@pytest.mark.parametrize("seed", range(ANSWERS_IN_SUITE))
def test_mutated_answer_ends_soon_in_little_memory(seed: int) -> None:
    check_answer(seed)
