"""The command line on a container of a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.contract.s3_server import S3Server
from tests.support.mover.mover_pods import PROGRAM


class CommandLine:
    """Back up and restore in one container, which the first backup creates."""

    def __init__(self, server: S3Server, container: str) -> None:
        self._place = f"s3://{container}/backups"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ACCESS_KEY_ID": server.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": server.credentials.secret_key,
            "AWS_ENDPOINT_URL": server.url,
        }

    def back_up(self, path: Path, volume: str, *options: str) -> dict[str, Any]:
        """Back up a directory as the volume with this id. Return the report of the program."""
        printed = self._run("backup", str(path), "--volume-id", volume, "--to", self._place, "--json", *options)
        report: dict[str, Any] = json.loads(printed.splitlines()[-1])
        return report

    def restore(self, backup: str, target: Path) -> None:
        """Restore the backup with this id to a new directory."""
        self._run("restore", backup, "--from", self._place, "--target", str(target), "--json")

    def _run(self, *words: str) -> str:
        done = subprocess.run([PROGRAM, *words], env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}"
        return done.stdout
