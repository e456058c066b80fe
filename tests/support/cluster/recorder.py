"""Record movers, objects, Events and logs, which may be gone or changed when a test needs them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any
from urllib.parse import quote

from tests.cluster.toolchain import tool
from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster

SELECTOR = "app.kubernetes.io/managed-by=cinderblock"
SERVERS_SELECTOR = "app.kubernetes.io/name=cinderblock,app.kubernetes.io/component in (operator, broker)"
OWNER_LABEL = "cinderblock.io/owner-uid"
PODS = "/api/v1/pods"
MOVERS = ("/apis/batch/v1/jobs", PODS)
SHOWN = (
    "/apis/cinderblock.io/v1alpha1/backupstores",
    "/apis/cinderblock.io/v1alpha1/clusterbackupstores",
    "/apis/cinderblock.io/v1alpha1/volumebackups",
    "/apis/cinderblock.io/v1alpha1/volumerestores",
    "/apis/events.k8s.io/v1/events",
)
"""Objects that people read. Every version is recorded, including one that is overwritten at once."""

OPERATOR, BROKER = "the operator", "the broker"
"""The keys of the logs of our servers. No namespace has these names."""


class Recorder:
    """Watch movers, our objects and Events in all namespaces, and follow the logs of our pods."""

    def __init__(self, kube: KubeCluster) -> None:
        self._kube = kube
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._all: list[str] = []
        self._jobs: dict[str, set[str]] = defaultdict(set)
        self._followed: set[str] = set()
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._closed = False

    def __enter__(self) -> Recorder:
        for path in MOVERS:
            self._start(self._watch, path, SELECTOR, self._note)
        self._start(self._watch, f"/api/v1/namespaces/{RELEASE_NAMESPACE}/pods", SERVERS_SELECTOR, self._note_server)
        for path in SHOWN:
            self._start(self._watch, path, "", self._all.append)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            processes = list(self._processes)
        for process in processes:
            process.terminate()
            process.wait()

    def text_of(self, namespace: str) -> str:
        """Return everything recorded about the movers of a namespace: Jobs, pods, reports and logs."""
        with self._lock:
            return "\n".join(self._texts[namespace])

    def everything(self, since: int = 0) -> list[str]:
        """Return everything recorded of objects, Events, movers and our servers, except the first pieces."""
        return self._all[since:]

    def jobs(self, owner_uid: str) -> set[str]:
        """Return the UIDs of all mover Jobs that ever belonged to a VolumeBackup or VolumeRestore."""
        with self._lock:
            return set(self._jobs[owner_uid])

    def _watch(self, path: str, selector: str, note: Callable[[str], None]) -> None:
        """Watch one kind, again and again: the API server ends watches, and does not know our kinds at first."""
        query = f"{path}?watch=1&labelSelector={quote(selector, safe='')}"
        while not self._closed:
            for line in self._lines("get", "--raw", query):
                with contextlib.suppress(json.JSONDecodeError):  # the last line, when we end the watch
                    note(line)
            time.sleep(0.5)

    def _lines(self, *arguments: str) -> Iterator[str]:
        """Yield the output lines of kubectl as they arrive."""
        with subprocess.Popen(
            [str(tool("kubectl")), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            with self._lock:
                self._processes.append(process)
                if self._closed:
                    process.terminate()
            yield from process.stdout or ()
        with self._lock:
            self._processes.remove(process)

    def _note_server(self, line: str) -> None:
        seen: dict[str, Any] = json.loads(line).get("object", {})
        is_broker = seen.get("metadata", {}).get("labels", {}).get("app.kubernetes.io/component") == "broker"
        self._follow_pod(seen, BROKER if is_broker else OPERATOR)

    def _note(self, line: str) -> None:
        seen: dict[str, Any] = json.loads(line).get("object", {})
        metadata = seen.get("metadata", {})
        namespace = metadata.get("namespace")
        if namespace is None:
            return
        with self._lock:
            self._texts[namespace].append(line)
            self._all.append(line)
            if seen["kind"] == "Job":
                self._jobs[metadata.get("labels", {}).get(OWNER_LABEL, "")].add(metadata["uid"])
        if seen["kind"] == "Pod":
            self._follow_pod(seen, namespace)

    def _follow_pod(self, pod: dict[str, Any], whose: str) -> None:
        if pod.get("status", {}).get("phase") not in ("Running", "Succeeded", "Failed"):
            return
        metadata = pod["metadata"]
        # A restarted container has a log of its own.
        started = sum(container["restartCount"] for container in pod["status"].get("containerStatuses", ()))
        log = f"{metadata['uid']} {started}"
        with self._lock:
            if log in self._followed:
                return
            self._followed.add(log)
        self._start(self._read_log, metadata["namespace"], metadata["name"], whose)

    def _read_log(self, namespace: str, pod: str, whose: str) -> None:
        for line in self._lines("logs", "--follow", "-n", namespace, pod):
            with self._lock:
                self._texts[whose].append(line)
                self._all.append(line)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()
