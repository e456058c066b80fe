"""Reconcile a claim that asks for its content, one write at a time."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any, Final

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context
from cinderblock.controller.imports.write import create
from cinderblock.controller.populate.gather import gather, with_outcome
from cinderblock.controller.populate.look import Looks
from cinderblock.controller.reconcile.execute import Target, execute
from cinderblock.controller.request import ObjectKey
from cinderblock.errors import Conflict, KubeUnavailable, NotLeading, PermanentError
from cinderblock.kube import kinds
from cinderblock.lifecycle.actions import CreateChild, RecordEvent
from cinderblock.lifecycle.imports.names import candidates
from cinderblock.lifecycle.imports.selection import Creation
from cinderblock.lifecycle.populate.choice import Chosen, wanted_by
from cinderblock.lifecycle.populate.decide import WAIT_SECONDS, ClaimDecision, ImportChosen, decide
from cinderblock.lifecycle.populate.observed import ObservedClaim

log = logging.getLogger(__name__)

MAX_REPORTED: Final = 10_000
"""Claims whose last Event is remembered."""


class ClaimReconciler:
    """Fills claims. Its memory only saves work, and repeated Events. For one event loop."""

    def __init__(self) -> None:
        self._looks = Looks()
        self._reported: OrderedDict[ObjectKey, tuple[str, RecordEvent]] = OrderedDict()
        """UID and last Event of claims. A claim has no status that would show the Events."""

    def forget(self, key: ObjectKey) -> None:
        """Forget a claim that no longer exists."""
        uid, _ = self._reported.pop(key, ("", None))
        self._looks.forget(uid)

    async def reconcile(self, context: Context, body: dict[str, Any]) -> float | None:
        """Move a claim one step forward. Return the seconds until the next step; None: not before something changes."""
        claim = PersistentVolumeClaim.model_validate(body)
        observed = await gather(context, claim)
        decision = decide(observed)
        if decision.must_look:
            observed = await self._look(context, observed)
            decision = decide(observed)
        try:
            await _act(context, observed, body, decision)
        except (Conflict, KubeUnavailable, NotLeading):
            raise
        except PermanentError as error:
            # For example a quota for VolumeRestores.
            decision = ClaimDecision(RecordEvent("Warning", error.reason, error.message), requeue_after=WAIT_SECONDS)
        await self._report(context, claim, body, decision.report)
        return decision.requeue_after

    async def _look(self, context: Context, observed: ObservedClaim) -> ObservedClaim:
        source, store, claim = observed.source, observed.store.store, observed.claim
        if source is None or store is None:
            raise ValueError("only a claim with a RestoreSource and a store needs a look")
        outcome = await self._looks.step(context, claim.uid, store, source, wanted_by(claim, source))
        return await with_outcome(context, observed, store, outcome)

    async def _report(
        self, context: Context, claim: PersistentVolumeClaim, body: dict[str, Any], report: RecordEvent | None
    ) -> None:
        """Record the Event of a claim, unless it is the one that was recorded last."""
        key = ObjectKey(kinds.PVC.kind, claim.namespace, claim.name)
        if report is None or self._reported.get(key) == (claim.uid, report):
            return
        await execute(context, Target(kinds.PVC, claim, body), (report,))
        self._reported[key] = claim.uid, report
        self._reported.move_to_end(key)
        while len(self._reported) > MAX_REPORTED:
            self._reported.popitem(last=False)
        source = claim.spec.data_source_ref
        if source is not None and source.kind == kinds.RESTORE_SOURCE.kind:
            await context.enqueue(ObjectKey(kinds.RESTORE_SOURCE.kind, claim.namespace, source.name))


async def _act(context: Context, observed: ObservedClaim, body: dict[str, Any], decision: ClaimDecision) -> None:
    """Perform the write of a decision. Repeating it changes nothing."""
    match decision.action:
        case CreateChild() as action:
            await execute(context, Target(kinds.PVC, observed.claim, body), (action,))
        case ImportChosen(chosen) if observed.store.store is not None:
            await _import(context, observed.store.store, chosen)


async def _import(context: Context, store: BackupStore, chosen: Chosen) -> None:
    """Create a VolumeBackup for the chosen backup, as an import of the store would. Raises PermanentError."""
    stored = chosen.manifest.stored
    name = next(candidates(stored.key, stored.backup_id, chosen.manifest.name))
    refused = await create(context, store, Creation(name, chosen.manifest))
    if refused is not None:
        raise PermanentError(refused.message, reason=refused.reason)
