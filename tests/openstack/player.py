"""Plays a scenario to a gateway: plants its world, makes its changes happen, and has a function ask what it asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from cinderblock.kube.client import KubeClient
from tests.openstack.answers import Names
from tests.openstack.kubernetes_world import KubernetesWorld
from tests.openstack.scenarios import LONG, Change, Command, Request, Scenario
from tests.support.gateway.gateways import MEMBER, READER, Gateway, Person

T = TypeVar("T")

_REFERENCES = ("volume", "parent", "snapshot_id")
"""Fields of a planted object that name another one."""


class Player:
    """One scenario in one namespace.

    Attributes:
        people: who asks, by role.
        names: what the names in angle brackets stand for.
    """

    def __init__(self, people: dict[str, Person], world: KubernetesWorld, names: Names) -> None:
        self.people, self.names = people, names
        self._world = world

    @classmethod
    async def of(cls, scenario: Scenario, client: KubeClient, namespace: str, gateway: Gateway) -> Player:
        """With the scenario's world planted in the namespace."""
        world = KubernetesWorld(client, namespace)
        await world.prepare()
        people = {
            "member": await gateway.person(namespace, MEMBER),
            "reader": await gateway.person(namespace, READER),
            "admin": await gateway.person(namespace, MEMBER, admin=True),
        }
        names = Names({"project": namespace, "endpoint": gateway.url, LONG.strip("<>"): "x" * 256})
        for kind, fields in scenario.world:
            resolved = {key: names.values[value] if key in _REFERENCES else value for key, value in fields.items()}
            names.values[fields["name"]] = await world.plant(kind, **resolved)
        return cls(people, world, names)

    async def play(self, scenario: Scenario, ask: Callable[[Request | Command], Awaitable[T]]) -> list[T]:
        """What ``ask`` gives for everything that the scenario asks; after each, the operator has seen what is new."""
        answers = []
        for step in scenario.steps:
            if isinstance(step, Change):
                await self._change(step)
                continue
            answers.append(await ask(step))
            if not (isinstance(step, Request) and step.method == "GET"):
                await self._world.settle()
        return answers

    async def _change(self, change: Change) -> None:
        identity = self.names.values[change.name]
        if change.fields is None:
            await self._world.remove(change.kind, identity)
        else:
            await self._world.change(change.kind, identity, **change.fields)
