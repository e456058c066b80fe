"""Measure one schedule with very many volumes: `make scale-schedules`.

A real API server, a real S3 server, and the operator as the image runs it, which is killed several times. This program
takes the place of movers: it makes each VolumeBackup available as soon as it exists, so that only the schedule counts.
It ends with 1 if a volume has not exactly one backup of the run. docs/measurements/scale.md has a result.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import signal
import ssl
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cinderblock.api import labels
from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.errors import CinderblockError
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.lifecycle.schedule.names import of_time, of_token
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.apiserver import ApiServer
from tests.scale.__main__ import cpu_seconds, ended_status, many, memory_mib, namespace
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import faulty_api
from tests.support.cluster.operators import OperatorProcess, operator, wait_for
from tests.support.simulation.controllers import a_claim, furnish, furnish_namespace

SCHEDULE = "everything"
TOKEN = "measured"
NAMESPACES = 50
PAUSE_SECONDS = 2.0
"""Between two looks of this program at the cluster."""

Object = dict[str, Any]


@dataclass
class Volumes:
    """The volumes, and the backups that they have before the run.

    Attributes:
        count: number of volumes.
        earlier: number of earlier backups of each.
    """

    count: int
    earlier: int

    def places(self) -> list[tuple[str, str]]:
        """Return namespace and name of each claim."""
        return [(namespace(number % NAMESPACES), f"data-{number:05}") for number in range(self.count)]

    async def create(self, client: KubeClient, server: s3.S3Server) -> None:
        """Create namespaces with stores, claims that are bound, and the earlier backups."""
        for resource in RESOURCES:
            await install(client, resource)
        await furnish(client)
        await many(furnish_namespace(client, namespace(number), server, "scale") for number in range(NAMESPACES))
        uids = await many(_bound_claim(client, *place) for place in self.places())
        await many(
            _earlier_backup(client, place, uid, day)
            for place, uid in zip(self.places(), uids, strict=True)
            for day in range(1, self.earlier + 1)
        )


async def _bound_claim(client: KubeClient, where: str, name: str) -> str:
    body = a_claim(where, name)
    body["spec"]["volumeName"] = f"pv-{name}"
    made = await client.create(kinds.PVC, body)
    await client.merge_patch(kinds.PVC, name, where, {"status": {"phase": "Bound"}}, subresource="status")
    return str(made["metadata"]["uid"])


async def _earlier_backup(client: KubeClient, place: tuple[str, str], claim: str, day: int) -> None:
    """Create a backup that the schedule made some days ago."""
    then = datetime.now(UTC).replace(microsecond=0) - timedelta(days=day)
    metadata = {
        "name": f"{SCHEDULE}-{place[1]}-{of_time(then)}-{day:08x}",
        "namespace": place[0],
        "labels": {labels.SCHEDULE_LABEL: SCHEDULE},
        "annotations": {
            labels.SCHEDULE_ANNOTATION: f"ClusterBackupSchedule/{SCHEDULE}",
            labels.SCHEDULED_FOR_ANNOTATION: then.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "finalizers": [labels.BACKUP_FINALIZER],
    }
    made = await client.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": claim, "force": True}})
    await _end(client, made, is_incremental=day % 30 != 0)


async def _end(client: KubeClient, backup: Object, *, is_incremental: bool) -> None:
    """Make a backup available, with a status as large as a real one."""
    metadata, volume = backup["metadata"], backup["spec"]["volumeId"]
    status = ended_status(metadata, volume, metadata["namespace"]) | {"isIncremental": is_incremental}
    with suppress(CinderblockError):
        patch = {"status": status}
        await client.merge_patch(
            kinds.VOLUME_BACKUP, metadata["name"], metadata["namespace"], patch, subresource="status"
        )


class Finisher(threading.Thread):
    """Takes the place of movers, in a thread of its own.

    Attributes:
        unfinished: the most unfinished backups that it has seen at a time.
    """

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(name="finisher", daemon=True)
        self.unfinished = 0
        self._kubeconfig = kubeconfig
        self._stopping = threading.Event()

    def run(self) -> None:
        """Make backups available until `stop`."""
        asyncio.run(self._run())

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join()

    async def _run(self) -> None:
        async with aclosing(await connect(kubeconfig=str(self._kubeconfig))) as client:
            while not self._stopping.is_set():
                with suppress(CinderblockError):
                    found = await client.list(kinds.VOLUME_BACKUP, fields="status.phase!=available")
                    self.unfinished = max(self.unfinished, len(found))
                    await many(_end(client, backup, is_incremental=True) for backup in found)
                await asyncio.sleep(PAUSE_SECONDS)


@dataclass
class Killed:
    """The operator, which is killed and started again.

    Attributes:
        kills: how often.
        cpu: processor seconds of the processes that were killed.
        memory: greatest memory of any of them, in MiB.
    """

    start: Any
    kills: int = 0
    cpu: float = 0.0
    memory: float = 0.0
    process: OperatorProcess | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    def begin(self) -> None:
        """Start a process."""
        self.process = self.stack.enter_context(self.start(f"operator-{self.kills}"))

    def kill(self) -> None:
        """Kill the process and start another one. The Lease of the first keeps the second waiting."""
        self.end()
        self.kills += 1
        self.begin()

    def end(self) -> None:
        """Kill the process."""
        assert self.process is not None
        self.cpu += cpu_seconds(self.process)
        self.memory = max(self.memory, memory_mib(self.process, "VmHWM"))
        self.process.send(signal.SIGKILL)
        self.stack.close()


def bytes_in_etcd(url: str, prefix: str) -> tuple[int, int]:
    """Return number and bytes of the objects below a prefix in etcd."""
    begin, end, number, total = prefix.encode(), prefix[:-1].encode() + bytes([ord(prefix[-1]) + 1]), 0, 0
    while True:
        asked = {"key": base64.b64encode(begin).decode(), "range_end": base64.b64encode(end).decode(), "limit": 500}
        request = urllib.request.Request(f"{url}/v3/kv/range", json.dumps(asked).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.loads(answer.read())
        pairs = found.get("kvs", [])
        number += len(pairs)
        total += sum(len(base64.b64decode(pair["value"])) for pair in pairs)
        if not found.get("more"):
            return number, total
        begin = base64.b64decode(pairs[-1]["key"]) + b"\0"


def measure(server: ApiServer, volumes: Volumes, killed: Killed, kills: int, minutes: float) -> tuple[float, Object]:
    """Run the schedule once. Return the seconds, and the last status of the run."""
    spec = {"schedule": "0 0 29 2 *", "namespaceSelector": {}, "runNow": TOKEN}
    body = {"metadata": {"name": SCHEDULE}, "spec": spec}
    _do(server, lambda client: client.create(kinds.CLUSTER_BACKUP_SCHEDULE, body))
    began, shown = time.monotonic(), 0
    while True:
        found = _do(server, lambda client: client.get(kinds.CLUSTER_BACKUP_SCHEDULE, SCHEDULE)) or {}
        run = (found.get("status") or {}).get("lastRun") or {}
        created, took = run.get("created", 0), time.monotonic() - began
        if created - shown >= volumes.count // 10:
            shown = created
            print(f"  {created} created, {run.get('succeeded', 0)} available after {took:.0f} s", flush=True)
        if run.get("succeeded") == volumes.count or took > 60 * minutes:
            return took, run
        if killed.kills < kills and created >= (killed.kills + 1) * volumes.count // (kills + 1):
            killed.kill()
        time.sleep(PAUSE_SECONDS)


def backups_of_run(server: ApiServer) -> Counter[str]:
    """Return how many backups of the run each claim has, by the UID of the claim."""
    listed = _do(server, lambda client: client.list(kinds.VOLUME_BACKUP, labels=f"{labels.SCHEDULE_LABEL}={SCHEDULE}"))
    return Counter(item["spec"]["volumeId"] for item in listed if of_token(TOKEN) in item["metadata"]["name"])


def _do(server: ApiServer, work: Any) -> Any:
    async def connected() -> Any:
        async with aclosing(await connect(kubeconfig=str(server.kubeconfig))) as client:
            return await work(client)

    return asyncio.run(connected())


@contextmanager
def finishing(kubeconfig: Path) -> Iterator[Finisher]:
    """Run a Finisher during the block."""
    finisher = Finisher(kubeconfig)
    finisher.start()
    try:
        yield finisher
    finally:
        finisher.stop()


def main() -> int:
    """Run it, and print the table. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.schedules", description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", type=int, default=10_000)
    parser.add_argument("--earlier", type=int, default=0, help="backups that each volume has before the run")
    parser.add_argument("--kills", type=int, default=10, help="how often the operator is killed")
    parser.add_argument("--minutes", type=float, default=180, help="after which the run is given up")
    options = parser.parse_args()
    volumes = Volumes(options.volumes, options.earlier)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-")))
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))
        began = time.monotonic()
        _do(server, lambda client: volumes.create(client, store))
        print(f"{volumes.count} volumes with {volumes.earlier} backups made in {time.monotonic() - began:.0f} s")
        line = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        kubeconfig = kubeconfigs.write(directory / "kubeconfig", server.url, server.authority, server.token)
        start = partial(operator, line, directory, kubeconfig=kubeconfig, CINDERBLOCK_LEASE_NAMESPACE="default")
        killed = Killed(start)
        killed.begin()
        assert killed.process is not None
        wait_for("readiness", killed.process.is_ready, 600)
        with finishing(server.kubeconfig) as finisher:
            took, run = measure(server, volumes, killed, options.kills, options.minutes)
        killed.end()
        found = backups_of_run(server)
        number, size = bytes_in_etcd(server.etcd, "/registry/cinderblock.io/volumebackups/")
    rows = (
        ("volumes, earlier backups of each, kills", f"{volumes.count}, {volumes.earlier}, {killed.kills}"),
        ("created, available", f"{run.get('created', 0)}, {run.get('succeeded', 0)} after {took:.0f} s"),
        ("volumes with two backups", f"{sum(count > 1 for count in found.values())}"),
        ("most unfinished backups", f"{finisher.unfinished}"),
        ("processor of the operator", f"{killed.cpu:.0f} s, {100 * killed.cpu / took:.0f} % of a core"),
        ("most memory of the operator", f"{killed.memory:.0f} MiB"),
        ("a backup in etcd", f"{size / max(1, number):.0f} bytes on average of {number}"),
    )
    print("\n| What | Measured |\n|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    is_right = len(found) == volumes.count and set(found.values()) == {1}
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
