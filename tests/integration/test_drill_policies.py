"""The chart's rights and policies about drills and verifications of schedules, on a real API server.

The operator's account has exactly the rights of the chart. Checks are allowed in one of two namespaces.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api import labels
from cinderblock.api.mover import VolumeMode
from cinderblock.api.v1alpha1.schedule import BackupSchedule
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle.schedule import settings
from cinderblock.lifecycle.schedule.observed import BackupIndex, ObservedSchedule
from cinderblock.lifecycle.schedule.verification import rules
from cinderblock.lifecycle.schedule.verification.decide import ObservedVerifications, plan
from cinderblock.lifecycle.verification.check_job import check_job
from cinderblock.lifecycle.verification.restore_drill import restore_body
from tests.support.cluster.operator_policies import PolicyScene, operator_policies
from tests.support.cluster.rights import connect_as
from tests.support.schedules.builders import START, claim, record

pytestmark = pytest.mark.integration

RELEASE, ALLOWED, OTHER = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("release", "allowed", "other"))
CONTAINER = {"name": "check", "image": "example/check:1", "command": ["true"]}
CRON_JOB: dict[str, Any] = {
    "spec": {
        "schedule": "0 0 1 1 *",
        "suspend": True,
        "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}}},
    }
}
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def scene(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyScene]:
    made = PolicyScene(kubeconfig, tmp_path_factory.mktemp("drills"))
    value = f"verification.checks.namespaces={{{ALLOWED}}}"
    with operator_policies(made, RELEASE, value, namespaces=(ALLOWED, OTHER)):
        yield made


@pytest.fixture
async def operator(scene: PolicyScene) -> AsyncIterator[KubeClient]:
    """A client with the operator's token."""
    async with aclosing(await connect_as(scene.kubeconfig, RELEASE, RELEASE, scene.directory)) as connected:
        yield connected


async def a_verification(client: KubeClient, namespace: str) -> BackupVerification:
    rule = {"check": {"cronJobName": "check"}}
    spec = {"level": "Restore", "volumeId": "data", "restore": rule}
    body = {"metadata": {"generateName": "drill-", "namespace": namespace, "name": f"drill-{uuid.uuid4().hex[:8]}"}}
    made = BackupVerification.model_validate(await client.create(kinds.BACKUP_VERIFICATION, body | {"spec": spec}))
    status = made.status.model_copy(update={"backup_id": str(uuid.uuid4())})
    return made.model_copy(update={"status": status})


def a_check(verification: BackupVerification, mode: VolumeMode = VolumeMode.FILESYSTEM) -> dict[str, Any]:
    return check_job(verification, CRON_JOB, labels.child_name(verification.uid), mode, 600)


@pytest.mark.parametrize("mode", VolumeMode)
async def test_check_runs_where_the_role_is_bound(client: KubeClient, operator: KubeClient, mode: VolumeMode) -> None:
    verification = await a_verification(client, ALLOWED)
    job = await operator.create(kinds.JOB, a_check(verification, mode))
    await operator.delete(kinds.JOB, job["metadata"]["name"], ALLOWED, uid=job["metadata"]["uid"])


async def test_check_is_refused_where_the_role_is_not_bound(client: KubeClient, operator: KubeClient) -> None:
    verification = await a_verification(client, OTHER)
    with pytest.raises(AccessDenied, match=f"{RELEASE}-checks"):
        await operator.create(kinds.JOB, a_check(verification))


async def test_cron_jobs_are_read_only_where_the_role_is_bound(client: KubeClient, operator: KubeClient) -> None:
    for namespace in (ALLOWED, OTHER):
        await client.create(kinds.CRON_JOB, {"metadata": {"name": "check", "namespace": namespace}} | CRON_JOB)
    assert await operator.get(kinds.CRON_JOB, "check", ALLOWED) is not None
    with pytest.raises(AccessDenied):
        await operator.get(kinds.CRON_JOB, "check", OTHER)


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def _token(job: dict[str, Any]) -> None:
    source = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    _pod(job)["volumes"].append({"name": "token"} | source)


FORGED_CHECKS: dict[str, Change] = {
    "a volume that it may write to": lambda job: _pod(job)["volumes"][0]["persistentVolumeClaim"].pop("readOnly"),
    "a mount that it may write to": lambda job: _pod(job)["containers"][0]["volumeMounts"][0].pop("readOnly"),
    "another path": lambda job: _pod(job)["containers"][0]["volumeMounts"][0].update(mountPath="/elsewhere"),
    "the volume of a user": lambda job: _pod(job)["volumes"][0]["persistentVolumeClaim"].update(claimName="data"),
    "no volume": lambda job: (_pod(job).pop("volumes"), _pod(job)["containers"][0].pop("volumeMounts")),
    "repetitions": lambda job: job["spec"].update(backoffLimit=3),
    "no time limit": lambda job: job["spec"].pop("activeDeadlineSeconds"),
    "restarts": lambda job: _pod(job).update(restartPolicy="OnFailure"),
    "parallel pods": lambda job: job["spec"].update(parallelism=10),
    "a token": lambda job: _pod(job).update(automountServiceAccountToken=True),
    "a projected token": _token,
    "another name": lambda job: job["metadata"].update(name="check"),
    "another owner": lambda job: job["metadata"]["ownerReferences"][0].update(kind="VolumeBackup"),
    "a finalizer": lambda job: job["metadata"].update(finalizers=["example.org/held"]),
}


