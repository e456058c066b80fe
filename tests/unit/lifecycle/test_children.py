"""The objects that the operator creates: required content, forbidden content, Pod Security Standards."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from cinderblock.api import labels as api_labels
from cinderblock.api.kubernetes import PersistentVolume, VolumeSnapshot
from cinderblock.api.labels import STORE_LABEL
from cinderblock.api.mover import MoverOperation, MoverTask, VolumeMode
from cinderblock.api.origin import Consistency
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.api.v1alpha1.store import BackupStore, ServerSideAlgorithm, ServerSideEncryption
from cinderblock.lifecycle import children
from cinderblock.lifecycle.actions import CreateChild, Decision
from cinderblock.lifecycle.backup import decide as backup_decide
from cinderblock.lifecycle.backup import task as backup_task
from cinderblock.lifecycle.mover import job as mover_job
from cinderblock.lifecycle.observed import MoverSettings, StoreLookup
from cinderblock.lifecycle.restore import decide as restore_decide
from tests.support.simulation.observed_builders import (
    NOW,
    POLICY,
    a_backup,
    a_claim,
    a_class,
    a_manifest,
    a_restore,
    a_snapshot,
    a_store,
    accepted,
    observed_backup,
    observed_restore,
)

FOREIGN = {
    "app.kubernetes.io/instance": "argo-application",
    "argocd.argoproj.io/tracking-id": "argo",
    "kustomize.toolkit.fluxcd.io/name": "flux",
    "meta.helm.sh/release-name": "helm",
}
"""Labels and annotations by which GitOps tools recognize their objects, which they prune."""
BASELINE_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
"""Capabilities that Pod Security ``baseline`` allows a container to add."""
BASELINE_VOLUMES = {"persistentVolumeClaim", "secret"}
SETTINGS = MoverSettings("example/cinderblock:1", "Always", ("registry",))
SECRETS = {
    "credentialsSecretRef": {"name": "s3"},
    "encryptionSecretRef": {"name": "keys"},
    "caSecretRef": {"name": "ca"},
}


def owned_backup() -> VolumeBackup:
    backup = accepted()
    metadata = backup.metadata.model_copy(update={"labels": FOREIGN, "annotations": FOREIGN})
    return backup.model_copy(update={"metadata": metadata})


def owned_restore() -> VolumeRestore:
    restore = a_restore()
    metadata = restore.metadata.model_copy(update={"labels": FOREIGN, "annotations": FOREIGN})
    return restore.model_copy(update={"metadata": metadata})


def created(decision: Decision) -> list[dict[str, Any]]:
    return [action.body for action in decision.actions if isinstance(action, CreateChild)]


def all_children() -> dict[str, dict[str, Any]]:
    """Return one child of every kind. A class that binds late gets its claim together with its mover."""
    late = a_class("fast", volumeBindingMode="WaitForFirstConsumer")
    snapshot = created(backup_decide.decide(observed_backup(owned_backup()), NOW))
    exposing = observed_backup(owned_backup(), snapshot=a_snapshot(), classes=(late,))
    snapshot_claim = created(backup_decide.decide(exposing, NOW))
    filling = observed_restore(owned_restore(), wait_for_consumer_classes=("fast",))
    staging_claim = created(restore_decide.decide(filling, NOW))
    made = [("backup", body) for body in (*snapshot, *snapshot_claim)] + [("restore", body) for body in staging_claim]
    return {f"{body['kind']} of a {owner}": body for owner, body in made}


CHILDREN = all_children()


def a_task(operation: MoverOperation = MoverOperation.BACKUP, mode: VolumeMode = VolumeMode.FILESYSTEM) -> MoverTask:
    return MoverTask(
        operation=operation,
        store=children.location(a_store(), "volumebackups", ["s3.example.com"]),
        volume_mode=mode,
        path=mover_job.mover_path(mode),
        backup=a_manifest().description,
        manifest="backups/c-1/b-1.manifest",
        sealed=True,
    )


def test_tasks_contain_the_endpoints_that_the_operator_allows() -> None:
    allowed = dataclasses.replace(POLICY, mover=dataclasses.replace(SETTINGS, allowed_endpoints=("s3.example.com",)))
    owner = owned_restore()
    owners = {"ownerReferences": [{"uid": owner.uid}]}
    staging = a_claim(api_labels.child_name(owner.uid), "c-h", volumeName="pv-9", metadata=owners)
    restore = dataclasses.replace(observed_restore(owner, staging_claim=staging), policy=allowed)
    jobs = [body for body in created(restore_decide.decide(restore, NOW)) if body["kind"] == "Job"]
    assert "s3.example.com" in str(jobs)
    backup = dataclasses.replace(observed_backup(owned_backup()), policy=allowed)
    task = backup_task.mover_task(backup, a_store(), a_claim(), Consistency.LIVE)
    assert task.store.allowed_endpoints == ["s3.example.com"]


def test_task_contains_the_storage_options_of_the_store() -> None:
    options = {
        "storage_class": "STANDARD_IA",
        "server_side_encryption": ServerSideEncryption(algorithm=ServerSideAlgorithm.AES256),
    }
    location = children.location(a_store(**options), "volumebackups", ())
    assert {name: getattr(location, name) for name in options} == options


def a_job(
    operation: MoverOperation = MoverOperation.BACKUP,
    mode: VolumeMode = VolumeMode.FILESYSTEM,
    store: BackupStore | None = None,
) -> dict[str, Any]:
    owner = owned_backup() if operation is MoverOperation.BACKUP else owned_restore()
    return mover_job.mover_job(owner, a_task(operation, mode), store or a_store(**SECRETS), "the-claim", SETTINGS)


def test_job_passes_the_proxy_settings_of_the_operator() -> None:
    settings = dataclasses.replace(SETTINGS, proxies=(("HTTPS_PROXY", "http://proxy:3128"),))
    job = mover_job.mover_job(owned_backup(), a_task(), a_store(**SECRETS), "the-claim", settings)
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container_of(job)["env"]


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(job)["containers"]
    found: dict[str, Any] = container
    return found


EVERY_JOB = [(operation, mode) for operation in MoverOperation for mode in VolumeMode]


def test_every_kind_of_child_is_tested() -> None:
    assert set(CHILDREN) == {
        "VolumeSnapshot of a backup",
        "PersistentVolumeClaim of a backup",
        "Job of a backup",
        "PersistentVolumeClaim of a restore",
        "Job of a restore",
    }


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN.keys())
def test_child_is_created_with_owner_and_labels(child: dict[str, Any]) -> None:
    metadata = child["metadata"]
    (owner,) = metadata["ownerReferences"]
    kind, uid, name = owner["kind"], owner["uid"], owner["name"]
    assert owner["controller"] is True
    assert owner["apiVersion"] == "cinderblock.io/v1alpha1"
    assert (kind, uid) in (("VolumeBackup", "b-1"), ("VolumeRestore", "r-1"))
    assert (metadata["name"], metadata["namespace"]) == (api_labels.child_name(uid), "shop")
    # Only the claim of a backup goes with it, so the Job of a restore waits for a second request.
    is_started = child["kind"] == "Job" and not child["spec"]["suspend"]
    started = {api_labels.STARTED_ANNOTATION: "true"} if is_started else {}
    assert metadata["annotations"] == {api_labels.OWNER_NAME_ANNOTATION: name} | started
    expected = {
        api_labels.MANAGED_BY_LABEL: api_labels.MANAGED_BY,
        api_labels.OWNER_KIND_LABEL: kind,
        api_labels.OWNER_UID_LABEL: uid,
    }
    assert expected.items() <= metadata["labels"].items()


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN.keys())
def test_child_has_no_labels_of_gitops_tools(child: dict[str, Any]) -> None:
    text = json.dumps(child)
    assert not [mark for mark in FOREIGN if mark in text]


def test_restored_claim_is_a_child_with_the_requested_labels() -> None:
    restore = a_restore(spec={"name": "new", "labels": {"app": "shop"}})
    request = children.ClaimRequest(1 << 30, "fast", VolumeMode.BLOCK, ("ReadWriteOnce",))
    claim = children.restored_claim(restore, "new", request, "pv-9")
    assert claim == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": children.child_metadata(restore)
        | {
            "name": "new",
            "labels": {"app": "shop"} | children.child_labels(restore),
            "annotations": {"cinderblock.io/owner-name": restore.name, "cinderblock.io/volume-id": restore.uid},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Block",
            "resources": {"requests": {"storage": "1073741824"}},
            "storageClassName": "fast",
            "volumeName": "pv-9",
        },
    }


def test_claim_without_class_uses_the_cluster_default() -> None:
    request = children.ClaimRequest(5, None, VolumeMode.FILESYSTEM, ("ReadWriteMany",))
    assert "storageClassName" not in children.claim(a_restore(), request)["spec"]


def test_snapshot_claim_has_the_size_of_the_snapshot() -> None:
    snapshot = a_snapshot(restoreSize="3Gi")
    claim = next(
        body
        for body in created(backup_decide.decide(observed_backup(accepted(), snapshot=snapshot), NOW))
        if body["kind"] == "PersistentVolumeClaim"
    )
    assert claim["spec"]["resources"]["requests"]["storage"] == str(3 << 30)
    assert claim["spec"]["dataSource"] == {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": snapshot.name,
    }


def test_job_has_a_finalizer_and_no_ttl() -> None:
    job = a_job()
    assert job["metadata"]["finalizers"] == [api_labels.JOB_FINALIZER]
    assert "ttlSecondsAfterFinished" not in job["spec"]


def test_job_fails_on_permanent_exit_code_and_ignores_evictions() -> None:
    spec = a_job()["spec"]
    never, evicted = spec["podFailurePolicy"]["rules"]
    assert spec["backoffLimit"] == 3
    assert (never["action"], never["onExitCodes"]["values"]) == ("FailJob", [3])
    assert never["onExitCodes"]["containerName"] == container_of(a_job())["name"]
    assert evicted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_job_replaces_a_pod_only_after_its_end() -> None:
    """Two movers must not write to one volume (Kubernetes: podReplacementPolicy)."""
    assert a_job()["spec"]["podReplacementPolicy"] == "Failed"
    assert pod_of(a_job())["restartPolicy"] == "Never"


@pytest.mark.parametrize(("operation", "mode"), EVERY_JOB)
def test_mover_has_no_token_and_meets_pod_security_baseline(operation: MoverOperation, mode: VolumeMode) -> None:
    pod, container = pod_of(a_job(operation, mode)), container_of(a_job(operation, mode))
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "serviceAccountName"} & set(pod)
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert all(set(volume) - {"name"} <= BASELINE_VOLUMES for volume in pod["volumes"])
    security = container["securityContext"]
    assert security["privileged"] is False
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    assert set(security["capabilities"].get("add", ())) <= BASELINE_CAPABILITIES
    assert not {"ports", "procMount", "seLinuxOptions", "sysctls"} & (set(container) | set(security))


def test_backup_mover_may_not_change_owners() -> None:
    added = {
        operation: container_of(a_job(operation))["securityContext"]["capabilities"].get("add", [])
        for operation in MoverOperation
    }
    assert added[MoverOperation.BACKUP] == ["DAC_OVERRIDE", "FOWNER"]
    assert set(added[MoverOperation.BACKUP]) < set(added[MoverOperation.RESTORE])
    assert added[MoverOperation.VERIFY] == [], "it has no volume"


@pytest.mark.parametrize(("operation", "mode"), EVERY_JOB)
def test_block_volume_is_a_device_and_backup_mount_is_read_only(operation: MoverOperation, mode: VolumeMode) -> None:
    job = a_job(operation, mode)
    reads = operation is MoverOperation.BACKUP
    mounts = [mount for mount in container_of(job)["volumeMounts"] if mount["name"] == "volume"]
    source = pod_of(job)["volumes"][0]["persistentVolumeClaim"]
    if mode is VolumeMode.BLOCK:
        assert container_of(job)["volumeDevices"] == [{"name": "volume", "devicePath": "/dev/cinderblock-volume"}]
        assert (mounts, source) == ([], {"claimName": "the-claim", "readOnly": False})
    else:
        assert "volumeDevices" not in container_of(job)
        assert mounts == [{"name": "volume", "mountPath": "/volume", "readOnly": reads}]
        assert source == {"claimName": "the-claim", "readOnly": reads}


def test_task_survives_the_round_trip_through_the_job() -> None:
    (variable,) = container_of(a_job())["env"]
    assert variable["name"] == "CINDERBLOCK_TASK"
    assert MoverTask.model_validate_json(variable["value"]) == a_task()


def test_kubelet_expands_nothing_in_a_task() -> None:
    words = {"price": "$$5", "host": "$(KUBERNETES_SERVICE_HOST)"}
    task = a_task()
    task = task.model_copy(update={"backup": task.backup.model_copy(update={"metadata": words})})
    job = mover_job.mover_job(owned_backup(), task, a_store(), "the-claim", SETTINGS)
    value = container_of(job)["env"][0]["value"]
    assert "$" not in value
    assert MoverTask.model_validate_json(value).backup.metadata == words


def test_template_adds_no_volumes_containers_or_host_access() -> None:
    template = {
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        "containers": [{"name": "another", "image": "evil"}],
        "initContainers": [{"name": "another", "image": "evil"}],
        "image": "evil",
        "args": ["sh"],
        "env": [{"name": "X", "value": "Y"}],
        "hostNetwork": True,
        "hostPID": True,
        "nodeName": "control-plane",
        "automountServiceAccountToken": True,
    }
    assert a_job(store=a_store(**SECRETS, mover=template)) == a_job(store=a_store(**SECRETS))


def test_secrets_are_mounted_and_never_passed_as_values() -> None:
    job = a_job()
    secrets = {volume["name"]: volume["secret"] for volume in pod_of(job)["volumes"] if "secret" in volume}
    assert {name: secret["secretName"] for name, secret in secrets.items()} == {
        "credentials": "s3",
        "encryption": "keys",
        "ca": "ca",
    }
    mounts = {mount["name"]: mount for mount in container_of(job)["volumeMounts"] if mount["name"] in secrets}
    assert all(mount["readOnly"] for mount in mounts.values())
    assert mounts["credentials"]["mountPath"] == "/etc/cinderblock/credentials"
    assert "envFrom" not in container_of(job)
    assert all(set(variable) == {"name", "value"} for variable in container_of(job)["env"])


def test_absent_secrets_are_not_mounted() -> None:
    job = a_job(store=a_store())
    assert [volume["name"] for volume in pod_of(job)["volumes"]] == ["volume", "credentials"]


def test_template_sets_scheduling_and_security_of_movers() -> None:
    template = {
        "resources": {"limits": {"memory": "1Gi"}},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "low",
        "serviceAccountName": "movers",
        "securityContext": {"runAsUser": 1000},
        "podSecurityContext": {"fsGroup": 1000},
        "labels": {"team": "storage"},
        "annotations": {"sidecar.istio.io/inject": "false"},
    }
    job = a_job(store=a_store(mover=template))
    pod, container = pod_of(job), container_of(job)
    same = ("nodeSelector", "tolerations", "affinity", "priorityClassName", "serviceAccountName")
    assert {name: pod[name] for name in same} == {name: template[name] for name in same}
    assert pod["securityContext"] == {"fsGroup": 1000}
    assert container["securityContext"] == {"runAsUser": 1000}
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    assert pod["automountServiceAccountToken"] is False
    metadata = job["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "storage"
    assert metadata["annotations"]["sidecar.istio.io/inject"] == "false"


def test_template_labels_do_not_replace_owner_labels() -> None:
    labels = {api_labels.OWNER_UID_LABEL: "another", api_labels.MANAGED_BY_LABEL: "somebody"}
    metadata = a_job(store=a_store(mover={"labels": labels}))["spec"]["template"]["metadata"]
    assert metadata["labels"][api_labels.OWNER_UID_LABEL] == "b-1"
    assert metadata["labels"][api_labels.MANAGED_BY_LABEL] == api_labels.MANAGED_BY


def test_settings_of_the_operator_select_the_image() -> None:
    pod, container = pod_of(a_job()), container_of(a_job())
    assert (container["image"], container["imagePullPolicy"]) == ("example/cinderblock:1", "Always")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert container["resources"]["limits"] == {"memory": "512Mi"}


def test_job_has_the_uid_of_its_store_as_label() -> None:
    assert a_job()["metadata"]["labels"][STORE_LABEL] == "s-1"


def test_task_contains_the_manifest_of_the_parent() -> None:
    parent = accepted("p", phase="available", dataTimestamp=NOW)
    child = accepted(spec={"incremental": True}, parentId="p")
    snapshot_claim = a_claim("hidden", "c-2", metadata={"ownerReferences": [{"uid": "b-1"}]})
    observed = observed_backup(child, siblings=(parent,), snapshot=a_snapshot(), snapshot_claim=snapshot_claim)
    (job,) = created(backup_decide.decide(observed, NOW))
    task = MoverTask.model_validate_json(container_of(job)["env"][0]["value"])
    assert task.parent_manifest == "backups/c-1/p.manifest"


@pytest.mark.parametrize(
    ("storage_class", "detection"), [("fast", "SizeMtimeCtime"), ("nfs", "SizeMtime"), (None, "SizeMtimeCtime")]
)
def test_task_contains_change_detection_of_the_storage_class(storage_class: str | None, detection: str) -> None:
    rules = {"default": "SizeMtimeCtime", "storageClasses": {"nfs": "SizeMtime", "slow": "Content"}}
    source = a_claim(storageClassName=storage_class)
    snapshot_claim = a_claim("hidden", "c-2", metadata={"ownerReferences": [{"uid": "b-1"}]})
    store = StoreLookup(a_store(changeDetection=rules))
    observed = observed_backup(
        accepted(), snapshot=a_snapshot(), claim=source, snapshot_claim=snapshot_claim, store=store
    )
    (job,) = created(backup_decide.decide(observed, NOW))
    task = MoverTask.model_validate_json(container_of(job)["env"][0]["value"])
    assert task.change_detection == detection


@pytest.mark.parametrize(
    ("options", "detection"),
    [(["noatime"], "SizeMtimeCtime"), (["noatime", "lazytime"], "Content"), (["noatime,lazytime"], "Content")],
)
def test_mover_reads_all_files_of_a_lazytime_volume(options: list[str], detection: str) -> None:
    snapshot_claim = a_claim("hidden", "c-2", metadata={"ownerReferences": [{"uid": "b-1"}]})
    store = StoreLookup(a_store(changeDetection={"default": "SizeMtimeCtime"}))
    volume = PersistentVolume.model_validate({"spec": {"mountOptions": options}})
    observed = observed_backup(
        accepted(), snapshot=a_snapshot(), snapshot_claim=snapshot_claim, store=store, volume=volume
    )
    (job,) = created(backup_decide.decide(observed, NOW))
    task = MoverTask.model_validate_json(container_of(job)["env"][0]["value"])
    assert task.change_detection == detection


@pytest.mark.parametrize(("storage_class", "seconds"), [("fast", 3600), ("nfs", 7260), (None, 3600)])
def test_task_contains_dirty_window_and_comparison_interval(storage_class: str | None, seconds: int) -> None:
    store = StoreLookup(
        a_store(dirtyWindow={"storageClasses": {"nfs": "2h1m", "slow": "2m"}}, compareEvery=7, renewBelow=25)
    )
    source = a_claim(storageClassName=storage_class)
    snapshot_claim = a_claim("hidden", "c-2", metadata={"ownerReferences": [{"uid": "b-1"}]})
    observed = observed_backup(
        accepted(), snapshot=a_snapshot(), claim=source, snapshot_claim=snapshot_claim, store=store
    )
    (job,) = created(backup_decide.decide(observed, NOW))
    task = MoverTask.model_validate_json(container_of(job)["env"][0]["value"])
    assert (task.dirty_window_seconds, task.compare_every, task.renew_below) == (seconds, 7, 25)


EARLIER, LATER = NOW - timedelta(hours=2), NOW + timedelta(hours=2)
DYNAMIC, IMPORTED = {"persistentVolumeClaimName": "data"}, {"volumeSnapshotContentName": "content"}


def given(source: dict[str, str], *, made: datetime, cut: datetime | None) -> VolumeSnapshot:
    """Return a VolumeSnapshot that the user created."""
    return VolumeSnapshot.model_validate(
        {
            "metadata": {"name": "mine", "uid": "sn-2", "creationTimestamp": made},
            "spec": {"source": source},
            "status": {"readyToUse": True, "creationTime": cut},
        }
    )


@pytest.mark.parametrize(
    ("snapshot", "instant"),
    [
        (given(DYNAMIC, made=EARLIER, cut=EARLIER), EARLIER),
        (given(DYNAMIC, made=EARLIER, cut=NOW), EARLIER),
        (given(DYNAMIC, made=NOW, cut=EARLIER), EARLIER),
        (given(DYNAMIC, made=EARLIER, cut=None), EARLIER),
        (given(IMPORTED, made=NOW, cut=EARLIER), EARLIER),
        (given(IMPORTED, made=LATER, cut=LATER), NOW),
        (given(IMPORTED, made=EARLIER, cut=None), None),
        (None, None),
    ],
)
def test_given_snapshot_has_the_earliest_possible_data_instant(
    snapshot: VolumeSnapshot | None, instant: datetime | None
) -> None:
    backup = a_backup(spec={"volumeId": "data", "snapshotId": "mine"})
    created_now = backup.model_copy(update={"metadata": backup.metadata.model_copy(update={"creation_timestamp": NOW})})
    assert backup_task.data_instant(observed_backup(created_now, given_snapshot=snapshot)) == instant


@pytest.mark.parametrize(("cut", "instant"), [(EARLIER, EARLIER), (LATER, NOW), (None, NOW)])
def test_own_snapshot_is_not_older_than_the_backup(cut: datetime | None, instant: datetime) -> None:
    backup = a_backup()
    created_now = backup.model_copy(update={"metadata": backup.metadata.model_copy(update={"creation_timestamp": NOW})})
    assert backup_task.data_instant(observed_backup(created_now, snapshot=a_snapshot(creationTime=cut))) == instant
    assert backup_task.data_instant(observed_backup(created_now)) == NOW


def test_child_name_depends_only_on_the_uid() -> None:
    one, other = a_backup(), a_backup(spec={"volumeId": "else"})
    assert children.child_metadata(one)["name"] == children.child_metadata(other)["name"] == "cinderblock-b-1"


EXTRA_SETTINGS = dataclasses.replace(
    SETTINGS,
    labels=(("team", "operator"), ("cost", "7"), (api_labels.MANAGED_BY_LABEL, "somebody")),
    annotations=(("mesh", "no"), (api_labels.OWNER_NAME_ANNOTATION, "somebody")),
)
EXTRA_STORE = a_store(mover={"labels": {"team": "store", api_labels.OWNER_UID_LABEL: "x"}, "annotations": {"a": "b"}})


def children_with_extras() -> dict[str, dict[str, Any]]:
    """Return one child of every kind of a cluster that wants labels, and of a store that sets reserved ones."""
    extras = children.extras_of(EXTRA_STORE, EXTRA_SETTINGS)
    request = children.ClaimRequest(1 << 30, "fast", VolumeMode.FILESYSTEM, ("ReadWriteOnce",))
    job = mover_job.mover_job(owned_backup(), a_task(), EXTRA_STORE, "the-claim", EXTRA_SETTINGS)
    return {
        "snapshot": children.volume_snapshot(owned_backup(), "data", "snap", extras),
        "claim": children.claim(owned_restore(), request, extras),
        "job": job,
        "pod": job["spec"]["template"],
    }


@pytest.mark.parametrize("kind", ["snapshot", "claim", "job", "pod"])
def test_children_have_the_extras_and_our_keys_win(kind: str) -> None:
    metadata = children_with_extras()[kind]["metadata"]
    assert (metadata["labels"]["team"], metadata["labels"]["cost"]) == ("store", "7")
    assert (metadata["annotations"]["mesh"], metadata["annotations"]["a"]) == ("no", "b")
    assert metadata["labels"][api_labels.MANAGED_BY_LABEL] == api_labels.MANAGED_BY
    assert metadata["labels"][api_labels.OWNER_UID_LABEL] in ("b-1", "r-1")
    assert metadata["annotations"][api_labels.OWNER_NAME_ANNOTATION] in ("backup-b-1", "restore-r-1")


def test_restored_claim_gets_extras_that_its_restore_does_not_set() -> None:
    request = children.ClaimRequest(1 << 30, "fast", VolumeMode.FILESYSTEM, ("ReadWriteOnce",))
    restore = a_restore(spec={"name": "new", "labels": {"team": "web"}, "annotations": {"note": "x"}})
    extras = children.Extras(
        {"team": "all", "cost": "7"}, {"note": "y", "a": "b", api_labels.VOLUME_ID_ANNOTATION: "z"}
    )
    metadata = children.restored_claim(restore, "new", request, "pv-1", extras)["metadata"]
    assert metadata["labels"] == {"team": "web", "cost": "7"} | children.child_labels(restore)
    assert (metadata["annotations"]["note"], metadata["annotations"]["a"]) == ("x", "b")
    assert metadata["annotations"][api_labels.VOLUME_ID_ANNOTATION] == restore.uid


def test_restored_claim_has_only_what_its_restore_requests() -> None:
    request = children.ClaimRequest(1 << 30, "fast", VolumeMode.FILESYSTEM, ("ReadWriteOnce",))
    restore = a_restore(spec={"name": "new", "labels": {"app": "web"}, "annotations": {"note": "x"}})
    metadata = children.restored_claim(restore, "new", request, "pv-1")["metadata"]
    assert metadata["labels"] == {"app": "web"} | children.child_labels(restore)
    assert metadata["annotations"] == {
        "note": "x",
        api_labels.OWNER_NAME_ANNOTATION: restore.name,
        api_labels.VOLUME_ID_ANNOTATION: restore.uid,
    }


def test_restored_claim_cannot_hide_its_owner() -> None:
    request = children.ClaimRequest(1 << 30, "fast", VolumeMode.FILESYSTEM, ("ReadWriteOnce",))
    restore = a_restore(spec={"name": "new", "annotations": {api_labels.OWNER_NAME_ANNOTATION: "x"}})
    metadata = children.restored_claim(restore, "new", request, "pv-1")["metadata"]
    assert metadata["annotations"][api_labels.OWNER_NAME_ANNOTATION] == restore.name
