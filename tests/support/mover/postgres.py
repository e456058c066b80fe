"""PostgreSQL of the distribution's package, in a directory of its own and as an unprivileged user."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.mover.unprivileged import NOBODY

_USER = "postgres"
_SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Unlike fdatasync(2), it makes the timestamps of the log durable, and with them those of all other files.
    "wal_sync_method": "fsync",
    "listen_addresses": "",
    "autovacuum": "off",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "min_wal_size": "2MB",
    "max_wal_size": "64MB",
    "checkpoint_timeout": "1h",
    # The smallest pool there is: pages leave it all the time, and are only written, not made durable.
    "shared_buffers": "128kB",
}
"""Only tests request checkpoints, which make written pages durable."""


CRASH = signal.SIGQUIT
ORDERLY_END = signal.SIGINT
"""Signals of the server (postgres(1): immediate and fast shutdown)."""
_SECONDS = 60
_WHO: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
"""User of the server, which does not run as root."""


class PostgresError(Exception):
    """A program of PostgreSQL failed. The message holds its output."""


class PostgreSQL:
    """A server that can be started on a data directory.

    Attributes:
        log: what servers have logged.
    """

    def __init__(self, data: Path, sockets: Path) -> None:
        """``data`` need not exist. All users must have access to the parents of both. ``sockets`` is a short path."""
        self._data = data
        self._sockets = sockets
        self.log = sockets / "log"

    def create(self) -> None:
        """Make the data directory, and let checksums protect its pages."""
        self._data.mkdir()
        os.chown(self._data, NOBODY, NOBODY)
        layout = ("--wal-segsize=1", "--data-checksums", "--encoding=UTF8", "--locale=C")
        self._program("initdb", f"--username={_USER}", "--auth=trust", "--no-sync", "--no-instructions", *layout)

    @contextmanager
    def running(self, *, ends_with: signal.Signals = CRASH) -> Iterator[None]:
        """Run a server inside the block. It recovers if its last server has crashed.

        ``ends_with`` is CRASH or ORDERLY_END. Raises PostgresError if it does not start.
        """
        self._sockets.mkdir()
        os.chown(self._sockets, NOBODY, NOBODY)
        settings = {**_SETTINGS, "unix_socket_directories": str(self._sockets)}
        words = [f"-c{name}={value}" for name, value in settings.items()]
        command = [str(_binary("postgres")), "-D", str(self._data), *words]
        with (
            self.log.open("xb") as log,
            subprocess.Popen(command, stderr=log, start_new_session=True, **_WHO) as server,
        ):
            try:
                self._wait_for(server)
                yield
            finally:
                _end(server, ends_with)

    def run(self, *statements: str) -> list[str]:
        """Run statements, each as a transaction, and return the lines that they print.

        A line about a change, such as ``UPDATE 1``, is printed after the commit.
        """
        options = ("--no-psqlrc", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1")
        session = (f"--host={self._sockets}", f"--username={_USER}", "--dbname=postgres")
        printed = self._call([str(_binary("psql")), *options, *session], "\n".join(f"{line};" for line in statements))
        return printed.splitlines()

    def check_pages(self) -> None:
        """Read all pages of a server that was shut down cleanly, and compare their checksums."""
        self._program("pg_checksums", "--check")

    def _wait_for(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _SECONDS
        while b"ready to accept connections" not in self.log.read_bytes():
            if server.poll() is not None or time.monotonic() > deadline:
                raise PostgresError(f"{self._data} has no server:\n{self.log.read_text()}")
            time.sleep(0.02)

    def _program(self, name: str, *options: str) -> None:
        self._call([str(_binary(name)), f"--pgdata={self._data}", *options])

    def _call(self, command: Sequence[str], text: str = "") -> str:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            **_WHO,
        )
        if done.returncode:
            logged = self.log.read_text() if self.log.exists() else ""
            raise PostgresError(f"{' '.join(command)}: {done.returncode}\n{done.stderr}\n{logged[-4000:]}")
        return done.stdout


def _end(server: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Stop a server so that it removes its shared memory, and kill it if it does not stop."""
    server.send_signal(number)
    try:
        server.wait(_SECONDS)
    finally:
        # The other processes of the server end as soon as they miss the first one.
        server.kill()


def why_not() -> str | None:
    """Return why PostgreSQL is missing on this machine; None if it is installed."""
    return None if _folders() else "PostgreSQL is not installed"


def _folders() -> list[Path]:
    """Return the directories of programs, in order of versions."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return sorted((path.parent for path in found), key=lambda folder: float(folder.parent.name))


def _binary(name: str) -> Path:
    return _folders()[-1] / name
