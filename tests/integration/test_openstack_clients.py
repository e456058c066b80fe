"""OpenStack's clients, unmodified, print the same for the gateway as for the real Cinder.

Their output against Cinder is recorded (``make cinder-answers``). They log in with a Kubernetes token as their
password. tests.openstack.client_differences lists the intended differences.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import VOLUME_BACKUP
from tests.openstack import client_differences, clients
from tests.openstack.player import Player
from tests.openstack.scenarios import Command, Request, Scenario, every
from tests.support.gateway.gateways import Gateway

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def programs() -> Iterator[clients.Clients]:
    """The current clients."""
    with clients.running() as running:
        yield running


@pytest.mark.parametrize("scenario", every(Command), ids=lambda scenario: scenario.name)
async def test_clients_print_the_same_as_with_cinder(
    scenario: Scenario, client: KubeClient, namespace: str, gateway: Gateway, programs: clients.Clients
) -> None:
    player = await Player.of(scenario, client, namespace, gateway)

    async def run(command: Request | Command) -> dict[str, Any]:
        assert isinstance(command, Command)
        environment = clients.login(
            f"{gateway.url}/identity/v3", namespace, player.people[command.role].token, command.role
        )
        outcome = await asyncio.to_thread(programs.run, player.names.fill(command.line), environment)
        if outcome.code == 0:
            player.names.values |= {name: outcome.row(row) for name, row in command.remember.items()}
        return outcome.comparable(player.names)

    ours = await player.play(scenario, run)
    recorded = [entry["answer"] for entry in json.loads(scenario.recording.read_text("utf-8"))]
    wrong = [
        f"$ {title}\n    Cinder: {expected}\n    ours:   {seen}"
        for title, theirs, told in zip(scenario.titles, recorded, ours, strict=True)
        for expected, seen in [client_differences.pair(title, theirs, told)]
        if expected != seen
    ]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ours)} commands differ", *wrong])


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ("clients", "python cinderclient 3.71 <database>"),
        ("clients", "python cinderclient 3.0 <database>"),
        ("clients", "python sdk <database>"),
        ("clients-v2", "python cinderclient 2 <database>"),
    ],
    ids=["cinderclient 3.71", "cinderclient 3.0", "openstacksdk", "the last cinderclient that speaks v2"],
)
async def test_python_interfaces_work(
    environment: str, line: str, client: KubeClient, namespace: str, gateway: Gateway
) -> None:
    objects = [("volume", {"name": "database"}), ("snapshot", {"name": "evening", "volume": "database"})]
    player = await Player.of(Scenario("python", objects, []), client, namespace, gateway)
    logged_in = clients.login(f"{gateway.url}/identity/v3", namespace, player.people["member"].token)
    with clients.running(environment) as programs:
        outcome = await asyncio.to_thread(programs.run, player.names.fill(line), logged_in)
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    (backup,) = await client.list(VOLUME_BACKUP, namespace)
    identity, name = backup["metadata"]["uid"], backup["spec"]["name"]
    assert told == {
        "made": [identity, name],
        "shown": [identity, name, "text", "creating", player.names.values["database"], 1],
        "found": [identity],
        "volume": "database",
        "snapshots": ["evening"],
    }
    assert backup["spec"] == {
        "volumeId": player.names.values["database"],
        "name": name,
        "description": "text",
        "force": True,
        "unreadable": "Fail",
        "hold": False,
        "incremental": False,
    }
