"""Read what a decision about a RestoreSource needs."""

from __future__ import annotations

from cinderblock.api import labels
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.restore_source import RestoreSource
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.reconcile.gather import choose_store
from cinderblock.kube import kinds
from cinderblock.lifecycle.actions import Decision
from cinderblock.lifecycle.populate.source import decide

MAX_RESTORES = 1000
"""VolumeRestores of claims that are read for a status. It shows a few of them."""
_FOR_CLAIMS = f"{labels.OWNER_KIND_LABEL}={kinds.PVC.kind}"


async def decide_source(context: Context, source: RestoreSource) -> Decision:
    """Return what to do about a RestoreSource."""
    store = await choose_store(context, source.namespace, source.spec.store_name)
    restores = list[VolumeRestore]()
    async for page in context.kube.pages(kinds.VOLUME_RESTORE, source.namespace, labels=_FOR_CLAIMS):
        restores += parse_all(VolumeRestore, page or [])
        if len(restores) >= MAX_RESTORES:
            break
    return decide(source, store, restores, context.clock())
