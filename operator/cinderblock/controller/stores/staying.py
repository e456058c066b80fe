"""The complete VolumeBackups that stay when others of their volume are removed: the store must list their manifests.

A store may answer an old list. Its bucket may be the copy of a lost one, and not yet be copied completely. Or a person
has changed the endpoint before the copy. Packs that look as if nobody listed them may then be those of a good backup.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from cinderblock.errors import CinderblockError, ReferencesUnknown
from cinderblock.lifecycle.dependents import unknown
from cinderblock.repository.inherited import changed

ListStaying = Callable[[], Awaitable[Mapping[str, str]]]
"""Lists the complete VolumeBackups of one place that nobody deletes: their names, by the ids in the store."""

_NAMED = 10


async def explain(error: ReferencesUnknown, volume_id: str, list_staying: ListStaying) -> CinderblockError:
    """Return the error that a deletion reports if references are unknown.

    The error about missing manifests names the VolumeBackups, and is transient if these are being deleted by now.
    Raises what the API server raises.
    """
    if not error.missing:
        return unknown(error.message)
    staying = await list_staying()
    names = sorted(staying[backup_id] for backup_id in error.missing if backup_id in staying)
    if not names:
        return changed(volume_id)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return unknown(
        f"the store lists no manifest of VolumeBackup {', '.join(names[:_NAMED])}{more}. Put the manifest back, for"
        " example by completing the copy of the bucket, or delete that VolumeBackup"
    )
