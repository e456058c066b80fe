"""The status of a BackupStore that an import leads to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.store import (
    MAX_RELEASED,
    MAX_UNREADABLE,
    SHOWN_MESSAGE_CHARACTERS,
    BackupStoreStatus,
    ImportMode,
    Inventory,
    UnreadableManifest,
)
from cinderblock.lifecycle import conditions
from cinderblock.lifecycle.actions import Decision
from cinderblock.lifecycle.conditions import UntimedCondition
from cinderblock.lifecycle.imports.difference import MAX_BACKUPS, Difference
from cinderblock.lifecycle.imports.records import UnreadManifest
from cinderblock.lifecycle.imports.settings import Settings
from cinderblock.reasons import AnyReason, Reason

_TEXT_CHARACTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """Changes of the status of a BackupStore by one step of its import.

    Attributes:
        inventory: status.inventory.
        released: status.released.
        condition: the condition Imported; None: as before.
        is_off: whether nothing is imported, so that there is no condition.
        requeue_after: seconds until the next step; None: not before the BackupStore changes.
    """

    inventory: Inventory | None
    released: Sequence[str] = ()
    condition: UntimedCondition | None = None
    is_off: bool = False
    requeue_after: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Findings and effects of a complete import.

    Attributes:
        began: when it began, in whole seconds.
        difference: the listing, compared with the VolumeBackups.
        read_bytes: bytes of the backups whose manifests were read, and that have no VolumeBackup.
        imported: number of imported VolumeBackups, the new ones included.
        missing: number of imported VolumeBackups without a manifest.
        unread: manifests that could not be imported.
        before: number of backups before the store lost more than half of them; None: it did not.
        full_store: name of a BackupStore of the same place with too many marks of released backups; empty: there is
            none.
        refusal: why the namespace takes no further VolumeBackups; None: it does.
    """

    began: datetime
    difference: Difference
    read_bytes: int = 0
    imported: int = 0
    missing: int = 0
    unread: Sequence[UnreadManifest] = ()
    before: int | None = None
    full_store: str = ""
    refusal: UntimedCondition | None = None


def inventory_of(result: Result, settings: Settings, condition: UntimedCondition) -> Inventory:
    """Return the inventory after a complete import."""
    waits = any(unread.reason == Reason.KEY_UNAVAILABLE for unread in result.unread)
    is_complete = condition.status == "True" and not waits
    return Inventory(
        time=result.began,
        backups=result.difference.backups,
        volumes=result.difference.volumes,
        bytes=result.difference.stored_bytes + result.read_bytes,
        imported=result.imported,
        unreadable_count=len(result.unread),
        unreadable=[
            UnreadableManifest(
                manifest=unread.stored.key[:_TEXT_CHARACTERS],
                reason=unread.reason[:64],
                message=unread.message[:SHOWN_MESSAGE_CHARACTERS],
            )
            for unread in sorted(result.unread, key=lambda item: item.stored.key)[:MAX_UNREADABLE]
        ],
        missing=result.missing,
        backups_before=result.before,
        settings=settings.digest if is_complete else None,
    )


def after_switching_off(inventory: Inventory | None) -> Inventory | None:
    """Return the inventory of a store that imports nothing any more: none, unless a loss was accepted by that.

    Without it, the next import could not tell an accepted loss from a lost status.
    """
    if inventory is None or not (inventory.backups_before is not None or inventory.loss_accepted):
        return None
    return inventory.model_copy(update={"backups_before": None, "settings": None, "loss_accepted": True})


