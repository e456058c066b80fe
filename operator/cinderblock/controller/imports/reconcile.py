"""Import what a store holds, a few seconds of work at a time, so that one store holds no worker for minutes.

The first step lists the store and the VolumeBackups. Further steps read the new manifests, and create VolumeBackups.
The last one writes the inventory, which says when the next import is due. Everything before it may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.imports.read import BATCH_MANIFESTS, ManifestMemory, ManifestReader
from cinderblock.controller.imports.run import ImportRun, known_backups, records_of
from cinderblock.controller.imports.same_place import list_same_place
from cinderblock.controller.imports.write import create, write_presence
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import CinderblockError, Conflict, KubeUnavailable, NotLeading, StoreBusy
from cinderblock.kube import kinds
from cinderblock.lifecycle.conditions import UntimedCondition
from cinderblock.lifecycle.imports import releases
from cinderblock.lifecycle.imports.conclude import (
    ImportOutcome,
    Result,
    after_switching_off,
    condition_of,
    failed,
    inventory_of,
    most_objects,
    too_many_objects,
)
from cinderblock.lifecycle.imports.difference import Difference
from cinderblock.lifecycle.imports.presence import PresenceWrite
from cinderblock.lifecycle.imports.records import UnreadManifest
from cinderblock.lifecycle.imports.selection import Creation
from cinderblock.lifecycle.imports.settings import Settings, settings_of
from cinderblock.lifecycle.observed import ObservedStore
from cinderblock.lifecycle.store import place
from cinderblock.reasons import Reason

log = logging.getLogger(__name__)

STEP_SECONDS: Final = 3.0
"""Seconds after which a step leaves the rest to the next one. Meanwhile other objects get the worker."""
CONCURRENT_CREATIONS: Final = 8
"""VolumeBackups that an import creates at once: waiting for each answer would take most of its time."""
MAX_RUNS: Final = 2
"""Imports that are in memory at the same time, each with up to 30 MiB of records. The others wait for their turn."""
WAIT_SECONDS: Final = 5.0
"""Seconds until an import that waits for its turn, or for calls of others to its store, tries again."""
RETRY_SECONDS: Final = 60.0
"""Seconds until an import that failed begins again."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Inputs of one step of an import.

    Attributes:
        context: the dependencies of the operator.
        key: of the BackupStore.
        store: the BackupStore, with the settings of its ClusterBackupStore.
        settings: of the import.
        reader: reads manifests.
        released: the marks of released backups.
    """

    context: Context
    key: ObjectKey
    store: BackupStore
    settings: Settings
    reader: ManifestReader
    released: Sequence[str]


@dataclass(slots=True)
class ImportReconciler:
    """Imports the backups of stores. Its memory only saves work. For one event loop."""

    _runs: dict[ObjectKey, ImportRun] = field(default_factory=dict)
    _memory: ManifestMemory = field(default_factory=ManifestMemory)
    _starting: set[ObjectKey] = field(default_factory=set)
    """Stores whose first step runs: it is in memory as well."""

    def forget(self, key: ObjectKey) -> None:
        """Forget a BackupStore that no longer exists."""
        self._runs.pop(key, None)
        self._memory.forget(key)

    async def step(self, context: Context, observed: ObservedStore) -> ImportOutcome:
        """Move the import of a store one step forward.

        Raises what the API server raises if it does not answer. The status shows all other errors.
        """
        store = observed.store
        key = ObjectKey(kinds.BACKUP_STORE.kind, store.namespace, store.name)
        outcome = ImportOutcome(store.status.inventory, store.status.released or ())
        if not place.is_known(store):
            return outcome
        settings = settings_of(store)
        if not settings.is_on:
            return await self._switch_off(context, key, store)
        outcome = replace(outcome, released=await _marks(context, key, outcome.released))
        due = settings.due(outcome.inventory, context.clock())
        if due is None or store.metadata.is_being_deleted:
            self.forget(key)
            return outcome
        delay = (due - context.clock()).total_seconds()
        if delay > 0:
            return replace(outcome, requeue_after=max(WAIT_SECONDS, delay))
        return await self._attempt(context, key, observed, settings, outcome)

    async def _attempt(
        self, context: Context, key: ObjectKey, observed: ObservedStore, settings: Settings, outcome: ImportOutcome
    ) -> ImportOutcome:
        error = observed.lookup.error
        if error is None:
            try:
                return await self._advance(context, key, observed.store, settings, outcome)
            except StoreBusy:
                return replace(outcome, requeue_after=WAIT_SECONDS)
            except (Conflict, KubeUnavailable, NotLeading):
                raise
            except CinderblockError as raised:
                log.warning("Could not import backups: %s", raised.message, extra={"reason": raised.reason})
                error = raised
        self._runs.pop(key, None)
        return replace(outcome, condition=failed(error.reason, error.message), requeue_after=RETRY_SECONDS)

    async def _switch_off(self, context: Context, key: ObjectKey, store: BackupStore) -> ImportOutcome:
        """Take back what imports say about VolumeBackups, and release deletions that wait for a mark."""
        self.forget(key)
        for waiter in context.pending_releases.take(key):
            await context.enqueue(waiter)
        released = store.status.released or ()
        # That is how a person accepts that released backups come back.
        kept = () if releases.is_full(released) else released
        before = store.status.inventory
        inventory = after_switching_off(before)
        if before is not None and before != inventory and not await _forget_missing(context, store):
            return ImportOutcome(before, kept, is_off=True, requeue_after=0.0)
        return ImportOutcome(inventory, kept, is_off=True)

    async def _advance(
        self, context: Context, key: ObjectKey, store: BackupStore, settings: Settings, outcome: ImportOutcome
    ) -> ImportOutcome:
        """Do a few seconds of work. Raises what the store and the API server raise."""
        ends = asyncio.get_running_loop().time() + STEP_SECONDS
        identity = f"{store.uid} {store.spec.model_dump_json()}"
        run = self._runs.get(key)
        if run is not None and not run.is_valid(identity, context.clock()):
            del self._runs[key]
            run = None
        if run is None and len(self._runs.keys() | self._starting) >= MAX_RUNS:
            return replace(outcome, requeue_after=WAIT_SECONDS)
        opened = await context.stores.open(store, store.spec.container, context.secrets)
        reader = ManifestReader(opened, store, await context.stores.keys(store, context.secrets))
        step = _Step(context, key, store, settings, reader, outcome.released)
        if run is None:
            self._starting.add(key)
            try:
                run = await self._begin(step, identity)
            finally:
                self._starting.discard(key)
        refusal = await self._work(step, run, ends)
        if refusal is None and not run.is_complete:
            return replace(outcome, condition=_progress(run), requeue_after=0.0)
        del self._runs[key]
        return _conclude(run, store, settings, outcome, refusal)

    async def _begin(self, step: _Step, identity: str) -> ImportRun:
        """List the VolumeBackups, the store, and the VolumeBackups again.

        A VolumeBackup that was deleted meanwhile is among the first ones, and its manifest counts as known: its data
        may be about to go. One that was created meanwhile is among the second ones.
        """
        context, store = step.context, step.store
        # Times in a status have whole seconds, and are compared with this one.
        began = context.clock().replace(microsecond=0)
        before = await known_backups(context, store)
        difference = Difference(before.values(), step.released)
        await step.reader.list_into(context, difference)
        after = await known_backups(context, store)
        difference.leave_out(backup for uid, backup in after.items() if uid not in before)
        # A VolumeBackup that is not among the first ones has left its mark before.
        others = await list_same_place(context, store, store.spec.container, must_be_all=True)
        difference.leave_out_released(mark for other in others for mark in other.status.released or ())
        full = next((other.name for other in others if releases.is_full(other.status.released or ())), "")
        known = [backup for uid, backup in after.items() if uid in before]
        names = [backup.name for backup in after.values()]
        run = ImportRun(began, identity, difference, known, names, full)
        run.compare(store, step.settings)
        self._memory.trim(step.key, difference.new)
        self._runs[step.key] = run
        return run

    async def _work(self, step: _Step, run: ImportRun, ends: float) -> UntimedCondition | None:
        """Continue a run until the time is up. Return why it can create nothing more; None: it can, or is complete."""
        loop, limit = asyncio.get_running_loop(), most_objects(step.context.policy.object_limit)
        while not run.is_complete:
            if run.unread:
                await self._read(step, run)
            elif run.creations is None:
                run.plan(step.store, step.settings, is_full=bool(run.full_store) or releases.is_full(step.released))
            elif run.creations:
                room = limit - len(run.names) - run.created
                if room <= 0:
                    return too_many_objects(limit)
                await _create_next(step, run, run.creations, min(room, CONCURRENT_CREATIONS))
            else:
                await write_presence(step.context, step.store, run.presence[0])
                run.presence.popleft()
            if loop.time() >= ends:
                break
        return None

    async def _read(self, step: _Step, run: ImportRun) -> None:
        """Read some manifests, except those that were read before and have not changed."""
        now, key_ids = asyncio.get_running_loop().time(), step.reader.key_ids
        batch = list(islice(run.unread, BATCH_MANIFESTS))
        remembered = [self._memory.find(step.key, stored, key_ids, now) for stored in batch]
        new = [stored for stored, found in zip(batch, remembered, strict=True) if found is None]
        read = await step.reader.read(step.context, new) if new else []
        for found in read:
            self._memory.keep(step.key, found, key_ids, now)
        for _ in batch:
            run.unread.popleft()
        for found in (*(found for found in remembered if found is not None), *read):
            run.add(found)


def _conclude(
    run: ImportRun, store: BackupStore, settings: Settings, outcome: ImportOutcome, refusal: UntimedCondition | None
) -> ImportOutcome:
    result = Result(
        run.began,
        run.difference,
        read_bytes=sum(manifest.stored_bytes for manifest in run.read),
        imported=run.imported,
        missing=run.missing,
        unread=run.refused,
        before=run.before,
        full_store=store.name if releases.is_full(outcome.released) else run.full_store,
        refusal=refusal,
    )
    condition = condition_of(result, settings)
    inventory = inventory_of(result, settings, condition)
    return replace(
        outcome,
        inventory=inventory,
        condition=condition,
        released=releases.trimmed(outcome.released, run.difference.released_gone if run.may_remove else ()),
        requeue_after=settings.interval.total_seconds(),
    )


async def _marks(context: Context, key: ObjectKey, released: Sequence[str]) -> Sequence[str]:
    """Return the marks of released backups with those that were asked for, and wake up who waits for existing ones."""
    pending = context.pending_releases
    done = None if releases.is_full(released) else set(released)
    for waiter in pending.take(key, done):
        await context.enqueue(waiter)
    return releases.with_marks(released, pending.of(key))


async def _forget_missing(context: Context, store: BackupStore) -> bool:
    """Remove status.manifestMissing from VolumeBackups for a few seconds. Return whether none is left with it."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + STEP_SECONDS
    async for backup in records_of(context, store):
        if backup.missing is not None and not backup.is_being_deleted:
            await write_presence(context, store, PresenceWrite(backup, None))
            if loop.time() >= ends:
                return False
    return True


