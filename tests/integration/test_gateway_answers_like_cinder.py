"""The same requests to the real Cinder and to the gateway: same codes, same shapes, same messages.

Cinder's answers are recorded (``make cinder-answers``). Where ours are meant to differ, tests.openstack.differences
says how and why.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
from yarl import URL

from cinderblock.kube.client import KubeClient
from tests.openstack import differences
from tests.openstack.answers import Answer, found
from tests.openstack.player import Player
from tests.openstack.scenarios import Command, Request, Scenario, every
from tests.support.gateways import Gateway

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("scenario", every(Request), ids=lambda scenario: scenario.name)
async def test_answers_as_cinder_does(scenario: Scenario, client: KubeClient, namespace: str, gateway: Gateway) -> None:
    recorded = [Answer.load(entry["answer"]) for entry in json.loads(scenario.recording.read_text("utf-8"))]
    player = await Player.of(scenario, client, namespace, gateway)
    ours = await player.play(scenario, _asking(player))
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


def _asking(player: Player) -> Callable[[Request | Command], Awaitable[Answer]]:
    """How a request of a scenario is sent."""

    async def ask(request: Request | Command) -> Answer:
        assert isinstance(request, Request)
        person, names = player.people[request.role], player.names
        path = request.path if request.path.startswith("/") else f"/v3/<project>/{request.path}"
        headers = {name: names.fill(value) for name, value in request.headers.items()}
        body = None if request.sent is None else names.fill(request.sent).encode()
        async with person.session.request(
            request.method,
            URL(person.url + names.fill(path), encoded=True),
            data=body,
            headers=headers | {"X-Auth-Token": person.token},
            allow_redirects=False,
            skip_auto_headers=("Content-Type",),
        ) as response:
            text = await response.text()
            if response.status < 300:
                names.values |= {name: found(text, where) for name, where in request.remember.items()}
            return Answer.of(response.status, response.headers, text, names)

    return ask


def _unlike(theirs: object, ours: object, where: str = "") -> list[str]:
    """Where two answers differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = sorted(theirs.keys() | ours.keys())
        return [line for key in keys for line in _unlike(theirs.get(key, ...), ours.get(key, ...), f"{where}.{key}")]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = enumerate(zip(theirs, ours, strict=True))
        return [line for number, (one, two) in pairs for line in _unlike(one, two, f"{where}[{number}]")]
    return [] if theirs == ours else [f"{where}: Cinder {theirs!r}, ours {ours!r}"]
