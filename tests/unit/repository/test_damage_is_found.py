"""Every damage of a small store is found: by the structure of a backup, or by the data within one round of parts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from cinderblock.errors import KeyUnavailable, NotFound
from cinderblock.format.compression import Encoding
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.hashing import digest_of
from cinderblock.format.manifest.footer import TRAILER_BYTES
from cinderblock.format.manifest.header import HEADER_BYTES, parse_header
from cinderblock.format.pack import PackBuilder, pack_sealer, read_pack
from cinderblock.repository.verify.data import Share
from cinderblock.repository.verify.findings import Findings
from cinderblock.store.base import slice_body
from tests.support.mover.backups import PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.verifications import CHUNK, data, short_key, small_units, structure
from tests.support.mover.volumes_in_memory import MemorySource

PARTS = 3
NEWEST = "b2"
BOTH = pytest.mark.parametrize("keys", [None, key_ring()], ids=["plain", "sealed"])


@pytest.fixture(autouse=True)
def _small_units() -> Iterator[None]:
    with small_units():
        yield


def volume(generation: int) -> MemorySource:
    """Return the volume before a backup. Each generation changes a small file and a block of the large one."""
    source = MemorySource()
    rnd = random.Random(1)
    blocks = [rnd.randbytes(CHUNK) for _ in range(10)]
    for changed in range(generation):
        blocks[changed] = random.Random(100 + changed).randbytes(CHUNK)
    source.add(b"large", *((CHUNK * at, block) for at, block in enumerate(blocks)), stamp=1 + generation)
    for number in range(6):
        version = generation if number == generation else 0
        content = random.Random(f"{number} {version}").randbytes(700)
        source.add(b"small%d" % number, (0, content), stamp=1 + version)
    return source


def chain(keys: KeyRing | None = None) -> Backups:
    """Return three generations of a volume."""
    backups = Backups(keys=keys)
    for number in range(3):
        backups.back_up(volume(number), f"b{number}", f"b{number - 1}" if number else None)
    return backups


def round_of_parts(backups: Backups, backup: str = NEWEST) -> Iterator[Findings]:
    for part in range(1, PARTS + 1):
        yield data(backups, backup, Share(part, PARTS))


def named(backups: Backups, backup: str = NEWEST) -> set[str]:
    """Return the keys that the structure of a backup and a round of parts name."""
    runs = [structure(backups, backup), *round_of_parts(backups, backup)]
    return {key for run in runs for key in run.damaged}


def objects(backups: Backups) -> list[str]:
    return [found.key for found in backups.store.list("")]


def offsets(key: str, body: bytes) -> list[int]:
    """Return all offsets of plain headers and trailers, and samples of the rest."""
    rnd = random.Random(key)
    found = {*range(max(0, len(body) - TRAILER_BYTES - 4), len(body)), 0, 1}
    if key.endswith(".manifest"):
        found |= {*range(2, 600, 31), HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1}
    return sorted(found | {rnd.randrange(len(body)) for _ in range(5)})


def test_manifest_of_the_chosen_backup_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """That packs are not encrypted makes no difference."""
    counts = []
    for keys in (None, key_ring()):
        backups, read = chain(keys), list[str]()
        get = backups.store.get

        def note(key: str, *args: int, read: list[str] = read, get: Any = get, **more: int) -> bytes:
            read.append(key)
            return bytes(get(key, *args, **more))

        with monkeypatch.context() as patch:
            patch.setattr(backups.store, "get", note)
            data(backups, NEWEST)
        counts.append(read.count(backups.manifest_key(NEWEST)))
    assert counts[0] == counts[1]


@BOTH
def test_sound_store_shows_no_damage(keys: KeyRing | None) -> None:
    backups = chain(keys)
    packs = sum(key.startswith(f"{PREFIX}/packs/") for key in objects(backups))
    found = structure(backups, NEWEST)
    assert (found.packs, found.packs_verified) == (len(backups.keys_in_use(NEWEST)),) * 2
    assert (found.damaged_count, found.affected, found.complete) == (0, (), True)
    runs = [*round_of_parts(backups)]
    assert [run.packs for run in runs] == [packs] * PARTS
    assert sum(run.packs_verified for run in runs) == packs, "each pack is in one part"
    assert all(run.damaged_count == 0 and run.complete for run in runs)


@BOTH
def test_flipped_byte_of_any_object_is_found_and_named(keys: KeyRing | None) -> None:
    backups = chain(keys)
    in_use = {key: {b for b in ("b0", "b1", NEWEST) if key in backups.keys_in_use(b)} for key in objects(backups)}
    for key in objects(backups):
        body = backups.store.get(key)
        backup = key.rpartition("/")[2].removesuffix(".manifest") if key.endswith(".manifest") else NEWEST
        for at in offsets(key, body):
            changed = bytearray(body)
            changed[at] ^= 1 << at % 8
            with backups.changed(key, bytes(changed)):
                if key.endswith(".manifest"):
                    found = structure(backups, backup)
                    assert found.damaged == (short_key(key),), f"{key} at {at}"
                    assert found.affected == (backup,)
                    if at < HEADER_BYTES or at > len(body) - TRAILER_BYTES:
                        assert data(backups, NEWEST, Share(1, 366)).damaged == (short_key(key),), f"{key} at {at}"
                else:
                    found = data(backups, NEWEST)
                    assert found.damaged == (short_key(key),), f"{key} at {at}"
                    assert set(found.affected) == in_use[key]
                assert found.damaged_count == 1


@BOTH
def test_data_reads_the_whole_manifest_of_the_chosen_backup(keys: KeyRing | None) -> None:
    backups = chain(keys)
    key = backups.manifest_key(NEWEST)
    body = bytearray(backups.store.get(key))
    body[HEADER_BYTES + 40] ^= 1
    with backups.changed(key, bytes(body)):
        for found in round_of_parts(backups):
            assert (found.damaged, found.affected, found.damaged_count) == ((short_key(key),), (NEWEST,), 1)
        limited = data(backups, NEWEST, Share(1, PARTS, max_bytes=1))
        assert limited.damaged == (short_key(key),), "a limit does not shorten the check of the manifest"
        assert data(backups, "b1").damaged == (), "only the chosen manifest is read whole"


@BOTH
def test_deleted_object_is_found(keys: KeyRing | None) -> None:
    backups = chain(keys)
    for key in objects(backups):
        with backups.changed(key, None):
            if key.endswith(".manifest"):
                with pytest.raises(NotFound) as caught:
                    structure(backups, key.rpartition("/")[2].removesuffix(".manifest"))
                assert caught.value.reason == "ManifestMissing"
            else:
                listing = data(backups, NEWEST, Share(1, PARTS))
                assert listing.damaged == (short_key(key),), "one listing covers all parts"
                needed = key in backups.keys_in_use(NEWEST)
                assert (structure(backups, NEWEST).damaged == (short_key(key),)) is needed


@BOTH
def test_truncated_and_longer_packs_are_found_without_reading_them(keys: KeyRing | None) -> None:
    backups = chain(keys)
    for key in backups.keys_in_use(NEWEST):
        body = backups.store.get(key)
        for other in (b"", body[:1], body[:-1], body + b"x", body + body):
            with backups.changed(key, other):
                assert structure(backups, NEWEST).damaged == (short_key(key),)
                assert data(backups, NEWEST).damaged == (short_key(key),)


@BOTH
def test_swapped_packs_and_a_pack_of_another_time_are_found(keys: KeyRing | None) -> None:
    backups, earlier = chain(keys), chain(keys)
    packs = sorted(backups.keys_in_use(NEWEST))
    sizes = {key: len(backups.store.get(key)) for key in packs}
    first, second = next((a, b) for a in packs for b in packs if a < b and sizes[a] == sizes[b])
    bodies = backups.store.get(first), backups.store.get(second)
    with backups.changed(first, bodies[1]), backups.changed(second, bodies[0]):
        assert structure(backups, NEWEST).damaged == (), "sizes are equal"
        assert {key for run in round_of_parts(backups) for key in run.damaged} == {short_key(first), short_key(second)}
    older = next(b for a in earlier.keys_in_use("b0") if len(b := earlier.store.get(a)) == sizes[first])
    with backups.changed(first, older):
        assert named(backups) == {short_key(first)}


def forge(body: bytes, key: str) -> bytes:
    """Return a pack of other content that agrees with itself, and has the same size."""
    backup, name = key.split("/")[-2:]
    sealer = pack_sealer(None, VOLUME, backup, name, key)
    builder = PackBuilder(bytearray(1 << 20), sealer)
    for chunk in read_pack(partial(slice_body, body), 0, lambda _: sealer, key):
        assert chunk.encoding == Encoding.RAW
        content = random.Random(chunk.number).randbytes(chunk.size)
        builder.add(0, digest_of(content), chunk.size, Encoding.RAW, content)
    return bytes(builder.finish())


def test_forged_pack_that_agrees_with_itself_is_found() -> None:
    backups = chain()
    for key in backups.keys_in_use(NEWEST):
        body = backups.store.get(key)
        forged = forge(body, key)
        assert len(forged) == len(body)
        assert forged != body
        with backups.changed(key, forged):
            assert named(backups) == {short_key(key)}
            assert "replaced" in data(backups, NEWEST).causes[0]


@BOTH
def test_replaced_manifest_is_found(keys: KeyRing | None) -> None:
    backups = chain(keys)
    for backup, other in (("b2", "b1"), ("b1", "b0")):
        key = backups.manifest_key(backup)
        with backups.changed(key, backups.store.get(backups.manifest_key(other))):
            found = structure(backups, backup)
            assert (found.damaged, found.affected) == ((short_key(key),), (backup,))


def test_all_damage_is_counted_and_the_run_continues() -> None:
    backups = chain(key_ring())
    packs = sorted(key for key in objects(backups) if key.startswith(f"{PREFIX}/packs/"))
    for number, key in enumerate(packs):
        body = backups.store.get(key)
        if number % 2:
            backups.store.delete([key])
        else:
            backups.store.put(key, body[:50] + bytes([body[50] ^ 1]) + body[51:])
    backups.store.put(backups.manifest_key("b0"), b"overwritten")
    found = data(backups, NEWEST)
    assert set(found.damaged) == {short_key(key) for key in (*packs, backups.manifest_key("b0"))}
    assert found.damaged_count == len(packs) + 1
    assert (found.affected, found.affected_count) == (("b2", "b0", "b1"), 3), "unknown times count as newest"
    assert (found.complete, found.packs_verified) == (True, 0)


def test_damage_of_others_alone_does_not_concern_the_chosen_backup() -> None:
    backups = chain()
    source = MemorySource()
    source.add(b"other", (0, b"content" * 99), stamp=50)
    backups.back_up(source, "b3", "b2")
    pack = min(backups.keys_in_use("b2") - backups.keys_in_use("b1"))
    with backups.changed(pack, None):
        assert data(backups, "b3").affected == (NEWEST,)
        assert structure(backups, "b3").damaged_count == 0


def test_manifest_without_its_key_says_nothing() -> None:
    backups = chain(key_ring("2024"))
    backups.keys = key_ring("2024", "2025")
    backups.back_up(volume(3), "b3", "b2")
    backups.keys = key_ring("2025")
    found = data(backups, "b3")
    assert (found.unreadable_count, found.damaged_count) == (3, 0)
    with pytest.raises(KeyUnavailable):
        structure(backups, "b2")


def test_wrong_key_under_the_right_name_is_no_damage() -> None:
    backups = chain(key_ring("2024"))
    backups.keys = KeyRing({"2024": b"x" * 32}, "2024")
    for verify in (structure, data):
        with pytest.raises(KeyUnavailable, match="right key"):
            verify(backups, NEWEST)


def test_wrapped_key_that_was_replaced_is_damage_if_the_key_opens_others() -> None:
    """A header with a right checksum: only other manifests show that the key is right."""
    backups = chain(key_ring("2024"))
    key = backups.manifest_key(NEWEST)
    body = backups.store.get(key)
    header = parse_header(body[:HEADER_BYTES], key)
    assert header.wrapped is not None
    forged = header.wrapped._replace(sealed=bytes(48))
    changed = type(header)(1, header.backup_id, header.volume_id, header.parent_id, header.salt, forged).encode()
    with backups.changed(key, changed + body[HEADER_BYTES:]):
        for verify in (structure, data):
            found = verify(backups, NEWEST)
            assert (found.damaged, found.affected) == ((short_key(key),), (NEWEST,))


def test_copy_of_a_manifest_under_another_name_is_ignored() -> None:
    backups = chain()
    backups.store.put(backups.manifest_key("copy"), backups.store.get(backups.manifest_key("b0")))
    assert data(backups, NEWEST).damaged_count == 0
