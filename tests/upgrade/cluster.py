"""Upgrade a real cluster from the newest recorded release, with a backup under way: `make upgrade`.

The chart and the image of that release are built from its commit. Restores before and after the upgrade are compared.
Ends with exit code 1 at the first error.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cinderblock.lifecycle.schedule.names import of_token
from cinderblock.repository.objects import KEY_NAME
from tests.cluster import cluster, containers
from tests.cluster.errors import ClusterError
from tests.cluster.image import IMAGE_NAME
from tests.cluster.toolchain import tool
from tests.demo.story import Story
from tests.support.cluster.cluster import (
    RELEASE,
    RELEASE_NAMESPACE,
    ROOT,
    KubeCluster,
    KubeClusterError,
    alone,
    install,
    run,
    uninstall,
)
from tests.support.cluster.workloads import Mount, OneShotPod, claim, compare_trees, digests, put_tools, run_pod
from tests.support.store.objects_in_store import EmbeddedStore
from tests.upgrade.__main__ import environment_of, unpack
from tests.upgrade.release import RELEASES

NAMESPACE = "upgraded"
FORMER_IMAGE = "localhost/cinderblock:former"
DISK_BYTES = 64 << 20
SLOW = 512 << 10
"""Bytes per second of the mover that the upgrade meets at work."""
LEDGER_BYTES = 48 << 20
"""Bytes that it sends: a minute and a half, longer than an upgrade takes."""
SHARPEST = {"keepLast": 1, "minAge": "0s", "grace": "0s", "maxPerDay": 0}
"""Rules of retention that remove all but one backup of each volume at once."""
TREES = ("files-full", "files-second", "plain-full", "adopted")
DEVICES = ("disk-full",)

Object = dict[str, Any]


def main() -> int:
    """Upgrade and compare. Return the exit code."""
    story = Story()
    try:
        with alone(), tempfile.TemporaryDirectory(prefix="former-") as code:
            _play(story, Path(code))
    except (KubeClusterError, ClusterError, subprocess.CalledProcessError) as error:
        print(f"\nNOT RIGHT: {error}", file=sys.stderr)
        return 1
    print(story.summary())
    return 0


def _play(story: Story, code: Path) -> None:
    release = max(RELEASES.iterdir())
    with story.step(f"Images of release {release.name} and of this tree"):
        unpack((release / "commit").read_text().strip(), code)
        _load_former(code)
        kube = KubeCluster.from_environment()
        if not kube.is_own:
            raise KubeClusterError("This needs the test cluster of this repository: unset CINDERBLOCK_IMAGE")
    former = replace(kube, image=FORMER_IMAGE)
    try:
        with story.step(f"Helm installs release {release.name}"):
            install(former, [NAMESPACE], chart=code / "charts" / "cinderblock")
        with story.step("Backups of it, and what it restores of them"):
            _use(former)
        keys = _keys(kube)
        with story.step("Helm upgrades, while a mover works"):
            _upgrade(kube)
        with story.step("All backups are as they were, and nothing has left the store"):
            _look(story, kube, keys)
        with story.step("Restore each again, and compare with what was restored before"):
            _restore_again(kube)
        with story.step("A schedule takes the volumes over, and leaves the old backups alone"):
            _schedule(kube)
        with story.step("An incremental backup on an old one"):
            _go_on(kube)
    finally:
        with story.step("Clean up"):
            _clean_up(kube)


def _load_former(code: Path) -> None:
    """Build the image of a release with its own tools, and give it a name of its own on the cluster."""
    command = [sys.executable, "-m", "tests.cluster.image"]
    done = subprocess.run(command, cwd=code, env=environment_of(code), check=True, stdout=subprocess.PIPE, text=True)
    containers.load(cluster.running(), Path(done.stdout.splitlines()[-1]))
    containers.tag(cluster.running(), IMAGE_NAME, FORMER_IMAGE)


def _use(kube: KubeCluster) -> None:
    kube.wait_until(f"namespace {NAMESPACE}", lambda: kube.get("namespace", NAMESPACE), timeout=60)
    put_tools(kube, NAMESPACE)
    kube.apply(
        claim(kube, NAMESPACE, "files"),
        claim(kube, NAMESPACE, "ledger"),
        claim(kube, NAMESPACE, "disk", block=True, size=str(DISK_BYTES)),
    )
    _errand(kube, "write-files", "files", "python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1")
    noise = f"import os; open('/volume/noise', 'wb').write(os.urandom({LEDGER_BYTES}))"
    _errand(kube, "write-ledger", "ledger", "python3", "-c", noise)
    disk = Mount("disk", "/dev/volume", is_block=True)
    run_pod(kube, NAMESPACE, OneShotPod("fill-disk", ("python3", "/tools/devices.py", "fill", disk.path, "1"), (disk,)))
    _ready(kube, "backupstore/default")
    default = kube.get("backupstore", "default", NAMESPACE) or {}
    plain = {key: value for key, value in default["spec"].items() if key != "encryptionSecretRef"}
    kube.apply(
        _ours("BackupStore", "plain", plain | {"prefix": "plain"}),
        _ours("BackupStore", "slow", default["spec"] | {"prefix": "slow", "limits": {"uploadBytesPerSecond": SLOW}}),
    )
    _back_up(kube, "files-full", {"volumeId": "files"})
    _back_up(kube, "plain-full", {"volumeId": "files", "storeName": "plain"})
    _back_up(kube, "disk-full", {"volumeId": "disk"})
    left = _back_up(kube, "left", {"volumeId": "files", "deletionPolicy": "Retain"})
    kube.kubectl("delete", "volumebackup", "left", "-n", NAMESPACE, "--timeout=60s")
    _back_up(kube, "adopted", {"import": {"id": left["status"]["id"]}, "deletionPolicy": "Delete"})
    _errand(kube, "edit-files", "files", "python3", "/tools/trees.py", "edit", "/volume/tree", "--seed", "2")
    _back_up(kube, "files-second", {"volumeId": "files", "incremental": True})
    _restore(kube, "before", *TREES, *DEVICES)
    kube.apply(_ours("VolumeBackup", "running", {"volumeId": "ledger", "storeName": "slow"}))
    kube.wait_until("mover at work", lambda: _reason(kube, "running") == "MoverRunning")


def _upgrade(kube: KubeCluster) -> None:
    """Upgrade with the image of this tree, as docs/guide/upgrade.md describes."""
    place = ("--namespace", RELEASE_NAMESPACE, "--wait", "--timeout", "120s")
    repository, _, tag = kube.image.rpartition(":")
    image = ("--set", f"image.repository={repository}", "--set", f"image.tag={tag}")
    chart = str(ROOT / "charts" / "cinderblock")
    run([str(tool("helm")), "upgrade", RELEASE, chart, *place, "--reset-then-reuse-values", *image])
    if _reason(kube, "running") != "MoverRunning":
        raise KubeClusterError(
            "the backup that should be under way has ended before the upgrade: make LEDGER_BYTES larger"
        )


def _look(story: Story, kube: KubeCluster, keys: set[str]) -> None:
    _ready(kube, *(f"volumebackup/{name}" for name in (*TREES, *DEVICES, "running")))
    for name in (*TREES, *DEVICES):
        there = "--for=jsonpath={.status.pins.contentDigest}"
        kube.kubectl("wait", there, "-n", NAMESPACE, f"volumebackup/{name}", "--timeout=90s")
    story.show(kube, "-n", NAMESPACE, "get", "volumebackups,volumerestores")
    # A mover removes the wrapped key before it writes the manifest (docs/reference/format.md).
    lost = {key for key in keys - _keys(kube) if not key.endswith(f"/{KEY_NAME}")}
    if lost:
        raise KubeClusterError(f"the store has lost {sorted(lost)}")


def _restore_again(kube: KubeCluster) -> None:
    _restore(kube, "after", *TREES, *DEVICES, "running")
    for name in TREES:
        _same(kube, f"before-{name}", f"after-{name}")
    _same(kube, "ledger", "after-running")
    for name in DEVICES:
        before, after = digests(kube, NAMESPACE, (f"before-{name}", f"after-{name}"), DISK_BYTES)
        if before != after:
            raise KubeClusterError(f"{name} differs from what was restored before: {before} and {after}")


def _schedule(kube: KubeCluster) -> None:
    """Run a schedule with the sharpest retention over all volumes, twice."""
    before = set(_backups(kube))
    for token in ("first", "second"):
        spec = {"schedule": "0 0 29 2 *", "runNow": token, "spread": "0s", "retention": SHARPEST}
        kube.apply(_ours("BackupSchedule", "nightly", spec))
        done = f"--for=jsonpath={{.status.lastRun.name}}={of_token(token)}"
        kube.kubectl("wait", done, "-n", NAMESPACE, "backupschedule/nightly", "--timeout=90s")
        kube.kubectl(
            "wait", "--for=condition=LastRunSucceeded", "-n", NAMESPACE, "backupschedule/nightly", "--timeout=300s"
        )
    first = of_token("first")
    kube.wait_until("end of the first run", lambda: not any(first in name for name in _backups(kube)), timeout=240)
    lost = before - set(_backups(kube))
    if lost:
        raise KubeClusterError(f"retention has removed {sorted(lost)}, which no schedule made")


def _backups(kube: KubeCluster) -> list[str]:
    return kube.kubectl("get", "volumebackups", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.name}").split()


def _go_on(kube: KubeCluster) -> None:
    _back_up(kube, "files-third", {"volumeId": "files", "incremental": True})
    _restore(kube, "after", "files-third")
    _same(kube, "files", "after-files-third")
    kube.kubectl("delete", "backupschedules,volumebackups", "--all", "-n", NAMESPACE, "--timeout=120s")
    left = _keys(kube)
    if left:
        raise KubeClusterError(f"all backups are deleted, and the store still holds {sorted(left)}")


def _errand(kube: KubeCluster, name: str, volume: str, *command: str) -> None:
    run_pod(kube, NAMESPACE, OneShotPod(name, command, (Mount(volume, "/volume"),)))


def _ours(kind: str, name: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "cinderblock.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _back_up(kube: KubeCluster, name: str, spec: Object) -> Object:
    kube.apply(_ours("VolumeBackup", name, spec))
    _ready(kube, f"volumebackup/{name}")
    return kube.get("volumebackup", name, NAMESPACE) or {}


def _restore(kube: KubeCluster, when: str, *backups: str) -> None:
    names = {backup: f"{when}-{backup}" for backup in backups}
    kube.apply(*(_ours("VolumeRestore", name, {"backupId": backup, "name": name}) for backup, name in names.items()))
    _ready(kube, *(f"volumerestore/{name}" for name in names.values()))


def _ready(kube: KubeCluster, *names: str) -> None:
    try:
        kube.kubectl("wait", "--for=create", "-n", NAMESPACE, *names, "--timeout=60s")
        kube.kubectl("wait", "--for=condition=Ready", "-n", NAMESPACE, *names, "--timeout=240s", timeout=300)
    except KubeClusterError as error:
        raise KubeClusterError(f"{error}\n{kube.diagnose(NAMESPACE)}") from None


def _reason(kube: KubeCluster, backup: str) -> str:
    status = (kube.get("volumebackup", backup, NAMESPACE) or {}).get("status", {})
    return next((one["reason"] for one in status.get("conditions", ()) if one["type"] == "Ready"), "")


def _same(kube: KubeCluster, left: str, right: str) -> None:
    differences = compare_trees(kube, NAMESPACE, left, right)
    if differences:
        raise KubeClusterError(f"{right} differs from {left}:\n" + "\n".join(differences[:20]))


def _keys(kube: KubeCluster) -> set[str]:
    """Return the keys of all objects in the namespace's bucket."""
    return replace(EmbeddedStore.of(kube, NAMESPACE), prefix="").keys(kube)


def _clean_up(kube: KubeCluster) -> None:
    kube.kubectl("delete", "volumerestores,volumebackups", "--all", "-n", NAMESPACE, "--timeout=90s", check=False)
    uninstall(kube)
    kube.kubectl("delete", "namespace", NAMESPACE, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")


if __name__ == "__main__":
    sys.exit(main())
