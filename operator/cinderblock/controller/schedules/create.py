"""Create the VolumeBackups of a schedule. Each creation may be repeated: the second time it finds the object."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.controller.context import Context
from cinderblock.errors import AlreadyExists, KubeUnavailable, NotFound, PermanentError
from cinderblock.kube import kinds
from cinderblock.lifecycle.backup_record import record_of
from cinderblock.lifecycle.mover.refusals import is_refused_by_webhook
from cinderblock.lifecycle.schedule import names
from cinderblock.lifecycle.schedule.conclude import Outcome, OutcomeKind
from cinderblock.lifecycle.schedule.creation import Creation
from cinderblock.lifecycle.schedule.runs import is_made_for
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)

OF_THE_NAMESPACE: Final = frozenset({Reason.QUOTA_EXCEEDED, Reason.NAMESPACE_TERMINATING})
"""Refusals that concern each VolumeBackup of a namespace."""
FAILING_NAMESPACES: Final = 3
"""Namespaces in which the API server fails before it counts as down."""
SILENT_WEBHOOKS: Final = 10
"""Namespaces whose webhook does not answer, after which the rest waits for the next time. Each may take 10 s."""


async def create_all(context: Context, schedule: AnySchedule, creations: Sequence[Creation]) -> dict[Creation, Outcome]:
    """Create VolumeBackups in order. A refusal in one namespace stops no other one.

    Raises KubeUnavailable if the API server does not answer. Backups that were created until then are found later.
    """
    outcomes: dict[Creation, Outcome] = {}
    refused: dict[str, Outcome] = {}
    failures = silent = 0
    for creation in creations:
        namespace = creation.claim.namespace
        if namespace in refused:
            outcomes[creation] = refused[namespace]
            continue
        try:
            outcome = await _create(context, schedule, creation)
        except KubeUnavailable as error:
            is_webhook = is_refused_by_webhook(error.message)
            silent, failures = silent + is_webhook, failures + (not is_webhook)
            if failures >= FAILING_NAMESPACES:
                raise
            outcome = refused[namespace] = Outcome(OutcomeKind.REFUSED, error.reason, error.message)
            if silent >= SILENT_WEBHOOKS:
                outcomes[creation] = outcome
                break
        if outcome is not None:
            outcomes[creation] = outcome
            if outcome.kind is OutcomeKind.REFUSED:
                log.warning("Could not create a VolumeBackup: %s", outcome.message, extra={"reason": outcome.reason})
            if outcome.reason in OF_THE_NAMESPACE:
                refused[namespace] = outcome
    return outcomes


async def _create(context: Context, schedule: AnySchedule, creation: Creation) -> Outcome | None:
    """Create a VolumeBackup. Return None if one of that name has just vanished, so that the next look tries again."""
    try:
        await context.kube.create(kinds.VOLUME_BACKUP, creation.body)
    except AlreadyExists:
        return await _of_existing(context, schedule, creation)
    except NotFound as error:
        # The namespace is gone.
        return Outcome(OutcomeKind.REFUSED, Reason.NAMESPACE_TERMINATING, error.message)
    except PermanentError as error:
        return Outcome(OutcomeKind.REFUSED, error.reason, error.message)
    log.info("Created VolumeBackup %s/%s", creation.claim.namespace, creation.name)
    return Outcome(OutcomeKind.CREATED)


async def _of_existing(context: Context, schedule: AnySchedule, creation: Creation) -> Outcome | None:
    """Return whether an existing VolumeBackup is the one that was to be created."""
    found = await context.kube.get(kinds.VOLUME_BACKUP, creation.name, creation.claim.namespace)
    if found is None:
        return None
    record = record_of(VolumeBackup.model_validate(found))
    is_ours = record.schedule == names.reference_to(schedule) and is_made_for(record, creation.scheduled)
    if is_ours and record.requested_volume == creation.claim.uid:
        return Outcome(OutcomeKind.CREATED)
    message = f"Another VolumeBackup has the name {creation.name}. Delete it if you do not need it."
    if creation.scheduled is not None and names.is_too_early(record, creation.scheduled):
        message = (
            f"VolumeBackup {creation.name} is older than its scheduled time. Compare the clocks of the operator and the"
            " API server. If they agree, somebody else created it: delete it if you do not need it."
        )
    return Outcome(OutcomeKind.NAME_TAKEN, Reason.NAME_TAKEN, message)
