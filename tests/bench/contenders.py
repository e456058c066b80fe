"""Who is measured: each backs up a path, restores it, and keeps what it keeps in a place of its own on one server."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Protocol

from tests.bench.running import BenchError, Processors, Usage, run
from tests.bench.server import CONTAINER, BenchServer

CINDERBLOCK = "cinderblock"
RESTIC = "restic"


class Contender(Protocol):
    """A program that backs up, in one repository."""

    name: str

    def backup(self, path: str, *, first: bool) -> Usage:
        """Back up; ``first``: nothing of the path is in the repository yet."""

    def restore(self, path: str, target: str) -> Usage:
        """Restore the newest backup of ``path``, to a place that does not exist or holds it already."""

    def restored(self, path: str, target: str) -> str:
        """Where below ``target`` the restored ``path`` is."""


class Cinderblock:
    """This program, sealing, with default settings."""

    name = CINDERBLOCK

    def __init__(self, server: BenchServer, place: str, scratch: str, processors: Processors) -> None:
        key = os.path.join(scratch, f"{place}.key")
        with open(key, "xb") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)))
        self._program = [os.path.join(os.path.dirname(sys.executable), "cinderblock")]
        self._store = [
            f"s3://{CONTAINER}/{place}",
            "--endpoint-url",
            server.url,
            "--encryption-key-file",
            key,
            "--json",
        ]
        # As in the image, which comes with bytecode: otherwise a start may compile everything anew, 0.3 s of it.
        bytecode = {"PYTHONPYCACHEPREFIX": os.path.join(scratch, "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
        self._environment = {**server.environment, **bytecode}
        self._processors = processors
        for command in ("backup", "restore"):
            self._run(command, "--help")
        self._newest = ""

    def backup(self, path: str, *, first: bool) -> Usage:
        """See Contender."""
        kind = [] if first else ["--incremental"]
        used = self._run("backup", path, *kind, "--to", *self._store)
        self._newest = json.loads(used.output.splitlines()[-1])["backupId"]
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


class Restic:
    """restic with default settings, its cache in the scratch directory."""

    name = RESTIC

    def __init__(self, server: BenchServer, place: str, scratch: str, processors: Processors) -> None:
        cache = os.path.join(scratch, f"{place}.cache")
        self._environment = {**server.environment, "RESTIC_PASSWORD": secrets.token_hex(16), "RESTIC_CACHE_DIR": cache}
        self._processors = processors
        repository = f"s3:{server.url}/{CONTAINER}-{place}"
        self._program = [RESTIC, "-o", "s3.bucket-lookup=path", "-r", repository]
        self._run("init")

    def backup(self, path: str, *, first: bool) -> Usage:
        """See Contender. restic finds by itself what it has of the path."""
        return self._run("backup", path)

    def restore(self, path: str, target: str) -> Usage:
        """See Contender."""
        return self._run("restore", "latest", "--path", path, "--target", target)

    def restored(self, path: str, target: str) -> str:
        """See Contender."""
        return target + path

    def _run(self, *arguments: str) -> Usage:
        return run([*self._program, *arguments], self._environment, self._processors)


CONTENDERS: Final[dict[str, Callable[[BenchServer, str, str, Processors], Contender]]] = {
    CINDERBLOCK: Cinderblock,
    RESTIC: Restic,
}


def version(name: str) -> str:
    """What a program says of its version. Raises BenchError if it is not installed."""
    if shutil.which(name) is None:
        raise BenchError(f"{name} is not installed: apt-get install {name}, or leave it out with --peers none")
    return subprocess.run([name, "version"], capture_output=True, text=True, check=True).stdout.split(" compiled")[0]
