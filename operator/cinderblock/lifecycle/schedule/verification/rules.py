"""The rules of `spec.verification` of a schedule, checked and parsed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cinderblock.api.v1alpha1.schedule import (
    AnySchedule,
    DataVerification,
    RestoreVerification,
    StructureVerification,
    VerificationRules,
    VerificationTimes,
)
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.lifecycle.schedule import cron as cron_times
from cinderblock.lifecycle.schedule import times
from cinderblock.lifecycle.schedule.cron import Cron
from cinderblock.lifecycle.schedule.times import Times
from cinderblock.lifecycle.schedule.volumes import ClaimRecord, offset

AnyRule = StructureVerification | DataVerification | RestoreVerification


@dataclass(frozen=True, slots=True)
class LevelRule:
    """The rule for one level.

    Attributes:
        level: the level.
        rule: the rule as it was written.
        cron: its times.
        spread: time over which the verifications of one run begin.
    """

    level: VerificationLevel
    rule: AnyRule
    cron: Cron
    spread: timedelta

    @property
    def volumes(self) -> int | None:
        """Number of volumes of one run; None: all."""
        return self.rule.volumes if isinstance(self.rule, RestoreVerification) else None

    @property
    def field(self) -> str:
        """Name of the field of the level, in ``spec.verification`` and in ``status.verification``."""
        return self.level.lower()

    def times(self, schedule: AnySchedule, now: datetime) -> Times:
        """Return the times of the level. They count from the creation of the schedule, or of the rule."""
        is_new = schedule.status.observed_generation in (None, -1)
        begin = schedule.metadata.creation_timestamp if is_new else None
        recorded = self.recorded(schedule)
        return times.observe_rule(self.rule.schedule, self.cron, schedule, recorded, begin=begin, now=now)

    def recorded(self, schedule: AnySchedule) -> VerificationTimes:
        """Return what the status records about the level."""
        status = schedule.status.verification
        found: VerificationTimes | None = getattr(status, self.field) if status is not None else None
        return found or VerificationTimes()

    def due(self, claim: ClaimRecord, schedule_uid: str, time: datetime) -> datetime:
        """Return when a volume is due in the run of a time. Levels that choose volumes begin at once."""
        if self.volumes is not None:
            return time
        return time + offset(claim.uid, f"{schedule_uid}/{self.field}", self.spread)


def parse(schedule: AnySchedule, spread: timedelta) -> tuple[LevelRule, ...]:
    """Return the rules of a schedule.

    Args:
        schedule: the schedule.
        spread: the time over which its backups begin. A level with a shorter interval gets half of that interval.

    Raises:
        InvalidInput: a rule is wrong, with the reason InvalidSchedule.
    """
    return tuple(_parse(schedule, level, rule, spread) for level, rule in _given(schedule.spec.verification))


def _given(rules: VerificationRules | None) -> list[tuple[VerificationLevel, AnyRule]]:
    if rules is None:
        return []
    levels: tuple[tuple[VerificationLevel, AnyRule | None], ...] = (
        (VerificationLevel.STRUCTURE, rules.structure),
        (VerificationLevel.DATA, rules.data),
        (VerificationLevel.RESTORE, rules.restore),
    )
    return [(level, rule) for level, rule in levels if rule is not None]


def _parse(schedule: AnySchedule, level: VerificationLevel, rule: AnyRule, spread: timedelta) -> LevelRule:
    field = f"spec.verification.{level.lower()}.schedule"
    cron = cron_times.parse(rule.schedule, schedule.spec.time_zone, field)
    return LevelRule(level, rule, cron, min(spread, cron.interval() / 2))
