"""Fixtures for tests of movers: garbage collection after a mover died, and small sections."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from cinderblock.format.manifest import reader as manifest_reader
from cinderblock.format.manifest import writer as manifest_writer


@pytest.fixture
def burying() -> Iterator[None]:
    """Collect garbage after a mover died: what it held is in cycles with its exception, up to 180 MiB that no count of
    objects shows.
    """
    yield
    gc.collect()


@pytest.fixture
def small_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sections of some twenty entries, and take unchanged ones over whole, as in a large volume."""
    monkeypatch.setattr(manifest_writer, "SECTION_BYTES", 4096)
    monkeypatch.setattr(manifest_reader, "MIN_COPIED_SECTION_BYTES", 1)
