from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cinderblock.errors import SourceError, TargetError
from cinderblock.format.entries import ByteRange
from cinderblock.volume.block.source import BlockSource
from cinderblock.volume.block.target import BlockTarget

MIB = 1 << 20
LoopDevice = Callable[..., tuple[str, Path]]


def image(path: Path, size: int, *pieces: tuple[int, bytes]) -> str:
    with path.open("xb") as file:
        for offset, data in pieces:
            os.pwrite(file.fileno(), data, offset)
        file.truncate(size)
    return str(path)


def content(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def blocks(path: Path) -> int:
    os.sync()
    return path.stat().st_blocks * 512


def test_device_has_its_size_and_is_one_range(loop_device: LoopDevice) -> None:
    device, _ = loop_device(mib=12)
    with BlockSource(device) as source:
        assert source.size == 12 * MIB
        assert [sum(length for _, length in source.data_ranges())] in ([12 * MIB], [0])
        assert not source.has_changed()


def test_device_is_read_completely(loop_device: LoopDevice) -> None:
    device, path = loop_device(mib=20)
    data = os.urandom(20 * MIB)
    path.write_bytes(data)
    buffer = memoryview(bytearray(3 * MIB))
    with BlockSource(device) as source:
        read = b""
        while count := source.read_into(len(read), buffer):
            read += bytes(buffer[:count])
    assert read == data


def test_image_is_read_without_its_holes(tmp_path: Path) -> None:
    path = image(tmp_path / "image", 1 << 40, (5 * MIB, b"x" * 4096), ((1 << 40) - 4096, b"y" * 4096))
    with BlockSource(path) as source:
        assert source.size == 1 << 40
        assert list(source.data_ranges()) == [ByteRange(5 * MIB, 4096), ByteRange((1 << 40) - 4096, 4096)]


def test_image_written_after_opening_has_changed(tmp_path: Path) -> None:
    path = image(tmp_path / "image", MIB)
    with BlockSource(path) as source:
        assert not source.has_changed()
        os.truncate(path, 2 * MIB)
        assert source.has_changed()


@pytest.mark.parametrize("opener", [BlockSource, lambda path: BlockTarget(path, 0)])
def test_directory_is_rejected_as_a_device(tmp_path: Path, opener: Callable[[str], object]) -> None:
    with pytest.raises((SourceError, TargetError), match="is not a block device: check the volume's mode"):
        opener(str(tmp_path))


def test_missing_device_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"ENOENT: cannot open .*nowhere"):
        BlockSource(str(tmp_path / "nowhere"))
    with pytest.raises(TargetError, match=r"ENOENT: cannot open .*nowhere"):
        BlockTarget(str(tmp_path / "nowhere"), 0)


def test_target_that_is_too_small_is_rejected_before_writing(tmp_path: Path) -> None:
    path = image(tmp_path / "image", MIB, (0, b"keep"))
    with pytest.raises(TargetError, match="the target has 1048576 bytes and the backup 1048577: restore to a larger"):
        BlockTarget(path, MIB + 1)
    assert content(path)[:4] == b"keep"


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def fail_after_open(path: str) -> Callable[..., object]:
    """Return a replacement that fails for an open device, as the kernel does for one that was detached just now."""

    def fail(*_: object) -> object:
        raise OSError(errno.ENXIO, path)

    return fail


def test_source_that_fails_to_open_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, before = image(tmp_path / "image", MIB), open_descriptors()
    monkeypatch.setattr("cinderblock.volume.block.source.size_in_bytes", fail_after_open(path))
    with pytest.raises(SourceError, match="ENXIO: cannot open"):
        BlockSource(path)
    assert open_descriptors() == before


@pytest.mark.parametrize("step", ["size_in_bytes", "data_ranges"])
def test_target_that_fails_to_open_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path, before = image(tmp_path / "image", MIB), open_descriptors()
    monkeypatch.setattr(f"cinderblock.volume.block.target.{step}", fail_after_open(path))
    with pytest.raises(TargetError, match="ENXIO: cannot open"):
        BlockTarget(path, MIB)
    assert open_descriptors() == before


