"""The mover Job, as plain data."""

from __future__ import annotations

from typing import Any

from cinderblock.api import labels
from cinderblock.api.labels import STORE_LABEL
from cinderblock.api.mover import (
    DEVICE_PATH,
    EXIT_PERMANENT,
    MOVER_CONTAINER,
    SECRETS_DIRECTORY,
    TARGET_PREFIX,
    TREE_PATH,
    MoverOperation,
    MoverTask,
    VolumeMode,
    task_to_env,
)
from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.lifecycle.children import JobOwner, child_metadata, extras_of
from cinderblock.lifecycle.mover import broker
from cinderblock.lifecycle.observed import MoverSettings

DEFAULT_USER = 0
"""User of a mover whose store sets no security context."""
VERIFICATION_USER = 65532
"""User of the mover of a verification or of copies: that of the image. It has no volume, so it needs no such rights."""
DEFAULT_POD_SECURITY_CONTEXT: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
"""Security context of a mover's pod whose store sets none."""

BACKUP_CAPABILITIES = ("DAC_OVERRIDE", "FOWNER")
"""Enough to read all files. DAC_READ_SEARCH would suffice, but Pod Security ``baseline`` forbids it."""
RESTORE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
"""Enough to restore owners, modes, device numbers and capabilities of files. ``baseline`` allows all of them."""

DEFAULT_RESOURCES: dict[str, Any] = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}
"""A mover needs 256 MiB, whatever the size of the volume; the limit is twice that."""


def mover_path(mode: VolumeMode) -> str:
    """Return where a mover finds a volume of this mode."""
    return DEVICE_PATH if mode is VolumeMode.BLOCK else TREE_PATH


def mover_job(
    owner: JobOwner,
    task: MoverTask,
    store: BackupStore,
    claim_name: str | None,
    settings: MoverSettings,
    *,
    target: BackupStore | None = None,
) -> dict[str, Any]:
    """Return the Job that copies bytes between a claim and a store; without a claim, it verifies or copies backups.

    Its pods see the volume and the Secrets of the store, and nothing else: no ServiceAccount token for the API server,
    no writable root. If the store is shared, they see none of its Secrets, but a token for the broker.

    It is created suspended. A second request starts it, once the operator has seen it. So a late request of a former
    leader creates a Job that does nothing. A backup whose claim is a child as well needs no such protection: that claim
    is removed when the backup ends, and no pod can start without it.

    Args:
        owner: the operation, or the BackupStore whose backups are copied.
        task: the task of the mover.
        store: the store of the task, whose template the pod follows.
        claim_name: the claim to mount; None: none.
        settings: the operator's settings.
        target: the store that gets copies, whose Secrets are mounted as well.
    """
    metadata = child_metadata(owner, extras_of(store, settings))
    needs_child_claim = task.operation is MoverOperation.BACKUP and claim_name == metadata["name"]
    metadata["finalizers"] = [labels.JOB_FINALIZER]
    metadata["labels"][STORE_LABEL] = store.uid
    pod_metadata = {"labels": dict(metadata["labels"]), "annotations": dict(metadata["annotations"])}
    if needs_child_claim:
        metadata["annotations"][labels.STARTED_ANNOTATION] = "true"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "suspend": not needs_child_claim,
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
                "metadata": pod_metadata,
                "spec": _pod_spec(task, store, claim_name, settings, _secret_volumes(store, target)),
            },
        },
    }


def _secret_volumes(store: BackupStore, target: BackupStore | None) -> list[dict[str, Any]]:
    """Return the volumes with the Secrets of the store, and of the store that gets copies."""
    return [*_access_volumes(store), *(_access_volumes(target, TARGET_PREFIX) if target is not None else [])]


def _pod_spec(
    task: MoverTask,
    store: BackupStore,
    claim_name: str | None,
    settings: MoverSettings,
    access: list[dict[str, Any]],
) -> dict[str, Any]:
    template = store.spec.mover
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": template.pod_security_context or DEFAULT_POD_SECURITY_CONTEXT,
        "containers": [_container(task, store, settings, access, has_volume=claim_name is not None)],
        "volumes": [
            *([_claim_volume(task, claim_name)] if claim_name is not None else []),
            *access,
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


def _claim_volume(task: MoverTask, claim_name: str) -> dict[str, Any]:
    reads_only = task.operation is MoverOperation.BACKUP and task.volume_mode is VolumeMode.FILESYSTEM
    return {"name": "volume", "persistentVolumeClaim": {"claimName": claim_name, "readOnly": reads_only}}


def _container(
    task: MoverTask, store: BackupStore, settings: MoverSettings, access: list[dict[str, Any]], *, has_volume: bool
) -> dict[str, Any]:
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
            {"name": volume["name"], "mountPath": f"{SECRETS_DIRECTORY}/{volume['name']}", "readOnly": True}
            for volume in access
        ],
    }
    if not has_volume:
        return container
    if task.volume_mode is VolumeMode.BLOCK:
        container["volumeDevices"] = [{"name": "volume", "devicePath": DEVICE_PATH}]
    else:
        reads_only = task.operation is MoverOperation.BACKUP
        container["volumeMounts"].append({"name": "volume", "mountPath": TREE_PATH, "readOnly": reads_only})
    return container


def _security_context(operation: MoverOperation) -> dict[str, Any]:
    """Return root with only the capabilities that the copy needs (Pod Security Standards: ``baseline``).

    A verification and a copy of backups touch no volume, and run without root (``restricted``).
    """
    if operation in (MoverOperation.VERIFY, MoverOperation.COPY):
        return _UNPRIVILEGED | {"runAsUser": VERIFICATION_USER, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    added = BACKUP_CAPABILITIES if operation is MoverOperation.BACKUP else RESTORE_CAPABILITIES
    return {
        "runAsUser": DEFAULT_USER,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        **_UNPRIVILEGED,
        "capabilities": {"drop": ["ALL"], "add": list(added)},
    }


_UNPRIVILEGED: dict[str, Any] = {
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
}


def _access_volumes(store: BackupStore, prefix: str = "") -> list[dict[str, Any]]:
    """Return the volumes that give a mover access to a store. Each is mounted in the directory of its name.

    The names of Secrets begin with ``prefix``, so that a mover finds those of two stores.
    """
    if isinstance(store, SharedStore):
        return [broker.token_volume()]
    references = {
        "credentials": store.spec.credentials_secret_ref,
        "encryption": store.spec.encryption_secret_ref,
        "ca": store.spec.ca_secret_ref,
    }
    found = ((f"{prefix}{directory}", reference) for directory, reference in references.items())
    return [_secret_volume(directory, reference.name) for directory, reference in found if reference]


def _secret_volume(name: str, secret: str) -> dict[str, Any]:
    # 0444: the template of a store may run the mover as another user, and the pod contains no other program.
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o444}}
