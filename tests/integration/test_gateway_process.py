"""``cinderblock gateway`` as a process, with an administrator's kubeconfig whose rights it must not use."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.choices import free_ports
from tests.support.gateway.gateways import Gateway, Person

pytestmark = pytest.mark.integration

PROGRAM = "from cinderblock.cli.main import main; raise SystemExit(main())"


@dataclass
class Running:
    """A process, and its log after its end."""

    url: str
    health: str
    code: int | None = None
    log: list[dict[str, object]] = field(default_factory=list)


@asynccontextmanager
async def process(kubeconfig: Path, *options: str) -> AsyncIterator[Running]:
    port, health = free_ports(2)
    command = [sys.executable, "-c", PROGRAM, "gateway", "--host=127.0.0.1"]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": "operator"}
    started = await asyncio.create_subprocess_exec(
        *command, f"--port={port}", f"--health-port={health}", *options, env=environment, stderr=asyncio.subprocess.PIPE
    )
    running = Running(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{health}")
    assert started.stderr is not None
    try:
        line = await asyncio.wait_for(started.stderr.readline(), 60)
        while b"Listening" not in line:
            assert line, "the process ended"
            running.log.append(json.loads(line))
            line = await asyncio.wait_for(started.stderr.readline(), 60)
        yield running
    finally:
        started.send_signal(signal.SIGTERM)
        rest = await asyncio.wait_for(started.stderr.read(), 60)
        running.code = await started.wait()
        running.log += [json.loads(line) for line in rest.splitlines()]


async def test_process_uses_only_the_callers_token_and_logs_none(
    kubeconfig: Path, gateway: Gateway, namespace: str
) -> None:
    person = await gateway.person(namespace)
    async with process(kubeconfig) as running, aiohttp.ClientSession() as session:
        caller = Person(session, running.url, namespace, person.token)
        assert (await caller.get("backups?name=hidden")).json == {"backups": []}
        assert (await caller.get("/v3/kube-system/backups")).status == 403
        nobody = Person(session, running.url, namespace, "nonsense")
        assert (await nobody.get("backups")).status == 401
        for path, code in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200)):
            async with session.get(running.health + path) as answer:
                assert answer.status == code
    assert running.code == 0
    lines = [line for line in running.log if line["logger"] == "cinderblock.gateway.access"]
    assert [line["message"] for line in lines] == [
        f"GET /v3/{namespace}/backups 200",
        "GET /v3/kube-system/backups 403",
        f"GET /v3/{namespace}/backups 401",
    ]
    assert all(str(line["request_id"]).startswith("req-") for line in lines)
    assert person.token not in json.dumps(running.log)
    assert "hidden" not in json.dumps(running.log)


async def test_process_without_authentication_warns(kubeconfig: Path, namespace: str) -> None:
    async with process(kubeconfig, "--auth=none") as running, aiohttp.ClientSession() as session:
        anybody = Person(session, running.url, namespace, "")
        assert (await anybody.get("backups")).status == 200
    (warning,) = [line for line in running.log if line["level"] == "warning"]
    assert "for tests only" in str(warning["message"])
