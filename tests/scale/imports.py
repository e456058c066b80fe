"""Measure how long an empty cluster takes to adopt a store with very many backups: `make scale-imports`.

python -m tests.scale.imports [BACKUPS]

A real API server, a real S3 server with sealed manifests, and the operator as a process. The controllers of
tests.support.simulation play the rest of the cluster. The program ends with 1 if an aim is missed.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, aclosing, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.api.mover import StoreLocation
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.apiserver import ApiServer
from tests.cluster.s3 import S3Server
from tests.scale.__main__ import cpu_seconds, memory_mib
from tests.scale.manifests import BACKUPS, BUCKET, PREFIX, fill
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import faulty_api
from tests.support.cluster.operators import OperatorProcess, operator, wait_for
from tests.support.mover.backups import KEYS
from tests.support.simulation.controllers import CLASS, controllers, furnish, furnish_namespace

NAMESPACE, KEY_ID = "shop", "2024"
LISTED_SECONDS: Final = 60.0
ADOPTED_SECONDS: Final = 300.0
POLL_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 3600.0


@dataclass
class Adoption:
    """The moments of an adoption, in seconds since the BackupStore exists.

    Attributes:
        client: the administrator's client.
        began: when the BackupStore was created.
        moments: what happened when.
    """

    client: KubeClient
    began: float
    moments: dict[str, float] = field(default_factory=dict)

    def note(self, what: str) -> None:
        """Take note of a moment, the first time."""
        if what not in self.moments:
            self.moments[what] = time.monotonic() - self.began
            print(f"  {self.moments[what]:6.1f} s  {what}", flush=True)

    async def follow(self) -> None:
        """Poll until all backups are adopted and the first restore is complete."""
        restore = asyncio.create_task(self._restore_first())
        while "all VolumeBackups created" not in self.moments:
            await self._look_at_store()
            await asyncio.sleep(POLL_SECONDS)
        await self._until("status.phase!=available", is_found=False)
        self.note("all VolumeBackups available")
        await restore

    async def _look_at_store(self) -> None:
        store = await self.client.get(kinds.BACKUP_STORE, "default", NAMESPACE)
        shown = {c["type"]: c for c in (store or {}).get("status", {}).get("conditions", ())}.get("Imported", {})
        message = shown.get("message", "")
        if message:
            self.note("store listed")
        if message.startswith("VolumeBackups are being created") or shown.get("status") == "True":
            self.note("all manifests read")
        if shown.get("status") == "True":
            self.note("all VolumeBackups created")
        elif shown and shown["reason"] != "Importing":
            raise SystemExit(f"the import fails: {message}")

    async def _restore_first(self) -> None:
        """Restore the first backup that is available."""
        found = await self._until("status.phase=available", is_found=True)
        self.note("first VolumeBackup available")
        spec = {"backupId": found[0]["metadata"]["name"], "name": "first", "storageClassName": CLASS}
        metadata = {"name": "first", "namespace": NAMESPACE}
        await self.client.create(kinds.VOLUME_RESTORE, {"metadata": metadata, "spec": spec})
        while True:
            body = await self.client.get(kinds.VOLUME_RESTORE, "first", NAMESPACE) or {}
            phase = body.get("status", {}).get("phase")
            if phase == "available":
                break
            if phase == "error_restoring":
                raise SystemExit(f"the restore failed: {body['status'].get('failReason')}")
            await asyncio.sleep(0.5)
        self.note("first restore complete")

    async def _until(self, fields: str, *, is_found: bool) -> list[dict[str, Any]]:
        """Poll until some VolumeBackup, or none any more, has these fields. Return the first one."""
        while True:
            found, _ = await self.client.list_first(kinds.VOLUME_BACKUP, NAMESPACE, 1, fields=fields)
            if bool(found) is is_found:
                return found
            await asyncio.sleep(POLL_SECONDS)


async def prepare(client: KubeClient, store: S3Server) -> dict[str, Any]:
    """Install the kinds, and make a namespace with the Secrets. Return its BackupStore, which is not created yet."""
    for resource in RESOURCES:
        await install(client, resource)
    await furnish(client)
    await furnish_namespace(client, NAMESPACE, store, BUCKET)
    made = await client.get(kinds.BACKUP_STORE, "default", NAMESPACE)
    assert made is not None
    await client.delete(kinds.BACKUP_STORE, "default", NAMESPACE)
    content = base64.b64encode(KEYS[KEY_ID]).decode()
    metadata = {"name": "keys", "namespace": NAMESPACE}
    await client.create(kinds.SECRET, {"metadata": metadata, "stringData": {KEY_ID: content}})
    metadata = {name: made["metadata"][name] for name in ("name", "namespace", "annotations")}
    spec = {
        "prefix": PREFIX,
        "access": "ReadOnly",
        "import": {"mode": "Once", "namespaces": ["*"]},
        "encryptionSecretRef": {"name": "keys"},
    }
    return {"metadata": metadata, "spec": made["spec"] | spec}


def as_admin(server: ApiServer, work: Callable[[KubeClient], Awaitable[Any]]) -> Any:
    """Do something with the administrator's client."""

    async def connected() -> Any:
        async with aclosing(await connect(kubeconfig=str(server.kubeconfig))) as client:
            return await asyncio.wait_for(work(client), PATIENCE_SECONDS)  # type: ignore[arg-type]

    return asyncio.run(connected())


def measure(count: int, stack: ExitStack) -> bool:
    """Adopt the backups. Return whether all aims are reached."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp", prefix="cinderblock-imports-")))
    server = stack.enter_context(apiserver.running(with_snapshots=True))
    store = stack.enter_context(s3.running("--keep-alive"))
    location = StoreLocation(endpoint_url=store.url, container=BUCKET, prefix=PREFIX, create_container=True)
    with closing(open_store(location, S3Credentials(store.access_key, store.secret_key))) as opened:
        opened.check()
        size = fill(opened, count)
    print(f"{count} manifests of {size // count} bytes on average", flush=True)
    wanted = as_admin(server, lambda client: prepare(client, store))
    stack.enter_context(controllers(server, store))
    line = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
    kubeconfig = kubeconfigs.write(directory / "kubeconfig", server.url, server.authority, server.token)
    environment = {"CINDERBLOCK_LEASE_NAMESPACE": "default"}
    process = stack.enter_context(operator(line, directory, "operator", kubeconfig, **environment))
    wait_for("readiness", process.is_ready, 120)

    async def adopt(client: KubeClient) -> dict[str, float]:
        adoption = Adoption(client, time.monotonic())
        await client.create(kinds.BACKUP_STORE, wanted)
        await adoption.follow()
        return adoption.moments

    load, used = os.getloadavg()[0], cpu_seconds(process)
    moments = as_admin(server, adopt)
    _print_costs(process, cpu_seconds(process) - used, load)
    is_first_early = moments["first restore complete"] <= moments["all VolumeBackups available"]
    within = moments["all manifests read"] <= LISTED_SECONDS, moments["all VolumeBackups available"] <= ADOPTED_SECONDS
    return is_first_early and all(within)


def _print_costs(process: OperatorProcess, used: float, load: float) -> None:
    loads = f"{load:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"  operator: {used:.0f} s of a processor, {memory_mib(process, 'VmHWM'):.0f} MiB at most; load {loads}")


def main(arguments: list[str]) -> int:
    """Run the program and return its exit code."""
    count = int(arguments[0]) if arguments else BACKUPS
    with ExitStack() as stack:
        return 0 if measure(count, stack) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
