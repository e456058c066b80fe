"""Write like databases, and check copies of the files. This runs in pods and needs only the standard library.

    commits.py serve PATH...             obey `order` in directories, until SIGTERM
    commits.py order VERB NUMBER         send a command to the server, and wait for it
    commits.py lacking PATH NUMBER       print what the files lack of a round, without their logs
    commits.py missing PATH NUMBER       print what a copy has lost of a round; nothing if it is complete

A round has two halves. `dirty` commits: each commit makes its log durable, and then writes pages that are not durable
yet. `settle` makes them durable, like the end of a checkpoint, and commits more to restarted logs. A snapshot between
the halves may have the new timestamps of a file and its old pages, which the logs can restore. A later snapshot has the
pages, and no timestamp has changed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator

ROWS = 60
"""Rows of each database, and so the commits of half a round."""
MORE = 20
"""Commits after a checkpoint."""
LAYOUTS = (("rising", 512), ("falling", 4096), ("shuffled", 65536))
"""Databases by the order in which their rows are written, with their page sizes."""
TABLE_BYTES = 256 << 10
PAGES = {8192: b"first", 20480: b"second", 245760: b"third"}
"""Offset of pages of a file without a database, and the text before their number."""
PAUSE = 2.0
"""Seconds between the last page and the last entry of a log, so that the ages of timestamps show nothing."""
ORDERS, ANSWERS = "/dev/shm/orders", "/dev/shm/answers"


def rows_in_order(name: str, number: int) -> list[int]:
    """Return the rows of a database in the order in which a round writes them."""
    rows = list(range(ROWS))
    if name == "shuffled":
        random.Random(number).shuffle(rows)
    return rows[::-1] if name == "falling" else rows


class Database:
    """SQLite in WAL mode. Its checkpoints write first and sync later, as those of larger databases do."""

    def __init__(self, path: str, name: str, page_size: int) -> None:
        self.name = name
        self._path = f"{path}/{name}.db"
        self._writer = self._connect()
        # A connection whose checkpoints sync nothing (https://sqlite.org/pragma.html#pragma_synchronous).
        self._checkpointer = self._connect()
        # The log does not restart while a reader uses it, so nothing is lost before the sync.
        self._reader = self._connect()
        self._writer.execute(f"PRAGMA page_size = {page_size}")
        assert self._writer.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        self._writer.execute("PRAGMA synchronous = FULL")
        self._checkpointer.execute("PRAGMA synchronous = OFF")
        self._writer.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, round INTEGER, padding TEXT)")
        self._writer.execute("CREATE TABLE rounds (round INTEGER, number INTEGER)")
        for row in range(ROWS):
            self._writer.execute("INSERT INTO accounts VALUES (?, 0, ?)", (row, "x" * 800))
        assert self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)

    def dirty(self, number: int) -> None:
        """Commit, and write the pages into the file without making them durable."""
        for row in rows_in_order(self.name, number):
            self._writer.execute("UPDATE accounts SET round = ? WHERE id = ?", (number, row))
        self._reader.execute("BEGIN")
        self._reader.execute("SELECT count(*) FROM accounts").fetchone()
        is_busy, frames, written = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert not is_busy
        assert frames == written

    def settle(self, number: int) -> None:
        """Make the pages durable; then commits overwrite the log from its beginning."""
        sync(self._path)
        self._reader.execute("ROLLBACK")
        for count in range(MORE):
            self._writer.execute("INSERT INTO rounds VALUES (?, ?)", (number, count))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection


class Volume:
    """All files that are written to one directory."""

    def __init__(self, path: str) -> None:
        self._path = path
        write(f"{path}/table", 0, bytes(TABLE_BYTES))
        write(f"{path}/log", 0, bytes(4096))
        self._databases = [Database(path, name, page_size) for name, page_size in LAYOUTS]
        for name in os.listdir(path):
            if os.path.isfile(f"{path}/{name}"):
                sync(f"{path}/{name}")

    def dirty(self, number: int) -> None:
        for database in self._databases:
            database.dirty(number)
        for offset, page in PAGES.items():
            write(f"{self._path}/table", offset, page_of(page, number))

    def settle(self, number: int) -> None:
        for database in self._databases:
            database.settle(number)
        sync(f"{self._path}/table")

    def log(self, text: str) -> None:
        """Make an entry of a log durable, and with it the timestamps of all files."""
        write(f"{self._path}/log", 0, text.encode())
        sync(f"{self._path}/log")


def page_of(name: bytes, number: int) -> bytes:
    return (b"%s-%08d/" % (name, number)).ljust(16, b"/") * 256


def write(path: str, offset: int, content: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(descriptor, content, offset)
    os.close(descriptor)


def sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def serve(paths: list[str]) -> None:
    """Serve commands until the end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    volumes = [Volume(path) for path in paths]
    for name in (ANSWERS, ORDERS):
        os.mkfifo(name)
    print("ready", flush=True)
    while True:
        with open(ORDERS, encoding="ascii") as orders:
            verb, number = orders.read().split()
        for volume in volumes:
            (volume.dirty if verb == "dirty" else volume.settle)(int(number))
        time.sleep(PAUSE)
        for volume in volumes:
            volume.log(f"{verb} {number}")
        with open(ANSWERS, "w", encoding="ascii") as answers:
            answers.write("done")


def order(verb: str, number: str) -> None:
    """Send a command to the server. Both ends of a FIFO wait for each other (fifo(7))."""
    with open(ORDERS, "w", encoding="ascii") as orders:
        orders.write(f"{verb} {number}")
    with open(ANSWERS, encoding="ascii") as answers:
        print(answers.read())


def lacking(path: str, number: int) -> Iterator[str]:
    """Yield the files that do not hold the pages of the round, without recovery from a log."""
    for name, _ in LAYOUTS:
        if any(_rounds(f"file:{path}/{name}.db?immutable=1", number)):
            yield name
    if any(_pages(path, number)):
        yield "table"


def missing(path: str, number: int) -> Iterator[str]:
    """Yield the differences from the state after both halves of the round."""
    for name, _ in LAYOUTS:
        uri = f"file:{path}/{name}.db"
        yield from _rounds(uri, number)
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            (count,) = database.execute("SELECT count(*) FROM rounds WHERE round = ?", (number,)).fetchone()
            if count != MORE:
                yield f"{name}: {count} of {MORE} commits after the checkpoint"
    yield from _pages(path, number)


def _rounds(uri: str, number: int) -> Iterator[str]:
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            found = database.execute("SELECT round, count(*) FROM accounts GROUP BY round").fetchall()
            if found != [(number, ROWS)]:
                yield f"{uri}: rounds and their rows are {found}"
            checked = database.execute("PRAGMA integrity_check").fetchall()
            if checked != [("ok",)]:
                yield f"{uri}: {checked[:5]}"
    except sqlite3.DatabaseError as error:
        yield f"{uri}: {error}"


def _pages(path: str, number: int) -> Iterator[str]:
    with open(f"{path}/table", "rb") as file:
        content = file.read()
    for offset, page in PAGES.items():
        expected = page_of(page, number)
        if content[offset : offset + len(expected)] != expected:
            yield f"table: {content[offset : offset + 16]!r} at {offset}"


def main(verb: str, *words: str) -> None:
    """Run the command line."""
    if verb == "serve":
        serve(list(words))
    elif verb == "order":
        order(*words)
    else:
        judge = lacking if verb == "lacking" else missing
        print("\n".join(judge(words[0], int(words[1]))))


if __name__ == "__main__":
    main(*sys.argv[1:])
