"""Movers of shared stores: a token for the broker, no Secret, and a task that says where the broker is."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cinderblock.api import layout
from cinderblock.api.broker import AUDIENCE, TOKEN_SECONDS, BrokerLocation
from cinderblock.api.meta import Object
from cinderblock.api.mover import MoverTask, task_from_env
from cinderblock.api.origin import Consistency
from cinderblock.api.v1alpha1.backup import VolumeBackupStatus
from cinderblock.api.v1alpha1.cluster_store import ClusterBackupStore, SharedStore
from cinderblock.api.v1alpha1.store import BackupStore, MoverAccess
from cinderblock.api.v1alpha1.verification import BackupVerification
from cinderblock.lifecycle.actions import CreateChild, Decision
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.backup import task as backup_task
from cinderblock.lifecycle.mover import broker
from cinderblock.lifecycle.mover.job import mover_job
from cinderblock.lifecycle.observed import ObservedMover, StoreLookup
from cinderblock.lifecycle.restore import decide as restore_decide
from cinderblock.lifecycle.store import place, shared
from cinderblock.lifecycle.verdicts import Fail
from cinderblock.lifecycle.verification import task as verification_task
from cinderblock.reasons import Reason
from tests.support.simulation.observed_builders import (
    NOW,
    POLICY,
    a_claim,
    a_class,
    a_job,
    a_restore,
    a_snapshot,
    a_store,
    accepted,
    available,
    observed_backup,
    observed_restore,
)

SETTINGS = dataclasses.replace(POLICY.mover, broker_url="https://broker.system.svc:8778", broker_ca="PEM of the broker")
WITH_BROKER = dataclasses.replace(POLICY, mover=SETTINGS)
NAMESPACE = Object.model_validate({"metadata": {"name": "shop", "uid": "ns-1"}})
SECRETS = {
    "credentialsSecretRef": {"name": "hidden-s3"},
    "encryptionSecretRef": {"name": "hidden-keys"},
    "caSecretRef": {"name": "hidden-ca"},
}


def a_shared_store(**spec: Any) -> SharedStore:
    """Return the store of namespace shop that the ClusterBackupStore ``archive`` gives it."""
    cluster = ClusterBackupStore.model_validate(
        {"metadata": {"name": "archive", "uid": "cs-1"}, "spec": SECRETS | {"prefix": "all"} | spec}
    )
    metadata = {"name": "archive", "namespace": "shop", "uid": "s-1"}
    store = BackupStore.model_validate({"metadata": metadata, "spec": {"clusterStoreRef": {"name": "archive"}}})
    made = shared.share(cluster, store, NAMESPACE, "cinderblock-system")
    return made.model_copy(update={"ca_certificates": "PEM of the S3 server"})


def jobs_of(decision: Decision) -> list[dict[str, Any]]:
    """Return the Jobs that a decision creates."""
    made = [action.body for action in decision.actions if isinstance(action, CreateChild)]
    return [body for body in made if body["kind"] == "Job"]


def backup_job(store: BackupStore) -> dict[str, Any]:
    snapshot_claim = a_claim("hidden", "c-2", metadata={"ownerReferences": [{"uid": "b-1"}]})
    key = layout.manifest_key(store.spec.prefix, "c-1", "b-1")
    observed = observed_backup(
        accepted(manifestKey=key), snapshot=a_snapshot(), snapshot_claim=snapshot_claim, store=StoreLookup(store)
    )
    [job] = jobs_of(backup_decide.decide(dataclasses.replace(observed, policy=WITH_BROKER), NOW))
    return job


def restore_job(store: BackupStore) -> dict[str, Any]:
    restore = a_restore(phase="restoring")
    owners = {"ownerReferences": [{"uid": restore.uid}]}
    staging = a_claim(f"cinderblock-{restore.uid}", "c-h", volumeName="pv-9", metadata=owners)
    observed = observed_restore(restore, staging_claim=staging, store=StoreLookup(store))
    [job] = jobs_of(restore_decide.decide(dataclasses.replace(observed, policy=WITH_BROKER), NOW))
    return job


def verification_job(store: BackupStore) -> dict[str, Any]:
    metadata = {"name": "proof", "namespace": "shop", "uid": "v-1"}
    verification = BackupVerification.model_validate({"metadata": metadata, "spec": {"backupId": "b", "level": "Data"}})
    task = verification_task.mover_task(verification, available(), store, SETTINGS)
    return mover_job(verification, task, store, None, SETTINGS)


JOBS = {"backup": backup_job, "restore": restore_job, "verification": verification_job}


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def task_of(job: dict[str, Any]) -> MoverTask:
    [container] = pod_of(job)["containers"]
    text = task_from_env({variable["name"]: variable["value"] for variable in container["env"]})
    assert text is not None
    return MoverTask.model_validate_json(text)


@pytest.mark.parametrize("make", JOBS.values(), ids=JOBS)
def test_mover_of_a_shared_store_gets_a_token_and_no_secret(make: Any) -> None:
    pod = pod_of(make(a_shared_store()))
    volumes = {volume["name"]: volume for volume in pod["volumes"] if "persistentVolumeClaim" not in volume}
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    assert volumes == {
        "broker": {
            "name": "broker",
            "projected": {"sources": [{"serviceAccountToken": token}], "defaultMode": 0o444},
        }
    }
    [container] = pod["containers"]
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] != "volume"]
    assert mounts == [{"name": "broker", "mountPath": "/etc/cinderblock/broker", "readOnly": True}]
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("make", JOBS.values(), ids=JOBS)
def test_job_names_no_secret_of_a_shared_store(make: Any) -> None:
    assert "hidden-" not in json.dumps(make(a_shared_store()))


@pytest.mark.parametrize("make", JOBS.values(), ids=JOBS)
def test_task_says_where_the_broker_is(make: Any) -> None:
    task = task_of(make(a_shared_store()))
    assert task.broker == BrokerLocation(
        url="https://broker.system.svc:8778",
        ca_certificate="PEM of the broker",
        access=MoverAccess.SIGNED_REQUESTS,
        encrypts=True,
        ca_certificates="PEM of the S3 server",
    )
    assert task.store.prefix == "all/shop/ns-1"


@pytest.mark.parametrize("make", JOBS.values(), ids=JOBS)
def test_mover_of_an_own_store_gets_its_secrets_and_no_token(make: Any) -> None:
    job = make(a_store(**SECRETS))
    assert task_of(job).broker is None
    names = [volume["name"] for volume in pod_of(job)["volumes"] if "secret" in volume]
    assert names == ["credentials", "encryption", "ca"]
    assert "projected" not in json.dumps(job)


@pytest.mark.parametrize("encrypts", [True, False])
def test_backup_is_sealed_if_the_shared_store_has_keys(encrypts: bool) -> None:
    store = a_shared_store(**({} if encrypts else {"encryptionSecretRef": None}))
    task = backup_task.mover_task(observed_backup(accepted()), store, a_claim(), Consistency.LIVE)
    assert task.broker is not None
    assert (task.sealed, task.broker.encrypts) == (encrypts, encrypts)


def test_task_has_the_access_that_the_administrator_chose() -> None:
    session = {"mode": "SessionCredentials", "sessionCredentials": {"roleArn": "arn:aws:iam::1:role/movers"}}
    found = broker.location(a_shared_store(moverAccess=session), SETTINGS)
    assert found is not None
    assert found.access is MoverAccess.SESSION_CREDENTIALS


def test_shared_store_without_a_broker_still_gives_no_secrets() -> None:
    assert broker.location(a_shared_store(), POLICY.mover) is not None
    job = mover_job(accepted(), task_of(backup_job(a_shared_store())), a_shared_store(), "claim", POLICY.mover)
    assert not [volume for volume in pod_of(job)["volumes"] if "secret" in volume]


HERE = "all/shop/ns-1"
NOT_ALLOWED = Fail(Reason.STORE_NOT_ALLOWED, "The ClusterBackupStore does not allow the namespace")
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "the place": ({}, {}, "all/shop/earlier", "ManifestMisplaced"),
    "the permission": ({}, {"refusal": NOT_ALLOWED}, HERE, "StoreNotAllowed"),
    "the broker": ({"broker_url": ""}, {}, HERE, "BrokerDisabled"),
    "its authority": ({"broker_ca": ""}, {}, HERE, "BrokerUnavailable"),
}
STEPS: dict[str, dict[str, Any]] = {
    "start": {
        "snapshot": a_snapshot(),
        "snapshot_claim": a_claim("hidden", "c-2", metadata={"ownerReferences": [{"uid": "b-1"}]}),
    },
    "exposure": {"snapshot": a_snapshot(), "classes": (a_class("fast", volumeBindingMode="WaitForFirstConsumer"),)},
    "adoption": {"mover": ObservedMover(job=a_job(), is_recorded=False)},
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_while_a_backup_waits_keeps_its_mover_back(
    change: tuple[dict[str, Any], dict[str, Any], str, str], step: dict[str, Any]
) -> None:
    settings, lookup, prefix, reason = change
    store = a_shared_store()
    backup = accepted(manifestKey=layout.manifest_key(prefix, "c-1", "b-1"))
    found = StoreLookup(store, **lookup, error=place.misplaced(backup, store))
    policy = dataclasses.replace(POLICY, mover=dataclasses.replace(SETTINGS, **settings))
    observed = dataclasses.replace(observed_backup(backup, store=found, **step), policy=policy)
    decision = backup_decide.decide(observed, NOW)
    assert jobs_of(decision) == []
    assert isinstance(decision.status, VolumeBackupStatus)
    assert reason in {shown.reason for shown in decision.status.conditions}
    assert decision.status.mover is None
    before = dataclasses.replace(observed, policy=WITH_BROKER, store=StoreLookup(store))
    right = accepted(manifestKey=layout.manifest_key(HERE, "c-1", "b-1"))
    allowed = backup_decide.decide(dataclasses.replace(before, backup=right), NOW)
    assert isinstance(allowed.status, VolumeBackupStatus)
    assert jobs_of(allowed) or allowed.status.mover is not None, "without the change, it starts"
