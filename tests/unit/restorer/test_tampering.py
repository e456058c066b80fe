"""Tampering with stored objects is detected and named, and never reaches the target."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from typing_extensions import override

from cinderblock.api.mover import MoverOperation, VolumeMode
from cinderblock.archiver.archiver import run_backup
from cinderblock.errors import CinderblockError, IntegrityError, ManifestReplaced, NotFound, SealBroken
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.manifest.header import HEADER_BYTES, parse_header
from cinderblock.format.range_reader import Buffer
from cinderblock.repository.verify.backup import run_verify
from cinderblock.store.base import ObjectLock, ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import PREFIX, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource

MIB = 1 << 20
both = pytest.mark.parametrize("keys", [None, key_ring()], ids=["unsealed", "sealed"])


def make_device(seed: int = 0) -> MemorySource:
    """Return a volume with 32 incompressible chunks in two packs."""
    source = MemorySource()
    source.make_device(32 * MIB, (0, random.Random(seed).randbytes(32 * MIB)))
    return source


def make_tree(seed: int = 0) -> MemorySource:
    source = MemorySource()
    for number in range(5):
        source.add(b"file%d" % number, (0, random.Random(seed + number).randbytes(40) + b"x" * 500))
    return source


def damaged(target: Path) -> bytes:
    """Fill an image with other data, and return its content."""
    content = b"\xee" * (32 * MIB)
    target.write_bytes(content)
    return content


def assert_only_verified_bytes(target: Path, before: bytes, wanted: bytes) -> None:
    """Check that every block has its old or its restored content, and nothing else."""
    after = target.read_bytes()
    for start in range(0, len(before), 4096):
        block = slice(start, start + 4096)
        assert after[block] in (before[block], wanted[block])


@both
def test_any_changed_byte_of_any_object_is_found(keys: KeyRing | None) -> None:
    """Flip each byte of a small backup, one after the other."""
    backups = Backups(keys=keys)
    backups.back_up(make_tree(), "one")
    objects = [backups.manifest_key("one"), *backups.pack_keys("one")]
    assert len(objects) == 2
    for key in objects:
        body = backups.store.get(key)
        for position in range(len(body)):
            changed = bytearray(body)
            changed[position] ^= 1 << position % 8
            backups.store.put(key, changed)
            with pytest.raises(IntegrityError) as caught:
                backups.verify("one")
            assert key in caught.value.message
        backups.store.put(key, body)
    backups.verify("one")


@both
@pytest.mark.parametrize("which", ["manifest", "pack"])
def test_cut_object_is_found(keys: KeyRing | None, which: str) -> None:
    backups = Backups(keys=keys)
    backups.back_up(make_tree(), "one")
    key = backups.manifest_key("one") if which == "manifest" else backups.pack_keys("one")[0]
    body = backups.store.get(key)
    for length in {0, 1, 10, len(body) // 2, len(body) - 60, len(body) - 1}:
        for remaining in (body[:length], body[-length:] if length else b""):
            with backups.changed(key, remaining), pytest.raises(IntegrityError) as caught:
                backups.verify("one")
            assert key in caught.value.message


@both
def test_bytes_put_into_an_object_are_found(keys: KeyRing | None) -> None:
    backups = Backups(keys=keys)
    backups.back_up(make_tree(), "one")
    for key in [backups.manifest_key("one"), *backups.pack_keys("one")]:
        body = backups.store.get(key)
        for position in (0, 5, len(body) // 2, len(body)):
            with backups.changed(key, body[:position] + b"!" + body[position:]), pytest.raises(IntegrityError):
                backups.verify("one")


def changed_packs(backups: Backups) -> Iterator[tuple[str, bytes | None]]:
    """Return ways to damage the second pack of backup "one". Chunks have 1 MiB and do not compress."""
    first, second = backups.pack_keys("one")
    body, other = backups.store.get(second), backups.store.get(first)
    stored = next(extent.chunk.stored for entry in backups.open("one").entries() for extent in entry.extents)
    yield "flipped", body[:1234567] + bytes([body[1234567] ^ 1]) + body[1234568:]
    yield "chunks swapped", body[stored : 2 * stored] + body[:stored] + body[2 * stored :]
    yield "another pack", other
    yield "cut", body[: 2 * stored]
    yield "chunk of another pack", other[:stored] + body[stored:]
    yield "chunk of another backup", backups.store.get(backups.pack_keys("other")[1])
    yield "deleted", None


@both
def test_restore_from_a_damaged_pack_writes_no_bad_byte(tmp_path: Path, keys: KeyRing | None) -> None:
    backups, device = Backups(keys=keys), make_device()
    backups.back_up(device, "one", mode=VolumeMode.BLOCK)
    backups.back_up(make_device(7), "other", mode=VolumeMode.BLOCK)
    key, wanted = backups.pack_keys("one")[1], device.files[b""].segments[0][1]
    target = tmp_path / "target"
    for name, body in list(changed_packs(backups)):
        before = damaged(target)
        with backups.changed(key, body), pytest.raises((IntegrityError, NotFound)) as caught:
            backups.restore("one", target, VolumeMode.BLOCK)
        assert key in caught.value.message, name
        assert_only_verified_bytes(target, before, wanted)
        with backups.changed(key, body), pytest.raises((IntegrityError, NotFound)) as caught:
            backups.verify("one")
        assert key in caught.value.message, name
    backups.restore("one", target, VolumeMode.BLOCK)
    assert target.read_bytes() == wanted


@both
def test_nothing_is_written_before_the_first_chunk_is_verified(tmp_path: Path, keys: KeyRing | None) -> None:
    backups = Backups(keys=keys)
    backups.back_up(make_tree(), "one")
    key = backups.pack_keys("one")[0]
    body = backups.store.get(key)
    (tmp_path / "mine").write_bytes(b"mine")
    for spoiled_body in (b"\0" + body[1:] if body[0] else b"\1" + body[1:], None):
        with backups.changed(key, spoiled_body), pytest.raises((IntegrityError, NotFound)):
            backups.restore("one", tmp_path)
        assert os.listdir(tmp_path) == ["mine"]


@both
def test_manifest_of_another_backup_in_its_place_is_refused(tmp_path: Path, keys: KeyRing | None) -> None:
    backups = Backups(keys=keys)
    backups.back_up(make_tree(), "one")
    backups.back_up(make_tree(5), "two")
    replay = backups.store.get(backups.manifest_key("two"))
    with backups.changed(backups.manifest_key("one"), replay), pytest.raises(IntegrityError, match="backup two"):
        backups.restore("one", tmp_path)
    assert os.listdir(tmp_path) == []


def test_header_with_other_ids_does_not_open_a_sealed_manifest() -> None:
    """An attacker who computes a new checksum for a changed header still lacks the key."""
    backups = Backups(keys=key_ring())
    backups.back_up(make_tree(), "one")
    body = backups.store.get(backups.manifest_key("one"))
    header = parse_header(body, "manifest")
    for change in ({"backup_id": "two"}, {"parent_id": "zero"}, {"volume_id": "other"}, {"salt": bytes(16)}):
        forged = {name: getattr(header, name) for name in ("format_version", "backup_id", "volume_id", "parent_id")}
        forged |= {"salt": header.salt, "wrapped": header.wrapped} | change
        encoded = type(header)(**forged).encode()
        damaged = backups.changed(backups.manifest_key("one"), encoded + body[HEADER_BYTES:])
        with damaged, pytest.raises(IntegrityError):
            backups.open("one")


def test_wrong_key_under_the_right_id_names_the_id() -> None:
    backups = Backups(keys=key_ring("2024"))
    backups.back_up(make_tree(), "one")
    wrong = Backups(backups.store, KeyRing({"2024": b"z" * 32}, "2024"))
    with pytest.raises(IntegrityError, match="2024"):
        wrong.open("one")


def test_no_error_of_a_damaged_sealed_backup_shows_key_material() -> None:
    keys = key_ring("2024")
    backups = Backups(keys=keys)
    backups.back_up(make_tree(), "one")
    body = backups.store.get(backups.manifest_key("one"))
    secrets = [b"a" * 32, *(key.reveal() for key in backups.open("one").data_keys().values())]
    for position in range(0, len(body), 7):
        changed = bytearray(body)
        changed[position] ^= 0x55
        with backups.changed(backups.manifest_key("one"), bytes(changed)):
            try:
                backups.verify("one")
            except CinderblockError as error:
                text = repr(error) + str(error.__context__) + str(error.__cause__)
                assert not any(secret.hex() in text or repr(secret)[2:-1] in text for secret in secrets)


def forged() -> Backups:
    """Return a sealed backup that an attacker without the key has replaced."""
    backups, forger = Backups(keys=key_ring()), Backups()
    backups.back_up(make_tree(), "one")
    forger.back_up(make_tree(5), "one")
    for info in forger.store.list(""):
        backups.store.put(info.key, forger.store.get(info.key))
    return backups


def test_unsealed_replacement_of_a_sealed_backup_is_not_restored(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is not encrypted, but the backup must be"):
        forged().restore("one", tmp_path)
    assert os.listdir(tmp_path) == []


def test_unsealed_replacement_of_a_sealed_parent_is_rejected() -> None:
    backups = forged()
    task = backups.task(MoverOperation.BACKUP, "two", parent="one")
    with pytest.raises(IntegrityError, match="is not encrypted"):
        run_backup(task, backups.store, backups.keys, opener=lambda mode, path: nullcontext(make_tree()))
    assert backups.pack_keys("two") == []


def test_unsealed_replacement_of_a_sealed_backup_fails_verification() -> None:
    backups = forged()
    with pytest.raises(IntegrityError, match="is not encrypted"):
        run_verify(backups.store, PREFIX, backups.manifest_key("one"), backups.expected("one"), backups.keys)


class ReplacingStore(CountedStore):
    """A store in which an attacker replaces an object immediately after its upload."""

    def __init__(self, inner: ObjectStore, key: str, body: bytes) -> None:
        super().__init__(inner)
        self._replaced = (key, body)

    @override
    def put(self, key: str, body: Buffer, lock: ObjectLock | None = None) -> None:
        super().put(key, body, lock)
        if key == self._replaced[0]:
            super().put(*self._replaced)


@both
def test_manifest_replaced_after_the_commit_fails_the_backup(keys: KeyRing | None) -> None:
    forger = Backups(keys=keys)
    forger.back_up(make_tree(5), "one")
    key = forger.manifest_key("one")
    with pytest.raises(ManifestReplaced, match=key):
        Backups(ReplacingStore(MemoryStore(), key, forger.store.get(key)), keys).back_up(make_tree(), "one")


def test_existing_unsealed_manifest_is_not_accepted_as_finished() -> None:
    backups = forged()
    with pytest.raises(SealBroken, match="is not encrypted"):
        backups.back_up(make_tree(), "one")