@pytest.mark.parametrize("change", FORGED_CHECKS.values(), ids=FORGED_CHECKS)
async def test_any_other_check_is_refused(client: KubeClient, operator: KubeClient, change: Change) -> None:
    job = copy.deepcopy(a_check(await a_verification(client, ALLOWED)))
    change(job)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.create(kinds.JOB, job)


async def test_restore_of_a_drill_is_created_and_deleted(client: KubeClient, operator: KubeClient) -> None:
    body = restore_body(await a_verification(client, OTHER))
    made = await operator.create(kinds.VOLUME_RESTORE, body)
    await operator.delete(kinds.VOLUME_RESTORE, made["metadata"]["name"], OTHER, uid=made["metadata"]["uid"])


FORGED_RESTORES: dict[str, Change] = {
    "a volume of a user": lambda body: body["spec"].update(volumeId="data"),
    "another name": lambda body: body["spec"].update(name="data"),
    "a backup of another namespace": lambda body: body["spec"].update(backupNamespace="shop"),
    "no owner": lambda body: body["metadata"].pop("ownerReferences"),
    "an owner of another kind": lambda body: body["metadata"]["ownerReferences"][0].update(kind="VolumeBackup"),
    "a finalizer": lambda body: body["metadata"].update(finalizers=["example.org/held"]),
}


@pytest.mark.parametrize("change", FORGED_RESTORES.values(), ids=FORGED_RESTORES)
async def test_any_other_restore_is_refused(client: KubeClient, operator: KubeClient, change: Change) -> None:
    body = restore_body(await a_verification(client, OTHER))
    change(body)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.create(kinds.VOLUME_RESTORE, body)


async def test_restore_of_a_user_is_not_deleted(client: KubeClient, operator: KubeClient) -> None:
    body = {"metadata": {"name": "mine", "namespace": OTHER}, "spec": {"backupId": "full"}}
    await client.create(kinds.VOLUME_RESTORE, body)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.delete(kinds.VOLUME_RESTORE, "mine", OTHER)


async def a_scheduled(client: KubeClient) -> dict[str, Any]:
    """Return a BackupVerification as a schedule makes it."""
    name = f"nightly{uuid.uuid4().hex[:8]}"
    spec = {"schedule": "0 2 * * *", "spread": "0s", "verification": {"data": {"schedule": "* * * * *", "parts": 3}}}
    body = {"metadata": {"name": name, "namespace": OTHER}, "spec": spec}
    created = await client.create(kinds.BACKUP_SCHEDULE, body)
    created["metadata"]["creationTimestamp"] = START.isoformat()
    schedule = BackupSchedule.model_validate(created)
    volume = claim("data", OTHER)
    parsed = settings.parse(schedule)
    observed = ObservedSchedule(schedule, parsed, (volume,), BackupIndex([record("full", volume)]))
    seen = ObservedVerifications(observed, rules.parse(schedule, parsed.spread))
    now = START.replace(minute=30)
    [level] = plan(seen, now).levels
    [creation] = level.creations
    return creation.body


async def test_verification_of_a_schedule_is_created_and_deleted_when_it_has_ended(
    client: KubeClient, operator: KubeClient
) -> None:
    made = await operator.create(kinds.BACKUP_VERIFICATION, await a_scheduled(client))
    name = made["metadata"]["name"]
    with pytest.raises(AccessDenied, match="that has ended"):
        await operator.delete(kinds.BACKUP_VERIFICATION, name, OTHER)
    patch = {"status": {"phase": "verified"}}
    await operator.merge_patch(kinds.BACKUP_VERIFICATION, name, OTHER, patch, subresource="status")
    await operator.delete(kinds.BACKUP_VERIFICATION, name, OTHER)
    assert await client.get(kinds.BACKUP_VERIFICATION, name, OTHER) is None


FORGED_VERIFICATIONS: dict[str, Change] = {
    "a backup": lambda body: body["spec"].update(backupId=body["spec"].pop("volumeId")),
    "no schedule": lambda body: body["metadata"].pop("annotations"),
    "no owner": lambda body: body["metadata"].pop("ownerReferences"),
    "another owner": lambda body: body["metadata"]["ownerReferences"][0].update(name="other"),
    "a finalizer": lambda body: body["metadata"].update(finalizers=["cinderblock.io/verification-cleanup"]),
}


@pytest.mark.parametrize("change", FORGED_VERIFICATIONS.values(), ids=FORGED_VERIFICATIONS)
async def test_any_other_verification_is_refused(client: KubeClient, operator: KubeClient, change: Change) -> None:
    body = await a_scheduled(client)
    change(body)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.create(kinds.BACKUP_VERIFICATION, body)


async def test_verification_of_a_user_is_not_deleted(client: KubeClient, operator: KubeClient) -> None:
    made = await a_verification(client, OTHER)
    patch = {"status": {"phase": "verified"}}
    await operator.merge_patch(kinds.BACKUP_VERIFICATION, made.name, OTHER, patch, subresource="status")
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.delete(kinds.BACKUP_VERIFICATION, made.name, OTHER)
