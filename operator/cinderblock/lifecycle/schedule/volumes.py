"""Which claims a schedule backs up, and the fixed place of each of them in a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from sys import intern

from cinderblock.api import labels
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.lifecycle.schedule.names import place


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """The part of a PersistentVolumeClaim that schedules need, small enough for tens of thousands of claims.

    Attributes:
        namespace, name, uid: its identity.
        created: when it was created.
        storage_class: name of its StorageClass; empty: none.
        is_usable: whether it is bound, not being deleted, and not a temporary claim of the operator.
        wish: its annotation cinderblock.io/backup: ``true`` in any case, ``false``, or anything else.
    """

    namespace: str
    name: str
    uid: str
    created: datetime
    storage_class: str = ""
    is_usable: bool = True
    wish: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """The rules by which a schedule selects claims. Labels are not among them: the API server selects by labels.

    Attributes:
        storage_classes: names of StorageClasses; empty: all.
        min_age: age from which a claim is backed up.
        opt_in: whether only claims are selected that ask for it.
    """

    storage_classes: frozenset[str] = frozenset()
    min_age: timedelta = timedelta()
    opt_in: bool = False

    def selects(self, claim: ClaimRecord, due: datetime) -> bool:
        """Return whether a claim is backed up at an instant. A claim that was created later is not."""
        if not claim.is_usable or claim.wish == "false" or (self.opt_in and claim.wish != "true"):
            return False
        if self.storage_classes and claim.storage_class not in self.storage_classes:
            return False
        return claim.created + self.min_age <= due


def record_of_claim(claim: PersistentVolumeClaim) -> ClaimRecord:
    """Return the record of a claim."""
    metadata = claim.metadata
    # Anybody may set the usual label managed-by on a claim. Policies protect this one.
    is_temporary = labels.OWNER_UID_LABEL in metadata.labels
    return ClaimRecord(
        namespace=intern(claim.namespace),
        name=claim.name,
        uid=claim.uid,
        created=metadata.creation_timestamp or datetime.fromtimestamp(0, UTC),
        storage_class=intern(claim.spec.storage_class_name or ""),
        is_usable=claim.is_bound and not metadata.is_being_deleted and not is_temporary,
        wish=intern(_wish(metadata.annotations.get(labels.BACKUP_ANNOTATION, "")[:8])),
    )


def _wish(text: str) -> str:
    """Return what an annotation asks for. ``True`` asks for backups, but only ``false`` itself ends them."""
    return "true" if text.lower() == "true" else text


def offset(claim_uid: str, schedule_uid: str, spread: timedelta) -> timedelta:
    """Return the fixed place of a volume in each run: a whole number of seconds below ``spread``."""
    seconds = int(spread.total_seconds())
    return timedelta(seconds=place(claim_uid, schedule_uid) % seconds) if seconds else timedelta()
