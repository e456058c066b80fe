"""How long one request may take in total."""

from __future__ import annotations

from typing import Final

SLOWEST_BYTES_PER_SECOND: Final = 64 * 1024
"""Rate of the slowest network that a mover works with: 24 MiB in six minutes."""
GRACE_SECONDS: Final = 60.0
"""Seconds for a request without any bytes. 1000 deletions may take a server long."""
_MARGIN: Final = 2.0


def call_seconds(count: int, bytes_per_second: int | None, fixed: float | None) -> float:
    """Return the seconds for a request.

    Args:
        count: bytes that it sends or reads.
        bytes_per_second: bandwidth limit of the store. Waiting for it does not count; see `bandwidth`.
        fixed: the same limit for every request, whatever its size; None: by the size.
    """
    if fixed is not None:
        return fixed
    rate = min(bytes_per_second or SLOWEST_BYTES_PER_SECOND, SLOWEST_BYTES_PER_SECOND)
    return count / rate * _MARGIN + GRACE_SECONDS
