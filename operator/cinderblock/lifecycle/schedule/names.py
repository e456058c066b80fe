"""The names of the VolumeBackups of a schedule. The same volume and time always give the same name.

So an operator that died after a creation finds the backup again, and two operators cannot make two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

from cinderblock.api.utc import utc
from cinderblock.api.v1alpha1.schedule import AnySchedule, BackupSchedule
from cinderblock.lifecycle.backup_record import BackupRecord
from cinderblock.lifecycle.retention.times import CLOCK_TOLERANCE

NAME_LIMIT: Final = 253
"""Characters of a name (apimachinery: DNS1123SubdomainMaxLength)."""
RETRY_LIMIT: Final = 4
"""Characters of the number of a retry, as in ``-r11``."""
LABEL_LIMIT: Final = 63
"""Characters of the value of a label."""
_RETRY: Final = re.compile(r"-r(\d{1,2})$")
_REQUESTED: Final = re.compile(r"(?:now|first)-[0-9a-f]{8}")
"""The runs whose part of the name does not come from their time; see `of_token` and `of_creation`."""


def reference_to(schedule: AnySchedule) -> str:
    """Return kind and name of a schedule, as in ``BackupSchedule/daily``: the annotation of its VolumeBackups."""
    return f"{schedule.kind}/{schedule.name}"


def label_of(name: str) -> str:
    """Return the label of the VolumeBackups of a schedule: its name, or a hash of a name that is too long."""
    return name if len(name) <= LABEL_LIMIT else f"h-{digest(name)}"


def digest(*parts: str) -> str:
    """Return 8 hexadecimal digits that depend on all parts."""
    return blake2b("\0".join(parts).encode(), digest_size=4).hexdigest()


def place(*parts: str) -> int:
    """Return a large number that depends on all parts, and spreads evenly."""
    return int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class BackupNames:
    """The names of the VolumeBackups of one run of a schedule.

    Attributes:
        schedule: the schedule.
        run: the part of the names that identifies the run; see `of_time`, `of_token` and `of_creation`.
    """

    schedule: AnySchedule
    run: str

    def name(self, claim: str, retry: int = 0) -> str:
        """Return the name of the VolumeBackup of a claim. ``retry`` counts the retries from 1; 0: the first backup."""
        schedule, suffix = self.schedule.name, f"-r{retry}" if retry else ""
        name = f"{schedule}-{claim}-{self.run}"
        # Up to the first "-", such a name is that of the schedule. All other names have a hash.
        is_clear = isinstance(self.schedule, BackupSchedule) and "-" not in schedule
        if is_clear and len(name) <= NAME_LIMIT - RETRY_LIMIT:
            return name + suffix
        end = f"-{self.run}-{digest(self.schedule.kind, schedule, claim)}"
        room = NAME_LIMIT - RETRY_LIMIT - len(end)
        return _cut(schedule, claim, room) + end + suffix


def is_given_by(schedule: AnySchedule, name: str, claim: str, time: datetime | None) -> bool:
    """Return whether a schedule gives a name to VolumeBackups of a claim.

    Anybody can copy the labels and annotations of its VolumeBackups, but a copy needs another name.

    Args:
        schedule: the schedule.
        name: the name of the VolumeBackup.
        claim: the name of the claim.
        time: its scheduled time; None: not known.
    """
    end = _RETRY.search(name)
    runs = {*_REQUESTED.findall(name), *((of_time(time),) if time is not None else ())}
    return any(BackupNames(schedule, run).name(claim, int(end[1]) if end else 0) == name for run in runs)


def of_time(time: datetime) -> str:
    """Return the part of the names for the run of a scheduled time."""
    return time.astimezone(UTC).strftime("%Y%m%d%H%M")


def of_token(token: str) -> str:
    """Return the part of the names for a run that a person requested with spec.runNow."""
    return f"now-{digest(token)}"


def of_creation(schedule_uid: str) -> str:
    """Return the part of the names for the run at the creation of a schedule."""
    return f"first-{digest(schedule_uid)}"


def _cut(schedule: str, claim: str, room: int) -> str:
    """Return both names in at most ``room`` characters. Each gets half of them, and what the other one leaves."""
    if len(schedule) + 1 + len(claim) <= room:
        return f"{schedule}-{claim}"
    half = (room - 1) // 2
    kept = max(half, room - 1 - len(claim))
    head = schedule[:kept].rstrip("-.")
    return f"{head}-{claim[: room - 1 - len(head)].rstrip('-.')}"


def is_made_by(schedule: AnySchedule, record: BackupRecord) -> bool:
    """Return whether a backup with the marks of a schedule is one of its own, and not a copy.

    The names of its backups follow from volume and time, and none is made before its time. Until the volume of a backup
    is known, the marks count.
    """
    if record.scheduled_for is not None and is_too_early(record, record.scheduled_for):
        return False
    if not record.volume_name:
        return True
    return is_given_by(schedule, record.name, record.volume_name, record.scheduled_for)


def is_too_early(record: BackupRecord, scheduled: datetime) -> bool:
    """Return whether a backup was created before its time, so that no schedule made it.

    This is the one rule for runs and for retention: a backup that counts as made by a run is also removed by retention.
    Anybody can compute the names of future runs, so the tolerance is as short as that for clocks.
    """
    return utc(record.created) < scheduled - CLOCK_TOLERANCE
