"""Measure the operator with very many objects: `make scale`.

docs/measurements/scale.md has one that was measured.

A real API server and a real S3 server; tests.support.simulation.controllers plays the cluster in
this process, the operator is the process that the image runs. Decides nothing: what is too slow is for the reader.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import ssl
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.api.labels import BACKUP_FINALIZER
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.resync import list_pending
from cinderblock.controller.settings import OperatorSettings
from cinderblock.controller.stores.pool import StorePool
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy
from cinderblock.store.factory import ignores_unsigned_headers
from tests.cluster import apiserver, kubeconfigs, s3
from tests.cluster.apiserver import ApiServer
from tests.cluster.s3 import S3Server
from tests.scale.hostile import Hostile
from tests.support.cluster.custom_resources import install
from tests.support.cluster.faulty_api import faulty_api
from tests.support.cluster.operators import OperatorProcess, operator, wait_for
from tests.support.simulation.controllers import Cluster, a_claim, controllers, furnish, furnish_namespace

AT_ONCE = 48
"""Concurrent requests of this program."""
POISONOUS = 20
"""Backups whose store accepts connections and never answers."""
QUIET_BACKUPS = 20
"""Backups that are made one after the other, in peace and during an attack."""
STEADY_SECONDS = 125
"""Longer than metrics of very many objects are cached. The resync is measured separately."""
SCRAPE_SECONDS = 30
"""Between two readings of the metrics, as Prometheus does."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """One run: the number of objects, and the measurements.

    Attributes:
        results: lines of the table: what, measured, aim.
    """

    backups: int
    namespaces: int
    burst: int
    server: ApiServer
    store: S3Server
    cluster: Cluster
    results: list[tuple[str, str, str]] = field(default_factory=list)

    def report(self, what: str, measured: str, aim: str) -> None:
        """Add a line to the table, and show it at once."""
        self.results.append((what, measured, aim))
        print(f"  {what}: {measured} (aim {aim})", flush=True)

    def do(self, work: Callable[[KubeClient], Awaitable[Any]]) -> Any:
        """Do something as the administrator."""

        async def connected() -> Any:
            async with aclosing(await connect(kubeconfig=str(self.server.kubeconfig))) as client:
                return await work(client)

        return asyncio.run(connected())


async def many(works: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all of them, a limited number at a time."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[Any]) -> Any:
        async with slots:
            return await work

    return await asyncio.gather(*(one(work) for work in works))


def namespace(number: int) -> str:
    """Name of a namespace."""
    return f"tenant-{number:05}"


async def prepare(run: Run, client: KubeClient) -> None:
    """Create namespaces with stores, and backups that were completed long ago."""
    for resource in RESOURCES:
        await install(client, resource)
    await furnish(client)
    await many(furnish_namespace(client, namespace(number), run.store, "scale") for number in range(run.namespaces))
    await many(_ended_backup(client, number, namespace(number % run.namespaces)) for number in range(run.backups))


async def _ended_backup(client: KubeClient, number: int, where: str) -> None:
    name = f"old-{number:05}"
    metadata = {"name": name, "namespace": where, "finalizers": [BACKUP_FINALIZER]}
    made = await client.create(kinds.VOLUME_BACKUP, {"metadata": metadata, "spec": {"volumeId": "old"}})
    status = ended_status(made["metadata"], f"volume-{number}", where)
    await client.merge_patch(kinds.VOLUME_BACKUP, name, where, {"status": status}, subresource="status")


def ended_status(metadata: dict[str, Any], volume: str, where: str) -> dict[str, Any]:
    """Return the status of an available backup."""
    uid, created = metadata["uid"], metadata["creationTimestamp"]
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Available",
        "message": "The backup is whole in the store",
        "lastTransitionTime": created,
        "observedGeneration": 1,
    }
    return {
        "phase": "available",
        "id": uid,
        "volumeId": volume,
        "volumeName": "old",
        "storeName": "default",
        "container": "scale",
        "size": 1,
        "objectCount": 1,
        "isIncremental": False,
        "hasDependentBackups": False,
        "createdAt": created,
        "dataTimestamp": created,
        "manifestKey": f"{where}/backups/{volume}/{uid}.manifest",
        "logicalBytes": 1,
        "transferredBytes": 1,
        "storedBytes": 1,
        "sealed": False,
        "pins": {"contentDigest": "0" * 64, "salt": "0" * 32, "suite": 0},
        "observedGeneration": 1,
        "conditions": [condition],
    }


async def _backup(run: Run, client: KubeClient, where: str, name: str, **spec: Any) -> str:
    began = time.monotonic()
    body = {"metadata": {"name": name, "namespace": where}, "spec": {"volumeId": name} | spec}
    made = await client.create(kinds.VOLUME_BACKUP, body)
    uid = str(made["metadata"]["uid"])
    run.cluster.done["created", uid] = began
    return uid


def measure_start(run: Run, process: OperatorProcess, began: float) -> None:
    """Measure the time from the start of the process until it has reconciled a new object."""
    uid = run.do(lambda client: _backup(run, client, namespace(0), "first"))
    wait_for("first reconcile", lambda: ("accepted", uid) in run.cluster.done, 600)
    run.report("start to first reconcile of a new object", f"{run.cluster.done['accepted', uid] - began:.1f} s", "15 s")
    wait_for("readiness", process.is_ready, 600)
    run.report("start to ready", f"{time.monotonic() - began:.1f} s", "-")
    wait_for("end of the first backup", lambda: ("available", uid) in run.cluster.done, 600)


def measure_rest(run: Run, process: OperatorProcess) -> None:
    """Measure the cost of idling while Prometheus collects metrics."""
    before, now = -1.0, cpu_seconds(process)
    while now - before > 0.5 * 10:
        time.sleep(10)
        before, now = now, cpu_seconds(process)
    began, used = time.monotonic(), cpu_seconds(process)
    while time.monotonic() - began < STEADY_SECONDS:
        with urllib.request.urlopen(f"http://127.0.0.1:{process.metrics_port}/metrics", timeout=60) as page:
            page.read()
        time.sleep(SCRAPE_SECONDS)
    share = (cpu_seconds(process) - used) / (time.monotonic() - began)
    run.report("processor at rest", f"{100 * share:.1f} % of a core", "5 %")
    run.report("memory at rest", f"{memory_mib(process, 'VmRSS'):.0f} MiB", "300 MiB")


def measure_resync(run: Run) -> None:
    """Measure the cost of finding the objects that need a reconcile."""

    async def judge(client: KubeClient) -> tuple[int, float]:
        used = time.process_time()
        policy = OperatorPolicy(MoverSettings("example/cinderblock:1"))
        stores = StorePool(client, ignores_unsigned_headers=ignores_unsigned_headers)
        found = await list_pending(Context(client, stores, policy))
        return len(found), time.process_time() - used

    looked_at, used = run.do(judge)
    share = 100 * used / OperatorSettings("example/cinderblock:1").resync_seconds
    run.report("a resync", f"{used:.1f} s of processor ({share:.1f} % of a core), {looked_at} objects to look at", "-")


def measure_burst(run: Run, process: OperatorProcess) -> None:
    """Measure very many concurrent backups, some of which never get an answer from their store."""
    places = [(namespace(number % run.namespaces), f"burst-{number:05}") for number in range(run.burst)]
    run.do(lambda client: many(client.create(kinds.PVC, a_claim(*place)) for place in places))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    with listener:
        run.do(lambda client: _poison(run, client, listener.getsockname()[1]))
        began, used = time.monotonic(), cpu_seconds(process)
        uids = run.do(lambda client: many(_backup(run, client, *place) for place in places))
        wait_for("end of all backups", lambda: all(("available", uid) in run.cluster.done for uid in uids), 1800)
        took, used = time.monotonic() - began, cpu_seconds(process) - used
    run.report(f"{run.burst} backups at once", f"all available after {took:.0f} s", "-")
    run.report("processor for each", f"{1000 * used / run.burst:.0f} ms", "-")
    for what, since, until, aim in (
        ("a new backup is acknowledged as creating", "created", "creating", "p99 5 s"),
        ("a new backup has its turn", "created", "accepted", "-"),
        ("a ready snapshot gets its mover", "ready", "started", "p99 5 s"),
        ("an ended mover makes it available", "ended", "available", "p99 5 s"),
    ):
        done = run.cluster.done
        steps = [done[until, uid] - done[since, uid] for uid in uids if (since, uid) in done and (until, uid) in done]
        cuts = statistics.quantiles(steps, n=100)
        run.report(f"{what}: median, p99", f"{statistics.median(steps):.2f} s, {cuts[98]:.2f} s", aim)
    run.report("most memory", f"{memory_mib(process, 'VmHWM'):.0f} MiB", "300 MiB")


def measure_hostile(run: Run, process: OperatorProcess, objects: int, rate: float) -> None:
    """Backups one after the other in all namespaces, first in peace, then while one namespace changes its objects."""
    calm, calm_answer = _queue_seconds(run, "calm")
    hostile = Hostile(run.server.kubeconfig, objects, rate)
    hostile.prepare()
    with hostile.at_work():
        began, used = time.monotonic(), cpu_seconds(process)
        disturbed, answer = _queue_seconds(run, "disturbed")
        took = time.monotonic() - began
        done, share = hostile.changes / took, (cpu_seconds(process) - used) / took
    what = f"{objects} hostile backups and Jobs of 240 KB, {done:.0f} changes a second"
    run.report(f"operator's share of a backup: calm; with {what}", f"{calm:.2f} s; {disturbed:.2f} s", "twice as much")
    run.report("a read of the API server meanwhile: calm; with them", f"{calm_answer:.2f} s; {answer:.2f} s", "-")
    run.report("processor of the operator with them", f"{100 * share:.0f} % of a core", "-")
    run.report("most memory with them", f"{memory_mib(process, 'VmHWM'):.0f} MiB", "300 MiB")


def _queue_seconds(run: Run, prefix: str) -> tuple[float, float]:
    """Return the median of the seconds that backups wait for the operator, and of those that the API server takes.

    A backup waits until it is accepted, and after its mover. About ten requests of the operator are in that time.
    """
    waited: list[float] = []
    answers: list[float] = []
    for number in range(QUIET_BACKUPS):
        where, name = namespace(number % run.namespaces), f"{prefix}-{number:02}"
        uid = run.do(partial(_claim_and_back_up, run, where, name))
        wait_for("end of a backup", lambda uid=uid: ("available", uid) in run.cluster.done, 300)
        done = run.cluster.done
        waited.append(done["accepted", uid] - done["created", uid] + done["available", uid] - done["ended", uid])
        began = time.monotonic()
        run.do(lambda client: client.get(kinds.PVC, name, where))  # noqa: B023 - it is called at once
        answers.append(time.monotonic() - began)
    return statistics.median(waited), statistics.median(answers)


async def _claim_and_back_up(run: Run, where: str, name: str, client: KubeClient) -> str:
    await client.create(kinds.PVC, a_claim(where, name))
    return await _backup(run, client, where, name)


async def _poison(run: Run, client: KubeClient, port: int) -> None:
    spec = {"credentialsSecretRef": {"name": "s3"}, "endpointUrl": f"http://127.0.0.1:{port}", "container": "poison"}
    await client.create(kinds.BACKUP_STORE, {"metadata": {"name": "poison", "namespace": namespace(0)}, "spec": spec})
    for number in range(POISONOUS):
        name = f"poison-{number}"
        await client.create(kinds.PVC, a_claim(namespace(0), name))
        await _backup(run, client, namespace(0), name, storeName="poison")


def cpu_seconds(process: OperatorProcess) -> float:
    """Return the seconds of processor time that the operator has used."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(process: OperatorProcess, which: str) -> float:
    """Return the memory of the operator in MiB, now (VmRSS) or at its peak (VmHWM)."""
    lines = Path(f"/proc/{process.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{which}:"))


