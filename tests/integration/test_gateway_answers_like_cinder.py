"""The same requests to the real Cinder and to the gateway: same codes, same shapes, same messages.

Cinder's answers are recorded (``make cinder-answers``). Where ours are meant to differ, tests.openstack.differences
says how and why.
"""

from __future__ import annotations

import json

import pytest
from yarl import URL

from cinderblock.kube.client import KubeClient
from tests.openstack import differences
from tests.openstack.answers import Answer, Names, found
from tests.openstack.kubernetes_world import KubernetesWorld
from tests.openstack.scenarios import LONG, Change, Command, Request, Scenario, every
from tests.support.gateways import MEMBER, READER, Gateway, Person

pytestmark = pytest.mark.integration

REFERENCES = ("volume", "parent", "snapshot_id")


@pytest.mark.parametrize("scenario", every(Request), ids=lambda scenario: scenario.name)
async def test_answers_as_cinder_does(scenario: Scenario, client: KubeClient, namespace: str, gateway: Gateway) -> None:
    recorded = [Answer.load(entry["answer"]) for entry in json.loads(scenario.recording.read_text("utf-8"))]
    player = await Player.of(scenario, client, namespace, gateway)
    ours = await player.play(scenario)
    wrong = []
    for title, theirs, answer in zip(scenario.titles, recorded, ours, strict=True):
        expected, seen = differences.pair(title, theirs, answer)
        unlike = _unlike(expected.dump(), seen.dump())
        if unlike:
            wrong.append("\n    ".join([title, *unlike]))
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ours)} answers differ", *wrong])


def test_every_listed_difference_is_there() -> None:
    """A difference that no longer applies to any recorded answer is taken off the list."""
    used = set()
    for scenario in every(Request):
        for entry in json.loads(scenario.recording.read_text("utf-8")):
            used |= differences.applying(entry["request"], Answer.load(entry["answer"]))
    assert used == {difference.name for difference in differences.ALL}


class Player:
    """Plays one scenario to a gateway."""

    def __init__(self, people: dict[str, Person], world: KubernetesWorld, names: Names) -> None:
        self._people, self._world, self._names = people, world, names

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
            resolved = {key: names.values[value] if key in REFERENCES else value for key, value in fields.items()}
            names.values[fields["name"]] = await world.plant(kind, **resolved)
        return cls(people, world, names)

    async def play(self, scenario: Scenario) -> list[Answer]:
        """Answers to all requests of the scenario."""
        answers = []
        for step in scenario.steps:
            assert not isinstance(step, Command)
            if isinstance(step, Change):
                await self._change(step)
            else:
                answers.append(await self._ask(step))
                if step.method != "GET" and answers[-1].status < 300:
                    await self._world.settle()
        return answers

    async def _change(self, change: Change) -> None:
        identity = self._names.values[change.name]
        if change.fields is None:
            await self._world.remove(change.kind, identity)
        else:
            await self._world.change(change.kind, identity, **change.fields)

    async def _ask(self, request: Request) -> Answer:
        person = self._people[request.role]
        path = request.path if request.path.startswith("/") else f"/v3/<project>/{request.path}"
        headers = {name: self._names.fill(value) for name, value in request.headers.items()}
        body = None if request.sent is None else self._names.fill(request.sent).encode()
        url = URL(person.url + self._names.fill(path), encoded=True)
        async with person.session.request(
            request.method,
            url,
            data=body,
            headers=headers | {"X-Auth-Token": person.token},
            allow_redirects=False,
            skip_auto_headers=("Content-Type",),
        ) as response:
            text = await response.text()
            if response.status < 300:
                self._names.values |= {name: found(text, where) for name, where in request.remember.items()}
            return Answer.of(response.status, response.headers, text, self._names)


def _unlike(theirs: object, ours: object, where: str = "") -> list[str]:
    """Where two answers differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = sorted(theirs.keys() | ours.keys())
        return [line for key in keys for line in _unlike(theirs.get(key, ...), ours.get(key, ...), f"{where}.{key}")]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = enumerate(zip(theirs, ours, strict=True))
        return [line for number, (one, two) in pairs for line in _unlike(one, two, f"{where}[{number}]")]
    return [] if theirs == ours else [f"{where}: Cinder {theirs!r}, ours {ours!r}"]
