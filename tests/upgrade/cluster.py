"""Upgrade a real cluster from the newest recorded release, with a backup under way: `make upgrade`.

Chart and image of that release are built from its commit. What it has restored of each backup, before the upgrade, is
compared with what is restored after it. Ends with exit code 1 at the first thing that is not right.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    Lab,
    LabError,
    alone,
    install,
    run,
    uninstall,
)
from tests.support.cluster.workloads import Errand, Mount, claim, compare_trees, digests, put_tools, run_errand
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
TREES = ("files-full", "files-second", "plain-full", "adopted")
DEVICES = ("disk-full",)

Object = dict[str, Any]


def main() -> int:
    """Upgrade and compare; returns the exit code."""
    story = Story()
    try:
        with alone(), tempfile.TemporaryDirectory(prefix="former-") as code:
            _play(story, Path(code))
    except (LabError, ClusterError, subprocess.CalledProcessError) as error:
        print(f"\nNOT RIGHT: {error}", file=sys.stderr)
        return 1
    print(story.summary())
    return 0


def _play(story: Story, code: Path) -> None:
    release = max(RELEASES.iterdir())
    with story.step(f"Images of release {release.name} and of this tree"):
        unpack((release / "commit").read_text().strip(), code)
        _load_former(code)
        lab = Lab.from_environment()
        if not lab.is_own:
            raise LabError("This needs the test cluster of this repository: unset CINDERBLOCK_IMAGE")
    former = replace(lab, image=FORMER_IMAGE)
    try:
        with story.step(f"Helm installs release {release.name}"):
            install(former, [NAMESPACE], chart=code / "charts" / "cinderblock")
        with story.step("Backups of it, and what it restores of them"):
            _use(former)
        keys = _keys(lab)
        with story.step("Helm upgrades, while a mover works"):
            _upgrade(lab)
        with story.step("All backups are as they were, and nothing has left the store"):
            _look(story, lab, keys)
        with story.step("Restore each again, and compare with what was restored before"):
            _restore_again(lab)
        with story.step("An incremental backup on an old one"):
            _go_on(lab)
    finally:
        with story.step("Clean up"):
            _clean_up(lab)


def _load_former(code: Path) -> None:
    """Build the image of a release with its own tools, and give it a name of its own on the cluster."""
    command = [sys.executable, "-m", "tests.cluster.image"]
    done = subprocess.run(command, cwd=code, env=environment_of(code), check=True, stdout=subprocess.PIPE, text=True)
    containers.load(cluster.running(), Path(done.stdout.splitlines()[-1]))
    containers.tag(cluster.running(), IMAGE_NAME, FORMER_IMAGE)


def _use(lab: Lab) -> None:
    lab.wait_until(f"namespace {NAMESPACE}", lambda: lab.get("namespace", NAMESPACE), timeout=60)
    put_tools(lab, NAMESPACE)
    lab.apply(
        claim(lab, NAMESPACE, "files"),
        claim(lab, NAMESPACE, "ledger"),
        claim(lab, NAMESPACE, "disk", block=True, size=str(DISK_BYTES)),
    )
    _errand(lab, "write-files", "files", "python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1")
    noise = f"import os; open('/volume/noise', 'wb').write(os.urandom({LEDGER_BYTES}))"
    _errand(lab, "write-ledger", "ledger", "python3", "-c", noise)
    disk = Mount("disk", "/dev/volume", is_block=True)
    run_errand(lab, NAMESPACE, Errand("fill-disk", ("python3", "/tools/devices.py", "fill", disk.path, "1"), (disk,)))
    _ready(lab, "backupstore/default")
    default = lab.get("backupstore", "default", NAMESPACE) or {}
    plain = {key: value for key, value in default["spec"].items() if key != "encryptionSecretRef"}
    lab.apply(
        _ours("BackupStore", "plain", plain | {"prefix": "plain"}),
        _ours("BackupStore", "slow", default["spec"] | {"prefix": "slow", "limits": {"uploadBytesPerSecond": SLOW}}),
    )
    _back_up(lab, "files-full", {"volumeId": "files"})
    _back_up(lab, "plain-full", {"volumeId": "files", "storeName": "plain"})
    _back_up(lab, "disk-full", {"volumeId": "disk"})
    left = _back_up(lab, "left", {"volumeId": "files", "deletionPolicy": "Retain"})
    lab.kubectl("delete", "volumebackup", "left", "-n", NAMESPACE, "--timeout=60s")
    _back_up(lab, "adopted", {"import": {"id": left["status"]["id"]}, "deletionPolicy": "Delete"})
    _errand(lab, "edit-files", "files", "python3", "/tools/trees.py", "edit", "/volume/tree", "--seed", "2")
    _back_up(lab, "files-second", {"volumeId": "files", "incremental": True})
    _restore(lab, "before", *TREES, *DEVICES)
    lab.apply(_ours("VolumeBackup", "running", {"volumeId": "ledger", "storeName": "slow"}))
    lab.wait_until("mover at work", lambda: _reason(lab, "running") == "MoverRunning")


def _upgrade(lab: Lab) -> None:
    """As docs/guide/install.md says, with the image of this tree."""
    place = ("--namespace", RELEASE_NAMESPACE, "--wait", "--timeout", "120s")
    repository, _, tag = lab.image.rpartition(":")
    image = ("--set", f"image.repository={repository}", "--set", f"image.tag={tag}")
    chart = str(ROOT / "charts" / "cinderblock")
    run([str(tool("helm")), "upgrade", RELEASE, chart, *place, "--reset-then-reuse-values", *image])
    if _reason(lab, "running") != "MoverRunning":
        raise LabError("the backup that should be under way has ended before the upgrade: make LEDGER_BYTES larger")


def _look(story: Story, lab: Lab, keys: set[str]) -> None:
    _ready(lab, *(f"volumebackup/{name}" for name in (*TREES, *DEVICES, "running")))
    for name in (*TREES, *DEVICES):
        there = "--for=jsonpath={.status.pins.contentDigest}"
        lab.kubectl("wait", there, "-n", NAMESPACE, f"volumebackup/{name}", "--timeout=90s")
    story.show(lab, "-n", NAMESPACE, "get", "volumebackups,volumerestores")
    # A mover removes the wrapped key before it writes the manifest (docs/reference/format.md).
    lost = {key for key in keys - _keys(lab) if not key.endswith(f"/{KEY_NAME}")}
    if lost:
        raise LabError(f"the store has lost {sorted(lost)}")


def _restore_again(lab: Lab) -> None:
    _restore(lab, "after", *TREES, *DEVICES, "running")
    for name in TREES:
        _same(lab, f"before-{name}", f"after-{name}")
    _same(lab, "ledger", "after-running")
    for name in DEVICES:
        before, after = digests(lab, NAMESPACE, (f"before-{name}", f"after-{name}"), DISK_BYTES)
        if before != after:
            raise LabError(f"{name} differs from what was restored before: {before} and {after}")


def _go_on(lab: Lab) -> None:
    _back_up(lab, "files-third", {"volumeId": "files", "incremental": True})
    _restore(lab, "after", "files-third")
    _same(lab, "files", "after-files-third")
    lab.kubectl("delete", "volumebackups", "--all", "-n", NAMESPACE, "--timeout=120s")
    left = _keys(lab)
    if left:
        raise LabError(f"all backups are deleted, and the store still holds {sorted(left)}")


def _errand(lab: Lab, name: str, volume: str, *command: str) -> None:
    run_errand(lab, NAMESPACE, Errand(name, command, (Mount(volume, "/volume"),)))


def _ours(kind: str, name: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "cinderblock.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _back_up(lab: Lab, name: str, spec: Object) -> Object:
    lab.apply(_ours("VolumeBackup", name, spec))
    _ready(lab, f"volumebackup/{name}")
    return lab.get("volumebackup", name, NAMESPACE) or {}


def _restore(lab: Lab, when: str, *backups: str) -> None:
    names = {backup: f"{when}-{backup}" for backup in backups}
    lab.apply(*(_ours("VolumeRestore", name, {"backupId": backup, "name": name}) for backup, name in names.items()))
    _ready(lab, *(f"volumerestore/{name}" for name in names.values()))


def _ready(lab: Lab, *names: str) -> None:
    try:
        lab.kubectl("wait", "--for=create", "-n", NAMESPACE, *names, "--timeout=60s")
        lab.kubectl("wait", "--for=condition=Ready", "-n", NAMESPACE, *names, "--timeout=240s", timeout=300)
    except LabError as error:
        raise LabError(f"{error}\n{lab.diagnose(NAMESPACE)}") from None


def _reason(lab: Lab, backup: str) -> str:
    status = (lab.get("volumebackup", backup, NAMESPACE) or {}).get("status", {})
    return next((one["reason"] for one in status.get("conditions", ()) if one["type"] == "Ready"), "")


def _same(lab: Lab, left: str, right: str) -> None:
    differences = compare_trees(lab, NAMESPACE, left, right)
    if differences:
        raise LabError(f"{right} differs from {left}:\n" + "\n".join(differences[:20]))


def _keys(lab: Lab) -> set[str]:
    """Keys of all objects in the namespace's bucket."""
    return replace(EmbeddedStore.of(lab, NAMESPACE), prefix="").keys(lab)


def _clean_up(lab: Lab) -> None:
    lab.kubectl("delete", "volumerestores,volumebackups", "--all", "-n", NAMESPACE, "--timeout=90s", check=False)
    uninstall(lab)
    lab.kubectl("delete", "namespace", NAMESPACE, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")


if __name__ == "__main__":
    sys.exit(main())
