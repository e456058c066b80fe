"""Carry out the plan of a recovery: import each backup, restore it to its claim, and wait for the end.

Everything that is known is in the cluster: which backup is imported, and which claim is restored. So a run that was
stopped anywhere is continued by running the same command again. No claim that exists is ever written to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from cinderblock.api.conditions import ConditionType
from cinderblock.api.v1alpha1.backup import BackupPhase, VolumeBackup
from cinderblock.api.v1alpha1.restore import RestorePhase, VolumeRestore
from cinderblock.cli.recovery.existing import Existing, read_existing
from cinderblock.cli.recovery.patient_client import PatientClient, Sleep
from cinderblock.errors import PermanentError
from cinderblock.kube import kinds
from cinderblock.kube.client import JsonObject, KubeClient
from cinderblock.lifecycle.imports.names import candidates
from cinderblock.lifecycle.recovery.candidate import Candidate
from cinderblock.lifecycle.recovery.cluster_view import ClaimKey
from cinderblock.lifecycle.recovery.objects import backup_object, restore_object
from cinderblock.lifecycle.recovery.plan import BEING_DELETED, ClaimState, Plan, PlannedClaim
from cinderblock.reasons import Reason


class Outcome(StrEnum):
    """Result of a recovery for a claim."""

    RESTORED = "restored"
    EXISTS = "exists"
    BLOCKED = "blocked"
    FAILED = "failed"
    RESTORING = "restoring"
    """The command has been stopped, and the cluster continues."""
    PENDING = "pending"
    """The command has been stopped before its turn."""


class Result(NamedTuple):
    """The result for one claim.

    Attributes:
        outcome: what has become of it.
        message: why; for people.
        reason: stable word of a failure.
    """

    outcome: Outcome
    message: str = ""
    reason: str = ""


EXISTS: Final = Result(Outcome.EXISTS, "a claim of this name exists, and was not touched")
DELETING: Final = Result(Outcome.BLOCKED, BEING_DELETED)

OnResult = Callable[[PlannedClaim, Result], None]
OnProgress = Callable[[PlannedClaim, int], None]
"""Receives a claim, and the bytes of it that are restored."""


class _Failure(Exception):
    """A claim cannot be recovered."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.result = Result(Outcome.FAILED, message, reason)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to carry out a plan.

    Attributes:
        stores: name of the BackupStore by namespace.
        parallel: claims at the same time.
        retries_failed: whether failed objects of an earlier run are deleted and created again.
        allows_unsealed: whether imports accept backups that are not encrypted.
    """

    stores: Mapping[str, str]
    parallel: int
    retries_failed: bool = False
    allows_unsealed: bool = False


class Runner:
    """One run.

    Args:
        kube: the cluster.
        plan: the plan.
        options: how.
        on_result: receives each result.
        on_progress: receives the progress of restores.
        sleep: waits for seconds.

    Attributes:
        results: by claim, in the order of the plan.
    """

    def __init__(
        self,
        kube: KubeClient,
        plan: Plan,
        options: RunOptions,
        *,
        on_result: OnResult,
        on_progress: OnProgress,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._client = PatientClient(kube, sleep)
        self._plan = plan
        self._options = options
        self._on_result = on_result
        self._on_progress = on_progress
        self._existing: dict[str, Existing] = {}
        self.results: dict[ClaimKey, Result] = {claim.key: Result(Outcome.PENDING) for claim in plan.claims}

    async def run(self) -> None:
        """Recover all claims, in their order. Raises KubeUnavailable; what was begun continues in the cluster."""
        todo = []
        for claim in self._plan.claims:
            if claim.state is ClaimState.BLOCKED:
                self._finish(claim, Result(Outcome.BLOCKED, "; ".join(claim.problems)))
            else:
                todo.append(claim)
        for namespace in sorted({claim.key[0] for claim in todo}):
            ids = {claim.backup.stored.import_id for claim in todo if claim.key[0] == namespace and claim.backup}
            claims = {claim.key[1] for claim in todo if claim.key[0] == namespace}
            self._existing[namespace] = await read_existing(self._kube, namespace, ids, claims)
        waiting = iter(todo)
        workers = [asyncio.create_task(self._work(waiting)) for _ in range(self._options.parallel)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, waiting: Iterator[PlannedClaim]) -> None:
        for claim in waiting:
            try:
                result = await self._recover(claim)
            except _Failure as failure:
                result = failure.result
            except PermanentError as error:
                result = Result(Outcome.FAILED, error.message, str(error.reason))
            self._finish(claim, result)

    def _finish(self, claim: PlannedClaim, result: Result) -> None:
        self.results[claim.key] = result
        self._on_result(claim, result)

    async def _recover(self, claim: PlannedClaim) -> Result:
        """Recover one claim, or find out what an earlier run has done. Raises _Failure and CinderblockError."""
        backup = claim.backup
        if backup is None:
            return EXISTS
        present = await self._client.get(kinds.PVC, *claim.key)
        restore = await self._begun(claim, backup, present)
        if present is not None and (restore is None or restore.has_ended):
            if "deletionTimestamp" in present["metadata"]:
                return DELETING
            return _restored(restore, backup) if restore and _has_made(restore, present) else EXISTS
        self.results[claim.key] = Result(Outcome.RESTORING)
        if restore is not None and restore.has_ended:
            await self._delete_failed(kinds.VOLUME_RESTORE, restore, _why_not_restored(restore))
            restore = None
        if restore is None:
            await self._import(claim, backup)
            restore = await self._create_restore(claim, backup)
        return await self._follow_restore(claim, restore.name)

    async def _begun(self, claim: PlannedClaim, backup: Candidate, present: JsonObject | None) -> VolumeRestore | None:
        """Return the VolumeRestore of this plan; else another one that runs, or that has made the present claim."""
        planned = restore_object(claim, backup)["metadata"]["name"]
        body = await self._client.get(kinds.VOLUME_RESTORE, claim.key[0], planned)
        if body is not None:
            return _own(claim, VolumeRestore.model_validate(body))
        other = self._existing[claim.key[0]].restores.get(claim.key[1])
        counts = other is not None and (not other.has_ended or _has_made(other, present))
        return other if counts else None

    async def _import(self, claim: PlannedClaim, backup: Candidate) -> None:
        """Have the backup imported. Raises _Failure unless the operator has read the same content as the plan."""
        namespace = claim.key[0]
        known = self._existing[namespace].backups.get(backup.stored.import_id)
        if known is not None and known.has_ended and not known.is_complete:
            if known.spec.import_ is None:
                raise _Failure(f"VolumeBackup {known.name} has the id of the backup, and is in error")
            await self._delete_failed(kinds.VOLUME_BACKUP, known, known.status.fail_reason or "no reason is known.")
            known = None
        name = (known or await self._create_import(claim, backup)).name
        try:
            found = await self._follow_import(namespace, name)
        except _Failure as failure:
            other = await self._winner(claim, backup, name) if failure.result.reason == Reason.ID_TAKEN else None
            if other is None:
                raise
            name = other.name
            found = await self._follow_import(namespace, name)
        digest = found.status.pins.content_digest if found.status.pins else None
        if digest is not None and digest != backup.content_digest:
            raise _Failure(
                f"VolumeBackup {name} has other content than the plan: its BackupStore holds another copy, or somebody"
                " replaced the backup",
                Reason.MANIFEST_REPLACED,
            )

    async def _winner(self, claim: PlannedClaim, backup: Candidate, name: str) -> VolumeBackup | None:
        """Return the VolumeBackup that an import of the operator has created meanwhile, and that has the id."""
        import_id = backup.stored.import_id
        existing = await read_existing(self._kube, claim.key[0], (import_id,), ())
        found = existing.backups.get(import_id)
        return found if found is not None and found.name != name else None

    async def _create_import(self, claim: PlannedClaim, backup: Candidate) -> VolumeBackup:
        """Create the VolumeBackup under the first of its names that is free, or return the one that exists."""
        namespace, stored = claim.key[0], backup.stored
        names = candidates(stored.manifest, stored.backup_id, stored.object_name)
        for name in dict.fromkeys((stored.object_name, *names)):
            body = backup_object(
                claim,
                backup,
                self._options.stores.get(namespace),
                name=name,
                allows_unsealed=self._options.allows_unsealed,
            )
            found = VolumeBackup.model_validate(await self._client.get_or_create(kinds.VOLUME_BACKUP, body))
            if found.backup_id == stored.import_id:
                return found
        raise _Failure(f"all names of VolumeBackup {stored.object_name} are taken")

    async def _create_restore(self, claim: PlannedClaim, backup: Candidate) -> VolumeRestore:
        body = await self._client.get_or_create(kinds.VOLUME_RESTORE, restore_object(claim, backup))
        return _own(claim, VolumeRestore.model_validate(body))

    async def _follow_import(self, namespace: str, name: str) -> VolumeBackup:
        """Wait until a VolumeBackup is complete. Raises _Failure, KubeUnavailable."""
        async for body in self._client.polls(kinds.VOLUME_BACKUP, namespace, name):
            found = VolumeBackup.model_validate(body)
            if found.is_complete:
                return found
            if found.own_phase is BackupPhase.ERROR:
                cause = f"VolumeBackup {name} could not be imported: {found.status.fail_reason}"
                raise _Failure(cause, _reason_of(found))
        raise _Failure(f"VolumeBackup {name} was deleted")

    async def _follow_restore(self, claim: PlannedClaim, name: str) -> Result:
        """Wait until a VolumeRestore has ended. Raises _Failure, KubeUnavailable."""
        async for body in self._client.polls(kinds.VOLUME_RESTORE, claim.key[0], name):
            found = VolumeRestore.model_validate(body)
            if found.own_phase is RestorePhase.AVAILABLE:
                return Result(Outcome.RESTORED)
            if found.has_ended:
                raise _Failure(f"VolumeRestore {name}: {found.status.fail_reason}", _reason_of(found))
            if found.status.progress is not None:
                self._on_progress(claim, found.status.progress.bytes_done)
        raise _Failure(f"VolumeRestore {name} was deleted")

    async def _delete_failed(self, kind: kinds.Kind, failed: VolumeBackup | VolumeRestore, cause: str) -> None:
        """Delete what an earlier run has left. Raises _Failure unless that was asked for."""
        if not self._options.retries_failed:
            raise _Failure(f"{kind.kind} {failed.name} failed before: {cause} Repeat it with --retry-failed.")
        await self._client.delete(kind, failed.namespace, failed.name, failed.uid)


def _own(claim: PlannedClaim, restore: VolumeRestore) -> VolumeRestore:
    """Return a VolumeRestore that creates the claim. Raises _Failure for another one."""
    if restore.spec.name != claim.key[1] or restore.spec.volume_id is not None:
        raise _Failure(f"VolumeRestore {restore.name} exists, and does not create claim {claim.key[1]}")
    return restore


def _has_made(restore: VolumeRestore | None, present: JsonObject | None) -> bool:
    """Return whether a claim that exists is the one that a VolumeRestore has made."""
    if restore is None or present is None:
        return False
    return restore.own_phase is RestorePhase.AVAILABLE and present["metadata"]["uid"] == restore.status.volume_id


def _restored(restore: VolumeRestore, backup: Candidate) -> Result:
    """Return the result of an earlier restore. It names the backup if it is not that of the plan."""
    other = restore.spec.backup_id
    is_planned = other == backup.stored.import_id
    message = "" if is_planned else f"by VolumeRestore {restore.name}, from backup {other}"
    return Result(Outcome.RESTORED, message)


def _why_not_restored(restore: VolumeRestore) -> str:
    if restore.own_phase is RestorePhase.AVAILABLE:
        return "it has restored the claim, which no longer exists."
    return restore.status.fail_reason or "no reason is known."


def _reason_of(failed: VolumeBackup | VolumeRestore) -> str:
    """Return the reason of the condition Ready."""
    return next((each.reason for each in failed.status.conditions if each.type == ConditionType.READY), "")
