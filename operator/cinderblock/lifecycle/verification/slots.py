"""When a verification may start a mover: it has limits of its own, and backups and restores go first.

A running verification never holds up a backup: its mover does not count against the limits of backups and restores.
"""

from __future__ import annotations

from typing import Final

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.mover.state import MAX_QUEUE_SECONDS, MIN_QUEUE_SECONDS
from cinderblock.lifecycle.observed import MoverLoad, MoverSettings, ObservedMover
from cinderblock.lifecycle.verdicts import Wait
from cinderblock.reasons import Reason

SHARE_OF_MOVERS: Final = 8
"""One verification for each eight movers of the cluster begins even while backups and restores want all slots."""


def wait_for_slot(mover: ObservedMover, load: MoverLoad, settings: MoverSettings, store: BackupStore) -> Wait | None:
    """Wait while other verifications use the store, or while backups and restores use or want all slots.

    A small share of the cluster is left to verifications in any case.
    """
    limit = settings.verification_limit
    same = sum((other.namespace, other.store) == (store.namespace, store.name) for other in mover.others)
    if same + mover.waiting_before_for_store >= limit:
        rule = f"No more than {limit} verifications may use BackupStore {store.name}, and older ones go first"
        return _queue(rule, mover.waiting_before_for_store, limit)
    own = sum(other.namespace == store.namespace for other in mover.others)
    own += load.movers_in_namespace + load.waiting_in_namespace + mover.waiting_before_in_namespace
    if own >= settings.namespace_limit:
        rule = f"No more than {settings.namespace_limit} movers may run in namespace {store.namespace}"
        return _queue(f"{rule}, and verifications go last", own, settings.namespace_limit)
    count = load.movers + load.waiting + len(mover.others) + mover.waiting_before
    if count >= settings.limit and not _is_within_share(mover, settings, store):
        rule = f"No more than {settings.limit} movers may run in the cluster"
        return _queue(f"{rule}, and verifications go last", count, settings.limit)
    return None


def _is_within_share(mover: ObservedMover, settings: MoverSettings, store: BackupStore) -> bool:
    """Return whether a verification may begin although backups and restores want all slots of the cluster.

    Each namespace gets one slot of the share, so that one with many verifications does not use it up. Namespaces take
    turns, the one first that was served longest ago: a drill may hold a slot for a day.
    """
    is_first = all(other.namespace != store.namespace for other in mover.others)
    return is_first and mover.is_its_turn and len(mover.others) < max(1, settings.limit // SHARE_OF_MOVERS)


def _queue(rule: str, before: int, limit: int) -> Wait:
    """Wait for a slot: the longer the queue, the less often. The message is constant, so nothing is written."""
    return Wait(Reason.QUEUED, rule, requeue_after=min(MAX_QUEUE_SECONDS, MIN_QUEUE_SECONDS * (1 + before / limit)))
