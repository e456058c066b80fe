"""Damage in the bucket of a real server is found, and the next incremental backup heals it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cinderblock.repository.verify.data import Share
from cinderblock.repository.verify.findings import Findings
from cinderblock.store.factory import open_store
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server
from tests.support.mover.backups import LATER, Backups, key_ring
from tests.support.mover.verifications import CHUNK, data, short_key, small_units, structure

pytestmark = pytest.mark.integration


@pytest.fixture
def backups(server: S3Server) -> Iterator[Backups]:
    location = server.location("verified", create_container=True)
    with closing(open_store(location, server.credentials)) as store:
        store.check()
        yield Backups(store, key_ring())


def found_in(backups: Backups, backup: str) -> list[Findings]:
    return [structure(backups, backup), *(data(backups, backup, Share(part, 2)) for part in (1, 2))]


def test_damaged_objects_are_found_and_heal(backups: Backups, server: S3Server, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "large").write_bytes(os.urandom(9 * CHUNK))
    for number in range(60):
        (source / f"small-{number}").write_bytes(os.urandom(3000))
    with small_units():
        backups.back_up(source, "one", data_timestamp=LATER, created_at=LATER)
        assert all(run.damaged_count == 0 for run in found_in(backups, "one"))
        flipped, lost, *_ = backups.pack_keys("one")
        body = backups.store.get(flipped)
        with closing(S3Store(server.location("verified"), server.credentials)) as bucket:
            bucket.put(flipped, body[:9] + bytes([body[9] ^ 4]) + body[10:])
            bucket.delete([lost])
        runs = found_in(backups, "one")
        assert runs[0].damaged == (short_key(lost),), "the structure shows only what a listing shows"
        damaged = {key for run in runs for key in run.damaged}
        assert damaged == {short_key(flipped), short_key(lost)}
        backups.back_up(source, "two", "one", data_timestamp=LATER, created_at=LATER, avoid_packs=sorted(damaged))
        assert structure(backups, "two").damaged_count == 0
        assert {backup for part in (1, 2) for backup in data(backups, "two", Share(part, 2)).affected} == {"one"}
        backups.restore("two", target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
