"""The chart, rendered with little and with everything switched on."""

from __future__ import annotations

import pytest

from tests.support.cluster.chart import EMBEDDED, EVERYTHING, Objects, render


@pytest.fixture(scope="session", params=[(), EMBEDDED, EVERYTHING], ids=["plain", "embedded store", "everything"])
def rendered(request: pytest.FixtureRequest) -> Objects:
    """Return the rendered chart."""
    return render(*request.param)
