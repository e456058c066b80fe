"""Which claims of users a start or a resync must reconcile. All claims are read page by page, and none is kept."""

from __future__ import annotations

from collections import defaultdict

from cinderblock.api.kubernetes import PersistentVolumeClaim
from cinderblock.controller.context import Context, parse_all
from cinderblock.controller.request import ObjectKey
from cinderblock.kube import kinds
from cinderblock.lifecycle.populate.decide import YOUNG


async def list_claims(context: Context) -> list[tuple[ObjectKey, bool]]:
    """Return the claims that wait for a backup, and those that were bound lately: perhaps to another volume.

    A namespace has no more of them here than the limit of objects. Raises what the API server raises.
    """
    found: defaultdict[str, dict[ObjectKey, bool]] = defaultdict(dict)
    async for page in context.kube.pages(kinds.PVC):
        asking = [body for body in page or () if (body.get("spec") or {}).get("dataSourceRef")]
        for claim in parse_all(PersistentVolumeClaim, asking):
            kept = found[claim.namespace]
            if len(kept) < context.policy.object_limit and _may_need_work(context, claim):
                kept[ObjectKey(kinds.PVC.kind, claim.namespace, claim.name)] = not claim.spec.volume_name
    return [item for kept in found.values() for item in kept.items()]


def _may_need_work(context: Context, claim: PersistentVolumeClaim) -> bool:
    if not claim.asks_for_backup or claim.metadata.is_being_deleted:
        return False
    created = claim.metadata.creation_timestamp
    return not claim.spec.volume_name or created is None or context.clock() - created < YOUNG
