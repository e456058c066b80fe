"""When things happened to the objects of a namespace, as a watcher sees it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from types import TracebackType
from typing import Any

from tests.cluster.toolchain import tool

PATHS = (
    "/apis/cinderblock.io/v1alpha1/namespaces/{}/volumebackups",
    "/apis/cinderblock.io/v1alpha1/namespaces/{}/volumerestores",
    "/apis/snapshot.storage.k8s.io/v1/namespaces/{}/volumesnapshots",
    "/api/v1/namespaces/{}/persistentvolumeclaims",
    "/apis/batch/v1/namespaces/{}/jobs",
    "/api/v1/namespaces/{}/pods",
)
Object = dict[str, Any]


class Moments:
    """Watches a namespace while inside."""

    def __init__(self, namespace: str) -> None:
        self._seen: list[tuple[float, Object]] = []
        self._lock = threading.Lock()
        self._watches = [
            subprocess.Popen(
                [str(tool("kubectl")), "get", "--raw", f"{path.format(namespace)}?watch=1"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for path in PATHS
        ]
        for watch in self._watches:
            threading.Thread(target=self._read, args=(watch,), daemon=True).start()

    def __enter__(self) -> Moments:
        time.sleep(1)  # until all watches run: they first report existing objects, which are not of this operation
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for watch in self._watches:
            watch.terminate()
            watch.wait()

    def _read(self, watch: subprocess.Popen[str]) -> None:
        for line in watch.stdout or ():
            with contextlib.suppress(json.JSONDecodeError), self._lock:  # the last line may be half
                self._seen.append((time.time(), json.loads(line)["object"]))

    def of(self, kind: str, name: str) -> dict[str, float]:
        """Return the first instant (seconds since 1970) of each event of an operation and its children."""
        with self._lock:
            seen = list(self._seen)
        uid = next(
            item["metadata"]["uid"] for _, item in seen if (item["kind"], item["metadata"]["name"]) == (kind, name)
        )
        found: dict[str, float] = {}
        for at, item in seen:
            metadata = item["metadata"]
            if uid in (metadata["uid"], (metadata.get("labels") or {}).get("cinderblock.io/owner-uid")):
                for moment in _moments(item):
                    found.setdefault(moment, at)
        return found


def _moments(item: Object) -> list[str]:
    """Return the events that the state of an object implies."""
    kind, status = item["kind"], item.get("status") or {}
    happened = []
    if kind in ("VolumeBackup", "VolumeRestore"):
        happened += ["accepted by the operator"] if status.get("phase") else []
        happened += ["available"] if status.get("phase") == "available" else []
    elif kind == "VolumeSnapshot":
        happened += ["snapshot asked for"] + (["snapshot ready"] if status.get("readyToUse") else [])
    elif kind == "PersistentVolumeClaim":
        happened += ["volume asked for"] + (["volume bound"] if status.get("phase") == "Bound" else [])
    elif kind == "Job":
        happened += ["mover's Job made"]
    elif kind == "Pod":
        conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
        containers = [state for c in status.get("containerStatuses", []) for state in c["state"]]
        happened += ["mover's pod made"]
        happened += ["mover's pod scheduled"] if conditions.get("PodScheduled") == "True" else []
        happened += ["mover runs"] if "running" in containers or "terminated" in containers else []
        happened += ["mover has ended"] if "terminated" in containers else []
    return happened
