"""Keys that a broker has and never gives away. It makes, wraps and opens data keys."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable, SealedTooLate, WrongKey
from cinderblock.format.crypto.keyring import DataKey, WrappedKey, check_lengths

CACHED_KEYS: Final = 4096
"""Data keys that are remembered. They take 3 MB. A volume with hourly backups has as many after half a year."""


class OpenedKey(NamedTuple):
    """A data key, and the same key wrapped."""

    data_key: DataKey
    wrapped: WrappedKey


Unwrap = Callable[[WrappedKey, tuple[str, str], datetime | None], DataKey]
"""Opens a wrapped data key of the backup (volume id, backup id). With the time of the request for the backup, it raises
SealedTooLate if a read-only key has sealed it after its mark. Raises IntegrityError if the key does not open it."""


class RemoteKeyRing:
    """The keys of a broker, see `Keys`. Several threads may use it. Its repr shows no key.

    Each wrapped key is sent to the broker once. A new data key is never taken for an opened one: reading a backup back
    after it was written proves that the broker can open its key.

    Args:
        new: returns a new data key, wrapped by the active key for the backup that this run makes.
        unwrap: opens a wrapped data key.
    """

    __slots__ = ("_ages", "_lock", "_new", "_new_key", "_opened", "_unwrap")

    def __init__(self, new: Callable[[], OpenedKey], unwrap: Unwrap) -> None:
        self._new = new
        self._unwrap = unwrap
        self._lock = threading.Lock()
        self._new_key: OpenedKey | None = None
        self._opened: dict[tuple[WrappedKey, tuple[str, str]], DataKey] = {}
        self._ages: set[tuple[WrappedKey, datetime]] = set()

    @property
    def active(self) -> str:
        """See Keys. Only the broker knows the id, and shows it with a new data key."""
        return self._made().wrapped.key_id

    def new_data_key(self) -> DataKey:
        """See Keys. There is one for each run."""
        return self._made().data_key

    def wrap(self, data_key: DataKey, owner: tuple[str, str]) -> WrappedKey:
        """See Keys. This wraps only the new data key, and the one of an earlier run for the same backup.

        The wrapped key is always the same one, while a key ring would draw another salt each time. Both seal one
        message under one derived key.
        """
        made = self._made()
        if data_key.reveal() == made.data_key.reveal():
            return made.wrapped
        with self._lock:
            for (wrapped, wrapped_for), opened in self._opened.items():
                is_same = opened.reveal() == data_key.reveal() and wrapped_for == owner
                if is_same and wrapped.key_id == made.wrapped.key_id:
                    return wrapped
        raise KeyUnavailable(f"Cannot wrap the data key of backup {owner[1]}: the broker has not given this key.")

    def unwrap(self, wrapped: WrappedKey, owner: tuple[str, str]) -> DataKey:
        """See Keys. An opened key is remembered."""
        check_lengths(wrapped, owner)
        with self._lock:
            known = self._opened.get((wrapped, owner))
        return known or self._open(wrapped, owner, None)

    def check_age(self, wrapped: WrappedKey, owner: tuple[str, str], created_at: datetime, label: str) -> None:
        """See Keys. Only the broker knows which keys are read-only. It is asked once for each backup, except for a key
        that is active.
        """
        made, asked = self._new_key, (wrapped, created_at)
        if (made is not None and made.wrapped.key_id == wrapped.key_id) or asked in self._ages:
            return
        try:
            self._open(wrapped, owner, created_at)
        except SealedTooLate as error:
            raise SealedTooLate(f"{label}: {error.message}", reason=error.reason) from error
        with self._lock:
            _make_room(self._ages)
            self._ages.add(asked)

    def _made(self) -> OpenedKey:
        made = self._new_key
        if made is None:
            with self._lock:
                made = self._new_key = self._new_key or self._new()
        return made

    def _open(self, wrapped: WrappedKey, owner: tuple[str, str], created_at: datetime | None) -> DataKey:
        try:
            data_key = self._unwrap(wrapped, owner, created_at)
        except SealedTooLate:
            raise
        except InvalidInput as error:
            # A header in the store may name a key that no Secret can have.
            raise KeyUnavailable(f"the broker cannot open the key of backup {owner[1]}: {error.message}") from error
        except IntegrityError as error:
            wrong = WrongKey(error.message)
            wrong.key_id = wrapped.key_id
            raise wrong from None
        with self._lock:
            _make_room(self._opened)
            self._opened[wrapped, owner] = data_key
        return data_key


def _make_room(known: dict[tuple[WrappedKey, tuple[str, str]], DataKey] | set[tuple[WrappedKey, datetime]]) -> None:
    """Forget everything if there is no room for one more. That costs some calls, and no order has to be kept."""
    if len(known) >= CACHED_KEYS:
        known.clear()
