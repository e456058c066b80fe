"""Which of the manifests that were read get a VolumeBackup, under which names, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import DeletionPolicy
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.imports.difference import Difference
from cinderblock.lifecycle.imports.names import ImportNames, candidates
from cinderblock.lifecycle.imports.records import ReadManifest, UnreadManifest
from cinderblock.lifecycle.imports.settings import Settings
from cinderblock.reasons import Reason


@dataclass(frozen=True, slots=True)
class Creation:
    """A VolumeBackup to create.

    Attributes:
        name: of the VolumeBackup.
        manifest: what it imports.
    """

    name: str
    manifest: ReadManifest

    def further_names(self) -> Sequence[str]:
        """Return the names to try if somebody else has taken the name meanwhile."""
        stored = self.manifest.stored
        names = list(candidates(stored.key, stored.backup_id, self.manifest.name))
        return names[names.index(self.name) + 1 :]

    def body(self, store: BackupStore, name: str) -> dict[str, Any]:
        """Return the object. It has our finalizer from birth, so that no deletion goes unnoticed."""
        stored = self.manifest.stored
        return {
            "apiVersion": f"{labels.GROUP}/{labels.VERSION}",
            "kind": "VolumeBackup",
            "metadata": {
                "name": name,
                "namespace": store.namespace,
                "annotations": {labels.IMPORTED_ANNOTATION: store.name},
                "finalizers": [labels.BACKUP_FINALIZER],
            },
            "spec": {
                "storeName": store.name,
                "import": {"id": stored.import_id, "manifest": stored.key},
                "deletionPolicy": DeletionPolicy.RETAIN.value,
            },
        }


def select(
    manifests: Iterable[ReadManifest], settings: Settings, difference: Difference, now: datetime
) -> list[ReadManifest]:
    """Return the manifests that the settings select, in the given order.

    With ``latest_only``, a volume is left out while the newest of its data is not known: another time will do.
    """
    selected = [manifest for manifest in manifests if settings.selects(manifest, now)]
    if not settings.latest_only:
        return selected
    newest: dict[str, tuple[datetime, str]] = {}
    for manifest in selected:
        volume = manifest.stored.volume_id
        newest[volume] = max(newest.get(volume, _age(manifest)), _age(manifest))
    never = datetime.min.replace(tzinfo=now.tzinfo)
    return [
        manifest
        for manifest in selected
        if _age(manifest) == newest[manifest.stored.volume_id]
        and manifest.stored.volume_id not in difference.unfinished
        and manifest.data_time > difference.newest.get(manifest.stored.volume_id, never)
    ]


def plan(
    selected: Sequence[ReadManifest], namespace: str, taken: Iterable[str]
) -> tuple[list[Creation], list[UnreadManifest]]:
    """Return the VolumeBackups to create, in order, and the manifests that get none.

    Names are given in order of key, as the command line does, so they do not depend on the order of creation. The
    newest backup of each volume is created first.

    Args:
        selected: the manifests, in any order.
        namespace: of the VolumeBackups.
        taken: names of the VolumeBackups of the namespace.
    """
    names, ids = ImportNames((namespace, name) for name in taken), dict[str, str]()
    creations, refused = list[Creation](), list[UnreadManifest]()
    for manifest in sorted(selected, key=lambda item: item.stored.key):
        stored = manifest.stored
        first = ids.setdefault(stored.import_id, stored.key)
        if first != stored.key:
            message = f"Manifest {first} has the same id. Find out who wrote the second one."
            refused.append(UnreadManifest(stored, Reason.ID_TAKEN, message))
            continue
        try:
            name = names.name(namespace, stored.key, stored.backup_id, manifest.name)
        except InvalidInput as error:
            refused.append(UnreadManifest(stored, Reason.NAME_TAKEN, error.message))
            continue
        creations.append(Creation(name, manifest))
    return _newest_of_each_first(creations), refused


def _newest_of_each_first(creations: Iterable[Creation]) -> list[Creation]:
    newest_first = sorted(creations, key=lambda creation: _age(creation.manifest), reverse=True)
    first, rest, seen = list[Creation](), list[Creation](), set[str]()
    for creation in newest_first:
        volume = creation.manifest.stored.volume_id
        (rest if volume in seen else first).append(creation)
        seen.add(volume)
    return [*first, *rest]


def _age(manifest: ReadManifest) -> tuple[datetime, str]:
    return manifest.data_time, manifest.stored.backup_id
