"""Decide about one BackupGrant."""

from __future__ import annotations

from cinderblock.api.meta import Object
from cinderblock.api.v1alpha1.backup_grant import BackupGrant
from cinderblock.controller.context import Context
from cinderblock.kube import kinds
from cinderblock.lifecycle.actions import Decision
from cinderblock.lifecycle.backup_grants.decide import decide


async def decide_grant(context: Context, grant: BackupGrant) -> Decision:
    """Return what to do about a BackupGrant. It names at most MAX_GRANTED namespaces, which are read one by one."""
    existing: dict[str, Object] = {}
    for name in grant.spec.to.namespaces:
        found = await context.get(Object, kinds.NAMESPACE, name)
        if found is not None:
            existing[name] = found
    return decide(grant, existing, context.clock())
