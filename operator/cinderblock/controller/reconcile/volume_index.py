"""The backups of each volume, as the watches report them: what one of them needs may concern all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinderblock.controller.request import ObjectKey


class VolumeIndex:
    """Keys of VolumeBackups by volume; about 200 bytes for each."""

    def __init__(self) -> None:
        self._volume_of: dict[ObjectKey, str] = {}
        self._backups: dict[str, set[ObjectKey]] = {}

    def observe(self, how: str | None, key: ObjectKey, status: Mapping[str, Any]) -> str | None:
        """Note that a VolumeBackup came, changed or went (``how`` is DELETED), and return its volume.

        A VolumeBackup whose status was lost stays with its volume.
        """
        volume = f"{key.namespace}/{status['volumeId']}" if status.get("volumeId") else self._volume_of.get(key)
        before = self._volume_of.pop(key, None)
        if before is not None:
            self._backups[before].discard(key)
            if not self._backups[before]:
                del self._backups[before]
        if volume is not None and how != "DELETED":
            self._volume_of[key] = volume
            self._backups.setdefault(volume, set()).add(key)
        return volume

    def of(self, volume: str | None) -> frozenset[ObjectKey]:
        """Return all known backups of a volume, as `hear` has named it."""
        return frozenset(self._backups.get(volume or "", ()))
