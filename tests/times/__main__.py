"""Where the time of an operation goes, on the real cluster: `make times`.

Backs up and restores a small volume a few times, watches everything that is made on the way, and prints when each thing
happened, in seconds after `kubectl apply` was called. Decides nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict

from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster, alone, install, uninstall
from tests.support.cluster.namespaces import HOME, Account, Tenant
from tests.support.cluster.recorder import Recorder
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod
from tests.times.moments import Moments

ROUNDS = 5
Results = dict[str, dict[str, list[float]]]


def main() -> int:
    """Measure and print; returns the exit code."""
    kube = KubeCluster.from_environment()
    with alone():
        install(kube, [HOME])
        with Recorder(kube) as recorder:
            tenant = Tenant.make(kube, recorder, Account.of(kube), "times")
            try:
                results = _measure(tenant)
            finally:
                tenant.kubectl("delete", "volumerestores,volumebackups,pvc", "--all", "--timeout=120s")
                kube.kubectl("delete", "namespace", tenant.name, "--timeout=120s")
        uninstall(kube)
        kube.kubectl("delete", "namespace", HOME, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")
    for operation, moments in results.items():
        _print(operation, moments)
    return 0


def _measure(tenant: Tenant) -> Results:
    kube = tenant.kube
    kube.apply(claim(kube, tenant.name, "files"), claim(kube, tenant.name, "target"))
    make = ("python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1", "--files", "200")
    run_pod(kube, tenant.name, OneShotPod("make", make, (Mount("files", "/volume"),)))
    results: Results = defaultdict(lambda: defaultdict(list))
    for number in range(ROUNDS):
        full, child = f"full-{number}", f"child-{number}"
        for title, kind, item in (
            ("backup", "VolumeBackup", tenant.backup(full, "files")),
            ("incremental backup", "VolumeBackup", tenant.backup(child, "files", incremental=True)),
            ("restore to a new volume", "VolumeRestore", tenant.restore(f"new-{number}", full, name=f"new-{number}")),
            ("restore in place", "VolumeRestore", tenant.restore(f"over-{number}", full, volumeId="target")),
        ):
            with Moments(tenant.name) as moments:
                began = time.time()
                kube.apply(item)
                tenant.ends(f"{kind.lower()}/{item['metadata']['name']}")
                for moment, at in moments.of(kind, item["metadata"]["name"]).items():
                    results[title][moment].append(at - began)
    return results


def _print(operation: str, moments: dict[str, list[float]]) -> None:
    print(f"\n{operation} (median of {ROUNDS})")
    before = 0.0
    for moment, seen in sorted(moments.items(), key=lambda item: statistics.median(item[1])):
        at = statistics.median(seen)
        print(f"  {at:6.2f} s  +{at - before:5.2f}  {moment}")
        before = at


if __name__ == "__main__":
    sys.exit(main())
