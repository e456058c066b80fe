"""The main job, shown for real: `make demo`.

Installs the chart with its embedded S3 store, writes data to a volume of files and to a raw one, backs both up,
restores them to new volumes and in place, compares every byte and attribute, deletes a backup and looks into the store.
Ends with a summary, or with exit code 1 at the first thing that is not right.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from tests.demo.story import Story
from tests.support.cluster.cluster import RELEASE_NAMESPACE, ROOT, Lab, LabError, alone, install, uninstall
from tests.support.cluster.workloads import (
    Errand,
    Mount,
    claim,
    compare_trees,
    digests,
    finish_errand,
    put_tools,
    run_errand,
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
    except LabError as error:
        print(f"\nNOT RIGHT: {error}", file=sys.stderr)
        return 1
    print(story.summary())
    return 0


def _play(story: Story) -> None:
    with story.step("A cluster to work on, and our image on it"):
        lab = Lab.from_environment()
        story.show(lab, "get", "nodes,storageclasses,volumesnapshotclasses")
    with story.step("Helm installs the chart, with the embedded S3 store for namespace demo"):
        install(lab, [NAMESPACE])
        story.show(lab, "-n", RELEASE_NAMESPACE, "get", "pods")
    try:
        _backup_and_restore(story, lab)
    finally:
        with story.step("Clean up: the namespace and the release"):
            _clean_up(lab)


def _backup_and_restore(story: Story, lab: Lab) -> None:
    with story.step("Two volumes with data: files of every kind, and a raw device"):
        _write_data(story, lab)
    with story.step("Back both up: kubectl apply"):
        _apply(story, lab, "02-volumebackup.yaml", "06-volumebackup-block.yaml")
        story.show(lab, "-n", NAMESPACE, "get", "volumebackups")
        _ready(lab, "volumebackup/files-full", "volumebackup/disk-full")
        story.show(lab, "-n", NAMESPACE, "get", "volumebackups")
    with story.step("Change the original after its backup, then back it up incrementally"):
        _keep_a_copy(lab)
        command = ("python3", "/tools/trees.py", "edit", "/volume/tree", "--seed", "2", "--edits", "10")
        run_errand(lab, NAMESPACE, Errand("damage", command, (Mount("files", "/volume"),)))
        _apply(story, lab, "05-volumebackup-incremental.yaml")
        _ready(lab, "volumebackup/files-monday")
        story.show(lab, "-n", NAMESPACE, "get", "volumebackups", "-o", "wide")
    with story.step("Restore both to new volumes, and the files in place over the changed original"):
        names = ("03-volumerestore-new.yaml", "04-volumerestore-in-place.yaml", "07-volumerestore-block.yaml")
        _apply(story, lab, *names)
        _ready(lab, *(f"volumerestore/{name}" for name in ("files-to-new", "files-in-place", "disk-to-new")))
        story.show(lab, "-n", NAMESPACE, "get", "volumerestores,pvc")
    with story.step("Compare: content, owners, modes, times, links, attributes; every byte of the device"):
        _compare(story, lab)
    with story.step("Delete a backup: its objects leave the store"):
        _delete(story, lab)
    with story.step("Look at what is left behind"):
        _nothing_left(story, lab)


def _write_data(story: Story, lab: Lab) -> None:
    lab.wait_until(f"namespace {NAMESPACE}", lambda: lab.get("namespace", NAMESPACE), timeout=60)
    put_tools(lab, NAMESPACE)
    lab.apply(claim(lab, NAMESPACE, "files"), claim(lab, NAMESPACE, "disk", block=True, size=str(DISK_BYTES)))
    tree = ("python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1", "--files", "300")
    disk = ("python3", "/tools/devices.py", "fill", "/dev/volume", "1")
    lab.apply(
        Errand("write-files", tree, (Mount("files", "/volume"),)).manifest(lab, NAMESPACE),
        Errand("write-disk", disk, (Mount("disk", "/dev/volume", is_block=True),)).manifest(lab, NAMESPACE),
    )
    story.tell(
        finish_errand(lab, NAMESPACE, "write-files") or "files, directories, links, devices, xattrs, sparse files"
    )
    story.tell(finish_errand(lab, NAMESPACE, "write-disk") or "random, zero and compressible blocks")
    _ready(lab, "backupstore/default")
    if lab.snapshot_class:
        chosen = json.dumps({"spec": {"volumeSnapshotClassName": lab.snapshot_class}})
        lab.kubectl("-n", NAMESPACE, "patch", "backupstore", "default", "--type=merge", "-p", chosen)


def _keep_a_copy(lab: Lab) -> None:
    """The original as it was when it was backed up, kept by the CSI driver: what restored volumes are held against."""
    snapshot: dict[str, object] = {"source": {"persistentVolumeClaimName": "files"}}
    if lab.snapshot_class:
        snapshot["volumeSnapshotClassName"] = lab.snapshot_class
    original = claim(lab, NAMESPACE, "original")
    original["spec"]["dataSource"] = {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": "original",
    }
    metadata = {"name": "original", "namespace": NAMESPACE}
    lab.apply(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": metadata,
            "spec": snapshot,
        },
        original,
    )
    run_errand(lab, NAMESPACE, Errand("see-the-copy", ("ls", "/volume/tree"), (Mount("original", "/volume"),)))
    lab.kubectl("-n", NAMESPACE, "delete", "volumesnapshot", "original", "--timeout=60s")


def _apply(story: Story, lab: Lab, *names: str) -> None:
    for name in names:
        path = ROOT / "examples" / name
        print(f"          $ kubectl apply -f examples/{name}", flush=True)
        story.tell(lab.kubectl("apply", "-f", str(path)))


def _ready(lab: Lab, *names: str) -> None:
    for name in names:
        try:
            lab.kubectl("-n", NAMESPACE, "wait", "--for=create", name, "--timeout=60s")
            lab.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", name, "--timeout=90s")
        except LabError as error:
            raise LabError(f"{error}\n{lab.diagnose(NAMESPACE)}") from None


def _compare(story: Story, lab: Lab) -> None:
    for restored in ("files-restored", "files"):
        differences = compare_trees(lab, NAMESPACE, "original", restored)
        if differences:
            raise LabError(f"{restored} differs from the original:\n" + "\n".join(differences[:20]))
        story.tell(f"{restored}: equal to the original, file by file and attribute by attribute")
    original, restored = digests(lab, NAMESPACE, ("disk", "disk-restored"), DISK_BYTES)
    if original != restored:
        raise LabError(f"the restored device differs: {original} and {restored}")
    story.tell(f"disk-restored: equal to the original, SHA-256 {original.split()[0]}")


def _delete(story: Story, lab: Lab) -> None:
    store = EmbeddedStore.of(lab, NAMESPACE)
    before = store.keys(lab)
    story.tell(f"the store holds {len(before)} objects")
    story.show(lab, "-n", NAMESPACE, "delete", "volumebackup", "disk-full", "--timeout=60s")
    after = store.keys(lab)
    story.tell(f"the store holds {len(after)} objects, and none of them belongs to the deleted backup")
    if not after < before:
        raise LabError("the store did not let go of the backup's objects")
    story.show(lab, "-n", NAMESPACE, "delete", "volumebackups", "--all", "--timeout=90s")
    left = store.keys(lab)
    if left:
        raise LabError(f"the store still holds {sorted(left)}")
    story.tell("the store is empty")


def _nothing_left(story: Story, lab: Lab) -> None:
    for kind in ("jobs", "volumesnapshots", "pods"):
        lab.wait_until(f"namespace without {kind}", partial(_none_of, lab, kind), timeout=60)
    story.show(lab, "-n", NAMESPACE, "get", "jobs,pods,volumesnapshots,volumebackups,pvc")


def _none_of(lab: Lab, kind: str) -> bool:
    return not lab.items(kind, NAMESPACE)


def _clean_up(lab: Lab) -> None:
    lab.kubectl("delete", "volumerestores,volumebackups", "--all", "-n", NAMESPACE, "--timeout=90s", check=False)
    uninstall(lab)
    lab.kubectl("delete", "namespace", NAMESPACE, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")


if __name__ == "__main__":
    sys.exit(main())
