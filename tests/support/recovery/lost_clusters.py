"""The bucket of a lost cluster: backups as movers have made them, with facts about the claims."""

from __future__ import annotations

import itertools
import uuid
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from cinderblock.api.layout import manifest_key
from cinderblock.api.mover import MoverOperation
from cinderblock.api.origin import ClaimFacts
from cinderblock.archiver.archiver import run_backup
from cinderblock.store.base import ObjectStore
from tests.support.mover.backups import NOON, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource

PREFIX = "some/where"
_count = itertools.count(1)


def put(
    store: ObjectStore,
    claim: str,
    *,
    hours: int = 0,
    volume: str = "",
    namespace: str = "shop",
    is_sealed: bool = False,
    content: bytes = b"",
    prefix: str = PREFIX,
    facts: dict[str, Any] | None = None,
    **description: Any,
) -> str:
    """Store a backup of a claim. Return its id.

    Args:
        store: the bucket.
        claim: name of the claim.
        hours: age of the data; greater is newer.
        volume: UID of the claim; by default a new one.
        namespace: of the claim.
        is_sealed: whether the key 2024 encrypts it.
        content: of a file in the volume.
        prefix: of the store.
        facts: fields of `ClaimFacts`.
        description: further fields of `BackupMetadata`.
    """
    volume = volume or str(uuid.UUID(int=next(_count)))
    backup_id = str(description.pop("backup_id", None) or uuid.uuid4())
    backups = Backups(store, key_ring("2024") if is_sealed else None)
    task = backups.task(MoverOperation.BACKUP, backup_id)
    fields = {
        "backup_name": f"daily-{claim}-{hours}",
        "namespace": namespace,
        "volume_id": volume,
        "volume_name": claim,
        "volume_bytes": 1 << 30,
        "storage_class": "fast",
        "access_modes": ["ReadWriteOnce"],
        "data_timestamp": NOON + timedelta(hours=hours),
        "claim": ClaimFacts(**(facts or {})),
    }
    update = {"backup": task.backup.model_copy(update=fields | description)}
    task = task.model_copy(update=update | {"manifest": manifest_key(prefix, volume, backup_id)})
    task = task.model_copy(update={"store": task.store.model_copy(update={"prefix": prefix})})
    source = MemorySource()
    if content:
        source.add(b"file", (0, content))
    run_backup(task, store, backups.keys, opener=lambda mode, path: nullcontext(source))
    return backup_id


def damage_manifest(store: ObjectStore, backup_id: str) -> None:
    """Cut the last byte off a manifest."""
    key = next(item.key for item in store.list("") if f"{backup_id}.manifest" in item.key)
    store.put(key, store.get(key)[:-1])
