"""`RestoreSource`: how the backup for a claim is chosen whose dataSourceRef names this object."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from cinderblock.api.conditions import Conditions
from cinderblock.api.duration import LongDuration
from cinderblock.api.meta import Model, Object, Uid
from cinderblock.api.v1alpha1.restore import RestorePhase
from cinderblock.api.v1alpha1.store import Name

MAX_CLAIMS = 32
"""Claims that a status lists, the newest first."""


INSTANT_PATTERN: Final = (
    r"^[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[012][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-][01][0-9]:[0-5][0-9])$"
)
"""Times with time zone that every program reads alike. Without it, the API server accepts the year 0 and +99:00."""
Instant = Annotated[datetime, Field(json_schema_extra={"pattern": INSTANT_PATTERN})]


class OnMissing(StrEnum):
    """Reactions to a store without a backup for a claim."""

    FAIL = "Fail"
    WAIT = "Wait"
    EMPTY = "Empty"


class SourceVolume(Model):
    """The volume whose backups are looked up, as their manifests record it."""

    name: Name | None = None
    """Name of the PersistentVolumeClaim that was backed up. Defaults to the name of the claim that asks."""
    namespace: Name | None = None
    """Namespace of that claim when it was backed up. Defaults to the namespace of the claim that asks."""
    id: Uid | None = None
    """UID of that claim. Only its backups count then, whatever the names are. Defaults to all volumes with the name."""


class Selection(Model):
    """Which of the backups of the volume is chosen."""

    as_of: Instant | None = None
    """Time of the newest data to restore. Later backups do not count. Defaults to no limit."""
    offset: Annotated[int, Field(ge=0, le=1000)] = 0
    """Number of newest backups to leave out. Defaults to 0, which is the newest one."""
    max_age: LongDuration | None = None
    """Largest age of the data when a claim asks, for example 7d. A claim waits if the chosen backup is older. Defaults
    to no limit."""


class RestoreSourceSpec(Model):
    """How the backup is chosen. Only suspend can be changed."""

    store_name: Name | None = None
    """BackupStore in which the backups are looked up. Defaults to the default BackupStore of the namespace."""
    volume: SourceVolume = SourceVolume()
    """Volume whose backups count. Defaults to the name and namespace of the claim that asks."""
    select: Selection = Selection()
    """Which of its backups is chosen. Defaults to the newest one."""
    on_missing: OnMissing = OnMissing.FAIL
    """Reaction to a store that proves to hold no backup of the volume. Fail reports a warning, and the store is read
    again every 10 minutes. With Wait, it is read again every minute. Empty gives the claim an empty volume. Without
    that proof, a claim always waits. Defaults to Fail."""
    allow_empty_store: bool = False
    """Whether Empty also counts in a store that holds no backup of any volume. Such a store may be the wrong bucket.
    Defaults to false."""
    suspend: bool = False
    """Whether claims wait, without a look into the store. Defaults to false."""


class PopulatedClaim(Model):
    """A claim for which a backup was chosen."""

    name: Name
    """Name of the claim."""
    uid: Uid
    """UID of the claim."""
    outcome: RestorePhase
    """Status of the restore: restoring, available or error_restoring."""
    backup_id: Uid | None = None
    """Id of the chosen backup. It is unset for a claim that gets an empty volume."""
    at: datetime | None = None
    """Time when the choice was made."""


class RestoreSourceStatus(Model):
    """Observed state of the source."""

    id: Uid | None = None
    """Value of metadata.uid, which shows that this status belongs to this object."""
    claims: Annotated[list[PopulatedClaim], Field(max_length=MAX_CLAIMS)] = []
    """Claims for which a choice was made and that still exist, the newest first."""
    observed_generation: Annotated[int, Field(ge=-1)] | None = None
    """Value of metadata.generation that this status was computed for, or -1 before the first status."""
    conditions: Conditions = []
    """Conditions of the source. Ready is True if claims can use it or it is suspended, and False without
    a store."""


class RestoreSource(Object):
    """Chooses the backup for a PersistentVolumeClaim whose dataSourceRef names this object."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["RestoreSource"] = "RestoreSource"
    spec: RestoreSourceSpec
    status: RestoreSourceStatus = RestoreSourceStatus()
