"""The mover of a verification in a simulated cluster: it reads the objects of simulated movers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Set

from cinderblock.api import layout
from cinderblock.api.mover import MoverTask, VerifyReport
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.errors import NotFound, ObjectNotFound
from cinderblock.format.pack import pack_name
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectStore

PACK = b"pack"
"""Content of every pack of the simulated movers."""
WHOLE_PACK = pack_name("0" * 32, 0)
"""Name of the pack of every complete backup."""
MAX_NAMED, MAX_AFFECTED = 8, 20


def verify(store: ObjectStore, task: MoverTask, needs: Mapping[str, Set[str]]) -> VerifyReport:
    """Return what a real mover would report.

    Args:
        store: the store.
        task: the task.
        needs: the ids of the backups whose packs each backup needs.
    """
    assert task.verify is not None
    volume, chosen = task.backup.volume_id, task.backup.backup_id
    manifests = [found.key for found in store.list(f"{layout.backup_prefix(task.store.prefix)}{volume}/")]
    listed = [key.rsplit("/", 1)[1].removesuffix(".manifest") for key in manifests]
    if chosen not in listed:
        raise NotFound("The store has no manifest of the backup", reason=Reason.MANIFEST_MISSING)
    is_data = task.verify.level is VerificationLevel.DATA
    backups = listed if is_data else [chosen]
    owners = sorted({owner for backup in backups if backup in listed for owner in needs[backup]})
    keys = {f"packs/{volume}/{owner}/{WHOLE_PACK}": owner for owner in owners}
    damaged: dict[str, str] = {}
    read = 0
    for key, owner in keys.items():
        is_read = is_data and part_of(key, task.verify.parts) == task.verify.part
        content = _content(store, f"{task.store.prefix}/{key}" if task.store.prefix else key)
        read += len(content or b"") if is_read else 0
        if content is None or len(content) != len(PACK) or (is_read and content != PACK):
            damaged[key] = owner
    affected = [b for b in [chosen, *reversed(listed)] if needs.get(b, {b}) & set(damaged.values())]
    names = list(dict.fromkeys(affected))
    return VerifyReport(
        packs=len(keys),
        packs_verified=len([key for key in keys if not is_data or part_of(key, task.verify.parts) == task.verify.part]),
        bytes_read=read,
        damaged_count=len(damaged),
        damaged=sorted(damaged)[:MAX_NAMED],
        affected_count=len(names),
        affected=names[:MAX_AFFECTED],
    )


def part_of(key: str, parts: int) -> int:
    """Return the part of a pack."""
    return zlib.crc32(key.encode()) % parts + 1


def _content(store: ObjectStore, key: str) -> bytes | None:
    try:
        return bytes(store.get(key))
    except ObjectNotFound:
        return None
