"""Which of the due VolumeBackups are created at once, and their bodies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from cinderblock.api import labels
from cinderblock.api.labels import GROUP
from cinderblock.api.v1alpha1.backup import VolumeBackupSpec
from cinderblock.lifecycle.schedule import fulls, names
from cinderblock.lifecycle.schedule.observed import ObservedSchedule
from cinderblock.lifecycle.schedule.runs import Result, Run, State
from cinderblock.lifecycle.schedule.volumes import ClaimRecord


@dataclass(frozen=True, slots=True)
class Creation:
    """A VolumeBackup to create.

    Attributes:
        run: the part of the names that identifies the run.
        claim: the volume.
        name: the name of the VolumeBackup.
        body: the VolumeBackup.
        scheduled: the scheduled time of the run; None: it was requested.
    """

    run: str
    claim: ClaimRecord
    name: str
    body: dict[str, Any] = field(hash=False)
    scheduled: datetime | None = None


def choose(observed: ObservedSchedule, judged: list[tuple[Run, list[Result]]], now: datetime) -> tuple[Creation, ...]:
    """Return the VolumeBackups to create now, at most as many as the limits allow.

    Namespaces take turns, and each has its share of the unfinished backups. So a namespace whose backups do not end
    holds up no other one. Volumes for which nothing could be created last time come last in their namespace.
    """
    failing = {(volume.namespace, volume.volume) for volume in observed.schedule.status.failing}
    due: dict[str, list[tuple[bool, datetime, str, Run, Result]]] = defaultdict(list)
    for run, results in judged:
        for result in results:
            if result.state is State.DUE:
                claim = result.claim
                is_failing = (claim.namespace, claim.name) in failing and not result.retry
                due[claim.namespace].append((is_failing, run.time, claim.uid, run, result))
    share = observed.limits.of_namespace(len(due))
    turns: list[Iterator[tuple[Run, Result]]] = []
    # In another order each time: namespaces that refuse everything must not use up the creations of the others.
    for namespace, candidates in sorted(due.items(), key=lambda item: names.place(item[0], now.isoformat())):
        candidates.sort(key=lambda candidate: candidate[:3])
        free = max(0, share - observed.backups.unfinished[namespace])
        turns.append(iter([(run, result) for *_, run, result in candidates[:free]]))
    chosen: list[Creation] = []
    for turn in zip_longest(*turns):
        for entry in turn:
            if entry is not None and len(chosen) < observed.limits.creations:
                chosen.append(_creation(observed, entry[0], entry[1], now))
    return tuple(chosen)


def _creation(observed: ObservedSchedule, run: Run, result: Result, now: datetime) -> Creation:
    claim = result.claim
    name = run.names.name(claim.name, result.retry)
    since = None if result.is_full else _lineage(observed, claim, now)
    body = _body(observed, run, claim, name, since)
    return Creation(run.names.run, claim, name, body, run.time if run.is_scheduled else None)


def _lineage(observed: ObservedSchedule, claim: ClaimRecord, now: datetime) -> datetime | None:
    """Return the time of the full backup that an incremental backup would depend on; None: the next one is full."""
    records, spec = observed.backups.of(claim), observed.schedule.spec.template.spec
    store = observed.stores[claim.namespace].name
    parent = fulls.usable_parent(records, claim.uid, store, spec.container or "")
    if parent is None:
        return None
    since = fulls.full_time(parent, records)
    return None if fulls.is_full_due(claim.uid, since, now, observed.settings.full_every) else since


def _body(
    observed: ObservedSchedule, run: Run, claim: ClaimRecord, name: str, full_time: datetime | None
) -> dict[str, Any]:
    """Return a VolumeBackup. It has no owner: the deletion of a schedule must delete no backup.

    Args:
        observed: the schedule.
        run: the run.
        claim: the volume.
        name: the name of the VolumeBackup.
        full_time: time of the full backup that an incremental one depends on; None: the backup is full.
    """
    template = observed.schedule.spec.template
    own = {
        labels.SCHEDULE_ANNOTATION: names.reference_to(observed.schedule),
        labels.SCHEDULED_FOR_ANNOTATION: _stamp(run.time),
    }
    if full_time is not None:
        own[labels.FULL_TIME_ANNOTATION] = _stamp(full_time)
    given = {key: text for key, text in template.metadata.annotations.items() if not key.startswith(f"{GROUP}/")}
    spec = VolumeBackupSpec(volume_id=claim.uid, incremental=full_time is not None, **dict(template.spec))
    return {
        "metadata": {
            "name": name,
            "namespace": claim.namespace,
            "labels": {**template.metadata.labels, labels.SCHEDULE_LABEL: names.label_of(observed.schedule.name)},
            "annotations": {**given, **own},
        },
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
    }


def _stamp(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
