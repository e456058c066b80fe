"""The aims for this program, and whether it reached them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.bench.rounds import Step

MEMORY: Final = 256 << 20
"""Bytes of peak memory at most, in every step and with every size of volume."""
REQUESTS_PER_GIB: Final = 70
"""Requests per GiB that a full backup stores, at most."""


@dataclass(frozen=True)
class Aim:
    """One aim.

    ``speed``: at least this many times as fast as the peer. ``limit``: at most this many times as long as the limit.
    """

    speed: float
    limit: float | None = None


AIMS: Final = {
    ("image", Step.FULL): Aim(4.0, limit=1.5),
    ("image", Step.UNCHANGED): Aim(4.0),
    ("image", Step.RESTORE): Aim(2.0),
    ("tree", Step.FULL): Aim(2.5),
    ("tree", Step.UNCHANGED): Aim(6.0),
    ("tree", Step.RESTORE): Aim(1.5),
}
