"""Damage of every region of every object is detected, named, and never restored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cinderblock.api.mover import MoverOperation
from cinderblock.errors import IntegrityError, NotFound
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.header import HEADER_BYTES, parse_header
from cinderblock.repository.objects import KEY_NAME
from cinderblock.repository.verify.backup import run_verify
from cinderblock.restorer.restorer import run_restore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.faults import Crash, FaultyStore

both = pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])
GENERATIONS = ("b0", "b1", "b2")
EDGE = 140
"""Bytes at both ends of an object that are flipped one by one: headers and trailers."""


def volume(generation: int) -> MemorySource:
    """Return a volume with small files and a large one; each generation changes one small file and the end of the large
    one."""
    source = MemorySource()
    for number in range(4):
        changed = generation if number == generation else 0
        content = random.Random(100 * number + changed).randbytes(300) + b"z" * 300
        source.add(b"small%d" % number, (0, content), stamp=1 + changed)
    large = random.Random(77).randbytes(1 << 20) + b"%d" % generation * 200_000
    source.add(b"large", (0, large), stamp=1 + generation)
    return source


def chain(keys: KeyRing | None) -> Backups:
    """Return three generations of a volume, and an unrelated backup."""
    backups = Backups(keys=keys)
    for number, backup in enumerate(GENERATIONS):
        backups.back_up(volume(number), backup, GENERATIONS[number - 1] if number else None)
    backups.back_up(volume(9), "other")
    return backups


def needed(backups: Backups) -> list[str]:
    """Return keys of objects that the last generation needs: its manifest, its packs, and an ancestor's packs."""
    found = [*sorted(backups.keys_in_use("b2")), backups.manifest_key("b2")]
    assert len(found) == 3
    return found


def positions(key: str, body: bytes) -> list[int]:
    """Return offsets of every region: both ends completely, and samples between them."""
    rnd = random.Random(key)
    found = {*range(min(EDGE, len(body))), *range(max(0, len(body) - EDGE), len(body))}
    found |= {rnd.randrange(len(body)) for _ in range(30)}
    if key.endswith(".manifest"):
        found |= {
            *range(HEADER_BYTES - 3, HEADER_BYTES + 3),
            *(rnd.randrange(HEADER_BYTES, len(body)) for _ in range(60)),
        }
    return sorted(found)


