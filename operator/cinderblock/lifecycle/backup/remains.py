"""The remains of a deleted backup in its container, and sentences about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cinderblock.reasons import Reason


@dataclass(frozen=True, slots=True)
class Remains:
    """The remains of a backup whose objects are no longer listed.

    Attributes:
        is_hidden: whether versions remain that the deletion only hides; None: unknown.
        versions: their number; None: they cannot be counted.
        more: whether there are more of them.
        cause: why they cannot be counted, and what to do about it.
    """

    is_hidden: bool | None
    versions: int | None = None
    more: bool = False
    cause: str = ""


NOTHING: Final = Remains(is_hidden=False, versions=0)
"""The data is gone."""


def describe(remains: Remains) -> str:
    """Return what remains, as a sentence without a full stop; empty if nothing does."""
    if remains.is_hidden is None:
        return f"Whether versions of the data remain in the store is unknown: {remains.cause}"
    if not remains.is_hidden:
        return ""
    if remains.versions is None:
        return f"Versions of the data remain in the store and cannot be counted: {remains.cause}"
    count = f"{remains.versions} or more" if remains.more else str(remains.versions)
    noun = "version remains" if count == "1" else "versions remain"
    return f"{count} {noun} in the store, until a lifecycle rule or somebody removes them"


def deletion_event(remains: Remains) -> tuple[Reason, str]:
    """Return the reason and the note of the Event about a deleted VolumeBackup."""
    sentence = describe(remains)
    if remains.is_hidden:
        return Reason.HIDDEN, f"The VolumeBackup was deleted, and its data is hidden. {sentence}"
    gone = "The VolumeBackup and its data were deleted"
    return Reason.DELETED, f"{gone}. {sentence}" if sentence else gone
