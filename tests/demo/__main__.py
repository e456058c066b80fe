"""Demonstrate the main use case on a real cluster: `make demo`.

Install the chart with its embedded S3 store, and write data to a volume of files and to a raw one. Back both up,
restore them to new volumes and in place, and compare every byte and attribute. Recover both volumes in another
namespace from the bucket and the key alone, as after the loss of a cluster. Delete a backup, and check the store.
End with a summary, or with exit code 1 at the first error.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from tests.demo import recovery
from tests.demo.story import Story
from tests.support.cluster.cluster import (
    RELEASE_NAMESPACE,
    ROOT,
    KubeCluster,
    KubeClusterError,
    alone,
    install,
    uninstall,
)
from tests.support.cluster.workloads import (
    Mount,
    OneShotPod,
    claim,
    compare_trees,
    digests,
    finish_pod,
    put_tools,
    run_pod,
)
from tests.support.store.objects_in_store import EmbeddedStore

NAMESPACE = "demo"
DISK_BYTES = 64 << 20


def main() -> int:
    """Show everything; returns the exit code."""
    story = Story()
    try:
        with alone():
            _play(story)
    except KubeClusterError as error:
        print(f"\nNOT RIGHT: {error}", file=sys.stderr)
        return 1
    print(story.summary())
    return 0


def _play(story: Story) -> None:
    with story.step("A cluster to work on, and our image on it"):
        kube = KubeCluster.from_environment()
        story.show(kube, "get", "nodes,storageclasses,volumesnapshotclasses")
    with story.step("Helm installs the chart, with the embedded S3 store for namespace demo"):
        install(kube, [NAMESPACE])
        story.show(kube, "-n", RELEASE_NAMESPACE, "get", "pods")
    try:
        _backup_and_restore(story, kube)
    finally:
        with story.step("Clean up: the namespace and the release"):
            _clean_up(kube)


def _backup_and_restore(story: Story, kube: KubeCluster) -> None:
    with story.step("Two volumes with data: files of every kind, and a raw device"):
        _write_data(story, kube)
    with story.step("Back both up: kubectl apply"):
        _apply(story, kube, "02-volumebackup.yaml", "06-volumebackup-block.yaml")
        story.show(kube, "-n", NAMESPACE, "get", "volumebackups")
        _ready(kube, "volumebackup/files-full", "volumebackup/disk-full")
        story.show(kube, "-n", NAMESPACE, "get", "volumebackups")
    with story.step("Change the original after its backup, then back it up incrementally"):
        _keep_a_copy(kube)
        command = ("python3", "/tools/trees.py", "edit", "/volume/tree", "--seed", "2", "--edits", "10")
        run_pod(kube, NAMESPACE, OneShotPod("damage", command, (Mount("files", "/volume"),)))
        _apply(story, kube, "05-volumebackup-incremental.yaml")
        _ready(kube, "volumebackup/files-monday")
        story.show(kube, "-n", NAMESPACE, "get", "volumebackups", "-o", "wide")
    with story.step("Restore both to new volumes, and the files in place over the changed original"):
        names = ("03-volumerestore-new.yaml", "04-volumerestore-in-place.yaml", "07-volumerestore-block.yaml")
        _apply(story, kube, *names)
        _ready(kube, *(f"volumerestore/{name}" for name in ("files-to-new", "files-in-place", "disk-to-new")))
        story.show(kube, "-n", NAMESPACE, "get", "volumerestores,pvc")
    with story.step("Compare: content, owners, modes, times, links, attributes; every byte of the device"):
        _compare(story, kube)
    with story.step("Recover both volumes in another namespace, from the bucket and the key alone"):
        recovery.recover(story, kube, NAMESPACE, DISK_BYTES)
    with story.step("Delete a backup: its objects leave the store"):
        _delete(story, kube)
    with story.step("Look at what is left behind"):
        _nothing_left(story, kube)


def _write_data(story: Story, kube: KubeCluster) -> None:
    kube.wait_until(f"namespace {NAMESPACE}", lambda: kube.get("namespace", NAMESPACE), timeout=60)
    put_tools(kube, NAMESPACE)
    kube.apply(claim(kube, NAMESPACE, "files"), claim(kube, NAMESPACE, "disk", block=True, size=str(DISK_BYTES)))
    tree = ("python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1", "--files", "300")
    disk = ("python3", "/tools/devices.py", "fill", "/dev/volume", "1")
    kube.apply(
        OneShotPod("write-files", tree, (Mount("files", "/volume"),)).manifest(kube, NAMESPACE),
        OneShotPod("write-disk", disk, (Mount("disk", "/dev/volume", is_block=True),)).manifest(kube, NAMESPACE),
    )
    story.note(finish_pod(kube, NAMESPACE, "write-files") or "files, directories, links, devices, xattrs, sparse files")
    story.note(finish_pod(kube, NAMESPACE, "write-disk") or "random, zero and compressible blocks")
    _ready(kube, "backupstore/default")
    if kube.snapshot_class:
        chosen = json.dumps({"spec": {"volumeSnapshotClassName": kube.snapshot_class}})
        kube.kubectl("-n", NAMESPACE, "patch", "backupstore", "default", "--type=merge", "-p", chosen)


def _keep_a_copy(kube: KubeCluster) -> None:
    """Keep a copy of the original as of its backup, made by the CSI driver, to compare restored volumes with."""
    snapshot: dict[str, object] = {"source": {"persistentVolumeClaimName": "files"}}
    if kube.snapshot_class:
        snapshot["volumeSnapshotClassName"] = kube.snapshot_class
    original = claim(kube, NAMESPACE, "original")
    original["spec"]["dataSource"] = {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": "original",
    }
    metadata = {"name": "original", "namespace": NAMESPACE}
    kube.apply(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": metadata,
            "spec": snapshot,
        },
        original,
    )
    run_pod(kube, NAMESPACE, OneShotPod("see-the-copy", ("ls", "/volume/tree"), (Mount("original", "/volume"),)))
    kube.kubectl("-n", NAMESPACE, "delete", "volumesnapshot", "original", "--timeout=60s")


def _apply(story: Story, kube: KubeCluster, *names: str) -> None:
    for name in names:
        path = ROOT / "examples" / name
        print(f"          $ kubectl apply -f examples/{name}", flush=True)
        story.note(kube.kubectl("apply", "-f", str(path)))


def _ready(kube: KubeCluster, *names: str) -> None:
    for name in names:
        try:
            kube.kubectl("-n", NAMESPACE, "wait", "--for=create", name, "--timeout=60s")
            kube.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", name, "--timeout=90s")
        except KubeClusterError as error:
            raise KubeClusterError(f"{error}\n{kube.diagnose(NAMESPACE)}") from None


def _compare(story: Story, kube: KubeCluster) -> None:
    for restored in ("files-restored", "files"):
        differences = compare_trees(kube, NAMESPACE, "original", restored)
        if differences:
            raise KubeClusterError(f"{restored} differs from the original:\n" + "\n".join(differences[:20]))
        story.note(f"{restored}: equal to the original, file by file and attribute by attribute")
    original, restored = digests(kube, NAMESPACE, ("disk", "disk-restored"), DISK_BYTES)
    if original != restored:
        raise KubeClusterError(f"the restored device differs: {original} and {restored}")
    story.note(f"disk-restored: equal to the original, SHA-256 {original.split()[0]}")


def _delete(story: Story, kube: KubeCluster) -> None:
    store = EmbeddedStore.of(kube, NAMESPACE)
    before = store.keys(kube)
    story.note(f"the store holds {len(before)} objects")
    story.show(kube, "-n", NAMESPACE, "delete", "volumebackup", "disk-full", "--timeout=60s")
    after = store.keys(kube)
    story.note(f"the store holds {len(after)} objects, and none of them belongs to the deleted backup")
    if not after < before:
        raise KubeClusterError("the store still holds the backup's objects")
    story.show(kube, "-n", NAMESPACE, "delete", "volumebackups", "--all", "--timeout=90s")
    left = store.keys(kube)
    if left:
        raise KubeClusterError(f"the store still holds {sorted(left)}")
    story.note("the store is empty")


def _nothing_left(story: Story, kube: KubeCluster) -> None:
    for kind in ("jobs", "volumesnapshots", "pods"):
        kube.wait_until(f"namespace without {kind}", partial(_none_of, kube, kind), timeout=60)
    story.show(kube, "-n", NAMESPACE, "get", "jobs,pods,volumesnapshots,volumebackups,pvc")


def _none_of(kube: KubeCluster, kind: str) -> bool:
    return not kube.items(kind, NAMESPACE)


def _clean_up(kube: KubeCluster) -> None:
    kube.kubectl("delete", "volumerestores,volumebackups", "--all", "-n", NAMESPACE, "--timeout=90s", check=False)
    recovery.remove(kube)
    uninstall(kube)
    names = (NAMESPACE, recovery.RECOVERED, RELEASE_NAMESPACE)
    kube.kubectl("delete", "namespace", *names, "--timeout=120s", "--ignore-not-found")


if __name__ == "__main__":
    sys.exit(main())
