"""``cinderblock broker`` as a process with the rights of the chart, in front of a real API server and S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from cinderblock.api.broker import SIGN_PATH
from cinderblock.errors import AccessDenied
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.store.s3.store import S3Store
from tests.cluster.choices import free_ports
from tests.contract.s3_server import s3_server
from tests.support.broker.brokers import authority_of
from tests.support.broker.tenants import VOLUME, make_cluster_store, make_secrets, make_tenant
from tests.support.cluster.chart import BROKER, NAMESPACE, render
from tests.support.cluster.kubectl import as_user
from tests.support.cluster.rights import connect_as, create_token, grant

pytestmark = pytest.mark.integration

PROGRAM = "from cinderblock.cli.main import main; raise SystemExit(main())"
ACCOUNT = "cinderblock-broker"


@dataclass
class Running:
    """A process, and its log."""

    port: int
    health: str
    code: int | None = None
    log: list[dict[str, Any]] = field(default_factory=list)


@asynccontextmanager
async def process(kubeconfig: Path) -> AsyncIterator[Running]:
    port, health = free_ports(2)
    command = [sys.executable, "-c", PROGRAM, "broker", "--host=127.0.0.1", "--host-names=localhost,127.0.0.1"]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": "operator"}
    started = await asyncio.create_subprocess_exec(
        *command, f"--port={port}", f"--health-port={health}", f"--service-account={ACCOUNT}", env=environment,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    running = Running(port, f"http://127.0.0.1:{health}")
    assert started.stderr is not None
    try:
        line = await asyncio.wait_for(started.stderr.readline(), 60)
        while b"Listening" not in line:
            assert line, running.log
            running.log.append(json.loads(line))
            line = await asyncio.wait_for(started.stderr.readline(), 60)
        yield running
    finally:
        started.send_signal(signal.SIGTERM)
        rest = await asyncio.wait_for(started.stderr.read(), 60)
        running.code = await started.wait()
        running.log += [json.loads(line) for line in rest.splitlines()]


@asynccontextmanager
async def rights(kubeconfig: Path, client: KubeClient, folder: Path) -> AsyncIterator[Path]:
    """Yield a kubeconfig of the broker's ServiceAccount, with the roles of the chart."""
    ours = [item for item in render(*BROKER) if item["metadata"]["name"] == ACCOUNT]
    await grant(client, ours)
    [secret] = [item for item in render(*BROKER) if item["metadata"]["name"] == f"{ACCOUNT}-tls"]
    await client.create(kinds.SECRET, secret)
    token = create_token(kubeconfig, NAMESPACE, ACCOUNT)
    path = as_user(kubeconfig, {"token": token}, folder / "broker.kubeconfig")
    config = yaml.safe_load(path.read_text())
    for context in config["contexts"]:
        context["context"]["namespace"] = NAMESPACE
    path.write_text(yaml.safe_dump(config))
    yield path


async def test_process_works_with_the_rights_of_the_chart(kubeconfig: Path, client: KubeClient, tmp_path: Path) -> None:
    with s3_server() as server:
        S3Store(server.location("bucket", create_container=True), server.credentials).check()
        await make_secrets(client, NAMESPACE, server.credentials.access_key, server.credentials.secret_key)
        await make_cluster_store(client, server.url)
        tenant = await make_tenant(client)
        mover = await tenant.backup()
        async with rights(kubeconfig, client, tmp_path) as path, process(path) as running:
            ca = await authority_of(client, NAMESPACE, "cinderblock-broker-tls")
            await _check_serving(
                running, ca, mover.token, f"{server.url}/bucket/{tenant.prefix}/packs/{VOLUME}/{mover.uid}/data-key"
            )
    assert running.code == 0
    lines = [line for line in running.log if line["logger"] == "cinderblock.broker.access"]
    assert [(line["message"], line.get("namespace")) for line in lines] == [
        (f"POST {SIGN_PATH} 200", tenant.namespace),
        (f"POST {SIGN_PATH} 401", None),
    ]
    assert mover.token not in json.dumps(running.log)
    await _check_rights(kubeconfig, client, tmp_path)


async def _check_serving(running: Running, ca: str, token: str, url: str) -> None:
    context = ssl.create_default_context(cadata=ca)
    headers = {"x-amz-content-sha256": hashlib.sha256(b"").hexdigest()}
    body = {"method": "PUT", "url": url, "headers": headers}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        for shown, status in ((token, 200), ("nonsense", 401)):
            authorization = {"Authorization": f"Bearer {shown}"}
            target = f"https://localhost:{running.port}{SIGN_PATH}"
            async with session.post(target, json=body, headers=authorization) as answer:
                assert answer.status == status, await answer.text()
        for path in ("/healthz", "/readyz", "/metrics"):
            async with session.get(running.health + path) as answer:
                assert answer.status == 200


async def _check_rights(kubeconfig: Path, client: KubeClient, folder: Path) -> None:
    """Check that the account may do nothing else."""
    await client.create(kinds.SERVICE_ACCOUNT, {"metadata": {"name": "other", "namespace": NAMESPACE}})
    broker = await connect_as(kubeconfig, NAMESPACE, ACCOUNT, folder)
    try:
        assert await broker.create_token(NAMESPACE, ACCOUNT, "sts.example.com", 600)
        for attempt in (
            broker.create_token(NAMESPACE, "other", "sts.example.com", 600),
            broker.get(kinds.SECRET, "x", "default"),
            broker.list(kinds.SECRET, NAMESPACE),
            broker.list(kinds.POD, NAMESPACE),
            broker.list(kinds.VOLUME_BACKUP, NAMESPACE),
            broker.merge_patch(kinds.SECRET, "credentials", NAMESPACE, {"data": {}}),
            broker.create(kinds.POD, {"metadata": {"name": "x", "namespace": NAMESPACE}}),
            broker.delete(kinds.SECRET, "credentials", NAMESPACE),
            broker.create(kinds.SECRET, {"metadata": {"name": "x", "namespace": NAMESPACE}}),
        ):
            with pytest.raises(AccessDenied):
                await attempt
    finally:
        await broker.aclose()
