"""Find out which backups of a store a copy of the encryption keys opens.

Only the plain headers of manifests are read, each in one request of 4 KiB. A header has the data key of its backup,
wrapped with an encryption key: opening it proves that the copy is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple

from cinderblock.errors import IntegrityError, KeyUnavailable, ObjectNotFound, PermanentError, UnsupportedFormat
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.reader import read_header
from cinderblock.repository.objects import BackupRef
from cinderblock.repository.verify.bounded_map import map_bounded
from cinderblock.store.base import ObjectStore

CONCURRENT_READS: Final = 16
"""Headers that are read at once: latency is what counts."""
MAX_KEY_IDS: Final = 1000
"""Most key ids that a result tells apart. Anybody who can write to a bucket can put any id there."""
FURTHER_IDS: Final = "(further ids)"
"""Name under which the backups of all other key ids are counted."""
NAMED_FAILURES: Final = 20
"""Backups that a result names."""


@dataclass(slots=True)
class KeyUse:
    """The backups that one key id encrypts.

    Attributes:
        opened: number of backups that the given key opens.
        failed: number of those that it does not open, by the reason.
    """

    opened: int = 0
    failed: Counter[str] = field(default_factory=Counter)


class Failure(NamedTuple):
    """A backup that is not opened.

    Attributes:
        backup: the backup.
        key_id: of the key that encrypts it; None: not known.
        error: why it is not opened.
    """

    backup: BackupRef
    key_id: str | None
    error: PermanentError


@dataclass(slots=True)
class KeyCheck:
    """The result of a check.

    Attributes:
        checked: number of backups whose header was read.
        unencrypted: those of them that are not encrypted.
        keys: the others, by key id; keys that were given and encrypt no backup are part of it.
        failures: the first backups that are not opened.
        unreadable: number of backups whose header is damaged or of another format.
        worst: one failure of each class.
    """

    checked: int = 0
    unencrypted: int = 0
    keys: dict[str, KeyUse] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unreadable: int = 0
    worst: dict[type[PermanentError], PermanentError] = field(default_factory=dict)

    @property
    def encrypted(self) -> int:
        """The number of encrypted backups among the checked ones."""
        return sum(use.opened + use.failed.total() for use in self.keys.values())

    def use_of(self, key_id: str) -> KeyUse:
        """Return the count of a key id."""
        known = key_id if key_id in self.keys or len(self.keys) < MAX_KEY_IDS else FURTHER_IDS
        return self.keys.setdefault(known, KeyUse())

    def add_failure(self, backup: BackupRef, key_id: str | None, error: PermanentError) -> None:
        """Count a backup that is not opened."""
        if key_id is None:
            self.unreadable += 1
        else:
            self.use_of(key_id).failed[str(error.reason)] += 1
        self.worst.setdefault(type(error), error)
        if len(self.failures) < NAMED_FAILURES:
            self.failures.append(Failure(backup, key_id, error))


def newest_of_volumes(backups: Iterable[BackupRef]) -> Iterator[BackupRef]:
    """Yield the backup of each volume whose manifest was written last; of those without a time, the last one.

    Args:
        backups: in the order of a listing, which has those of a volume one after the other.
    """
    for _, of_volume in groupby(backups, key=lambda backup: backup.volume_id):
        yield max(of_volume, key=_written)


def _written(backup: BackupRef) -> tuple[float, str]:
    return backup.modified.timestamp() if backup.modified is not None else 0.0, backup.backup_id


def check_keys(store: ObjectStore, keys: KeyRing, backups: Iterable[BackupRef]) -> KeyCheck:
    """Return which of the backups the keys open.

    Args:
        store: the store.
        keys: the copy of the keys.
        backups: the backups to check, in any number: some are read at a time, and none is remembered.

    Raises what the store raises. A backup that has vanished meanwhile is left out.
    """
    result = KeyCheck(keys={key_id: KeyUse() for key_id in sorted(keys.key_ids)})
    for backup, outcome in map_bounded(partial(_open, store, keys), backups, CONCURRENT_READS):
        if outcome is not None:
            _count(result, backup, outcome)
    return result


class _Outcome(NamedTuple):
    """The key id of a backup, if it is known and encrypted, and why the backup is not opened."""

    key_id: str | None
    error: PermanentError | None


def _open(store: ObjectStore, keys: KeyRing, backup: BackupRef) -> _Outcome | None:
    """Open the data key of a backup. Return None if it has vanished."""
    key_id: str | None = None
    try:
        header = read_header(partial(store.get, backup.key), backup.expected(), backup.key)
        key_id = header.key_id
        header.data_key(keys)
    except ObjectNotFound:
        return None
    except (IntegrityError, KeyUnavailable, UnsupportedFormat) as error:
        # A copy has no traceback, which would keep what was read.
        return _Outcome(key_id, type(error)(error.message, reason=error.reason))
    return _Outcome(key_id, None)


def _count(result: KeyCheck, backup: BackupRef, outcome: _Outcome) -> None:
    result.checked += 1
    key_id, error = outcome
    if error is not None:
        result.add_failure(backup, key_id, error)
    elif key_id is None:
        result.unencrypted += 1
    else:
        result.use_of(key_id).opened += 1
