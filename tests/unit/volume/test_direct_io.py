"""What a restore writes to a device or a large file goes past the page cache where that can be, and comes back."""

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
        opened = DirectFile.open(file.fileno(), writers, refused)
        assert opened is not None, "the file system of temporary files cannot write past the cache"
        with opened:
            yield opened


def refused(error: OSError, offset: int) -> TargetError:
    return TargetError(f"{errno.errorcode[error.errno or 0]} at {offset}")


@pytest.mark.parametrize("length", [MIN_DIRECT_BYTES, PIECE_BYTES, PIECE_BYTES + ALIGNMENT, 3 * PIECE_BYTES])
def test_what_is_aligned_goes_past_the_cache(writer: DirectFile, image: Path, length: int) -> None:
    data = os.urandom(length)
    writer.write(ALIGNMENT, data)
    writer.finish()
    assert cached_pages(image, ALIGNMENT, length) == 0
    assert image.read_bytes()[ALIGNMENT : ALIGNMENT + length] == data


@pytest.mark.parametrize(
    ("offset", "length"), [(1, PIECE_BYTES), (512, PIECE_BYTES), (0, MIN_DIRECT_BYTES - 1), (0, 0)]
)
def test_what_is_not_aligned_or_short_goes_by_way_of_the_cache(
    writer: DirectFile, image: Path, offset: int, length: int
) -> None:
    data = os.urandom(length)
    writer.write(offset, data)
    assert image.read_bytes()[offset : offset + length] == data


@pytest.mark.parametrize("offset", [0, 1, 511, 4096, 4097])
@pytest.mark.parametrize("length", [1, 4095, 65536, 65537, MIB, 3 * MIB + 77])
def test_a_target_holds_whatever_was_written_wherever(image: Path, offset: int, length: int) -> None:
    data = os.urandom(length)
    with BlockTarget(image, SIZE) as target:
        target.write(offset, data)
        target.finish()
    assert image.read_bytes() == bytes(offset) + data + bytes(SIZE - offset - length)


def test_the_memory_of_what_was_given_may_be_used_again_at_once(image: Path) -> None:
    buffer, expected = bytearray(MIB), []
    with BlockTarget(image, SIZE) as target:
        for number in range(SIZE // MIB):
            buffer[:] = bytes([number + 1]) * MIB
            expected.append(bytes(buffer))
            target.write(number * MIB, memoryview(buffer))
        target.finish()
    assert image.read_bytes() == b"".join(expected)


def test_neighbours_written_by_several_threads_do_not_disturb_each_other(image: Path) -> None:
    """Their borders lie within blocks: what is aligned of one goes past the cache, and the rest of it does not."""
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


def test_a_file_system_that_cannot_is_written_by_way_of_the_cache(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def without_direct(path: str, flags: int, *rest: int, **options: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", without_direct)
    assert_a_target_holds_what_was_written(image)


def test_what_the_kernel_does_not_take_past_the_cache_goes_by_way_of_it(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As file systems do whose blocks are larger, or that say only then that they cannot."""
    written = os.pwrite

    def picky(fd: int, data: memoryview, offset: int) -> int:
        if os.O_DIRECT & flags_of(fd):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return written(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", picky)
    assert_a_target_holds_what_was_written(image)


def test_a_write_that_does_less_than_was_asked_goes_on(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: written(fd, data[:ALIGNMENT], offset))
    data = os.urandom(MIB)
    with BlockTarget(image, SIZE) as target:
        target.write(0, data)
        target.finish()
    assert image.read_bytes()[:MIB] == data


def test_a_refused_write_is_told_by_the_end_with_its_place(writer: DirectFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", refuse_to_write)
    writer.write(2 * MIB, bytes(MIB))
    with pytest.raises(TargetError, match="EIO at 2097152"):
        writer.finish()


def test_after_a_refused_write_nothing_more_is_begun(writer: DirectFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", refuse_to_write)
    with pytest.raises(TargetError, match="EIO"):
        write_for_ever(writer)


def a_file(data: bytes, name: bytes = b"large") -> Entry:
    return Entry(name, EntryKind.FILE, mode=0o4755, mtime_ns=10**18 + 7, size=len(data))


def restore_file(target: Path, data: bytes, offset: int = 0) -> None:
    """Make ``target`` hold one file; of its bytes those from ``offset`` on are written."""
    with TreeWriter(str(target)) as tree:
        tree.put(Entry(b"", EntryKind.DIRECTORY, mode=0o755))
        file = tree.put(a_file(data))
        assert isinstance(file, TargetFile)
        with file:
            for start in range(offset, len(data), MIB):
                file.write(start, data[start : start + MIB])
            file.finish()
        tree.finish()


def test_a_large_file_of_a_tree_goes_past_the_cache_and_has_its_attributes(target: Path) -> None:
    data = os.urandom(5 * MIB + 77)
    restore_file(target, data)
    status = os.stat(target / "large")
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o4755, 10**18 + 7)
    assert cached_pages(target / "large", 0, 5 * MIB) == 0
    assert (target / "large").read_bytes() == data


@pytest.mark.parametrize("present", [0, 1, MIB, 5 * MIB, 9 * MIB])
def test_a_large_file_that_was_there_becomes_what_it_should(target: Path, present: int) -> None:
    data = os.urandom(5 * MIB + 77)
    (target / "large").write_bytes(data[:MIB] + bytes(present - MIB) if present > MIB else data[:present])
    restore_file(target, data, offset=MIB if present >= MIB else 0)
    assert (target / "large").read_bytes() == data


def test_a_large_file_for_which_there_is_no_space_says_so(ext4: Callable[..., Path]) -> None:
    with pytest.raises(TargetError, match=r"the target volume is full.*large"):
        restore_file(ext4(mib=4), os.urandom(16 * MIB))


def test_a_large_file_that_is_given_up_leaves_no_descriptor(target: Path) -> None:
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


def refuse_to_write(fd: int, data: memoryview, offset: int) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def write_for_ever(writer: DirectFile) -> None:
    for number in count():
        writer.write(number % 16 * MIB, bytes(MIB))


def cached_pages(path: Path, offset: int, length: int) -> int:
    """Pages of a range that are in the page cache."""
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
