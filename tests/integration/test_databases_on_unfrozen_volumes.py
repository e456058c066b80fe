"""PostgreSQL on volumes with crash-consistent snapshots: an incremental backup holds every commit.

Its pages are written without being made durable, its log is made durable with each commit. So a snapshot can hold the
new timestamps of a table and its old pages. The next snapshot has the new pages, and the timestamps are the same.
Nothing is faked: the program of the command line, a real S3 server, PostgreSQL of the distribution, ext4 and XFS.
"""

from __future__ import annotations

import itertools
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.s3_server import S3Server, s3_server
from tests.support.mover import postgres, unfrozen
from tests.support.mover.postgres import PostgreSQL
from tests.support.mover.unfrozen import UnfrozenVolume, hidden_changes, until_seen
from tests.support.store.command_line import CommandLine

pytestmark = pytest.mark.integration

ROWS = 1000
PAUSE = 2
"""Seconds from the last page to the last commit, after which only the age of timestamps identifies the pages."""
TABLES = (
    # Half of each page stays free, so that an update changes pages and no sizes.
    "CREATE TABLE accounts (id int PRIMARY KEY, round int, padding text) WITH (fillfactor = 40)",
    f"INSERT INTO accounts SELECT id, 0, repeat('x', 300) FROM generate_series(1, {ROWS}) AS id",
    "CREATE TABLE others (id int PRIMARY KEY, padding text)",
    "INSERT INTO others SELECT id, repeat('y', 1000) FROM generate_series(1, 2000) AS id",
    "CREATE TABLE rounds (round int)",
    "VACUUM (FREEZE, ANALYZE)",
    "CHECKPOINT",
)
PUSH_PAGES_OUT = (
    # A scan of the whole table would use two buffers again and again.
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
    "SELECT count(padding) FROM others WHERE id > 0",
)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a directory with a short path to which every user has access."""
    with tempfile.TemporaryDirectory(prefix="unfrozen-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(params=unfrozen.KINDS)
def volume(request: pytest.FixtureRequest, directory: Path) -> Iterator[UnfrozenVolume]:
    reason = unfrozen.why_not(request.param) or postgres.why_not()
    if reason:
        pytest.skip(reason)
    with UnfrozenVolume.made(directory, request.param) as made:
        yield made


def test_incremental_holds_every_transaction_that_was_committed_before_its_snapshot(
    volume: UnfrozenVolume, directory: Path, server: S3Server
) -> None:
    commands = CommandLine(server, f"unfrozen-{uuid.uuid4().hex[:12]}")
    database = PostgreSQL(volume.live / "data", directory / "s")
    database.create()
    restored, rounds = directory / "restored", itertools.count(1)
    number = 0

    def is_seen() -> bool:
        nonlocal number
        number = next(rounds)
        volume.sync()
        update_everything(database, number)
        first = volume.take_snapshot()
        facts_before = unfrozen.facts(first)
        commands.back_up(first, volume.kind)
        database.run("CHECKPOINT", f"INSERT INTO rounds VALUES ({number})")
        second = volume.take_snapshot()
        hidden = hidden_changes(facts_before, unfrozen.facts(second))
        if not hidden:
            return False
        report = commands.back_up(second, volume.kind, "--incremental")
        commands.restore(report["backupId"], restored)
        return True

    with database.running():
        database.run(*TABLES)
        until_seen(is_seen)
    holds_everything(PostgreSQL(restored / "data", directory / "r"), number)


def update_everything(database: PostgreSQL, number: int) -> None:
    """Change each row in a transaction of its own, in a random order, and make the log durable but no page."""
    order = database.run(f"SELECT id FROM accounts ORDER BY md5(id::text || '{number}')")
    done = database.run(*(f"UPDATE accounts SET round = {number} WHERE id = {row}" for row in order))
    assert done.count("UPDATE 1") == ROWS
    database.run(*PUSH_PAGES_OUT, f"SELECT pg_sleep({PAUSE})", f"INSERT INTO rounds VALUES ({number})")


def holds_everything(copy: PostgreSQL, number: int) -> None:
    """Recover a server from restored data, and check each row and each page."""
    with copy.running(ends_with=postgres.ORDERLY_END):
        assert "automatic recovery in progress" in copy.log.read_text()
        assert copy.run("SELECT round, count(*) FROM accounts GROUP BY round") == [f"{number}|{ROWS}"]
        assert copy.run("SELECT max(round), count(*) FROM rounds") == [f"{number}|{2 * number}"]
    copy.check_pages()
