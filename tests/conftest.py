"""Settings of all tests: no time decides whether a test passes, and no test changes what the next one logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.cluster import toolchain

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

LOGGERS = ("", "cinderblock", "kopf", "uvicorn")
"""Loggers whose levels a process sets when it starts."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse programs that `make integration` does not build beforehand, in a run of nothing but its tests."""
    if not any({"e2e", "bench", "long"} & set(item.path.parts) for item in session.items):
        toolchain.allow_only(toolchain.INTEGRATION)


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Restore handlers, and the levels of loggers: a test may run the main function of a process, which sets them."""
    handlers, levels = logging.root.handlers[:], {name: logging.getLogger(name).level for name in LOGGERS}
    yield
    logging.root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
