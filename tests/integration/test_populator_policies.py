"""The chart's rights and policies about claims that ask for their backup, on a real API server.

The operator's account has exactly the rights of the chart.
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
from cinderblock.api.kubernetes import SELECTED_NODE_ANNOTATION, PersistentVolume, PersistentVolumeClaim
from cinderblock.api.labels import POLICY_ANNOTATION, POPULATED_ANNOTATION, RESTORE_LABEL
from cinderblock.api.mover import VolumeMode
from cinderblock.api.v1alpha1.restore import VolumeRestore
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.lifecycle import children
from cinderblock.lifecycle.populate.decide import restore_body
from cinderblock.lifecycle.restore.given_claim import reservation
from tests.support.cluster.operator_policies import PolicyScene, operator_policies
from tests.support.cluster.rights import connect_as

pytestmark = pytest.mark.integration

RELEASE = f"release-{uuid.uuid4().hex[:8]}"
REQUEST = children.ClaimRequest(1 << 20, "fast", VolumeMode.FILESYSTEM, ("ReadWriteOnce",), "gold", "node-1")
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def scene(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyScene]:
    made = PolicyScene(kubeconfig, tmp_path_factory.mktemp("populator"))
    with operator_policies(made, RELEASE):
        yield made


@pytest.fixture
async def operator(scene: PolicyScene) -> AsyncIterator[KubeClient]:
    """A client with the operator's token."""
    async with aclosing(await connect_as(scene.kubeconfig, RELEASE, RELEASE, scene.directory)) as connected:
        yield connected


@pytest.fixture
async def asking(client: KubeClient, namespace: str) -> PersistentVolumeClaim:
    """A claim that asks for its backup."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "1Mi"}},
        "dataSourceRef": {"apiGroup": "cinderblock.io", "kind": "RestoreSource", "name": "bootstrap"},
    }
    body = {"metadata": {"name": "data", "namespace": namespace}, "spec": spec}
    return PersistentVolumeClaim.model_validate(await client.create(kinds.PVC, body))


@pytest.mark.parametrize("backup_id", ["b-1", None], ids=["a backup", "nothing"])
async def test_claim_gets_its_restore(
    operator: KubeClient, asking: PersistentVolumeClaim, backup_id: str | None
) -> None:
    made = await operator.create(kinds.VOLUME_RESTORE, restore_body(asking, backup_id))
    restore = VolumeRestore.model_validate(made)
    assert restore.spec.claim is not None
    assert restore.fills_nothing is (backup_id is None)
    await operator.create(kinds.PVC, children.claim(restore, REQUEST))
    staging = await operator.get(kinds.PVC, labels.child_name(restore.uid), asking.namespace)
    assert staging is not None
    assert staging["metadata"]["annotations"][SELECTED_NODE_ANNOTATION] == "node-1"
    assert staging["spec"]["volumeAttributesClassName"] == "gold"
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.delete(kinds.VOLUME_RESTORE, restore.name, asking.namespace, uid=restore.uid)


def _owner(body: dict[str, Any]) -> dict[str, Any]:
    owner: dict[str, Any] = body["metadata"]["ownerReferences"][0]
    return owner


FORGED: dict[str, Change] = {
    "without an owner": lambda body: body["metadata"].pop("ownerReferences"),
    "of another claim": lambda body: _owner(body).update(uid="u-2"),
    "of an owner of another kind": lambda body: _owner(body).update(kind="Pod"),
    "with another name": lambda body: body["metadata"].update(name="restore"),
    "for another claim": lambda body: body["spec"]["claim"].update(uid="u-2"),
    "for a claim of another name": lambda body: body["spec"]["claim"].update(name="other"),
    "over an existing volume": lambda body: body["spec"].update(volumeId="database") or body["spec"].pop("claim"),
    "with a finalizer": lambda body: body["metadata"].update(finalizers=["cinderblock.io/restore-cleanup"]),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
async def test_any_other_restore_is_refused(
    operator: KubeClient, asking: PersistentVolumeClaim, change: Change
) -> None:
    body = copy.deepcopy(restore_body(asking, "b-1"))
    change(body)
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.create(kinds.VOLUME_RESTORE, body)


async def test_claim_of_the_user_is_never_changed(operator: KubeClient, asking: PersistentVolumeClaim) -> None:
    attacks: tuple[dict[str, Any], ...] = (
        {"metadata": {"annotations": {"cinderblock.io/nudged": "true"}}},
        {"metadata": {"labels": {"more": "x"}}},
        {"spec": {"volumeName": "pv-1"}},
    )
    for attack in attacks:
        with pytest.raises(AccessDenied, match="The operator must"):
            await operator.merge_patch(kinds.PVC, asking.name, asking.namespace, attack)


async def _marked(client: KubeClient, operator: KubeClient, restore: VolumeRestore) -> PersistentVolume:
    """Return a filled volume after the first step of its hand-over."""
    name = f"pv-{uuid.uuid4().hex[:12]}"
    staging = {"namespace": restore.namespace, "name": labels.child_name(restore.uid), "uid": str(uuid.uuid4())}
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "fast",
        "claimRef": staging,
        "csi": {"driver": "csi.example.org", "volumeHandle": name},
    }
    annotations = {"pv.kubernetes.io/provisioned-by": "csi.example.org"}
    await client.create(kinds.PV, {"metadata": {"name": name, "annotations": annotations}, "spec": spec})
    mark = {"labels": {RESTORE_LABEL: restore.uid}, "annotations": {POLICY_ANNOTATION: "Delete"}}
    patch = {"metadata": mark, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    return PersistentVolume.model_validate(await operator.merge_patch(kinds.PV, name, None, patch))


async def test_volume_is_reserved_for_the_claim_and_its_uid(
    client: KubeClient, operator: KubeClient, asking: PersistentVolumeClaim
) -> None:
    restore = VolumeRestore.model_validate(await operator.create(kinds.VOLUME_RESTORE, restore_body(asking, "b-1")))
    volume = await _marked(client, operator, restore)
    annotated = {"annotations": {POPULATED_ANNOTATION: asking.uid}}
    reserved = {"metadata": annotated, "spec": {"claimRef": reservation(asking)}}
    elsewhere = {"spec": {"claimRef": reservation(asking) | {"namespace": "payroll"}}}
    attacks: tuple[dict[str, Any], ...] = (
        {"spec": {"claimRef": reservation(asking)}},
        {"metadata": annotated},
        elsewhere | {"metadata": annotated},
        reserved | {"metadata": {"annotations": {POPULATED_ANNOTATION: "u-2"}}},
    )
    for attack in attacks:
        with pytest.raises(AccessDenied, match="The operator must"):
            await operator.merge_patch(kinds.PV, volume.name, None, attack)
    await operator.merge_patch(kinds.PV, volume.name, None, reserved)
    again = {"metadata": {"annotations": {POPULATED_ANNOTATION: "u-2"}}, "spec": {"claimRef": {"uid": "u-2"}}}
    with pytest.raises(AccessDenied, match="The operator must"):
        await operator.merge_patch(kinds.PV, volume.name, None, again)
