"""Claims get the backup that they ask for with dataSourceRef, in both binding modes, or they wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster.cluster import RELEASE, RELEASE_NAMESPACE, KubeCluster, Object
from tests.support.cluster.namespaces import CREDENTIALS, Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = pytest.mark.e2e

LATE = "rawfile-wffc"


def asking(tenant: Tenant, name: str, source: str, kind: str = "RestoreSource", **options: Any) -> Object:
    """Return a claim that asks for a backup."""
    body = claim(tenant.kube, tenant.name, name, **options)
    body["spec"]["dataSourceRef"] = {"apiGroup": "cinderblock.io", "kind": kind, "name": source}
    return body


def source(tenant: Tenant, name: str, **spec: Any) -> Object:
    """Return a RestoreSource."""
    metadata = {"name": name, "namespace": tenant.name}
    return {"apiVersion": "cinderblock.io/v1alpha1", "kind": "RestoreSource", "metadata": metadata, "spec": spec}


def write(tenant: Tenant, volume: str, text: str) -> None:
    """Write a file to a volume."""
    command = ("python3", "-c", f"open('/volume/file', 'w').write({text!r})")
    run_pod(tenant.kube, tenant.name, OneShotPod(f"write-{volume}", command, (Mount(volume, "/volume"),)))


def read(tenant: Tenant, volume: str) -> list[str]:
    """Return the files of a volume with their content. The pod exists before the claim is bound."""
    program = "import os; print(*(n + '=' + open('/volume/' + n).read() for n in os.listdir('/volume') if n == 'file'))"
    one_shot = OneShotPod(f"read-{volume}", ("python3", "-c", program), (Mount(volume, "/volume"),))
    return run_pod(tenant.kube, tenant.name, one_shot, timeout=180).split()


def is_bound(tenant: Tenant, name: str) -> bool:
    """Return whether a claim is bound."""
    return bool(tenant.get("pvc", name)["status"].get("phase") == "Bound")


def becomes_bound(tenant: Tenant, name: str) -> Object:
    """Wait until a claim is bound, and return its PersistentVolume."""
    tenant.wait_until(f"bound claim {name}", lambda: is_bound(tenant, name), timeout=180)
    volume = tenant.kube.get("pv", tenant.get("pvc", name)["spec"]["volumeName"])
    assert volume is not None
    return volume


def reports(tenant: Tenant, name: str, reason: str) -> str:
    """Wait for an Event of a claim, and return its note."""

    def seen() -> str | None:
        found = [event for event in tenant.events(name) if event["reason"] == reason]
        return str(found[0]["message"]) if found else None

    note: str = tenant.wait_until(f"Event {reason} of claim {name}", seen, timeout=90)
    return note


def lose(tenant: Tenant, *names: str) -> None:
    """Back up claims, and lose them and their VolumeBackups. The data stays in the store."""
    tenant.kube.apply(*(tenant.backup(f"of-{name}", name, deletionPolicy="Retain") for name in names))
    tenant.ends(*(f"volumebackup/of-{name}" for name in names))
    tenant.delete(*(f"volumebackup/of-{name}" for name in names))
    tenant.kubectl("delete", "pvc", *names, "--timeout=60s")
    tenant.kept |= tenant.keys()


@pytest.fixture
def lost(tenant: Tenant) -> Tenant:
    """Return a namespace that has lost its claim ``files``, and whose store has a backup of it."""
    tenant.kube.apply(claim(tenant.kube, tenant.name, "files"))
    write(tenant, "files", "first")
    lose(tenant, "files")
    return tenant


def test_claim_is_filled_from_the_backup_that_it_names(tenant: Tenant) -> None:
    kube = tenant.kube
    kube.apply(claim(kube, tenant.name, "files"), asking(tenant, "copy", "full", "VolumeBackup"))
    write(tenant, "files", "first")
    reports(tenant, "copy", "SourceNotFound")

    kube.apply(tenant.backup("full", "files"))

    assert read(tenant, "copy") == ["file=first"]
    volume = becomes_bound(tenant, "copy")
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert "cinderblock.io/restore-uid" not in volume["metadata"].get("labels", {})
    reports(tenant, "copy", "Populated")


@pytest.mark.long
def test_replicas_of_a_stateful_set_get_their_own_backups(tenant: Tenant) -> None:
    kube = tenant.kube
    if not kube.is_own:
        pytest.skip("needs the WaitForFirstConsumer class of our own cluster")
    names = [f"data-db-{number}" for number in range(3)]
    kube.apply(*(claim(kube, tenant.name, name) for name in names))
    for name in names:
        write(tenant, name, name)
    lose(tenant, *names)

    kube.apply(source(tenant, "bootstrap", onMissing="Empty"), _stateful_set(tenant, 3))
    tenant.kubectl("rollout", "status", "statefulset/db", "--timeout=170s")
    for name in names:
        assert _file_in(tenant, name.removeprefix("data-")) == name

    tenant.kubectl("scale", "statefulset/db", "--replicas=4")
    tenant.kubectl("rollout", "status", "statefulset/db", "--timeout=120s")
    assert _file_in(tenant, "db-3") == ""
    tenant.wait_until("status of the source", lambda: _available_claims(tenant) == [*names, "data-db-3"])
    tenant.kubectl("delete", "statefulset", "db", "--timeout=60s")
    tenant.kubectl("delete", "pvc", "--all", "--timeout=60s")


def _available_claims(tenant: Tenant) -> list[str]:
    claims = tenant.get("restoresource", "bootstrap")["status"]["claims"]
    return sorted(each["name"] for each in claims if each["outcome"] == "available")


def _stateful_set(tenant: Tenant, replicas: int) -> Object:
    template = asking(tenant, "data", "bootstrap", storage_class=LATE)
    template["metadata"] = {"name": "data"}
    pod = OneShotPod("db", ("sleep", "infinity")).manifest(tenant.kube, tenant.name)["spec"]
    pod["restartPolicy"] = "Always"
    pod["containers"][0]["command"] = ["python3", "-c", "import time; time.sleep(100000)"]
    pod["containers"][0]["volumeMounts"].append({"name": "data", "mountPath": "/volume"})
    labels = {"app": "db"}
    spec = {
        "replicas": replicas,
        "serviceName": "db",
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
        "volumeClaimTemplates": [template],
    }
    metadata = {"name": "db", "namespace": tenant.name}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


def _file_in(tenant: Tenant, pod: str) -> str:
    program = "import os; print(open('/volume/file').read() if os.path.exists('/volume/file') else '')"
    return tenant.kubectl("exec", pod, "--", "python3", "-c", program).strip()


BAD_STORES: dict[str, dict[str, Any]] = {
    "unreachable": {"endpointUrl": "http://127.0.0.1:9"},
    "no-s3": {"endpointUrl": "https://kubernetes.default.svc"},
    "no-bucket": {"container": "absent-bucket"},
    "wrong-credentials": {"credentialsSecretRef": {"name": "wrong"}},
    "wrong-key": {"encryptionSecretRef": {"name": "another-key"}},
    "wrong-prefix": {"prefix": "elsewhere"},
}


@pytest.mark.long
def test_claims_stay_unbound_if_the_store_proves_nothing(lost: Tenant) -> None:
    kube = lost.kube
    wrong = lost.secret("wrong", AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="nothing")
    another = lost.secret("another-key", **{"key-1": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="})
    kube.apply(wrong, another, *(lost.store(name, **spec) for name, spec in BAD_STORES.items()))
    for name in BAD_STORES:
        chosen = {"storeName": name, "onMissing": "Empty", "volume": {"name": "files"}}
        kube.apply(source(lost, name, **chosen), asking(lost, name, name))

    notes = {name: _first_warning(lost, name) for name in BAD_STORES}

    assert not [name for name in BAD_STORES if is_bound(lost, name)], notes
    assert notes["wrong-key"][0] == "CannotTell", notes
    assert notes["wrong-prefix"][0] == "CannotTell", notes
    lost.kubectl("patch", "backupstore", "wrong-credentials", "--type=merge", "-p", _CREDENTIALS)
    becomes_bound(lost, "wrong-credentials")
    assert read(lost, "wrong-credentials") == ["file=first"]
    assert not [name for name in set(BAD_STORES) - {"wrong-credentials"} if is_bound(lost, name)]


_CREDENTIALS = f'{{"spec": {{"credentialsSecretRef": {{"name": "{CREDENTIALS}"}}}}}}'


def _first_warning(tenant: Tenant, name: str) -> tuple[str, str]:
    """Wait for the first Warning of the operator about a claim, and return its reason and note."""

    def seen() -> tuple[str, str] | None:
        ours = [e for e in tenant.events(name) if e["type"] == "Warning" and "cinderblock" in str(e)]
        return (str(ours[0]["reason"]), str(ours[0]["message"])) if ours else None

    found: tuple[str, str] = tenant.wait_until(f"a Warning about claim {name}", seen, timeout=120)
    return found


@pytest.fixture
def static(tenant: Tenant) -> Iterator[str]:
    """Return a class with an available volume that somebody else made."""
    kube, name = tenant.kube, tenant.name
    model = kube.get("storageclass", kube.storage_class)
    assert model is not None
    made = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": name,
        "hostPath": {"path": "/nowhere"},
    }
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
    kube.apply(made | {"provisioner": model["provisioner"]}, volume)
    yield name
    kube.kubectl("delete", f"storageclass/{name}", f"pv/{name}", "--wait=false")


def test_claim_that_got_a_static_volume_is_reported(tenant: Tenant, static: str) -> None:
    tenant.kube.apply(asking(tenant, "files", "bootstrap", storage_class=static))

    assert "does not hold the backup" in reports(tenant, "files", "BoundElsewhere")

    assert tenant.get("pvc", "files")["spec"]["volumeName"] == static
    tenant.kubectl("delete", "pvc", "files", "--timeout=60s")


def test_claim_waits_for_room_in_the_quota_for_two_claims(lost: Tenant) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": lost.name}}
    lost.kube.apply(quota | {"spec": {"hard": {"persistentvolumeclaims": "1"}}}, source(lost, "bootstrap"))
    lost.wait_until("quota", lambda: lost.get("resourcequota", "small").get("status", {}).get("hard"))
    lost.kube.apply(asking(lost, "files", "bootstrap"))
    uid = lost.get("pvc", "files")["metadata"]["uid"]
    lost.wait_until("the restore", lambda: lost.kube.get("volumerestore", f"populate-{uid}", lost.name))
    lost.says(f"volumerestore/populate-{uid}", "QuotaExceeded")
    assert not is_bound(lost, "files")

    lost.kubectl("delete", "resourcequota", "small")

    assert read(lost, "files") == ["file=first"]


def test_claim_that_is_made_again_gets_its_own_volume(lost: Tenant) -> None:
    kube = lost.kube
    kube.apply(source(lost, "bootstrap"), asking(lost, "files", "bootstrap"))
    uid = lost.get("pvc", "files")["metadata"]["uid"]
    lost.wait_until("the restore", lambda: lost.kube.get("volumerestore", f"populate-{uid}", lost.name))

    lost.kubectl("delete", "pvc", "files", "--timeout=60s")
    kube.apply(asking(lost, "files", "bootstrap"))

    assert read(lost, "files") == ["file=first"]
    lost.disappears(f"volumerestore/populate-{uid}")
    lost.wait_until("one volume", lambda: list(lost.volumes().values()) == ["files"], timeout=60)


def test_data_source_instead_of_data_source_ref_gives_an_empty_volume(lost: Tenant) -> None:
    """Kubernetes drops a foreign dataSource. The guide warns of it."""
    body = claim(lost.kube, lost.name, "files")
    body["spec"]["dataSource"] = {"apiGroup": "cinderblock.io", "kind": "RestoreSource", "name": "bootstrap"}
    lost.kube.apply(source(lost, "bootstrap"), body)

    assert read(lost, "files") == []

    assert "dataSourceRef" not in lost.get("pvc", "files")["spec"]


def test_manifests_of_a_repository_can_be_applied_again(lost: Tenant) -> None:
    manifests = [source(lost, "bootstrap", onMissing="Empty"), asking(lost, "files", "bootstrap")]
    lost.kube.apply(*manifests)
    becomes_bound(lost, "files")
    before = lost.get("pvc", "files")["metadata"]["resourceVersion"]

    lost.kube.apply(*manifests)

    assert lost.get("pvc", "files")["metadata"]["resourceVersion"] == before
    assert read(lost, "files") == ["file=first"]


@pytest.mark.disturbing
@pytest.mark.long
def test_operator_that_is_killed_fills_the_claim_after_its_restart(lost: Tenant) -> None:
    lost.kube.apply(source(lost, "bootstrap"))
    for number in range(3):
        body = asking(lost, f"files-{number}", "bootstrap")
        lost.kube.apply(body, source(lost, f"of-files-{number}", volume={"name": "files"}))
        lost.kubectl("delete", "pvc", f"files-{number}", "--timeout=60s")
        lost.kube.apply(asking(lost, f"files-{number}", f"of-files-{number}"))
        _kill_operator(lost.kube)
        assert read(lost, f"files-{number}") == ["file=first"]


def _kill_operator(kube: KubeCluster) -> None:
    selector = "app.kubernetes.io/name=cinderblock,app.kubernetes.io/component=operator"
    kube.kubectl("-n", RELEASE_NAMESPACE, "delete", "pod", "-l", selector, "--grace-period=1", "--timeout=60s")
    kube.kubectl("-n", RELEASE_NAMESPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")
