"""CustomResourceDefinitions of our kinds: names, columns, selectable fields, and rules that involve several fields.

``crds/generate.py`` writes what `definition` returns. The rules are in CEL instead of a webhook, so that the API server
applies them while the operator is down, and an outage of the operator never blocks a write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from cinderblock import __version__
from cinderblock.api.crd.rules import Rule, all_fixed
from cinderblock.api.crd.store_rules import CLUSTER_STORE_RULES, STORE_OBJECT_RULES, STORE_RULES
from cinderblock.api.crd.structural_schema import structural_schema
from cinderblock.api.labels import DEFAULT_STORE_ANNOTATION, GROUP, VERSION
from cinderblock.api.v1alpha1.backup import VolumeBackupSpec, VolumeBackupStatus
from cinderblock.api.v1alpha1.backup_grant import BackupGrantSpec, BackupGrantStatus
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStoreSpec, ClusterBackupStoreStatus
from cinderblock.api.v1alpha1.restore import VolumeRestoreSpec, VolumeRestoreStatus
from cinderblock.api.v1alpha1.restore_source import RestoreSourceSpec, RestoreSourceStatus
from cinderblock.api.v1alpha1.schedule import BackupScheduleSpec, BackupScheduleStatus, ClusterBackupScheduleSpec
from cinderblock.api.v1alpha1.store import BackupStoreSpec, BackupStoreStatus
from cinderblock.api.v1alpha1.verification import (
    BackupVerificationSpec,
    BackupVerificationStatus,
    VerificationLevel,
)


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One column of ``kubectl get``.

    Attributes:
        title: title, which kubectl prints in capitals.
        path: JSON path of the field.
        description: meaning of the value, with its unit.
        type: string, integer, boolean or date.
        wide: whether the column is shown only with ``-o wide``.
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
        kind: name of the kind.
        plural: name in URLs. The singular is the kind in lower case.
        short_names: short names for the command line.
        description: description of the kind.
        spec: model of the spec.
        status: model of the status.
        columns: columns of ``kubectl get`` after NAME.
        selectable: fields that a field selector may name. The API server accepts at most eight.
        rules: CEL rules for the spec.
        namespaced: whether objects belong to namespaces.
        object_rules: CEL rules for the object as a whole.
        hidden: fields of the spec's model that the schema leaves out.
    """

    kind: str
    plural: str
    short_names: tuple[str, ...]
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[PrinterColumn, ...]
    selectable: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    namespaced: bool = True
    object_rules: tuple[Rule, ...] = ()
    hidden: tuple[str, ...] = ()


_IS_DEFAULT: Final = ".metadata.annotations." + DEFAULT_STORE_ANNOTATION.replace(".", "\\.")
_READY_CONDITION: Final = '.status.conditions[?(@.type=="Ready")]'

_READY: Final = PrinterColumn("Ready", f"{_READY_CONDITION}.status", "Status of the condition Ready.")
_REASON: Final = PrinterColumn("Reason", f"{_READY_CONDITION}.reason", "Reason of the condition Ready.")
_PROGRESS: Final = PrinterColumn(
    "Progress %", ".status.progress.percent", "Share of the data that the mover has processed, in percent.", "integer"
)
_DURATION: Final = PrinterColumn("Duration", ".status.duration", "Time from the creation of the object to completion.")
_COMPLETED: Final = PrinterColumn(
    "Completed", ".status.completedAt", "Time since the operation completed.", "date", wide=True
)
_AGE: Final = PrinterColumn("Age", ".metadata.creationTimestamp", "Time since the object was created.", "date")

_STORE_COLUMNS: Final = (
    _READY,
    _REASON,
    PrinterColumn("Default", _IS_DEFAULT, "Whether backups that name no store use this one."),
    PrinterColumn("Access", ".status.access", "Access to the bucket: ReadWrite or ReadOnly."),
    # With clusterStoreRef, the spec has the defaults of the API server there.
    PrinterColumn("Container", ".status.container", "Bucket for backups that do not name one."),
    PrinterColumn("Endpoint", ".status.endpointUrl", "URL of the S3 endpoint, empty for AWS."),
)
_WIDE_STORE_COLUMNS: Final = (
    PrinterColumn("Prefix", ".spec.prefix", "Prefix of all keys in the bucket.", wide=True),
    PrinterColumn("Encryption", ".spec.encryptionSecretRef.name", "Secret with the encryption keys.", wide=True),
    PrinterColumn("Message", f"{_READY_CONDITION}.message", "Message of the condition Ready.", wide=True),
)

