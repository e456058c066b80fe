"""An API server with the chart's rights of the operator, and with its policies about what the operator writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cinderblock.kube import kinds
from cinderblock.kube.client import connect
from tests.support.cluster.admission import enforce, lift, wait_until_refused
from tests.support.cluster.chart import render
from tests.support.cluster.rights import connect_as, grant


@dataclass(frozen=True, slots=True)
class PolicyScene:
    """The API server with the chart's rights and policies.

    Attributes:
        kubeconfig: of an administrator.
        directory: for the operator's credentials.
    """

    kubeconfig: Path
    directory: Path


@contextmanager
def operator_policies(
    made: PolicyScene, release: str, *values: str, namespaces: Sequence[str] = ()
) -> Iterator[PolicyScene]:
    """Install the rights and policies of a release during the block.

    Args:
        made: where to install them.
        release: name of the release and of its namespace, which is created.
        values: further values of the chart, as for ``helm --set``.
        namespaces: further namespaces to create.
    """
    chart = render(f"fullnameOverride={release}", *values, namespace=release)
    policies = [item for item in chart if "-operator-" in item["metadata"]["name"]]

    async def begin() -> None:
        async with aclosing(await connect(kubeconfig=str(made.kubeconfig))) as client:
            for namespace in (release, *namespaces):
                await client.create(kinds.NAMESPACE, {"metadata": {"name": namespace}})
            await grant(client, [item for item in chart if release in item["metadata"]["name"]])
            await enforce(client, policies)
        async with aclosing(await connect_as(made.kubeconfig, release, release, made.directory)) as operator:
            body = {"metadata": {"name": "probe", "namespace": release}, "spec": {"backupId": "x"}}
            await wait_until_refused(lambda: operator.create(kinds.VOLUME_RESTORE, body), "The operator must")

    async def end() -> None:
        async with aclosing(await connect(kubeconfig=str(made.kubeconfig))) as client:
            await lift(client, policies)

    asyncio.run(begin())
    try:
        yield made
    finally:
        asyncio.run(end())
