"""The condition ManifestMissing of an imported VolumeBackup, derived from status.manifestMissing."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cinderblock.api.conditions import Condition, ConditionType
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.lifecycle import conditions
from cinderblock.reasons import Reason

_MESSAGE: Final = (
    "The store does not list the manifest of this backup, so it cannot be restored. Somebody has deleted it in another"
    " cluster, or a copy of the bucket is not complete"
)


def with_manifest_missing(shown: list[Condition], backup: VolumeBackup, now: datetime) -> list[Condition]:
    """Return the conditions of a complete backup, with ManifestMissing if the last listing lacked its manifest."""
    kind = ConditionType.MANIFEST_MISSING
    if backup.status.manifest_missing is None:
        return conditions.without(shown, kind)
    return conditions.with_lasting(
        shown,
        now,
        backup.metadata.generation,
        kind=kind,
        status="True",
        reason=Reason.MANIFEST_MISSING,
        message=_MESSAGE,
    )
