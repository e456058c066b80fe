"""Progress of a run, as the engines count it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """The state of a run at one moment.

    Attributes:
        bytes_done: bytes of the volume that are done.
        bytes_total: bytes of the volume; an estimate for trees.
        bytes_stored: bytes that were sent to the store, or fetched from it.
    """

    bytes_done: int
    bytes_total: int
    bytes_stored: int


ProgressCallback = Callable[[Progress], None]
"""Called often, from the thread that runs the engine. The callback decides what to show."""


def ignore_progress(progress: Progress) -> None:
    """Do nothing."""
