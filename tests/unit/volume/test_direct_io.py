"""Tests of writes to devices and large files, which bypass the page cache if possible."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest

from cinderblock.errors import TargetError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.block.target import BlockTarget
from cinderblock.volume.kernel.direct_io import ALIGNMENT, MIN_DIRECT_BYTES, PIECE_BYTES, DirectFile, WriterThreads
from cinderblock.volume.tree.target_file import TargetFile
from cinderblock.volume.tree.writer import TreeWriter

MIB = 1 << 20
SIZE = 16 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def writer(image: Path) -> Iterator[DirectFile]:
    with open(image, "r+b", buffering=0) as file, WriterThreads() as writers:
        opened = DirectFile.open(file.fileno(), writers, make_error)
        assert opened is not None, "the file system of temporary files cannot write past the cache"
        with opened:
            yield opened


def make_error(error: OSError, offset: int) -> TargetError:
    return TargetError(f"{errno.errorcode[error.errno or 0]} at {offset}")


@pytest.mark.parametrize("length", [MIN_DIRECT_BYTES, PIECE_BYTES, PIECE_BYTES + ALIGNMENT, 3 * PIECE_BYTES])
def test_aligned_data_bypasses_the_cache(writer: DirectFile, image: Path, length: int) -> None:
    data = os.urandom(length)
    writer.write(ALIGNMENT, data)
    writer.finish()
    assert cached_pages(image, ALIGNMENT, length) == 0
    assert image.read_bytes()[ALIGNMENT : ALIGNMENT + length] == data


@pytest.mark.parametrize(
    ("offset", "length"), [(1, PIECE_BYTES), (512, PIECE_BYTES), (0, MIN_DIRECT_BYTES - 1), (0, 0)]
)
def test_unaligned_or_short_data_goes_through_the_cache(
    writer: DirectFile, image: Path, offset: int, length: int
) -> None:
    data = os.urandom(length)
    writer.write(offset, data)
    assert image.read_bytes()[offset : offset + length] == data


@pytest.mark.parametrize("offset", [0, 1, 511, 4096, 4097])
@pytest.mark.parametrize("length", [1, 4095, 65536, 65537, MIB, 3 * MIB + 77])
def test_target_holds_all_data_at_any_offset(image: Path, offset: int, length: int) -> None:
    data = os.urandom(length)
    with BlockTarget(image, SIZE) as target:
        target.write(offset, data)
        target.finish()
    assert image.read_bytes() == bytes(offset) + data + bytes(SIZE - offset - length)


def test_caller_may_reuse_its_memory_at_once(image: Path) -> None:
    buffer, expected = bytearray(MIB), []
    with BlockTarget(image, SIZE) as target:
        for number in range(SIZE // MIB):
            buffer[:] = bytes([number + 1]) * MIB
            expected.append(bytes(buffer))
            target.write(number * MIB, memoryview(buffer))
        target.finish()
    assert image.read_bytes() == b"".join(expected)


def test_adjacent_writes_of_several_threads_do_not_interfere(image: Path) -> None:
    """Their borders lie within blocks: the aligned part of each write bypasses the cache, the rest does not."""
    data = os.urandom(SIZE)
    borders = [0, *(number * MIB + 777 * number for number in range(1, 15)), SIZE]

    def write(first: int) -> None:
        for start, end in list(pairwise(borders))[first::4]:
            whole = -(-start // ALIGNMENT) * ALIGNMENT
            target.write(start, data[start:whole])
            target.write(whole, data[whole:end])

    with BlockTarget(image, SIZE) as target:
        threads = [threading.Thread(target=write, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        target.finish()
    assert image.read_bytes() == data


def test_file_system_without_direct_io_is_written_through_the_cache(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def without_direct(path: str, flags: int, *rest: int, **options: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", without_direct)
    assert_a_target_holds_what_was_written(image)


def test_rejected_direct_writes_go_through_the_cache(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems with larger blocks, or without direct I/O, may reject a write only when it is made."""
    written = os.pwrite

    def picky(fd: int, data: memoryview, offset: int) -> int:
        if os.O_DIRECT & flags_of(fd):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return written(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", picky)
    assert_a_target_holds_what_was_written(image)


def test_short_write_is_continued(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: written(fd, data[:ALIGNMENT], offset))
    data = os.urandom(MIB)
    with BlockTarget(image, SIZE) as target:
        target.write(0, data)
        target.finish()
    assert image.read_bytes()[:MIB] == data


def test_failed_write_is_reported_by_finish_with_its_offset(
    writer: DirectFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", fail_to_write)
    writer.write(2 * MIB, bytes(MIB))
    with pytest.raises(TargetError, match="EIO at 2097152"):
        writer.finish()


def test_no_write_starts_after_a_failed_write(writer: DirectFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", fail_to_write)
    with pytest.raises(TargetError, match="EIO"):
        write_until_error(writer)


def a_file(data: bytes, name: bytes = b"large") -> Entry:
    return Entry(name, EntryKind.FILE, mode=0o4755, mtime_ns=10**18 + 7, size=len(data))


def restore_file(target: Path, data: bytes, offset: int = 0) -> None:
    """Restore one file to ``target``, writing only its bytes from ``offset`` on."""
    with TreeWriter(str(target)) as tree:
        tree.put(Entry(b"", EntryKind.DIRECTORY, mode=0o755))
        file = tree.put(a_file(data))
        assert isinstance(file, TargetFile)
        with file:
            for start in range(offset, len(data), MIB):
                file.write(start, data[start : start + MIB])
            file.finish()
        tree.finish()


def test_large_file_bypasses_the_cache_and_gets_its_attributes(target: Path) -> None:
    data = os.urandom(5 * MIB + 77)
    restore_file(target, data)
    status = os.stat(target / "large")
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o4755, 10**18 + 7)
    assert cached_pages(target / "large", 0, 5 * MIB) == 0
    assert (target / "large").read_bytes() == data


@pytest.mark.parametrize("present", [0, 1, MIB, 5 * MIB, 9 * MIB])
def test_existing_large_file_gets_its_new_content(target: Path, present: int) -> None:
    data = os.urandom(5 * MIB + 77)
    (target / "large").write_bytes(data[:MIB] + bytes(present - MIB) if present > MIB else data[:present])
    restore_file(target, data, offset=MIB if present >= MIB else 0)
    assert (target / "large").read_bytes() == data


def test_large_file_without_space_is_reported(ext4: Callable[..., Path]) -> None:
    with pytest.raises(TargetError, match=r"the target volume is full.*large"):
        restore_file(ext4(mib=4), os.urandom(16 * MIB))


def test_abandoned_large_file_leaves_no_open_descriptor(target: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with TreeWriter(str(target)) as tree:
        tree.put(Entry(b"", EntryKind.DIRECTORY, mode=0o755))
        file = tree.put(a_file(bytes(4 * MIB)))
        assert isinstance(file, TargetFile)
        file.write(0, os.urandom(4 * MIB))
        file.close()
    assert os.listdir("/proc/self/fd") == before


def assert_a_target_holds_what_was_written(image: Path) -> None:
    data = os.urandom(2 * MIB)
    with BlockTarget(image, SIZE) as target:
        target.write(0, data)
        target.finish()
    assert image.read_bytes()[: 2 * MIB] == data


def fail_to_write(fd: int, data: memoryview, offset: int) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def write_until_error(writer: DirectFile) -> None:
    for number in count():
        writer.write(number % 16 * MIB, bytes(MIB))


def cached_pages(path: Path, offset: int, length: int) -> int:
    """Return the number of pages of a range that are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        found = (ctypes.c_ubyte * (len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        address = ctypes.addressof(start)
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), found) == 0
        del start
    first = offset // mmap.PAGESIZE
    return sum(page & 1 for page in found[first : first + length // mmap.PAGESIZE])


def flags_of(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL)
