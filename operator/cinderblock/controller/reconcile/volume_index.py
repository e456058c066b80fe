"""The VolumeBackups of each volume, as events report them: what one of them needs may concern all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinderblock.controller.request import ObjectKey


class VolumeIndex:
    """Keys of VolumeBackups by volume; about 200 bytes for each."""

    def __init__(self) -> None:
        self._volume_of: dict[ObjectKey, str] = {}
        self._backups: dict[str, set[ObjectKey]] = {}

    def observe(self, change: str | None, key: ObjectKey, status: Mapping[str, Any]) -> str | None:
        """Take note of an event about a VolumeBackup, and return its volume.

        A VolumeBackup that has lost its status keeps its volume.
        """
        volume = f"{key.namespace}/{status['volumeId']}" if status.get("volumeId") else self._volume_of.get(key)
        previous = self._volume_of.pop(key, None)
        if previous is not None:
            self._backups[previous].discard(key)
            if not self._backups[previous]:
                del self._backups[previous]
        if volume is not None and change != "DELETED":
            self._volume_of[key] = volume
            self._backups.setdefault(volume, set()).add(key)
        return volume

    def of(self, volume: str | None) -> frozenset[ObjectKey]:
        """Return all known backups of a volume, named as `observe` returned it."""
        return frozenset(self._backups.get(volume or "", ()))
