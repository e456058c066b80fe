"""Plays a scenario to a gateway: creates its objects, makes its changes, and sends its requests with a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from cinderblock.kube.client import KubeClient
from tests.openstack.answers import Names
from tests.openstack.kubernetes_backend import KubernetesBackend
from tests.openstack.scenarios import LONG, Change, Command, Request, Scenario
from tests.support.gateway.gateways import MEMBER, READER, Gateway, Person

T = TypeVar("T")

_REFERENCES = ("volume", "parent", "snapshot_id")
"""Fields that refer to another object."""


class Player:
    """One scenario in one namespace.

    Attributes:
        people: the callers by role.
        names: the values of the names in angle brackets.
    """

    def __init__(self, people: dict[str, Person], backend: KubernetesBackend, names: Names) -> None:
        self.people, self.names = people, names
        self._backend = backend

    @classmethod
    async def of(cls, scenario: Scenario, client: KubeClient, namespace: str, gateway: Gateway) -> Player:
        """Return a player whose namespace contains the scenario's objects."""
        backend = KubernetesBackend(client, namespace)
        await backend.prepare()
        people = {
            "member": await gateway.person(namespace, MEMBER),
            "reader": await gateway.person(namespace, READER),
            "admin": await gateway.person(namespace, MEMBER, admin=True),
        }
        names = Names({"project": namespace, "endpoint": gateway.url, LONG.strip("<>"): "x" * 256})
        for kind, fields in scenario.objects:
            resolved = {key: names.values[value] if key in _REFERENCES else value for key, value in fields.items()}
            names.values[fields["name"]] = await backend.plant(kind, **resolved)
        return cls(people, backend, names)

    async def play(self, scenario: Scenario, ask: Callable[[Request | Command], Awaitable[T]]) -> list[T]:
        """Return the results of ``ask`` for all requests. After each, the operator processes new objects."""
        answers = []
        for step in scenario.steps:
            if isinstance(step, Change):
                await self._change(step)
                continue
            answers.append(await ask(step))
            if not (isinstance(step, Request) and step.method == "GET"):
                await self._backend.settle()
        return answers

    async def _change(self, change: Change) -> None:
        identity = self.names.values[change.name]
        if change.fields is None:
            await self._backend.remove(change.kind, identity)
        else:
            await self._backend.change(change.kind, identity, **change.fields)
