"""The workload of one volume: a pod writes to it all the time, while it is backed up, restored, and its backups
deleted.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tests.cluster.storage import UNFROZEN
from tests.soak.ledger import DATABASE
from tests.soak.retries import with_retries
from tests.support.cluster.cluster import KubeClusterError, Object
from tests.support.cluster.namespaces import ERRORS, Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim

SIZE = 128 << 20
END_WITHIN = 900.0
"""Seconds in which every operation ends, one way or the other, whatever is killed meanwhile."""
ACTIONS = (
    "backup",
    "incremental backup",
    "cancelled backup",
    "restore to a new volume",
    "restore in place",
    "cancelled restore",
    "deletion",
    "copy compared",
)
"""The actions, by the names under which they are counted."""
KEPT = 5
"""Backups of a volume; above it, some are deleted."""

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """The kind of a volume, and the way in which its pod writes to it."""

    storage_class: str
    is_block: bool = False
    words: tuple[str, ...] = ()
    """For the ledger's program."""


KINDS = (
    Kind("rawfile"),
    Kind("rawfile", is_block=True),
    Kind(UNFROZEN, words=(DATABASE,)),
    Kind(UNFROZEN, is_block=True),
)
"""Volumes are of these kinds, one after the other."""


@dataclass(frozen=True)
class Promise:
    """The steps that a restore of a backup must contain: at least those durable before it, at most those made until its
    end.
    """

    least: int
    most: int


