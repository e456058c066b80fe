"""Our kinds as CustomResourceDefinitions: names, columns, selectable fields and the rules that need two fields at once.

``crds/generate.py`` writes what ``definition`` returns. Rules are in CEL and not in a webhook: nothing of ours has to
run for an object to be refused, and nothing of ours can keep the API server from writing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from cinderblock.api.crd.structural_schema import structural_schema
from cinderblock.api.labels import GROUP, VERSION
from cinderblock.api.v1alpha1.backup import VolumeBackupSpec, VolumeBackupStatus
from cinderblock.api.v1alpha1.restore import VolumeRestoreSpec, VolumeRestoreStatus
from cinderblock.api.v1alpha1.store import (
    ARCHIVES,
    DEFAULT_STORE_ANNOTATION,
    BackupStoreSpec,
    BackupStoreStatus,
    ServerSideAlgorithm,
)

Rule = dict[str, str]


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One column of ``kubectl get``.

    Attributes:
        title: as printed; kubectl writes it in capitals.
        path: JSON path of the field.
        description: what it is, with its unit.
        type: string, integer, boolean or date.
        wide: only with ``-o wide``.
    """

    title: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class CustomResource:
    """One of our kinds.

    Attributes:
        kind: its name in objects.
        plural: its name in URLs; the singular is the kind in small letters.
        short_name: for the command line.
        description: what it is.
        spec: model of the spec.
        status: model of the status.
        columns: of ``kubectl get``, after NAME.
        selectable: fields that a field selector may name; the API server takes at most eight.
        rules: CEL rules on the spec.
    """

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[PrinterColumn, ...]
    selectable: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


def _fixed(field: str, mutable: str) -> Rule:
    """``field`` of a spec may be neither changed nor added nor removed once the object exists."""
    new, old = f"self.{_escaped(field)}", f"oldSelf.{_escaped(field)}"
    return {
        "rule": f"has({new}) == has({old}) && (!has({new}) || {new} == {old})",
        "message": f"{field} cannot be changed: {mutable}",
        "fieldPath": f".{field}",
        "reason": "FieldValueForbidden",
    }


def _escaped(field: str) -> str:
    """``field`` as CEL reads it: words of the language stand between underscores (Kubernetes: CEL, "Escaping")."""
    return f"__{field}__" if field in _CEL_WORDS else field


def _all_fixed(model: type[BaseModel], mutable: frozenset[str], sentence: str) -> tuple[Rule, ...]:
    """A rule for each field but those in ``mutable``; one rule for each, so that the error names the field."""
    fields = [info.alias or name for name, info in model.model_fields.items()]
    return tuple(_fixed(field, sentence) for field in fields if field not in mutable)


_CEL_WORDS: Final = (
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
)  # fmt: skip

_AGE: Final = PrinterColumn("Age", ".metadata.creationTimestamp", "Time since the object was created.", "date")
_DEFAULT: Final = ".metadata.annotations." + DEFAULT_STORE_ANNOTATION.replace(".", "\\.")
_READY: Final = '.status.conditions[?(@.type=="Ready")]'

BACKUP_STORE: Final = CustomResource(
    kind="BackupStore",
    plural="backupstores",
    short_name="bst",
    description="Where backups live: an S3 endpoint, a container, a prefix, credentials and keys.",
    spec=BackupStoreSpec,
    status=BackupStoreStatus,
    columns=(
        PrinterColumn("Ready", f"{_READY}.status", "Whether the store answered when it was last asked."),
        PrinterColumn("Default", _DEFAULT, "Whether backups that name no store use it."),
        PrinterColumn("Container", ".spec.container", "Bucket for backups that ask for none."),
        PrinterColumn("Endpoint", ".spec.endpointUrl", "URL of the S3 endpoint; none: AWS."),
        PrinterColumn("Prefix", ".spec.prefix", "Prefix of every key.", wide=True),
        PrinterColumn("Encryption", ".spec.encryptionSecretRef.name", "Secret with the encryption keys.", wide=True),
        PrinterColumn("Message", f"{_READY}.message", "What the store said when it was last asked.", wide=True),
        _AGE,
    ),
    rules=(
        _fixed("container", "backups would be lost from sight; create another BackupStore"),
        _fixed("prefix", "backups would be lost from sight; create another BackupStore"),
        {
            "rule": "!has(self.caSecretRef) || !has(self.endpointUrl) || self.endpointUrl.startsWith('https://')",
            "message": "caSecretRef needs an endpointUrl that begins with https://: over plain HTTP nothing is checked",
            "fieldPath": ".caSecretRef",
        },
        {
            "rule": f"!has(self.storageClass) || !(self.storageClass in {[*ARCHIVES]})",
            "message": "a backup in this storage class could not be read at once: choose one that needs no retrieval",
            "fieldPath": ".storageClass",
        },
        {
            "rule": "!has(self.serverSideEncryption) || !has(self.serverSideEncryption.kmsKeyId)"
            f" || self.serverSideEncryption.algorithm == '{ServerSideAlgorithm.KMS.value}'",
            "message": "kmsKeyId needs the algorithm aws:kms",
            "fieldPath": ".serverSideEncryption",
        },
    ),
)

