"""The check of a restored volume in a simulated cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cinderblock.api.mover import MOVER_CONTAINER

Object = dict[str, Any]


def is_check(pod: Object) -> bool:
    """Return whether a pod runs a check, and no mover."""
    return all(container["name"] != MOVER_CONTAINER for container in pod["spec"].get("containers", ()))


@dataclass
class Check:
    """How checks behave.

    Attributes:
        program: returns the exit code for the content of the restored volume.
        no_image: whether the image cannot be pulled.
        hangs: whether a check never ends.
        mounts: whether the restored volume was read-only in each pod that ran, in every container.
    """

    program: Callable[[str], int] = lambda _content: 0
    no_image: bool = False
    hangs: bool = False
    mounts: list[bool] = field(default_factory=list)

    def run(self, pod: Object, content: str) -> int:
        """Run the program in a pod."""
        containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
        found = [m for c in containers for m in c.get("volumeMounts", ()) if m["mountPath"] == "/restored"]
        [volume] = [v for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v]
        is_read_only = volume["persistentVolumeClaim"]["readOnly"] and all(mount["readOnly"] for mount in found)
        self.mounts.append(is_read_only and len(found) == len(containers))
        return self.program(content)

    def ended(self, code: int, at: str) -> Object:
        """Return the status of a pod that has ended."""
        state = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": at}
        return {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "check", "state": {"terminated": state}}],
        }

    def no_image_status(self) -> Object:
        """Return the status of a pod whose image does not exist."""
        waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
        return {"phase": "Pending", "containerStatuses": [{"name": "check", "state": {"waiting": waiting}}]}

    def is_late(self, job: Object, now: datetime) -> bool:
        """Return whether a Job has exceeded its activeDeadlineSeconds."""
        seconds = job["spec"].get("activeDeadlineSeconds")
        began = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        return seconds is not None and (now - began).total_seconds() >= seconds
