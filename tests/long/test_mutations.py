"""Ten thousand random changes of stored objects and of answers: no hang, no memory, no wrong restore."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.store.mutated import check_answer, check_objects
from tests.support.store.mutations import (
    ANSWERS_IN_LONG_RUN,
    ANSWERS_IN_SUITE,
    MUTATIONS_IN_SUITE,
    OBJECTS_IN_LONG_RUN,
)

BLOCKS = 50
"""Blocks of seeds, so that several processes share them."""
OBJECTS = range(MUTATIONS_IN_SUITE, MUTATIONS_IN_SUITE + OBJECTS_IN_LONG_RUN)
ANSWERS = range(ANSWERS_IN_SUITE, ANSWERS_IN_SUITE + ANSWERS_IN_LONG_RUN)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_mutated_objects_are_found_or_harmless(block: int, tmp_path: Path) -> None:
    for seed in OBJECTS[block::BLOCKS]:
        check_objects(seed, tmp_path)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_mutated_answers_end_soon_in_little_memory(block: int) -> None:
    for seed in ANSWERS[block::BLOCKS]:
        check_answer(seed)
