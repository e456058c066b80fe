"""Lookup of VolumeBackups by Cinder's ids."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Final

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.errors import NotFound
from cinderblock.gateway.resources.parse import parse_all
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP
from cinderblock.lifecycle.backup.checks import id_precedence

SELECTABLE: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
"""Valid ids. Other text must not get into a field selector."""


async def find(kube: KubeClient, project: str, identifier: str) -> VolumeBackup:
    """Return the backup with this id. Raises NotFound with Cinder's message.

    The API server selects by ``status.id``. Backups that the operator has not processed yet have none. They are few,
    are selected by its absence, and match by UID.
    """
    if SELECTABLE.fullmatch(identifier):
        for selected in (identifier, ""):
            found = await select(kube, project, {"status.id": selected})
            matches = [backup for backup in found if backup.backup_id == identifier]
            if matches:
                return min(matches, key=id_precedence)
    raise NotFound(f"Backup {identifier} could not be found.")


async def select(kube: KubeClient, project: str, fields: Mapping[str, str]) -> list[VolumeBackup]:
    """Return VolumeBackups by selectable fields. An empty value selects objects without the field."""
    return parse_all(VolumeBackup, await kube.list(VOLUME_BACKUP, project, fields=_selector(fields)))


async def select_any(kube: KubeClient, project: str, *choices: Mapping[str, str]) -> list[VolumeBackup]:
    """Return the VolumeBackups that any of ``choices`` selects, each once."""
    found = await asyncio.gather(*(select(kube, project, fields) for fields in choices))
    return list({backup.uid: backup for backups in found for backup in backups}.values())


async def select_pages(
    kube: KubeClient, project: str, *choices: Mapping[str, str]
) -> AsyncIterator[list[VolumeBackup]]:
    """Yield the VolumeBackups of ``select_any`` in parts, so that they need not all be in memory."""
    seen: set[str] = set()
    for fields in choices:
        async for page in kube.pages(VOLUME_BACKUP, project, fields=_selector(fields)):
            if page is None:
                continue  # The list begins again, and those that it has already brought are left out.
            backups = [backup for backup in parse_all(VolumeBackup, page) if backup.uid not in seen]
            seen |= {backup.uid for backup in backups}
            yield backups


def _selector(fields: Mapping[str, str]) -> str:
    return ",".join(f"{path}={value}" for path, value in fields.items())
