"""Play every scenario to the real Cinder and record its answers: ``make cinder-answers``.

Runs in the virtualenv of tests/openstack/locks/cinder.txt.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from tests.openstack.answers import Answer, Names, found
from tests.openstack.real_cinder import USER, Cinder
from tests.openstack.scenarios import LONG, Change, Request, Scenario, every

ENDPOINT = "http://cinder"
REFERENCES = ("volume", "parent", "snapshot_id")
"""Fields of a planted object that name another one."""


def main() -> None:
    """Write tests/data/cinder/answers."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="cinder-") as directory:
        cinder = Cinder(Path(directory))
        for scenario in every():
            answers = _play(cinder, scenario)
            scenario.recording.parent.mkdir(parents=True, exist_ok=True)
            scenario.recording.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n", "utf-8")
            print(f"{scenario.name}: {len(answers)} answers")


def _play(cinder: Cinder, scenario: Scenario) -> list[dict[str, object]]:
    cinder.new_project()
    names = Names({"project": cinder.project, "user": USER, "endpoint": ENDPOINT, LONG.strip("<>"): "x" * 256})
    for kind, fields in scenario.world:
        resolved = {key: names.values[value] if key in REFERENCES else value for key, value in fields.items()}
        names.values[fields["name"]] = cinder.plant(kind, **resolved)
    recorded: list[dict[str, object]] = []
    for step in scenario.steps:
        if isinstance(step, Change):
            _change(cinder, step, names)
        else:
            recorded.append({"request": step.title, "answer": _ask(cinder, step, names).dump()})
    return recorded


def _change(cinder: Cinder, change: Change, names: Names) -> None:
    identity = names.values[change.name]
    if change.fields is None:
        cinder.remove(change.kind, identity)
    else:
        cinder.change(change.kind, identity, **change.fields)


def _ask(cinder: Cinder, request: Request, names: Names) -> Answer:
    path = request.path if request.path.startswith("/") else f"/v3/<project>/{request.path}"
    headers = {name: names.fill(value) for name, value in request.headers.items()}
    body = None if request.sent is None else names.fill(request.sent).encode()
    response = cinder.call(request.method, names.fill(path), headers, body, request.role)
    if response.status_code < 300:
        names.values |= {name: found(response.text, where) for name, where in request.remember.items()}
    return Answer.of(response.status_code, dict(response.headers), response.text, names)


if __name__ == "__main__":
    main()
