"""Wait for a condition. The error says which condition was not met."""

import time
from collections.abc import Callable

from tests.cluster.errors import ClusterError


def until(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Return once the condition holds. Raises ClusterError with the text of `otherwise` when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise ClusterError(otherwise())
        time.sleep(0.05)
