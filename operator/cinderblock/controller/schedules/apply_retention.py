"""Execute the actions of retention.

Each action is one write with the version that was read as its precondition, and changes nothing the second time. The
operator may die before or after each of them: the next plan reads what was written and continues from there. A change
of the backup in between, such as a hold, makes the write fail, and the next plan judges the changed backup.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.retention import RetentionStatus
from cinderblock.errors import AccessDenied, Conflict, InvalidInput, KubeUnavailable, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.backup_record import record_of
from cinderblock.lifecycle.mover.refusals import is_refused_by_webhook
from cinderblock.lifecycle.retention.actions import (
    BackupVersion,
    MarkExpiring,
    RemoveExpired,
    RetentionAction,
    UnmarkExpiring,
)
from cinderblock.lifecycle.retention.judge import has_fault

log = logging.getLogger(__name__)

MAX_WRITES: Final = 50
"""Most writes of one call. At 5 ms each, other objects of the worker wait a quarter of a second."""
MAX_REMOVALS: Final = 20
"""Most deletions among them, so that no heap of objects waits for a store in the phase deleting."""
CONTINUE_SECONDS: Final = 5.0
"""Seconds after which the plan is made again if not all its actions were executed."""
MAX_FAILURES: Final = 3
"""Namespaces in which a request may fail before the others are left for the next plan: the API server is down then."""

Session = dict[str, bool]
"""The witnesses that were read, by UID, and whether each still makes others dispensable."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of one call.

    Attributes:
        written: number of marks that were set or removed.
        removed: number of backups that were deleted.
        is_complete: whether no action is left. Otherwise make the plan again after CONTINUE_SECONDS.
        refused: the first refusal of each namespace, such as that of a missing right, a policy or a webhook.
        failed: the first failure of each namespace in which the API server did not answer, or not usefully.
        unwritten: UIDs of the backups in these namespaces whose actions were not executed.
        left: the actions that were not tried, or whose backup has changed since it was read.
    """

    written: int = 0
    removed: int = 0
    is_complete: bool = True
    refused: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unwritten: frozenset[str] = field(default=frozenset(), compare=False)
    left: tuple[RetentionAction, ...] = field(default=(), compare=False)

    def record(self, status: RetentionStatus, now: datetime) -> RetentionStatus:
        """Return the status of a plan, with the time of this removal if there was one."""
        return status.model_copy(update={"last_removal_time": now.replace(microsecond=0)}) if self.removed else status


async def apply_retention(kube: KubeClient, actions: Sequence[RetentionAction]) -> Applied:
    """Execute actions in order, and not more of them than one reconciliation may.

    A namespace in which a write is refused or fails is left out after that: it must not use up the writes of others.
    Namespaces take turns for the same reason.
    """
    written = removed = attempts = 0
    ordered, done = in_turns(actions), set[RetentionAction]()
    is_complete = True
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}
    witnesses: Session = {}
    for action in ordered:
        is_removal = isinstance(action, RemoveExpired)
        if action.backup.namespace in refused or action.backup.namespace in failed:
            continue
        is_down = len(failed) >= MAX_FAILURES
        if is_down or attempts >= MAX_WRITES or (is_removal and removed >= MAX_REMOVALS):
            is_complete = False
            break
        attempts += 1
        try:
            is_done = await _apply(kube, action, witnesses)
        except (AccessDenied, InvalidInput, KubeUnavailable) as error:
            is_failure = isinstance(error, KubeUnavailable) and not is_refused_by_webhook(error.message)
            (failed if is_failure else refused)[action.backup.namespace] = error.message
            log.warning("Retention was refused: %s", error.message, extra={"namespace": action.backup.namespace})
            continue
        is_complete = is_complete and is_done
        done |= {action} if is_done else set()
        removed += is_done and is_removal
        written += is_done and not is_removal
    open_actions = [action for action in ordered if action not in done]
    closed = refused.keys() | failed.keys()
    return Applied(
        written,
        removed,
        is_complete and not failed,
        tuple(refused.values()),
        tuple(failed.values()),
        unwritten=frozenset(action.backup.uid for action in open_actions if action.backup.namespace in closed),
        left=tuple(action for action in open_actions if action.backup.namespace not in closed),
    )


def in_turns(actions: Sequence[RetentionAction]) -> list[RetentionAction]:
    """Return the actions so that namespaces take turns, with each kind of action after the one before it."""
    position: Counter[tuple[type[RetentionAction], str]] = Counter()
    numbered = []
    for action in actions:
        key = type(action), action.backup.namespace
        numbered.append(((_ORDER[type(action)], position[key]), action))
        position[key] += 1
    return [action for _, action in sorted(numbered, key=lambda pair: pair[0])]


_ORDER: Final[dict[type[Any], int]] = {UnmarkExpiring: 0, MarkExpiring: 1, RemoveExpired: 2}
"""Writes that keep a backup come first, and those that remove one last."""


async def _apply(kube: KubeClient, action: RetentionAction, witnesses: Session) -> bool:
    """Execute an action. Return False if the backup, or what the action relies on, has changed since it was read."""
    backup = action.backup
    details = {"namespace": backup.namespace, "backup": backup.name}
    try:
        match action:
            case MarkExpiring(_, expires_at):
                await _write_mark(kube, backup, expires_at.isoformat().replace("+00:00", "Z"))
                log.info("Marked a backup as expiring", extra=details | {"expires_at": expires_at.isoformat()})
            case UnmarkExpiring():
                await _write_mark(kube, backup, None)
                log.info("Removed the mark of a backup that is kept", extra=details)
            case RemoveExpired(_, witness):
                if witness is not None and not await _still_holds(kube, witness, witnesses):
                    log.info("Left an expired backup, because the newer one has changed", extra=details)
                    return False
                await kube.delete(
                    kinds.VOLUME_BACKUP,
                    backup.name,
                    backup.namespace,
                    uid=backup.uid,
                    resource_version=backup.resource_version,
                )
                log.info("Deleted an expired backup", extra=details)
    except NotFound:
        return True
    except Conflict as error:
        log.info("The backup has changed and is judged again: %s", error.message, extra=details)
        return False
    return True


async def _write_mark(kube: KubeClient, backup: BackupVersion, expires_at: str | None) -> None:
    """Write status.expiresAt by merge patch, which leaves all other fields to the reconciliation of the backup."""
    patch = {"metadata": {"resourceVersion": backup.resource_version}, "status": {"expiresAt": expires_at}}
    await kube.merge_patch(kinds.VOLUME_BACKUP, backup.name, backup.namespace, patch, subresource="status")


async def _still_holds(kube: KubeClient, witness: BackupVersion, witnesses: Session) -> bool:
    """Return whether a backup still makes another one dispensable. It is read once in each call."""
    if witness.uid not in witnesses:
        witnesses[witness.uid] = await _read_witness(kube, witness)
    return witnesses[witness.uid]


async def _read_witness(kube: KubeClient, witness: BackupVersion) -> bool:
    """Return whether a backup is complete, and either as it was judged or without any fault and alarm."""
    body = await kube.get(kinds.VOLUME_BACKUP, witness.name, witness.namespace)
    if body is None or body["metadata"]["uid"] != witness.uid:
        return False
    try:
        backup = VolumeBackup.model_validate(body)
    except ValidationError:
        return False
    if not backup.is_complete or backup.metadata.is_being_deleted:
        return False
    record = record_of(backup)
    is_good = not (has_fault(record) or record.is_suspicious or record.has_unknown_alarm)
    return is_good or record.resource_version == witness.resource_version
