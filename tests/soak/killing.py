"""Kills parts of the cluster with SIGKILL at random moments, and brings back those that nobody else brings back."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.cluster import cluster, processes
from tests.cluster.daemons import Daemons
from tests.cluster.settings import Settings
from tests.support.lab import Object

PARTS = ("operator", "mover", "versitygw", "kube-apiserver", "kubelet")
"""What is killed, by the names under which it is counted."""
SECONDS_BETWEEN = (4.0, 30.0)
"""Of quiet between two kills: some operations meet several, some none."""
FORGOTTEN_WITHIN = timedelta(seconds=20)
"""Between the death of a kubelet, which then stays away for up to 12 s, and the release of a volume that it may have
forgotten to unstage."""
MOVER_APPEARS_WITHIN = 10.0
"""Seconds to wait for a mover that can be killed; most live for some seconds only."""


class Killer:
    """Kills one part after the other.

    Attributes:
        killed: what was killed, how often.
        kubelet_deaths: when the kubelet was killed.
    """

    def __init__(self, seed: int, log: Callable[[str], None]) -> None:
        self.killed: Counter[str] = Counter()
        self.kubelet_deaths: list[datetime] = []
        self._settings = cluster.running()
        self._random = random.Random(seed)
        self._log = log

    def kill(self, enough: threading.Event) -> None:
        """Go on until it is enough; then everything runs. Raises ClusterError if a part does not come back."""
        ways: list[Callable[[], str]] = [
            lambda: self._kill_in_pods("operator"),
            self._kill_mover,
            self._kill_mover,
            lambda: self._kill_in_pods("versitygw"),
            lambda: self._kill_daemon("kube-apiserver"),
            lambda: self._kill_daemon("kubelet"),
        ]
        while not enough.wait(self._random.uniform(*SECONDS_BETWEEN)):
            began = datetime.now(UTC)
            what = self._random.choice(ways)()
            if what == "kubelet":
                self.kubelet_deaths.append(began)
            if what:
                self.killed[what] += 1
                self._log(f"killed {what}")

    def was_forgotten(self, volume: Object) -> bool:
        """Whether a PersistentVolume may stay staged for ever, since the kubelet died just when it was released.

        A kubelet that dies between NodeUnpublishVolume and NodeUnstageVolume does not know of the volume any more when
        it is back, and the driver refuses to delete what is staged (kubernetes/kubernetes issues 85476 and 121937).
        """
        status = volume.get("status", {})
        if status.get("phase") != "Released":
            return False
        released = datetime.fromisoformat(status["lastPhaseTransitionTime"])
        return any(abs(released - death) < FORGOTTEN_WITHIN for death in self.kubelet_deaths)

    def _kill_in_pods(self, argument: str) -> str:
        """Kill the processes in pods of the cluster that were started with this word; the kubelet starts them again."""
        found = processes_in_pods(self._settings, argument)
        for process in found:
            process.signal(signal.SIGKILL)
        return argument if found else ""

    def _kill_mover(self) -> str:
        """Kill a mover as soon as there is one, or a little later."""
        deadline = time.monotonic() + MOVER_APPEARS_WITHIN
        while not processes_in_pods(self._settings, "mover") and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(self._random.uniform(0, 2))
        return self._kill_in_pods("mover")

    def _kill_daemon(self, name: str) -> str:
        found = Daemons(self._settings.directory, self._settings.environment()).find(name)
        if found is None or not found.is_alive:
            return ""
        while found.is_alive:  # on a busy machine, what is killed takes its time to go
            processes.kill([found])
        time.sleep(self._random.uniform(0, 12))
        with cluster.borrowed():  # brings up what does not run; `up` would keep the cluster when the run has ended
            return name


def processes_in_pods(settings: Settings, argument: str) -> list[processes.Process]:
    """Processes in the cluster's pods that have ``argument`` among the words of their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = [Path(word).name for word in (folder / "cmdline").read_text(errors="replace").split("\0")[:6]]
            if argument in words and f"/{settings.name}/" in (folder / "cgroup").read_text():
                found += [process for process in [processes.find(int(folder.name))] if process]
    return found
