"""Which ended BackupVerifications of a schedule are removed, so that each volume keeps a history of limited length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from cinderblock.api.v1alpha1.schedule import VerificationRules
from cinderblock.api.v1alpha1.verification import VerificationPhase
from cinderblock.lifecycle.schedule.verification.record import VerificationRecord

LEFT: Final = timedelta(days=7)
"""Age from which verifications are removed whose volume the schedule does not find any more."""

VolumeKey = tuple[str, str]


def superfluous(
    records: Iterable[VerificationRecord], rules: VerificationRules, volumes: Collection[VolumeKey], now: datetime
) -> list[VerificationRecord]:
    """Return the ended verifications beyond the limits, oldest first.

    The newest verification of a volume and level always stays. Its name prevents a second one for the same time.

    Args:
        records: the verifications of the schedule.
        rules: the limits.
        volumes: namespaces and UIDs of the claims that the schedule has found.
        now: the present.
    """
    groups: dict[tuple[str, str, str, bool], list[VerificationRecord]] = defaultdict(list)
    for record in records:
        if record.has_ended and not record.is_being_deleted:
            is_success = record.phase is VerificationPhase.VERIFIED
            groups[record.namespace, record.volume_id, record.level, is_success].append(record)
    found: list[VerificationRecord] = []
    for (namespace, volume_id, _, is_success), group in groups.items():
        limit = rules.successful_history_limit if is_success else rules.failed_history_limit
        newest_first = sorted(group, key=_age, reverse=True)
        kept = newest_first[:limit]
        found += newest_first[limit:]
        if (namespace, volume_id) not in volumes:
            found += [record for record in kept if now - record.created > LEFT]
    return sorted(found, key=_age)


def newest_and_rest(
    records: Iterable[VerificationRecord],
) -> tuple[list[VerificationRecord], list[VerificationRecord]]:
    """Divide the verifications of a namespace that has too many of them to be read.

    Returns:
        The unfinished ones, and the newest of each volume, level and outcome; and those of the others that can be
        removed, oldest first.
    """
    kept: list[VerificationRecord] = []
    newest: dict[tuple[str, str, bool], VerificationRecord] = {}
    rest: list[VerificationRecord] = []
    for record in records:
        if not record.has_ended:
            kept.append(record)
            continue
        group = record.volume_id, record.level, record.phase is VerificationPhase.VERIFIED
        other = newest.setdefault(group, record)
        if other is not record:
            newest[group] = max(other, record, key=_age)
            rest.append(min(other, record, key=_age))
    removable = [record for record in rest if not record.is_being_deleted]
    return [*kept, *newest.values()], sorted(removable, key=_age)


def _age(record: VerificationRecord) -> tuple[datetime, str]:
    return record.created, record.name