def test_target_that_is_too_small_leaves_no_descriptor(tmp_path: Path) -> None:
    path, before = image(tmp_path / "image", MIB), open_descriptors()
    with pytest.raises(TargetError, match="restore to a larger"):
        BlockTarget(path, MIB + 1)
    assert open_descriptors() == before


def test_larger_target_keeps_its_remaining_bytes(tmp_path: Path) -> None:
    path = image(tmp_path / "image", 2 * MIB, (0, b"x" * 2 * MIB))
    with BlockTarget(path, MIB) as target:
        assert (target.size, target.capacity) == (MIB, 2 * MIB)
        target.clear(0, MIB)
        target.finish()
    assert content(path) == bytes(MIB) + b"x" * MIB


def test_mounted_device_is_rejected(loop_device: LoopDevice, mount: Callable[..., Path], target: Path) -> None:
    device, _ = loop_device()
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    mount(device, at=target)
    with pytest.raises(TargetError, match=r"it is in use, or something is mounted there: unmount it.*EBUSY"):
        BlockTarget(device, MIB)


def test_read_only_device_is_rejected_before_writing(loop_device: LoopDevice) -> None:
    device, _ = loop_device(options=("--read-only",))
    with pytest.raises(TargetError, match="read-only"):
        BlockTarget(device, MIB)


def test_device_without_a_medium_is_not_an_empty_volume(loop_device: LoopDevice) -> None:
    """A detached device has 0 bytes, which must not become an empty backup."""
    device, path = loop_device()
    os.truncate(path, 0)
    subprocess.run(["losetup", "--set-capacity", device], check=True)
    with pytest.raises(SourceError, match="the volume is gone"):
        BlockSource(device)


def test_failing_device_is_named(loop_device: LoopDevice) -> None:
    device, path = loop_device()
    os.truncate(path, MIB)
    with BlockSource(device) as source, pytest.raises(SourceError, match=r"I/O error.*read at byte 2097152 of /dev/"):
        source.read_into(2 * MIB, memoryview(bytearray(4096)))


def fill(target: BlockTarget, offset: int, data: bytes) -> None:
    target.write(offset, data)
    target.finish()


@pytest.mark.parametrize(
    ("at", "problem"), [(0, "the target volume is full"), (1, "I/O error")], ids=["direct", "cached"]
)
def test_thin_device_without_space_is_an_error(
    mount: Callable[..., Path], loop_device: LoopDevice, tmp_path: Path, at: int, problem: str
) -> None:
    """The image is in a file system of 1 MiB. A direct write fails at once, a cached write fails at the final sync."""
    pool = tmp_path / "pool"
    pool.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", at=pool)
    device, _ = loop_device("pool/device")
    with BlockTarget(device, 16 * MIB) as target, pytest.raises(TargetError, match=problem):
        fill(target, at, b"x" * 4 * MIB)


def test_written_data_is_on_the_device_after_finish(loop_device: LoopDevice) -> None:
    device, path = loop_device(mib=4)
    data = os.urandom(4 * MIB)
    with BlockTarget(device, 4 * MIB) as target:
        target.write(MIB, data[MIB:])
        target.write(0, data[:MIB])
        target.finish()
    assert content(path) == data


@pytest.mark.parametrize(("offset", "length"), [(0, 8 * MIB), (MIB, 2 * MIB), (100, 3 * MIB), (513, 300), (4095, 2)])
def test_cleared_data_is_zero_on_the_device(loop_device: LoopDevice, offset: int, length: int) -> None:
    device, path = loop_device(mib=8)
    data = bytearray(os.urandom(8 * MIB))
    path.write_bytes(data)
    with BlockTarget(device, 8 * MIB) as target:
        target.clear(offset, length)
        target.finish()
    data[offset : offset + length] = bytes(length)
    assert content(path) == data


