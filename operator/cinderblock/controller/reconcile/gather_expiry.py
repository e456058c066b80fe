"""Read what a decision about an expired VolumeBackup in deletion needs, with little work for those that are done."""

from __future__ import annotations

from dataclasses import replace

from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.related import related_to_expired
from cinderblock.lifecycle.observed import ObservedBackup


async def with_expiry(context: Context, observed: ObservedBackup) -> ObservedBackup:
    """Add whether this process has removed the data, and otherwise which others hold it up or go along.

    Thousands of backups of a volume may expire at once. Only one of them at a time reads about the others.
    """
    backup, status, store = observed.backup, observed.backup.status, observed.store.store
    if store is None or status.volume_id is None or status.container is None:
        return observed
    place = (store, status.container, status.volume_id)
    removed = context.expiries.removed(*place, backup.backup_id)
    if removed is not None:
        return replace(observed, removed=removed)
    if context.references.is_locked(*place):
        return replace(observed, removal_runs=True)
    held = context.expiries.held_by(*place, context.clock())
    if held is not None:
        return replace(observed, references_error=held)
    related = await related_to_expired(context, backup)
    return replace(
        observed,
        siblings=related.kept(),
        expired_siblings=related.expired(),
        restores=related.restores(),
        present_parents=related.present_parents(),
    )
