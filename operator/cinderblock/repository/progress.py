"""How far a run is, counted by the engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """A moment of a run.

    Attributes:
        bytes_done: bytes of the volume that are dealt with.
        bytes_total: bytes of the volume that there are to deal with; an estimate for trees.
        bytes_stored: bytes that were sent to the store, or fetched from it.
    """

    bytes_done: int
    bytes_total: int
    bytes_stored: int


ProgressCallback = Callable[[Progress], None]
"""Called often, from the thread that runs the engine; it decides for itself what to tell."""


def ignore_progress(progress: Progress) -> None:
    """The callback of those who do not want to know."""
