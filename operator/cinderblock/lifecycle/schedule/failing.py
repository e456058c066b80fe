"""The volumes that a status names because they lack a new backup."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import islice, zip_longest
from typing import Final

from cinderblock.api.v1alpha1.schedule import NAMED_FAILURES, FailingVolume
from cinderblock.lifecycle.schedule.runs import Result, State

REASON_LIMIT: Final = 64

FAILING: Final = frozenset(
    {State.FAILED, State.RETRYING, State.REFUSED, State.NO_STORE, State.NO_ACCESS, State.NAME_TAKEN, State.MISSED}
)
"""States of volumes without a new backup. One that was skipped has a backup that is being made, unless it has a
reason."""
SETTLED: Final = FAILING | {State.SUCCEEDED}
"""States that replace what an earlier run told about a volume."""


VolumeName = tuple[str, str]
"""Namespace and name of a claim."""


def update(
    before: Sequence[FailingVolume], number_before: int, results: Sequence[Result]
) -> tuple[list[FailingVolume], int]:
    """Return the failing volumes that a status names, and how many there are.

    A volume whose backup of the run has not ended stays among them if it was. If more were failing than the status
    names, nobody knows which. Then the number falls only as far as the results of the run say.

    Namespaces take turns, so that the volumes of one namespace do not hide those of all others.

    Args:
        before: those that the status names.
        number_before: how many there were.
        results: the results of the run.
    """
    open_volumes = {(r.claim.namespace, r.claim.name) for r in results if r.state not in SETTLED}
    found: dict[str, list[FailingVolume]] = defaultdict(list)
    for result in results:
        if _is_failing(result):
            found[result.claim.namespace].append(_entry(result))
    known = {(volume.namespace, volume.volume or "") for volumes in found.values() for volume in volumes}
    for volume in before:
        if (volume.namespace, volume.volume or "") in open_volumes - known:
            found[volume.namespace].append(volume)
    turns = zip_longest(*(sorted(found[namespace], key=lambda v: v.volume or "") for namespace in sorted(found)))
    named = (volume for turn in turns for volume in turn if volume is not None)
    number = sum(map(len, found.values()))
    if number_before > len(before):
        known = {(volume.namespace, volume.volume or "") for volumes in found.values() for volume in volumes}
        number = max(number, min(number_before, number + len(open_volumes - known)))
    return list(islice(named, NAMED_FAILURES)), number


def without(
    before: Sequence[FailingVolume], number_before: int, gone: Collection[VolumeName]
) -> tuple[list[FailingVolume], int]:
    """Return the failing volumes without some, and how many there are."""
    named = [volume for volume in before if (volume.namespace, volume.volume or "") not in gone]
    return named, max(len(named), number_before - (len(before) - len(named)))


def _is_failing(result: Result) -> bool:
    if result.state is State.SKIPPED:
        return bool(result.reason)
    return result.state in FAILING or (result.state is State.DUE and result.attempts > 0)


def _entry(result: Result) -> FailingVolume:
    return FailingVolume(
        namespace=result.claim.namespace,
        volume=result.claim.name or None,
        backup=result.backup or None,
        reason=str(result.reason)[:REASON_LIMIT] or "Unexpected",
    )
