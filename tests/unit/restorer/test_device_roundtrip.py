"""A device is the same after backup and restore, through every chain of incremental backups."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cinderblock.api.mover import VolumeMode
from cinderblock.api.v1alpha1.store import Compression, CompressionAlgorithm
from cinderblock.errors import InvalidInput, TargetError
from cinderblock.format.crypto.keyring import KeyRing
from tests.support.mover.backups import Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource

MIB = 1 << 20
BLOCK = VolumeMode.BLOCK


def write_image(path: Path, size: int, *segments: tuple[int, bytes]) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in segments:
            file.seek(offset)
            file.write(data)
    return path


@pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("size", [1, 511, MIB - 1, MIB, MIB + 1, 5 * MIB + 12345])
def test_device_of_any_size_is_restored(tmp_path: Path, size: int, keys: KeyRing | None) -> None:
    image = write_image(tmp_path / "image", size, (0, os.urandom(size)))
    backups = Backups(keys=keys)
    backups.back_up(image, "full", mode=BLOCK)
    target = write_image(tmp_path / "target", size)
    backups.restore("full", target, BLOCK)
    assert target.read_bytes() == image.read_bytes()


def test_device_of_zeros_stores_nothing_and_is_restored(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image", 3 * MIB, (MIB, bytes(MIB)))
    backups = Backups()
    report = backups.back_up(image, "full", mode=BLOCK)
    assert (report.object_count, report.logical_bytes) == (0, 0)
    target = write_image(tmp_path / "target", 3 * MIB, (0, os.urandom(3 * MIB)))
    backups.restore("full", target, BLOCK)
    assert target.read_bytes() == bytes(3 * MIB)


def test_device_that_grew_is_restored_at_both_sizes(tmp_path: Path) -> None:
    """Cinder: ``Volume size increased since the last backup. Do a full backup.`` (cinder/backup/chunkeddriver.py)

    Here every manifest maps the whole volume, so nothing depends on the parent's size.
    """
    small, large = 2 * MIB + 511, 4 * MIB + 12345
    image = write_image(tmp_path / "image", small, (0, os.urandom(small)))
    before = image.read_bytes()
    backups = Backups()
    backups.back_up(image, "full", mode=BLOCK)
    with open(image, "ab") as file:
        file.write(b"grown" + bytes(large - small - 10) + b"grown")
    report = backups.back_up(image, "child", "full", mode=BLOCK)
    assert report.transferred_bytes < 2 * MIB
    for backup, content in (("full", before), ("child", image.read_bytes())):
        target = write_image(tmp_path / backup, len(content))
        backups.restore(backup, target, BLOCK)
        assert target.read_bytes() == content


def test_larger_target_becomes_zero_behind_the_end(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image", 2 * MIB, (0, b"data" * 1000))
    backups = Backups()
    backups.back_up(image, "full", mode=BLOCK)
    target = write_image(tmp_path / "target", 4 * MIB, (0, os.urandom(4 * MIB)))
    backups.restore("full", target, BLOCK)
    assert target.read_bytes() == image.read_bytes() + bytes(2 * MIB)


def test_smaller_target_is_refused_untouched(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image", 2 * MIB, (0, b"data" * 1000))
    backups = Backups()
    backups.back_up(image, "full", mode=BLOCK)
    target = write_image(tmp_path / "target", MIB, (0, b"mine"))
    with pytest.raises(TargetError):
        backups.restore("full", target, BLOCK)
    assert target.read_bytes().startswith(b"mine")


def test_backup_of_a_tree_is_not_restored_to_a_device(tmp_path: Path) -> None:
    backups = Backups()
    backups.back_up(MemorySource(), "full")
    target = write_image(tmp_path / "target", MIB, (0, b"mine"))
    with pytest.raises(InvalidInput, match="Filesystem"):
        backups.restore("full", target, BLOCK)
    assert target.read_bytes().startswith(b"mine")


def test_equal_chunks_are_stored_once(tmp_path: Path) -> None:
    block = os.urandom(MIB)
    image = write_image(tmp_path / "image", 20 * MIB, *((mib * MIB, block) for mib in range(0, 20, 2)))
    backups = Backups()
    report = backups.back_up(image, "full", mode=BLOCK)
    assert report.stored_bytes < 2 * MIB
    assert report.logical_bytes == 10 * MIB
    assert len({extent.chunk for entry in backups.open("full").entries() for extent in entry.extents}) == 1


def test_compression_can_be_turned_off(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image", 2 * MIB, (0, b"text" * (MIB // 2)))
    none = Compression(algorithm=CompressionAlgorithm.NONE)
    backups = Backups()
    assert backups.back_up(image, "zstd", mode=BLOCK).stored_bytes < MIB
    assert backups.back_up(image, "none", mode=BLOCK, compression=none).stored_bytes > MIB
    target = write_image(tmp_path / "target", 2 * MIB)
    backups.restore("none", target, BLOCK)
    assert target.read_bytes() == image.read_bytes()


def test_only_what_changed_is_sent_by_an_incremental(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image", 32 * MIB, (0, os.urandom(32 * MIB)))
    backups = Backups()
    backups.back_up(image, "one", mode=BLOCK)
    with open(image, "r+b") as file:
        file.seek(5 * MIB + 100)
        file.write(b"changed")
    report = backups.back_up(image, "two", "one", mode=BLOCK)
    assert report.transferred_bytes == MIB
    assert report.logical_bytes == 32 * MIB
    assert report.object_count == 1
    assert backups.open("two").summary.references == {"one": 2}


def test_in_place_restore_writes_only_what_differs(tmp_path: Path) -> None:
    image = write_image(tmp_path / "image", 16 * MIB, (0, os.urandom(16 * MIB)))
    backups = Backups()
    backups.back_up(image, "full", mode=BLOCK)
    target = write_image(tmp_path / "target", 16 * MIB, (0, image.read_bytes()), (3 * MIB, b"other"))
    report = backups.restore("full", target, BLOCK)
    assert target.read_bytes() == image.read_bytes()
    # The first chunk is always fetched, to see that the store and the key are right.
    assert report.transferred_bytes < 2 * MIB + 1000


def test_data_that_became_zero_is_restored_as_zero_over_old_data(tmp_path: Path) -> None:
    """Each backup finds another part zeroed: whole chunks, parts of chunks, and the end. The last one finds all
    zero."""
    size = 6 * MIB + 777
    image = write_image(tmp_path / "image", size, (0, random.Random(3).randbytes(size)))
    backups, parent = Backups(keys=key_ring()), None
    for generation, (start, end) in enumerate([(0, 0), (MIB, 3 * MIB), (3 * MIB + 100_000, size), (0, size)]):
        with open(image, "r+b") as file:
            file.seek(start)
            file.write(bytes(end - start))
        backups.back_up(image, str(generation), parent, mode=BLOCK)
        parent = str(generation)
        target = write_image(tmp_path / parent, size + MIB, (0, b"held before" * ((size + MIB) // 11 + 1)))
        backups.restore(parent, target, BLOCK)
        assert target.read_bytes() == image.read_bytes().ljust(target.stat().st_size, b"\0")
    assert backups.open("3").summary.logical_bytes == 0


def draw_image(seed: int, size: int, grain: int) -> bytes:
    """Return random data, text and zeros side by side."""
    rnd = random.Random(seed)
    kinds = (lambda: rnd.randbytes(grain), lambda: bytes(grain), lambda: rnd.randbytes(16) * (grain // 16))
    return b"".join(rnd.choice(kinds)() for _ in range(size // grain + 1))[:size]


Change = tuple[str, int, int]
changes = st.lists(
    st.tuples(st.sampled_from(["write", "zero", "resize", "copy"]), st.integers(0, 4 * MIB), st.integers(0, 4 * MIB)),
    max_size=4,
)


def change(image: bytearray, kind: str, first: int, second: int) -> None:
    start, length = first % max(1, len(image)), second % (MIB + MIB // 2)
    end = min(len(image), start + length)
    if kind == "write":
        image[start:end] = random.Random(first).randbytes(end - start)
    elif kind == "zero":
        image[start:end] = bytes(end - start)
    elif kind == "copy":
        image[:] = image[start:] + image[:start]
    elif second < len(image):
        del image[second:]
    else:
        image += random.Random(second).randbytes(second - len(image))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 30), size=st.integers(1, 3 * MIB), grain=st.sampled_from([16, 4096, 65536, 300000, MIB]),
    generations=st.lists(changes, min_size=1, max_size=3), keys=st.sampled_from([None, key_ring()]),
)  # fmt: skip
def test_chain_of_incrementals_of_a_device_is_exact_at_each_link(
    tmp_path: Path, *, seed: int, size: int, grain: int, generations: list[list[Change]], keys: KeyRing | None
) -> None:
    backups = Backups(keys=keys)
    path, image = tmp_path / "image", bytearray(draw_image(seed, size, grain))
    wanted: list[bytes] = []
    for number, edits in enumerate([[], *generations]):
        for edit in edits:
            change(image, *edit)
        image = image or bytearray(b"x")
        path.write_bytes(image)
        backups.back_up(path, str(number), str(number - 1) if number else None, mode=BLOCK)
        wanted.append(bytes(image))
    dirty = tmp_path / "dirty"
    for number, content in enumerate(wanted):
        write_image(dirty, len(content), (0, random.Random(seed).randbytes(len(content))))
        backups.restore(str(number), dirty, BLOCK)
        assert dirty.read_bytes() == content
        backups.verify(str(number))
