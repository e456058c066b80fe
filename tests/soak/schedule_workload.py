"""The workload of one volume that a schedule backs up every minute, while retention keeps two of its backups."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from typing_extensions import override

from cinderblock.lifecycle.schedule.names import of_token
from tests.soak.volume_workload import END_WITHIN, Promise, Volume
from tests.support.cluster.cluster import KubeClusterError, Object
from tests.support.cluster.namespaces import ERRORS

ACTIONS = (
    "scheduled backup",
    "expiry",
    "restore of a held backup",
    "run by request",
    "pause",
    "schedule made again",
)
"""The actions, by the names under which they are counted."""
RETENTION = {"keepLast": 2, "minAge": "0s", "grace": "0s", "maxPerDay": 0}
"""Rules that remove a backup within some minutes."""
PAUSE = timedelta(seconds=90)
CLOCK = timedelta(seconds=2)
"""Times of the API server have whole seconds."""


def schedule_spec(volume: str) -> Object:
    """Return the spec of the schedule of one volume, which its label selects."""
    return {
        "schedule": "* * * * *",
        "spread": "20s",
        "volumes": {"selector": {"matchLabels": {"soak": volume}}},
        "retries": {"count": 3, "backoff": "20s"},
        "retention": RETENTION,
    }


@dataclass(frozen=True)
class Sample:
    """The number of steps that were durable at an instant."""

    at: datetime
    steps: int


@dataclass
class ScheduledVolume(Volume):
    """One volume, and its schedule.

    Attributes:
        samples: durable steps, oldest first.
        made: names of the backups that were available.
        gone: names of those that are removed.
        newest: name of the newest available backup; empty: there is none.
    """

    samples: list[Sample] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    newest: str = ""

    @override
    def live(self, enough: threading.Event) -> None:
        """Perform random actions, and check after each that the last backup is still there. Raises as Volume."""
        self._begin()
        self._kubectl("label", "pvc", self.name, f"soak={self.name}", "--overwrite")
        self._make_schedule()
        while not enough.is_set():
            self.observe()
            self._choose()()
            enough.wait(5)

    @override
    def check_every_backup(self) -> None:
        """Delete the schedule, of which all backups stay, and do with them as with those of other volumes."""
        self._kubectl("delete", "backupschedule", self.name, "--ignore-not-found", "--timeout=120s")
        self._wait("end of the last run", lambda: not any(map(_is_unfinished, self._listed())), END_WITHIN)
        self.observe()
        super().check_every_backup()

    def observe(self) -> None:
        """Note which backups there are and what each must hold. Raises AssertionError if the last one is gone."""
        self.samples.append(Sample(datetime.now(UTC), self._durable()))
        listed = {item["metadata"]["name"]: item for item in self._listed()}
        failed = [name for name, item in listed.items() if item.get("status", {}).get("phase") in ERRORS]
        if failed:
            raise KubeClusterError(f"{failed} failed\n{self.tenant.kube.diagnose(self.tenant.name)}")
        available = {name for name, item in listed.items() if item.get("status", {}).get("phase") == "available"}
        if self.made and not available:
            raise AssertionError(f"{self.name} had {sorted(self.made)}, and has no backup any more")
        self.newest = max(available, key=lambda name: listed[name]["metadata"]["creationTimestamp"], default="")
        for name in available - self.promises.keys():
            self.promises[name] = promise_of(listed[name], self.samples)
            self.made.add(name)
            self._did("scheduled backup")
        for name in self.promises.keys() - listed.keys():
            del self.promises[name]
            self.gone.add(name)
            self._did("expiry")

    @override
    def _choose(self) -> Callable[[], None]:
        ways = [self._wait_for_a_run, self._run_now, self._pause, self._make_again]
        if self.newest:
            ways += [self._restore_held, self._restore_held]
        return self.random.choice(ways)

    def _make_schedule(self) -> None:
        metadata = {"name": self.name, "namespace": self.tenant.name}
        kind = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "BackupSchedule"}
        self._apply(kind | {"metadata": metadata, "spec": schedule_spec(self.name)})

    def _patch(self, kind: str, name: str, **spec: object) -> None:
        self._kubectl("patch", kind, name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def _wait_for_a_run(self) -> None:
        known = set(self.made)
        self._wait_while_observing("backup of a run", lambda: bool(self.made - known))

    def _run_now(self) -> None:
        """Ask for a run. It is skipped if the volume is busy, as of any run: then nothing is counted."""
        token = self._next_name("token").rsplit("-", 1)[1]
        self._patch("backupschedule", self.name, runNow=token)
        name = of_token(token)
        self._wait_while_observing(f"run {name}", lambda: self._has_run(token, name))
        self.observe()
        if any(name in backup for backup in self.made):
            self._did("run by request")

    def _has_run(self, token: str, name: str) -> bool:
        """Return whether the run is over: it has an outcome for its volume, or the next run has begun."""
        status = (self._get("backupschedule", self.name) or {}).get("status", {})
        run = status.get("lastRun") or {}
        ended = sum(run.get(outcome, 0) for outcome in ("succeeded", "failed", "skipped", "missed"))
        is_over = run.get("name") != name or ended == run.get("volumes") == 1
        return status.get("lastRunNow") == token and is_over

    def _pause(self) -> None:
        self._patch("backupschedule", self.name, suspend=True)
        self._wait("end of the run", lambda: not any(map(_is_unfinished, self._listed())), END_WITHIN)
        began, known = datetime.now(UTC), {item["metadata"]["name"] for item in self._listed()}
        self._wait_while_observing("end of the pause", lambda: datetime.now(UTC) - began > PAUSE)
        later = {item["metadata"]["name"] for item in self._listed()} - known
        if later:
            raise AssertionError(f"{sorted(later)} were made during a pause")
        self._patch("backupschedule", self.name, suspend=False)
        self._did("pause")

    def _make_again(self) -> None:
        """Delete the schedule and make it again. Its backups stay."""
        self._kubectl("delete", "backupschedule", self.name, "--timeout=120s")
        known = {item["metadata"]["name"] for item in self._listed() if not item["metadata"].get("deletionTimestamp")}
        self._make_schedule()
        lost = known - {item["metadata"]["name"] for item in self._listed()}
        if lost:
            raise AssertionError(f"{sorted(lost)} are gone with their schedule")
        self._did("schedule made again")

    def _restore_held(self) -> None:
        """Restore the newest backup, which retention may not remove meanwhile."""
        name = self.newest
        self._patch("volumebackup", name, hold=True)
        self._restore_new(name)
        if self._get("volumebackup", name) is None:
            raise AssertionError(f"{name} was held, and is gone")
        self._patch("volumebackup", name, hold=False)
        self._did("restore of a held backup")

    def _wait_while_observing(self, what: str, is_true: Callable[[], bool]) -> None:
        def seen() -> bool:
            self.observe()
            return is_true()

        self._wait(what, seen, END_WITHIN)

    def _listed(self) -> list[Object]:
        """Return the backups of the schedule."""
        selector = f"cinderblock.io/schedule={self.name}"
        found: list[Object] = json.loads(self._kubectl("get", "volumebackups", "-l", selector, "-o", "json"))["items"]
        return found


def promise_of(backup: Object, samples: list[Sample]) -> Promise:
    """Return the steps that a backup must hold: those durable before it was requested, and none made after its end."""
    began = datetime.fromisoformat(backup["metadata"]["creationTimestamp"])
    ended = datetime.fromisoformat(backup["status"].get("completedAt") or backup["status"]["updatedAt"])
    least = max((sample.steps for sample in samples if sample.at + CLOCK < began), default=0)
    most = min((sample.steps for sample in samples if sample.at > ended + CLOCK), default=samples[-1].steps + 1000)
    return Promise(least, most + 1)


def _is_unfinished(backup: Object) -> bool:
    return backup.get("status", {}).get("phase") in (None, "creating")
