"""Disrupt parts of the cluster at random moments, and repair what does not recover on its own.

Parts are killed with SIGKILL; they are paused with SIGSTOP, so that they neither answer nor hang up; and what is sent
to them is dropped.
"""

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
from typing import NamedTuple

from tests.cluster import cluster, network, processes
from tests.cluster.daemons import Daemons
from tests.cluster.settings import Settings
from tests.support.cluster.cluster import Object
from tests.support.store.objects_in_store import PORT

SECONDS_BETWEEN = (4.0, 30.0)
"""Seconds between two faults. Some operations meet several faults, some none."""
SECONDS_HELD = (2.0, 40.0)
"""For how long a part is paused or cut off. Longer than a connection waits for an answer (20 s to the API server), and
shorter than Kubernetes waits for a node."""
FORGOTTEN_WITHIN = timedelta(seconds=20)
"""Between the death of a kubelet, which then stays away for up to 12 s, and the release of a volume that it may have
forgotten to unstage."""
MOVER_APPEARS_WITHIN = 10.0
"""Seconds to wait for a mover that can be killed; most live for some seconds only."""


class Disruption(NamedTuple):
    """One kind of disruption. ``do`` returns whether there was anything to disrupt."""

    name: str
    do: Callable[[], bool]


class FaultInjector:
    """Inject one fault after the other: all kinds in random order, then all again in another order.

    Attributes:
        kinds: names of what may be done.
        done: what was done, how often.
        kubelet_deaths: when the kubelet was killed.
    """

    def __init__(self, seed: int, log: Callable[[str], None]) -> None:
        self.done: Counter[str] = Counter()
        self.kubelet_deaths: list[datetime] = []
        self._settings = cluster.running()
        self._random = random.Random(seed)
        self._log = log
        api = self._settings.ports["apiserver"]
        self._disruptions = [
            Disruption("operator killed", lambda: self._kill_in_pods("operator")),
            Disruption("mover killed", self._kill_mover),
            Disruption("S3 server killed", lambda: self._kill_in_pods("versitygw")),
            Disruption("API server killed", lambda: self._kill_daemon("kube-apiserver")),
            Disruption("kubelet killed", self._kill_kubelet),
            Disruption("operator paused", lambda: self._pause(self._in_pods("operator"))),
            Disruption("mover paused", lambda: self._pause(self._movers())),
            Disruption("S3 server paused", lambda: self._pause(self._in_pods("versitygw"))),
            Disruption("API server paused", lambda: self._pause(self._daemons("kube-apiserver"))),
            Disruption("kubelet paused", lambda: self._pause(self._daemons("kubelet"))),
            Disruption("S3 server cut off", lambda: self._cut_off("FORWARD", PORT)),
            Disruption("API server cut off from pods", lambda: self._cut_off("INPUT", api)),
        ]
        # Movers live for some seconds only, and are what most depends on.
        self._disruptions += [disruption for disruption in self._disruptions if disruption.name.startswith("mover")]
        self.kinds = {disruption.name for disruption in self._disruptions}

    def kill(self, enough: threading.Event) -> None:
        """Inject faults until told to stop, then restart everything. Raises ClusterError if a part does not recover."""
        left: list[Disruption] = []
        while not enough.wait(self._random.uniform(*SECONDS_BETWEEN)):
            if not left:
                left = self._random.sample(self._disruptions, len(self._disruptions))
            disruption = left.pop()
            began = datetime.now(UTC)
            if disruption.do():
                self.done[disruption.name] += 1
                self._log(f"{disruption.name}, {(datetime.now(UTC) - began).total_seconds():.0f} s")

    def was_forgotten(self, volume: Object) -> bool:
        """Return whether a PersistentVolume may stay staged forever, because the kubelet died while it was released.

        A kubelet that dies between NodeUnpublishVolume and NodeUnstageVolume does not know of the volume any more when
        it is back, and the driver refuses to delete what is staged (kubernetes/kubernetes issues 85476 and 121937).
        """
        status = volume.get("status", {})
        if status.get("phase") != "Released":
            return False
        released = datetime.fromisoformat(status["lastPhaseTransitionTime"])
        return any(abs(released - death) < FORGOTTEN_WITHIN for death in self.kubelet_deaths)

    def _in_pods(self, argument: str) -> list[processes.Process]:
        return processes_in_pods(self._settings, argument)

    def _daemons(self, name: str) -> list[processes.Process]:
        found = Daemons(self._settings.directory, self._settings.environment()).find(name)
        return [found] if found is not None and found.is_alive else []

    def _movers(self) -> list[processes.Process]:
        """Return the running movers, as soon as there is one or shortly after."""
        deadline = time.monotonic() + MOVER_APPEARS_WITHIN
        while not self._in_pods("mover") and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(self._random.uniform(0, 2))
        return self._in_pods("mover")

    def _kill_in_pods(self, argument: str) -> bool:
        """Kill the processes in pods of the cluster that were started with this word; the kubelet starts them again."""
        return _signalled(self._in_pods(argument), signal.SIGKILL)

    def _kill_mover(self) -> bool:
        return _signalled(self._movers(), signal.SIGKILL)

    def _kill_kubelet(self) -> bool:
        self.kubelet_deaths.append(datetime.now(UTC))
        return self._kill_daemon("kubelet")

    def _kill_daemon(self, name: str) -> bool:
        found = self._daemons(name)
        if not found:
            return False
        while found[0].is_alive:  # on a busy machine, what is killed takes its time to go
            processes.kill(found)
        time.sleep(self._random.uniform(0, 12))
        with cluster.borrowed():  # brings up what does not run; `up` would keep the cluster when the run has ended
            return True

    def _pause(self, found: list[processes.Process]) -> bool:
        """Pause processes; the kubelet may kill what does not answer its probes meanwhile."""
        try:
            paused = _signalled(found, signal.SIGSTOP)
            time.sleep(self._random.uniform(*SECONDS_HELD) if paused else 0)
        finally:
            _signalled(found, signal.SIGCONT)
        return paused

    def _cut_off(self, chain: str, port: int) -> bool:
        with network.cut_off(self._settings, chain, port):
            time.sleep(self._random.uniform(*SECONDS_HELD))
        return True


def _signalled(found: list[processes.Process], number: signal.Signals) -> bool:
    """Send a signal to processes; returns whether there were any."""
    for process in found:
        process.signal(number)
    return bool(found)


def processes_in_pods(settings: Settings, argument: str) -> list[processes.Process]:
    """Return processes in the cluster's pods that have ``argument`` in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = [Path(word).name for word in (folder / "cmdline").read_text(errors="replace").split("\0")[:6]]
            if argument in words and f"/{settings.name}/" in (folder / "cgroup").read_text():
                found += [process for process in [processes.find(int(folder.name))] if process]
    return found