@dataclass
class Volume:
    """One volume, and the sequence of its operations.

    Attributes:
        promises: of each backup that is available, what it holds; oldest first.
        done: what was done, how often.
    """

    tenant: Tenant
    name: str
    kind: Kind
    random: random.Random
    log: Callable[[str], None]
    promises: dict[str, Promise] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    count: int = 0

    def live(self, enough: threading.Event) -> None:
        """Perform random actions. Raises KubeClusterError or AssertionError at the first error."""
        self._begin()
        while not enough.is_set():
            self._choose()()

    def check_every_backup(self) -> None:
        """Restore every backup that is left, and judge it; then delete them all, in any order. Raises as `live`."""
        for backup in list(self.promises):
            self._restore_new(backup)
        if self.promises:
            self._delete(*self.random.sample(list(self.promises), len(self.promises)))
        self._stop_writer()

    def _choose(self) -> Callable[[], None]:
        ways: list[Callable[[], None]] = [self._back_up, self._back_up, self._cancel]
        if self.promises:
            ways += [partial(self._restore_new, self._any()), self._restore_in_place, self._cancel_restore]
        if len(self.promises) > KEPT:
            return self._delete_some
        return self.random.choice(ways)

    # The writer

    @property
    def _seed(self) -> str:
        return self.name

    @property
    def _path(self) -> str:
        return "/dev/volume" if self.kind.is_block else "/volume"

    def _begin(self) -> None:
        kube, namespace = self.tenant.kube, self.tenant.name
        kind = {"block": self.kind.is_block, "storage_class": self.kind.storage_class}
        self._apply(claim(kube, namespace, self.name, size=str(SIZE), **kind))
        self._start_writer()

    def _start_writer(self) -> None:
        command = ("python3", "-u", "/tools/ledger.py", "write", self._path, self._seed, *self.kind.words)
        pod = OneShotPod(f"write-{self.name}", command, (Mount(self.name, self._path, self.kind.is_block),))
        manifest = pod.manifest(self.tenant.kube, self.tenant.name)
        manifest["spec"]["restartPolicy"] = "Always"
        self._apply(manifest)
        self._wait("writer at work", lambda: self._steps() > 0, 180)

    def _stop_writer(self) -> None:
        self._kubectl("delete", "pod", f"write-{self.name}", "--ignore-not-found", "--timeout=120s")

    def _steps(self) -> int:
        """Return the number of durable steps, or 0 if the writer cannot report it."""
        output = self._kubectl("logs", f"write-{self.name}", "--tail=1", check=False).strip()
        return int(output) if output.isdigit() else 0

    def _durable(self) -> int:
        """Return the number of durable steps. The writer must report it."""
        steps: int = self._wait("word of the writer", self._steps, 180)
        return steps

    # Actions

    def _next_name(self, what: str) -> str:
        self.count += 1
        return f"{self.name}-{what}-{self.count}"

    def _back_up(self) -> None:
        name, incremental = self._next_name("backup"), bool(self.promises) and self.random.random() < 0.7
        least = self._durable()
        self._apply(self.tenant.backup(name, self.name, incremental=incremental, force=True))
        self._ends("volumebackup", name)
        self.promises[name] = Promise(least, self._durable() + 1)
        self._did("incremental backup" if incremental else "backup")

    def _cancel(self) -> None:
        """Delete a backup at a moment at which it is being made, most likely."""
        name = self._next_name("cancelled")
        self._apply(self.tenant.backup(name, self.name, force=True))
        time.sleep(self.random.uniform(0, 4))
        self._kubectl("delete", "volumebackup", name, "--wait=false")
        self._wait(f"end of {name}", lambda: self._is_gone("volumebackup", name), END_WITHIN)
        self._did("cancelled backup")

    def _restore_new(self, backup: str) -> None:
        name, target = self._next_name("restore"), self._next_name("copy")
        self._apply(self.tenant.restore(name, backup, name=target))
        self._ends("volumerestore", name)
        self._judge(backup, target)
        self._kubectl("delete", "volumerestore", name, "--timeout=300s")
        self._kubectl("delete", "pvc", target, "--timeout=300s")
        self._did("restore to a new volume")

    def _restore_in_place(self) -> None:
        backup, name = self._any(), self._next_name("back")
        self._stop_writer()
        self._apply(self.tenant.restore(name, backup, volumeId=self.name))
        self._ends("volumerestore", name)
        self._judge(backup, self.name)
        self._kubectl("delete", "volumerestore", name, "--timeout=300s")
        self._start_writer()
        self._did("restore in place")

    def _cancel_restore(self) -> None:
        """Delete a restore to a new volume at a moment at which it runs, most likely: all of the volume, or nothing."""
        backup, name, target = self._any(), self._next_name("torn"), self._next_name("copy")
        self._apply(self.tenant.restore(name, backup, name=target))
        time.sleep(self.random.uniform(0, 6))
        self._kubectl("delete", "volumerestore", name, "--wait=false")
        self._wait(f"end of {name}", lambda: self._is_gone("volumerestore", name), END_WITHIN)
        if not self._is_gone("pvc", target):
            self._judge(backup, target)
            self._kubectl("delete", "pvc", target, "--timeout=300s")
        self._did("cancelled restore")

    def _delete_some(self) -> None:
        """Delete a few at once; those that others build on wait for them."""
        everything = list(self.promises)
        self._delete(*(everything if self.random.random() < 0.5 else everything[-2:]))

    def _delete(self, *names: str) -> None:
        self._kubectl("delete", "volumebackup", *names, "--wait=false")
        for name in names:
            self._wait(f"end of {name}", partial(self._is_gone, "volumebackup", name), END_WITHIN)
            del self.promises[name]
            self._did("deletion")

    def _judge(self, backup: str, target: str) -> None:
        """Hold what was restored against what the backup promised."""
        command = ("python3", "/tools/ledger.py", "verify", self._path, self._seed, *self.kind.words)
        pod = OneShotPod(self._next_name("judge"), command, (Mount(target, self._path, self.kind.is_block),))
        self._apply(pod.manifest(self.tenant.kube, self.tenant.name))
        ended: str = self._wait(f"end of {pod.name}", lambda: self._ended(pod.name), 300)
        output = self._kubectl("logs", pod.name)
        self._kubectl("delete", "pod", pod.name, "--timeout=120s")
        promise, steps = self.promises[backup], int((output.split() or ["-1"])[0])
        if ended != "Succeeded" or not promise.least <= steps <= promise.most:
            raise AssertionError(f"{target} holds {output[:2000]}, and {backup} promised {promise}")
        self._did("copy compared")

    def _any(self) -> str:
        return self.random.choice(list(self.promises))

    # Calls that survive outages of the API server

    def _did(self, what: str) -> None:
        self.done[what] += 1
        self.log(f"{self.name}: {what}")

    def _kubectl(self, *arguments: str, check: bool = True) -> str:
        return with_retries(lambda: self.tenant.kubectl(*arguments, check=check, timeout=320))

    def _apply(self, item: Object) -> None:
        with_retries(lambda: self.tenant.kube.apply(item))

    def _get(self, kind: str, name: str) -> Object | None:
        return with_retries(lambda: self.tenant.kube.get(kind, name, self.tenant.name))

    def _is_gone(self, kind: str, name: str) -> bool:
        return self._get(kind, name) is None

    def _ended(self, pod: str) -> str:
        found = self._get("pod", pod)
        phase = str(found["status"].get("phase", "")) if found else ""
        return phase if phase in ("Succeeded", "Failed") else ""

    def _ends(self, kind: str, name: str) -> None:
        """Wait until an operation is available. One that ends in error, or never, is wrong."""

        def phase() -> str:
            found = self._get(kind, name) or {}
            output: str = found.get("status", {}).get("phase", "")
            return output if output == "available" or output in ERRORS else ""

        if self._wait(f"end of {name}", phase, END_WITHIN) != "available":
            found = self._get(kind, name) or {}
            raise KubeClusterError(
                f"{name} ends in error: {found.get('status')}\n{self.tenant.kube.diagnose(self.tenant.name)}"
            )

    def _wait(self, what: str, seen: Callable[[], T], seconds: float) -> T:
        deadline = time.monotonic() + seconds
        while not (value := seen()):
            if time.monotonic() > deadline:
                state = self.tenant.kube.diagnose(self.tenant.name)
                raise KubeClusterError(f"{self.name}: after {seconds:.0f} s there was still no: {what}\n{state}")
            time.sleep(1)
        return value
