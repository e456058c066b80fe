"""Which objects want to be looked at, told from a few lists: those that have ended and are as they should be do not.

A look at one object takes some 15 ms of processor time. With ten thousand backups that ended long ago, a start and
every resync would be minutes of looks that find nothing. So the same pure decisions are asked here with what the lists
say: an object that they would leave alone is left out, everything else is looked at as ever.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.controller.context import Context
from cinderblock.controller.handlers.event_handler import volume_key
from cinderblock.controller.request import ObjectKey, is_in_progress
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle import dependents
from cinderblock.lifecycle.actions import AnyStatus, Decision
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.observed import ObservedBackup, ObservedRestore, OperatorPolicy
from cinderblock.lifecycle.restore import decide as restore_decide
from cinderblock.lifecycle.restore.rebind import RESTORE_LABEL

CONCURRENT_LISTS: Final = 25
"""Objects that are judged before others have their turn in the event loop: about 10 ms."""

JsonObject = dict[str, Any]
ObjectPlace = tuple[str, str]
"""A namespace, and the id of a backup in it."""


async def list_pending(context: Context) -> list[tuple[ObjectKey, bool]]:
    """Every object that wants to be looked at, and whether something is under way with it.

    Raises what the API server raises.
    """
    stores = await context.kube.list(kinds.BACKUP_STORE)
    bodies = [*await context.kube.list(kinds.VOLUME_BACKUP), *await context.kube.list(kinds.VOLUME_RESTORE)]
    judge = SteadyStateFilter(context.policy, await _owners(context.kube), context.clock())
    async for body in _with_pauses(bodies):
        judge.observe(body)
    kept = [*stores, *[body async for body in _with_pauses(bodies) if not judge.is_settled(body)]]
    marked = await context.kube.list(kinds.PV, labels=RESTORE_LABEL)
    return [(_key(body), is_in_progress(body)) for body in kept] + [
        (volume_key(item["metadata"]["name"]), False) for item in marked
    ]


class SteadyStateFilter:
    """Asks the decisions about objects that have ended.

    Args:
        policy: the operator's own settings.
        owners: UIDs of the objects that have children.
        now: the instant of the decisions.
    """

    def __init__(self, policy: OperatorPolicy, owners: frozenset[str], now: datetime) -> None:
        self._policy = policy
        self._owners = owners
        self._now = now
        self._ids: set[ObjectPlace] = set()
        self._dependents: dict[ObjectPlace, JsonObject] = {}
        self._parents: dict[ObjectPlace, set[str]] = defaultdict(set)
        self._gone: dict[ObjectPlace, list[ObjectPlace]] = {}
        self._restores: dict[ObjectPlace, list[VolumeRestore]] = defaultdict(list)

    def observe(self, body: JsonObject) -> None:
        """Take note of what an object says about others. Of the dependents of a backup, one is enough."""
        parsed = _parsed(body)
        if isinstance(parsed, VolumeBackup):
            self._ids.add((parsed.namespace, parsed.backup_id))
            needed = dependents.needed_parent_id(parsed)
            if needed:
                self._dependents[parsed.namespace, needed] = body
                self._parents[parsed.namespace, parsed.status.volume_id or ""].add(needed)
        elif parsed is not None and parsed.status.backup_id:
            self._restores[parsed.namespace, parsed.status.backup_id].append(parsed)

    def is_settled(self, body: JsonObject) -> bool:
        """Whether nothing would be done about an object. Everything must have been heard before."""
        parsed = _parsed(body)
        if parsed is None or parsed.uid in self._owners or parsed.metadata.is_being_deleted:
            return False
        if isinstance(parsed, VolumeBackup):
            return self._is_backup_settled(parsed)
        if not parsed.has_ended:
            return False
        return _leaves_alone(restore_decide.decide(ObservedRestore(parsed, self._policy), self._now), parsed.status)

    def _is_backup_settled(self, backup: VolumeBackup) -> bool:
        if not backup.has_ended or backup_checks.is_forgotten(backup) or backup_checks.is_unpinned(backup):
            return False
        place = backup.namespace, backup.backup_id
        observed = ObservedBackup(
            backup,
            self._policy,
            siblings=tuple(self._relatives(backup)),
            restores=tuple(self._restores.get(place, ())),
        )
        return _leaves_alone(backup_decide.decide(observed, self._now), backup.status)

    def _relatives(self, backup: VolumeBackup) -> Iterator[VolumeBackup]:
        """Yield one backup that needs this one, if any; else one backup of the volume whose parent is gone.

        Only the store shows what that one needs. This look does not ask the store, and believes its last answer.
        """
        gone = self._gone_parents((backup.namespace, backup.status.volume_id or ""))
        for place in ((backup.namespace, backup.backup_id), *gone):
            found = _parsed(self._dependents[place]) if place in self._dependents else None
            if isinstance(found, VolumeBackup) and found.uid != backup.uid:
                yield found
                return

    def _gone_parents(self, volume: ObjectPlace) -> list[ObjectPlace]:
        """Return the parents of a volume's backups that no longer exist. They are searched once for each volume."""
        if volume not in self._gone:
            named = ((volume[0], parent) for parent in self._parents.get(volume, ()))
            self._gone[volume] = [place for place in named if place not in self._ids]
        return self._gone[volume]


def _leaves_alone(decision: Decision, status: AnyStatus) -> bool:
    return not decision.actions and decision.requeue_after is None and decision.status in (None, status)


def _parsed(body: JsonObject) -> VolumeBackup | VolumeRestore | None:
    """The object as a model; None: it does not parse, which a look at it tells."""
    model = VolumeBackup if body["kind"] == kinds.VOLUME_BACKUP.kind else VolumeRestore
    try:
        return model.model_validate(body)
    except ValidationError:
        return None


async def _owners(kube: KubeClient) -> frozenset[str]:
    """UIDs of the operations that have a Job, a claim or a VolumeSnapshot."""
    found: list[JsonObject] = []
    for kind in (kinds.JOB, kinds.PVC, kinds.VOLUME_SNAPSHOT):
        if await _is_served(kube, kind):
            found += await kube.list(kind, labels=labels.OWNER_UID_LABEL)
    return frozenset(child["metadata"]["labels"][labels.OWNER_UID_LABEL] for child in found)


async def _is_served(kube: KubeClient, kind: Kind) -> bool:
    return kind is not kinds.VOLUME_SNAPSHOT or await kube.serves(kind)


async def _with_pauses(bodies: list[JsonObject]) -> AsyncIterator[JsonObject]:
    for number, body in enumerate(bodies):
        if number % CONCURRENT_LISTS == CONCURRENT_LISTS - 1:
            await asyncio.sleep(0)
        yield body


def _key(body: JsonObject) -> ObjectKey:
    return ObjectKey(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"])
