"""Properties of the CSI driver that the backup tests need beyond csi-sanity: data, read-only access, growth, refusals.

The services are called as plain objects, without gRPC, on real loop devices and real mounts.
"""

import contextlib
import fcntl
import hashlib
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.csi import commands, instants, loops, messages, mounts
from tests.cluster.csi.cleanup import release
from tests.cluster.csi.controller import Controller
from tests.cluster.csi.images import ImageStore
from tests.cluster.csi.node import Node
from tests.cluster.csi.quiescing import FIFREEZE, FITHAW
from tests.cluster.csi.refusals import RefusalError
from tests.cluster.csi.snapshots import Snapshots
from tests.support.mover.unfrozen import until_seen

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and loop devices need root"),
]

MIB = 1 << 20
UNFROZEN = {"freeze": "false"}
PLACES = (63 * MIB, 32 * MIB, 0)
COUNTING_WRITER = f"""
import mmap, os, sys
device, page = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT), mmap.mmap(-1, 4096)
for number in range(1, 1 << 60):
    page[:8] = number.to_bytes(8, "little")
    for place in {PLACES}:
        os.pwritev(device, [page], place)
    if number == 1:
        print("begun", flush=True)
"""
"""Writes each number to all places, one after the other, past the page cache of the device."""


class Machine:
    """A driver without its server, and a minimal kubelet."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.volumes = ImageStore(os.path.join(directory, "data", "volumes"))
        self.snapshot_images = ImageStore(os.path.join(directory, "data", "snapshots"))
        self.controller = Controller(self.volumes, self.snapshot_images, [])
        self.snapshots = Snapshots(self.volumes, self.snapshot_images)
        self.node = Node(self.volumes, "node1", block_mode=None)

    def create(self, name: str, size: int, from_snapshot: str = "", from_volume: str = "", **parameters: str) -> Any:
        request = messages.CreateVolumeRequest(name=name, volume_capabilities=[capability()], parameters=parameters)
        request.capacity_range.required_bytes = size
        if from_snapshot:
            request.volume_content_source.snapshot.snapshot_id = from_snapshot
        if from_volume:
            request.volume_content_source.volume.volume_id = from_volume
        return self.controller.create_volume(request).volume

    def snapshot(self, volume: str, name: str, **parameters: str) -> None:
        self.snapshots.create_snapshot(
            messages.CreateSnapshotRequest(name=name, source_volume_id=volume, parameters=parameters)
        )

    def publish(self, volume: str, target: str = "pod", readonly: bool = False, **wish: Any) -> str:
        path = os.path.join(self.directory, volume, target)
        words: dict[str, Any] = {"volume_id": volume, "volume_capability": capability(**wish)}
        words["staging_target_path"] = self.staging(volume)
        self.node.node_stage_volume(messages.NodeStageVolumeRequest(**words))
        self.node.node_publish_volume(messages.NodePublishVolumeRequest(target_path=path, readonly=readonly, **words))
        return path

    def unpublish(self, volume: str, target: str = "pod") -> None:
        path = os.path.join(self.directory, volume, target)
        self.node.node_unpublish_volume(messages.NodeUnpublishVolumeRequest(volume_id=volume, target_path=path))

    def unstage(self, volume: str) -> None:
        staging = self.staging(volume)
        self.node.node_unstage_volume(messages.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=staging))

    def delete(self, volume: str) -> None:
        self.controller.delete_volume(messages.DeleteVolumeRequest(volume_id=volume))

    def staging(self, volume: str) -> str:
        return os.path.join(self.directory, volume, "staging")


def capability(block: bool = False, mode: str = "SINGLE_NODE_WRITER") -> Any:
    result = messages.VolumeCapability()
    result.access_mode.mode = messages.VolumeCapability.AccessMode.Mode.Value(mode)
    if block:
        result.block.SetInParent()
    else:
        result.mount.SetInParent()
    return result


@pytest.fixture
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="csi-") as directory:
        try:
            yield Machine(directory)
        finally:
            release(directory, mounted_below=directory)


def write(path: str, data: bytes) -> str:
    with open(path, "r+b" if os.path.exists(path) else "wb") as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def digest(path: str, length: int) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(length)).hexdigest()


def refused(call: Any, *arguments: Any, **words: Any) -> str:
    with pytest.raises(RefusalError) as caught:
        call(*arguments, **words)
    return caught.value.code


def test_snapshot_of_a_mounted_volume_holds_unsynced_data_and_grows(
    machine: Machine,
) -> None:
    machine.create("small", 32 * MIB)
    content = os.urandom(3 * MIB)
    expected = write(os.path.join(machine.publish("small"), "file"), content)
    machine.snapshot("small", "moment")
    machine.create("large", 96 * MIB, from_snapshot="moment")
    restored = machine.publish("large")
    assert digest(os.path.join(restored, "file"), len(content)) == expected
    status = os.statvfs(restored)
    assert status.f_blocks * status.f_frsize > 64 * MIB


def test_copy_of_a_block_volume_holds_what_was_not_yet_synced(machine: Machine) -> None:
    machine.create("raw", 8 * MIB)
    content = os.urandom(2 * MIB)
    expected = write(machine.publish("raw", block=True), content)
    machine.create("clone", 8 * MIB, from_volume="raw")
    assert digest(machine.publish("clone", block=True), len(content)) == expected


@pytest.mark.parametrize(
    ("of_volume", "of_snapshot"), [(UNFROZEN, {}), ({}, UNFROZEN)], ids=["StorageClass", "VolumeSnapshotClass"]
)
def test_unfrozen_snapshot_can_pair_new_timestamps_with_old_data(
    machine: Machine, of_volume: dict[str, str], of_snapshot: dict[str, str]
) -> None:
    machine.create("disk", 32 * MIB, **of_volume)
    directory = machine.publish("disk")
    page, log = os.path.join(directory, "page"), os.path.join(directory, "log")

    def is_seen() -> bool:
        write(page, b"old")
        commands.run("sync", "-f", directory)
        write(page, b"new")
        write(log, os.urandom(4096))
        with open(log, "rb") as file:
            os.fsync(file.fileno())
        machine.snapshot("disk", "moment", **of_snapshot)
        machine.create("copy", 32 * MIB, from_snapshot="moment")
        copied = os.path.join(machine.publish("copy"), "page")
        has_new_stamps = os.stat(copied).st_ctime_ns == os.stat(page).st_ctime_ns
        has_old_data = digest(copied, 3) == hashlib.sha256(b"old").hexdigest()
        machine.unpublish("copy")
        machine.unstage("copy")
        machine.delete("copy")
        machine.snapshots.delete_snapshot(messages.DeleteSnapshotRequest(snapshot_id="moment"))
        return has_new_stamps and has_old_data

    until_seen(is_seen)


def test_unfrozen_copy_is_of_one_instant_while_somebody_writes(machine: Machine) -> None:
    machine.create("raw", 64 * MIB, **UNFROZEN)
    device = machine.publish("raw", block=True)
    write(device, os.urandom(64 * MIB))
    last = 0
    with counting(device):
        for number in range(5):
            machine.snapshot("raw", f"moment-{number}")
            first, second, third = numbers_in(machine.snapshot_images.path(f"moment-{number}"))
            assert first >= second >= third >= first - 1
            assert third > last
            last = first


def test_unfrozen_copy_has_holes_and_keeps_an_odd_end(tmp_path: Path) -> None:
    original, copied = tmp_path / "original", tmp_path / "copied"
    content = bytes(3 * MIB) + os.urandom(MIB) + bytes(5000) + b"the end"
    original.write_bytes(content)
    instants.copy(str(original), str(copied))
    assert copied.read_bytes() == content
    assert copied.stat().st_blocks * 512 < 2 * MIB


def test_image_too_large_for_one_read_is_not_copied_unfrozen(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(instants.LARGEST + 1)
    assert refused(instants.copy, str(huge), str(tmp_path / "copied")) == "FAILED_PRECONDITION"
    assert not (tmp_path / "copied").exists()


def test_class_that_says_neither_true_nor_false_is_refused(machine: Machine) -> None:
    assert refused(machine.create, "volume", 8 * MIB, freeze="no") == "INVALID_ARGUMENT"
    machine.create("volume", 8 * MIB)
    assert refused(machine.snapshot, "volume", "moment", freeze="") == "INVALID_ARGUMENT"
    assert refused(machine.create, "volume", 8 * MIB, **UNFROZEN) == "ALREADY_EXISTS"


@contextlib.contextmanager
def counting(device: str) -> Iterator[None]:
    """Let a process write numbers to PLACES of the device, in this order, while inside."""
    command = [sys.executable, "-c", COUNTING_WRITER, device]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "begun\n"
            yield
            assert writer.poll() is None
        finally:
            writer.kill()


def numbers_in(image: str) -> list[int]:
    """Return what an image holds at PLACES."""
    with open(image, "rb") as file:
        return [struct.unpack("<Q", os.pread(file.fileno(), 8, place))[0] for place in PLACES]


def test_readers_of_a_volume_from_a_snapshot_cannot_write(machine: Machine) -> None:
    machine.create("source", 32 * MIB)
    write(os.path.join(machine.publish("source"), "file"), b"kept")
    machine.snapshot("source", "moment")
    machine.create("readers", 32 * MIB, from_snapshot="moment")
    for target in ("one", "two"):
        published = machine.publish("readers", target, mode="MULTI_NODE_READER_ONLY")
        assert digest(os.path.join(published, "file"), 4) == hashlib.sha256(b"kept").hexdigest()
        with pytest.raises(OSError, match="Read-only file system"):
            write(os.path.join(published, "other"), b"refused")


def test_reader_of_a_block_volume_cannot_write_while_a_writer_can(machine: Machine) -> None:
    machine.create("raw", 8 * MIB)
    writer = machine.publish("raw", "writer", block=True)
    write(writer, b"first")
    reader = machine.publish("raw", "reader", readonly=True, block=True)
    assert digest(reader, 5) == hashlib.sha256(b"first").hexdigest()
    with pytest.raises(PermissionError):
        write(reader, b"refused")
    machine.unpublish("raw", "reader")
    write(writer, b"again")
    assert len(loops.attached(machine.volumes.path("raw"))) == 1


def test_published_volume_is_deleted_only_after_it_is_unstaged(machine: Machine) -> None:
    machine.create("used", 32 * MIB)
    target = machine.publish("used")
    assert refused(machine.delete, "used") == "FAILED_PRECONDITION"
    for _ in range(2):
        machine.unpublish("used")
        machine.unstage("used")
        machine.delete("used")
    assert not os.path.exists(target)
    assert not loops.attached_below(machine.directory)


def test_device_that_somebody_still_has_open_keeps_its_volume_staged(machine: Machine) -> None:
    machine.create("held", 8 * MIB)
    machine.publish("held", block=True)
    (loop,) = loops.attached(machine.volumes.path("held"))
    with open(loop.path, "rb"):
        machine.unpublish("held")
        assert refused(machine.unstage, "held") == "FAILED_PRECONDITION"
        assert refused(machine.publish, "held", block=True) == "FAILED_PRECONDITION"
    machine.unstage("held")
    machine.publish("held", block=True)


def test_file_system_that_was_frozen_by_somebody_else_stays_frozen(machine: Machine) -> None:
    machine.create("quiet", 32 * MIB)
    descriptor = os.open(machine.publish("quiet"), os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
        machine.snapshot("quiet", "moment")
        fcntl.ioctl(descriptor, FITHAW, 0)
    finally:
        os.close(descriptor)


def test_image_that_ends_within_a_sector_can_be_published(machine: Machine) -> None:
    odd = machine.volumes.make_blank("odd", 8 * MIB + 100)
    with open(machine.publish("odd", block=True), "rb") as device:
        assert device.seek(0, os.SEEK_END) == 8 * MIB
    assert odd.size == 8 * MIB + 100


def test_volume_that_holds_something_else_is_not_formatted(machine: Machine) -> None:
    machine.create("swap", 8 * MIB)
    image = machine.volumes.path("swap")
    commands.run("mkswap", image)
    before = digest(image, 8 * MIB)
    assert refused(machine.publish, "swap") == "FAILED_PRECONDITION"
    assert digest(image, 8 * MIB) == before


def test_repeating_every_call_changes_nothing(machine: Machine) -> None:
    for _ in range(2):
        machine.create("twice", 32 * MIB)
        target = machine.publish("twice")
        machine.snapshot("twice", "moment")
        machine.create("copy", 32 * MIB, from_snapshot="moment")
    assert [mount.target for mount in mounts.table()].count(os.path.realpath(target)) == 1
    assert refused(machine.create, "copy", 32 * MIB) == "ALREADY_EXISTS"
    assert refused(machine.create, "twice", 64 * MIB) == "ALREADY_EXISTS"
    assert refused(machine.create, "tiny", MIB, from_snapshot="moment") == "OUT_OF_RANGE"
