"""A long run on the real cluster, in which parts die or hang at random: `make soak`.

Pods write to several volumes all the time. At random, the volumes are backed up (full and incremental) and restored (to
new volumes and in place), and their backups are deleted. Further volumes are backed up by schedules every minute, whose
retention removes all but two backups. At random, these schedules are paused, asked for runs, deleted and made again,
and backups are held while they are restored. The operator, movers, the S3 server, the API server and the kubelet are
killed and paused, and the servers are disconnected, at random. Every second pair of volumes has snapshots that do not
freeze, and one of each such pair is written like a database: its log is durable at once, its pages later. In the end,
every backup must restore to the expected content, every operation must have succeeded, no last backup of a volume may
have been removed, and nothing may be left.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from tests.cluster.storage import UNFROZEN
from tests.soak import schedule_workload, volume_workload
from tests.soak.fault_injection import FaultInjector
from tests.soak.schedule_workload import ScheduledVolume
from tests.soak.volume_workload import KINDS, Volume
from tests.support.cluster import leak_check
from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster, KubeClusterError, alone, install, uninstall
from tests.support.cluster.leak_check import DeletedNamespaces
from tests.support.cluster.namespaces import HOME, Account, Tenant
from tests.support.cluster.recorder import Recorder
from tests.support.cluster.workloads import TOOLS

LEDGER = Path(__file__).with_name("ledger.py")
WALK = 2 << 20
"""Bytes a second, up and down: movers live for some seconds, long enough to be killed."""
ENOUGH_MINUTES = 15.0
"""A run of this length must have met everything: all kinds of fault come once in some seven minutes."""
BEGAN = time.monotonic()


def main() -> int:
    """Run the soak, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for how long faults are injected (30)")
    parser.add_argument("--volumes", type=int, default=4, help="of four kinds, one after the other (4)")
    parser.add_argument("--scheduled", type=int, default=2, help="further volumes, with schedules (2)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all chances; another one in each run")
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}")
    kube = KubeCluster.from_environment()
    if not kube.is_own:
        print("error: the soak kills parts of a cluster: it runs on our own one only", file=sys.stderr)
        return 1
    with alone():
        install(kube, [HOME])
        with Recorder(kube) as recorder:
            wrong = soak(kube, recorder, arguments)
        uninstall(kube)
        kube.kubectl("delete", "namespace", HOME, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")
    for text in wrong:
        print(f"WRONG: {text}", file=sys.stderr)
    say("nothing was wrong" if not wrong else f"{len(wrong)} things were wrong")
    return 1 if wrong else 0


def soak(kube: KubeCluster, recorder: Recorder, arguments: argparse.Namespace) -> list[str]:
    """Run everything from the first volume to the last check. Return what is wrong."""
    tenant, chance = Tenant.make(kube, recorder, Account.of(kube), "soak"), random.Random(arguments.seed)
    _add_tool(tenant)
    limits = {"uploadBytesPerSecond": WALK, "downloadBytesPerSecond": WALK}
    # With the default window of an hour, no file of a shorter run would be taken over from a parent.
    window = {"storageClasses": {UNFROZEN: "2m"}}
    kube.apply(tenant.store("default", is_default=True, limits=limits, dirtyWindow=window))
    volumes: list[Volume] = [
        Volume(tenant, f"volume-{number}", KINDS[number % len(KINDS)], random.Random(chance.random()), say)
        for number in range(arguments.volumes)
    ]
    volumes += [
        ScheduledVolume(
            tenant, f"scheduled-{number}", KINDS[2 * number % len(KINDS)], random.Random(chance.random()), say
        )
        for number in range(arguments.scheduled)
    ]
    injector = FaultInjector(arguments.seed, say)
    with ThreadPoolExecutor() as pool:
        enough = threading.Event()
        going_on = [pool.submit(injector.kill, enough), *(pool.submit(volume.live, enough) for volume in volumes)]
        wait(going_on, arguments.minutes * 60, FIRST_EXCEPTION)
        say("enough")
        enough.set()
        wrong = _errors(going_on)
        wrong += _errors([pool.submit(volume.check_every_backup) for volume in volumes])
    done = sum((volume.done for volume in volumes), Counter[str]())
    _report(done, injector.done)
    if arguments.minutes >= ENOUGH_MINUTES:
        expected = (*volume_workload.ACTIONS, *(schedule_workload.ACTIONS if arguments.scheduled else ()))
        wrong += [f"never done: {what}" for what in expected if not done[what]]
        wrong += [f"never met: {what}" for what in sorted(injector.kinds - injector.done.keys())]
    return [*wrong, *_left(kube, tenant, injector)]


def _errors(futures: list[Future[None]]) -> list[str]:
    """Return the errors of threads, after all have ended."""
    errors = [future.exception() for future in futures]
    return [f"{type(error).__name__}: {str(error)[:6000]}" for error in errors if error]


def _add_tool(tenant: Tenant) -> None:
    """Add the ledger's program to the programs in pods."""
    added = json.dumps({"data": {LEDGER.name: LEDGER.read_text()}})
    tenant.kubectl("patch", "configmap", TOOLS, "--type=merge", "-p", added)


def _left(kube: KubeCluster, tenant: Tenant, injector: FaultInjector) -> list[str]:
    """Return what is left over after everything has been deleted."""
    deleted_namespaces = DeletedNamespaces(kube, is_excused=injector.was_forgotten)
    try:
        leak_check.check(tenant)
        deleted_namespaces.delete(tenant)
        deleted_namespaces.check()
    except (AssertionError, KubeClusterError) as error:
        return [f"left over: {error}"]
    for volume in filter(injector.was_forgotten, kube.items("persistentvolumes")):
        say(f"a kubelet that was killed has forgotten to unstage {volume['metadata']['name']}")
    return []


def _report(done: Counter[str], faults: Counter[str]) -> None:
    for title, counted in (("done", done), ("faults", faults)):
        say(f"{title}: " + ", ".join(f"{count} x {what}" for what, count in sorted(counted.items())))


def say(text: str) -> None:
    """Print with the time since the start."""
    print(f"{time.monotonic() - BEGAN:7.0f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
