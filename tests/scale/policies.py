"""Measure what the chart's ValidatingAdmissionPolicies cost a write: `python -m tests.scale.policies --help`.

A real API server judges the writes in one namespace by all policies of the chart, and those in another one by none. The
writes alternate, so that what slows the machine slows both. Ratios are calculated pair by pair.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final

from cinderblock.api import labels
from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import Kind
from tests.cluster import apiserver
from tests.support.cluster.admission import enforce, wait_until_refused
from tests.support.cluster.chart import render
from tests.support.cluster.custom_resources import install
from tests.support.cluster.rights import all_rights, connect_as

JUDGED: Final = "judged"
FREE: Final = "free"
RELEASE: Final = "release"
_ACCOUNT: Final = Kind("", "v1", "serviceaccounts", "ServiceAccount")
_DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
_BINDING: Final = "pods/{}/binding"

Object = dict[str, Any]
Times = dict[str, list[tuple[float, float]]]
"""Seconds with and without the policies, by the name of the write."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale.policies", description=__doc__)
    parser.add_argument("--writes", type=int, default=200, help="of each type, with and without (default: 200)")
    options = parser.parse_args(arguments)
    with apiserver.running(with_snapshots=True) as server, tempfile.TemporaryDirectory() as directory:
        times = asyncio.run(_measure(server.kubeconfig, Path(directory), options.writes))
    print("\n".join(_table(times)))
    return 0


async def _measure(kubeconfig: Path, directory: Path, writes: int) -> Times:
    times = Times()
    async with AsyncExitStack() as stack:
        administrator = await stack.enter_async_context(aclosing(await connect(kubeconfig=str(kubeconfig))))
        await _prepare(administrator)
        tenant = await stack.enter_async_context(aclosing(await connect_as(kubeconfig, RELEASE, "tenant", directory)))
        forged = {"labels": {labels.MANAGED_BY_LABEL: labels.MANAGED_BY}}
        attack = partial(
            tenant.create,
            kinds.JOB,
            _job(JUDGED, "probe") | {"metadata": {"name": "probe", "namespace": JUDGED} | forged},
        )
        await wait_until_refused(attack, "Only Cinderblock may")
        for number in range(writes + 10):
            for name, kind, make in _WRITES:
                seconds = {}
                for namespace in (JUDGED, FREE) if number % 2 else (FREE, JUDGED):
                    target = Kind("", "v1", _BINDING.format(f"w{number}"), "Binding") if kind is None else kind
                    began = time.perf_counter()
                    await tenant.create(target, make(namespace, f"w{number}"))
                    seconds[namespace] = time.perf_counter() - began
                if number >= 10:  # the first ones open connections and compile expressions
                    times.setdefault(name, []).append((seconds[JUDGED], seconds[FREE]))
    return times


async def _prepare(client: KubeClient) -> None:
    for resource in RESOURCES:
        await install(client, resource)
    for namespace in (RELEASE, JUDGED, FREE):
        marks = {namespace: "true"}
        await client.create(kinds.NAMESPACE, {"metadata": {"name": namespace, "labels": marks}})
        await client.create(_ACCOUNT, {"metadata": {"name": "default", "namespace": namespace}})
    await all_rights(client, RELEASE, "tenant")
    objects = render(namespace=RELEASE)
    for item in objects:
        if item["kind"] == "ValidatingAdmissionPolicyBinding":
            item["spec"]["matchResources"] = {"namespaceSelector": {"matchLabels": {JUDGED: "true"}}}
    await enforce(client, objects)


def _template(**spec: Any) -> Object:
    containers = [{"name": "a", "image": "example.org/a"}]
    return {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": containers} | spec}


def _pod(namespace: str, name: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": _template()["spec"]}


def _binding(namespace: str, name: str) -> Object:
    target = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
    return {"metadata": {"name": name, "namespace": namespace}, "target": target}


def _job(namespace: str, name: str) -> Object:
    spec = {"suspend": True, "template": _template(restartPolicy="Never")}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _deployment(namespace: str, name: str) -> Object:
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": _template()}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _backup(namespace: str, name: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"volumeId": "data"}}


_WRITES: Final = (
    ("pod", kinds.POD, _pod),
    ("Binding of a pod", None, _binding),
    ("Job", kinds.JOB, _job),
    ("Deployment", _DEPLOYMENT, _deployment),
    ("VolumeBackup", kinds.VOLUME_BACKUP, _backup),
)


def _table(times: Times) -> Iterator[str]:
    yield "| Creation of | With, ms | Without, ms | Difference, ms |"
    yield "|---|---|---|---|"
    for name, pairs in times.items():
        columns = (
            [judged for judged, _ in pairs],
            [free for _, free in pairs],
            [judged - free for judged, free in pairs],
        )
        yield f"| {name} | {' | '.join(_three([1000 * value for value in column]) for column in columns)} |"


def _three(values: list[float]) -> str:
    """Return the median, and the middle half of the values."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    sys.exit(main())