def main() -> int:
    """Run it all, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--backups", type=int, default=10_000)
    parser.add_argument("--namespaces", type=int, default=1_000)
    parser.add_argument("--burst", type=int, default=1_000)
    parser.add_argument("--hostile-objects", type=int, default=1_000, help="large backups, and Jobs, of one namespace")
    parser.add_argument("--hostile-rate", type=float, default=50, help="changes that this namespace makes per second")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-")))
        server = stack.enter_context(apiserver.running(with_snapshots=True))
        store = stack.enter_context(s3.running("--keep-alive"))
        cluster = stack.enter_context(controllers(server, store))
        run = Run(options.backups, options.namespaces, options.burst, server, store, cluster)
        began = time.monotonic()
        run.do(lambda client: prepare(run, client))
        run.do(lambda client: client.create(kinds.PVC, a_claim(namespace(0), "first")))
        print(f"{run.backups} backups in {run.namespaces} namespaces made in {time.monotonic() - began:.0f} s")
        line = stack.enter_context(faulty_api(server.url, ssl.create_default_context(cafile=str(server.authority))))
        kubeconfig = kubeconfigs.write(directory / "kubeconfig", server.url, server.authority, server.token)
        environment = {
            "CINDERBLOCK_LEASE_NAMESPACE": "default",
            "CINDERBLOCK_MAX_MOVERS": str(10 * options.burst),
        }
        began = time.monotonic()
        process = stack.enter_context(operator(line, directory, "operator", kubeconfig, **environment))
        measure_start(run, process, began)
        measure_rest(run, process)
        measure_resync(run)
        measure_hostile(run, process, options.hostile_objects, options.hostile_rate)
        measure_burst(run, process)
    print("\n| What | Measured | Aim |\n|---|---|---|")
    for row in run.results:
        print(f"| {' | '.join(row)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