@pytest.mark.parametrize("missing", [{"punch_hole"}, {"punch_hole", "zero_out"}])
def test_device_that_cannot_clear_is_written_with_zeros(
    loop_device: LoopDevice, monkeypatch: pytest.MonkeyPatch, missing: set[str]
) -> None:
    for name in missing:
        monkeypatch.setattr(f"cinderblock.volume.block.target.{name}", lambda *_range: False)
    device, path = loop_device(mib=8)
    data = bytearray(os.urandom(8 * MIB))
    path.write_bytes(data)
    with BlockTarget(device, 8 * MIB) as target:
        target.clear(700, 6 * MIB)
        target.finish()
    data[700 : 700 + 6 * MIB] = bytes(6 * MIB)
    assert content(path) == data


def test_thin_device_stays_thin_when_zeros_are_cleared(
    loop_device: LoopDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("punch_hole", "zero_out"):
        monkeypatch.setattr(f"cinderblock.volume.block.target.{name}", lambda *_range: False)
    device, path = loop_device(mib=16)
    with BlockTarget(device, 16 * MIB) as target:
        target.write(3 * MIB, b"x" * 4096)
        target.clear(0, 3 * MIB)
        target.clear(4 * MIB, 12 * MIB)
        target.finish()
    assert blocks(path) <= 64 << 10


def test_device_frees_the_space_of_cleared_data(loop_device: LoopDevice) -> None:
    device, path = loop_device(mib=16)
    path.write_bytes(os.urandom(16 * MIB))
    with BlockTarget(device, 16 * MIB) as target:
        target.clear(0, 16 * MIB)
        target.finish()
    assert not any(content(device))
    assert blocks(path) <= 64 << 10


def test_new_image_is_known_to_be_blank(tmp_path: Path) -> None:
    with BlockTarget(image(tmp_path / "new", MIB), MIB) as target:
        assert target.is_blank
    with BlockTarget(image(tmp_path / "old", MIB, (0, b"x")), MIB) as target:
        assert not target.is_blank


def test_image_with_data_but_no_blocks_is_not_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE file systems may not count blocks."""
    path = image(tmp_path / "image", 11, (0, b"held before"))
    without_blocks = os.stat_result((*tuple(os.stat(path))[:10], 0, 0, 0, 0, 0, 0, 4096, 0))
    assert without_blocks.st_blocks == 0
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda *_, **__: without_blocks)
        target = BlockTarget(path, 11)
    target.clear(0, 11)
    target.finish()
    assert content(path) == bytes(11)


def test_current_content_of_a_device_can_be_read(loop_device: LoopDevice) -> None:
    device, path = loop_device(mib=1)
    path.write_bytes(b"x" * MIB)
    buffer = memoryview(bytearray(10))
    with BlockTarget(device, MIB) as target:
        assert target.read_into(MIB - 4, buffer) == 4
        assert bytes(buffer[:4]) == b"xxxx"


def test_writing_beyond_the_end_of_a_device_is_an_error(loop_device: LoopDevice) -> None:
    device, _ = loop_device(mib=1)
    with (
        BlockTarget(device, MIB) as target,
        pytest.raises(TargetError, match="ENOSPC: cannot write at byte 1048576 of"),
    ):
        target.write(MIB, b"x")


step = st.tuples(st.booleans(), st.integers(0, 99_999), st.integers(0, 40_000))


@given(steps=st.lists(step, max_size=12), can_punch=st.booleans())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_writes_and_clears_matches_a_plain_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[bool, int, int]], can_punch: bool
) -> None:
    size = 140_000
    model = bytearray(b"\xaa" * size)
    path = tmp_path / "image"
    path.write_bytes(model)
    with monkeypatch.context() as patch:
        if not can_punch:
            patch.setattr("cinderblock.volume.kernel.file_io.punch_hole", lambda *_range: False)
        with BlockTarget(str(path), size) as target:
            for is_write, offset, length in steps:
                if is_write:
                    target.write(offset, b"w" * length)
                    model[offset : offset + length] = b"w" * length
                else:
                    target.clear(offset, length)
                    model[offset : offset + length] = bytes(length)
            target.finish()
    assert path.read_bytes() == model
