"""Which BackupVerifications a schedule creates now, and which old ones it removes.

Names come from the schedule, the volume, the level and the time. So an operator that dies between a creation and the
status finds the object again, and creates no second one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice, zip_longest
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.schedule import AnySchedule, DataVerification, RestoreVerification
from cinderblock.api.v1alpha1.verification import BackupVerificationSpec, DataRule, RestoreRule, VerificationLevel
from cinderblock.lifecycle.schedule import names
from cinderblock.lifecycle.schedule.names import BackupNames
from cinderblock.lifecycle.schedule.observed import ObservedSchedule
from cinderblock.lifecycle.schedule.times import Times
from cinderblock.lifecycle.schedule.verification.history import superfluous
from cinderblock.lifecycle.schedule.verification.record import VerificationRecord
from cinderblock.lifecycle.schedule.verification.rules import LevelRule
from cinderblock.lifecycle.schedule.volumes import ClaimRecord


@dataclass(frozen=True, slots=True)
class ObservedVerifications:
    """The observed state of a schedule's verifications.

    Attributes:
        observed: the schedule with its claims and backups.
        rules: its rules for levels.
        records: its BackupVerifications.
        overfull: namespaces with too many of them to be read.
    """

    observed: ObservedSchedule
    rules: tuple[LevelRule, ...]
    records: tuple[VerificationRecord, ...] = ()
    overfull: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class VerificationCreation:
    """A BackupVerification to create.

    Attributes:
        level: its level.
        claim: the volume.
        name: its name.
        body: the object.
    """

    level: VerificationLevel
    claim: ClaimRecord
    name: str
    body: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """The decision about one level.

    Attributes:
        rule: its rule.
        times: its times.
        is_dealt_with: whether the due time needs nothing more, once the creations of this plan have succeeded.
        creations: the BackupVerifications to create, in this order.
        wanted: how many of them to create; further ones take the place of refused ones.
        later: when the next volume is due; None: no volume is.
        made: the volumes that have a BackupVerification of the run, if the run chooses volumes.
    """

    rule: LevelRule
    times: Times
    is_dealt_with: bool = True
    creations: tuple[VerificationCreation, ...] = ()
    wanted: int = 0
    later: datetime | None = None
    made: tuple[ClaimRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class VerificationPlan:
    """The decision about all levels.

    Attributes:
        levels: the decision about each level.
        removals: old BackupVerifications to remove.
    """

    levels: tuple[LevelPlan, ...]
    removals: tuple[VerificationRecord, ...] = ()


def is_due(rules: Sequence[LevelRule], observed: ObservedSchedule, now: datetime) -> bool:
    """Return whether a time of a level is due, so that claims and verifications must be read."""
    return any(rule.times(observed.schedule, now).due is not None for rule in rules)


def plan(seen: ObservedVerifications, now: datetime) -> VerificationPlan:
    """Return what to create and to remove now."""
    rules = seen.observed.schedule.spec.verification
    room = _Room(seen, now)
    levels = tuple(_plan_level(seen, rule, room, now) for rule in seen.rules)
    volumes = {(claim.namespace, claim.uid) for claim in seen.observed.claims}
    removals = superfluous(seen.records, rules, volumes, now) if rules is not None else []
    return VerificationPlan(levels, tuple(removals))


def place_of(claim: ClaimRecord, schedule: AnySchedule) -> str:
    """Return the place of a volume in the order in which volumes take turns."""
    return f"{names.place(claim.uid, schedule.uid):016x}"


def turn_of(claim: ClaimRecord, rule: LevelRule, schedule: AnySchedule) -> tuple[bool, str]:
    """Return when a volume gets its turn: places after the last one come first, and then those from the beginning."""
    place = place_of(claim, schedule)
    return place <= (rule.recorded(schedule).last_place or ""), place


MAX_SUBSTITUTES: Final = 1000
"""Volumes that may take the place of refused ones in a run of level Restore."""


class _Room:
    """The unfinished verifications, and how many more each namespace may have. Each level has its own share."""

    def __init__(self, seen: ObservedVerifications, now: datetime) -> None:
        unfinished = [record for record in seen.records if not record.has_ended and not record.is_being_deleted]
        self.busy = {(record.namespace, record.volume_id, record.level) for record in unfinished}
        self.names = {(record.namespace, record.name) for record in seen.records}
        self.last = _last_created(seen.records)
        self._unfinished = Counter((record.namespace, record.level) for record in unfinished)
        self._limits = seen.observed.limits
        self._now = now

    def choose(self, due: Sequence[ClaimRecord], level: VerificationLevel) -> list[ClaimRecord]:
        """Return the volumes to verify now. Namespaces take turns, and each has its share.

        Volumes whose last verification of the level is the oldest come first.
        """
        by_namespace: dict[str, list[tuple[datetime, str, ClaimRecord]]] = defaultdict(list)
        for claim in due:
            last = self.last.get((claim.namespace, claim.uid, level), datetime.min.replace(tzinfo=UTC))
            by_namespace[claim.namespace].append((last, claim.uid, claim))
        share = self._limits.of_namespace(len(by_namespace))
        turns: list[Iterator[ClaimRecord]] = []
        # In another order each time: namespaces that refuse everything must not use up the creations of the others.
        for name, waiting in sorted(by_namespace.items(), key=lambda item: names.place(item[0], self._now.isoformat())):
            free = max(0, share - self._unfinished[name, level])
            turns.append(iter([claim for *_, claim in sorted(waiting, key=lambda entry: entry[:2])[:free]]))
        chosen = (claim for turn in zip_longest(*turns) for claim in turn if claim is not None)
        return list(islice(chosen, self._limits.creations))


def _last_created(records: Sequence[VerificationRecord]) -> dict[tuple[str, str, str], datetime]:
    found: dict[tuple[str, str, str], datetime] = {}
    for record in records:
        key = record.namespace, record.volume_id, record.level
        found[key] = max(record.created, found.get(key, record.created))
    return found


def _plan_level(seen: ObservedVerifications, rule: LevelRule, room: _Room, now: datetime) -> LevelPlan:
    schedule = seen.observed.schedule
    at = rule.times(schedule, now)
    if at.due is None:
        return LevelPlan(rule, at)
    run = BackupNames(schedule, f"{rule.field}-{names.of_time(at.due)}")
    open_claims = [
        (due, claim)
        for claim in seen.observed.claims
        if _is_verifiable(seen, claim, due := rule.due(claim, schedule.uid, at.due))
        and (claim.namespace, run.name(claim.name)) not in room.names
        and (claim.namespace, claim.uid, rule.level) not in room.busy
    ]
    if rule.volumes is not None:
        return _plan_some(seen, rule, at, run, [claim for _, claim in open_claims], room=room)
    ready = [claim for due, claim in open_claims if due <= now]
    later = min((due for due, _ in open_claims if due > now), default=None)
    chosen = room.choose(ready, rule.level)
    creations = tuple(_creation(seen, rule, at.due, run, claim) for claim in chosen)
    is_dealt_with = later is None and len(chosen) == len(ready)
    return LevelPlan(rule, at, is_dealt_with, creations, len(creations), later)


def _plan_some(
    seen: ObservedVerifications,
    rule: LevelRule,
    at: Times,
    run: BackupNames,
    open_claims: Sequence[ClaimRecord],
    *,
    room: _Room,
) -> LevelPlan:
    """Plan a level that takes some volumes each time. They take turns in a fixed order.

    The place of the last one is remembered, and not when each one was verified: anybody in a namespace can delete or
    forge verifications there, and would get all turns.
    """
    made = [claim for claim in seen.observed.claims if (claim.namespace, run.name(claim.name)) in room.names]
    wanted = max(0, (rule.volumes or 0) - len(made))
    waiting = sorted(open_claims, key=lambda claim: turn_of(claim, rule, seen.observed.schedule))
    candidates = waiting[: wanted + MAX_SUBSTITUTES] if wanted else []
    creations = tuple(_creation(seen, rule, at.due or at.base, run, claim) for claim in candidates)
    wanted = min(wanted, len(creations))
    return LevelPlan(rule, at, True, creations, wanted, None, tuple(made))


def _is_verifiable(seen: ObservedVerifications, claim: ClaimRecord, due: datetime) -> bool:
    """Return whether the schedule selects a volume that has a backup to verify."""
    if claim.namespace in seen.overfull or not seen.observed.settings.selection.selects(claim, due):
        return False
    return any(record.is_complete and not record.is_being_deleted for record in seen.observed.backups.of(claim))


def _creation(
    seen: ObservedVerifications, rule: LevelRule, time: datetime, run: BackupNames, claim: ClaimRecord
) -> VerificationCreation:
    name = run.name(claim.name)
    return VerificationCreation(rule.level, claim, name, _body(seen, rule, time, claim, name))


def _body(
    seen: ObservedVerifications, rule: LevelRule, time: datetime, claim: ClaimRecord, name: str
) -> dict[str, Any]:
    """Return a BackupVerification. It names the volume and no backup: the backup is chosen when it begins."""
    schedule = seen.observed.schedule
    given: dict[str, Any] = {}
    if isinstance(rule.rule, DataVerification):
        given["data"] = DataRule(**{field: getattr(rule.rule, field) for field in DataRule.model_fields})
    if isinstance(rule.rule, RestoreVerification):
        given["restore"] = RestoreRule(**{field: getattr(rule.rule, field) for field in RestoreRule.model_fields})
    spec = BackupVerificationSpec(level=rule.level, volume_id=claim.uid, **given)
    return {
        "metadata": {
            "name": name,
            "namespace": claim.namespace,
            "labels": {labels.SCHEDULE_LABEL: names.label_of(schedule.name)},
            "annotations": {
                labels.SCHEDULE_ANNOTATION: names.reference_to(schedule),
                labels.SCHEDULED_FOR_ANNOTATION: time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "ownerReferences": [
                {
                    "apiVersion": schedule.api_version,
                    "kind": schedule.kind,
                    "name": schedule.name,
                    "uid": schedule.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
    }
