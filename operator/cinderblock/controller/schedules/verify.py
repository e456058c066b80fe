"""Create the BackupVerifications of a schedule, and remove old ones. Each write may be repeated.

A failure here holds up neither backups nor retention.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice, zip_longest
from random import shuffle
from typing import Final

from cinderblock.api import labels
from cinderblock.api.v1alpha1.schedule import AnySchedule
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.controller.context import Context
from cinderblock.controller.request import ObjectKey
from cinderblock.controller.schedules.gather import gather, parsed_pages, read_backups
from cinderblock.controller.schedules.record_limit import RecordLimit
from cinderblock.errors import (
    AlreadyExists,
    CinderblockError,
    Conflict,
    InvalidInput,
    KubeUnavailable,
    NotFound,
    NotLeading,
    PermanentError,
)
from cinderblock.kube import kinds
from cinderblock.lifecycle.mover.refusals import is_refused_by_webhook
from cinderblock.lifecycle.schedule import names
from cinderblock.lifecycle.schedule.observed import ObservedSchedule
from cinderblock.lifecycle.schedule.verification import conclude, rules
from cinderblock.lifecycle.schedule.verification.conclude import RETRY, Verified
from cinderblock.lifecycle.schedule.verification.decide import (
    LevelPlan,
    ObservedVerifications,
    VerificationCreation,
    is_due,
    plan,
)
from cinderblock.lifecycle.schedule.verification.history import newest_and_rest
from cinderblock.lifecycle.schedule.verification.record import VerificationRecord, record_of_verification
from cinderblock.lifecycle.schedule.verification.rules import LevelRule
from cinderblock.lifecycle.schedule.volumes import ClaimRecord

log = logging.getLogger(__name__)

MAX_REMOVALS: Final = 50
"""Most BackupVerifications that one reconciliation removes. At 5 ms each, others wait a quarter of a second."""
RECORDS_PER_SECOND: Final = 1000.0
"""Records that a schedule reads in a second, on average, while it creates verifications."""
IDLE_FACTOR: Final = 5
"""How many times less often it reads them if it could create none."""
MAX_REST: Final = 1000
"""BackupVerifications beyond the limit of memory that are remembered for removal."""


@dataclass(frozen=True, slots=True)
class _Look:
    """When verifications were last read for a schedule of this version, and from when they may be read again."""

    uid: str
    generation: int | None
    at: datetime
    earliest: datetime

    def allows(self, schedule: AnySchedule, now: datetime) -> bool:
        """Return whether they may be read. After a clock has gone back, they may."""
        is_same = (self.uid, self.generation) == (schedule.uid, schedule.metadata.generation)
        return not is_same or not self.at <= now < self.earliest


@dataclass(slots=True)
class VerificationReconciler:
    """Creates and removes the BackupVerifications of schedules. Its memory only saves work."""

    _looks: dict[ObjectKey, _Look] = field(default_factory=dict)

    def forget(self, key: ObjectKey) -> None:
        """Forget a schedule that no longer exists."""
        self._looks.pop(key, None)

    async def verify(
        self,
        context: Context,
        key: ObjectKey,
        observed: ObservedSchedule,
        now: datetime,
        *,
        readers: AbstractAsyncContextManager[None] | None = None,
    ) -> Verified:
        """Create and remove BackupVerifications of a schedule if a time is due. Return what its status says about it.

        Args:
            context: what to work with.
            key: the key of the schedule.
            observed: the schedule, with its claims and backups if they were read just now.
            now: the instant of the decisions.
            readers: limits how many schedules read at the same time, if the claims and backups were not read.

        Raises NotLeading.
        """
        schedule = observed.schedule
        try:
            parsed = rules.parse(schedule, observed.settings.spread)
        except InvalidInput as error:
            return conclude.invalid(schedule, error)
        if not is_due(parsed, observed, now):
            return conclude.idle(schedule, parsed, now)
        look = self._looks.get(key)
        if look is not None and not look.allows(schedule, now):
            return Verified(schedule.status.verification, requeue_after=(look.earliest - now).total_seconds())
        try:
            async with readers or nullcontext():
                return await self._verify(context, key, observed, parsed, now, is_gathered=readers is None)
        except NotLeading:
            raise
        except CinderblockError as error:
            log.warning("Verifications are created later: %s", error.message, extra={"reason": error.reason})
            return Verified(schedule.status.verification, requeue_after=RETRY.total_seconds())

    async def _verify(
        self,
        context: Context,
        key: ObjectKey,
        observed: ObservedSchedule,
        parsed: tuple[LevelRule, ...],
        now: datetime,
        *,
        is_gathered: bool,
    ) -> Verified:
        if not is_gathered:
            observed = await gather(context, observed, await read_backups(context, key))
        history = await _read_verifications(context, key)
        records = history.records.records()
        overfull = frozenset(history.records.overfull)
        made = plan(ObservedVerifications(observed, parsed, tuple(records), overfull), now)
        writer = _Writer(context)
        created = {level.rule.level: await writer.create(level) for level in made.levels}
        await writer.remove([*history.rest, *made.removals])
        problem = writer.problem or conclude.overfull_problem(overfull)
        verified = conclude.conclude(observed.schedule, made.levels, created, problem, now)
        count = len(observed.claims) + observed.backups.count + len(records)
        pace = RECORDS_PER_SECOND if any(created.values()) else RECORDS_PER_SECOND / IDLE_FACTOR
        seconds, schedule = count / pace, observed.schedule
        self._looks[key] = _Look(schedule.uid, schedule.metadata.generation, now, now + timedelta(seconds=seconds))
        if verified.requeue_after is None:
            return verified
        # Only for a due time must the records be read again.
        waits = any(level.times.due is not None for level in made.levels)
        return replace(verified, requeue_after=max(verified.requeue_after, seconds)) if waits else verified


class _History:
    """The BackupVerifications of a schedule, with the newest ones only of a namespace that has too many.

    Attributes:
        records: what was kept.
        rest: some of the others, which are removed, so that later looks can read all.
    """

    def __init__(self) -> None:
        self.records: RecordLimit[VerificationRecord] = RecordLimit(reductions=[self._reduce])
        self.rest: list[VerificationRecord] = []

    def _reduce(self, records: Iterable[VerificationRecord]) -> list[VerificationRecord]:
        kept, rest = newest_and_rest(records)
        self.rest += islice(rest, max(0, MAX_REST - len(self.rest)))
        return kept


async def _read_verifications(context: Context, schedule: ObjectKey) -> _History:
    """Return the BackupVerifications of a schedule. The label finds them, and the annotation tells its kind."""
    history = _History()
    reference, query = f"{schedule.kind}/{schedule.name}", f"{labels.SCHEDULE_LABEL}={names.label_of(schedule.name)}"
    kind, namespace = kinds.BACKUP_VERIFICATION, schedule.namespace or None
    async for page in parsed_pages(context, BackupVerification, kind, namespace, query):
        for verification in page:
            if verification.metadata.annotations.get(labels.SCHEDULE_ANNOTATION) == reference:
                history.records.add(record_of_verification(verification))
    return history


def _in_turns(records: Iterable[VerificationRecord]) -> list[VerificationRecord]:
    """Let namespaces take turns, in an order by chance: those that refuse everything must not use up all removals."""
    by_namespace: dict[str, list[VerificationRecord]] = defaultdict(list)
    for record in records:
        by_namespace[record.namespace].append(record)
    queues = list(by_namespace.values())
    shuffle(queues)
    return [record for turn in zip_longest(*queues) for record in turn if record is not None]


@dataclass(slots=True)
class _Writer:
    """Writes, and remembers refusals.

    Attributes:
        context: what to work with.
        problem: the first refusal; empty: there was none.
        refused: the namespaces of refusals, which are left out after that: they must not use up the writes of others.
    """

    context: Context
    problem: str = ""
    refused: set[str] = field(default_factory=set)

    async def create(self, level: LevelPlan) -> list[ClaimRecord]:
        """Create the BackupVerifications of a level. Return the volumes that have one now."""
        made: list[ClaimRecord] = []
        for creation in level.creations:
            if len(made) >= level.wanted:
                break
            if creation.claim.namespace not in self.refused and await self._create(creation):
                made.append(creation.claim)
        return made

    async def _create(self, creation: VerificationCreation) -> bool:
        try:
            await self.context.kube.create(kinds.BACKUP_VERIFICATION, creation.body)
        except AlreadyExists:
            # A process that died has created it, or somebody took its name. One verification of the volume is enough.
            return True
        except (PermanentError, KubeUnavailable) as error:
            if isinstance(error, KubeUnavailable) and not is_refused_by_webhook(error.message):
                raise
            self._refuse(creation.claim.namespace, error)
            return False
        log.info("Created BackupVerification %s/%s", creation.claim.namespace, creation.name)
        return True

    def _refuse(self, namespace: str, error: CinderblockError) -> None:
        self.refused.add(namespace)
        self.problem = self.problem or error.message
        log.warning("A verification was refused: %s", error.message, extra={"namespace": namespace})

    async def remove(self, records: Sequence[VerificationRecord]) -> None:
        """Remove ended BackupVerifications. One that has changed is judged again at the next time."""
        allowed = (record for record in _in_turns(records) if record.namespace not in self.refused)
        for record in islice(allowed, MAX_REMOVALS):
            try:
                await self.context.kube.delete(
                    kinds.BACKUP_VERIFICATION,
                    record.name,
                    record.namespace,
                    uid=record.uid,
                    resource_version=record.resource_version,
                )
            except (NotFound, Conflict):
                continue
            except PermanentError as error:
                self._refuse(record.namespace, error)
            else:
                log.info("Removed BackupVerification %s/%s", record.namespace, record.name)
