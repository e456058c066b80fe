"""The plan of a recovery: for each claim the newest good backup, the class, and the place in the order.

A pure function of the bucket, the request, and the new cluster. So the same bucket gives
the same plan, and a plan that was read by a person is the plan that is applied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from cinderblock.lifecycle.recovery.candidate import Candidate
from cinderblock.lifecycle.recovery.cluster_view import ClaimKey, ClusterView
from cinderblock.lifecycle.recovery.notes import (
    OTHERS,
    backup_notes,
    check_class,
    name_conflict,
    request_notes,
    size_problems,
    unreadable_notes,
)
from cinderblock.lifecycle.recovery.survey import NAMED, Survey, Unreadable, VolumeBackups

BEING_DELETED: Final = "a claim of this name is being deleted: run the same command again when it is gone"
"""Such a claim is not what a recovery promises. It stays as long as a pod mounts it, or a finalizer holds it."""


class ClaimState(StrEnum):
    """Action of a recovery on a claim."""

    PLANNED = "planned"
    """It is created."""
    EXISTS = "exists"
    """A claim of this name exists, and is not touched."""
    BLOCKED = "blocked"
    """It cannot be created, and the problems say why."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The request of a person.

    Attributes:
        namespaces: namespaces of the lost cluster, in the order of their recovery; empty: all.
        namespace_map: new names of namespaces.
        storage_classes: new StorageClasses by those of the lost cluster.
        priorities: by namespace and claim of the new cluster; an empty claim stands for all of the namespace.
    """

    namespaces: tuple[str, ...] = ()
    namespace_map: Mapping[str, str] = field(default_factory=dict)
    storage_classes: Mapping[str, str] = field(default_factory=dict)
    priorities: Mapping[ClaimKey, int] = field(default_factory=dict)

    def target(self, namespace: str) -> str:
        """Return the name of a namespace in the new cluster."""
        return self.namespace_map.get(namespace, namespace)

    def priority(self, key: ClaimKey) -> int:
        """Return the priority of a claim: its own, else that of its namespace, else 0."""
        return self.priorities.get(key, self.priorities.get((key[0], ""), 0))


@dataclass(frozen=True, slots=True)
class PlannedClaim:
    """One claim of the plan.

    Attributes:
        key: namespace and name in the new cluster.
        state: what happens to it.
        backup: the chosen backup; None: no backup is good.
        storage_class: StorageClass to ask for; None: that of the backup, or the default one of the cluster.
        priority: higher ones come first.
        notes: what a person should know.
        problems: why it is blocked.
        older: further good backups of the claim, the newest first.
        other_volumes: the newest backups of other volumes whose claim had the same name, the newest first.
        unreadable: some backups of its volumes that cannot be read.
    """

    key: ClaimKey
    state: ClaimState
    backup: Candidate | None
    storage_class: str | None = None
    priority: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    older: tuple[Candidate, ...] = ()
    other_volumes: tuple[Candidate, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a recovery.

    Attributes:
        claims: the claims, in the order in which they are created.
        unknown_backups: ids that were asked for and that the plan does not contain.
    """

    claims: tuple[PlannedClaim, ...]
    unknown_backups: tuple[str, ...] = ()

    def of_state(self, state: ClaimState) -> list[PlannedClaim]:
        """Return the claims in this state."""
        return [claim for claim in self.claims if claim.state is state]


def group(survey: Survey, choices: Choices) -> dict[ClaimKey, list[VolumeBackups]]:
    """Return the volumes of each claim. A volume belongs to the claim of its newest backup."""
    found: defaultdict[ClaimKey, list[VolumeBackups]] = defaultdict(list)
    for volume in survey.volumes.values():
        if volume.newest:
            newest = volume.newest[0]
            found[choices.target(newest.namespace), newest.claim].append(volume)
    return found


def ranked(volumes: Sequence[VolumeBackups]) -> list[Candidate]:
    """Return the candidates of a claim: the backups that were asked for, then the others, the newest first."""
    asked = _newest_first(candidate for volume in volumes for candidate in volume.asked)
    others = _newest_first(candidate for volume in volumes for candidate in volume.newest)
    return asked + [candidate for candidate in others if candidate not in asked]


def _newest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda each: each.age_key, reverse=True)


