"""Upgrades from every recorded release: its operations continue, nothing is lost, and every backup restores.

A further release is a further folder of tests/data/releases (`python -m tests.upgrade`); all tests run on each of them.
There are no nodes: the operator is the process that the image runs, and the movers' program runs in this process with
the task that the operator has given to its Job.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.lifecycle.schedule.names import of_token
from tests.upgrade.contents import contents
from tests.upgrade.recording import RESTORING, RUNNING, a_backup
from tests.upgrade.release import RELEASES
from tests.upgrade.upgrading import Upgrade, restored, upgraded

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="restored files get the owners that they had"),
]


WHOLE = ("available", "restoring")
"""Phases of backups that can be restored."""
AWAY = "away-full"
"""Name of a VolumeBackup whose store has moved to where nothing answers."""


@pytest.fixture(scope="module", params=sorted(RELEASES.iterdir()), ids=lambda path: path.name)
def upgrade(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    with upgraded(request.param, tmp_path_factory.mktemp("upgrade")) as running:
        yield running


def recorded(upgrade: Upgrade, kind: str) -> dict[str, dict[str, Any]]:
    """Objects of a kind as the release left them, by name."""
    return {body["metadata"]["name"]: body for body in upgrade.release.objects if body["kind"] == kind}


def whole_backups(upgrade: Upgrade) -> list[str]:
    """Names of the VolumeBackups that were available, or are now, and whose store answers."""
    backups = recorded(upgrade, "VolumeBackup").items()
    whole = [name for name, body in backups if body["status"].get("phase") in WHOLE and name != AWAY]
    upgrade.await_phase("available", "VolumeBackup", RUNNING)
    return [*whole, RUNNING]


def conditions(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Conditions of an object, by type."""
    return {condition["type"]: condition for condition in body["status"]["conditions"]}


def test_applied_objects_are_accepted_and_change_nothing(upgrade: Upgrade) -> None:
    told = upgrade.kubectl("apply", "-f", "-", stdin=upgrade.release.manifests).splitlines()
    assert [line for line in told if not line.endswith(" unchanged")] == []


@pytest.mark.parametrize("kind", ["BackupStore", "VolumeBackup", "VolumeRestore"])
def test_every_old_object_can_be_written(upgrade: Upgrade, kind: str) -> None:
    letting_go = '{"metadata":{"finalizers":null,"annotations":{"example.com/touched":"yes"}}}'
    for patch, *more in ((letting_go,), ('{"status":{"observedGeneration":1}}', "--subresource=status")):
        options = ("--type=merge", "--dry-run=server", f"--patch={patch}", *more)
        upgrade.kubectl("patch", kind, *recorded(upgrade, kind), *options)


@pytest.mark.parametrize("kind", ["VolumeBackup", "VolumeRestore"])
def test_every_phase_stays(upgrade: Upgrade, kind: str) -> None:
    bodies = recorded(upgrade, kind)
    phases = {name: body["status"].get("phase") for name, body in bodies.items() if name not in (RUNNING, RESTORING)}
    for phase in set(phases.values()) - {None}:
        # A backup that is being restored is available when that has ended.
        then = "available" if phase in WHOLE else phase
        upgrade.await_phase(then, kind, *(name for name in phases if phases[name] == phase))


@pytest.mark.parametrize(("kind", "name"), [("VolumeBackup", RUNNING), ("VolumeRestore", RESTORING)])
def test_running_operations_complete(upgrade: Upgrade, kind: str, name: str) -> None:
    assert recorded(upgrade, kind)[name]["status"]["phase"] in ("creating", "restoring")
    upgrade.await_phase("available", kind, name)


def test_volume_of_a_running_restore_gets_its_name(upgrade: Upgrade) -> None:
    assert RESTORING not in recorded(upgrade, "PersistentVolumeClaim")
    upgrade.await_phase("available", "VolumeRestore", RESTORING)
    upgrade.await_phase("Bound", "PersistentVolumeClaim", RESTORING)


def test_pins_of_each_old_backup_are_recorded(upgrade: Upgrade) -> None:
    there = "--for=jsonpath={.status.pins.contentDigest}"
    upgrade.kubectl("wait", there, "--timeout=60s", "VolumeBackup", *whole_backups(upgrade))


def test_backup_of_a_silent_store_stays_available_and_unpinned(upgrade: Upgrade) -> None:
    upgrade.kubectl("wait", "--for=condition=Pinned=False", "--timeout=60s", "VolumeBackup", AWAY)
    found = upgrade.get("VolumeBackup", AWAY)
    assert found["status"]["phase"] == "available"
    assert conditions(found)["Ready"]["status"] == "True"
    assert conditions(found)["Pinned"]["reason"] == "StoreUnreachable"


def test_store_names_the_backups_from_before_it_had_keys(upgrade: Upgrade) -> None:
    upgrade.kubectl("wait", "--for=condition=UnsealedBackups", "--timeout=60s", "BackupStore", "grown")
    stores = {name: conditions(upgrade.get("BackupStore", name)) for name in recorded(upgrade, "BackupStore")}
    told = {name: found["UnsealedBackups"]["message"] for name, found in stores.items() if "UnsealedBackups" in found}
    assert told.keys() == {"grown"}
    listed = set(re.findall(r"[\w-]+", told["grown"]))
    assert listed & recorded(upgrade, "VolumeBackup").keys() == {"before-keys", "adopted-unsealed"}


