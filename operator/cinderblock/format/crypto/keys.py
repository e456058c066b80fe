"""The keys of a store as readers and writers of backups need them, wherever they are."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from cinderblock.format.crypto.keyring import DataKey, WrappedKey


class Keys(Protocol):
    """Keys that open and wrap data keys: those of a mounted Secret (`KeyRing`), or of a broker (`RemoteKeyRing`).

    Keys elsewhere raise also what the way to them raises.
    """

    @property
    def active(self) -> str:
        """Key id that wraps new data keys. Raises KeyUnavailable if there is none."""

    def new_data_key(self) -> DataKey:
        """Return a new data key. `wrap` wraps it."""

    def wrap(self, data_key: DataKey, owner: tuple[str, str]) -> WrappedKey:
        """Wrap a data key with the active key for the backup ``owner`` (volume id, backup id).

        Raises KeyUnavailable if the key is missing or read-only.
        """

    def unwrap(self, wrapped: WrappedKey, owner: tuple[str, str]) -> DataKey:
        """Open a wrapped data key. Raises KeyUnavailable, WrongKey; IntegrityError for an impossible length."""

    def check_age(self, wrapped: WrappedKey, owner: tuple[str, str], created_at: datetime, label: str) -> None:
        """Check that a read-only key has not sealed a backup after its mark.

        Args:
            wrapped: the wrapped data key of the backup.
            owner: volume id and backup id.
            created_at: time of the request for the backup, with time zone.
            label: name of the manifest in messages.

        Raises SealedTooLate.
        """
