"""The programs to measure. Each backs up a path, restores it, and stores its backups in its own container."""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from tests.bench.running import Processors, Usage, run
from tests.bench.server import BenchServer

CINDERBLOCK = "cinderblock"
SMALLEST_WINDOW = "2m"
"""The smallest dirty window that the program takes; the default is an hour."""
WIDE_WINDOW = "24h"
"""A dirty window within which everything was written that is measured."""


class Contender(Protocol):
    """A backup program with one repository."""

    name: str
    container: str
    """Where on the server its repository is, and nothing else."""
    uncompared: Sequence[str]
    """Options of tests.support.mover.compare: what of a tree it does not bring back."""

    def backup(self, path: str, *, first: bool) -> Usage:
        """Back up; ``first``: nothing of the path is in the repository yet."""

    def restore(self, path: str, target: str) -> Usage:
        """Restore the newest backup of ``path``, to a place that does not exist or holds it already."""

    def restored(self, path: str, target: str) -> str:
        """Return the path below ``target`` to which the contents of ``path`` are restored."""


def home(scratch: str, place: str) -> str:
    """Directory of what a contender keeps on this machine: keys, caches, logs."""
    return os.path.join(scratch, place)


class Cinderblock:
    """This program with encryption, and default settings except for the dirty window.

    Attributes:
        name: how tables name it; another revision of the program has a name of its own.
        reread: files that the last backup read again because their timestamps were within the dirty window.
    """

    uncompared: Sequence[str] = ()

    def __init__(
        self,
        server: BenchServer,
        place: str,
        scratch: str,
        processors: Processors,
        *,
        name: str = CINDERBLOCK,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Create an empty repository. ``environment`` may say where the code of another revision is imported from."""
        self.name = name
        os.mkdir(home(scratch, place))
        key = os.path.join(home(scratch, place), "key")
        with open(key, "xb") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)))
        self.container = server.container(place)
        self._program = [os.path.join(os.path.dirname(sys.executable), "cinderblock")]
        self._store = [
            f"s3://{self.container}/{place}",
            "--endpoint-url",
            server.url,
            "--encryption-key-file",
            key,
            "--json",
        ]
        # As in the image, which comes with bytecode: otherwise a start may compile everything again, which takes 0.3 s.
        bytecode = {"PYTHONPYCACHEPREFIX": os.path.join(scratch, "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
        self._environment = {**server.environment, **bytecode, **(environment or {})}
        self._processors = processors
        for command in ("backup", "restore"):
            self._run(command, "--help")
        self._newest = ""
        self.reread = 0

    def backup(self, path: str, *, first: bool) -> Usage:
        """See Contender."""
        return self._back_up(path, WIDE_WINDOW) if first else self._back_up(path, SMALLEST_WINDOW, "--incremental")

    def backup_within_window(self, path: str) -> Usage:
        """Make an incremental backup with a window within which everything was written."""
        return self._back_up(path, WIDE_WINDOW, "--incremental")

    def _back_up(self, path: str, window: str, *options: str) -> Usage:
        used = self._run("backup", path, "--dirty-window", window, *options, "--to", *self._store)
        printed = json.loads(used.output.splitlines()[-1])
        self._newest, self.reread = printed["backupId"], printed["rereadFiles"]
        return used

    def restore(self, path: str, target: str) -> Usage:
        """See Contender."""
        kind = ["--overwrite"] if os.path.exists(self.restored(path, target)) else []
        return self._run(
            "restore", self._newest, "--target", self.restored(path, target), *kind, "--from", *self._store
        )

    def restored(self, path: str, target: str) -> str:
        """See Contender."""
        return os.path.join(target, os.path.basename(path))

    def _run(self, *arguments: str) -> Usage:
        return run([*self._program, *arguments], self._environment, self._processors)
