"""Verification reads a backup back without a volume."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from cinderblock.errors import IntegrityError, InvalidInput
from cinderblock.repository.progress import Progress
from cinderblock.repository.verify.backup import run_verify
from tests.support.mover.backups import PREFIX, Backups, key_ring
from tests.support.mover.volumes_in_memory import MemorySource

MIB = 1 << 20


@pytest.fixture
def backups() -> Backups:
    """Return backups "one", and "two" built on it, of a tree with small files, a large one, and equal chunks."""
    source = MemorySource()
    for number in range(300):
        source.add(b"small%03d" % number, (0, random.Random(number).randbytes(9000)))
    block = random.Random(1).randbytes(MIB)
    source.add(b"large", (0, random.Random(99).randbytes(30 * MIB) + block + block))
    made = Backups(keys=key_ring())
    made.back_up(source, "one")
    source.add(b"small007", (0, b"changed"), stamp=50)
    made.back_up(source, "two", "one")
    return made


def test_sound_backup_is_read_completely(backups: Backups) -> None:
    seen: list[Progress] = []
    found = run_verify(
        backups.store,
        PREFIX,
        backups.manifest_key("two"),
        backups.expected("two"),
        backups.keys,
        on_progress=seen.append,
    )
    reader = backups.open("two")
    assert found.packs == len(reader.packs)
    assert found.entries == 302
    assert found.chunks >= len(set(reader.chunks()))
    assert found.bytes_fetched > 30 * MIB
    assert seen[-1].bytes_total == reader.summary.logical_bytes


def test_missing_pack_of_an_ancestor_is_named(backups: Backups) -> None:
    pack = backups.pack_keys("one")[-1]
    with backups.changed(pack, None), pytest.raises(IntegrityError, match=f"{pack} is missing"):
        backups.verify("two")


def test_sample_reads_about_its_share(backups: Backups) -> None:
    verify = partial(
        run_verify, backups.store, PREFIX, backups.manifest_key("two"), backups.expected("two"), backups.keys
    )
    whole = verify().bytes_fetched
    shares = [verify(sample_percent=20).bytes_fetched / whole for _ in range(12)]
    # 36 chunks, 12 times: the mean of 432 draws is within 0.1 of 0.2, except in one run of a million.
    assert 0.1 < sum(shares) / len(shares) < 0.3
    assert len(set(shares)) > 1


def is_sound(verify: Callable[[], object]) -> bool:
    try:
        verify()
    except IntegrityError:
        return False
    return True


def test_sample_meets_a_bad_chunk_sooner_or_later(backups: Backups) -> None:
    pack = backups.pack_keys("one")[0]
    body = backups.store.get(pack)
    verify = partial(
        run_verify,
        backups.store,
        PREFIX,
        backups.manifest_key("two"),
        backups.expected("two"),
        backups.keys,
        sample_percent=30,
    )
    with backups.changed(pack, body[:100] + bytes([body[100] ^ 1]) + body[101:]):
        # Each of 200 draws passes the bad chunk by with a chance of 0.7: all of them once in 10^30 runs.
        assert not all(is_sound(verify) for _ in range(200))


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_impossible_sample_is_refused(backups: Backups, percent: float) -> None:
    with pytest.raises(InvalidInput):
        run_verify(
            backups.store,
            PREFIX,
            backups.manifest_key("two"),
            backups.expected("two"),
            backups.keys,
            sample_percent=percent,
        )