async def _create_next(step: _Step, run: ImportRun, creations: deque[Creation], count: int) -> None:
    """Create the next VolumeBackups, except those that a person has deleted meanwhile.

    All answers are awaited before an error is raised: a write whose answer nobody reads may come late.
    """
    batch = [creations.popleft() for _ in range(min(count, len(creations)))]
    released = {*step.released, *step.context.pending_releases.of(step.key)}
    wanted = [creation for creation in batch if creation.manifest.stored.import_id not in released]
    answers = await asyncio.gather(
        *(create(step.context, step.store, creation) for creation in wanted), return_exceptions=True
    )
    failed = [creation for creation, answer in zip(wanted, answers, strict=True) if isinstance(answer, BaseException)]
    creations.extendleft(reversed(failed))
    for answer in answers:
        if isinstance(answer, UnreadManifest):
            run.refused.append(answer)
    run.created += sum(answer is None for answer in answers)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer


def _progress(run: ImportRun) -> UntimedCondition:
    """Return the condition of an import that continues."""
    if run.unread or run.creations is None:
        done = len(run.read) + len(run.refused)
        message = f"Manifests are being read: {done} of {done + len(run.unread)}"
    else:
        message = f"VolumeBackups are being created: {run.created} of {run.planned}"
    return UntimedCondition("False", Reason.IMPORTING, message)