BACKUP_STORE: Final = CustomResource(
    kind="BackupStore",
    plural="backupstores",
    short_names=("bst",),
    description="A store of backups: an S3 endpoint, a bucket, a prefix, credentials and encryption keys.",
    spec=BackupStoreSpec,
    status=BackupStoreStatus,
    columns=(
        *_STORE_COLUMNS,
        PrinterColumn(
            "Cluster Store", ".spec.clusterStoreRef.name", "ClusterBackupStore with the settings.", wide=True
        ),
        PrinterColumn(
            "Copied",
            '.status.conditions[?(@.type=="Copied")].reason',
            "Whether each backup has its copies in other stores.",
            wide=True,
        ),
        *_WIDE_STORE_COLUMNS,
        _AGE,
    ),
    rules=STORE_RULES,
    object_rules=STORE_OBJECT_RULES,
)

CLUSTER_BACKUP_STORE: Final = CustomResource(
    kind="ClusterBackupStore",
    plural="clusterbackupstores",
    short_names=("cbst",),
    description="A store of an administrator that several namespaces share. Each has a place of its own in it.",
    spec=ClusterBackupStoreSpec,
    status=ClusterBackupStoreStatus,
    columns=(
        *_STORE_COLUMNS,
        PrinterColumn("Namespaces", ".status.namespaces", "Number of namespaces that may use the store.", "integer"),
        *_WIDE_STORE_COLUMNS,
        _AGE,
    ),
    rules=CLUSTER_STORE_RULES,
    namespaced=False,
    hidden=("clusterStoreRef", "copies", "takeOver"),
)

