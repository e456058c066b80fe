"""The Job of a check, made from the template of a suspended CronJob, and what such a template may not contain."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from cinderblock.api.labels import GROUP, MANAGED_BY, MANAGED_BY_LABEL
from cinderblock.api.mover import VolumeMode
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.errors import AccessDenied, CinderblockError
from cinderblock.lifecycle.children import child_metadata
from cinderblock.lifecycle.observed import OperatorAccount
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.reasons import Reason

RESTORED_PATH: Final = "/restored"
"""Where every container of a check finds the restored volume."""
VOLUME: Final = "cinderblock-restored"
"""Name of the volume in the pod of a check."""


def refusal(
    verification: BackupVerification,
    cron_job: Mapping[str, Any] | None,
    error: CinderblockError | None,
    account: OperatorAccount,
) -> Fail | None:
    """Return why the check of a verification may not run; None if it may.

    Args:
        verification: the BackupVerification; its rule names a CronJob.
        cron_job: the CronJob, if it exists and could be read.
        error: why it could not be read.
        account: the operator's own ServiceAccount.
    """
    check = verification.spec.restore.check
    if check is None:
        return None
    name = f"CronJob {check.cron_job_name}"
    if error is not None:
        return Fail(Reason.CHECK_NOT_PERMITTED, _unreadable(name, verification.namespace, error, account))
    if cron_job is None:
        message = f"Cannot run the check: {name} does not exist in the namespace. Create it, with suspend: true."
        return Fail(Reason.CHECK_NOT_FOUND, message)
    if cron_job["spec"].get("suspend") is not True:
        message = f"Cannot run the check: {name} is not suspended. Set its spec.suspend to true: a check has no times."
        return Fail(Reason.CHECK_NOT_PERMITTED, message)
    problem = _problem(cron_job["spec"]["jobTemplate"], verification.namespace, account)
    return Fail(Reason.CHECK_NOT_PERMITTED, f"Cannot run the check of {name}: {problem}") if problem else None


def _unreadable(name: str, namespace: str, error: CinderblockError, account: OperatorAccount) -> str:
    if not isinstance(error, AccessDenied):
        return f"Cannot read {name} of the check: {error.message}"
    return (
        f"Cannot read {name} of the check: the operator may not run checks in namespace {namespace}. An administrator"
        f" allows it with: kubectl create rolebinding {account.name}-checks --namespace={namespace}"
        f" --clusterrole={account.name}-checks --serviceaccount={account.namespace}:{account.name}"
    )


def _problem(template: Mapping[str, Any], namespace: str, account: OperatorAccount) -> str:
    """Return what a template contains that a check may not have, and the remedy; empty: nothing."""
    pod_template = template["spec"]["template"]
    pod = pod_template["spec"]
    metadata = [made.get("metadata") or {} for made in (template, pod_template)]
    problems = (
        *map(_problem_of_metadata, metadata),
        _problem_of_account(pod, namespace, account),
        *map(_problem_of_volume, pod.get("volumes") or ()),
        *map(_problem_of_container, _containers(pod)),
    )
    return next(filter(None, problems), "")


def _problem_of_metadata(metadata: Mapping[str, Any]) -> str:
    given = metadata.get("labels") or {}
    for key in (*given, *(metadata.get("annotations") or {})):
        if key.startswith(f"{GROUP}/"):
            return f"its template has {key}, which only Cinderblock sets. Remove it."
    is_ours = given.get(MANAGED_BY_LABEL) == MANAGED_BY
    return f"its template has the label {MANAGED_BY_LABEL} of Cinderblock. Remove it." if is_ours else ""


def _problem_of_account(pod: Mapping[str, Any], namespace: str, account: OperatorAccount) -> str:
    is_own = (namespace, pod.get("serviceAccountName")) == (account.namespace, account.name)
    return "its template uses the ServiceAccount of Cinderblock. Use another one." if is_own else ""


def _problem_of_volume(volume: Mapping[str, Any]) -> str:
    if volume["name"] == VOLUME:
        return f"its template has a volume {VOLUME}, which Cinderblock adds. Use another name."
    sources = (volume.get("projected") or {}).get("sources") or ()
    has_token = any("serviceAccountToken" in source for source in sources)
    return f"its volume {volume['name']} holds a token of a ServiceAccount. Remove it." if has_token else ""


def _problem_of_container(container: Mapping[str, Any]) -> str:
    paths = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
    paths += [device["devicePath"] for device in container.get("volumeDevices") or ()]
    is_taken = any(f"{path.rstrip('/')}/".startswith(f"{RESTORED_PATH}/") for path in paths)
    return f"its container {container['name']} uses {RESTORED_PATH} itself. Use another path." if is_taken else ""


def _containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*(pod.get("initContainers") or ()), *pod["containers"]]


def check_job(
    verification: BackupVerification, cron_job: Mapping[str, Any], claim_name: str, mode: VolumeMode, seconds: int
) -> dict[str, Any]:
    """Return the Job of a check. Its containers are those of the template, and see the restored volume read-only.

    Nothing else of the template's Job is used: the check runs once, and its exit code decides.

    Args:
        verification: the BackupVerification.
        cron_job: the CronJob with the template.
        claim_name: name of the scratch claim.
        mode: whether it is a file system or a device.
        seconds: time limit of the check.
    """
    metadata = child_metadata(verification)
    template = cron_job["spec"]["jobTemplate"]["spec"]
    given = template["template"].get("metadata") or {}
    seconds = min(seconds, template.get("activeDeadlineSeconds") or seconds)
    pod = copy.deepcopy(template["template"]["spec"])
    for container in _containers(pod):
        _mount(container, mode)
    source = {"claimName": claim_name, "readOnly": True}
    pod |= {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "volumes": [*(pod.get("volumes") or ()), {"name": VOLUME, "persistentVolumeClaim": source}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": max(1, seconds),
            "template": {
                "metadata": {
                    "labels": {**(given.get("labels") or {}), **metadata["labels"]},
                    "annotations": {**(given.get("annotations") or {}), **metadata["annotations"]},
                },
                "spec": pod,
            },
        },
    }


def _mount(container: dict[str, Any], mode: VolumeMode) -> None:
    if mode is VolumeMode.BLOCK:
        devices = container.get("volumeDevices") or []
        container["volumeDevices"] = [*devices, {"name": VOLUME, "devicePath": RESTORED_PATH}]
        return
    mounts = container.get("volumeMounts") or []
    container["volumeMounts"] = [*mounts, {"name": VOLUME, "mountPath": RESTORED_PATH, "readOnly": True}]