def test_newly_rejected_requests_say_what_to_set(upgrade: Upgrade) -> None:
    upgrade.await_phase("error", "VolumeBackup", "late-unsealed")
    refused = upgrade.get("VolumeBackup", "late-unsealed")
    assert "spec.import.allowUnsealed" in conditions(refused)["Ready"]["message"]
    asked = refused["spec"] | {"import": refused["spec"]["import"] | {"id": "asked-again", "allowUnsealed": True}}
    upgrade.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_backup("allowed", asked)))
    upgrade.await_phase("available", "VolumeBackup", "allowed")
    upgrade.restore("allowed")
    assert contents(upgrade.volumes / restored("allowed")) == upgrade.release.contents["late-unsealed"]


def test_every_backup_restores_byte_for_byte_and_nothing_stored_is_touched(upgrade: Upgrade) -> None:
    whole = whole_backups(upgrade)
    upgrade.restore(*whole)
    for name in whole:
        assert contents(upgrade.volumes / restored(name)) == upgrade.release.contents[name], name
    assert upgrade.before.items() <= upgrade.bucket().items()


def test_first_incremental_backup_of_a_tree_finds_changes_that_timestamps_hid(upgrade: Upgrade) -> None:
    source = volume_as_of(upgrade, "files-third", "files")
    hide_a_change(source / "noise")
    upgrade.back_up("files-fourth", "files")
    made = upgrade.get("VolumeBackup", "files-fourth")["status"]
    assert made["parentId"] == upgrade.get("VolumeBackup", "files-third")["status"]["id"]
    assert made["missedChanges"] == 1
    assert "files-fourth" in upgrade.kubectl("get", "events", "--field-selector=reason=ChangeMissed")
    upgrade.restore("files-fourth")
    assert contents(upgrade.volumes / restored("files-fourth")) == contents(source)


def test_first_incremental_backup_of_a_device_is_right(upgrade: Upgrade) -> None:
    source = volume_as_of(upgrade, "disk-second", "disk")
    with source.open("r+b") as device:
        device.write(b"BOOT")
    upgrade.back_up("disk-third", "disk")
    upgrade.restore("disk-third")
    assert contents(upgrade.volumes / restored("disk-third")) == contents(source)


def test_new_schedule_protects_an_old_volume_and_removes_only_its_own_backups(upgrade: Upgrade) -> None:
    """Run a schedule with the sharpest retention twice. The backups of the release have no schedule, and all stay."""
    source = volume_as_of(upgrade, RUNNING, "ledger")
    upgrade.kubectl("label", "persistentvolumeclaim", "ledger", "protect=yes")
    before = set(upgrade.kubectl("get", "VolumeBackup", "-o", "name").split())
    for number, run in enumerate(("first", "second"), start=1):
        upgrade.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_schedule(run)))
        upgrade.kubectl(
            "wait", f"--for=jsonpath={{.status.lastRun.name}}={of_token(run)}", "--timeout=60s", "bsch/nightly"
        )
        upgrade.kubectl("wait", "--for=condition=LastRunSucceeded", "--timeout=90s", "bsch/nightly")
        assert upgrade.get("bsch", "nightly")["status"]["lastRun"]["succeeded"] == 1, number
    first, newest = (f"nightly-ledger-{of_token(run)}" for run in ("first", "second"))
    upgrade.kubectl("wait", "--for=delete", f"VolumeBackup/{first}", "--timeout=120s")
    upgrade.restore(newest)
    assert contents(upgrade.volumes / restored(newest)) == contents(source)
    after = set(upgrade.kubectl("get", "VolumeBackup", "-o", "name").split())
    assert after == before | {f"volumebackup.cinderblock.io/{newest}"}
    upgrade.kubectl("delete", "bsch/nightly", f"VolumeBackup/{newest}", "--timeout=60s")


def test_deleting_an_imported_backup_removes_only_its_own_data(upgrade: Upgrade) -> None:
    owned = upgrade.get("VolumeBackup", "adopted")["status"]["id"]
    before = upgrade.bucket()
    assert {key for key in before if owned in key} == {key for key in upgrade.before if owned in key} != set()
    upgrade.kubectl("delete", "VolumeBackup", "adopted", "--timeout=60s")
    assert upgrade.bucket() == {key: digest for key, digest in before.items() if owned not in key}


def test_deleting_a_second_import_keeps_the_data(upgrade: Upgrade) -> None:
    before = upgrade.bucket()
    upgrade.kubectl("delete", "VolumeBackup", "second-name", "--timeout=60s")
    assert upgrade.bucket() == before


def test_waiting_deletion_continues_after_its_dependent_is_gone(upgrade: Upgrade) -> None:
    assert recorded(upgrade, "VolumeBackup")["notes-full"]["status"]["phase"] == "deleting"
    upgrade.restore("notes-second")
    upgrade.kubectl("delete", "VolumeBackup", "notes-second", "--timeout=60s")
    upgrade.kubectl("wait", "--for=delete", "VolumeBackup", "notes-full", "--timeout=60s")
    assert [key for key in upgrade.bucket() if key.startswith("plain/")] == []


def a_schedule(run: str) -> dict[str, Any]:
    return {
        "apiVersion": "cinderblock.io/v1alpha1",
        "kind": "BackupSchedule",
        "metadata": {"name": "nightly"},
        "spec": {
            "schedule": "0 0 29 2 *",
            "runNow": run,
            "volumes": {"selector": {"matchLabels": {"protect": "yes"}}},
            "retention": {"keepLast": 1, "minAge": "0s", "grace": "0s", "maxPerDay": 0},
        },
    }


def volume_as_of(upgrade: Upgrade, backup: str, volume: str) -> Path:
    """Put back what stands for a volume, as a backup holds it. Inodes and ctimes are new, as with drivers that copy."""
    upgrade.restore(backup)
    target = upgrade.volumes / volume
    subprocess.run(["cp", "--archive", str(upgrade.volumes / restored(backup)), str(target)], check=True)
    return target


def hide_a_change(path: Path) -> None:
    """Write other bytes into a file, and give it the mtime that it had."""
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
