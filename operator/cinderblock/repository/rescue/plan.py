"""Find out what a store held at an earlier time, and what of it is deleted or overwritten now.

Only versions tell that, so nothing in a manifest is trusted or even read, and no key is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from cinderblock.api.layout import backup_prefix, is_id, pack_prefix, pack_root, stored_ids
from cinderblock.repository.objects import KEY_NAME, MARK_NAME, is_pack_object
from cinderblock.store.versions.history import History, KeyState, states_at

Owner = tuple[str, str]
"""Volume id and backup id."""


class Condition(StrEnum):
    """The present condition of an object that existed at the earlier time."""

    PRESENT = "present"
    DELETED = "deleted"
    """Only delete markers are above it."""
    OVERWRITTEN = "overwritten"
    """Another version is above it."""


@dataclass(slots=True)
class RescuedBackup:
    """A backup that existed at the earlier time.

    Attributes:
        manifest: the condition of its manifest; None: it had none, but others had inherited packs of it.
        objects: how many of its other objects are deleted or overwritten.
        bytes: the bytes of all objects to bring back.
    """

    manifest: Condition | None = None
    objects: int = 0
    bytes: int = 0

    @property
    def is_affected(self) -> bool:
        """Return whether anything of it must be brought back."""
        return self.manifest in (Condition.DELETED, Condition.OVERWRITTEN) or self.objects > 0


@dataclass(slots=True)
class RescuePlan:
    """The objects to bring back.

    Attributes:
        instant: the earlier time.
        backups: all backups of that time, by volume and id, in order.
        packs: the states of packs and marks to bring back, in order of key.
        manifests: the states of manifests to bring back, in order of key.
        conditions: how many objects are in which condition.
    """

    instant: datetime
    backups: dict[Owner, RescuedBackup] = field(default_factory=dict)
    packs: list[KeyState] = field(default_factory=list)
    manifests: list[KeyState] = field(default_factory=list)
    conditions: Counter[Condition] = field(default_factory=Counter)

    @property
    def affected(self) -> dict[Owner, RescuedBackup]:
        """The backups of which anything must be brought back."""
        return {owner: backup for owner, backup in self.backups.items() if backup.is_affected}

    @property
    def bytes(self) -> int:
        """The bytes of all objects to bring back."""
        return sum(backup.bytes for backup in self.backups.values())


def plan_rescue(history: History, prefix: str, instant: datetime, volume_id: str | None = None) -> RescuePlan:
    """Return what must be brought back so that a store holds again what it held at an instant.

    Later objects stay, unless they have overwritten something. Packs of backups that were unfinished at the instant
    stay hidden.

    Args:
        history: the versions of the container.
        prefix: of the store.
        instant: the earlier time, with time zone.
        volume_id: only backups of this volume; None: all.

    Raises what the history raises.
    """
    plan = RescuePlan(instant)
    below = f"{volume_id}/" if volume_id is not None else ""
    for state in states_at(history.versions(backup_prefix(prefix) + below), instant):
        owner = stored_ids(state.wanted.key, prefix)
        if owner is not None:
            backup = plan.backups[owner] = RescuedBackup(_condition(state))
            _note(plan, backup, plan.manifests, state)
    for owner, state in _pack_states(history, prefix, below, instant):
        if state.wanted.key.endswith(f"/{MARK_NAME}"):
            # A listing shows the mark before the packs.
            plan.backups.setdefault(owner, RescuedBackup())
        known = plan.backups.get(owner)
        if known is not None:
            known.objects += not state.is_current
            _note(plan, known, plan.packs, state)
    plan.backups = dict(sorted(plan.backups.items()))
    return plan


def _pack_states(history: History, prefix: str, below: str, instant: datetime) -> Iterator[tuple[Owner, KeyState]]:
    """Yield the states of packs and marks with the backups that they belong to."""
    root = pack_root(prefix)
    for state in states_at(history.versions(root + below), instant):
        volume_id, _, rest = state.wanted.key.removeprefix(root).partition("/")
        backup_id, _, name = rest.partition("/")
        is_ours = is_id(volume_id) and is_id(backup_id) and name != KEY_NAME
        if is_ours and is_pack_object(state.wanted.key, pack_prefix(prefix, volume_id, backup_id)):
            yield (volume_id, backup_id), state


def _note(plan: RescuePlan, backup: RescuedBackup, states: list[KeyState], state: KeyState) -> None:
    plan.conditions[_condition(state)] += 1
    if not state.is_current:
        states.append(state)
        backup.bytes += state.wanted.size


def _condition(state: KeyState) -> Condition:
    if state.is_current:
        return Condition.PRESENT
    return Condition.DELETED if state.markers else Condition.OVERWRITTEN
