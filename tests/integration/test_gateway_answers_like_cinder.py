"""The same requests to the real Cinder and to the gateway: same codes, same shapes, same messages.

Cinder's answers are recorded (``make cinder-answers``). Where ours are meant to differ, tests.openstack.differences
says how and why.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from yarl import URL

from cinderblock.kube.client import KubeClient
from tests.openstack import differences
from tests.openstack.answers import Answer, found
from tests.openstack.player import Player
from tests.openstack.scenarios import Command, Request, Scenario, every
from tests.support.gateway.gateways import Gateway

pytestmark = pytest.mark.integration

IN_V2 = ("creating_bad_input", "creating_rules", "deleting", "listing", "restoring", "showing")
"""Scenarios that apply to v2, because most of their requests select no microversion."""


@pytest.mark.parametrize("scenario", every(Request), ids=lambda scenario: scenario.name)
async def test_gateway_answers_like_cinder(
    scenario: Scenario, client: KubeClient, namespace: str, gateway: Gateway
) -> None:
    recorded = [Answer.load(entry["answer"]) for entry in json.loads(scenario.recording.read_text("utf-8"))]
    player = await Player.of(scenario, client, namespace, gateway)
    ours = await player.play(scenario, _asking(player))
    wrong = []
    for title, theirs, answer in zip(scenario.titles, recorded, ours, strict=True):
        expected, actual = differences.pair(title, theirs, answer)
        unlike = _unlike(expected.dump(), actual.dump())
        if unlike:
            wrong.append("\n    ".join([title, *unlike]))
    assert not wrong, "\n".join([f"{len(wrong)} of {len(ours)} answers differ", *wrong])


@pytest.mark.parametrize(
    "name", ["creating_bad_input", "creating_rules", "deleting", "listing", "restoring", "showing"]
)
async def test_v2_answers_like_v3_without_microversions(
    name: str, client: KubeClient, namespace: str, gateway: Gateway
) -> None:
    """The exceptions are deletion, which is 204 (api-ref v2), and the headers about microversions."""
    scenario = next(scenario for scenario in every(Request) if scenario.name == name)
    recorded = [Answer.load(entry["answer"]) for entry in json.loads(scenario.recording.read_text("utf-8"))]
    player = await Player.of(scenario, client, namespace, gateway)
    ours = await player.play(scenario, _asking(player, major=2))
    requests = [step for step in scenario.steps if isinstance(step, Request)]
    wrong = []
    for request, theirs, answer in zip(requests, recorded, ours, strict=True):
        if not _is_in_v2(request):
            continue
        expected, actual = differences.pair(request.title, _as_v2(theirs, request), answer)
        unlike = _unlike(expected.dump(), actual.dump())
        if unlike:
            wrong.append("\n    ".join([request.title, *unlike]))
    assert not wrong, "\n".join([f"{len(wrong)} answers differ", *wrong])


def test_every_listed_difference_exists() -> None:
    """A difference that applies to no recorded answer must be removed from the list."""
    used = set()
    for scenario in every(Request):
        for entry in json.loads(scenario.recording.read_text("utf-8")):
            used |= differences.applying(entry["request"], Answer.load(entry["answer"]))
    assert used == {difference.name for difference in differences.ALL}


def _is_in_v2(request: Request) -> bool:
    """Return whether a request selects no microversion, so that it can be sent to v2."""
    return not request.version and not request.header and not request.path.startswith("/")


def _as_v2(answer: Answer, request: Request) -> Answer:
    """Return the expected answer of v2 for an answer of v3 without microversions."""
    headers = {key: value for key, value in answer.headers.items() if key not in ("vary", "openstack-api-version")}
    status = 204 if request.method == "DELETE" and answer.status == 202 else answer.status
    return replace(answer, status=status, headers=headers)


def _asking(player: Player, major: int = 3) -> Callable[[Request | Command], Awaitable[Answer]]:
    """Send a request of a scenario."""

    async def ask(request: Request | Command) -> Answer:
        assert isinstance(request, Request)
        person, names = player.people[request.role], player.names
        spoken = major if _is_in_v2(request) else 3
        path = request.path if request.path.startswith("/") else f"/v{spoken}/<project>/{request.path}"
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
            text = text.replace(f"/v{spoken}/", "/v3/")
            return Answer.of(response.status, response.headers, text, names)

    return ask


def _unlike(theirs: object, ours: object, where: str = "") -> list[str]:
    """Return the differences between two answers."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = sorted(theirs.keys() | ours.keys())
        return [line for key in keys for line in _unlike(theirs.get(key, ...), ours.get(key, ...), f"{where}.{key}")]
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = enumerate(zip(theirs, ours, strict=True))
        return [line for number, (one, two) in pairs for line in _unlike(one, two, f"{where}[{number}]")]
    return [] if theirs == ours else [f"{where}: Cinder {theirs!r}, ours {ours!r}"]
