"""The children that we create, as plain data: VolumeSnapshot, claim and mover Job.

Every child carries from birth the owner reference and the labels by which it is found and cleaned up. Labels and
annotations of the owner are never copied: a GitOps tool would take the child for its own and prune it.
"""

from __future__ import annotations

from typing import Any

from cinderblock.api import labels
from cinderblock.api.mover import (
    DEVICE_PATH,
    SECRETS_DIRECTORY,
    TREE_PATH,
    MoverOperation,
    MoverTask,
    VolumeMode,
    task_to_env,
)
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.children import Owner, child_metadata
from cinderblock.lifecycle.observed import MoverSettings

STORE_LABEL = "cinderblock.io/store"
"""On a mover Job: UID of the BackupStore that it uses, so that movers can be counted per store."""

EXIT_PERMANENT = 3
"""Exit code of a mover that says: never try again."""

MOVER_CONTAINER = "mover"

BACKUP_CAPABILITIES = ("DAC_OVERRIDE", "FOWNER")
"""Reads every file whatever its mode (DAC_READ_SEARCH would do, but Pod Security ``baseline`` forbids it)."""
RESTORE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
"""Gives files their owners, modes, device numbers and capabilities back; all allowed by ``baseline``."""

DEFAULT_RESOURCES: dict[str, Any] = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}
"""A mover works in 256 MiB, whatever the size of the volume; the limit leaves as much again."""


def mover_path(mode: VolumeMode) -> str:
    """Where a volume of this mode is in a mover."""
    return DEVICE_PATH if mode is VolumeMode.BLOCK else TREE_PATH


def mover_job(
    owner: Owner, task: MoverTask, store: BackupStore, claim_name: str, settings: MoverSettings
) -> dict[str, Any]:
    """The Job that copies bytes between a claim and a store.

    It sees its volume and the store's Secrets, and nothing else: no ServiceAccount token, no writable root.

    It is born suspended, and started by a second request, for the Job that was seen to be there: a request that arrives
    late, from an operator that does not lead any more, makes a Job that does nothing. But for a backup of a claim that
    is a child as well: that one is gone when the backup has ended, and without it no pod can start.
    """
    metadata = child_metadata(owner)
    is_gone_with_us = task.operation is MoverOperation.BACKUP and claim_name == metadata["name"]
    metadata["finalizers"] = [labels.JOB_FINALIZER]
    metadata["labels"][STORE_LABEL] = store.uid
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "suspend": not is_gone_with_us,
            "backoffLimit": 3,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": MOVER_CONTAINER,
                            "operator": "In",
                            "values": [EXIT_PERMANENT],
                        },
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {
                    "labels": dict(store.spec.mover.labels) | metadata["labels"],
                    "annotations": dict(store.spec.mover.annotations) | metadata["annotations"],
                },
                "spec": _pod_spec(task, store, claim_name, settings),
            },
        },
    }


def _pod_spec(task: MoverTask, store: BackupStore, claim_name: str, settings: MoverSettings) -> dict[str, Any]:
    template = store.spec.mover
    reads_only = task.operation is MoverOperation.BACKUP
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": template.pod_security_context or {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(task, store, settings)],
        "volumes": [
            {
                "name": "volume",
                "persistentVolumeClaim": {
                    "claimName": claim_name,
                    "readOnly": reads_only and task.volume_mode is VolumeMode.FILESYSTEM,
                },
            },
            *(_secret_volume(name, secret) for name, secret in _secrets(store)),
        ],
    }
    optional = {
        "nodeSelector": template.node_selector,
        "tolerations": template.tolerations,
        "affinity": template.affinity,
        "priorityClassName": template.priority_class_name,
        "serviceAccountName": template.service_account_name,
        "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
    }
    return spec | {key: value for key, value in optional.items() if value}


def _container(task: MoverTask, store: BackupStore, settings: MoverSettings) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": MOVER_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "args": ["mover"],
        "env": [{"name": name, "value": value} for name, value in (*task_to_env(task).items(), *settings.proxies)],
        "resources": store.spec.mover.resources or DEFAULT_RESOURCES,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": store.spec.mover.security_context or _security_context(task.operation),
        "volumeMounts": [
            {"name": name, "mountPath": f"{SECRETS_DIRECTORY}/{name}", "readOnly": True} for name, _ in _secrets(store)
        ],
    }
    if task.volume_mode is VolumeMode.BLOCK:
        container["volumeDevices"] = [{"name": "volume", "devicePath": DEVICE_PATH}]
    else:
        reads_only = task.operation is MoverOperation.BACKUP
        container["volumeMounts"].append({"name": "volume", "mountPath": TREE_PATH, "readOnly": reads_only})
    return container


def _security_context(operation: MoverOperation) -> dict[str, Any]:
    """Root with only the capabilities that the copy needs (Pod Security Standards: fits ``baseline``)."""
    added = BACKUP_CAPABILITIES if operation is MoverOperation.BACKUP else RESTORE_CAPABILITIES
    return {
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": list(added)},
    }


def _secrets(store: BackupStore) -> list[tuple[str, str]]:
    """Which Secrets a mover mounts: name of the directory and of the Secret."""
    references = {
        "credentials": store.spec.credentials_secret_ref,
        "encryption": store.spec.encryption_secret_ref,
        "ca": store.spec.ca_secret_ref,
    }
    return [(directory, reference.name) for directory, reference in references.items() if reference]


def _secret_volume(name: str, secret: str) -> dict[str, Any]:
    # 0444: a mover that a store's template runs as another user must be able to read it, and nobody else is there.
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o444}}
