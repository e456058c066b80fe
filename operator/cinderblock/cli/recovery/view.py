"""Plans and results of a recovery as tables, JSON and YAML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from cinderblock.api.quantity import format_size
from cinderblock.cli.output import format_time, pluralize, print_table, printable
from cinderblock.cli.recovery.runner import Outcome, Result
from cinderblock.lifecycle.recovery.candidate import Candidate
from cinderblock.lifecycle.recovery.cluster_view import ClaimKey
from cinderblock.lifecycle.recovery.objects import backup_object, restore_object, with_wave
from cinderblock.lifecycle.recovery.plan import ClaimState, Plan, PlannedClaim
from cinderblock.lifecycle.recovery.survey import NAMED_LEFT_OUT, Survey, Unreadable

HEADINGS: Final = ("NAMESPACE", "CLAIM", "STATE", "BACKUP", "DATA OF", "SIZE", "CLASS", "MODES")
SHOWN_VOLUMES: Final = 20
"""Volumes without a readable backup that the table names. JSON and YAML name all."""

JsonObject = dict[str, Any]


def print_plan(plan: Plan, survey: Survey) -> None:
    """Print a plan for people: a row for each claim, then everything that they should know."""
    if plan.claims:
        print_table(HEADINGS, map(_row, plan.claims))
    for line in _notes(plan, survey):
        print(printable(line))
    planned = plan.of_state(ClaimState.PLANNED)
    size = format_size(sum(claim.backup.size for claim in planned if claim.backup))
    counts = ", ".join(f"{len(found)} {state}" for state in ClaimState if (found := plan.of_state(state)))
    print(f"{pluralize(len(plan.claims), 'claim')}{': ' if counts else ''}{counts}; {size} to create")


def _row(claim: PlannedClaim) -> tuple[str, ...]:
    namespace, name = claim.key
    backup = claim.backup
    if backup is None:
        return (namespace, name, claim.state, "?", "?", "?", "?", "?")
    return (
        namespace,
        name,
        claim.state,
        backup.stored.backup_id,
        format_time(backup.data_timestamp),
        format_size(backup.size),
        claim.storage_class or backup.storage_class or "(default)",
        ",".join(backup.access_modes) or "(default)",
    )


def _notes(plan: Plan, survey: Survey) -> Iterator[str]:
    """Yield lines about claims, and about backups that are not part of the plan."""
    for claim in plan.claims:
        where = "/".join(claim.key)
        yield from (f"{where}: cannot be recovered: {problem}" for problem in claim.problems)
        yield from (f"{where}: {note}" for note in claim.notes)
        if claim.notes or claim.problems:
            yield from (f"{where}: older backup {_named(older)}" for older in claim.older)
        yield from (
            f"{where}: another volume had this name: {other.stored.volume_id}, its newest backup is {_named(other)}"
            for other in claim.other_volumes
        )
        yield from (f"{where}: cannot read {_why(each)}" for each in claim.unreadable)
    volumes = list(survey.unreadable_volumes())
    for volume_id, volume in volumes[:SHOWN_VOLUMES]:
        count = pluralize(volume.unreadable_count, "backup")
        yield f"volume {volume_id}: none of its {count} can be read: {_why(volume.unreadable[0])}"
    if len(volumes) > SHOWN_VOLUMES:
        yield f"and {len(volumes) - SHOWN_VOLUMES} other volumes of which nothing can be read"
    for each in survey.left_out:
        yield f"left out: backup {each.backup_id}: {each.message}"
    if survey.left_out_count > NAMED_LEFT_OUT:
        yield f"left out: {survey.left_out_count - NAMED_LEFT_OUT} other backups"


def _named(candidate: Candidate) -> str:
    return f"{candidate.stored.backup_id} of {format_time(candidate.data_timestamp)}"


def _why(unreadable: Unreadable) -> str:
    return f"backup {unreadable.backup_id} ({unreadable.reason}): {unreadable.message}"


def plan_to_wire(plan: Plan, survey: Survey, place: str) -> JsonObject:
    """Return a plan as JSON."""
    return {
        "from": place,
        "claims": [_claim_to_wire(claim) for claim in plan.claims],
        "unreadableVolumes": [
            {
                "volumeId": volume_id,
                "backups": volume.unreadable_count,
                "unreadable": [_unreadable_to_wire(each) for each in volume.unreadable],
            }
            for volume_id, volume in survey.unreadable_volumes()
        ],
        "leftOutCount": survey.left_out_count,
        "leftOut": [_unreadable_to_wire(each) for each in survey.left_out],
    }


def _claim_to_wire(claim: PlannedClaim) -> JsonObject:
    namespace, name = claim.key
    wire: JsonObject = {
        "namespace": namespace,
        "name": name,
        "state": claim.state.value,
        "priority": claim.priority,
        "notes": list(claim.notes),
        "problems": list(claim.problems),
        "older": [_short(each) for each in claim.older],
        "otherVolumes": [_short(each) for each in claim.other_volumes],
        "unreadable": [_unreadable_to_wire(each) for each in claim.unreadable],
    }
    if claim.storage_class is not None:
        wire["storageClassName"] = claim.storage_class
    return wire if claim.backup is None else wire | {"backup": _backup_to_wire(claim.backup)}


def _short(candidate: Candidate) -> JsonObject:
    return {
        "id": candidate.stored.backup_id,
        "volumeId": candidate.stored.volume_id,
        "manifest": candidate.stored.manifest,
        "dataTimestamp": candidate.data_timestamp.isoformat(),
    }


def _backup_to_wire(backup: Candidate) -> JsonObject:
    """Return the chosen backup, with what its manifest says about the claim."""
    claim = {
        "namespace": backup.namespace,
        "storageClassName": backup.storage_class,
        "accessModes": list(backup.access_modes),
        "volumeMode": backup.volume_mode,
        "requestedSize": backup.requested_size,
        "statefulSet": backup.stateful_set,
        "ordinal": backup.ordinal,
        "labels": dict(backup.labels),
        "annotations": dict(backup.annotations),
        "notRestored": list(backup.dropped),
    }
    return _short(backup) | {
        "importId": backup.stored.import_id,
        "contentDigest": backup.content_digest,
        "sealed": backup.is_sealed,
        "sizeBytes": backup.size,
        "dataBytes": backup.data_bytes,
        "unreadableFiles": backup.unreadable_files,
        "recorded": {key: value for key, value in claim.items() if value not in ("", None, [], {})},
    }


def _unreadable_to_wire(each: Unreadable) -> JsonObject:
    return {
        "id": each.backup_id,
        "volumeId": each.volume_id,
        "manifest": each.manifest,
        "reason": each.reason,
        "message": each.message,
    }


def manifests(plan: Plan, store_name: str | None, *, kind: str | None, allows_unsealed: bool) -> Iterator[JsonObject]:
    """Yield the objects that carry out a plan: all imports, then the VolumeRestores in their order.

    A VolumeRestore fails if its backup is not imported yet, so Argo CD creates the imports in an earlier wave. Claims
    of the same priority have the same wave.
    """
    planned = [(claim, claim.backup) for claim in plan.of_state(ClaimState.PLANNED) if claim.backup]
    waves = {value: wave for wave, value in enumerate(sorted({c.priority for c, _ in planned}, reverse=True), start=1)}
    if kind != "VolumeRestore":
        for claim, backup in planned:
            yield with_wave(backup_object(claim, backup, store_name, allows_unsealed=allows_unsealed), 0)
    if kind != "VolumeBackup":
        for claim, backup in planned:
            yield with_wave(restore_object(claim, backup), waves[claim.priority])


def print_results(results: Mapping[ClaimKey, Result]) -> None:
    """Print what has become of each claim, and a summary."""
    if results:
        rows = ((*key, result.outcome.value, result.message) for key, result in results.items())
        print_table(("NAMESPACE", "CLAIM", "RESULT", "WHY"), rows)
    print(summary(results.values()))


def summary(results: Iterable[Result]) -> str:
    """Return a line about all results."""
    counts = Counter(result.outcome for result in results)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    return f"{pluralize(counts.total(), 'claim')}{': ' if parts else ''}{parts}"


def results_to_wire(results: Mapping[ClaimKey, Result]) -> list[JsonObject]:
    """Return the results as JSON."""
    return [
        {"namespace": namespace, "name": name, "result": result.outcome.value, "message": result.message}
        | ({"reason": result.reason} if result.reason else {})
        for (namespace, name), result in results.items()
    ]
