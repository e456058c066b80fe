"""What a manifest records of how its backup came to know which files had changed.

An incremental backup on it needs these facts. They hold for the whole chain: rows that the backup has inherited were
read by an ancestor, and nothing else tells what they were trusted for since then.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from cinderblock.model.base import Model
from cinderblock.model.store import ChangeDetection

Count = Annotated[int, Field(ge=0)]


class Comparison(Model):
    """Of a file system; a device has no timestamps, and all of it is read each time."""

    instant: AwareDatetime | None = None
    """When the data were cut at the earliest: a snapshot was not taken, and a live tree not read, before. None: nobody
    knows."""
    dirty_window_seconds: Count
    """The dirty window that this backup was made with."""
    smallest_window_seconds: Count | None = None
    """The smallest window with which files were taken over since all files were last read; None: this backup read all
    of them."""
    weakest_detection: ChangeDetection | None = None
    """What the weakest change detection compared with which files were taken over since all files were last read; None:
    this backup read all of them."""
    since_all_read: Count = 0
    """How many incremental backups there were since all files were last read, this one among them; 0: it read them."""
    compared: bool = False
    """Whether this backup is incremental, read all files, and compared them with the parent's."""
    oldest_ctime_ns: int | None = None
    """The oldest ctime of all entries that have one, nanoseconds since 1970."""
    reread_files: Count = 0
    """Files that were read again only because they were stamped within the dirty window, or later."""
    missed_changes: Count = 0
    """Files whose content had changed although their stamps had not, found by comparing."""
