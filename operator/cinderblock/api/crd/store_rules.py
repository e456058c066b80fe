"""CEL rules for BackupStores and ClusterBackupStores."""

from __future__ import annotations

import json
from typing import Final

from cinderblock.api.crd.core_schemas import Schema
from cinderblock.api.crd.rules import Rule, escaped, fixed
from cinderblock.api.crd.structural_schema import structural_schema
from cinderblock.api.v1alpha1.cluster_store import NamespacesFrom
from cinderblock.api.v1alpha1.store import ARCHIVE_STORAGE_CLASSES, BackupStoreSpec, MoverAccess, ServerSideAlgorithm

_REFERENCE: Final = "clusterStoreRef"


def _rules_of_every_store(kind: str) -> tuple[Rule, ...]:
    return (
        fixed("container", f"existing backups would no longer be found; create another {kind}"),
        fixed("prefix", f"existing backups would no longer be found; create another {kind}"),
        {
            "rule": "!has(self.caSecretRef) || !has(self.endpointUrl) || self.endpointUrl.startsWith('https://')",
            "message": "caSecretRef needs an endpointUrl that begins with https://: plain HTTP checks nothing",
            "fieldPath": ".caSecretRef",
        },
        {
            "rule": f"!has(self.storageClass) || !(self.storageClass in {[*ARCHIVE_STORAGE_CLASSES]})",
            "message": "a backup in this storage class could not be read at once: choose one that needs no retrieval",
            "fieldPath": ".storageClass",
        },
        {
            "rule": "!has(self.serverSideEncryption) || !has(self.serverSideEncryption.kmsKeyId)"
            f" || self.serverSideEncryption.algorithm == '{ServerSideAlgorithm.KMS.value}'",
            "message": "kmsKeyId needs the algorithm aws:kms",
            "fieldPath": ".serverSideEncryption",
        },
    )


def _left_out() -> tuple[Rule, ...]:
    """Return one rule for each field that is left out with clusterStoreRef, so that the error names the field.

    The API server fills in defaults before it checks rules, so a field with its default counts as left out.
    """
    fields = structural_schema(BackupStoreSpec)["properties"]
    return tuple(
        {
            "rule": f"!has(self.{_REFERENCE}) || {_is_default(f'self.{escaped(name)}', field)}",
            "message": f"{name} must be left out with {_REFERENCE}: the ClusterBackupStore sets it",
            "fieldPath": f".{name}",
        }
        for name, field in fields.items()
        if name not in (_REFERENCE, "credentialsSecretRef")
    )


def _is_default(path: str, field: Schema) -> str:
    """Return an expression that a field is absent or has its default."""
    default = field.get("default")
    if default is None:
        return f"!has({path})"
    if default != {}:
        return f"(!has({path}) || {path} == {json.dumps(default)})"
    parts = [_is_default(f"{path}.{escaped(name)}", inner) for name, inner in field["properties"].items()]
    return f"(!has({path}) || ({' && '.join(parts)}))"


STORE_RULES: Final[tuple[Rule, ...]] = (
    {
        "rule": f"has(self.credentialsSecretRef) != has(self.{_REFERENCE})",
        "message": f"set exactly one of credentialsSecretRef and {_REFERENCE}",
        "fieldPath": ".credentialsSecretRef",
    },
    fixed(_REFERENCE, "existing backups would no longer be found; create another BackupStore"),
    *_rules_of_every_store("BackupStore"),
    *_left_out(),
)
"""Rules for the spec of a BackupStore."""

STORE_OBJECT_RULES: Final[tuple[Rule, ...]] = (
    {
        "rule": "!has(self.spec.copies) || self.spec.copies.all(copy, copy.storeName != self.metadata.name)",
        "message": "a store cannot get copies of its own backups: name another BackupStore",
        "fieldPath": ".spec.copies",
    },
    {
        "rule": f"!has(self.spec.{_REFERENCE}) || self.spec.{_REFERENCE}.name == self.metadata.name",
        "message": "a BackupStore with clusterStoreRef must have the name of the ClusterBackupStore",
        "fieldPath": f".spec.{_REFERENCE}",
    },
)
"""Rules for a BackupStore as a whole. Two BackupStores of one namespace never have the same place in a bucket."""


def _only_with(field: str, choice: NamespacesFrom) -> Rule:
    return {
        "rule": "!has(self.allowedNamespaces)"
        f" || has(self.allowedNamespaces.{field}) == (self.allowedNamespaces.from == '{choice.value}')",
        "message": f"allowedNamespaces.{field} goes with from: {choice.value}, and only with it",
        "fieldPath": ".allowedNamespaces",
    }


CLUSTER_STORE_RULES: Final[tuple[Rule, ...]] = (
    *_rules_of_every_store("ClusterBackupStore"),
    {
        "rule": "!has(self.objectLock)",
        "message": "objectLock is not supported in a ClusterBackupStore, because the broker signs no locks. Use a"
        " BackupStore with its own credentials",
        "fieldPath": ".objectLock",
    },
    _only_with("names", NamespacesFrom.NAMES),
    _only_with("selector", NamespacesFrom.SELECTOR),
    {
        "rule": "!has(self.moverAccess) || has(self.moverAccess.sessionCredentials)"
        f" == (self.moverAccess.mode == '{MoverAccess.SESSION_CREDENTIALS.value}')",
        "message": f"moverAccess.sessionCredentials goes with mode: {MoverAccess.SESSION_CREDENTIALS.value},"
        " and only with it",
        "fieldPath": ".moverAccess",
    },
)
"""Rules for the spec of a ClusterBackupStore."""