def spoilings(backups: Backups, key: str) -> Iterator[tuple[str, bytes | None]]:
    """Return every way to damage an object, except flipped bytes."""
    body = backups.store.get(key)
    for length in {0, 1, 16, 17, 52, 64, HEADER_BYTES, len(body) // 3, len(body) - 64, len(body) - 16, len(body) - 1}:
        if length < len(body):
            yield f"cut to {length}", body[:length]
            yield f"without the first {length + 1}", body[length + 1 :]
    for more in (b"x", bytes(64), body):
        yield f"{len(more)} bytes behind it", body + more
        yield f"{len(more)} bytes in front of it", more + body
    yield "deleted", None
    for other in backups.store.list(""):
        if other.key != key:
            yield f"{other.key} in its place", backups.store.get(other.key)


def contents(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.iterdir()}


def is_part(right: bytes, content: bytes) -> bool:
    """Return whether every block of a file is restored or unwritten."""
    blocks = (slice(start, start + 4096) for start in range(0, len(content), 4096))
    return all(content[block] == right[block] or not any(content[block]) for block in blocks)


def refusal_to_restore(backups: Backups, target: Path) -> str | None:
    """Return why the last generation cannot be restored; None if it can."""
    try:
        backups.restore("b2", target)
    except (IntegrityError, NotFound) as error:
        return error.message
    return None


def assert_found(backups: Backups, key: str, name: str) -> None:
    """Check that verification of the last generation names the object."""
    with pytest.raises((IntegrityError, NotFound)) as caught:
        backups.verify("b2")
    assert key in caught.value.message, f"{name}: {caught.value.message}"


@both
def test_flipped_byte_of_any_region_is_found_and_named(keys: KeyRing | None) -> None:
    backups = chain(keys)
    for key in needed(backups):
        body = backups.store.get(key)
        for position in positions(key, body):
            changed = bytearray(body)
            changed[position] ^= 1 << position % 8
            with backups.changed(key, bytes(changed)):
                assert_found(backups, key, f"byte {position}")


@both
def test_damaged_object_is_named_and_never_restored(keys: KeyRing | None, tmp_path: Path) -> None:
    backups = chain(keys)
    target = tmp_path / "target"
    target.mkdir()
    backups.restore("b2", target)
    right = contents(target)
    assert set(right.values()) == {data for file in volume(2).files.values() for _, data in file.segments}
    for key in needed(backups):
        for name, body in spoilings(backups, key):
            for path in target.iterdir():
                path.unlink()
            with backups.changed(key, body):
                assert_found(backups, key, name)
                refusal = refusal_to_restore(backups, target)
                if refusal is None:
                    assert contents(target) == right, name
                else:
                    assert key in refusal, f"{name}: {refusal}"
                    assert all(is_part(right[file], content) for file, content in contents(target).items()), name


@both
def test_manifest_of_another_volume_in_its_place_is_refused(keys: KeyRing | None, tmp_path: Path) -> None:
    backups = chain(keys)
    elsewhere = backups.manifest_key("b2").replace(VOLUME, "another-volume")
    backups.store.put(elsewhere, backups.store.get(backups.manifest_key("b2")))
    task = backups.task(MoverOperation.RESTORE, "b2", path=tmp_path)
    expected = backups.expected("b2").model_copy(update={"volume_id": "another-volume"})
    moved = task.model_copy(update={"manifest": elsewhere, "expected": expected})
    with pytest.raises(IntegrityError, match="another-volume"):
        run_restore(moved, backups.store, keys)
    with pytest.raises(IntegrityError, match="another-volume"):
        run_verify(backups.store, PREFIX, elsewhere, expected, keys)
    assert list(tmp_path.iterdir()) == []


@both
def test_parent_replaced_by_another_backup_is_not_built_upon(keys: KeyRing | None) -> None:
    backups = chain(keys)
    with (
        backups.changed(backups.manifest_key("b2"), backups.store.get(backups.manifest_key("b1"))),
        pytest.raises(IntegrityError, match=backups.manifest_key("b2")),
    ):
        backups.back_up(volume(3), "b3", "b2")
    assert backups.pack_keys("b3") == []


def interrupted(keys: KeyRing) -> tuple[Backups, str]:
    """Return a store with a finished backup "other" and an unfinished "new", and the key of the data key of "new"."""
    memory = MemoryStore()
    Backups(memory, keys).back_up(volume(8), "other")
    faulty = FaultyStore(memory)
    faulty.on("delete", KEY_NAME).crashes()
    with pytest.raises(Crash):
        Backups(faulty, keys).back_up(volume(1), "new")
    backups = Backups(memory, keys)
    (key,) = (name for name in backups.pack_keys("new") if name.endswith(KEY_NAME))
    return backups, key


def data_key(backups: Backups, backup: str) -> bytes:
    """Return the data key of a backup."""
    return backups.open(backup).data_keys()[backup].reveal()


def test_damaged_data_key_only_costs_a_new_upload() -> None:
    backups, key = interrupted(key_ring())
    body = backups.store.get(key)
    before = {info.key: backups.store.get(info.key) for info in backups.store.list("")}
    flips = [body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] for at in (*range(0, 260, 9), len(body) - 1)]
    for damaged in (*flips, b"", body[:100], body[:-1], b"x" + body, None):
        for info in list(backups.store.list("")):
            backups.store.delete([info.key])
        for name, content in before.items():
            backups.store.put(name, content)
        if damaged is None:
            backups.store.delete([key])
        else:
            backups.store.put(key, damaged)
        backups.back_up(volume(1), "new")
        backups.verify("new")
        assert set(backups.pack_keys("new")) == backups.keys_in_use("new")


def test_data_key_of_another_backup_in_its_place_is_not_used() -> None:
    backups, key = interrupted(key_ring())
    replay = backups.store.get(backups.manifest_key("other"))[:HEADER_BYTES]
    backups.store.put(key, replay)
    backups.back_up(volume(1), "new")
    backups.verify("new")
    assert data_key(backups, "new") != data_key(backups, "other")


def test_data_key_wrapped_by_a_replaced_key_is_not_used() -> None:
    """An attacker with the old key could have made it."""
    backups, key = interrupted(key_ring("2024"))
    forged = parse_header(backups.store.get(key), key).data_key(key_ring("2024"))
    assert forged is not None
    both_keys = Backups(backups.store, key_ring("2024", "2025"))
    both_keys.back_up(volume(1), "new")
    assert both_keys.open("new").header.key_id == "2025"
    assert data_key(both_keys, "new") != forged.reveal()
