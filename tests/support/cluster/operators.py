"""Operator processes as the image runs them, on a kubeconfig."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import choices
from tests.support.cluster.faulty_api import FaultyApi

PATIENCE = 60.0
"""Seconds after which what did not come will not come."""


@dataclass
class OperatorProcess:
    """One running operator.

    Attributes:
        line: its own way to the API server.
    """

    line: FaultyApi
    process: subprocess.Popen[bytes]
    log: Path
    port: int
    metrics_port: int

    def lines(self) -> list[dict[str, Any]]:
        """Return the log of the process."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def says(self, message: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until it has logged this message so often; returns these lines."""
        return wait_for(
            f"{times} x {message!r} in {self.log}",
            lambda: self.logged(message)[:times] if self.logged(message, times) else [],
        )

    def logged(self, message: str, times: int = 1) -> list[dict[str, Any]]:
        """Return the lines with this message, if there are at least that many."""
        found = [line for line in self.lines() if line["message"].startswith(message)]
        return found if len(found) >= times else []

    def health(self, path: str) -> tuple[int, str]:
        """Return the status and the text of a probe; 0 if nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def is_ready(self) -> bool:
        """Return whether the readiness probe succeeds."""
        return self.health("/readyz")[0] == 200

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(seconds)


def wait_for(what: str, seen: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Look until there is something, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := seen()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s there was still no {what}")
        time.sleep(0.1)
    return value


@contextlib.contextmanager
def operator(
    line: FaultyApi, directory: Path, name: str, kubeconfig: Path, **environment: str
) -> Iterator[OperatorProcess]:
    """Run an operator as long as the block; its log is ``<directory>/<name>.log``."""
    port, metrics_port = choices.free_ports(2)
    log = directory / f"{name}.log"
    command = [sys.executable, "-c", "import sys; from cinderblock.cli.main import main; sys.exit(main(['operator']))"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=os.environ
            | {
                "KUBECONFIG": str(kubeconfig),
                "CINDERBLOCK_MOVER_IMAGE": "example/cinderblock:1",
                "CINDERBLOCK_HEALTH_PORT": str(port),
                "CINDERBLOCK_METRICS_PORT": str(metrics_port),
            }
            | environment,
        )
    try:
        yield OperatorProcess(line, process, log, port, metrics_port)
    finally:
        # SIGKILL also ends a paused process.
        process.kill()
        process.wait()
