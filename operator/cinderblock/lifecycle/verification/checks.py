"""The checks before a verification, each a function of the observed state, in the order in which they apply."""

from __future__ import annotations

from collections.abc import Callable

from cinderblock.lifecycle import verdicts
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.observed import ObservedVerification
from cinderblock.lifecycle.store import movers
from cinderblock.lifecycle.verdicts import Fail, Verdict
from cinderblock.lifecycle.verification import check_job
from cinderblock.lifecycle.verification.observed_drill import ObservedDrill
from cinderblock.reasons import Reason

Check = Callable[[ObservedVerification], Verdict]


def first_verdict(observed: ObservedVerification) -> Verdict:
    """Return the verdict of the first check that does not pass."""
    return next((verdict for check in BEFORE_START if (verdict := check(observed)) is not None), None)


def namespace_is_not_too_full(observed: ObservedVerification) -> Verdict:
    """The namespace has no more BackupVerifications than the operator works on."""
    return verdicts.too_many_objects(observed.object_count, observed.policy.object_limit, "BackupVerification")


def backup_exists(observed: ObservedVerification) -> Verdict:
    """The backup of spec.backupId exists, or the volume of spec.volumeId has an available backup."""
    if observed.backup is not None:
        return None
    spec, status = observed.verification.spec, observed.verification.status
    if observed.verification.own_phase is not None and status.backup_id is not None:
        message = f"Backup {status.backup_name or status.backup_id} was deleted before it was verified."
        return Fail(Reason.BACKUP_NOT_FOUND, message)
    if spec.backup_id is not None:
        return Fail(Reason.BACKUP_NOT_FOUND, f"Backup {spec.backup_id} could not be found.")
    message = f"Volume {spec.volume_id} has no available backup. Make one, or name a volume that has one."
    return Fail(Reason.BACKUP_NOT_FOUND, message)


def backup_is_available(observed: ObservedVerification) -> Verdict:
    """The backup is complete, and is not being deleted."""
    backup = observed.backup
    if backup is None or (backup.is_complete and not backup.metadata.is_being_deleted):
        return None
    phase = "deleting" if backup.metadata.is_being_deleted else backup.own_phase or "new"
    message = f"Cannot verify backup {backup.name}: its status is {phase}. Verify it when it is available."
    return Fail(Reason.BACKUP_NOT_AVAILABLE, message)


def store_is_usable(observed: ObservedVerification) -> Verdict:
    """The store exists, has its Secrets, and answers."""
    return backup_checks.store_error(observed.store, observed.policy.deadlines)


def mover_is_permitted(observed: ObservedVerification) -> Verdict:
    """The operator allows what spec.mover of the store asks for, and its movers can reach the store."""
    return movers.verdict(observed.store, observed.policy)


def check_may_run(observed: ObservedVerification) -> Verdict:
    """The CronJob of the check exists and may be used, and the operator may run checks in the namespace."""
    drill = observed.drill or ObservedDrill()
    return check_job.refusal(observed.verification, drill.cron_job, drill.cron_job_error, observed.policy.account)


BEFORE_START: tuple[Check, ...] = (
    namespace_is_not_too_full,
    backup_exists,
    backup_is_available,
    store_is_usable,
    mover_is_permitted,
    check_may_run,
)
"""Checks that must pass until the mover is created."""
