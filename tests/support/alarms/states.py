"""States of a cluster by chance, as the operator reads them for metrics and notifications."""

from __future__ import annotations

import random
from collections import Counter

from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.lifecycle.alarms.protection import Protection
from cinderblock.observability.cluster_state import ClusterState, Failure, OperationKind, Period, StoreMetrics
from cinderblock.observability.schedule_metrics import ScheduleMetrics
from cinderblock.observability.volume_metrics import VolumeMetrics

NAMESPACES = ("shop", "bank", "lab")


def random_state(seed: int, days: int) -> ClusterState:
    """Return a state that has not changed since the first of ``days``. The present is ``days`` after 1970."""
    chance = random.Random(seed)
    state = ClusterState()
    for namespace in NAMESPACES:
        state.protection[namespace] = Counter({Protection.UNPROTECTED: chance.choice((0, 0, 2))})
        state.suspicious[namespace] = chance.choice((0, 0, 1))
        if state.suspicious[namespace]:
            state.suspicious_since[namespace] = _period(chance)
        state.damaged[namespace] = chance.choice((0, 0, 3))
        if state.damaged[namespace]:
            state.damaged_since[namespace] = _period(chance)
        if state.protection[namespace][Protection.UNPROTECTED]:
            state.unprotected_since[namespace] = _period(chance)
        store = StoreMetrics(namespace, "main", chance.random() < 0.6, ready_since=chance.uniform(1, 3600))
        store.is_imported, store.imported_since = (None, True, False)[(seed + len(state.stores)) % 3], 60.0
        store.copies_are_late = (True, None, False)[(seed + len(state.stores)) % 3]
        store.copies_late_since = 60.0 if store.copies_are_late else None
        store.disputed_since = (None, 60.0)[(seed + len(state.stores)) % 2]
        state.stores.append(store)
        state.volumes += [_volume(chance, namespace, f"data-{number}", days) for number in range(3)]
        state.schedules += [_schedule(chance, namespace, name, days) for name in ("daily", "hourly")]
    for operation in (OperationKind.RESTORE, OperationKind.VERIFICATION):
        ago = chance.choice((None, 1800, 7200))
        if ago is not None:
            state.last_failures[operation] = Failure(days * 86400.0 - ago, "shop", "last", "The store is full.")
    state.suspended_schedules = chance.choice((0, 1))
    if chance.random() < 0.3:
        state.schedules = []
    else:
        state.schedules.append(_schedule(chance, "", "everything", days))
    return state


def _period(chance: random.Random) -> Period:
    oldest = chance.uniform(1, 3600)
    return Period(oldest, oldest + chance.uniform(0, 3600))


def _volume(chance: random.Random, namespace: str, name: str, days: int) -> VolumeMetrics:
    """Return a volume whose times are half past an even hour, so that no delay ends between two looks of an hour."""
    success, incomplete, failure, first, verified, drilled, protected, drills = (
        chance.choice((None, 1800.0 + 7200 * chance.randrange(days * 12))) for _ in range(8)
    )
    return VolumeMetrics(
        namespace,
        name,
        first_request=first,
        last_success=success,
        last_incomplete=incomplete,
        last_failure=failure,
        last_verified=verified,
        failed_backup="daily-1",
        last_levels={VerificationLevel.RESTORE: drilled} if drilled is not None else {},
        protected_since=protected,
        drills_since=drills,
    )


def _schedule(chance: random.Random, namespace: str, name: str, days: int) -> ScheduleMetrics:
    interval = chance.choice((None, 3600.0, 86400.0, 2 * 86400.0))
    effective = chance.choice((None, chance.uniform(1, days * 86400)))
    frozen, alarmed = chance.choice((0, 0, 4)), 1800.0 + 7200 * chance.randrange(days * 12)
    return ScheduleMetrics(
        namespace=namespace,
        name=name,
        is_ready=chance.random() < 0.7,
        selects=chance.random() < 0.7,
        interval=interval,
        deadline=chance.choice((0.0, 3600.0, interval or 0.0)),
        effective_since=effective,
        last_completed=chance.choice((None, chance.uniform(1, days * 86400))),
        next_time=None,
        failing_volumes=chance.choice((0, 0, 3)),
        frozen=frozen,
        frozen_since=alarmed if frozen else None,
        ready_since=chance.uniform(1, 3600),
        selecting_since=chance.uniform(1, 3600),
        creates_verifications=chance.choice((None, True, False)),
        verifications_since=chance.uniform(1, 3600),
        complete_due=chance.choice((None, 1800.0 + 7200 * chance.randrange(days * 24))),
    )