def make_plan(
    survey: Survey,
    choices: Choices,
    now: datetime,
    cluster: ClusterView | None = None,
    rejected: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan.

    Args:
        survey: the bucket.
        choices: the request.
        now: the present, with time zone.
        cluster: the new cluster; None: not known.
        rejected: why backups are not whole, by key of their manifest, as a verification found.
    """
    made = [
        _plan_claim(key, volumes, choices, now, cluster=cluster, rejected=rejected or {})
        for key, volumes in group(survey, choices).items()
    ]
    chosen = {text for claim in made if claim.backup for text in claim.backup.ids}
    return Plan(tuple(sorted(made, key=lambda claim: _order(claim, choices))), tuple(sorted(survey.asked - chosen)))


def unused(plan: Plan, choices: Choices) -> list[str]:
    """Return the options that fit nothing in the plan: perhaps a name is misspelled."""
    backups = [claim.backup for claim in plan.claims if claim.backup]
    recorded = {backup.namespace for backup in backups}
    targets = {(claim.key[0], "") for claim in plan.claims} | {claim.key for claim in plan.claims}
    classes = {backup.storage_class for backup in backups}
    return [
        *(f"--namespace {name}" for name in choices.namespaces if name not in recorded),
        *(f"--namespace-map {old}={new}" for old, new in choices.namespace_map.items() if old not in recorded),
        *(f"--storage-class {old}={new}" for old, new in choices.storage_classes.items() if old not in classes),
        *(f"--priority {'/'.join(filter(None, key))}" for key in choices.priorities if key not in targets),
    ]


def _order(claim: PlannedClaim, choices: Choices) -> tuple[int, int, str, str, int, str]:
    """Return the sort key: priority, then the given order of namespaces, then names, and pods by their numbers."""
    recorded = claim.backup.namespace if claim.backup else claim.key[0]
    given = choices.namespaces.index(recorded) if recorded in choices.namespaces else len(choices.namespaces)
    name, ordinal = claim.key[1], 0
    if claim.backup and claim.backup.ordinal is not None:
        name, ordinal = name.rpartition("-")[0], claim.backup.ordinal
    return -claim.priority, given, claim.key[0], name, ordinal, claim.key[1]


def _plan_claim(
    key: ClaimKey,
    volumes: Sequence[VolumeBackups],
    choices: Choices,
    now: datetime,
    *,
    cluster: ClusterView | None,
    rejected: Mapping[str, str],
) -> PlannedClaim:
    candidates = ranked(volumes)
    good = [candidate for candidate in candidates if candidate.stored.manifest not in rejected]
    bad = [candidate for candidate in candidates if candidate.stored.manifest in rejected]
    unreadable = sorted((each for v in volumes for each in v.unreadable), key=lambda each: each.age_key, reverse=True)
    notes = [f"backup {each.stored.backup_id} is not whole: {rejected[each.stored.manifest]}" for each in bad]
    problems = name_conflict(key, candidates)
    chosen = good[0] if good else None
    wanted = None
    if chosen is None:
        problems.append("none of its newest backups is whole; choose an older one with --as-of")
    else:
        wanted = choices.storage_classes.get(chosen.storage_class)
        notes += [*backup_notes(chosen, now), *unreadable_notes(chosen, volumes)]
        problems += size_problems(chosen)
        notes += request_notes(chosen)
        if cluster is not None:
            class_notes, class_problems = check_class(chosen.storage_class, wanted, cluster)
            notes, problems = notes + class_notes, problems + class_problems
    if cluster is not None and key[0] not in cluster.namespaces:
        notes.append(f"namespace {key[0]} does not exist yet")
    exists = cluster is not None and key in cluster.claims - cluster.deleting
    if cluster is not None and key in cluster.deleting:
        problems.append(BEING_DELETED)
    if exists:
        notes.append("a claim of this name exists, and is not touched")
    return PlannedClaim(
        key=key,
        state=_state(problems, exists=exists),
        backup=chosen,
        storage_class=wanted,
        priority=choices.priority(key),
        notes=tuple(notes),
        problems=tuple(problems),
        older=tuple(_older(chosen, good)),
        other_volumes=tuple(_others(chosen, volumes)),
        unreadable=tuple(unreadable[:NAMED]),
    )


def _state(problems: list[str], *, exists: bool) -> ClaimState:
    if exists:
        return ClaimState.EXISTS
    return ClaimState.BLOCKED if problems else ClaimState.PLANNED


def _older(chosen: Candidate | None, good: Sequence[Candidate]) -> list[Candidate]:
    """Return other good backups of the chosen volume."""
    same = [each for each in good if chosen and each.stored.volume_id == chosen.stored.volume_id and each is not chosen]
    return _newest_first(same)[:OTHERS]


def _others(chosen: Candidate | None, volumes: Sequence[VolumeBackups]) -> list[Candidate]:
    """Return the newest backups of the other volumes."""
    newest = (volume.newest[0] for volume in volumes)
    others = (each for each in newest if chosen is None or each.stored.volume_id != chosen.stored.volume_id)
    return _newest_first(others)[:OTHERS]
