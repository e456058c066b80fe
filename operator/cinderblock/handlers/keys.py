"""Which object is to be reconciled."""

from __future__ import annotations

from typing import NamedTuple

from cinderblock.kube.kinds import BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE, Kind

RECONCILED: dict[str, Kind] = {kind.kind: kind for kind in (BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE)}
"""Our kinds, by name."""


class Key(NamedTuple):
    """One object of ours: kind, namespace and name."""

    kind: str
    namespace: str
    name: str
