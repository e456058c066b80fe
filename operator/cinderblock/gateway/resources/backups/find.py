"""Finding VolumeBackups by what REST knows of them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.errors import NotFound
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP
from cinderblock.lifecycle.volume_lock import age_key

SELECTABLE: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
"""Ids: what else is asked for is no id of ours, and must not get into a field selector."""

_logger = logging.getLogger(__name__)


async def find(kube: KubeClient, project: str, identifier: str) -> VolumeBackup:
    """The backup with this id. Raises NotFound in Cinder's words.

    The API server selects by ``status.id``. A backup that the operator has not seen yet has none: these few are
    selected by its absence, and looked through for the UID.
    """
    if SELECTABLE.fullmatch(identifier):
        for selected in (identifier, ""):
            found = await select(kube, project, {"status.id": selected})
            named = [backup for backup in found if backup.backup_id == identifier]
            if named:
                return min(named, key=_precedence)
    raise NotFound(f"Backup {identifier} could not be found.")


async def select(kube: KubeClient, project: str, fields: Mapping[str, str]) -> list[VolumeBackup]:
    """VolumeBackups with these values of selectable fields; an empty value selects those that have none."""
    selector = ",".join(f"{path}={value}" for path, value in fields.items())
    return _parsed(await kube.list(VOLUME_BACKUP, project, fields=selector))


def _parsed(bodies: list[dict[str, Any]]) -> list[VolumeBackup]:
    """One that does not parse, because it was written in another version of the schema, must not hide the others."""
    found = []
    for body in bodies:
        try:
            found.append(VolumeBackup.model_validate(body))
        except ValidationError as error:
            problems = error.errors(include_input=False, include_url=False)
            _logger.warning("VolumeBackup %s does not parse: %s", body["metadata"].get("name"), problems)
    return found


async def select_any(kube: KubeClient, project: str, *choices: Mapping[str, str]) -> list[VolumeBackup]:
    """VolumeBackups that one of ``choices`` selects, each once."""
    found = await asyncio.gather(*(select(kube, project, fields) for fields in choices))
    return list({backup.uid: backup for backups in found for backup in backups}.values())


def _precedence(backup: VolumeBackup) -> tuple[bool, bool, tuple[object, str]]:
    """Of several that ask for one id, the one that has it: what was imported in vain is the later one."""
    return (not backup.is_complete, backup.spec.import_ is not None, age_key(backup))
