"""For tests in which movers die."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def burying() -> Iterator[None]:
    """What a mover held when it died is in cycles with its exception: up to 180 MiB that no count of objects shows."""
    yield
    gc.collect()
