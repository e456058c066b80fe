"""What a manifest records about how its backup found changed files.

The next incremental backup needs these facts. They cover the whole chain: an ancestor read the files whose rows the
backup inherited, and nothing else says by which rule the rows were taken over since then.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from cinderblock.api.meta import Model
from cinderblock.api.v1alpha1.store import ChangeDetection

Count = Annotated[int, Field(ge=0)]


class Comparison(Model):
    """Facts about a backup of a file system. A device has none: it has no timestamps, and is read whole each time."""

    instant: AwareDatetime | None = None
    """The earliest time at which the data can have been cut. No snapshot was taken and no live tree was read before it.
    None: unknown."""
    dirty_window_seconds: Count
    """The dirty window that this backup was made with."""
    smallest_window_seconds: Count | None = None
    """The smallest window with which files were taken over since all files were last read; None: this backup read all
    of them."""
    weakest_detection: ChangeDetection | None = None
    """The weakest change detection with which files were taken over since all files were last read; None: this backup
    read all of them."""
    since_all_read: Count = 0
    """How many incremental backups there were since all files were last read, this one among them; 0: this one read
    all of them."""
    compared: bool = False
    """Whether this backup is incremental, read all files, and compared them with the parent's."""
    oldest_ctime_ns: int | None = None
    """The oldest ctime of all entries that have one, nanoseconds since 1970."""
    reread_files: Count = 0
    """Files that were read again only because they were stamped within the dirty window, or later."""
    missed_changes: Count = 0
    """Files whose content had changed although their stamps had not, found by comparing."""
