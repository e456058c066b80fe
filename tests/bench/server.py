"""The S3 server of a run. Its access log counts the requests of every program in the same way."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench import processes
from tests.bench.running import Processors
from tests.cluster import s3

_QUIET_SECONDS: Final = 0.05
_PROGRAM: Final = "versitygw"


class BenchServer:
    """A running S3 server with a log of requests."""

    def __init__(self, server: s3.S3Server, log: Path, process: int) -> None:
        self.url = server.url
        self.region = server.region
        self.environment = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_REGION": server.region,
        }
        self._objects = server.directory
        self._log = log
        self._process = process

    def container(self, place: str) -> str:
        """Return the name of a container, which the caller creates."""
        return f"bench-{place}"

    def new_container(self, place: str) -> str:
        """Create a container for programs that do not create one. The server's containers are directories."""
        (self._objects / self.container(place)).mkdir()
        return self.container(place)

    def objects(self, container: str) -> str:
        """Return the directory of a container's objects. It does not exist before the container."""
        return str(self._objects / container)

    def cpu_seconds(self) -> float:
        """Return the seconds of processor time that the server has used so far."""
        return processes.cpu_seconds(self._process)

    def requests(self) -> int:
        """Return the number of requests so far.

        Wait until the log stops growing, since a line may follow its response a moment later.
        """
        size = -1
        while size != (size := self._log.stat().st_size if self._log.exists() else 0):
            time.sleep(_QUIET_SECONDS)
        if not size:
            return 0
        with self._log.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))

    def stored(self, container: str) -> int:
        """Return the size of a container's objects, in bytes."""
        return sum(
            os.path.getsize(os.path.join(directory, name))
            for directory, _, names in os.walk(self.objects(container))
            for name in names
        )

    def forget(self) -> None:
        """Remove all objects with their containers."""
        for container in self._objects.iterdir():
            shutil.rmtree(container)


@contextlib.contextmanager
def serving(directory: str, processors: Processors) -> Iterator[BenchServer]:
    """Run a server on the processors that are not measured, as this process from now on."""
    os.sched_setaffinity(0, processors.rest)
    log = Path(directory, "access.log")
    with s3.running(f"--access-log={log}") as server:
        [process] = [pid for pid in processes.descendants(os.getpid()) if processes.name(pid) == _PROGRAM]
        yield BenchServer(server, log, process)
