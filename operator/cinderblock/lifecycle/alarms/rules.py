"""The rules by which the numbers of a backup raise an alarm.

An alarm needs a number that none of the last ten backups had. So a change that occurs every week, such as a rotation of
logs, raises none. An attack that changes a little each day raises none either: this is a brake, and not a detector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

from cinderblock.api.mover import missed_changes_sentence
from cinderblock.api.quantity import MIB, format_size
from cinderblock.lifecycle.alarms.stats import BackupStats, History
from cinderblock.reasons import Reason

MIN_HISTORY: Final = 7
"""Earlier backups below which only an empty volume raises an alarm. In seven daily ones, everything weekly happens
once."""
MIN_CHANGES: Final = 5
"""Incremental backups among them from which it is known how much of the volume usually changes."""
MIN_LOGICAL_BYTES: Final = MIB
"""Data in a volume below which their loss raises no alarm."""
MIN_ENTRIES: Final = 100
"""Files and directories in a volume below which their loss raises no alarm."""
SHRUNK_SHARE: Final = 0.5
"""Share of the smallest earlier number below which a volume has lost data or files."""
MIN_REPLACED_BYTES: Final = 16 * MIB
"""Replaced data below which they raise no alarm, because small databases rewrite themselves."""
REPLACED_SHARE: Final = 0.3
"""Share of the volume above which replaced data may raise an alarm."""
MEDIAN_FACTOR: Final = 5.0
"""How many times the median share of new data must be exceeded for that."""
LARGEST_FACTOR: Final = 2.0
"""How many times the largest share of new data must be exceeded. The median of a cache after a holiday is zero."""
MIN_INCOMPRESSIBLE_BYTES: Final = 256 * MIB
"""Incompressible data below which they raise no alarm."""
MIN_INCOMPRESSIBLE_SHARE: Final = 0.02
"""The same as a share of the volume. On some days, mail has more pictures than usual."""
MAX_USUAL_RATIO: Final = 0.9
"""Usual compression ratio from which incompressible data do not stand out."""
RATIO_MARGIN: Final = 0.1
"""How far a ratio must exceed the usual one. Ratios of the same data vary by 0.03."""
COMPRESSED_SHARE: Final = 0.5
"""Share of the freed bytes up to which new data are the result of compressing them."""
MOST_OF_NEW_DATA: Final = 0.6
"""Share of the new data from which incompressible data are most of them."""
MUCH_OF_VOLUME: Final = 0.25
"""Share of the volume from which incompressible data are much, however much else has changed."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A difference that a person should check.

    Attributes:
        reason: the rule that raised it.
        message: the numbers, for a person.
    """

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class ComparedBackup:
    """A backup and what it is compared with.

    Attributes:
        backup: the numbers of the backup.
        history: those of earlier ones.
        was_restored: whether a restore wrote to the volume since the last of them.
    """

    backup: BackupStats
    history: History
    was_restored: bool = False

    @property
    def has_history(self) -> bool:
        """Whether there are enough earlier backups."""
        return len(self.history.recent) >= MIN_HISTORY


Rule = Callable[[ComparedBackup], Alarm | None]


def alarms_of(compared: ComparedBackup) -> tuple[Alarm, ...]:
    """Return the alarms that a backup raises, the strongest first."""
    found = (rule(compared) for rule in RULES)
    return tuple(alarm for alarm in found if alarm is not None)


def is_empty(compared: ComparedBackup) -> Alarm | None:
    """Raise an alarm if the volume has lost all its data. One earlier backup is enough for that."""
    if compared.backup.logical_bytes or not compared.history.recent:
        return None
    smallest = min(each.logical_bytes for each in compared.history.recent)
    if smallest < MIN_LOGICAL_BYTES:
        return None
    previous = compared.history.recent[-1].logical_bytes
    return Alarm(Reason.EMPTY, f"The volume holds no data. The backup before held {format_size(previous)}.")


def is_incompressible(compared: ComparedBackup) -> Alarm | None:
    """Raise an alarm if data were replaced by data that cannot be compressed, like encrypted data."""
    backup, history = compared.backup, compared.history
    if not compared.has_history or not history.has_ratios:
        return None
    found = _incompressible_of_full(backup, history) if backup.is_full else _incompressible(backup, history)
    if found is None:
        return None
    size = format_size(found)
    message = f"About {size} of data were replaced by data that cannot be compressed, like encrypted data."
    return Alarm(Reason.INCOMPRESSIBLE, message)


def _incompressible(backup: BackupStats, history: History) -> float | None:
    """Return the incompressible bytes of an incremental backup beyond what is usual, if they are too many.

    With the usual ratio m, u usual bytes and e incompressible ones take m * u + e bytes in packs. Bytes by which the
    volume has grown do not count, as for an upload of films. See also `_least`.
    """
    ratios, previous = history.ratios(), history.previous
    if backup.ratio is None or backup.pack_bytes is None or previous is None or not ratios:
        return None
    usual, highest = median(ratios), max(ratios)
    if usual >= MAX_USUAL_RATIO:
        return None
    volume = max(backup.logical_bytes, previous.logical_bytes)
    incompressible = (backup.pack_bytes - usual * backup.transferred_bytes) / (1 - usual)
    replaced = incompressible - backup.growth(previous)
    is_much = replaced > MUCH_OF_VOLUME * volume and backup.ratio > highest + RATIO_MARGIN / 2
    margin = max(RATIO_MARGIN, 2 * (highest - usual))
    is_most = replaced > MOST_OF_NEW_DATA * backup.transferred_bytes and backup.ratio > usual + margin
    least = max(_least(backup, previous), MIN_INCOMPRESSIBLE_BYTES, MIN_INCOMPRESSIBLE_SHARE * volume)
    return replaced if (is_much or is_most) and replaced > least else None


def _incompressible_of_full(backup: BackupStats, history: History) -> float | None:
    """Return the incompressible bytes that a full backup has more than the last full one, if they are too many.

    Nobody knows what the volume has grown by since then. It may all be films.
    """
    last = history.last_full
    if last is None or last.ratio is None or backup.pack_bytes is None or last.ratio >= MAX_USUAL_RATIO:
        return None
    kept = min(last.logical_bytes, backup.logical_bytes)
    replaced = (backup.pack_bytes - last.ratio * kept - backup.growth(last)) / (1 - last.ratio)
    return replaced if replaced > max(MUCH_OF_VOLUME * backup.logical_bytes, MIN_INCOMPRESSIBLE_BYTES) else None


def is_shrunk(compared: ComparedBackup) -> Alarm | None:
    """Raise an alarm if the volume holds less than half of what it held in each of the last backups."""
    backup = compared.backup
    if not compared.has_history or not backup.logical_bytes:
        return None
    smallest = min(each.logical_bytes for each in compared.history.recent)
    if smallest < MIN_LOGICAL_BYTES or backup.logical_bytes >= SHRUNK_SHARE * smallest:
        return None
    now, before = format_size(backup.logical_bytes), format_size(smallest)
    return Alarm(Reason.SHRUNK, f"The volume holds {now}. It held at least {before} in each of the last backups.")


def has_fewer_entries(compared: ComparedBackup) -> Alarm | None:
    """Raise an alarm if a file system has less than half of the files that it had in each of the last backups."""
    entries = [each.entries for each in compared.history.recent if each.entries is not None]
    now = compared.backup.entries
    if now is None or len(entries) < MIN_HISTORY:
        return None
    smallest = min(entries)
    if smallest < MIN_ENTRIES or now >= SHRUNK_SHARE * smallest:
        return None
    message = f"The volume has {now} files and directories. It had at least {smallest} in each of the last backups."
    return Alarm(Reason.FEWER_ENTRIES, message)


def has_many_changes(compared: ComparedBackup) -> Alarm | None:
    """Raise an alarm if much more of the volume was replaced than in the last backups.

    A full backup replaces nothing, and after a restore everything may have changed. A longer time than usual since the
    last backup explains more changes.
    """
    backup, history = compared.backup, compared.history
    shares, previous = history.new_shares(), history.previous
    if backup.is_full or compared.was_restored or previous is None or len(shares) < MIN_CHANGES:
        return None
    usual = median(shares)
    limit = max(MEDIAN_FACTOR * usual * history.delay(backup.data_time), LARGEST_FACTOR * max(shares))
    replaced, share = backup.replaced_bytes(previous), backup.replaced_share(previous)
    is_unusual = share > REPLACED_SHARE and backup.new_share(previous) > limit
    is_in_place = replaced > max(_least(backup, previous), MIN_REPLACED_BYTES)
    if not is_unusual or not is_in_place or _compresses_as_usual(backup, history):
        return None
    message = f"{share:.0%} of the volume was replaced since the last backup. Usually, {usual:.1%} of it is new."
    return Alarm(Reason.MANY_CHANGES, message)


def _least(backup: BackupStats, previous: BackupStats) -> float:
    """Return the bytes that new data must exceed. If the volume shrank by much more, somebody compressed data.

    Logs that are compressed to a third leave half of what they free. A tenth is usual.
    """
    return COMPRESSED_SHARE * previous.growth(backup)


def _compresses_as_usual(backup: BackupStats, history: History) -> bool:
    """Return whether the new data compress like earlier ones, as after maintenance of a database.

    If hardly anything can be compressed, the ratio says nothing. If earlier ratios were not recorded, return True.
    """
    ratios, ratio = history.ratios(), backup.ratio
    if not history.has_ratios:
        return True
    if not ratios or ratio is None:
        return False
    usual = median(ratios)
    low, high = min(*ratios, usual - RATIO_MARGIN), max(*ratios, usual + RATIO_MARGIN)
    return low <= ratio <= min(high, MAX_USUAL_RATIO)


def has_missed_changes(compared: ComparedBackup) -> Alarm | None:
    """Raise an alarm if files had changed although their timestamps had not."""
    missed = compared.backup.missed_changes
    return Alarm(Reason.CHANGE_MISSED, missed_changes_sentence(missed)) if missed else None


RULES: Final[tuple[Rule, ...]] = (
    is_empty,
    is_incompressible,
    is_shrunk,
    has_fewer_entries,
    has_many_changes,
    has_missed_changes,
)
"""The strongest first: its reason becomes that of the condition."""
