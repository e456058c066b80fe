"""BackupStores of one namespace that lead to the same place: what is released in one must not come back by another."""

from __future__ import annotations

from typing import Final

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.controller.context import Context, parse_all
from cinderblock.errors import PermanentError
from cinderblock.kube import kinds
from cinderblock.lifecycle.store import place
from cinderblock.reasons import Reason

MAX_STORES: Final = 50
"""BackupStores of one namespace with the same bucket and prefix that are read, each by its name: lists leave out the
marks. With more, nothing is imported."""


async def list_same_place(
    context: Context, store: BackupStore, container: str, *, must_be_all: bool = False
) -> tuple[BackupStore, ...]:
    """Return the other BackupStores of a namespace that lead to this bucket and to the prefix of a store.

    Raises PermanentError if all of them are needed, and there are more than MAX_STORES.
    """
    names = set[str]()
    async for page in context.kube.pages(kinds.BACKUP_STORE, store.namespace):
        listed = parse_all(BackupStore, page or [])
        names |= {each.name for each in listed if each.name != store.name and _may_lead(each, store, container)}
    if must_be_all and len(names) > MAX_STORES:
        raise PermanentError(
            f"More than {MAX_STORES} BackupStores of the namespace have the same place in bucket {container}. Nothing"
            " is imported until you delete some",
            reason=Reason.TOO_MANY_OBJECTS,
        )
    same = []
    for name in sorted(names)[:MAX_STORES]:
        other = await context.get(BackupStore, kinds.BACKUP_STORE, name, store.namespace)
        resolved = (await context.resolve(other)).store if other is not None else None
        if resolved is not None and place.holds_container(resolved, store, container):
            same.append(resolved)
    return tuple(same)


def _may_lead(listed: BackupStore, store: BackupStore, container: str) -> bool:
    """Return whether a store of a list may lead to the place. The prefix of a shared one is known when it is read."""
    if listed.is_shared:
        # One that no reconciliation has seen yet has imported nothing, and has no marks.
        return listed.status.container == container
    return (listed.spec.container, listed.spec.prefix) == (container, store.spec.prefix)
