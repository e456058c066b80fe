"""A run of the end-to-end tests in several processes: shared state, start and end."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster, install, uninstall
from tests.support.cluster.namespaces import HOME

DIRECTORY: Final = "CINDERBLOCK_E2E_RUN"
"""Environment variable: directory of the run that this process belongs to."""


class Run:
    """The shared state of the processes of one run: the chart is installed once, and the audit log is read from one
    position.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def joined(cls) -> Run | None:
        """Return the run that this process belongs to, or None if it runs on its own."""
        directory = os.environ.get(DIRECTORY)
        return cls(Path(directory)) if directory else None

    def audit_start(self, audit_log: Path) -> int:
        """Return the size of the audit log when the first process called this, in bytes."""
        with self._locked():
            noted = self._directory / "audit-start"
            if not noted.exists():
                noted.write_text(str(audit_log.stat().st_size if audit_log.exists() else 0))
            return int(noted.read_text())

    def install(self, kube: KubeCluster) -> None:
        """Install the chart, unless another process has. Processes that call this meanwhile wait."""
        with self._locked():
            if not self._installed.exists():
                self._installed.touch()
                install_release(kube)

    def end(self) -> None:
        """Uninstall the chart if this run installed it."""
        if self._installed.exists():
            remove_release(KubeCluster.from_environment())

    @property
    def _installed(self) -> Path:
        return self._directory / "installed"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def install_release(kube: KubeCluster, *more: str) -> None:
    """Install or upgrade the chart as the tests need it, also for stores that namespaces share.

    ``more`` are further values.
    """
    install(kube, [HOME], "broker.enabled=true", *more)


def remove_release(kube: KubeCluster) -> None:
    """Uninstall the chart, and remove the namespaces of its tests."""
    uninstall(kube)
    kube.kubectl("delete", "namespace", HOME, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")
