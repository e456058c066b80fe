"""The record in a manifest of how its backup found changed files.

The next incremental backup needs these facts. They cover the whole chain: an ancestor may have read the files whose
rows this backup reused, and no other place records the rules of that reuse.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from cinderblock.api.meta import Model
from cinderblock.api.v1alpha1.store import ChangeDetection

Count = Annotated[int, Field(ge=0)]


class Comparison(Model):
    """Facts about a backup of a file system. A device has none: without timestamps, it is read completely each time."""

    instant: AwareDatetime | None = None
    """The earliest possible time of the data: the snapshot was taken, or reading of the live volume began, no earlier.
    None: unknown."""
    dirty_window_seconds: Count
    """The dirty window of this backup."""
    smallest_window_seconds: Count | None = None
    """The smallest dirty window by which files were reused since all files were last read. None: this backup read all
    files."""
    weakest_detection: ChangeDetection | None = None
    """The weakest change detection by which files were reused since all files were last read. None: this backup read
    all files."""
    since_all_read: Count = 0
    """Number of incremental backups since all files were last read, including this one. 0: this one read all files."""
    compared: bool = False
    """Whether this backup is incremental, read all files, and compared them with the parent's."""
    oldest_ctime_ns: int | None = None
    """The oldest ctime of all entries that have one, nanoseconds since 1970."""
    reread_files: Count = 0
    """Files that were read again only because their timestamps lay within the dirty window, or later."""
    missed_changes: Count = 0
    """Files that the comparison found changed although their timestamps were not."""
