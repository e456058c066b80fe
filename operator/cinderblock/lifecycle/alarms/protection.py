"""Which volumes no schedule backs up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from cinderblock.api.conditions import ConditionType
from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.schedule import AnySchedule, ClusterBackupScheduleSpec
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle import selector
from cinderblock.lifecycle.schedule.volumes import Selection, record_of_claim
from cinderblock.lifecycle.selector import LabelSelector

MAX_SCHEDULES: Final = 50
"""BackupSchedules of a namespace that count, so that nobody makes the operator compare each claim with thousands."""

_AT_ANY_AGE: Final = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
"""An instant at which every claim has the least age of every schedule: a schedule will back it up."""


class Protection(StrEnum):
    """Whether a schedule backs a volume up."""

    PROTECTED = "protected"
    UNPROTECTED = "unprotected"
    OPTED_OUT = "opted-out"
    """A person has left it out of all schedules."""
    NOT_OPTED_IN = "not-opted-in"
    """Only schedules with optIn would select it, and its owner has not asked for backups."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """The volumes that a schedule selects.

    Attributes:
        claims: labels of the claims.
        namespaces: labels of the namespaces; None: the schedule has a namespace of its own.
        selection: the other rules for claims.
        created: creation of the schedule.
        drills_since: since when it restores backups in drills; None: it does not.
    """

    claims: LabelSelector
    namespaces: LabelSelector | None
    selection: Selection
    created: datetime
    drills_since: datetime | None = None


class ProtectionIndex:
    """The volumes that schedules select. Add the schedules first, then the namespaces.

    Only selectors are kept: a template of a schedule may have a megabyte.
    """

    def __init__(self) -> None:
        self._of_cluster: list[_Rule] = []
        self._rules: dict[str, list[_Rule]] = defaultdict(list)

    def add_schedule(self, schedule: AnySchedule) -> None:
        """Add a schedule. One that is suspended, not Ready or being deleted protects nothing."""
        rule = _rule_of(schedule)
        if rule is None:
            return
        if rule.namespaces is not None:
            self._of_cluster.append(rule)
        elif len(self._rules[schedule.namespace]) < MAX_SCHEDULES:
            self._rules[schedule.namespace].append(rule)

    def add_namespace(self, name: str, labels: Mapping[str, str]) -> None:
        """Add a namespace, so that schedules of the cluster select its volumes."""
        found = [rule for rule in self._of_cluster if rule.namespaces is not None and rule.namespaces.matches(labels)]
        self._rules[name] += found

    def protection_of(self, claim: PersistentVolumeClaim) -> Protection | None:
        """Return whether a schedule selects a claim.

        None: it is not bound, is being deleted, or is a temporary one of an operation.
        """
        record = record_of_claim(claim)
        if not record.is_usable:
            return None
        if record.wish == "false":
            return Protection.OPTED_OUT
        rules = self._rules_of(claim)
        if any(rule.selection.selects(record, _AT_ANY_AGE) for rule in rules):
            return Protection.PROTECTED
        asked = replace(record, wish="true")
        may_opt_in = any(rule.selection.selects(asked, _AT_ANY_AGE) for rule in rules)
        # Any other word of the owner may be meant as a yes, so an alert must show that it is none.
        return Protection.NOT_OPTED_IN if may_opt_in and not record.wish else Protection.UNPROTECTED

    def selected_since(self, claim: PersistentVolumeClaim) -> datetime | None:
        """Return since when a schedule selects a claim: the creation of both; None: none selects it."""
        record = record_of_claim(claim)
        found = (rule.created for rule in self._rules_of(claim) if rule.selection.selects(record, _AT_ANY_AGE))
        return min((max(created, record.created) for created in found), default=None)

    def drills_since(self, claim: PersistentVolumeClaim) -> datetime | None:
        """Return since when a schedule has drills for a claim that it selects; None: none has."""
        record = record_of_claim(claim)
        found = (
            max(rule.drills_since, record.created)
            for rule in self._rules_of(claim)
            if rule.drills_since is not None and rule.selection.selects(record, _AT_ANY_AGE)
        )
        return min(found, default=None)

    def _rules_of(self, claim: PersistentVolumeClaim) -> list[_Rule]:
        """Return the rules whose labels a claim has."""
        return [rule for rule in self._rules.get(claim.namespace, ()) if rule.claims.matches(claim.metadata.labels)]


def _rule_of(schedule: AnySchedule) -> _Rule | None:
    """Return the volumes that a schedule selects; None if it selects none."""
    spec, conditions = schedule.spec, schedule.status.conditions
    is_ready = any(c.type == ConditionType.READY and c.status == "True" for c in conditions)
    if spec.suspend or not is_ready or schedule.metadata.is_being_deleted:
        return None
    try:
        claims = selector.parse(spec.volumes.selector, "spec.volumes.selector")
        namespaces, opt_in = None, False
        if isinstance(spec, ClusterBackupScheduleSpec):
            namespaces, opt_in = selector.parse(spec.namespace_selector, "spec.namespaceSelector"), spec.opt_in
    except InvalidInput:
        return None
    created = schedule.metadata.creation_timestamp or datetime.fromtimestamp(0, UTC)
    selection = Selection(frozenset(spec.volumes.storage_classes), opt_in=opt_in)
    return _Rule(claims, namespaces, selection, created, _drills_since(schedule))


def _drills_since(schedule: AnySchedule) -> datetime | None:
    """Return since when the drills of a schedule are due; None: it has none, or has not begun."""
    rules, shown = schedule.spec.verification, schedule.status.verification
    if rules is None or rules.restore is None or shown is None or shown.restore is None:
        return None
    return shown.restore.effective_since
