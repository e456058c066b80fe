"""Make a cluster ready for a recovery: each namespace exists, and has its BackupStore."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cinderblock.api.mover import StoreLocation
from cinderblock.cli.output import warn
from cinderblock.cli.recovery.cluster import NAMED, StoreCheck, check_stores
from cinderblock.cli.recovery.patient_client import Sleep
from cinderblock.errors import AlreadyExists, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient

STORE_SECONDS: Final = 60
"""Time for BackupStores to become ready: the operator checks new ones within seconds."""


async def prepare(
    kube: KubeClient,
    namespaces: Sequence[str],
    store_name: str | None,
    location: StoreLocation,
    *,
    creates_namespaces: bool,
    sleep: Sleep = asyncio.sleep,
) -> dict[str, str]:
    """Return the name of the BackupStore of each namespace.

    Nothing is created before all namespaces that exist are right.

    Args:
        kube: the cluster.
        namespaces: namespaces of the plan.
        store_name: name of the BackupStore; None: the default one of each namespace.
        location: the bucket of the plan.
        creates_namespaces: whether missing namespaces are created.
        sleep: waits for seconds.

    Raises:
        NotFound: a namespace does not exist.
        InvalidInput: a BackupStore does not exist, is not ready in time, or is of another bucket or prefix.
    """
    missing = [name for name in namespaces if await kube.get(kinds.NAMESPACE, name) is None]
    if missing and not creates_namespaces:
        listed = ", ".join(missing[:NAMED])
        raise NotFound(
            f"Cannot recover, and nothing was restored: {len(missing)} namespaces do not exist: {listed}. Create them"
            " from your repository, or give --create-namespaces."
        )
    existing = [name for name in namespaces if name not in missing]
    checked = await _ready_stores(kube, existing, store_name, location, sleep)
    for name in missing:
        try:
            await kube.create(kinds.NAMESPACE, {"metadata": {"name": name}})
        except AlreadyExists:
            continue
    return checked | (await _ready_stores(kube, missing, store_name, location, sleep) if missing else {})


async def _ready_stores(
    kube: KubeClient, namespaces: Sequence[str], store_name: str | None, location: StoreLocation, sleep: Sleep
) -> dict[str, str]:
    """Wait until all BackupStores are ready. Raises InvalidInput."""
    found = StoreCheck({}, {}, may_come=True)
    for second in range(STORE_SECONDS):
        if second:
            await sleep(1)
        found = await check_stores(kube, namespaces, store_name, location)
        if not (found.problems and found.may_come):
            break
        if second == 0:
            warn(f"waiting up to {STORE_SECONDS} s for the BackupStores of {', '.join(sorted(found.problems)[:NAMED])}")
    found.raise_problems()
    if found.endpoints:
        listed = ", ".join(sorted(found.endpoints)[:NAMED])
        warn(
            f"the BackupStores use endpoint {listed}, and the plan was read from {location.endpoint_url or 'AWS'}. Both"
            " must lead to the same server, or to a copy: the content of each backup is compared after its import"
        )
    return found.names
