"""Schemathesis against a gateway, with requests that its OpenAPI document allows and others that it does not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from tests.openstack.environments import programs
from tests.support.gateway.gateways import Person

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
"""Every response matches the document, and none is 5xx. Other tests check which requests are rejected."""


@dataclass(frozen=True)
class Run:
    """The result of a run."""

    code: int
    output: str


async def fuzz(person: Person, folder: Path, known: dict[str, str], examples: int) -> Run:
    """Send ``examples`` requests for each operation and phase.

    Args:
        person: the caller.
        folder: directory for files of the run.
        known: existing values of path parameters, so that not all requests end in 404.
        examples: number of requests.
    """
    config = folder / "schemathesis.toml"
    parameters = {"project": person.project, **known}
    config.write_text("[parameters]\n" + "".join(f'"path.{key}" = "{value}"\n' for key, value in parameters.items()))
    command = [
        str(await asyncio.to_thread(lambda: programs("fuzzer") / "schemathesis")),
        f"--config-file={config}",
        "--no-color",
        "run",
        f"{person.url}/openapi.json",
        f"--header=X-Auth-Token: {person.token}",
        f"--checks={','.join(CHECKS)}",
        f"--max-examples={examples}",
        "--phases=examples,coverage,fuzzing",
        "--mode=all",
        "--generation-deterministic",
        "--suppress-health-check=all",
        "--request-timeout=30",
        "--continue-on-failure",
    ]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return Run(process.returncode or 0, output.decode().replace(person.token, json.dumps("<token>")))
