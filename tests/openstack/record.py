"""Play every scenario to the real Cinder and record its answers: ``make cinder-answers``.

Runs in the virtualenv of tests/openstack/locks/cinder.txt.
"""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import webob

from tests.openstack import clients
from tests.openstack.answers import Answer, Names, found
from tests.openstack.identity import Identity
from tests.openstack.real_cinder import USER, Cinder
from tests.openstack.scenarios import LONG, Change, Command, Request, Scenario, every

ENDPOINT = "http://cinder"
REFERENCES = ("volume", "parent", "snapshot_id")
"""Fields that refer to another object."""


def main() -> None:
    """Write tests/data/cinder/answers."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="cinder-") as directory:
        cinder = Cinder(Path(directory))
        for scenario in every(Request):
            _record(scenario, _play_requests(cinder, scenario))
        with clients.running() as programs:
            for scenario in every(Command):
                _record(scenario, _play_commands(cinder, programs, scenario))


def _record(scenario: Scenario, answers: list[dict[str, Any]]) -> None:
    titled = [{"request": title, "answer": answer} for title, answer in zip(scenario.titles, answers, strict=True)]
    scenario.recording.parent.mkdir(parents=True, exist_ok=True)
    scenario.recording.write_text(json.dumps(titled, indent=1, sort_keys=True) + "\n", "utf-8")
    print(f"{scenario.name}: {len(answers)} answers")


def _play_requests(cinder: Cinder, scenario: Scenario) -> list[dict[str, Any]]:
    names = _plant(cinder, scenario, ENDPOINT)

    def ask(request: Request) -> dict[str, Any]:
        return _ask(cinder, request, names).dump()

    return _play(cinder, scenario, names, ask)


def _play_commands(cinder: Cinder, programs: clients.Clients, scenario: Scenario) -> list[dict[str, Any]]:
    with _served(cinder) as (endpoint, identity):
        names = _plant(cinder, scenario, endpoint)
        identity.project = cinder.project

        def run(command: Command) -> dict[str, Any]:
            environment = clients.login(f"{endpoint}/identity/v3", cinder.project, "secret", command.role)
            outcome = programs.run(names.fill(command.line), environment)
            if outcome.code == 0:
                names.values |= {name: outcome.row(row) for name, row in command.remember.items()}
            return outcome.comparable(names)

        return _play(cinder, scenario, names, run)


def _plant(cinder: Cinder, scenario: Scenario, endpoint: str) -> Names:
    cinder.new_project()
    names = Names({"project": cinder.project, "user": USER, "endpoint": endpoint, LONG.strip("<>"): "x" * 256})
    for kind, fields in scenario.objects:
        resolved = {key: names.values[value] if key in REFERENCES else value for key, value in fields.items()}
        names.values[fields["name"]] = cinder.plant(kind, **resolved)
    return names


def _play(
    cinder: Cinder, scenario: Scenario, names: Names, ask: Callable[[Any], dict[str, Any]]
) -> list[dict[str, Any]]:
    answers = []
    for step in scenario.steps:
        if isinstance(step, Change):
            _change(cinder, step, names)
        else:
            answers.append(ask(step))
    return answers


def _change(cinder: Cinder, change: Change, names: Names) -> None:
    identity = names.values[change.name]
    if change.fields is None:
        cinder.remove(change.kind, identity)
    else:
        cinder.change(change.kind, identity, **change.fields)


def _ask(cinder: Cinder, request: Request, names: Names) -> Answer:
    path = request.path if request.path.startswith("/") else f"/v3/<project>/{request.path}"
    headers = {name: names.fill(value) for name, value in request.headers.items()}
    sent = webob.Request.blank(names.fill(path), method=request.method, base_url=ENDPOINT, headers=headers)
    if request.sent is not None:
        sent.body = names.fill(request.sent).encode()
    response = cinder.call(sent, request.role)
    if response.status_code < 300:
        names.values |= {name: found(response.text, where) for name, where in request.remember.items()}
    return Answer.of(response.status_code, dict(response.headers), response.text, names)


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Log nothing."""


@contextmanager
def _served(cinder: Cinder) -> Iterator[tuple[str, Identity]]:
    """Serve Cinder and an identity service on a local port. Yields the URL and the identity service."""

    def application(environment: Any, start: Any) -> Any:
        if environment["PATH_INFO"].startswith("/identity"):
            return identity(environment, start)
        role = identity.roles.get(environment.get("HTTP_X_AUTH_TOKEN", ""), "reader")
        return cinder.call(webob.Request(environment), role)(environment, start)

    with make_server("127.0.0.1", 0, application, handler_class=_Silent) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        identity = Identity(endpoint, cinder.project, USER)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint, identity
        server.shutdown()


if __name__ == "__main__":
    main()
