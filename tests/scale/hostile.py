"""A namespace whose user changes large objects all the time, while backups of other namespaces continue."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from cinderblock.api import labels
from cinderblock.errors import CinderblockError
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect

NAMESPACE = "hostile"
ANNOTATION = "x" * 240_000
"""Nearly as much as the API server accepts in the annotations of an object (256 KiB)."""
WRITERS = 8
"""Requests at the same time."""


class Hostile:
    """A user with ``edit`` in one namespace.

    Args:
        kubeconfig: of the API server.
        objects: number of VolumeBackups, and of Jobs that look like movers; each has a long annotation.
        rate: changes per second.

    Attributes:
        changes: number of changes so far.
    """

    def __init__(self, kubeconfig: Path, objects: int, rate: float) -> None:
        self.changes = 0
        self._kubeconfig = kubeconfig
        self._objects = objects
        self._rate = rate
        self._stopping = threading.Event()

    def prepare(self) -> None:
        """Create the objects."""
        asyncio.run(self._prepare())

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Change objects during the block."""
        thread = threading.Thread(target=lambda: asyncio.run(self._change()), name="hostile")
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    async def _prepare(self) -> None:
        async with aclosing(await connect(kubeconfig=str(self._kubeconfig))) as client:
            await client.create(kinds.NAMESPACE, {"metadata": {"name": NAMESPACE}})
            for number in range(self._objects):
                made = await client.create(kinds.VOLUME_BACKUP, _backup(number))
                await client.create(kinds.JOB, _job(made))

    async def _change(self) -> None:
        async with aclosing(await connect(kubeconfig=str(self._kubeconfig))) as client, asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(self._write(client, writer))

    async def _write(self, client: KubeClient, number: int) -> None:
        """Change backups and Jobs in turn, each writer every so often."""
        due = time.monotonic()
        while not self._stopping.is_set():
            number += WRITERS
            kind = (kinds.VOLUME_BACKUP, kinds.JOB)[number // WRITERS % 2]
            patch = {"metadata": {"annotations": {"count": str(number)}}}
            with contextlib.suppress(CinderblockError):
                await client.merge_patch(kind, f"hostile-{number % self._objects}", NAMESPACE, patch)
                self.changes += 1
            due += WRITERS / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))


def _backup(number: int) -> dict[str, Any]:
    metadata = {"name": f"hostile-{number}", "namespace": NAMESPACE, "annotations": {"note": ANNOTATION}}
    return {"metadata": metadata, "spec": {"volumeId": "nothing"}}


def _job(owner: dict[str, Any]) -> dict[str, Any]:
    """Return a suspended Job that says that it is the mover of a backup."""
    uid, name = owner["metadata"]["uid"], owner["metadata"]["name"]
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "annotations": {"note": ANNOTATION, labels.OWNER_NAME_ANNOTATION: name},
        "labels": {
            labels.MANAGED_BY_LABEL: labels.MANAGED_BY,
            labels.OWNER_KIND_LABEL: "VolumeBackup",
            labels.OWNER_UID_LABEL: uid,
        },
    }
    volumes = [{"name": "volume", "persistentVolumeClaim": {"claimName": "nothing"}}]
    pod = {"restartPolicy": "Never", "containers": [{"name": "mover", "image": "x"}], "volumes": volumes}
    return {"metadata": metadata, "spec": {"suspend": True, "template": {"spec": pod}}}
