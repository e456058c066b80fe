"""How far an incremental backup trusts its parent: the rule for a run, and what the manifest records of it.

Only the parent's manifest and the task count. So the operator, a mover that was started again, and the command line
come to the same result.
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
"""Nanoseconds since 1970; no stamp is older, since the format keeps seconds in 64 bits."""


class RereadReason(StrEnum):
    """Why an incremental backup reads all files and compares them with the parent's."""

    NOT_RECORDED = "the parent does not record which files it took over unread"
    SMALLER_WINDOW = "files were taken over with a smaller dirty window before"
    WEAKER_DETECTION = "files were taken over with a weaker change detection before"
    UNKNOWN_INSTANT = "nobody knows when the data of the parent, or those of this backup, were cut"
    IN_TURN = "every so many incremental backups, all files are read"
    CONTENT = "the change detection is Content"


_DOUBTFUL_REASONS: Final = frozenset(
    {RereadReason.NOT_RECORDED, RereadReason.SMALLER_WINDOW, RereadReason.WEAKER_DETECTION}
)
"""With these, the parent may have taken over files that the rule of today would not."""


@dataclass(frozen=True, slots=True)
class ParentPolicy:
    """The rule for one backup of a file system.

    Attributes:
        window: how much later than stamps the data may reach the volume.
        evidence: what counts as a proof; None: a full backup.
        reasons: why all files are read and compared; empty: they are not.
        since_all_read: incremental backups since all files were last read, this one among them.
    """

    window: timedelta
    detector: ChangeDetector | None = None
    reasons: frozenset[RereadReason] = field(default_factory=frozenset)
    since_all_read: int = 0

    @property
    def reads_all(self) -> bool:
        """Whether all files are read."""
        return self.detector is None or self.detector.compares_all

    def facts(
        self,
        *,
        instant: datetime | None,
        oldest_ctime_ns: int | None,
        missed_changes: int,
    ) -> Comparison:
        """Return what the manifest records.

        Args:
            instant: the earliest time at which the data of this backup can have been cut; None: unknown.
            oldest_ctime_ns: the oldest ctime of all entries.
            missed_changes: files whose changes stamps had hidden.
        """
        evidence = self.detector
        return Comparison(
            instant=instant,
            dirty_window_seconds=_seconds(self.window),
            smallest_window_seconds=None if self.reads_all else _seconds(self.window),
            weakest_detection=None if evidence is None or self.reads_all else evidence.detection,
            since_all_read=self.since_all_read,
            compared=evidence is not None and evidence.compares_all,
            oldest_ctime_ns=oldest_ctime_ns,
            reread_files=0 if evidence is None else evidence.reread,
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
    evidence = ChangeDetector(
        task.change_detection,
        before_ns,
        mtime_alone=not _asks_ctime(task.change_detection) and oldest is not None and oldest >= before_ns,
        compares_all=bool(reasons),
        doubts_parent=bool(reasons & _DOUBTFUL_REASONS),
    )
    since = 0 if reasons or parent is None else parent.since_all_read + 1
    return ParentPolicy(window, evidence, reasons, since)


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
    """Return the instant before which a file must be stamped to be taken over, in nanoseconds since 1970.

    The window also counts from the snapshot of this backup: if it is older than the parent's, it may lack data that
    the parent has.
    """
    if parent is None or parent.instant is None:
        return _NEVER
    return nanoseconds(min(parent.instant, own or parent.instant)) - _seconds(window) * 1_000_000_000


def _asks_less(before: ChangeDetection, now: ChangeDetection) -> bool:
    """Return whether ``before`` compares less than ``now`` does. All of them compare size and mtime."""
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
