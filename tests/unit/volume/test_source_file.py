from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cinderblock.errors import SourceChanging, SourceError
from cinderblock.format.entries import ByteRange, Entry, EntryKind
from cinderblock.volume import timestamps
from cinderblock.volume.errors import VANISHED
from cinderblock.volume.tree.reader import TreeReader
from cinderblock.volume.tree.source_file import SMALL_FILE_BYTES

MIB = 1 << 20


def find(reader: TreeReader, path: bytes) -> Entry:
    return next(entry for entry in reader.walk() if entry.path == path)


def ranges_of(root: Path, name: bytes) -> list[ByteRange]:
    with TreeReader(str(root)) as reader, reader.open_file(find(reader, name)) as file:
        return list(file.data_ranges())


def write_at(path: Path, size: int, *pieces: tuple[int, bytes]) -> None:
    with path.open("xb") as file:
        for offset, data in pieces:
            os.pwrite(file.fileno(), data, offset)
        file.truncate(size)


def test_content_is_readable_from_any_offset(source: Path) -> None:
    content = os.urandom(3 * MIB + 17)
    (source / "file").write_bytes(content)
    buffer = memoryview(bytearray(MIB))
    with TreeReader(str(source)) as reader, reader.open_file(find(reader, b"file")) as file:
        assert file.size == len(content)
        assert file.read_into(5, buffer) == MIB
        assert buffer == content[5 : MIB + 5]
        assert file.read_into(3 * MIB, buffer) == 17
        assert buffer[:17] == content[-17:]
        assert file.read_into(len(content), buffer) == 0


def test_old_reads_leave_the_page_cache_and_can_be_repeated(source: Path) -> None:
    content = os.urandom(20 * MIB)
    (source / "file").write_bytes(content)
    buffer = memoryview(bytearray(MIB))
    with TreeReader(str(source)) as reader, reader.open_file(find(reader, b"file")) as file:
        for _ in range(2):
            for offset in range(0, len(content), MIB):
                assert file.read_into(offset, buffer) == MIB
                assert buffer == content[offset : offset + MIB]


def test_holes_are_not_among_the_data(source: Path) -> None:
    write_at(source / "file", 100 * MIB, (0, b"begin"), (50 * MIB, b"middle"))
    ranges = ranges_of(source, b"file")
    assert [offset for offset, _length in ranges] == [0, 50 * MIB]
    assert all(length <= MIB for _offset, length in ranges)


def test_sparse_file_of_a_tebibyte_has_little_data(source: Path) -> None:
    write_at(source / "file", 1 << 40, ((1 << 40) - 3, b"end"))
    [(offset, length)] = ranges_of(source, b"file")
    assert offset + length == 1 << 40
    assert length <= MIB


@pytest.mark.parametrize("size", [SMALL_FILE_BYTES + 1, 10 * MIB])
def test_file_that_is_only_a_hole_has_no_data(source: Path, size: int) -> None:
    write_at(source / "file", size)
    assert ranges_of(source, b"file") == []


@pytest.mark.parametrize("size", [1, SMALL_FILE_BYTES, SMALL_FILE_BYTES + 1, 5 * MIB + 1])
def test_file_without_holes_is_one_range(source: Path, size: int) -> None:
    write_at(source / "file", size, (0, b"x" * size))
    assert ranges_of(source, b"file") == [ByteRange(0, size)]


def test_empty_file_has_no_data(source: Path) -> None:
    (source / "file").touch()
    assert ranges_of(source, b"file") == []


def test_file_system_that_does_not_know_holes_gives_one_range(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_at(source / "file", 10 * MIB, (0, b"x"))

    def fail(_fd: int, _position: int, _whence: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "lseek", fail)
    assert ranges_of(source, b"file") == [ByteRange(0, 10 * MIB)]


def test_unmodified_file_has_not_changed(source: Path) -> None:
    (source / "file").write_bytes(b"content")
    with TreeReader(str(source)) as reader:
        entry = find(reader, b"file")
        with reader.open_file(entry) as file:
            file.read_into(0, memoryview(bytearray(10)))
            assert not file.has_changed()
            assert file.entry is entry


def test_change_is_detected_although_size_and_mtime_are_restored(source: Path) -> None:
    path = source / "file"
    path.write_bytes(b"content")
    with TreeReader(str(source)) as reader, reader.open_file(find(reader, b"file")) as file:
        status = path.stat()
        # The file system's clock ticks every few milliseconds; two changes within one tick are indistinguishable.
        while path.stat().st_ctime_ns == status.st_ctime_ns:
            path.write_bytes(b"CONTENT")
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_mtime_ns == status.st_mtime_ns
        assert file.has_changed()


@pytest.fixture
def whole_seconds(ext4: Callable[..., Path]) -> Path:
    """Return a file system with timestamps of whole seconds, like ext4 on small volumes made some years ago."""
    path = ext4(more=("-I", "128"))
    (path / "stamped").touch()
    assert (path / "stamped").stat().st_ctime_ns % 1_000_000_000 == 0
    return path


def test_change_is_detected_despite_coarse_timestamps(whole_seconds: Path) -> None:
    path = whole_seconds / "file"
    path.write_bytes(b"content")
    with TreeReader(str(whole_seconds)) as reader, reader.open_file(find(reader, b"file")) as file:
        path.write_bytes(b"CONTENT")
        assert file.has_changed()


def test_file_under_constant_writes_is_never_settled(whole_seconds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timestamps, "_MAX_TICK_WAITS", 1)
    path = whole_seconds / "file"
    path.write_bytes(b"content")
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.02):
            path.write_bytes(b"content")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with TreeReader(str(whole_seconds)) as reader, reader.open_file(find(reader, b"file")) as file:
            ended.set()
            writer.join()
            assert not file.is_settled
    finally:
        ended.set()
        writer.join()


