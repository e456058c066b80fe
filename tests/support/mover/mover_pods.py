"""Run the mover as its Job does: `cinderblock mover` with the task in the environment and Secrets as files.

A mount namespace replaces the pod, so this needs root.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cinderblock.api.broker import TOKEN_DIRECTORY, TOKEN_FILE
from cinderblock.api.mover import SECRETS_DIRECTORY, MoverReport, MoverTask, task_to_env
from cinderblock.mover.report import TERMINATION_LOG
from cinderblock.store.credentials import S3Credentials

PROGRAM = os.path.join(os.path.dirname(sys.executable), "cinderblock")
_AS_A_POD = (
    "for place in etc dev; do"
    ' mount -t overlay overlay -o "lowerdir=/$place,upperdir=$0/$place,workdir=$0/work-$place" "/$place" || exit 125; '
    'done; exec "$@"'
)
"""Bind files over directories of the machine for one process, which then becomes the mover."""


class MoverPod:
    """The environment of the movers of one store.

    Args:
        directory: an empty directory for files.
        credentials: of the store; None if a broker has them.
        keys: keys of the encryption Secret by id; None without such a Secret.
        token: for the broker, if the store is shared.
    """

    def __init__(
        self,
        directory: Path,
        credentials: S3Credentials | None = None,
        keys: Mapping[str, bytes] | None = None,
        token: str | None = None,
    ) -> None:
        self._directory = directory
        for place in ("work-etc", "work-dev", "dev"):
            (directory / place).mkdir(parents=True)
        secrets = directory / SECRETS_DIRECTORY.lstrip("/")
        if credentials is not None:
            self._write(secrets / "credentials" / "AWS_ACCESS_KEY_ID", credentials.access_key.encode())
            self._write(secrets / "credentials" / "AWS_SECRET_ACCESS_KEY", credentials.secret_key.encode())
        if token is not None:
            self._write(secrets / TOKEN_DIRECTORY / TOKEN_FILE, token.encode())
        for name, key in (keys or {}).items():
            self._write(secrets / "encryption" / name, base64.b64encode(key))
        self._log = directory / TERMINATION_LOG.lstrip("/")

    def start(self, task: MoverTask) -> subprocess.Popen[bytes]:
        """Start a mover, with a pipe as standard output. The caller ends it."""
        self._log.write_bytes(b"")
        inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        environment = inherited | task_to_env(task)
        command = ["unshare", "--mount", "sh", "-c", _AS_A_POD, str(self._directory), PROGRAM, "mover"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)

    def run(self, task: MoverTask) -> MoverReport:
        """Run a mover to its end, and return its report."""
        with self.start(task) as process:
            process.communicate()
        return self.report

    @property
    def report(self) -> MoverReport:
        """Return the report that the last mover left in its termination log."""
        return MoverReport.model_validate_json(self._log.read_bytes())

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