VOLUME_BACKUP: Final = CustomResource(
    kind="VolumeBackup",
    plural="volumebackups",
    short_name="vb",
    description="One copy of a PersistentVolumeClaim in S3, with the fields, statuses and rules of Cinder's backups.",
    spec=VolumeBackupSpec,
    status=VolumeBackupStatus,
    columns=(
        PrinterColumn("Status", ".status.phase", "Cinder's status."),
        PrinterColumn("Volume", ".status.volumeName", "Name of the PersistentVolumeClaim."),
        PrinterColumn("Size", ".status.size", "GiB of the volume.", "integer"),
        PrinterColumn("Objects", ".status.objectCount", "Data objects in the store.", "integer"),
        PrinterColumn("Container", ".status.container", "The bucket."),
        PrinterColumn("Incremental", ".status.isIncremental", "Whether it was made against a parent.", "boolean"),
        PrinterColumn("Progress", ".status.progress.percent", "Percent of the volume that is dealt with.", "integer"),
        PrinterColumn("Title", ".spec.name", "Cinder's display name.", wide=True),
        PrinterColumn("Description", ".spec.description", "The user's own words.", wide=True),
        PrinterColumn("Store", ".status.storeName", "The BackupStore.", wide=True),
        PrinterColumn(
            "Data", ".status.dataTimestamp", "Time since the instant whose data it holds.", "date", wide=True
        ),
        PrinterColumn(
            "Dependents", ".status.hasDependentBackups", "Whether others need its data.", "boolean", wide=True
        ),
        PrinterColumn("Stored", ".status.storedBytes", "Bytes in the store.", "integer", wide=True),
        PrinterColumn("ID", ".status.id", "Cinder's id.", wide=True),
        PrinterColumn("Fail Reason", ".status.failReason", "Why the status is an error.", wide=True),
        _AGE,
    ),
    selectable=(
        ".status.phase",
        ".status.id",
        ".status.volumeId",
        ".status.parentId",
        ".status.storeName",
        ".status.sealed",
        ".spec.storeName",
        ".spec.volumeId",
    ),
    rules=(
        *_all_fixed(
            VolumeBackupSpec,
            frozenset({"name", "description", "metadata", "deletionPolicy"}),
            "of a VolumeBackup only name, description, metadata and deletionPolicy may change",
        ),
        {
            "rule": "has(self.volumeId) != has(self.__import__)",
            "message": "give volumeId to back a volume up, or import to adopt a backup that is in the store",
            "fieldPath": ".volumeId",
        },
        {
            "rule": "!has(self.__import__) || !(self.incremental || self.force || has(self.snapshotId))",
            "message": "incremental, force and snapshotId are for copying a volume: leave them out with import",
            "fieldPath": ".import",
        },
    ),
)

_NEW_VOLUME_ONLY: Final = ("storageClassName", "accessModes", "size", "labels", "annotations")

VOLUME_RESTORE: Final = CustomResource(
    kind="VolumeRestore",
    plural="volumerestores",
    short_name="vr",
    description="One run that writes a VolumeBackup into a new or an existing PersistentVolumeClaim.",
    spec=VolumeRestoreSpec,
    status=VolumeRestoreStatus,
    columns=(
        PrinterColumn("Status", ".status.phase", "restoring, available or error_restoring."),
        PrinterColumn("Backup", ".status.backupName", "Name of the VolumeBackup."),
        PrinterColumn("Volume", ".status.volumeName", "Name of the restored PersistentVolumeClaim."),
        PrinterColumn("Progress", ".status.progress.percent", "Percent of the volume that is dealt with.", "integer"),
        PrinterColumn("Restored", ".status.restoredBytes", "Bytes written and verified.", "integer", wide=True),
        PrinterColumn("Volume ID", ".status.volumeId", "UID of the PersistentVolumeClaim.", wide=True),
        PrinterColumn("Fail Reason", ".status.failReason", "Why the status is error_restoring.", wide=True),
        _AGE,
    ),
    selectable=(
        ".status.phase",
        ".status.id",
        ".status.backupId",
        ".status.volumeId",
        ".spec.backupId",
        ".spec.volumeId",
    ),
    rules=(
        *_all_fixed(VolumeRestoreSpec, frozenset(), "a VolumeRestore is one run; create another one"),
        *(
            {
                "rule": f"!has(self.volumeId) || !has(self.{field})",
                "message": f"{field} describes a new volume: leave it out together with volumeId",
                "fieldPath": f".{field}",
            }
            for field in _NEW_VOLUME_ONLY
        ),
        {
            "rule": "!has(self.accessModes) || size(self.accessModes) == 1"
            " || !('ReadWriteOncePod' in self.accessModes)",
            "message": "ReadWriteOncePod cannot be combined with other access modes",
            "fieldPath": ".accessModes",
        },
    ),
)

_NOT_SEEN_YET: Final = {"observedGeneration": -1}
"""The status before ours: a new object without conditions would be finished for kstatus, which Flux waits by."""

RESOURCES: Final = (BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE)


def definition(resource: CustomResource) -> dict[str, Any]:
    """The CustomResourceDefinition of ``resource``, ready to be sent or written.

    It is in no category ``all``: ``kubectl delete all --all`` must not delete backups.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short_name],
                "categories": ["cinderblock"],
            },
            "versions": [_version(resource)],
        },
    }


def _version(resource: CustomResource) -> dict[str, Any]:
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_printed(column) for column in resource.columns],
    }
    if resource.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in resource.selectable]
    return version | {"schema": {"openAPIV3Schema": _whole(resource)}}


def _printed(column: PrinterColumn) -> dict[str, Any]:
    printed = {"name": column.title, "type": column.type, "jsonPath": column.path, "description": column.description}
    return {**printed, "priority": 1} if column.wide else dict(printed)


def _whole(resource: CustomResource) -> dict[str, Any]:
    """Schema of a whole object; what is in ``metadata``, the API server checks by itself."""
    spec = structural_schema(resource.spec)
    if resource.rules:
        spec["x-kubernetes-validations"] = list(resource.rules)
    return {
        "type": "object",
        "description": resource.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the schema that the object is written in."},
            "kind": {"type": "string", "description": f"Always {resource.kind}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": structural_schema(resource.status, defaults=False) | {"default": _NOT_SEEN_YET},
        },
    }