def condition_of(result: Result, settings: Settings) -> UntimedCondition:
    """Return the condition Imported after a complete import. The worst that was found decides."""
    difference = result.difference
    if difference.is_too_large:
        return UntimedCondition(
            "False",
            Reason.TOO_MANY_BACKUPS,
            f"The store holds more than {MAX_BACKUPS} backups, so none is imported. Find out who writes to the"
            " container, or select backups with cinderblock list --as-manifests",
        )
    if result.full_store:
        return UntimedCondition(
            "False",
            Reason.TOO_MANY_RELEASED,
            f"More than {MAX_RELEASED} VolumeBackups were deleted while their data stayed in the store, so nothing is"
            f" imported any more. Set {settings.mode_field} of BackupStore {result.full_store} to Never and back: this"
            " forgets them, and imports them again",
        )
    if result.refusal is not None:
        return result.refusal
    if result.before is not None:
        return UntimedCondition(
            "False",
            Reason.INVENTORY_SHRUNK,
            f"{_loss(result.before, difference.backups)}. No VolumeBackup is removed for that. Bring the manifests"
            f" back, or accept the loss: set {settings.mode_field} to Never, wait until this condition is gone, and set"
            " it back",
        )
    denied = [unread for unread in result.unread if unread.reason == Reason.ACCESS_DENIED]
    if denied:
        first = min(denied, key=lambda unread: unread.stored.key)
        return UntimedCondition(
            "False",
            Reason.ACCESS_DENIED,
            f"{len(denied)} manifests may not be read, such as {first.stored.key[:_TEXT_CHARACTERS]}. Permit the"
            f" credentials of the store to read them, or remove them. {first.message[:SHOWN_MESSAGE_CHARACTERS]}",
        )
    repeats = "" if settings.mode is ImportMode.ALWAYS else ". This is not repeated until spec.import changes"
    if result.unread:
        count = len(result.unread)
        what = "1 manifest that cannot" if count == 1 else f"{count} manifests that cannot"
        message = f"All selected backups have a VolumeBackup, without {what} be imported (status.inventory.unreadable)"
        if any(unread.reason == Reason.KEY_UNAVAILABLE for unread in result.unread):
            repeats = ". Encryption keys are missing: add them, and the import continues"
        return UntimedCondition("True", Reason.UNREADABLE_LEFT_OUT, message + repeats)
    return UntimedCondition("True", Reason.IMPORTED, f"All selected backups have a VolumeBackup{repeats}")


def _loss(before: int, backups: int) -> str:
    """Return what a store has lost. A listing of another bucket may be long, and have none of the imported backups."""
    if backups < before:
        return f"The store held {before} backups, and lists only {backups} now"
    return f"The store held {before} backups, and lists less than half of those that were imported"


def most_objects(object_limit: int) -> int:
    """Return from which number of VolumeBackups on a namespace gets no imports: a tenth stays for its own backups.

    Args:
        object_limit: VolumeBackups of a namespace from which on the operator begins none.
    """
    return object_limit - object_limit // 10


def too_many_objects(limit: int) -> UntimedCondition:
    """Return the condition of an import into a namespace that has as many VolumeBackups as imports may fill."""
    message = (
        f"The namespace has {limit} VolumeBackups. An import creates no more, so that there is room for new backups."
        " Delete some, or select fewer backups in spec.import"
    )
    return UntimedCondition("False", Reason.TOO_MANY_OBJECTS, message)


def failed(reason: AnyReason, message: str) -> UntimedCondition:
    """Return the condition of an import that is repeated later."""
    return UntimedCondition("False", reason, message)


def with_import(decision: Decision, outcome: ImportOutcome, generation: int, now: datetime) -> Decision:
    """Return the decision about a BackupStore with what its import changes."""
    status = decision.status
    if not isinstance(status, BackupStoreStatus):
        return decision
    shown = status.conditions
    if outcome.is_off:
        shown = conditions.without(shown, ConditionType.IMPORTED)
    elif outcome.condition is not None:
        condition = outcome.condition
        shown = conditions.with_lasting(
            shown,
            now,
            generation,
            kind=ConditionType.IMPORTED,
            status=condition.status,
            reason=condition.reason,
            message=condition.message,
        )
    update = {"conditions": shown, "inventory": outcome.inventory, "released": list(outcome.released) or None}
    delays = [delay for delay in (decision.requeue_after, outcome.requeue_after) if delay is not None]
    return replace(decision, status=status.model_copy(update=update), requeue_after=min(delays, default=None))
