"""Writes down what movers look like and what they say: they are gone by the time that a test asks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections import defaultdict
from types import TracebackType
from typing import Any

from tests.cluster.toolchain import tool
from tests.support.lab import Lab

SELECTOR = "app.kubernetes.io/managed-by=cinderblock"
OWNER_LABEL = "cinderblock.io/owner-uid"
PATHS = ("/apis/batch/v1/jobs", "/api/v1/pods")


class Witness:
    """Watches the mover Jobs and pods of all namespaces while inside, and follows the pods' logs."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._jobs: dict[str, set[str]] = defaultdict(set)
        self._followed: set[str] = set()
        self._lock = threading.Lock()
        self._watches: list[subprocess.Popen[str]] = []
        self._closed = False

    def __enter__(self) -> Witness:
        for path in PATHS:
            self._start(self._watch, path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        with self._lock:
            watches = list(self._watches)
        for process in watches:
            process.terminate()
            process.wait()

    def said(self, namespace: str) -> str:
        """Everything that was seen of the movers of a namespace: their Jobs, pods, reports and logs."""
        with self._lock:
            return "\n".join(self._texts[namespace])

    def jobs(self, owner_uid: str) -> set[str]:
        """UIDs of the mover Jobs that were ever seen to belong to a VolumeBackup or VolumeRestore."""
        with self._lock:
            return set(self._jobs[owner_uid])

    def _watch(self, path: str) -> None:
        """Follow one kind; the API server ends a watch now and then."""
        query = f"{path}?watch=1&labelSelector={SELECTOR.replace('/', '%2F').replace('=', '%3D')}"
        while not self._closed:
            with subprocess.Popen(
                [str(tool("kubectl")), "get", "--raw", query],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as process:
                with self._lock:
                    self._watches.append(process)
                for line in process.stdout or ():
                    with contextlib.suppress(json.JSONDecodeError):  # the last line, when we end the watch
                        self._note(line)

    def _note(self, line: str) -> None:
        seen: dict[str, Any] = json.loads(line).get("object", {})
        metadata = seen.get("metadata", {})
        namespace = metadata.get("namespace")
        if namespace is None:
            return
        with self._lock:
            self._texts[namespace].append(line)
            if seen["kind"] == "Job":
                self._jobs[metadata.get("labels", {}).get(OWNER_LABEL, "")].add(metadata["uid"])
        if seen["kind"] == "Pod" and seen["status"].get("phase") in ("Running", "Succeeded", "Failed"):
            self._follow(namespace, metadata["name"], metadata["uid"])

    def _follow(self, namespace: str, pod: str, uid: str) -> None:
        with self._lock:
            if uid in self._followed:
                return
            self._followed.add(uid)
        self._start(self._read_log, namespace, pod)

    def _read_log(self, namespace: str, pod: str) -> None:
        command = [str(tool("kubectl")), "logs", "--follow", "-n", namespace, pod]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with self._lock:
            self._texts[namespace].append(done.stdout)

    def _start(self, target: Any, *arguments: str) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()
