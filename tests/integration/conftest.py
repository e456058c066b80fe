"""Fixtures for a real API server with our kinds and those of CSI snapshots, but no controllers and no kubelet.

So Jobs never run and nobody sets the status of a VolumeSnapshot: the tests do. Deleted namespaces stay forever, which
is why every test gets one of its own.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.kube.client import KubeClient, connect
from cinderblock.kube.kinds import NAMESPACE
from tests.cluster import apiserver
from tests.support.cluster.custom_resources import install
from tests.support.gateway.gateways import Gateway, gateway_before, source_of

RUNNING_SERVER = "CINDERBLOCK_TEST_KUBECONFIG"
"""Environment variable: kubeconfig of a throw-away API server with the kinds of CSI snapshots, instead of our own."""


@pytest.fixture(scope="session")
def bare_kubeconfig() -> Iterator[Path]:
    """Administrator's kubeconfig of an API server as it was started."""
    already = os.environ.get(RUNNING_SERVER)
    if already:
        yield Path(already)
        return
    with apiserver.running(with_snapshots=True) as server:
        yield server.kubeconfig


@pytest.fixture(scope="session")
def kubeconfig(bare_kubeconfig: Path) -> Path:
    """Administrator's kubeconfig of an API server that serves our kinds."""

    async def prepare() -> None:
        async with aclosing(await connect(kubeconfig=str(bare_kubeconfig))) as client:
            for resource in RESOURCES:
                await install(client, resource)

    asyncio.run(prepare())
    return bare_kubeconfig


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    """A client with an administrator's rights."""
    async with aclosing(await connect(kubeconfig=str(kubeconfig))) as connected:
        yield connected


@pytest.fixture
async def namespace(client: KubeClient) -> str:
    """Name of a new namespace."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    await client.create(NAMESPACE, {"metadata": {"name": name}})
    return name


@pytest.fixture
async def gateway(kubeconfig: Path, client: KubeClient) -> AsyncIterator[Gateway]:
    """A gateway in front of the API server."""
    async with gateway_before(source_of(str(kubeconfig)), client) as running:
        yield running
