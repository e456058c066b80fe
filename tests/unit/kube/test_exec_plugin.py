"""Credential plugins: when they run, how long, and what an error gives away."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderblock.errors import AccessDenied
from cinderblock.kube.exec_plugin import ExecPlugin, UserCredentials
from tests.support.cluster.kubeconfigs import SECRET, plugin_requests, write_plugin


async def run(plugin: ExecPlugin, entry: dict[str, Any], *, renew: bool = False) -> UserCredentials:
    return await plugin.credentials(entry, "/", {}, renew=renew)


async def test_plugin_runs_again_only_after_a_rejection(tmp_path: Path) -> None:
    script = tmp_path / "plugin.py"
    entry = write_plugin(script, {"token": SECRET})
    plugin = ExecPlugin()
    assert (await run(plugin, entry)).token == SECRET
    assert (await run(plugin, entry)).token == SECRET
    assert len(plugin_requests(script)) == 1
    await run(plugin, entry, renew=True)
    assert len(plugin_requests(script)) == 2


@pytest.mark.parametrize(("minutes", "runs"), [(30, 1), (0.5, 2)])
async def test_plugin_runs_again_a_minute_before_expiry(tmp_path: Path, minutes: float, runs: int) -> None:
    script = tmp_path / "plugin.py"
    expiry = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    entry = write_plugin(script, {"token": SECRET, "expirationTimestamp": expiry})
    plugin = ExecPlugin()
    await run(plugin, entry)
    await run(plugin, entry)
    assert len(plugin_requests(script)) == runs


async def test_plugin_may_give_a_certificate(tmp_path: Path) -> None:
    entry = write_plugin(tmp_path / "plugin.py", {"clientCertificateData": "CERT", "clientKeyData": "KEY"})
    assert await run(ExecPlugin(), entry) == UserCredentials(b"CERT", b"KEY", None)


async def test_plugin_without_cluster_info_gets_no_cluster(tmp_path: Path) -> None:
    script = tmp_path / "plugin.py"
    entry = write_plugin(script, {"token": SECRET}) | {"provideClusterInfo": False}
    await run(ExecPlugin(), entry)
    assert plugin_requests(script)[0]["spec"] == {"interactive": False}


@pytest.mark.parametrize(
    ("status", "code", "cause"),
    [({"token": SECRET}, 1, "ended with code 1"), ({}, 0, "gave neither a token nor a certificate")],
)
async def test_failed_plugin_is_named_without_its_output(
    tmp_path: Path, status: dict[str, Any], code: int, cause: str
) -> None:
    with pytest.raises(AccessDenied, match=cause) as caught:
        await run(ExecPlugin(), write_plugin(tmp_path / "plugin.py", status, code=code))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("output", ["nothing", "[]", "{}", '{"status": null}'])
async def test_plugin_without_an_answer_is_an_error(output: str) -> None:
    with pytest.raises(AccessDenied, match="gave neither a token nor a certificate"):
        await run(ExecPlugin(), {"command": "echo", "args": [output]})


async def test_missing_plugin_is_named() -> None:
    with pytest.raises(AccessDenied, match=r"Cannot run the credential plugin .*no-such-plugin: No such file"):
        await run(ExecPlugin(), {"command": "./no-such-plugin"})


def hanging_plugin(tmp_path: Path) -> dict[str, Any]:
    """Return the entry of a script that waits for a child of its own, after it has written their process ids."""
    script = tmp_path / "hanging.sh"
    script.write_text(
        f"#!/bin/sh\nsleep 60 &\necho $$ $! > {tmp_path}/started\nmv {tmp_path}/started {tmp_path}/pids\nwait\n"
    )
    return {"command": "sh", "args": [str(script)]}


async def wait_until_gone(tmp_path: Path) -> None:
    """Wait until neither the script nor its child runs."""
    pids = (tmp_path / "pids").read_text().split()
    async with asyncio.timeout(10):
        while any(is_running(pid) for pid in pids):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_plugin_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """A child that lives would hold the pipe, and the call would wait for it."""
    started = time.monotonic()
    with pytest.raises(AccessDenied, match="did not end within 1 seconds"):
        await run(ExecPlugin(seconds=1.0), hanging_plugin(tmp_path))
    assert time.monotonic() - started < 20
    await wait_until_gone(tmp_path)


async def test_cancelled_call_kills_its_plugin(tmp_path: Path) -> None:
    call = asyncio.create_task(run(ExecPlugin(), hanging_plugin(tmp_path)))
    async with asyncio.timeout(10):
        while not (tmp_path / "pids").exists():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await wait_until_gone(tmp_path)


async def test_plugin_cannot_read_the_terminal() -> None:
    """It runs in a session of its own, with an empty standard input."""
    entry = {
        "command": "sh",
        "args": ["-c", 'read line || echo "{\\"status\\": {\\"token\\": \\"$(ps -o sid= $$)\\"}}"'],
    }
    token = (await run(ExecPlugin(), entry)).token
    assert token
    assert int(token) != os.getsid(0)
