"""A run of the e2e tests in several processes: what they share, and who begins and ends it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.cluster.cluster import RELEASE_NAMESPACE, Lab, install, uninstall
from tests.support.cluster.namespaces import HOME

DIRECTORY: Final = "CINDERBLOCK_E2E_RUN"
"""Environment variable: directory of the run that this process belongs to."""


class Run:
    """What the processes of one run agree on: the chart is installed once, and the audit log is read from one place."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def joined(cls) -> Run | None:
        """The run that this process belongs to; None: it is a run by itself."""
        directory = os.environ.get(DIRECTORY)
        return cls(Path(directory)) if directory else None

    def audit_start(self, audit_log: Path) -> int:
        """How long the audit log was when the first of the processes asked."""
        with self._locked():
            noted = self._directory / "audit-start"
            if not noted.exists():
                noted.write_text(str(audit_log.stat().st_size if audit_log.exists() else 0))
            return int(noted.read_text())

    def install(self, lab: Lab) -> None:
        """Install the chart, unless another of the processes has done it; who comes meanwhile waits."""
        with self._locked():
            if not self._installed.exists():
                self._installed.touch()
                install(lab, [HOME])

    def end(self) -> None:
        """Uninstall what was installed."""
        if self._installed.exists():
            remove_release(Lab.from_environment())

    @property
    def _installed(self) -> Path:
        return self._directory / "installed"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def remove_release(lab: Lab) -> None:
    """Uninstall the chart, and remove the namespaces that tests of it had."""
    uninstall(lab)
    lab.kubectl("delete", "namespace", HOME, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")