VOLUME_BACKUP: Final = CustomResource(
    kind="VolumeBackup",
    plural="volumebackups",
    short_names=("vb",),
    description="A copy of a PersistentVolumeClaim in S3, with the fields, statuses and rules of Cinder's backups.",
    spec=VolumeBackupSpec,
    status=VolumeBackupStatus,
    columns=(
        PrinterColumn("Status", ".status.phase", "Status of the backup, in Cinder's words."),
        _READY,
        _REASON,
        PrinterColumn("Volume", ".status.volumeName", "Name of the PersistentVolumeClaim."),
        PrinterColumn("Size GiB", ".status.size", "Size of the volume in GiB.", "integer"),
        PrinterColumn("Objects", ".status.objectCount", "Number of data objects in the store.", "integer"),
        PrinterColumn("Container", ".status.container", "Bucket that contains the backup."),
        PrinterColumn(
            "Incremental", ".status.isIncremental", "Whether the backup was made against a parent.", "boolean"
        ),
        _PROGRESS,
        _DURATION,
        PrinterColumn("Display Name", ".spec.name", "Display name of the backup.", wide=True),
        PrinterColumn("Description", ".spec.description", "Description of the backup.", wide=True),
        PrinterColumn("Store", ".status.storeName", "Name of the BackupStore.", wide=True),
        PrinterColumn("Data Age", ".status.dataTimestamp", "Age of the data in the backup.", "date", wide=True),
        _COMPLETED,
        PrinterColumn(
            "Dependents",
            ".status.hasDependentBackups",
            "Whether other backups need the data of this one.",
            "boolean",
            wide=True,
        ),
        PrinterColumn("Stored Bytes", ".status.storedBytes", "Size of the objects in bytes.", "integer", wide=True),
        PrinterColumn(
            "Alarm",
            '.status.conditions[?(@.type=="Suspicious")].reason',
            "The strongest alarm, or AlarmAccepted.",
            wide=True,
        ),
        PrinterColumn(
            "Verified", ".status.verification.result", "Whether the stored data was verified, or is damaged.", wide=True
        ),
        PrinterColumn(
            "Data Read",
            ".status.verification.dataAt",
            "When all stored data was last verified.",
            "date",
            wide=True,
        ),
        PrinterColumn("Restored", ".status.verification.restoredAt", "When a drill last passed.", "date", wide=True),
        PrinterColumn(
            "Copies", ".status.copies[?(@.time)].storeName", "Other BackupStores with a copy of the backup.", wide=True
        ),
        PrinterColumn("Expires", ".status.expiresAt", "Time from which retention removes the backup.", wide=True),
        PrinterColumn("ID", ".status.id", "Id of the backup, as in Cinder.", wide=True),
        PrinterColumn("Fail Reason", ".status.failReason", "Cause of an error.", wide=True),
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
        *all_fixed(
            VolumeBackupSpec,
            frozenset({"name", "description", "metadata", "hold", "deletionPolicy"}),
            "of a VolumeBackup only name, description, metadata, hold and deletionPolicy may change",
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
    short_names=("vr", "vrs"),  # csi-addons' VolumeReplication has the short name vr as well
    description="One restore of a VolumeBackup into a new or an existing PersistentVolumeClaim.",
    spec=VolumeRestoreSpec,
    status=VolumeRestoreStatus,
    columns=(
        PrinterColumn("Status", ".status.phase", "Status of the restore, in Cinder's words."),
        _READY,
        _REASON,
        PrinterColumn("Backup", ".status.backupName", "Name of the VolumeBackup."),
        PrinterColumn("Volume", ".status.volumeName", "Name of the restored PersistentVolumeClaim."),
        _PROGRESS,
        _DURATION,
        _COMPLETED,
        PrinterColumn(
            "Restored Bytes", ".status.restoredBytes", "Data written and verified, in bytes.", "integer", wide=True
        ),
        PrinterColumn(
            "Backup Namespace", ".status.backupNamespace", "Namespace of the backup, if it is another one.", wide=True
        ),
        PrinterColumn("Volume ID", ".status.volumeId", "UID of the restored PersistentVolumeClaim.", wide=True),
        PrinterColumn("Fail Reason", ".status.failReason", "Cause of an error.", wide=True),
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
        *all_fixed(VolumeRestoreSpec, frozenset(), "a VolumeRestore is one run; create another one"),
        *(
            {
                "rule": f"!has(self.volumeId) || !has(self.{field})",
                "message": f"{field} describes a new volume: leave it out together with volumeId",
                "fieldPath": f".{field}",
            }
            for field in _NEW_VOLUME_ONLY
        ),
        *(
            {
                "rule": f"!has(self.claim) || !has(self.{field})",
                "message": f"the claim has its own {field}: leave it out together with claim",
                "fieldPath": f".{field}",
            }
            for field in ("volumeId", "name", "backupNamespace", *_NEW_VOLUME_ONLY)
        ),
        {
            "rule": "has(self.backupId) != (has(self.claim) && self.claim.empty)",
            "message": "give the backupId of the backup to restore; only a claim that gets an empty volume has none",
            "fieldPath": ".backupId",
        },
        {
            "rule": "!has(self.accessModes) || size(self.accessModes) == 1"
            " || !('ReadWriteOncePod' in self.accessModes)",
            "message": "ReadWriteOncePod cannot be combined with other access modes",
            "fieldPath": ".accessModes",
        },
    ),
)

BACKUP_VERIFICATION: Final = CustomResource(
    kind="BackupVerification",
    plural="backupverifications",
    short_names=("bver",),
    description="One verification of a VolumeBackup: its stored data is read, or restored to a scratch volume.",
    spec=BackupVerificationSpec,
    status=BackupVerificationStatus,
    columns=(
        PrinterColumn("Level", ".spec.level", "Level of the verification."),
        PrinterColumn("Status", ".status.phase", "Status: verifying, verified, damaged or error."),
        _READY,
        _REASON,
        PrinterColumn("Backup", ".status.backupName", "Name of the VolumeBackup that was chosen."),
        PrinterColumn("Part", ".status.part", "Part of the data that level Data reads.", "integer"),
        _PROGRESS,
        _DURATION,
        _COMPLETED,
        PrinterColumn("Complete", ".status.complete", "Whether the whole part was read.", "boolean", wide=True),
        PrinterColumn("Packs", ".status.packsVerified", "Number of packs that were verified.", "integer", wide=True),
        PrinterColumn("Bytes Read", ".status.bytesRead", "Bytes read from the store.", "integer", wide=True),
        PrinterColumn(
            "Damaged", ".status.damagedObjects", "Number of damaged or missing objects.", "integer", wide=True
        ),
        PrinterColumn("Fail Reason", ".status.failReason", "Cause of a damage or an error.", wide=True),
        _AGE,
    ),
    selectable=(
        ".status.phase",
        ".status.id",
        ".status.backupId",
        ".status.volumeId",
        ".spec.level",
        ".spec.volumeId",
    ),
    rules=(
        *all_fixed(BackupVerificationSpec, frozenset(), "a BackupVerification is one run; create another one"),
        {
            "rule": "has(self.backupId) != has(self.volumeId)",
            "message": "give backupId to verify one backup, or volumeId to verify the newest one of a volume",
            "fieldPath": ".backupId",
        },
        {
            "rule": f"self.level == '{VerificationLevel.DATA.value}' || !has(self.data) || (self.data.parts == 1"
            " && !has(self.data.maxBytes) && !has(self.data.maxDuration))",
            "message": "data describes level Data: leave it out for other levels",
            "fieldPath": ".data",
        },
        {
            "rule": f"self.level == '{VerificationLevel.RESTORE.value}' || !has(self.restore)"
            " || (self.restore.timeout == '2h' && !has(self.restore.storageClassName) && !has(self.restore.check)"
            " && !has(self.restore.maxDataAge))",
            "message": "restore describes level Restore: leave it out for other levels",
            "fieldPath": ".restore",
        },
    ),
)

_KEEP_RULES: Final = ("keepLast", "keepHourly", "keepDaily", "keepWeekly", "keepMonthly", "keepYearly")

_SCHEDULE_COLUMNS: Final = (
    PrinterColumn("Schedule", ".spec.schedule", "Times, as a cron expression."),
    PrinterColumn("Time Zone", ".spec.timeZone", "Time zone of the schedule."),
    PrinterColumn("Suspend", ".spec.suspend", "Whether the schedule makes no backups.", "boolean"),
    _READY,
    _REASON,
    PrinterColumn("Volumes", ".status.lastRun.volumes", "Number of volumes of the last run.", "integer"),
    PrinterColumn("Failing", ".status.failingVolumes", "Number of volumes without a new backup.", "integer"),
    PrinterColumn("Last Run", ".status.lastRun.time", "Time since the last run.", "date"),
    PrinterColumn("Next Run", ".status.nextScheduleTime", "The next scheduled time."),
    PrinterColumn("Expiring", ".status.retention.expiring", "Number of backups to be removed.", "integer", wide=True),
    PrinterColumn("Message", f"{_READY_CONDITION}.message", "Message of the condition Ready.", wide=True),
    _AGE,
)

_SCHEDULE_RULES: Final[tuple[Rule, ...]] = (
    {
        "rule": "!has(self.retention) || has(self.retention.keepWithin) || "
        + " || ".join(f"self.retention.{rule} > 0" for rule in _KEEP_RULES),
        "message": f"give at least one rule that keeps backups: {', '.join(_KEEP_RULES)} or keepWithin",
        "fieldPath": ".retention",
    },
)

BACKUP_SCHEDULE: Final = CustomResource(
    kind="BackupSchedule",
    plural="backupschedules",
    short_names=("bsch",),
    description="A schedule that backs up volumes of its namespace, and removes their old backups.",
    spec=BackupScheduleSpec,
    status=BackupScheduleStatus,
    columns=_SCHEDULE_COLUMNS,
    rules=_SCHEDULE_RULES,
)

CLUSTER_BACKUP_SCHEDULE: Final = CustomResource(
    kind="ClusterBackupSchedule",
    plural="clusterbackupschedules",
    short_names=("cbsch",),
    description="A schedule of an administrator that backs up volumes of several namespaces.",
    spec=ClusterBackupScheduleSpec,
    status=BackupScheduleStatus,
    columns=_SCHEDULE_COLUMNS,
    rules=_SCHEDULE_RULES,
    namespaced=False,
)

BACKUP_GRANT: Final = CustomResource(
    kind="BackupGrant",
    plural="backupgrants",
    short_names=("bgrant",),
    description="A permission to restore VolumeBackups of its namespace into other namespaces of the cluster.",
    spec=BackupGrantSpec,
    status=BackupGrantStatus,
    columns=(
        _READY,
        _REASON,
        PrinterColumn("All", ".spec.backups.all", "Whether all backups of the namespace are granted.", "boolean"),
        PrinterColumn("Message", f"{_READY_CONDITION}.message", "Message of the condition Ready."),
        _AGE,
    ),
    rules=(
        {
            "rule": "!has(self.backups) || !has(self.backups.selector)"
            " || (has(self.backups.selector.matchLabels) && size(self.backups.selector.matchLabels) > 0)"
            " || (has(self.backups.selector.matchExpressions) && size(self.backups.selector.matchExpressions) > 0)",
            "message": "an empty selector would grant all backups: set all to true, or leave the selector out",
            "fieldPath": ".backups",
        },
    ),
)

RESTORE_SOURCE: Final = CustomResource(
    kind="RestoreSource",
    plural="restoresources",
    short_names=("rsrc",),
    description="Chooses the backup for a PersistentVolumeClaim whose dataSourceRef names this object.",
    spec=RestoreSourceSpec,
    status=RestoreSourceStatus,
    columns=(
        PrinterColumn("Store", ".spec.storeName", "BackupStore in which the backups are looked up."),
        PrinterColumn("On Missing", ".spec.onMissing", "Reaction to a store without a backup."),
        PrinterColumn("Suspend", ".spec.suspend", "Whether claims wait.", "boolean"),
        _READY,
        _REASON,
        PrinterColumn("Message", f"{_READY_CONDITION}.message", "Message of the condition Ready.", wide=True),
        _AGE,
    ),
    rules=all_fixed(
        RestoreSourceSpec, frozenset({"suspend"}), "of a RestoreSource only suspend may change; create another one"
    ),
)

_INITIAL_STATUS: Final = {"observedGeneration": -1}
"""Status of a new object. Without it, kstatus (and so Flux) would consider an object without conditions finished."""

_LABELS: Final = {
    "app.kubernetes.io/name": "cinderblock",
    "app.kubernetes.io/part-of": "cinderblock",
    "app.kubernetes.io/version": __version__,
}
"""Labels of the definitions. The version is the release that they come from."""

RESOURCES: Final = (
    *(BACKUP_STORE, CLUSTER_BACKUP_STORE, VOLUME_BACKUP, VOLUME_RESTORE, BACKUP_VERIFICATION),
    *(BACKUP_SCHEDULE, CLUSTER_BACKUP_SCHEDULE, BACKUP_GRANT, RESTORE_SOURCE),
)


def definition(resource: CustomResource) -> dict[str, Any]:
    """Return the CustomResourceDefinition of ``resource``.

    It is not in the category ``all``, because ``kubectl delete all --all`` must not delete backups.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}", "labels": dict(_LABELS)},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": list(resource.short_names),
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
        "additionalPrinterColumns": [_printer_column(column) for column in resource.columns],
    }
    if resource.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in resource.selectable]
    return version | {"schema": {"openAPIV3Schema": _object_schema(resource)}}


def _printer_column(column: PrinterColumn) -> dict[str, Any]:
    shown = {"name": column.title, "type": column.type, "jsonPath": column.path, "description": column.description}
    return {**shown, "priority": 1} if column.wide else dict(shown)


def _object_schema(resource: CustomResource) -> dict[str, Any]:
    """Return the schema of an object. ``metadata`` has none, because the API server validates it itself."""
    spec = structural_schema(resource.spec)
    for name in resource.hidden:
        del spec["properties"][name]
    if resource.rules:
        spec["x-kubernetes-validations"] = list(resource.rules)
    rules = {"x-kubernetes-validations": list(resource.object_rules)} if resource.object_rules else {}
    return {
        "type": "object",
        "description": resource.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
            "kind": {"type": "string", "description": f"Always {resource.kind}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": structural_schema(resource.status, defaults=False) | {"default": _INITIAL_STATUS},
        },
    } | rules