def test_timestamp_in_the_future_is_not_waited_for(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").write_bytes(b"content")
    monkeypatch.setattr(timestamps.time, "clock_gettime_ns", lambda _: 0)
    monkeypatch.setattr(timestamps.time, "sleep", lambda _: pytest.fail("nobody can wait for that"))
    with TreeReader(str(source)) as reader, reader.open_file(find(reader, b"file")) as file:
        assert not file.has_changed()


def test_file_that_shrinks_gives_fewer_bytes_and_has_changed(source: Path) -> None:
    path = source / "file"
    path.write_bytes(b"x" * 1000)
    with TreeReader(str(source)) as reader, reader.open_file(find(reader, b"file")) as file:
        os.truncate(path, 10)
        assert file.read_into(0, memoryview(bytearray(1000))) == 10
        assert file.has_changed()


def test_file_changed_since_the_walk_has_a_new_entry(source: Path) -> None:
    path = source / "file"
    path.write_bytes(b"old")
    with TreeReader(str(source)) as reader:
        entry = find(reader, b"file")
        path.write_bytes(b"new content")
        os.setxattr(path, "user.new", b"1")
        path.chmod(0o600)
        with reader.open_file(entry) as file:
            assert (file.size, file.entry.size, file.entry.mode) == (11, 11, 0o600)
            assert file.entry.xattrs == ((b"user.new", b"1"),)
            assert not file.has_changed()


def _removed(path: Path) -> None:
    path.unlink()


def _symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [_removed, _symlink, _fifo, _directory])
def test_file_replaced_by_another_kind_has_vanished(source: Path, change: object) -> None:
    (source / "file").write_bytes(b"content")
    with TreeReader(str(source)) as reader:
        entry = find(reader, b"file")
        assert callable(change)
        change(source / "file")
        with pytest.raises(SourceChanging, match="back up a snapshot") as caught:
            reader.open_file(entry)
        assert caught.value.reason == VANISHED


def test_parent_that_became_a_symlink_is_not_followed(source: Path, tmp_path: Path) -> None:
    (source / "directory").mkdir()
    (source / "directory" / "file").write_bytes(b"inside")
    with TreeReader(str(source)) as reader:
        entry = find(reader, b"directory/file")
    (source / "directory").rename(tmp_path / "elsewhere")
    (source / "directory").symlink_to(tmp_path / "elsewhere")
    with TreeReader(str(source)) as reader, pytest.raises(SourceChanging):
        reader.open_file(entry)


def test_other_files_can_be_read_after_one_has_vanished(source: Path) -> None:
    for name in ("a", "b", "c"):
        (source / name / "sub").mkdir(parents=True)
        (source / name / "sub" / "file").write_text(name)
    with TreeReader(str(source)) as reader:
        entries = [entry for entry in reader.walk() if entry.kind is EntryKind.FILE]
        (source / "b").rename(source / "moved")
        reader.open_file(entries[0]).close()
        with pytest.raises(SourceChanging):
            reader.open_file(entries[1])
        buffer = memoryview(bytearray(1))
        with reader.open_file(entries[2]) as file:
            file.read_into(0, buffer)
        assert bytes(buffer) == b"c"


def test_reading_does_not_change_the_atime(source: Path) -> None:
    path = source / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(1, 2))
    with TreeReader(str(source)) as reader, reader.open_file(find(reader, b"file")) as file:
        file.read_into(0, memoryview(bytearray(7)))
    assert path.stat().st_atime_ns == 1


def test_several_threads_may_open_files_in_any_order(source: Path) -> None:
    for number in range(200):
        directory = source / f"d{number % 17}" / f"e{number % 5}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_text(str(number))
    with TreeReader(str(source)) as reader:
        entries = [entry for entry in reader.walk() if entry.kind is EntryKind.FILE]

        def read(entry: Entry) -> bool:
            buffer = memoryview(bytearray(10))
            with reader.open_file(entry) as file:
                count = file.read_into(0, buffer)
            return entry.path.endswith(b"/f" + bytes(buffer[:count]))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, entries[::-1] * 3))


def test_device_error_names_the_file(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").write_bytes(b"content")

    def fail(_fd: int, _buffers: object, _offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with TreeReader(str(source)) as reader, reader.open_file(find(reader, b"file")) as file:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(SourceError, match=r"I/O error: check its storage backend.*EIO: cannot read file"):
            file.read_into(0, memoryview(bytearray(7)))


def test_abandoned_walk_leaves_no_open_descriptor(source: Path) -> None:
    (source / "directory").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with TreeReader(str(source)) as reader:
        never_begun, given_up = reader.walk(), reader.walk()
        next(given_up)
        del never_begun, given_up
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_twice_closes_no_other_descriptor(source: Path) -> None:
    reader = TreeReader(str(source))
    reader.close()
    fd = os.open(source, os.O_RDONLY)
    reader.close()
    os.fstat(fd)
    os.close(fd)
