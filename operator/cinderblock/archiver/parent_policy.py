"""Decide what an incremental backup may reuse of its parent, and what the manifest records about that.

The decision depends only on the parent's manifest and the task. So the operator, a restarted mover, and the command
line come to the same result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from cinderblock.api.mover import MoverTask
from cinderblock.api.v1alpha1.store import SHORTEST_DIRTY_WINDOW, ChangeDetection
from cinderblock.archiver.change_detection import ChangeDetector
from cinderblock.format.manifest.comparison import Comparison

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER: Final = -(1 << 94)
"""Nanoseconds since 1970. No timestamp is older, because the format keeps seconds in 64 bits."""


class RereadReason(StrEnum):
    """Why an incremental backup reads all files and compares them with the parent's."""

    NOT_RECORDED = "the parent does not record which files it reused unread"
    SMALLER_WINDOW = "an earlier backup reused files with a smaller dirty window"
    WEAKER_DETECTION = "an earlier backup reused files with a weaker change detection"
    UNKNOWN_INSTANT = "the time of the parent's data, or of this backup's data, is unknown"
    IN_TURN = "a full comparison is due after several incremental backups"
    CONTENT = "the change detection is Content"


_DOUBTFUL_REASONS: Final = frozenset(
    {RereadReason.NOT_RECORDED, RereadReason.SMALLER_WINDOW, RereadReason.WEAKER_DETECTION}
)
"""With these reasons, the parent may have reused files that the current rule would not."""


@dataclass(frozen=True, slots=True)
class ParentPolicy:
    """The rule for one backup of a file system.

    Attributes:
        dirty_window: how much later than the timestamps the data may reach the volume.
        detector: the rule that proves a file unchanged; None: a full backup.
        reasons: why all files are read and compared; empty if they are not.
        since_all_read: incremental backups since all files were last read, including this one.
    """

    dirty_window: timedelta
    detector: ChangeDetector | None = None
    reasons: frozenset[RereadReason] = field(default_factory=frozenset)
    since_all_read: int = 0

    @property
    def reads_all(self) -> bool:
        """Whether all files are read."""
        return self.detector is None or self.detector.compares_all

    def record(
        self,
        *,
        instant: datetime | None,
        oldest_ctime_ns: int | None,
        missed_changes: int,
    ) -> Comparison:
        """Return what the manifest records.

        Args:
            instant: the earliest possible time of the data of this backup; None: unknown.
            oldest_ctime_ns: the oldest ctime of all entries.
            missed_changes: files whose changes timestamps had hidden.
        """
        detector = self.detector
        return Comparison(
            instant=instant,
            dirty_window_seconds=_seconds(self.dirty_window),
            smallest_window_seconds=None if self.reads_all else _seconds(self.dirty_window),
            weakest_detection=None if detector is None or self.reads_all else detector.detection,
            since_all_read=self.since_all_read,
            compared=detector is not None and detector.compares_all,
            oldest_ctime_ns=oldest_ctime_ns,
            reread_files=0 if detector is None else detector.unsettled_files,
            missed_changes=missed_changes,
        )


def choose_policy(task: MoverTask, parent: Comparison | None, *, is_incremental: bool) -> ParentPolicy:
    """Return the rule for a backup.

    Args:
        task: the task of the mover.
        parent: what the parent's manifest records; None: nothing.
        is_incremental: whether there is a parent.
    """
    window = max(timedelta(seconds=task.dirty_window_seconds), SHORTEST_DIRTY_WINDOW)
    if not is_incremental:
        return ParentPolicy(window)
    reasons = frozenset(_reasons(task, parent, window))
    before_ns = _stamped_before(task.data_instant, parent, window)
    oldest = None if parent is None else parent.oldest_ctime_ns
    detector = ChangeDetector(
        task.change_detection,
        before_ns,
        mtime_alone=not _asks_ctime(task.change_detection) and oldest is not None and oldest >= before_ns,
        compares_all=bool(reasons),
        doubts_parent=bool(reasons & _DOUBTFUL_REASONS),
    )
    since = 0 if reasons or parent is None else parent.since_all_read + 1
    return ParentPolicy(window, detector, reasons, since)


def _reasons(task: MoverTask, parent: Comparison | None, window: timedelta) -> Iterator[RereadReason]:
    if not task.change_detection.trusts_timestamps:
        yield RereadReason.CONTENT
    if parent is None:
        yield RereadReason.NOT_RECORDED
        return
    if parent.smallest_window_seconds is not None and parent.smallest_window_seconds < _seconds(window):
        yield RereadReason.SMALLER_WINDOW
    if parent.weakest_detection is not None and _asks_less(parent.weakest_detection, task.change_detection):
        yield RereadReason.WEAKER_DETECTION
    if parent.instant is None or task.data_instant is None:
        yield RereadReason.UNKNOWN_INSTANT
    if parent.since_all_read + 1 >= task.compare_every:
        yield RereadReason.IN_TURN


def _stamped_before(own: datetime | None, parent: Comparison | None, window: timedelta) -> int:
    """Return the nanoseconds since 1970 before which the timestamps of a reused file must lie.

    The window also counts from the snapshot of this backup. If that is older than the parent's, it may lack data of the
    parent.
    """
    if parent is None or parent.instant is None:
        return _NEVER
    return nanoseconds(min(parent.instant, own or parent.instant)) - _seconds(window) * 1_000_000_000


def _asks_less(before: ChangeDetection, now: ChangeDetection) -> bool:
    """Return whether ``before`` compares less than ``now``. Every change detection compares size and mtime."""
    return (_asks_ctime(now) and not _asks_ctime(before)) or (_asks_inode(now) and not _asks_inode(before))


def _asks_ctime(detection: ChangeDetection) -> bool:
    return detection.compares_ctime or not detection.trusts_timestamps


def _asks_inode(detection: ChangeDetection) -> bool:
    return detection.compares_inode or not detection.trusts_timestamps


def _seconds(window: timedelta) -> int:
    return int(window.total_seconds())


def nanoseconds(moment: datetime) -> int:
    """Return nanoseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
