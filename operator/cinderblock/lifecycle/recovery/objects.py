"""The objects that recover a claim: a VolumeBackup that imports the backup, and a VolumeRestore that creates the claim.

Both names follow from the plan, so that a second run finds what the first one has made.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from cinderblock.api.labels import GROUP, VERSION
from cinderblock.lifecycle.recovery.candidate import Candidate
from cinderblock.lifecycle.recovery.plan import PlannedClaim

SYNC_WAVE: Final = "argocd.argoproj.io/sync-wave"
"""Annotation by which Argo CD orders objects. A VolumeRestore fails if its backup is not imported yet."""
_NAME_CHARACTERS: Final = 253
_ID_CHARACTERS: Final = 8
_ILLEGAL: Final = re.compile(r"[^a-z0-9]+")

JsonObject = dict[str, Any]


def restore_name(claim: str, import_id: str) -> str:
    """Return the name of the VolumeRestore of a claim from a backup: ``recover-CLAIM-ID``, with part of the id."""
    digest = hashlib.sha256(f"{claim}/{import_id}".encode()).hexdigest()[: 2 * _ID_CHARACTERS]
    part = _ILLEGAL.sub("-", import_id.lower()[:_ID_CHARACTERS]).strip("-") or digest
    name = f"recover-{claim}-{part}"
    if len(name) <= _NAME_CHARACTERS:
        return name
    return f"{name[: _NAME_CHARACTERS - len(digest) - 1].rstrip('.-')}-{digest}"


def backup_object(
    claim: PlannedClaim, backup: Candidate, store_name: str | None, *, name: str = "", allows_unsealed: bool = False
) -> JsonObject:
    """Return the VolumeBackup. Deleting it leaves the data in the store.

    Args:
        claim: the claim.
        backup: its backup.
        store_name: the BackupStore; None: the default one of the namespace.
        name: another name than that of the plan.
        allows_unsealed: whether a person accepts backups that are not encrypted.
    """
    source: JsonObject = {"id": backup.stored.import_id, "manifest": backup.stored.manifest}
    if allows_unsealed and not backup.is_sealed:
        source["allowUnsealed"] = True
    spec: JsonObject = {"import": source, "deletionPolicy": "Retain"}
    if store_name is not None:
        spec["storeName"] = store_name
    return _object("VolumeBackup", claim.key[0], name or backup.stored.object_name, spec)


def restore_object(claim: PlannedClaim, backup: Candidate) -> JsonObject:
    """Return the VolumeRestore. It names the backup by its id, whatever the name of the VolumeBackup is.

    It has no volumeId, so that it never writes to a claim that exists.
    """
    spec: JsonObject = {"backupId": backup.stored.import_id, "name": claim.key[1]}
    if claim.storage_class is not None:
        spec["storageClassName"] = claim.storage_class
    if backup.labels:
        spec["labels"] = dict(backup.labels)
    if backup.annotations:
        spec["annotations"] = dict(backup.annotations)
    return _object("VolumeRestore", claim.key[0], restore_name(claim.key[1], backup.stored.import_id), spec)


def with_wave(body: JsonObject, wave: int) -> JsonObject:
    """Return an object with its place in the order of Argo CD."""
    return body | {"metadata": body["metadata"] | {"annotations": {SYNC_WAVE: str(wave)}}}


def _object(kind: str, namespace: str, name: str, spec: JsonObject) -> JsonObject:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": metadata, "spec": spec}
